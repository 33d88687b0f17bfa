// Keeps local times, which follow the host's time zone.
import { Far } from '@endo/far';

export function buildRootObject() {
  const hours = [];
  return Far('root', {
    note(milliseconds) {
      hours.push(new Date(milliseconds).getHours());
    },
  });
}
