// Computes, and asks the kernel for next to nothing: numbers, strings, objects, sorting.
import { Far } from '@endo/far';

export function buildRootObject() {
  const totals = new Map();
  return Far('root', {
    work(seed, rounds) {
      let state = seed + 1;
      const next = () => {
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
        return state;
      };
      const entries = [];
      for (let n = 0; n < rounds; n += 1) {
        entries.push({ key: `key ${next() % 997}`, value: next() % 1_000, big: BigInt(n) * 7n });
      }
      entries.sort((one, other) => one.value - other.value || (one.key < other.key ? -1 : 1));
      let sum = 0n;
      for (const { key, value, big } of entries) {
        totals.set(key, (totals.get(key) || 0) + value);
        sum += big * BigInt(value);
      }
      return `${sum} of ${totals.size}, ${JSON.stringify(entries.slice(0, 20).map(({ key }) => key)).length}`;
    },
  });
}
