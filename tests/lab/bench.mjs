#!/usr/bin/env node
// Measures `spanwatch verify` against the worker alone and against a verifier around the official driver; see README.md.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { classOf } from './bench/record.mjs';
import { bytesRead, cpuOf, peakMemory } from './bench/usage.mjs';

const USAGE = `usage: node bench.mjs --spanwatch PATH [options]

  --spanwatch PATH  the program to measure
  --lab DIR         what \`lab.mjs --bench\` wrote [bench-data/bench beside this program]
  --rounds N        how often everything is measured [5]
  --only LIST       of floor, ours, off, node, alone, all, those with commas [all of them]
  --core N          the core for what is measured on one [0]
  --out FILE        where the figures go, as JSON [LAB/bench.json]`;

const here = path.dirname(fileURLToPath(import.meta.url));
const median = values => {
  const sorted = values.toSorted((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const say = line => process.stdout.write(`${line}\n`);

const childrenOf = pid =>
  readdirSync(`/proc/${pid}/task`).flatMap(thread =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  );

// Parents first: who is stopped has no further children.
const signalAll = (pid, signal) => {
  try {
    process.kill(pid, signal);
    for (const child of childrenOf(pid)) signalAll(child, signal);
  } catch (error) {
    // It has just ended.
    if (!['ENOENT', 'ESRCH'].includes(error.code)) throw error;
  }
};

// Lets one of the programs that were added run at a time.
const makeTurns = () => {
  const waiting = [];
  let isOver = false;
  const go = async () => {
    while (!isOver) {
      const pid = waiting.shift();
      if (pid) signalAll(pid, 'SIGCONT');
      await setTimeout(TURN_MS);
      if (pid && existsSync(`/proc/${pid}`)) {
        signalAll(pid, 'SIGSTOP');
        waiting.push(pid);
      }
    }
  };
  return {
    add: pid => {
      signalAll(pid, 'SIGSTOP');
      waiting.push(pid);
    },
    remove: pid => waiting.includes(pid) && waiting.splice(waiting.indexOf(pid), 1),
    over: () => {
      isOver = true;
    },
    done: go(),
  };
};

// Runs a program and hands each line of its output to `hear`, with its process number.
const listen = async (command, args, turns, hear) => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  turns?.add(child.pid);
  const ended = once(child, 'exit');
  for await (const line of readline.createInterface({ input: child.stdout })) hear(JSON.parse(line), child.pid);
  const [status] = await ended;
  turns?.remove(child.pid);
  if (status !== 0) throw Error(`${[command, ...args].join(' ')} ended with ${status}`);
};

// These take short turns on one core, so that the machine is equally fast for all of them. Only their processor time counts.
const TOGETHER = ['floor', 'ours', 'off', 'node'];
const TURN_MS = 500;

const pinned = (core, command, ...args) => ['taskset', ['-c', `${core}`, command, ...args]];

// The spans of one run, each with the processor time that the driver and the worker took, and figures of the run.
const measureScript = async ([command, args], turns) => {
  const spans = [];
  await listen(command, args, turns, line => spans.push({ driver: 0, ...line }));
  return { spans, wall: spans.reduce((sum, { wall }) => sum + wall, 0) };
};

// What the driver and its workers have used is looked at whenever it says that a span is done: spans come in order on one
// thread. What it used before the first span began is its start.
const measureOurs = async ([command, args], turns) => {
  const began = performance.now();
  const spans = [];
  const run = {};
  let before;
  let timer;
  const look = pid => {
    try {
      Object.assign(run, { cpu: cpuOf(pid), peak: peakMemory(pid) ?? run.peak, read: bytesRead(pid) });
    } catch (error) {
      // It has just ended.
      if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error;
    }
  };
  await listen(command, args, turns, (line, pid) => {
    timer ??= setInterval(look, 20, pid);
    if (line.type !== 'span') return;
    look(pid);
    const { vat: vatID, start, end, seconds: wall, verdict, deliveries, syscalls } = line;
    if (verdict === 'not_applicable') return;
    if (verdict !== 'verified') throw Error(`${vatID} from ${start} is ${verdict}`);
    const { own, children } = run.cpu;
    const times = before && { driver: own - before.own, worker: children - before.children };
    spans.push({ vatID, start, end, wall, deliveries, syscalls, ...times });
    before = run.cpu;
    run.peaks = [...(run.peaks || []), run.peak];
  }).finally(() => clearInterval(timer));
  return { ...run, spans, wall: (performance.now() - began) / 1_000 };
};

const main = async () => {
  const { values } = parseArgs({
    options: {
      spanwatch: { type: 'string' },
      lab: { type: 'string', default: path.join(here, 'bench-data', 'bench') },
      rounds: { type: 'string', default: '5' },
      only: { type: 'string', default: [...TOGETHER, 'alone', 'all'].join() },
      core: { type: 'string', default: '0' },
      out: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help || !values.spanwatch) {
    say(USAGE);
    return;
  }
  const { spanwatch, lab, core } = values;
  const database = path.join(lab, 'agoric', 'swingstore.sqlite');
  const recording = path.join(lab, 'recording');
  const script = name => path.join(here, 'bench', name);
  const verify = (...more) => [spanwatch, 'verify', database, '--format', 'json', ...more];
  const unpinned = ([command, ...args]) => [command, args];
  const measures = {
    floor: turns => measureScript(pinned(core, process.execPath, script('floor.mjs'), database, recording), turns),
    ours: turns => measureOurs(pinned(core, ...verify('--jobs', '1')), turns),
    off: turns => measureOurs(pinned(core, ...verify('--jobs', '1', '--sandbox', 'off')), turns),
    alone: () => measureOurs(pinned(core, ...verify('--jobs', '1'))),
    all: () => measureOurs(unpinned(verify())),
    node: turns => measureScript(pinned(core, process.execPath, script('baseline.mjs'), database), turns),
  };
  if (!existsSync(path.join(recording, 'complete'))) {
    rmSync(recording, { recursive: true, force: true });
    await measureScript([process.execPath, [script('baseline.mjs'), database, '--record', recording]]);
    writeFileSync(path.join(recording, 'complete'), '');
  }
  const { vats } = JSON.parse(readFileSync(path.join(lab, 'lab.json'), 'utf8'));
  const only = values.only.split(',');
  let figures;
  const runs = Object.fromEntries(only.map(name => [name, []]));
  for (let round = 0; round < Number(values.rounds); round += 1) {
    const measure = async (name, turns) => {
      const run = await measures[name](turns);
      runs[name].push(run);
      const used = total(run.spans, span => (span.worker === undefined ? 0 : cpu(span)));
      process.stderr.write(`round ${round + 1}: ${name} ${run.wall.toFixed(1)} s, processor ${used.toFixed(1)} s\n`);
    };
    const turns = makeTurns();
    try {
      await Promise.all(only.filter(name => TOGETHER.includes(name)).map(name => measure(name, turns)));
    } finally {
      turns.over();
    }
    await turns.done;
    for (const name of only.filter(other => !TOGETHER.includes(other))) await measure(name);
    figures = summarize(runs, vats);
    writeFileSync(values.out || path.join(lab, 'bench.json'), `${JSON.stringify({ figures, runs }, null, 1)}\n`);
  }
  tell(figures);
};

const total = (spans, part) => spans.reduce((sum, span) => sum + part(span), 0);
const cpu = ({ driver, worker }) => driver + worker;
const spread = values => ({ median: median(values), least: Math.min(...values), most: Math.max(...values) });

// Medians over the rounds, and of ratios the median of the ratios within each round. The first span of a run of ours has its start-up in it, so it is left out everywhere.
const summarize = (runs, vats) => {
  const names = Object.fromEntries(Object.entries(vats).map(([name, id]) => [id, name]));
  const sequential = TOGETHER.filter(name => runs[name]);
  const reference = runs.ours || Object.values(runs)[0];
  const isMeasured = span => span.worker !== undefined && !(span.vatID === reference[0].spans[0].vatID && span.start === 0);
  const groups = { 'all spans': () => true };
  for (const kind of ['initialize', 'short', 'long']) groups[kind] = span => classOf(span) === kind;
  for (const id of new Set(reference[0].spans.map(({ vatID }) => vatID))) {
    groups[names[id] || id] = span => span.vatID === id && span.start > 0;
  }
  const table = {};
  for (const [group, is] of Object.entries(groups)) {
    const of = run => run.spans.filter(span => isMeasured(span) && is(span));
    if (of(reference[0]).length === 0) continue;
    const row = { spans: of(reference[0]).length, syscalls: total(of(reference[0]), span => span.syscalls || 0) };
    for (const name of sequential) {
      row[name] = {
        cpu: spread(runs[name].map(run => total(of(run), cpu))),
        worker: spread(runs[name].map(run => total(of(run), span => span.worker))),
        driver: spread(runs[name].map(run => total(of(run), span => span.driver))),
      };
    }
    const ratio = (one, other, of_) =>
      runs[one] && runs[other] && spread(runs[one].map((run, at) => of_(run) / of_(runs[other][at])));
    const sum = run => total(of(run), cpu);
    row.oursToFloor = ratio('ours', 'floor', sum);
    row.nodeToFloor = ratio('node', 'floor', sum);
    row.nodeToOurs = ratio('node', 'ours', sum);
    row.sandbox = ratio('ours', 'off', sum);
    table[group] = row;
  }
  const ofRuns = (name, what) => runs[name] && spread(runs[name].map(what));
  return {
    table,
    wholeRun: Object.fromEntries(
      ['alone', 'all']
        .filter(name => runs[name])
        .map(name => [
          name,
          {
            wall: ofRuns(name, run => run.wall),
            driver: ofRuns(name, run => run.cpu.own),
            workers: ofRuns(name, run => run.cpu.children),
            peakMemory: ofRuns(name, run => run.peak),
            peakAfterFirst: ofRuns(name, run => run.peaks[Math.min(10, run.peaks.length - 1)]),
            bytesRead: ofRuns(name, run => run.read.calls),
            bytesFromDisk: ofRuns(name, run => run.read.disk),
          },
        ]),
    ),
    allCores: runs.all && runs.alone && spread(runs.alone.map((run, at) => run.wall / runs.all[at].wall)),
    cores: os.availableParallelism(),
  };
};

const seconds = ({ median: middle }) => middle.toFixed(2);
const times = ratio => (ratio ? `${ratio.median.toFixed(3)} (${ratio.least.toFixed(3)}–${ratio.most.toFixed(3)})` : '–');

const tell = ({ table, wholeRun, allCores, cores }) => {
  say('Processor seconds (user and system), medians; ratios as median (least–most) of the rounds.\n');
  const columns = ['floor', 'ours', 'node'].filter(name => table['all spans'][name]);
  const head = ['', 'spans', 'syscalls', ...columns, 'driver of ours', 'ours / floor', 'node / floor', 'node / ours', 'sandbox / off'];
  say(`| ${head.join(' | ')} |`);
  say(`|${head.map((_, at) => (at === 0 ? '---' : '--:')).join('|')}|`);
  for (const [group, row] of Object.entries(table)) {
    const driver = row.ours ? seconds(row.ours.driver) : '–';
    const ratios = [row.oursToFloor, row.nodeToFloor, row.nodeToOurs, row.sandbox].map(times);
    say(`| ${[group, row.spans, row.syscalls, ...columns.map(name => seconds(row[name].cpu)), driver, ...ratios].join(' | ')} |`);
  }
  const mib = ({ median: bytes }) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  say('\n| whole run | wall | CPU driver | CPU workers | driver peak memory | after 10 spans | read by calls | from disk |');
  say('|---|--:|--:|--:|--:|--:|--:|--:|');
  for (const [name, run] of Object.entries(wholeRun)) {
    const cells = [seconds(run.wall), seconds(run.driver), seconds(run.workers)];
    const bytes = [run.peakMemory, run.peakAfterFirst, run.bytesRead, run.bytesFromDisk].map(mib);
    say(`| ${[name, ...cells, ...bytes].join(' | ')} |`);
  }
  if (allCores) say(`\nAll ${cores} cores against one: ${times(allCores)} times as fast (wall time).`);
};

main().catch(error => {
  process.exitCode = 1;
  process.stderr.write(`bench: ${error.stack || error}\n`);
});
