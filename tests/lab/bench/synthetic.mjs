#!/usr/bin/env node
// Writes a kernel's database with a long history: that of the bench, and rows of vats that never were. Nothing of those can
// be replayed; they only have to be found, counted and passed over.
//
//   node synthetic.mjs FROM TO [--vats 100] [--spans 1000] [--items 100]
//
// FROM is the bench's swingstore.sqlite; TO the directory to write; --spans are those of a vat, --items those of a span.
import { copyFileSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

import Database from 'better-sqlite3';

const { values, positionals } = parseArgs({
  options: {
    vats: { type: 'string', default: '100' },
    spans: { type: 'string', default: '1000' },
    items: { type: 'string', default: '100' },
  },
  allowPositionals: true,
});
const [from, to] = positionals;
const [vats, spans, items] = [values.vats, values.spans, values.items].map(Number);
mkdirSync(to, { recursive: true });
const file = path.join(to, 'swingstore.sqlite');
copyFileSync(from, file);
const db = new Database(file);
db.pragma('journal_mode = OFF');
db.pragma('synchronous = OFF');
db.pragma('cache_size = -1000000');

const FIRST_VAT = 1_000;
const hash = 'hex(randomblob(16)) || hex(randomblob(16))';
const item = `'{"d":["notify",[["p-' || n.value || '",{"body":"#\\"done\\"","slots":[]}]]],"sc":[],"r":{"status":"ok","metering":{"computrons":4711}}}'`;
const numbers = 'WITH RECURSIVE n (value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value + 1 < @count)';
const template = db.prepare("SELECT value FROM kvStore WHERE key = 'v6.options'").pluck().get();
const insert = {
  items: db.prepare(`${numbers} INSERT INTO transcriptItems SELECT @vat, n.value, ${item}, 0 FROM n`),
  spans: db.prepare(`${numbers} INSERT INTO transcriptSpans
    SELECT @vat, n.value * @items, (n.value + 1) * @items, lower(${hash}), iif(n.value + 1 = @count, 1, NULL), 0 FROM n`),
  snapshots: db.prepare(`${numbers} INSERT INTO snapshots
    SELECT @vat, (n.value + 1) * @items - 1, NULL, lower(${hash}), 10000000, 2000000, NULL FROM n WHERE n.value + 1 < @count`),
  options: db.prepare('INSERT INTO kvStore VALUES (?, ?)'),
};
db.transaction(() => {
  for (let n = 0; n < vats; n += 1) {
    const vat = `v${FIRST_VAT + n}`;
    insert.items.run({ vat, count: spans * items });
    insert.spans.run({ vat, count: spans, items });
    insert.snapshots.run({ vat, count: spans, items });
    insert.options.run(`${vat}.options`, template.replace('"name":"compute"', `"name":"synthetic${n}"`));
  }
  const dynamic = Array.from({ length: vats }, (_, n) => `v${FIRST_VAT + n}`);
  db.prepare("UPDATE kvStore SET value = ? WHERE key = 'vat.dynamicIDs'").run(JSON.stringify(dynamic));
})();
db.pragma('journal_mode = WAL');
const count = table => db.prepare(`SELECT count(*) FROM ${table}`).pluck().get();
process.stdout.write(`${count('transcriptSpans')} spans, ${count('transcriptItems')} items in ${file}\n`);
db.close();
