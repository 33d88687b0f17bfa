#!/usr/bin/env node
// Measures what depends on the length of the history: the daemon's start, a look that finds nothing new, `spanwatch spans`.
//
//   node scale.mjs SPANWATCH WORKER DB…
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { childrenCpu, cpuOf, peakMemory } from './usage.mjs';

const RUNS = 3;
const LOOKS = 50;
const POLL_MS = 100;
const median = values => values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];
const milliseconds = seconds => `${(seconds * 1_000).toFixed(1)} ms`;

// A metric's value, or the sum of a histogram and how much was counted.
const metric = (text, name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)[1]);
const looks = text => ({
  count: metric(text, 'spanwatch_read_transaction_seconds_count'),
  sum: metric(text, 'spanwatch_read_transaction_seconds_sum'),
});

const daemon = async (spanwatch, worker, database) => {
  const state = mkdtempSync(path.join(os.tmpdir(), 'scale-'));
  const settings = {
    'node.database': database,
    'worker.path': worker,
    'http.listen': '127.0.0.1:0',
    'watch.poll_interval': `${POLL_MS}ms`,
    'log.format': 'json',
  };
  const set = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  try {
    const began = performance.now();
    const child = spawn(spanwatch, ['run', '--state-dir', state, ...set], { stdio: ['ignore', 'pipe', 'pipe'] });
    let log = '';
    let address;
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', chunk => {
        log += chunk;
        address = /"address":"([^"]+)"/.exec(log)?.[1];
      });
    }
    const get = async page => {
      const response = await fetch(`http://${address}/${page}`);
      return response.ok && response.text();
    };
    const until = async test => {
      for (;;) {
        if (child.exitCode !== null) throw Error(`spanwatch ended: ${log}`);
        const value = await test().catch(() => undefined);
        if (value) return value;
        await sleep(5);
      }
    };
    await until(async () => address && get('readyz'));
    const start = (performance.now() - began) / 1_000;
    // Until it has come to rest.
    await sleep(2_000);
    const [before, cpuBefore] = [looks(await get('metrics')), cpuOf(child.pid).own];
    // It is not asked meanwhile, as its answers would be in the figure.
    await sleep(LOOKS * POLL_MS);
    const [after, cpuAfter] = [looks(await get('metrics')), cpuOf(child.pid).own];
    const count = after.count - before.count;
    const peak = peakMemory(child.pid);
    child.kill('SIGTERM');
    await once(child, 'exit');
    return { start, look: (after.sum - before.sum) / count, lookCpu: (cpuAfter - cpuBefore) / count, peak };
  } finally {
    rmSync(state, { recursive: true });
  }
};

const spans = async (spanwatch, database) => {
  const [began, cpuBefore] = [performance.now(), childrenCpu()];
  const child = spawn(spanwatch, ['spans', database, '--format', 'json'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let peak = 0;
  let lines = 0;
  const timer = setInterval(() => {
    try {
      peak = peakMemory(child.pid) ?? peak;
    } catch {
      // It has just ended.
    }
  }, 5);
  child.stdout.on('data', chunk => {
    for (const byte of chunk) if (byte === 10) lines += 1;
  });
  await once(child, 'close');
  clearInterval(timer);
  return { wall: (performance.now() - began) / 1_000, cpu: childrenCpu() - cpuBefore, peak, lines };
};

const [spanwatch, worker, ...databases] = process.argv.slice(2);
const rows = databases.map(database => ({ database, daemons: [], spans: [] }));
for (let run = 0; run < RUNS; run += 1) {
  for (const row of rows) {
    row.daemons.push(await daemon(spanwatch, worker, row.database));
    row.spans.push(await spans(spanwatch, row.database));
  }
}
process.stdout.write('| spans | start to ready | a look: wall | a look: CPU, all of the daemon | daemon memory | `spans`: wall | CPU | memory |\n');
process.stdout.write('|--:|--:|--:|--:|--:|--:|--:|--:|\n');
for (const { daemons, spans: listed } of rows) {
  const of = (list, name) => median(list.map(one => one[name]));
  const mib = bytes => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  const cells = [
    of(listed, 'lines') - 1,
    `${of(daemons, 'start').toFixed(2)} s`,
    milliseconds(of(daemons, 'look')),
    milliseconds(of(daemons, 'lookCpu')),
    mib(of(daemons, 'peak')),
    `${of(listed, 'wall').toFixed(2)} s`,
    `${of(listed, 'cpu').toFixed(2)} s`,
    mib(of(listed, 'peak')),
  ];
  process.stdout.write(`| ${cells.join(' | ')} |\n`);
}
