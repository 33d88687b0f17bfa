// Holds a large heap, and does a little with it.
import { Far } from '@endo/far';

export function buildRootObject(_vatPowers, _parameters, baggage) {
  const held = [];
  if (!baggage.has('looks')) baggage.init('looks', 0);
  return Far('root', {
    // Heap without sense, about 150 bytes an entry.
    hold(count) {
      for (let n = 0; n < count; n += 1) {
        held.push({ n: held.length, text: `entry number ${held.length}`, half: n / 2 });
      }
      return held.length;
    },
    look(n) {
      let sum = 0;
      for (let k = n; k < held.length; k += 97) sum += held[k].half;
      baggage.set('looks', baggage.get('looks') + 1);
      return sum;
    },
  });
}
