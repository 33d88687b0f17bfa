// Grows its heap, so that images are not all alike in size.
import { Far } from '@endo/far';

export function buildRootObject() {
  const hoard = [];
  return Far('root', {
    grow(count) {
      for (let n = 0; n < count; n += 1) {
        hoard.push({ n, text: `entry ${hoard.length}`, half: n / 2 });
      }
      return hoard.length;
    },
  });
}
