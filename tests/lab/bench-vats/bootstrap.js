// Holds on to the vats, and makes those known to one another that talk.
import { E, Far } from '@endo/far';

export function buildRootObject() {
  let held;
  return Far('root', {
    bootstrap(vats) {
      held = vats;
      return E(held.exchange).meet(held.ledger);
    },
  });
}
