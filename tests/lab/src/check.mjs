// Looks into the finished database: did each thing that the lab is for really leave its trace?
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';

import Database from 'better-sqlite3';

const must = (ok, what) => {
  if (!ok) throw Error(`the database is not what the lab is for: ${what}`);
};

const sha256 = text => createHash('sha256').update(text).digest('hex');

// By feature, a test of an item's text. Inside an item a vat's own JSON is a string: quotes are escaped there.
const TEXTS = {
  astral: /😀/u,
  bigItem: { test: text => Buffer.byteLength(text) > 1_000_000 },
  deviceError: /\["error","device\.invoke failed/,
  exponent: /[^0-9]1e\+21[^0-9]/,
  largeInteger: /[^0-9]9007199254740992[^0-9]/,
  loneSurrogate: /\\ud83d/,
  nan: /#NaN/,
  nul: /\\u0000/,
  readOfCollection: /"s":\["vatstoreGet","vc\.\d+\.s.*?"\],"r":\["ok","/,
  separators: /\u2028/,
  thrown: /asked to fail/,
};

const DELIVERIES = [
  'bringOutYourDead',
  'dropExports',
  'initialize-worker',
  'load-snapshot',
  'message',
  'notify',
  'retireExports',
  'retireImports',
  'save-snapshot',
  'shutdown-worker',
  'startVat',
];

const SYSCALLS = [
  'callNow',
  'dropImports',
  'exit',
  'resolve',
  'retireExports',
  'retireImports',
  'send',
  'subscribe',
  'vatstoreDelete',
  'vatstoreGet',
  'vatstoreGetNextKey',
  'vatstoreSet',
];

// Every span whose items are still somewhere, after a look at its hash.
const readSpans = (db, archive) => {
  const inDatabase = db
    .prepare('SELECT item FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ? ORDER BY position')
    .pluck();
  return db
    .prepare('SELECT vatID, startPos, endPos, hash FROM transcriptSpans')
    .all()
    .flatMap(({ vatID, startPos, endPos, hash }) => {
      let items = inDatabase.all(vatID, startPos, endPos);
      const file = path.join(archive, `transcript.${vatID}.${startPos}.${endPos}.gz`);
      if (items.length === 0 && existsSync(file)) {
        items = gunzipSync(readFileSync(file)).toString('utf8').trimEnd().split('\n');
      }
      if (items.length === 0 && endPos > startPos) return [];
      const computed = items.reduce((sofar, item) => sha256(sofar + sha256(item)), sha256('start of transcript span'));
      must(computed === hash, `the span of ${vatID} from ${startPos} to ${endPos} does not have the hash of its items`);
      return [{ vatID, startPos, items }];
    });
};

const tally = spans => {
  const counts = { deliveryKinds: {}, syscallKinds: {}, texts: {} };
  const bump = (group, key) => {
    group[key] = (group[key] || 0) + 1;
  };
  for (const text of spans.flatMap(span => span.items)) {
    const item = JSON.parse(text);
    bump(counts.deliveryKinds, item.d[0]);
    for (const { s } of item.sc) bump(counts.syscallKinds, s[0]);
    for (const [feature, pattern] of Object.entries(TEXTS)) if (pattern.test(text)) bump(counts.texts, feature);
  }
  return counts;
};

const checkTally = counts => {
  const expected = [
    ['deliveryKinds', DELIVERIES],
    ['syscallKinds', SYSCALLS],
    ['texts', Object.keys(TEXTS)],
  ];
  for (const [group, keys] of expected) {
    for (const key of keys) must(counts[group][key] > 0, `nothing for ${key} among its ${group}`);
  }
};

// The state that each role should have been left in.
const checkRoles = (db, roles, { dead, terminated, counts }, spans) => {
  const count = (sql, ...args) =>
    db
      .prepare(sql)
      .pluck()
      .get(...args);
  const id = name => roles[name].vatID;
  const options = name => JSON.parse(count('SELECT value FROM kvStore WHERE key = ?', `${id(name)}.options`) || 'null');
  const spanCount = name => count('SELECT count(*) FROM transcriptSpans WHERE vatID = ?', id(name));
  const snapshotCount = name => count('SELECT count(*) FROM snapshots WHERE vatID = ?', id(name));
  const end = vatID => count('SELECT max(endPos) FROM transcriptSpans WHERE vatID = ?', vatID);

  must(roles.upgraded.incarnations === 3, 'the upgraded vat does not have three incarnations');
  must(roles.breaks.incarnations === 1, 'the failed upgrade left an incarnation');
  must(spanCount('gone') === 0, 'the vat that was cleaned up has spans');
  must(!terminated.includes(id('gone')), 'the vat that was cleaned up is still known as terminated');
  must(
    options('kept') && spanCount('kept') > 0 && snapshotCount('kept') > 0,
    'the vat that was not cleaned up lacks rows',
  );
  must(!options('partly'), 'the vat that was cleaned up in part has its options');
  must(spanCount('partly') > 0, 'the vat that was cleaned up in part has no spans');
  for (const name of ['kept', 'partly']) {
    must(terminated.includes(id(name)), `the vat ${name} is not known as terminated`);
  }
  must(spanCount('stillborn') === 0, 'the vat whose start failed has spans');
  for (const { vatID, how, before, rewound } of Object.values(dead)) {
    // A vat that leaves by its own will keeps that delivery, all others do not.
    must(rewound === (how !== 'leave'), `vat ${vatID}, dead of ${how}, was ${rewound ? '' : 'not '}rewound`);
    must(
      end(vatID) === (rewound ? before : before + 1),
      `vat ${vatID}, dead of ${how} at ${before}, ends at ${end(vatID)}`,
    );
    must(terminated.includes(vatID), `vat ${vatID}, dead of ${how}, is not known as terminated`);
    const items = spans.filter(span => span.vatID === vatID).flatMap(span => span.items);
    const killing = items.filter(item => item.includes(`[\\"${how}\\"`)).length;
    must(killing === 0 || !rewound, `an item of the delivery that killed ${vatID} by ${how} is there`);
  }
  must(options('metered').meterID, 'the metered vat has no meter');
  must(options('disavower').enableDisavow, 'the disavowing vat may not');
  must(options('local').workerOptions.type === 'local' && end(id('local')) > 2, 'the local vat has no transcript');
  must(options('comms').useTranscript === false && end(id('comms')) === 0, 'the comms vat has a transcript');
  must(spanCount('quiet') === 1 && end(id('quiet')) <= 3, 'the quiet vat is not quiet');
  must(counts.consoleInDelivery > 0, 'no vat printed in the middle of a delivery');
  must(counts.testLogged > 0, 'no vat wrote to the test log');
};

// What the kernel was heard to close must be what is closed.
const checkClosings = (db, closings) => {
  const there = db.prepare('SELECT vatID, startPos, endPos FROM transcriptSpans WHERE isCurrent IS NULL').raw().all();
  const ofRow = ([vat, start, end]) => `${vat} from ${start} to ${end}`;
  const rows = new Set(there.map(ofRow));
  const heard = new Set(closings.map(({ vat, start, end }) => ofRow([vat, start, end])));
  const differing = [...rows].filter(span => !heard.has(span)).concat([...heard].filter(span => !rows.has(span)));
  must(differing.length === 0, `not both closed and heard to close: ${differing.join(', ')}`);
};

// What a crank that was rolled back left among the archives.
const strayFiles = (db, archive) => {
  const row = db.prepare('SELECT 1 FROM transcriptSpans WHERE vatID = ? AND startPos = ? AND endPos = ?');
  return readdirSync(archive).filter(name => {
    const [, vatID, startPos, endPos] = name.split('.');
    return !row.get(vatID, Number(startPos), Number(endPos));
  });
};

// What there must be for figures to mean something.
const checkBench = (db, spans, { deliveryKinds, syscallKinds }) => {
  const sum = (counts, names) => names.reduce((total, name) => total + counts[name], 0);
  const real = Object.keys(deliveryKinds).filter(name => !/-(?:worker|snapshot)$/.test(name));
  must(sum(deliveryKinds, real) >= 3_000, 'it has fewer than 3,000 deliveries');
  must(sum(syscallKinds, Object.keys(syscallKinds)) >= 50_000, 'it has fewer than 50,000 syscalls');
  const sizes = db.prepare('SELECT uncompressedSize FROM snapshots').pluck().all();
  must(sizes.filter(size => size >= 10_000_000).length >= 5, 'it has fewer than five images of 10 MB');
  must(Math.max(...sizes) >= 50_000_000, 'it has no image of 50 MB');
  must(spans.length >= 30, 'it has fewer than 30 spans');
};

export const check = ({ out, keep, live, delicate, bench }, told) => {
  // Not read-only: a connection that may not write leaves its -wal and -shm files behind.
  const db = new Database(path.join(out, 'agoric', 'swingstore.sqlite'), { fileMustExist: true });
  const pluck = sql => db.prepare(sql).pluck();
  const archive = path.join(out, 'transcript-archive');
  const incarnation = pluck('SELECT max(incarnation) FROM transcriptSpans WHERE vatID = ?');
  const roles = {};
  for (const [name, role] of told.vats) {
    const last = incarnation.get(role.vatID);
    roles[name] = { ...role, name, incarnations: last === null ? 0 : last + 1 };
  }
  checkClosings(db, told.closings);
  const spans = readSpans(db, archive);
  const features = {
    closedSpans: pluck('SELECT count(*) FROM transcriptSpans WHERE isCurrent IS NULL').get(),
    snapshots: pluck('SELECT count(*) FROM snapshots').get(),
    images: pluck('SELECT count(*) FROM snapshots WHERE compressedSnapshot IS NOT NULL').get(),
    items: spans.reduce((sum, span) => sum + span.items.length, 0),
    ...tally(spans),
    ...told.counts,
  };
  if (keep === 'archives') features.strayFiles = strayFiles(db, archive);
  if (bench) checkBench(db, spans, features);
  if (live === undefined && !delicate && !bench) {
    if (keep !== 'nothing') checkTally(features);
    checkRoles(db, roles, told, spans);
  }
  db.close();
  return { roles, features };
};
