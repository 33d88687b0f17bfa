// Which spans close, block by block, as the store itself tells: from what it exports to its host. A crank that is rolled
// back takes its exports with it, so nothing is told here that is not committed.

// A closed span's key has its start; a current span's says so instead, and is of no interest.
const KEY = /^transcript\.(v\d+\.\d+)$/;

export const makeClosings = () => {
  const all = new Map(); // vat and start of each closed span that is in the database -> its closing
  let fresh = new Map(); // those of the block that is being made

  const exportCallback = updates => {
    const exported = new Map(updates);
    // The span was closed by a snapshot if its last item made one.
    const saved = (vat, end) => {
      const snapshot = exported.get(`snapshot.${vat}.${end - 1}`);
      return Boolean(snapshot && JSON.parse(snapshot).inUse);
    };
    for (const [key, value] of exported) {
      const [, name] = KEY.exec(key) || [];
      if (!name) continue;
      if (value === null) {
        all.delete(name);
        fresh.delete(name);
        continue;
      }
      const { vatID: vat, startPos: start, endPos: end } = JSON.parse(value);
      const closing = { vat, start, end, save: saved(vat, end) };
      all.set(name, closing);
      fresh.set(name, closing);
    }
  };

  return {
    exportCallback,
    all: () => [...all.values()],
    // To be called after each commit.
    takeFresh: () => {
      const taken = [...fresh.values()];
      fresh = new Map();
      return taken;
    },
  };
};
