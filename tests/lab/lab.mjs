#!/usr/bin/env node
// Runs the real SwingSet kernel with real workers and writes a kernel database; see README.md.
import '@endo/init/debug.js';

import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { loadBundles } from './src/bundles.mjs';
import { check } from './src/check.mjs';
import { startKernel } from './src/kernel.mjs';
import { writeModel } from './src/model.mjs';
import { parseOptions, USAGE } from './src/options.mjs';
import { quieten, say } from './src/output.mjs';
import { live, play, playBench, playDelicate } from './src/script.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));

const main = async () => {
  const options = parseOptions(process.argv.slice(2), here);
  if (options.help) {
    say(USAGE);
    return;
  }
  const vatDirectory = path.join(here, options.bench ? 'bench-vats' : 'vats');
  if (options.bundlesOnly) {
    await loadBundles(vatDirectory, options.bundleCache);
    return;
  }
  if (existsSync(path.join(options.out, 'agoric', 'swingstore.sqlite'))) {
    throw Error(`${options.out} has a database already: name another --out, or remove it first`);
  }
  mkdirSync(options.out, { recursive: true });
  const spawn = quieten(path.join(options.out, 'kernel.log'));
  const bundles = await loadBundles(vatDirectory, options.bundleCache);
  const kernel = await startKernel(options, bundles, spawn);
  let told;
  try {
    const happen = (options.live !== undefined && live) || (options.delicate && playDelicate) || (options.bench && playBench) || play;
    const { dead, testLogged } = await happen(kernel, options);
    const { watch } = kernel;
    const counts = { ...watch.counts(), testLogged };
    told = { dead, terminated: kernel.terminated(), vats: watch.vats(), failed: watch.failed(), counts };
    told.closings = kernel.closings();
  } finally {
    await kernel.stop();
  }
  const { roles, features } = check(options, told);
  const vats = Object.fromEntries(Object.entries(roles).map(([name, { vatID }]) => [name, vatID]));
  const { dead, terminated, failed } = told;
  writeModel(options, { blocks: kernel.blocks(), vats, roles, terminated, dead, failed, features });
  if (!options.quiet) {
    say(`${kernel.blocks()} blocks, ${features.closedSpans} closed spans in ${options.out}`);
  }
};

main().catch(error => {
  process.exitCode = 1;
  say(`lab: ${error.stack || error}`, process.stderr);
});
