// Says nothing after its start.
import { Far } from '@endo/far';

export const buildRootObject = () => Far('root', {});
