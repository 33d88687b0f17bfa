// A record that says something else than the worker did, as only a replay can notice.

// The item with one computron more than its delivery cost, or the same item if it records no cost: what is no real
// delivery costs nothing.
export const costMore = item =>
  item.replace(/"computrons":(\d+)}}}$/, (_, computrons) => `"computrons":${Number(computrons) + 1}}}}`);

// A store that, when asked to, lies about a vat's next delivery. The item is changed before it is stored, so the hash of
// its span fits.
export const makeLiar = ({ transcriptStore, rollbackCrank, endCrank, ...others }) => {
  let target; // the vat whose next delivery is lied about
  let lie; // the lie of the present crank
  let lies = []; // those of the block that is being made

  return {
    storage: harden({
      ...others,
      transcriptStore: {
        ...transcriptStore,
        addItem: (vatID, item) => {
          const stored = vatID === target ? costMore(item) : item;
          if (stored !== item) {
            target = undefined;
            lie = { vatID, position: transcriptStore.getCurrentSpanBounds(vatID).endPos };
          }
          transcriptStore.addItem(vatID, stored);
        },
      },
      // What is rolled back was never recorded: the next delivery is lied about instead.
      rollbackCrank: savepoint => {
        rollbackCrank(savepoint);
        if (lie) target = lie.vatID;
        lie = undefined;
      },
      endCrank: () => {
        endCrank();
        if (lie) lies.push(lie);
        lie = undefined;
      },
    }),
    lieAbout: vatID => {
      target = vatID;
    },
    // To be called after each commit.
    takeLies: () => {
      const taken = lies;
      lies = [];
      return taken;
    },
  };
};
