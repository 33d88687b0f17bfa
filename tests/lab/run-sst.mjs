#!/usr/bin/env node
// Runs an exported transcript with the kernel's own modules, put together as the SDK's replay-transcript.js does it: a
// worker from the bundles or the image that lie beside the file, each delivery with a syscall simulator, and the hash of
// each image that the worker saves.
import '@endo/init/debug.js';

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { makeStartXSnap } from '@agoric/swingset-vat/src/controller/startXSnap.js';
import { makeXsSubprocessFactory } from '@agoric/swingset-vat/src/kernel/vat-loader/manager-subprocess-xsnap.js';
import { makeSyscallSimulator } from '@agoric/swingset-vat/src/kernel/vat-warehouse.js';
import { tmpName } from 'tmp';

const [file] = process.argv.slice(2);
if (!file) throw Error('usage: node run-sst.mjs FILE');
const beside = name => path.join(path.dirname(file), name);
const lines = fs.readFileSync(file, 'utf8').trimEnd().split('\n').map(line => JSON.parse(line));
const [{ type, vatID, bundleIDs = [], vatSourceBundleID, snapshotID: loaded }, ...rest] = lines;
if (type !== 'create-vat' && type !== 'heap-snapshot-load') throw Error(`the first line is ${type}`);

const getBundle = async id => harden(JSON.parse(fs.readFileSync(beside(id), 'utf8')));
const hash = async (stream, to) => {
  const hasher = createHash('sha256');
  const output = fs.openSync(to, 'w');
  for await (const chunk of stream) {
    hasher.update(chunk);
    fs.writeSync(output, chunk);
  }
  fs.closeSync(output);
  return hasher.digest('hex');
};
const snapStore = {
  getSnapshotInfo: () => ({ hash: loaded, snapPos: 0 }),
  loadSnapshot: () => fs.createReadStream(beside(`${vatID}-${loaded}.xss`)),
  saveSnapshot: async (_vatID, _position, stream) => ({ hash: await hash(stream, beside('saved.xss')) }),
};
const finish = () => () => undefined;
const kernelSlog = { write() {}, delivery: finish, syscall: finish };
const factory = makeXsSubprocessFactory({
  startXSnap: makeStartXSnap({ snapStore, spawn, fs, tmpName, bundleHandler: harden({ getBundle }) }),
  kernelKeeper: { provideVatKeeper: () => ({ getSnapshotInfo: () => loaded && { hash: loaded } }) },
  kernelSlog,
  testLog() {},
});
const manager = await factory.createFromBundle(
  vatID,
  loaded ? undefined : await getBundle(vatSourceBundleID),
  { sourcedConsole: console, useTranscript: true, workerOptions: { type: 'xsnap', bundleIDs } },
  {},
);

let deliveries = 0;
for (const { type: kind, transcriptNum, snapshotID, ...item } of rest) {
  if (kind === 'heap-snapshot-save') {
    const { hash: saved } = await manager.makeSnapshot(transcriptNum, snapStore, false);
    console.log(`${deliveries} deliveries, saved ${saved}`);
    if (saved !== snapshotID) throw Error(`the image that was recorded is ${snapshotID}`);
  } else {
    const simulator = makeSyscallSimulator(kernelSlog, vatID, transcriptNum, item);
    await manager.deliver(item.d, simulator.syscallHandler);
    simulator.finishSimulation();
    deliveries += 1;
  }
}
await manager.shutdown();
