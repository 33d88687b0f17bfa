// The command line of `soak.mjs`.
import path from 'node:path';
import { parseArgs } from 'node:util';

export const USAGE = `usage: node soak.mjs --spanwatch PATH --mode MODE --out DIR [options]

Runs \`spanwatch run\` beside a live kernel and measures both. Exits with 0 only if every span that closed has exactly one
verdict, and the right one.

  --spanwatch PATH       the program
  --worker PATH          the worker's program [the lab's own]
  --mode MODE            what the node keeps: everything, items, archives or nothing (see lab.mjs)
  --out DIR              where to write; must not exist
  --minutes N            how long, also as a fraction [5]
  --daemon WHEN          on, off (blocks are measured without it), or alternate [on]
  --period S             with --daemon alternate: seconds on, and as many off [30]
  --kills N              how often the daemon is killed with SIGKILL, at random moments, and started again [0]
  --seed N               decides the moments [the time; it is printed]
  --since WHEN           passed on to the daemon [now]
  --set KEY=VALUE        passed on to the daemon; may be repeated
  --live MS              passed on to the lab [300]
  --live-messages N      passed on to the lab [1]
  --live-upgrade N       passed on to the lab [50]
  --snapshot-interval N  passed on to the lab [24]`;

const MODES = ['everything', 'items', 'archives', 'nothing'];
const DAEMON = ['on', 'off', 'alternate'];

const oneOf = (name, choices, value) => {
  if (!choices.includes(value)) throw Error(`--${name} takes one of ${choices.join(', ')}\n${USAGE}`);
  return value;
};

const number = (name, text) => {
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) throw Error(`--${name} takes a number, not ${text}`);
  return value;
};

export const parseOptions = (args, here) => {
  const { values } = parseArgs({
    args,
    options: {
      spanwatch: { type: 'string' },
      worker: { type: 'string' },
      mode: { type: 'string' },
      out: { type: 'string' },
      minutes: { type: 'string', default: '5' },
      daemon: { type: 'string', default: 'on' },
      period: { type: 'string', default: '30' },
      kills: { type: 'string', default: '0' },
      seed: { type: 'string', default: `${Date.now() % 1_000_000}` },
      since: { type: 'string', default: 'now' },
      set: { type: 'string', multiple: true, default: [] },
      live: { type: 'string', default: '300' },
      'live-messages': { type: 'string', default: '1' },
      'live-upgrade': { type: 'string', default: '50' },
      'snapshot-interval': { type: 'string', default: '24' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return { help: true };
  for (const name of ['spanwatch', 'out']) if (!values[name]) throw Error(`--${name} is missing\n${USAGE}`);
  const worker =
    values.worker ||
    path.join(here, 'node_modules/@agoric/xsnap/xsnap-native/xsnap/build/bin/lin/release/xsnap-worker');
  return {
    spanwatch: path.resolve(values.spanwatch),
    worker: path.resolve(worker),
    mode: oneOf('mode', MODES, values.mode),
    out: path.resolve(values.out),
    seconds: 60 * number('minutes', values.minutes),
    daemon: oneOf('daemon', DAEMON, values.daemon),
    period: number('period', values.period),
    kills: number('kills', values.kills),
    seed: number('seed', values.seed),
    since: values.since,
    set: values.set,
    // Checked by the lab.
    lab: ['live', 'live-messages', 'live-upgrade', 'snapshot-interval'].flatMap(name => [`--${name}`, values[name]]),
  };
};
