#!/usr/bin/env node
// The verifier that one would write without spanwatch: the official driver, one worker at a time. Compares each syscall,
// each delivery's status and computrons, and the snapshot's hash. Prints a line of JSON for each span.
//
//   node baseline.mjs DB [--vat ID] [--record DIR]
//
// With --record it notes what went to each worker and what came back, to measure the worker alone with.
import '@endo/init/debug.js';

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { xsnap } from '@agoric/xsnap';

import { openRecord } from './record.mjs';
import { childrenCpu } from './usage.mjs';

const { tmpName } = createRequire(import.meta.url)('tmp');

const NETSTRING_MAX_CHUNK_SIZE = 12_000_000;
// What the driver gives to a metered vat's worker.
const METERING_LIMIT = 100_000_000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

// Notes in DIR/<vat>.<start> what a worker is given and what it says.
const recorder = (directory, { vatID, start }) => {
  const to = path.join(directory, `${vatID}.${start}`);
  fs.mkdirSync(to, { recursive: true });
  const input = fs.openSync(path.join(to, 'in'), 'w');
  const output = fs.openSync(path.join(to, 'out'), 'w');
  const image = fs.openSync(path.join(to, 'image'), 'w');
  return {
    spawn: (program, args, options) => {
      fs.writeFileSync(path.join(to, 'args.json'), JSON.stringify({ program, args }));
      const worker = spawn(program, args, options);
      const { write } = worker.stdio[3];
      worker.stdio[3].write = (chunk, ...rest) => {
        fs.writeSync(input, chunk);
        return write.call(worker.stdio[3], chunk, ...rest);
      };
      worker.stdio[4].on('data', chunk => fs.writeSync(output, chunk));
      return worker;
    },
    image: chunk => fs.writeSync(image, chunk),
    close: () => [input, output, image].forEach(fd => fs.closeSync(fd)),
  };
};

async function* hashed(stream, hash, note) {
  for await (const chunk of stream) {
    hash.update(chunk);
    if (note) note(chunk);
    yield chunk;
  }
}

const verify = async (record, span, recordTo) => {
  const { vatID } = span;
  const { meterID, enableDisavow = false } = record.vatOptions(vatID);
  const items = record.items(span).map(text => JSON.parse(text));
  const differences = [];
  const compare = (position, what, recorded, replayed) => {
    if (recorded !== replayed) differences.push({ position, what, recorded, replayed });
  };
  const tape = recordTo && recorder(recordTo, span);
  let syscalls;
  let syscallCount = 0;
  let position = span.start;
  const handleCommand = async message => {
    const [kind, vatSyscall] = JSON.parse(decoder.decode(message));
    if (kind === 'sourcedConsole') return encoder.encode('["ok"]');
    if (kind === 'testLog') return encoder.encode('["OK"]');
    const expected = syscalls.shift();
    if (!expected) throw Error(`${vatID}:${position}: a syscall too many`);
    compare(position, 'syscall', JSON.stringify(expected.s), JSON.stringify(vatSyscall));
    syscallCount += 1;
    return encoder.encode(JSON.stringify(expected.r));
  };
  const [first] = items;
  const isBlank = first.d[0] === 'initialize-worker';
  const baseHash = createHash('sha256');
  const worker = await xsnap({
    os: os.type(),
    fs: { ...fs, ...fs.promises, tmpName },
    spawn: tape ? tape.spawn : spawn,
    handleCommand,
    name: `${vatID}:baseline`,
    netstringMaxChunkSize: NETSTRING_MAX_CHUNK_SIZE,
    meteringLimit: meterID ? METERING_LIMIT : 0,
    snapshotStream: isBlank ? undefined : hashed(record.image(span), baseHash, tape && tape.image),
  });
  if (isBlank) {
    const { source, workerOptions } = first.d[1];
    for (const id of workerOptions.bundleIDs) await worker.evaluate(record.program(id));
    const options = { enableDisavow, relaxDurabilityRules: record.relaxDurabilityRules() };
    const command = ['setBundle', vatID, record.vatBundle(source.bundleID), options];
    const { reply } = await worker.issueStringCommand(JSON.stringify(command));
    compare(position, 'start', 'dispatchReady', JSON.parse(reply)[0]);
  } else {
    await worker.isReady();
    compare(position, 'base image', first.d[1].snapshotID, baseHash.digest('hex'));
  }
  let deliveries = 0;
  for (const { d, sc, r } of items.slice(1)) {
    position += 1;
    if (d[0] === 'save-snapshot') {
      const hash = createHash('sha256');
      for await (const chunk of worker.makeSnapshotStream()) hash.update(chunk);
      compare(position, 'snapshot', r.snapshotID, hash.digest('hex'));
    } else if (d[0] !== 'shutdown-worker') {
      syscalls = sc;
      const { reply, meterUsage } = await worker.issueStringCommand(JSON.stringify(['deliver', d]));
      compare(position, 'status', r.status, JSON.parse(reply)[0]);
      compare(position, 'computrons', r.metering.computrons, meterUsage.compute);
      compare(position, 'syscalls left', 0, syscalls.length);
      deliveries += 1;
    }
  }
  await worker.terminate();
  if (tape) tape.close();
  return { ...span, deliveries, syscalls: syscallCount, differences };
};

const main = async () => {
  const { values, positionals } = parseArgs({
    options: { vat: { type: 'string' }, record: { type: 'string' } },
    allowPositionals: true,
  });
  const record = openRecord(positionals[0]);
  for (const span of record.spans()) {
    if (values.vat && span.vatID !== values.vat) continue;
    const began = { wall: performance.now(), own: process.cpuUsage(), workers: childrenCpu() };
    const result = await verify(record, span, values.record);
    const own = process.cpuUsage(began.own);
    const times = {
      wall: (performance.now() - began.wall) / 1_000,
      driver: (own.user + own.system) / 1e6,
      worker: childrenCpu() - began.workers,
    };
    process.stdout.write(`${JSON.stringify({ ...result, ...times })}\n`);
    if (result.differences.length > 0) process.exitCode = 1;
  }
  record.close();
};

main().catch(error => {
  process.exitCode = 1;
  process.stderr.write(`baseline: ${error.stack || error}\n`);
});
