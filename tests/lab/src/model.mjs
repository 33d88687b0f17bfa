// Tells the tests what is in a database that the lab wrote.
import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';

export const writeModel = ({ out, bundleCache, blockLog, quiet, ...options }, model) => {
  const file = path.join(out, 'lab.json');
  writeFileSync(`${file}.tmp`, `${JSON.stringify({ options, ...model }, null, 2)}\n`);
  renameSync(`${file}.tmp`, file);
};
