#!/usr/bin/env node
// Runs the daemon beside a live kernel, measures both, and says whether every span got its verdict; see USAGE.
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

import Database from 'better-sqlite3';

import { judge } from './soak/judgement.mjs';
import { parseOptions, USAGE } from './soak/options.mjs';
import { makeDaemon, now, startKernel } from './soak/processes.mjs';
import { makeRandom } from './soak/random.mjs';
import { startSampler } from './soak/sampler.mjs';
import { table } from './soak/table.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));

// How long the daemon may work on after the node has stopped.
const BACKLOG_SECONDS = 120;
// How long its backlog must have been empty then: right after its start it does not know it yet.
const BACKLOG_STEADY_SECONDS = 3;

const say = line => process.stdout.write(`${line}\n`);

// One in each of equal parts of the run, so that they are spread over all of it.
const randomMoments = ({ seconds, kills, seed }) => {
  const random = makeRandom(seed);
  return Array.from({ length: kills }, (_, part) => ((part + random()) * seconds) / kills);
};

const stopDaemon = async (daemon, faults) => {
  daemon.lives().at(-1).stopping = now();
  const end = await daemon.stop();
  if (end !== 0) faults.push(`the daemon ended with ${end} after SIGTERM`);
};

const startDaemon = async daemon => {
  daemon.start();
  await daemon.waitUntilReady();
};

// Sleeps until the moment, or until one of the programs is gone.
const sleepUntil = async (moment, isFine) => {
  while (now() < moment) {
    if (!isFine()) throw Error('the daemon or the kernel ended by itself: see its log');
    await sleep(Math.min(200, 1000 * Math.max(0, moment - now())));
  }
};

const backlogIsDone = metrics =>
  metrics &&
  Object.entries(metrics)
    .filter(([series]) => series.startsWith('spanwatch_backlog_spans'))
    .every(([, value]) => value === 0);

// Returns whether it came to the end.
const waitForBacklog = async (daemon, walLeft) => {
  const limit = now() + (walLeft ? BACKLOG_SECONDS / 4 : BACKLOG_SECONDS);
  let since;
  while (now() < limit && daemon.isRunning()) {
    since = backlogIsDone(await daemon.metrics()) ? (since ?? now()) : undefined;
    if (since && now() - since > BACKLOG_STEADY_SECONDS) return true;
    await sleep(200);
  }
  return false;
};

// What happens to the daemon in the course of the run.
const COURSES = {
  off: async ({ until, isFine }) => sleepUntil(until, isFine),
  on: async ({ options, daemon, from, until, isFine, kills }) => {
    const orphans = [];
    for (const moment of randomMoments(options)) {
      await sleepUntil(from + moment, isFine);
      daemon.lives().at(-1).stopping = now();
      orphans.push((await daemon.kill())());
      kills.done += 1;
      daemon.start();
    }
    await sleepUntil(until, isFine);
    kills.orphans = (await Promise.all(orphans)).flat().length;
  },
  alternate: async ({ options, daemon, until, isFine, faults }) => {
    await sleepUntil(now() + options.period, isFine);
    while (now() < until) {
      await stopDaemon(daemon, faults);
      await sleepUntil(now() + options.period, () => true);
      await startDaemon(daemon);
      await sleepUntil(now() + options.period, isFine);
    }
  },
};

const readLines = file =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line));

const readVerdicts = ({ spanwatch }, state) => {
  const args = ['verdicts', '--state-dir', state, '--format', 'json'];
  const { status, stdout, stderr } = spawnSync(spanwatch, args, { encoding: 'utf8', maxBuffer: 2 ** 30 });
  // 3: there are divergences.
  if (status !== 0 && status !== 3) throw Error(`spanwatch verdicts ended with ${status}: ${stderr}`);
  const lines = stdout.split('\n').filter(Boolean);
  return lines.map(line => JSON.parse(line)).filter(({ type }) => type === 'verdict');
};

// Works on a copy: whoever opens a database can leave files beside it.
const withCopy = (file, use) => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'soak-'));
  const copy = path.join(directory, path.basename(file));
  try {
    for (const suffix of ['', '-wal']) if (existsSync(file + suffix)) copyFileSync(file + suffix, copy + suffix);
    const db = new Database(copy);
    try {
      return use(db);
    } finally {
      db.close();
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
};

const readRows = file =>
  withCopy(file, db =>
    db
      .prepare('SELECT vatID AS vat, startPos AS start, endPos AS end FROM transcriptSpans WHERE isCurrent IS NULL')
      .all(),
  );

const checkIntegrity = state => {
  const files = readdirSync(state, { recursive: true }).filter(name => name.endsWith('.sqlite'));
  return files.map(name => ({
    name,
    found: withCopy(path.join(state, name), db => db.pragma('integrity_check', { simple: true })),
  }));
};

// Complaints in the daemon's log, and how often each was made.
const complaints = log => {
  const counts = {};
  for (const line of readFileSync(log, 'utf8').split('\n').filter(Boolean)) {
    let entry;
    try {
      entry = JSON.parse(line);
    } catch {
      entry = { level: 'NOT JSON', message: line };
    }
    const { level = '', message, fields } = entry;
    if (['INFO', 'DEBUG', 'TRACE'].includes(level.toUpperCase())) continue;
    const what = `${level} ${message ?? fields?.message ?? line}`;
    counts[what] = (counts[what] || 0) + 1;
  }
  return counts;
};

const soak = async options => {
  const directory = path.join(options.out, 'lab');
  const state = path.join(options.out, 'state');
  const blockLog = path.join(options.out, 'blocks.jsonl');
  const log = path.join(options.out, 'daemon.log');
  const samplesFile = path.join(options.out, 'samples.jsonl');
  if (existsSync(options.out)) throw Error(`${options.out} is there already: name another --out, or remove it first`);
  mkdirSync(state, { recursive: true });
  say(`seed ${options.seed}`);

  const faults = [];
  let stop;
  const kills = { done: 0, orphans: 0 };
  const withDaemon = options.daemon !== 'off';
  const kernel = await startKernel(options, here, { directory, blockLog, say });
  const liveAt = now();
  const daemon = await makeDaemon(options, { directory, state, log });
  let sampler;
  let samples;
  try {
    if (withDaemon) await startDaemon(daemon);
    sampler = startSampler(withDaemon && daemon, { directory, samplesFile });
    const from = now();
    const isFine = () => kernel.isRunning() && (!withDaemon || daemon.isRunning());
    await COURSES[options.daemon]({ options, daemon, from, until: from + options.seconds, isFine, faults, kills });
    say(`stopping the kernel after ${Math.round(now() - from)} s`);
    const end = await kernel.stop();
    if (end !== 0) faults.push(`the kernel ended with ${end}`);
    if (withDaemon) {
      // A reader at the moment of the node's last close keeps it from folding its -wal file back. The daemon can then
      // read what closed last only when the node runs again, and the margin of `judge` is for such spans.
      const walLeft = existsSync(path.join(directory, 'agoric', 'swingstore.sqlite-wal'));
      stop = { wal_left: walLeft, backlog_done: await waitForBacklog(daemon, walLeft) };
      if (!stop.backlog_done && !walLeft) faults.push('the daemon did not come to the end of its backlog');
      samples = await sampler.stop();
      await stopDaemon(daemon, faults);
    }
  } finally {
    samples ??= await sampler?.stop();
    kernel.kill();
    if (daemon.isRunning()) await daemon.kill();
  }

  const parts = {
    options,
    liveAt,
    lives: daemon.lives(),
    blocks: readLines(blockLog),
    samples,
    verdicts: withDaemon ? readVerdicts(options, state) : [],
    rows: readRows(path.join(directory, 'agoric', 'swingstore.sqlite')),
  };
  const { report, faults: found } = judge(parts);
  faults.push(...found);
  if (withDaemon) {
    const checked = checkIntegrity(state);
    report.integrity = { [`of ${checked.length} ok`]: checked.filter(({ found: what }) => what === 'ok').length };
    for (const { name, found: what } of checked) if (what !== 'ok') faults.push(`${name} is damaged: ${what}`);
    report.complaints = complaints(log);
  }
  if (stop) report.stop = stop;
  if (options.kills > 0) {
    report.kills = kills;
    if (kills.orphans > 0) faults.push(`${kills.orphans} workers outlived the daemon that was killed`);
  }
  writeFileSync(
    path.join(options.out, 'soak.json'),
    `${JSON.stringify({ options, ...report, faults, lives: parts.lives }, null, 2)}\n`,
  );
  say(table(report, faults));
  return faults.length === 0;
};

const main = async () => {
  const options = parseOptions(process.argv.slice(2), here);
  if (options.help) {
    say(USAGE);
    return;
  }
  if (!(await soak(options))) process.exitCode = 1;
};

main().catch(error => {
  process.exitCode = 1;
  process.stderr.write(`soak: ${error.stack || error}\n`);
});
