// Bundles of the kernel and of the vats. Bundling takes most of a minute, so they are kept, each under the hash of what
// it is made from.
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import bundleSource from '@endo/bundle-source';
import { buildKernelBundles } from '@agoric/swingset-vat';

export const loadBundles = async (vatDirectory, cache) => {
  mkdirSync(cache, { recursive: true });
  const lock = readFileSync(path.join(vatDirectory, '..', 'package-lock.json'));
  const cached = async (name, source, make) => {
    const key = createHash('sha256').update(lock).update(source).digest('hex').slice(0, 16);
    const file = path.join(cache, `${name}-${key}.json`);
    try {
      return JSON.parse(readFileSync(file, 'utf8'));
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
    const made = await make();
    const temporary = `${file}.${process.pid}.tmp`;
    writeFileSync(temporary, JSON.stringify(made));
    renameSync(temporary, file);
    return made;
  };
  const kernelBundles = await cached('kernel', '', buildKernelBundles);
  const vatBundles = {};
  for (const fileName of readdirSync(vatDirectory).sort()) {
    const file = path.join(vatDirectory, fileName);
    const name = path.basename(fileName, '.js');
    vatBundles[name] = await cached(name, readFileSync(file), () => bundleSource(file));
  }
  return { kernelBundles, vatBundles };
};
