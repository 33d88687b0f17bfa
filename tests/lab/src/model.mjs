// Tells the tests what is in a database that the lab wrote.
import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';

export const writeModel = (options, model) => {
  const { out, deliveries, snapshotInitial, snapshotInterval, keep, live } = options;
  const file = path.join(out, 'lab.json');
  const text = JSON.stringify({ options: { deliveries, snapshotInitial, snapshotInterval, keep, live }, ...model }, null, 2);
  writeFileSync(`${file}.tmp`, `${text}\n`);
  renameSync(`${file}.tmp`, file);
};
