// A kernel with its store: starts it, runs blocks and commits them as a chain does.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

import { makeArchiveSnapshot, makeArchiveTranscript, openSwingStore } from '@agoric/swing-store';
import { initializeSwingset, makeSwingsetController } from '@agoric/swingset-vat';

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

const kernelConfig = ({ snapshotInitial, snapshotInterval }, { vatBundles }) => {
  const vat = (bundle, creationOptions) => ({ bundle: vatBundles[bundle], ...(creationOptions && { creationOptions }) });
  return {
    defaultManagerType: 'xsnap',
    defaultReapInterval: 4,
    snapshotInitial,
    snapshotInterval,
    bootstrap: 'bootstrap',
    bundles: Object.fromEntries(Object.entries(vatBundles).map(([name, bundle]) => [name, { bundle }])),
    vats: {
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
    },
  };
};

export const startKernel = async (options, bundles) => {
  const store = openSwingStore(path.join(options.out, 'agoric'), storeOptions(options));
  const { kernelStorage, hostStorage } = store;
  let height = 0;
  await initializeSwingset(kernelConfig(options, bundles), [], kernelStorage, {
    kernelBundles: bundles.kernelBundles,
  });
  await hostStorage.commit();
  const controller = await makeSwingsetController(kernelStorage, {}, {});
  controller.pinVatRoot('bootstrap');

  // What a terminated vat's clean-up may take of a block: false for nothing, true for all, or a small budget.
  let cleanup = true;

  const policy = () => {
    let cranks = 0;
    const crank = () => {
      cranks += 1;
      return cranks < CRANKS_PER_BLOCK;
    };
    return harden({
      allowCleanup: () => cleanup,
      // A budget is for one block.
      didCleanup: () => cleanup === true,
      vatCreated: () => true,
      crankComplete: crank,
      crankFailed: crank,
      emptyCrank: () => true,
    });
  };

  const commitBlock = async () => {
    height += 1;
    hostStorage.kvStore.set('host.height', `${height}`);
    await hostStorage.commit();
  };

  // As many blocks as it takes to come to rest, or just one.
  const run = async ({ once = false } = {}) => {
    let ran;
    do {
      ran = await controller.run(policy());
      await commitBlock();
    } while (ran > 0 && !once);
  };

  const vats = () => {
    const { kvStore } = kernelStorage;
    const ids = new Map();
    for (const name of JSON.parse(kvStore.get('vat.names'))) ids.set(name, kvStore.get(`vat.name.${name}`));
    for (const vatID of JSON.parse(kvStore.get('vat.dynamicIDs'))) {
      ids.set(JSON.parse(kvStore.get(`${vatID}.options`)).name, vatID);
    }
    return ids;
  };

  const everSeen = new Map();
  return {
    send: (method, ...args) => controller.queueToVatRoot('bootstrap', method, args, 'ignore'),
    run: async how => {
      await run(how);
      for (const [name, vatID] of vats()) everSeen.set(name, vatID);
    },
    setCleanup: allowed => {
      cleanup = allowed;
    },
    position: vatID => kernelStorage.transcriptStore.getCurrentSpanBounds(vatID).endPos,
    terminated: () => JSON.parse(kernelStorage.kvStore.get('vats.terminated') || '[]'),
    hasOptions: vatID => kernelStorage.kvStore.has(`${vatID}.options`),
    vatIDOf: name => everSeen.get(name),
    vats: () => Object.fromEntries(everSeen),
    blocks: () => height,
    stop: async () => {
      await controller.shutdown();
      await hostStorage.close();
    },
  };
};
