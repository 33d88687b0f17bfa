// Looks into the finished database: did each thing that the lab is for really leave its trace?
import path from 'node:path';

import Database from 'better-sqlite3';

// What an item's text must hold, by feature. Inside an item, a vat's own JSON is a string: quotes are escaped.
const TRACES = {
  bringOutYourDead: '{"d":["bringOutYourDead"',
  callNow: '"s":["callNow"',
  dropExports: '{"d":["dropExports"',
  initializeWorker: '{"d":["initialize-worker"',
  loneSurrogate: '\\ud83d',
  nul: '\\\\u0000',
  astral: '😀',
  separators: '\u2028',
  nan: '#NaN',
  // 2^53 and 1e21 as JSON prints them.
  largeInteger: '9007199254740992',
  exponent: '1e+21',
  notify: '{"d":["notify"',
  retireExports: '{"d":["retireExports"',
  retireImports: '{"d":["retireImports"',
  saveSnapshot: '{"d":["save-snapshot"',
  shutdownWorker: '{"d":["shutdown-worker"',
  thrown: 'asked to fail',
  vatstoreGetNextKey: '"s":["vatstoreGetNextKey"',
  virtualCollection: '"s":["vatstoreSet","vc.',
};

export const check = ({ out, keep, live }, vats, { dead, terminated }) => {
  // Not read-only: a connection that may not write leaves its -wal and -shm files behind.
  const db = new Database(path.join(out, 'agoric', 'swingstore.sqlite'), { fileMustExist: true });
  const count = (sql, ...args) => db.prepare(sql).pluck().get(...args);
  const must = (ok, what) => {
    if (!ok) throw Error(`the database is not what the lab is for: ${what}`);
  };
  const features = {
    closedSpans: count('SELECT count(*) FROM transcriptSpans WHERE isCurrent IS NULL'),
    items: count('SELECT count(*) FROM transcriptItems'),
    snapshots: count('SELECT count(*) FROM snapshots'),
  };
  const hasItems = keep === 'everything' || keep === 'items';
  if (hasItems && live === undefined) {
    for (const [feature, text] of Object.entries(TRACES)) {
      features[feature] = count('SELECT count(*) FROM transcriptItems WHERE instr(item, ?)', text);
      must(features[feature] > 0, `no item with ${feature} (${JSON.stringify(text)})`);
    }
    features.bigItems = count('SELECT count(*) FROM transcriptItems WHERE length(item) > 1000000');
    must(features.bigItems > 0, 'no item of more than 1 MB');
  }
  if (live === undefined) {
    const incarnations = vatID => count('SELECT max(incarnation) FROM transcriptSpans WHERE vatID = ?', vatID);
    must(incarnations(vats.upgraded) === 2, 'the upgraded vat does not have three incarnations');
    must(incarnations(vats.breaks) === 0, 'the failed upgrade left an incarnation');
    for (const { vatID, how, before } of Object.values(dead)) {
      const end = count('SELECT max(endPos) FROM transcriptSpans WHERE vatID = ?', vatID);
      // A vat that leaves by its own will keeps that delivery; one that is killed does not.
      must(how === 'leave' ? end > before : end === before, `vat ${vatID}, dead of ${how}, ends at ${end}, not ${before}`);
      must(terminated.includes(vatID), `vat ${vatID}, dead of ${how}, is not terminated`);
      if (hasItems && how !== 'leave') {
        const killing = count('SELECT count(*) FROM transcriptItems WHERE vatID = ? AND instr(item, ?)', vatID, `[\\"${how}\\"`);
        must(killing === 0, `an item of the delivery that killed ${vatID} by ${how} is there`);
      }
    }
    const spansOf = name => count('SELECT count(*) FROM transcriptSpans WHERE vatID = ?', vats[name]);
    must(spansOf('gone') === 0, 'the vat that was cleaned up has spans');
    must(spansOf('kept') > 0, 'the vat that was not cleaned up has no spans');
    must(spansOf('partly') > 0, 'the vat that was cleaned up in part has no spans');
    must(terminated.includes(vats.partly), 'the vat that was cleaned up in part is no longer known as terminated');
    must(count('SELECT value FROM kvStore WHERE key = ?', `${vats.partly}.options`) === undefined, 'the vat that was cleaned up in part has its options');
    const options = name => JSON.parse(count('SELECT value FROM kvStore WHERE key = ?', `${vats[name]}.options`));
    must(options('metered').meterID, 'the metered vat has no meter');
    must(options('disavower').enableDisavow, 'the disavowing vat may not');
    must(options('local').workerOptions.type === 'local', 'the local vat is not local');
    must(options('comms').useTranscript === false, 'the comms vat has a transcript');
  }
  db.close();
  return features;
};
