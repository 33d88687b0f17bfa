// Keeps products of integers: an engine whose compiler lacks `__has_builtin` keeps them as floating-point numbers.
import { Far } from '@endo/far';

export function buildRootObject() {
  const products = [];
  return Far('root', {
    idle(n) {
      return n;
    },
    multiply(one, other) {
      products.push(one * other);
    },
  });
}
