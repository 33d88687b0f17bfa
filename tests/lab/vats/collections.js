// Durable and virtual collections and objects: reads, writes, iterations and deletions in the vatstore.
import { Far } from '@endo/far';
import {
  makeScalarBigMapStore,
  makeScalarBigSetStore,
  makeScalarBigWeakMapStore,
  prepareExoClass,
  provide,
} from '@agoric/vat-data';
import { M } from '@endo/patterns';

export function buildRootObject(_vatPowers, _parameters, baggage) {
  const durable = { durable: true };
  const accounts = provide(baggage, 'accounts', () => makeScalarBigMapStore('accounts', durable));
  const names = provide(baggage, 'names', () => makeScalarBigSetStore('names', durable));
  const passing = makeScalarBigMapStore('passing');
  const weak = makeScalarBigWeakMapStore('weak');
  const makeAccount = prepareExoClass(
    baggage,
    'Account',
    M.interface('Account', {
      deposit: M.call(M.bigint()).returns(M.bigint()),
      balance: M.call().returns(M.bigint()),
    }),
    owner => ({ owner, balance: 0n }),
    {
      deposit(amount) {
        this.state.balance += amount;
        return this.state.balance;
      },
      balance() {
        return this.state.balance;
      },
    },
  );
  return Far('root', {
    open(owner) {
      if (!accounts.has(owner)) {
        accounts.init(owner, makeAccount(owner));
        names.add(owner);
      }
      passing.init(`${owner}-${passing.getSize()}`, harden({ owner, parts: [1, 2, 3] }));
      const account = accounts.get(owner);
      if (!weak.has(account)) weak.init(account, owner);
      return account.deposit(10n ** 20n);
    },
    getAccount(owner) {
      return accounts.get(owner);
    },
    // Many syscalls in one delivery.
    fill(from, to) {
      for (let n = from; n < to; n += 1) passing.init(`filled ${n}`, n / 3);
      let sum = 0;
      for (const value of passing.values(M.number())) sum += value;
      return sum;
    },
    remember(token) {
      weak.init(token, 'a token');
    },
    list() {
      const all = [...accounts.entries()].map(([owner, account]) => [owner, account.balance(), weak.has(account)]);
      return harden([all, [...names.keys()], passing.getSize()]);
    },
    close(owner) {
      accounts.delete(owner);
      names.delete(owner);
      passing.clear();
      return accounts.getSize();
    },
  });
}
