// Runs this trace with replay.js of @agoric/xsnap: node replay.mjs DIR_OF_@agoric/xsnap [XSNAP_WORKER]
//
// replay.js 0.15.0 can be run directly for a trace without a base image. It reads the image of one that has it, but gives
// it to xsnap() under a name that xsnap() does not know, so that the worker starts blank. This gives it the right one.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';

const [xsnapDir, worker] = process.argv.slice(2).map(name => fs.realpathSync(name));
if (!xsnapDir) {
  console.error('usage: node replay.mjs DIR_OF_@agoric/xsnap [XSNAP_WORKER]');
  process.exit(2);
}
const here = path.dirname(fileURLToPath(import.meta.url));
process.chdir(here);
const facts = JSON.parse(fs.readFileSync('span.json', 'utf8'));
// Vats can see it, and so can the heap's hash.
if (facts.timeZone) process.env.TZ = facts.timeZone;

const { resolve } = createRequire(path.join(xsnapDir, 'package.json'));
await import(pathToFileURL(resolve('@endo/init')).href);
const { replayXSnap } = await import(pathToFileURL(path.join(xsnapDir, 'src/replay.js')).href);

const steps = fs.readdirSync('trace');
const { snapshot } = JSON.parse(fs.readFileSync(`trace/${steps[0]}`, 'utf8'));
const done = await replayXSnap(
  {
    spawn: (program, ...more) => spawn(worker || program, ...more),
    fs: { ...fs, ...fs.promises },
    os: os.type(),
    stdout: 'inherit',
    stderr: 'inherit',
    snapshotStream: snapshot && fs.createReadStream(path.resolve('trace', snapshot)),
  },
  [`${here}/trace/`],
  fs,
);
console.log(`ran ${done.length} of ${steps.length - 1} steps`);

const last = steps.at(-1);
if (last.endsWith('-snapshot.dat')) {
  const name = fs.readFileSync(`trace/${last}`, 'utf8');
  const hash = createHash('sha256').update(fs.readFileSync(name)).digest('hex');
  const is = { [facts.replayed]: 'as in the replay of the evidence', [facts.recorded]: 'as recorded' }[hash];
  console.log(`sha256 of ${name}: ${hash}, ${is || 'neither as recorded nor as in the replay of the evidence'}`);
  if (!is) process.exitCode = 1;
}
