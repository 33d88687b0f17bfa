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
  --only LIST       of floor, huge, ours, off, node, alone, all, each, with commas [all of them]
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
  const ended = new Set();
  const ran = new Map();
  let isOver = false;
  const go = async () => {
    while (!isOver) {
      const pid = waiting.shift();
      const began = performance.now();
      if (pid) signalAll(pid, 'SIGCONT');
      // Who ends gives way at once.
      while (performance.now() < began + TURN_MS && !(pid && ended.has(pid))) await setTimeout(TURN_MS / 50);
      if (pid) ran.set(pid, (ran.get(pid) ?? 0) + (performance.now() - began) / 1_000);
      if (pid && !ended.has(pid)) {
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
    remove: pid => {
      ended.add(pid);
      if (waiting.includes(pid)) waiting.splice(waiting.indexOf(pid), 1);
    },
    // For how many seconds it has had its turn, once all is over.
    ran: pid => ran.get(pid),
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
  const ended = once(child, 'exit').then(([status]) => {
    turns?.remove(child.pid);
    return status;
  });
  for await (const line of readline.createInterface({ input: child.stdout })) hear(JSON.parse(line), child.pid);
  const status = await ended;
  if (status !== 0) throw Error(`${[command, ...args].join(' ')} ended with ${status}`);
  return child.pid;
};

// Those of a group take short turns, so that the machine is equally fast for all of them. Of those on one core only the
// processor time counts, as it includes neither a pause nor a wait.
const ONE_CORE = ['floor', 'huge', 'ours', 'off', 'node'];
// Of these the time by the clock counts: one core, all cores, and a program for one core on each core at once.
const CORES = ['alone', 'all', 'each'];
const TURN_MS = 500;

const pinned = (core, command, ...args) => ['taskset', ['-c', `${core}`, command, ...args]];

// The spans of one run, each with the processor time that the driver and the worker took, and figures of the run.
const measureScript = async ([command, args], turns) => {
  const spans = [];
  const pid = await listen(command, args, turns, line => spans.push({ driver: 0, ...line }));
  return { pid, spans };
};

// What the driver and its workers have used is looked at whenever it says that a span is done: spans come in order on one
// thread. What it used before the first span began is its start.
const measureOurs = async ([command, args], turns) => {
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
  const ended = await listen(command, args, turns, (line, pid) => {
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
  return { ...run, pid: ended, spans };
};

// On each core its own, of which only the times are of interest.
const onEach = command => {
  const cores = Array.from({ length: os.availableParallelism() }, (_, core) => core);
  const script = 'for core in $CORES; do taskset -c $core "$@" > /dev/null & started="$started $!"; done; for one in $started; do wait $one || exit; done';
  return ['env', [`CORES=${cores.join(' ')}`, 'sh', '-c', script, 'sh', ...command]];
};

const main = async () => {
  const { values } = parseArgs({
    options: {
      spanwatch: { type: 'string' },
      lab: { type: 'string', default: path.join(here, 'bench-data', 'bench') },
      rounds: { type: 'string', default: '5' },
      only: { type: 'string', default: [...ONE_CORE, ...CORES].join() },
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
  const floor = (...more) => pinned(core, process.execPath, script('floor.mjs'), database, recording, ...more);
  const measures = {
    floor: turns => measureScript(floor(), turns),
    huge: turns => measureScript(floor('--huge-pages'), turns),
    ours: turns => measureOurs(pinned(core, ...verify('--jobs', '1')), turns),
    off: turns => measureOurs(pinned(core, ...verify('--jobs', '1', '--sandbox', 'off')), turns),
    alone: turns => measureOurs(pinned(core, ...verify('--jobs', '1')), turns),
    all: turns => measureOurs(unpinned(verify()), turns),
    each: turns => measureScript(onEach(verify('--jobs', '1')), turns),
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
    for (const group of [ONE_CORE, CORES]) {
      const turns = makeTurns();
      const names = only.filter(name => group.includes(name));
      try {
        await Promise.all(names.map(async name => runs[name].push(await measures[name](turns))));
      } finally {
        turns.over();
      }
      await turns.done;
      for (const name of names) {
        const run = runs[name].at(-1);
        run.wall = turns.ran(run.pid);
        const used = total(run.spans, span => (span.worker === undefined ? 0 : cpu(span)));
        process.stderr.write(`round ${round + 1}: ${name} ${run.wall.toFixed(1)} s, processor ${used.toFixed(1)} s\n`);
      }
    }
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
  const sequential = ONE_CORE.filter(name => runs[name]);
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
    row.oursToHuge = ratio('ours', 'huge', sum);
    row.nodeToFloor = ratio('node', 'floor', sum);
    row.nodeToOurs = ratio('node', 'ours', sum);
    row.sandbox = ratio('ours', 'off', sum);
    table[group] = row;
  }
  // How many times as much is done in a second as by one on one core.
  const fasterBy = (name, amount) =>
    runs[name] && runs.alone && spread(runs.alone.map((run, at) => (amount * run.wall) / runs[name][at].wall));
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
    allCores: fasterBy('all', 1),
    eachCore: fasterBy('each', os.availableParallelism()),
    cores: os.availableParallelism(),
  };
};

const seconds = ({ median: middle }) => middle.toFixed(2);
const times = ratio => (ratio ? `${ratio.median.toFixed(3)} (${ratio.least.toFixed(3)}–${ratio.most.toFixed(3)})` : '–');

const tell = ({ table, wholeRun, allCores, eachCore, cores }) => {
  say('Processor seconds (user and system), medians; ratios as median (least–most) of the rounds.\n');
  const columns = ['floor', 'huge', 'ours', 'node'].filter(name => table['all spans'][name]);
  const head = ['', 'spans', 'syscalls', ...columns, 'driver of ours', 'ours / floor', 'ours / huge', 'node / floor', 'node / ours', 'sandbox / off'];
  say(`| ${head.join(' | ')} |`);
  say(`|${head.map((_, at) => (at === 0 ? '---' : '--:')).join('|')}|`);
  for (const [group, row] of Object.entries(table)) {
    const driver = row.ours ? seconds(row.ours.driver) : '–';
    const ratios = [row.oursToFloor, row.oursToHuge, row.nodeToFloor, row.nodeToOurs, row.sandbox].map(times);
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
  if (eachCore) say(`What the machine gives, one program on each core at once against one alone: ${times(eachCore)} times as much done.`);
};

main().catch(error => {
  process.exitCode = 1;
  process.stderr.write(`bench: ${error.stack || error}\n`);
});
