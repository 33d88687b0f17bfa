// What both the baseline and the floor need of a kernel's database: its closed spans, with what each starts from.
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';

import Database from 'better-sqlite3';

export const openRecord = file => {
  const db = new Database(file, { readonly: true, fileMustExist: true });
  const value = key => db.prepare('SELECT value FROM kvStore WHERE key = ?').pluck().get(key);
  const vatOptions = vatID => JSON.parse(value(`${vatID}.options`));
  const bundle = db.prepare('SELECT bundle FROM bundles WHERE bundleID = ?').pluck();
  const image = db.prepare('SELECT compressedSnapshot FROM snapshots WHERE vatID = ? AND snapPos = ?').pluck();
  const items = db
    .prepare('SELECT item FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ? ORDER BY position')
    .pluck();
  return {
    spans: () =>
      db
        .prepare('SELECT vatID, startPos, endPos FROM transcriptSpans WHERE isCurrent IS NULL ORDER BY vatID, startPos')
        .all()
        .map(({ vatID, startPos: start, endPos: end }) => ({ vatID, start, end })),
    vatOptions,
    relaxDurabilityRules: () => Boolean(value('kernel.relaxDurabilityRules')),
    items: ({ vatID, start, end }) => items.all(vatID, start, end),
    // A bundle that is evaluated, and one of a vat, as `manager-subprocess-xsnap.js` has them.
    program: id => `(${JSON.parse(bundle.get(id).toString()).source}\n)()`.trim(),
    vatBundle: id => ({
      moduleFormat: 'endoZipBase64',
      endoZipBase64Sha512: id.slice('b1-'.length),
      endoZipBase64: bundle.get(id).toString('base64'),
    }),
    image: ({ vatID, start }) => Readable.from(image.get(vatID, start - 1)).pipe(createGunzip()),
    close: () => db.close(),
  };
};

// Short and long spans are told apart by their deliveries.
export const classOf = ({ start, end }) => {
  if (start === 0) return 'initialize';
  return end - start > 60 ? 'long' : 'short';
};
