// Keeps a regular expression with a lookahead: once it has been used, the engine leaves a pointer of the host in its data.
import { Far } from '@endo/far';

const PATTERN = /^[a-z]+(?=\d)/;

export function buildRootObject() {
  return Far('root', {
    idle(n) {
      return n;
    },
    match(text) {
      return PATTERN.test(text);
    },
  });
}
