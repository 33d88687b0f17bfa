// Cross-vat messages and promises: pipelined, chained, rejected, resolved later, passed around before they are resolved.
import { E, Far } from '@endo/far';
import { makePromiseKit } from '@endo/promise-kit';

export function buildRootObject() {
  let other;
  let later;
  let rounds = 0;
  return Far('root', {
    meet(root) {
      other = root;
    },
    hello(greeting) {
      return `${greeting} to you`;
    },
    wait() {
      later = makePromiseKit();
      return later.promise;
    },
    async round(greeting) {
      rounds += 1;
      const promise = E(other).wait();
      const chained = promise.then(value => `heard ${value}`);
      const answer = await E(other).hello(greeting);
      await E(other).answer(answer);
      const rejected = await E(other)
        .refuse(rounds)
        .catch(error => `refused: ${error.message}`);
      return harden([await chained, rejected, rounds]);
    },
    answer(value) {
      later.resolve(value);
    },
    refuse(round) {
      return Promise.reject(Error(`round ${round}`));
    },
    // Objects that the other side drops, so that they are dropped and retired here.
    makeToken() {
      return Far('token', { round: () => rounds });
    },
  });
}
