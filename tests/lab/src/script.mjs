// What happens in the lab's chain, in order. No clock and no chance: the same options give the same transcripts.
import { setTimeout as sleep } from 'node:timers/promises';

import { say } from './output.mjs';

const owner = n => `owner ${Math.floor(n / 40) % 2} é😀`;

// One after another, over and over: the daily business.
const BUSINESS = [
  n => ['messageVat', 'upgraded', 'increment', `note ${n}`],
  n => ['messageVat', 'collections', 'open', owner(n)],
  () => ['messageVat', 'edges', 'strings'],
  n => ['messageVat', 'messenger', 'round', `hello ${n}`],
  n => ['messageVat', 'metered', 'increment', n],
  () => ['messageVat', 'edges', 'numbers'],
  () => ['messageVat', 'collections', 'list'],
  n => ['messageVat', 'collections', 'open', owner(n)],
  n => ['hold', 'messenger', 'makeToken', `token ${n}`],
  n => ['messageVat', 'local', 'increment', n],
  () => ['callDevice'],
  n => ['messageVat', 'hoard', 'grow', 200 + n],
  n => ['messageVat', 'breaks', 'increment', n],
  () => ['release'],
  n => ['messageVat', 'collections', 'close', owner(n)],
  n => ['messageVat', 'metered', 'fail', n],
  () => ['remember', 'collections', 'peer'],
  () => ['disavow', 'disavower', 'peer'],
  n => ['messageVat', 'disavower', 'count', n],
  n => ['messageVat', 'kept', 'increment', n],
  n => ['messageVat', 'partly', 'increment', n],
];

const MORTALS = ['compute', 'stack', 'memory', 'leave'];

const setUp = async kernel => {
  await kernel.run();
  kernel.send('introduce', 'edges', 'echo');
  kernel.send('introduce', 'messenger', 'peer');
  for (const name of ['upgraded', 'breaks', 'kept', 'partly', 'gone']) kernel.send('createVat', name, 'counter');
  kernel.send('createVat', 'metered', 'counter', { metered: true });
  await kernel.run();
};

const business = async (kernel, from, to) => {
  for (let n = from; n < to; n += 1) {
    kernel.send(...BUSINESS[n % BUSINESS.length](n));
    // A chain's blocks hold one message or several.
    if (n % 3 !== 1) await kernel.run();
  }
  await kernel.run();
};

// Vats that come to an end: what their last transcript position was before the delivery that killed them, and after it.
const ends = async kernel => {
  const dead = {};
  for (const how of MORTALS) {
    const name = `dies-${how}`;
    kernel.send('createVat', name, 'mortal', { metered: how === 'compute' });
    await kernel.run();
    for (let n = 0; n < 5; n += 1) {
      kernel.send('messageVat', name, 'live');
      await kernel.run();
    }
    const vatID = kernel.vatIDOf(name);
    const before = kernel.position(vatID);
    kernel.send('messageVat', name, how, 'as asked');
    await kernel.run();
    dead[name] = { vatID, how, before };
  }
  return dead;
};

export const play = async (kernel, { deliveries }) => {
  await setUp(kernel);
  const part = Math.ceil(deliveries / 5);
  await business(kernel, 0, part);
  kernel.send('messageVat', 'edges', 'big', 1_200_000);
  await kernel.run();
  kernel.send('upgradeVat', 'upgraded', 'counter-second');
  kernel.send('upgradeVat', 'breaks', 'broken-upgrade');
  await kernel.run();
  await business(kernel, part, 2 * part);
  kernel.send('terminateVat', 'gone', 'cleaned up at once');
  await kernel.run();
  await business(kernel, 2 * part, 3 * part);
  kernel.send('upgradeVat', 'upgraded', 'counter-third');
  kernel.send('createVat', 'late', 'collections');
  await kernel.run();
  kernel.send('messageVat', 'late', 'open', 'late owner');
  await business(kernel, 3 * part, 4 * part);
  // From here on no vat is cleaned up but one, and that one only in part.
  kernel.setCleanup(harden({ default: 3 }));
  kernel.send('terminateVat', 'partly', 'cleaned up in part');
  do {
    await kernel.run({ once: true });
  } while (kernel.hasOptions(kernel.vatIDOf('partly')));
  kernel.setCleanup(false);
  kernel.send('terminateVat', 'kept', 'not cleaned up');
  await kernel.run();
  const dead = await ends(kernel);
  await business(kernel, 4 * part, deliveries);
  return { dead, terminated: kernel.terminated() };
};

export const live = async (kernel, { live: milliseconds, quiet }) => {
  let stopping = false;
  const wakeUp = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => {
      stopping = true;
      wakeUp.abort();
    });
  }
  await setUp(kernel);
  say('live');
  for (let n = 0; !stopping; n += 3) {
    const began = Date.now();
    for (let m = n; m < n + 3; m += 1) kernel.send(...BUSINESS[m % BUSINESS.length](m));
    await kernel.run({ once: true });
    if (!quiet) say(`block ${kernel.blocks()} took ${Date.now() - began} ms`);
    const rest = milliseconds - (Date.now() - began);
    if (rest > 0) await sleep(rest, undefined, { signal: wakeUp.signal }).catch(() => {});
  }
  return { dead: {}, terminated: kernel.terminated() };
};
