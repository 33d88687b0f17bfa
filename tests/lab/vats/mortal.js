// Dies in each way a vat can: by its own will, or of too much compute, stack or memory.
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
    compute() {
      for (;;) lived += 1;
    },
    stack() {
      return recurse(0);
    },
    memory() {
      const all = [];
      for (;;) all.push('x'.repeat(2 ** 28) + all.length);
    },
  });
}
