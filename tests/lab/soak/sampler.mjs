// Looks once a second at what can only be seen while it runs.
import { appendFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { now } from './processes.mjs';

const SAMPLE_MS = 1000;

export const startSampler = (daemon, { directory, samplesFile }) => {
  const samples = [];
  const wakeUp = new AbortController();

  const look = async () => {
    const sample = { at: now() };
    const wal = statSync(path.join(directory, 'agoric', 'swingstore.sqlite-wal'), { throwIfNoEntry: false });
    if (wal) sample.wal_bytes = wal.size;
    if (daemon?.isRunning()) {
      Object.assign(sample, daemon.memory());
      sample.metrics = await daemon.metrics();
    }
    samples.push(sample);
    appendFileSync(samplesFile, `${JSON.stringify(sample)}\n`);
  };

  const work = (async () => {
    while (!wakeUp.signal.aborted) {
      await look();
      await sleep(SAMPLE_MS, undefined, { signal: wakeUp.signal }).catch(() => {});
    }
  })();

  return {
    stop: async () => {
      wakeUp.abort();
      await work;
      return samples;
    },
  };
};
