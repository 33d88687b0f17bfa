#!/usr/bin/env node
// Changes a kernel database as only a replay can notice: one delivery of the vat `collections` cost one computron more,
// and the hash of its span fits.
import { createHash } from 'node:crypto';

import Database from 'better-sqlite3';

import { costMore } from './src/lie.mjs';

const [file] = process.argv.slice(2);
if (!file) throw Error('usage: node tamper.mjs FILE');
const sha256 = text => createHash('sha256').update(text).digest('hex');

const db = new Database(file, { fileMustExist: true });
const vatID = db.prepare('SELECT value FROM kvStore WHERE key = ?').pluck().get('vat.name.collections');
const { startPos, endPos } = db
  .prepare('SELECT startPos, endPos FROM transcriptSpans WHERE vatID = ? AND isCurrent IS NULL ORDER BY startPos LIMIT 1 OFFSET 1')
  .get(vatID);
const position = startPos + 3;
const item = db.prepare('SELECT item FROM transcriptItems WHERE vatID = ? AND position = ?').pluck().get(vatID, position);
const changed = costMore(item);
if (changed === item) throw Error(`nothing to change in ${item}`);
db.prepare('UPDATE transcriptItems SET item = ? WHERE vatID = ? AND position = ?').run(changed, vatID, position);
const items = db
  .prepare('SELECT item FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ? ORDER BY position')
  .pluck()
  .all(vatID, startPos, endPos);
const hash = items.reduce((so, text) => sha256(so + sha256(text)), sha256('start of transcript span'));
db.prepare('UPDATE transcriptSpans SET hash = ? WHERE vatID = ? AND startPos = ?').run(hash, vatID, startPos);
db.close();
console.log(`changed the computrons of ${vatID}:${position}, and the hash of its span [${startPos}, ${endPos})`);
