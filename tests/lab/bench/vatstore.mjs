#!/usr/bin/env node
// Writes a kernel's database with long histories that can be audited: vats that never were, whose items read and write their
// vatstores as a kernel would have answered, with the hash of each span and the rows of kvStore at the end.
//
//   node vatstore.mjs FROM TO [--vats 4] [--spans 1000] [--items 200] [--keys 100000]
//
// FROM is a swingstore.sqlite of the lab, TO the directory to write; --keys are about those that a vat has at its end.
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

import Database from 'better-sqlite3';

const { values, positionals } = parseArgs({
  options: {
    vats: { type: 'string', default: '4' },
    spans: { type: 'string', default: '1000' },
    items: { type: 'string', default: '200' },
    keys: { type: 'string', default: '100000' },
  },
  allowPositionals: true,
});
const [from, to] = positionals;
const [vats, spans, items, keys] = [values.vats, values.spans, values.items, values.keys].map(Number);
mkdirSync(to, { recursive: true });
const file = path.join(to, 'swingstore.sqlite');
copyFileSync(from, file);
const db = new Database(file);
db.pragma('journal_mode = OFF');
db.pragma('synchronous = OFF');

const sha256 = text => createHash('sha256').update(text).digest('hex');
const FIRST_VAT = 1_000;
const insert = {
  item: db.prepare('INSERT INTO transcriptItems VALUES (?, ?, ?, 0)'),
  span: db.prepare('INSERT INTO transcriptSpans VALUES (?, ?, ?, ?, ?, 0)'),
  kv: db.prepare('INSERT INTO kvStore VALUES (?, ?)'),
};
const options = JSON.stringify({ workerOptions: { type: 'xsnap', bundleIDs: [] }, name: 'synthetic' });
const result = { status: 'ok', metering: { computrons: 4711 } };

// Keys are written, read, overwritten and deleted in turn; each item has six syscalls.
const history = vat => {
  const vatstore = new Map();
  for (let span = 0; span < spans; span += 1) {
    let hash = sha256('start of transcript span');
    for (let n = 0; n < items; n += 1) {
      const position = span * items + n;
      const key = at => `vc.5.r${String(at % keys).padStart(10, '0')}:o+d10/${at % keys}`;
      const at = position * 7919;
      const value = JSON.stringify({ body: `#{"count":${position},"note":"${'x'.repeat(position % 200)}"}`, slots: [] });
      const read = key(at - 7919 * 3);
      const sc = [
        { s: ['vatstoreGet', key(at)], r: ['ok', vatstore.get(key(at)) ?? null] },
        { s: ['vatstoreSet', key(at), value], r: ['ok', null] },
        { s: ['vatstoreGet', key(at)], r: ['ok', value] },
        { s: ['vatstoreGet', read], r: ['ok', vatstore.get(read) ?? null] },
      ];
      vatstore.set(key(at), value);
      if (n % 10 === 9) {
        const gone = key(at - 7919 * 5);
        sc.push({ s: ['vatstoreDelete', gone], r: ['ok', null] });
        vatstore.delete(gone);
      }
      sc.push({ s: ['send', 'o-50', { methargs: { body: '#["done",[]]', slots: [] } }], r: ['ok', null] });
      const item = JSON.stringify({ d: ['notify', [[`p-${position}`, false, { body: '#"done"', slots: [] }]]], sc, r: result });
      insert.item.run(vat, position, item);
      hash = sha256(hash + sha256(item));
    }
    insert.span.run(vat, span * items, (span + 1) * items, hash, span + 1 === spans ? 1 : null);
  }
  for (const [key, value] of vatstore) insert.kv.run(`${vat}.vs.${key}`, value);
  insert.kv.run(`${vat}.options`, options);
};

const dynamic = Array.from({ length: vats }, (_, n) => `v${FIRST_VAT + n}`);
db.transaction(() => {
  for (const vat of dynamic) history(vat);
  const known = JSON.parse(db.prepare("SELECT value FROM kvStore WHERE key = 'vat.dynamicIDs'").pluck().get());
  db.prepare("UPDATE kvStore SET value = ? WHERE key = 'vat.dynamicIDs'").run(JSON.stringify([...known, ...dynamic]));
})();
db.pragma('journal_mode = WAL');
const count = sql => db.prepare(`SELECT count(*) FROM ${sql}`).pluck().get();
process.stdout.write(
  `${count('transcriptSpans')} spans, ${count('transcriptItems')} items, ${count("kvStore WHERE key LIKE 'v%.vs.%'")} keys in ${file}\n`,
);
db.close();
