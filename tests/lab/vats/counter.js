// A small vat with a durable count, an integer product in its heap, console output in the middle of a delivery and the
// test log. Also the first incarnation of the vat that is upgraded.
import { Far } from '@endo/far';

export function buildRootObject(vatPowers, _parameters, baggage) {
  const { testLog } = vatPowers;
  if (!baggage.has('count')) baggage.init('count', 0);
  let product = 1;
  return Far('root', {
    increment(note) {
      const count = baggage.get('count') + 1;
      console.log('before the store', note, count);
      baggage.set('count', count);
      console.warn('after the store', { count });
      product = (product * 3) % 1_000_003;
      testLog(`count ${count}`);
      return [count, product, 'first'];
    },
    // Still unresolved when the vat is upgraded: the kernel rejects it then.
    linger() {
      return new Promise(() => {});
    },
    fail(why) {
      throw Error(`asked to fail: ${why}`);
    },
  });
}
