#!/usr/bin/env node
// Exports a kernel database with swing-store's own exporter and imports it again, once for each mode: what a node has
// after a state-sync. Writes OUT/<mode>/swingstore.sqlite. The mode `without-history` is what an old importer left that
// forgot the rows of historical spans and snapshots (Agoric/agoric-sdk issue 8025).
import '@endo/init/debug.js';

import { cpSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';

import { importSwingStore, makeSwingStoreExporter } from '@agoric/swing-store';

const isHistorical = (key, value) => {
  if (value === null || !/^(transcript|snapshot)\./.test(key) || /^snapshot\..*\.current$/.test(key)) return false;
  const { isCurrent, inUse } = JSON.parse(value);
  return !(key.startsWith('transcript.') ? isCurrent : inUse);
};

const withoutHistory = exporter => ({
  ...exporter,
  async *getExportData() {
    for await (const [key, value] of exporter.getExportData()) {
      if (!isHistorical(key, value)) yield [key, value];
    }
  },
});

const copy = async (from, to, artifactMode, change = exporter => exporter) => {
  mkdirSync(to, { recursive: true });
  const exporter = change(makeSwingStoreExporter(from, { artifactMode }));
  const { hostStorage } = await importSwingStore(exporter, to, { artifactMode });
  await hostStorage.commit();
  await hostStorage.close();
};

const [database, out, ...modes] = process.argv.slice(2);
if (modes.length === 0) {
  throw Error('usage: node import.mjs DIRECTORY-OF-DATABASE OUT operational|replay|archival|debug|without-history…');
}
// The exporter opens the database for writing.
const from = path.join(out, 'source');
cpSync(database, from, { recursive: true });
for (const mode of modes) {
  const isWithout = mode === 'without-history';
  await copy(from, path.join(out, mode), isWithout ? 'operational' : mode, isWithout ? withoutHistory : undefined);
}
rmSync(from, { recursive: true });
