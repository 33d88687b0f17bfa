// The third incarnation of the vat that is upgraded: other code over the same baggage.
import { Far } from '@endo/far';

export function buildRootObject(vatPowers, _parameters, baggage) {
  const { testLog } = vatPowers;
  const label = 'third';
  return Far('root', {
    increment(note) {
      const count = baggage.get('count') + 10;
      baggage.set('count', count);
      console.log(label, note, count);
      testLog(`${label} ${count}`);
      return [count, label];
    },
  });
}
