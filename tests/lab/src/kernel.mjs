// A kernel with its store: starts it, runs blocks and commits them as a chain does.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

import { makeArchiveSnapshot, makeArchiveTranscript, openSwingStore } from '@agoric/swing-store';
import { initializeSwingset, makeSwingsetController } from '@agoric/swingset-vat';
import { makeSlogSender } from '@agoric/telemetry/src/flight-recorder.js';

import { makeClosings } from './closings.mjs';
import { makeLiar } from './lie.mjs';
import { makeWatch } from './watch.mjs';

const tmp = createRequire(import.meta.url)('tmp');

// A block ends after so many deliveries, as a chain's block ends when its time is up.
const CRANKS_PER_BLOCK = 40;

const storeOptions = ({ keep, out }) => {
  const powers = { fs, path, tmp };
  switch (keep) {
    case 'everything':
      return { keepSnapshots: true, keepTranscripts: true };
    case 'items':
      return { keepSnapshots: false, keepTranscripts: true };
    case 'archives':
      return {
        keepSnapshots: false,
        keepTranscripts: false,
        archiveSnapshot: makeArchiveSnapshot(path.join(out, 'snapshot-archive'), powers),
        archiveTranscript: makeArchiveTranscript(path.join(out, 'transcript-archive'), powers),
      };
    default:
      return { keepSnapshots: false, keepTranscripts: false };
  }
};

const kernelConfig = ({ snapshotInitial, snapshotInterval, relaxed, delicate, bench }, { vatBundles }) => {
  const vat = (bundle, creationOptions) => ({
    bundle: vatBundles[bundle],
    ...(creationOptions && { creationOptions }),
  });
  const benchVats = () => ({
    bootstrap: vat('bootstrap'),
    compute: vat('compute'),
    exchange: vat('exchange'),
    holder: vat('holder'),
    ledger: vat('ledger'),
    library: vat('holder'),
  });
  const labVats = () => ({
    bootstrap: vat('bootstrap'),
    collections: vat('collections'),
    disavower: vat('disavower', { enableDisavow: true }),
    echo: vat('edges'),
    edges: vat('edges'),
    hoard: vat('hoard'),
    local: vat('counter', { managerType: 'local' }),
    messenger: vat('messenger'),
    peer: vat('messenger'),
    quiet: vat('quiet'),
    ...(delicate && { patterns: vat('patterns'), products: vat('products'), zones: vat('zones') }),
  });
  return {
    defaultManagerType: 'xsnap',
    // A chain's is 1000.
    defaultReapInterval: bench ? 100 : 5,
    snapshotInitial,
    snapshotInterval,
    relaxDurabilityRules: relaxed,
    bootstrap: 'bootstrap',
    bundles: Object.fromEntries(Object.entries(vatBundles).map(([name, bundle]) => [name, { bundle }])),
    vats: bench ? benchVats() : labVats(),
  };
};

export const startKernel = async (options, bundles, spawn) => {
  const directory = path.join(options.out, 'agoric');
  const closings = makeClosings();
  const store = openSwingStore(directory, { ...storeOptions(options), exportCallback: closings.exportCallback });
  const { hostStorage } = store;
  const { kvStore } = store.kernelStorage;
  const liar = makeLiar(store.kernelStorage);
  const watch = makeWatch();
  // As on a chain's node: beside the database, of the default size.
  const recorder = options.flightRecorder ? await makeSlogSender({ stateDir: directory }) : undefined;
  const slogSender = (entry, text) => {
    watch.slogSender(entry);
    recorder?.(entry, text);
  };
  let height = 0;
  await initializeSwingset(kernelConfig(options, bundles), [], liar.storage, {
    kernelBundles: bundles.kernelBundles,
  });
  await hostStorage.commit();
  const controller = await makeSwingsetController(
    liar.storage,
    {},
    { kernelBundle: bundles.kernelBundles.kernel, slogSender, spawn },
  );
  controller.pinVatRoot('bootstrap');

  // What the clean-up of terminated vats may take of a block: false for nothing, true for all, or a small budget.
  let cleanup = true;

  const policy = () => {
    let cranks = 0;
    let cleanedUp = false;
    const crank = () => {
      cranks += 1;
      return cranks < CRANKS_PER_BLOCK;
    };
    return harden({
      // A budget is for one block.
      allowCleanup: () => cleanup === true || (!cleanedUp && cleanup),
      didCleanup: () => {
        cleanedUp = true;
        return true;
      },
      vatCreated: () => true,
      crankComplete: crank,
      crankFailed: crank,
      emptyCrank: () => true,
    });
  };

  const logBlock = entry => {
    const wal = fs.statSync(path.join(directory, 'swingstore.sqlite-wal')).size;
    fs.appendFileSync(options.blockLog, `${JSON.stringify({ height, ...entry, wal_bytes: wal })}\n`);
  };

  const runBlock = async () => {
    const began = performance.now();
    const ran = await controller.run(policy());
    const done = performance.now();
    height += 1;
    hostStorage.kvStore.set('host.height', `${height}`);
    await hostStorage.commit();
    const committed = performance.now();
    // A chain flushes its sender after each commit, too.
    await recorder?.forceFlush();
    const now = Date.now();
    const closed = closings.takeFresh();
    if (options.blockLog) {
      logBlock({ committed_at: now / 1000, run_ms: done - began, commit_ms: committed - done, closed });
    }
    return ran;
  };

  return {
    watch,
    // The host can only address static vats: the others are reached through the bootstrap vat.
    send: (name, method, ...args) => {
      const isStatic = watch.vat(name).kind === 'static';
      const [target, message, parts] = isStatic
        ? [name, method, args]
        : ['bootstrap', 'messageVat', [name, method, ...args]];
      controller.queueToVatRoot(target, message, parts, 'ignore');
    },
    isAlive: name => {
      const { kind, vatID } = watch.vat(name);
      return kind === 'static' || JSON.parse(kvStore.get('vat.dynamicIDs')).includes(vatID);
    },
    runBlock,
    // As many blocks as it takes to come to rest.
    run: async () => {
      while ((await runBlock()) > 0);
    },
    lieAbout: name => liar.lieAbout(watch.vat(name).vatID),
    takeLies: liar.takeLies,
    closings: closings.all,
    setSnapshotInterval: snapshotInterval => controller.changeKernelOptions({ snapshotInterval }),
    setCleanup: allowed => {
      cleanup = allowed;
    },
    hasOptions: vatID => kvStore.has(`${vatID}.options`),
    terminated: () => JSON.parse(kvStore.get('vats.terminated') || '[]'),
    // Not to be asked for while a vat is partly cleaned up: the dump reads every vat's transcript.
    testLogged: () => controller.dump().log.length,
    blocks: () => height,
    stop: async () => {
      await controller.shutdown();
      await recorder?.shutdown();
      await hostStorage.close();
    },
  };
};
