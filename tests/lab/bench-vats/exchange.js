// The usual business of a contract: a little computing, some state in the kernel's store, messages to another vat and
// notifications from it.
import { E, Far } from '@endo/far';
import { makeScalarBigMapStore, provide } from '@agoric/vat-data';

export function buildRootObject(_vatPowers, _parameters, baggage) {
  const orders = provide(baggage, 'orders', () => makeScalarBigMapStore('orders', { durable: true }));
  let ledger;
  let traded = 0;
  return Far('root', {
    meet(other) {
      ledger = other;
    },
    async trade(n) {
      const prices = [];
      for (let k = 0; k < 300; k += 1) prices.push(((n + k) * 7_919) % 1_009);
      const price = prices.sort((one, other) => one - other)[150];
      orders.init(`order ${n}`, harden({ n, price, parts: prices.slice(0, 5) }));
      const left = await E(ledger).transfer(n % 53, (n * 3 + 1) % 53, BigInt(price));
      traded += 1;
      orders.set(`order ${n}`, harden({ n, price, left }));
      if (orders.has(`order ${n - 100}`)) orders.delete(`order ${n - 100}`);
      return traded;
    },
  });
}
