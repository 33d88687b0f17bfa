// A static vat that may disavow an import, and does.
import { E, Far } from '@endo/far';

export function buildRootObject(vatPowers) {
  return Far('root', {
    async disavow(maker) {
      const token = await E(maker).makeToken();
      vatPowers.disavow(token);
      return 'disavowed';
    },
    count(n) {
      return n + 1;
    },
  });
}
