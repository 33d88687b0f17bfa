// What happens in the lab's chain, in order. No clock and no chance: the same options give the same transcripts.
import { setTimeout as sleep } from 'node:timers/promises';

import { say } from './output.mjs';

// An account is opened, and opened again, then closed.
const owner = n => `owner ${Math.floor(n / 48) % 2} é😀`;

// One after another, over and over: the daily business. What goes by way of the bootstrap vat makes messages and
// notifications between vats.
const BUSINESS = [
  n => ['upgraded', 'increment', `note ${n}`],
  n => ['collections', 'open', owner(n)],
  () => ['edges', 'strings'],
  n => ['messenger', 'round', `hello ${n}`],
  n => ['metered', 'increment', n],
  n => ['partly', 'increment', n],
  () => ['edges', 'numbers'],
  () => ['collections', 'list'],
  n => ['bootstrap', 'hold', `token ${n}`, 'messenger', 'makeToken'],
  n => ['local', 'increment', n],
  n => ['breaks', 'increment', n],
  () => ['bootstrap', 'callDevice'],
  n => ['hoard', 'grow', 200 + (n % 240)],
  n => ['upgraded', 'increment', { n }],
  n => ['collections', 'fill', n, n + 60],
  n => ['bootstrap', 'hold', `account ${n}`, 'collections', 'open', owner(n)],
  n => ['partly', 'increment', -n],
  n => ['bootstrap', 'messageVat', 'metered', 'fail', n],
  () => ['bootstrap', 'remember', 'collections', 'peer'],
  () => ['bootstrap', 'release'],
  () => ['bootstrap', 'disavow', 'disavower', 'peer'],
  n => ['kept', 'increment', n],
  n => ['collections', 'close', owner(n)],
  n => ['disavower', 'count', n],
];

// How a vat comes to its end, and the meter it needs for that.
const ENDS = [['compute', 'unlimited'], ['meter', 20_000_000], ['stack'], ['memory'], ['quit'], ['leave']];

const setUp = async kernel => {
  await kernel.run();
  kernel.send('bootstrap', 'introduce', 'edges', 'echo');
  kernel.send('bootstrap', 'introduce', 'messenger', 'peer');
  for (const name of ['upgraded', 'breaks', 'kept', 'partly', 'gone']) {
    kernel.send('bootstrap', 'createVat', name, 'counter', { vatParameters: { role: name, of: [1, -0, 'é'] } });
    await kernel.run();
  }
  kernel.send('bootstrap', 'createVat', 'metered', 'counter', { computrons: 'unlimited' });
  await kernel.run();
};

// Where a vat is gone, its turn is skipped.
const sendBusiness = (kernel, n) => {
  const [name, ...message] = BUSINESS[n % BUSINESS.length](n);
  if (kernel.isAlive(name)) kernel.send(name, ...message);
};

// What the upgraded vat of a live kernel is upgraded to, in turn.
const UPGRADES = ['counter-second', 'counter-third'];

// What the clean-up of a terminated vat may take of a block: some blocks are needed for a vat.
const CLEANUP_BUDGET = harden({ default: 3 });

// A chain's blocks hold one message or several.
const business = async (kernel, from, to) => {
  for (let n = from; n < to; n += 1) {
    sendBusiness(kernel, n);
    if (n % 3 !== 1) await kernel.run();
  }
  await kernel.run();
};

const ends = async kernel => {
  const dead = {};
  kernel.send('bootstrap', 'createVat', 'stillborn', 'broken-upgrade');
  await kernel.run();
  for (const [how, computrons] of ENDS) {
    const name = `dies-${how}`;
    kernel.send('bootstrap', 'createVat', name, 'mortal', { computrons });
    await kernel.run();
    for (let n = 0; n < 5; n += 1) {
      kernel.send(name, 'live');
      await kernel.run();
    }
    kernel.send(name, how, 'as asked');
    await kernel.run();
    const { vatID } = kernel.watch.vat(name);
    const { position: before, ...end } = kernel.watch.termination(vatID);
    dead[name] = { how, before, ...end };
  }
  return dead;
};

// From here on no vat is cleaned up but one, and that one only in part.
const terminate = async kernel => {
  kernel.setCleanup(CLEANUP_BUDGET);
  kernel.send('bootstrap', 'terminateVat', 'partly', 'cleaned up in part');
  const { vatID } = kernel.watch.vat('partly');
  do {
    await kernel.runBlock();
  } while (kernel.hasOptions(vatID));
  kernel.setCleanup(false);
  kernel.send('bootstrap', 'terminateVat', 'kept', 'not cleaned up');
  await kernel.run();
};

export const play = async (kernel, { deliveries }) => {
  await setUp(kernel);
  const part = Math.ceil(deliveries / 5);
  await business(kernel, 0, part);
  kernel.send('edges', 'big', 1_200_000);
  kernel.send('upgraded', 'linger');
  await kernel.run();
  kernel.send('bootstrap', 'upgradeVat', 'upgraded', 'counter-second');
  kernel.send('bootstrap', 'upgradeVat', 'breaks', 'broken-upgrade');
  await kernel.run();
  await business(kernel, part, 2 * part);
  kernel.send('bootstrap', 'terminateVat', 'gone', 'cleaned up at once');
  await kernel.run();
  await business(kernel, 2 * part, 3 * part);
  kernel.send('bootstrap', 'upgradeVat', 'upgraded', 'counter-third');
  kernel.send('bootstrap', 'createVat', 'late', 'collections');
  await kernel.run();
  kernel.send('late', 'open', 'late owner');
  await business(kernel, 3 * part, 4 * part);
  const testLogged = kernel.testLogged();
  await terminate(kernel);
  const dead = await ends(kernel);
  await business(kernel, 4 * part, deliveries);
  return { dead, testLogged };
};

// Each of the delicate vats has a span or two; what makes it delicate comes in the middle of the second.
export const playDelicate = async kernel => {
  await kernel.run();
  for (let n = 0; n < 14; n += 1) {
    const isTime = n === 9;
    kernel.send('products', ...(isTime ? ['multiply', 6, 7] : ['idle', n]));
    kernel.send('patterns', ...(isTime ? ['match', 'abc1'] : ['idle', n]));
    kernel.send('zones', 'note', n * 86_400_000);
    await kernel.run();
  }
  return { dead: {}, testLogged: kernel.testLogged() };
};

// To each of the bench's vats, so often: short spans, then long ones.
const BENCH_SHORT = 100;
const BENCH_LONG = 450;
const BENCH_LONG_INTERVAL = 150;

// `ledger` has the most syscalls, `library` the largest heap, `compute` the most to do.
export const playBench = async kernel => {
  await kernel.run();
  kernel.send('holder', 'hold', 30_000);
  for (let n = 0; n < 8; n += 1) kernel.send('library', 'hold', 50_000);
  await kernel.run();
  for (let n = 0; n < BENCH_SHORT + BENCH_LONG; n += 1) {
    if (n === BENCH_SHORT) kernel.setSnapshotInterval(BENCH_LONG_INTERVAL);
    kernel.send('compute', 'work', n, 500);
    kernel.send('ledger', 'settle', n, 4);
    kernel.send('exchange', 'trade', n);
    kernel.send('holder', 'look', n);
    kernel.send('library', 'look', n);
    if (n % 4 === 3) await kernel.run();
  }
  await kernel.run();
  return { dead: {}, testLogged: kernel.testLogged() };
};

// Signals come at any moment, also in the middle of a crank: they are noted, and answered between two blocks.
const noteSignals = () => {
  const noted = new Set();
  const wakeUp = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGUSR1', 'SIGUSR2']) {
    process.on(signal, () => {
      noted.add(signal);
      if (signal === 'SIGTERM' || signal === 'SIGINT') wakeUp.abort();
    });
  }
  return {
    stopped: wakeUp.signal,
    // Whether the signal came since it was last asked for.
    take: signal => noted.delete(signal),
  };
};

export const live = async (kernel, { live: milliseconds, liveMessages, liveUpgrade, lieAbout, quiet }) => {
  const signals = noteSignals();
  const { stopped } = signals;
  await setUp(kernel);
  if (!kernel.watch.vat(lieAbout)) throw Error(`--lie-about: there is no vat ${lieAbout}`);
  say('live');
  for (let block = 0; !stopped.aborted; block += 1) {
    const began = Date.now();
    if (signals.take('SIGUSR1')) kernel.lieAbout(lieAbout);
    if (signals.take('SIGUSR2') && kernel.isAlive('kept')) {
      kernel.setCleanup(CLEANUP_BUDGET);
      kernel.send('bootstrap', 'terminateVat', 'kept', 'cleaned up bit by bit');
    }
    if (liveUpgrade && block % liveUpgrade === liveUpgrade - 1) {
      const turn = Math.floor(block / liveUpgrade) % UPGRADES.length;
      kernel.send('bootstrap', 'upgradeVat', 'upgraded', UPGRADES[turn]);
    }
    for (let n = 0; n < liveMessages; n += 1) sendBusiness(kernel, block * liveMessages + n);
    await kernel.runBlock();
    for (const { vatID, position } of kernel.takeLies()) say(`lied about ${vatID}:${position}`);
    if (!quiet) say(`block ${kernel.blocks()} took ${Date.now() - began} ms`);
    const rest = milliseconds - (Date.now() - began);
    if (rest > 0) await sleep(rest, undefined, { signal: stopped }).catch(() => {});
  }
  // The test log can not be asked for while a vat is partly cleaned up.
  return { dead: {}, testLogged: kernel.isAlive('kept') ? kernel.testLogged() : 0 };
};
