// Keeps all that it knows in the kernel's store: many syscalls, little else.
import { Far } from '@endo/far';
import { makeScalarBigMapStore, prepareExoClass, provide } from '@agoric/vat-data';
import { M } from '@endo/patterns';

export function buildRootObject(_vatPowers, _parameters, baggage) {
  const durable = { durable: true };
  const accounts = provide(baggage, 'accounts', () => makeScalarBigMapStore('accounts', durable));
  const journal = provide(baggage, 'journal', () => makeScalarBigMapStore('journal', durable));
  const makeAccount = prepareExoClass(
    baggage,
    'Account',
    M.interface('Account', { move: M.call(M.bigint()).returns(M.bigint()) }),
    owner => ({ owner, balance: 0n }),
    {
      move(amount) {
        this.state.balance += amount;
        return this.state.balance;
      },
    },
  );
  const account = name => {
    if (!accounts.has(name)) accounts.init(name, makeAccount(name));
    return accounts.get(name);
  };
  const transfer = (from, to, amount) => {
    const left = account(`account ${from}`).move(-amount);
    account(`account ${to}`).move(amount);
    return left;
  };
  return Far('root', {
    transfer,
    // A number of transfers in one delivery, each noted in the journal, whose oldest notes go.
    settle(n, count) {
      for (let k = 0; k < count; k += 1) {
        const key = n * 100 + k;
        const left = transfer(key % 211, (key * 7 + 1) % 211, BigInt(key));
        journal.init(`note ${key}`, harden({ key, left }));
        const old = `note ${key - 2_000}`;
        if (journal.has(old)) journal.delete(old);
      }
      return journal.getSize();
    },
  });
}
