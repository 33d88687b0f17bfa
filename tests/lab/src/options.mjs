// The command line.
import path from 'node:path';
import { parseArgs } from 'node:util';

export const USAGE = `usage: node lab.mjs --out DIR [options]

  --out DIR              where to write: DIR/agoric/swingstore.sqlite, archives beside it, DIR/lab.json
  --deliveries N         about how many messages are sent to vats [200]
  --snapshot-initial N   deliveries before a vat's first heap snapshot [3]
  --snapshot-interval N  deliveries between two snapshots [12]
  --keep WHAT            everything; items (old snapshots are pruned); archives (all is pruned, but both archive
                         directories are written); nothing (all is pruned) [everything]
  --flight-recorder      also write flight-recorder.bin beside the database, with the node's own module
  --delicate             instead of all that: only messages to vats whose heaps depend on the worker's compiler, on the
                         host's memory and on its time zone
  --bench                instead of all that: several thousand deliveries to a few vats, to measure with
  --relaxed              make the kernel with relaxed durability rules
  --live MS              after the set-up, commit a block each MS milliseconds until SIGTERM or SIGINT; SIGUSR1 makes
                         the record of one delivery a lie, SIGUSR2 terminates the vat \`kept\` (see README.md)
  --live-messages N      with --live: messages sent in each block [3]
  --live-upgrade N       with --live: upgrade the vat \`upgraded\` every N blocks
  --lie-about NAME       with --live: the vat whose record SIGUSR1 makes a lie [collections]
  --block-log FILE       append a line of JSON to FILE after each block
  --bundles-only         only fill the bundle cache
  --bundle-cache DIR     where bundles are kept between runs [.cache beside this program]
  --quiet                say nothing unless something is wrong`;

const KEEP = ['everything', 'items', 'archives', 'nothing'];

const number = (name, text) => {
  if (!/^[1-9][0-9]{0,8}$/.test(text)) throw Error(`--${name} takes a positive whole number, not ${text}`);
  return Number(text);
};

export const parseOptions = (args, here) => {
  const { values } = parseArgs({
    args,
    options: {
      out: { type: 'string' },
      deliveries: { type: 'string', default: '200' },
      'snapshot-initial': { type: 'string', default: '3' },
      'snapshot-interval': { type: 'string', default: '12' },
      keep: { type: 'string', default: 'everything' },
      'flight-recorder': { type: 'boolean', default: false },
      delicate: { type: 'boolean', default: false },
      bench: { type: 'boolean', default: false },
      relaxed: { type: 'boolean', default: false },
      live: { type: 'string' },
      'live-messages': { type: 'string', default: '3' },
      'live-upgrade': { type: 'string' },
      'lie-about': { type: 'string', default: 'collections' },
      'block-log': { type: 'string' },
      'bundles-only': { type: 'boolean', default: false },
      'bundle-cache': { type: 'string', default: path.join(here, '.cache') },
      quiet: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return { help: true };
  if (values['bundles-only']) return { bundlesOnly: true, bench: values.bench, bundleCache: values['bundle-cache'] };
  if (!values.out) throw Error(`--out is missing\n${USAGE}`);
  if (!KEEP.includes(values.keep)) throw Error(`--keep takes one of ${KEEP.join(', ')}, not ${values.keep}`);
  const optional = name => (values[name] === undefined ? undefined : number(name, values[name]));
  return {
    out: path.resolve(values.out),
    deliveries: number('deliveries', values.deliveries),
    snapshotInitial: number('snapshot-initial', values['snapshot-initial']),
    snapshotInterval: number('snapshot-interval', values['snapshot-interval']),
    keep: values.keep,
    flightRecorder: values['flight-recorder'],
    delicate: values.delicate,
    bench: values.bench,
    relaxed: values.relaxed,
    live: optional('live'),
    liveMessages: number('live-messages', values['live-messages']),
    liveUpgrade: optional('live-upgrade'),
    lieAbout: values['lie-about'],
    blockLog: values['block-log'] && path.resolve(values['block-log']),
    bundleCache: values['bundle-cache'],
    quiet: values.quiet,
  };
};
