#!/usr/bin/env node
// The least that any verifier can take with this worker: for each span the worker alone, with its whole input in a file
// and its output to files. Checks that what came out is what was recorded. Prints a line of JSON for each span.
//
//   node floor.mjs DB RECORDING [--vat ID] [--huge-pages]
//
// RECORDING is what `baseline.mjs --record` wrote. With --huge-pages the worker asks for them, as those of `spanwatch verify` do.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { openRecord } from './record.mjs';
import { childrenCpu } from './usage.mjs';

// An answer that nobody asked for: the worker ends at once, with this status, and does not take its heap apart first.
// Neither does one that is killed at the end of its span.
const END = '1:/,';
const END_STATUS = 2;

const messages = bytes => {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const colon = bytes.indexOf(':', at);
    const end = colon + 1 + Number(bytes.toString('latin1', at, colon));
    found.push(bytes.toString('utf8', colon + 1, end));
    at = end + 1;
  }
  return found;
};

// Without the times of day in the meter.
const comparable = message => message.replace(/"timestamps":\[[^\]]*\]/, '');

const run = async (record, recording, scratch, env, span) => {
  const from = path.join(recording, `${span.vatID}.${span.start}`);
  const { program, args } = JSON.parse(fs.readFileSync(path.join(from, 'args.json'), 'utf8'));
  const [output, image, base] = ['out', 'image', 'base'].map(name => path.join(scratch, name));
  const isBlank = span.start === 0 || !args.includes('-r');
  // Read from a disk it would cost the worker more.
  if (!isBlank) fs.copyFileSync(path.join(from, 'image'), base);
  const null_ = fs.openSync('/dev/null', 'r+');
  const fds = [
    fs.openSync(path.join(from, 'in'), 'r'),
    fs.openSync(output, 'w'),
    fs.openSync(image, 'w'),
    isBlank ? null_ : fs.openSync(base, 'r'),
  ];
  const [commands, replies, save, load] = fds;
  const stdio = [null_, null_, null_, commands, replies, null_, null_, save, load];
  const began = { wall: performance.now(), workers: childrenCpu() };
  const worker = spawn(program, args, { stdio, env });
  const [status] = await once(worker, 'exit');
  const times = { wall: (performance.now() - began.wall) / 1_000, worker: childrenCpu() - began.workers };
  for (const fd of new Set([...fds, null_])) fs.closeSync(fd);

  const must = (ok, what) => {
    if (!ok) throw Error(`${span.vatID} from ${span.start}: ${what}`);
  };
  must(status === END_STATUS, `the worker ended with ${status}`);
  const [recorded, replayed] = [path.join(from, 'out'), output].map(file => messages(fs.readFileSync(file)));
  must(recorded.length === replayed.length, `${replayed.length} replies instead of ${recorded.length}`);
  recorded.forEach((one, at) => must(comparable(one) === comparable(replayed[at]), `reply ${at} is another`));
  const last = JSON.parse(record.items(span).at(-1));
  if (last.r.snapshotID) {
    const hash = createHash('sha256').update(fs.readFileSync(image)).digest('hex');
    must(hash === last.r.snapshotID, `the snapshot has the hash ${hash}`);
  }
  return { ...span, ...times };
};

const main = async () => {
  const { values, positionals } = parseArgs({
    options: { vat: { type: 'string' }, 'huge-pages': { type: 'boolean', default: false } },
    allowPositionals: true,
  });
  const [database, recording] = positionals;
  const env = { TZ: 'UTC', ...(values['huge-pages'] && { GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1' }) };
  const record = openRecord(database);
  // Memory, as a verifier would take.
  const scratch = fs.mkdtempSync(path.join(fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir(), 'floor-'));
  try {
    for (const span of record.spans()) {
      if (values.vat && span.vatID !== values.vat) continue;
      const input = path.join(recording, `${span.vatID}.${span.start}`, 'in');
      if (!fs.readFileSync(input).subarray(-END.length).equals(Buffer.from(END))) fs.appendFileSync(input, END);
      process.stdout.write(`${JSON.stringify(await run(record, recording, scratch, env, span))}\n`);
    }
  } finally {
    fs.rmSync(scratch, { recursive: true });
    record.close();
  }
};

main().catch(error => {
  process.exitCode = 1;
  process.stderr.write(`floor: ${error.stack || error}\n`);
});
