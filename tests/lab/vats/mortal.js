// Dies in each way a vat can: by its own will, with or without a failure, or of too much compute, stack or memory, or
// of an empty meter.
import { Far } from '@endo/far';

export function buildRootObject(vatPowers) {
  let lived = 0;
  const recurse = n => recurse(n + 1) + 1;
  return Far('root', {
    live() {
      lived += 1;
      return lived;
    },
    leave(why) {
      vatPowers.exitVat(`left: ${why}`);
    },
    quit(why) {
      vatPowers.exitVatWithFailure(Error(`quit: ${why}`));
    },
    // Small enough for one delivery's limit, too much for the vat's meter.
    meter() {
      for (let n = 0; n < 1_000_000; n += 1) lived += 1;
      return lived;
    },
    compute() {
      for (;;) lived += 1;
    },
    stack() {
      return recurse(0);
    },
    // More than the engine may have, asked for at once: it fails before any of it is touched.
    memory() {
      return new Array(2 ** 27).fill(0);
    },
  });
}
