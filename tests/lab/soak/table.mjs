// The report as a person reads it.

const round = value => (typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value);

const ofSpread = ({ count, mean, median, p90, p99, max }) =>
  count === 0
    ? 'none'
    : `median ${round(median)}  p90 ${round(p90)}  p99 ${round(p99)}  max ${round(max)}  mean ${round(mean)}  of ${count}`;

const ofCounts = counts =>
  Object.entries(counts)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ') || 'none';

const ofDistribution = counts =>
  Object.entries(counts)
    .map(([value, count]) => `${value}: ${count}`)
    .join(', ') || 'none';

const ofStop = ({ wal_left: left, backlog_done: done }) =>
  `${left ? 'its -wal file was left behind' : 'no -wal file'}, ${done ? 'no span is waiting' : 'spans are waiting'}`;

const percent = part => `${part >= 0 ? '+' : ''}${(100 * part).toFixed(1)} %`;

const ofDifference = ({ median, p99 }) =>
  median
    ? [median, p99]
        .map(({ found, low, high }) => `${percent(found)} (${percent(low)} to ${percent(high)})`)
        .join(', p99 ')
    : 'not compared';

const megabytes = kilobytes => `${(kilobytes / 1024).toFixed(1)} MB`;

const blockLines = ({ on, off, on_against_off: difference }) => [
  ['block run ms, on', ofSpread(on.run_ms)],
  ['block run ms, off', ofSpread(off.run_ms)],
  ['commit ms, on', ofSpread(on.commit_ms)],
  ['commit ms, off', ofSpread(off.commit_ms)],
  ['run, on against off', ofDifference(difference.run_ms)],
  ['commit, on against off', ofDifference(difference.commit_ms)],
  ['largest WAL', `on ${on.wal_bytes_max}, off ${off.wal_bytes_max} bytes`],
  ['WAL grew by', `on ${on.wal_bytes_growth}, off ${off.wal_bytes_growth} bytes`],
];

const spanLines = ({
  spans,
  verdicts,
  reasons,
  bases,
  attempts,
  unseen_items: unseen,
  replay_seconds: replay,
  delay_seconds: delay,
}) => [
  ['spans closed', `${spans.closed} in ${spans.vats} vats, ${spans.by_snapshot} by a snapshot`],
  ['  daemon not running', spans.while_not_running],
  ['  verdicts', ofCounts(verdicts)],
  ['  reasons', ofCounts(reasons)],
  ['  bases', ofCounts(bases)],
  ['  attempts', ofCounts(attempts)],
  ['  without a verdict', spans.without_verdict],
  ['  with several', spans.with_several_verdicts],
  ['  missed', spans.missed],
  ['verdicts for no span', spans.unknown],
  ['unseen items (partial)', ofSpread(unseen)],
  ['  spans by unseen items', ofDistribution(unseen.distribution)],
  ['replay seconds', ofSpread(replay)],
  ['delay seconds, all', ofSpread(delay.all)],
  ['delay seconds, alone', ofSpread(delay.alone)],
];

const memoryLines = ({ at, rss_kb_max: peak, workers_rss_kb_max: workers, workers_max: most }) => [
  [
    'daemon memory',
    `${at.map(one => `${Math.round(one.seconds)} s: ${megabytes(one.rss_kb)}`).join(', ')}, peak ${megabytes(peak)}`,
  ],
  ['workers', `at most ${most}, ${megabytes(workers)}`],
];

export const table = (report, faults) => {
  const lines = [
    ...(report.spans ? spanLines(report) : []),
    ...blockLines(report.blocks),
    ...(report.memory ? memoryLines(report.memory) : []),
    ...(report.kills ? [['kills', `${report.kills.done}, workers that outlived them: ${report.kills.orphans}`]] : []),
    ...(report.stop ? [['after the node stopped', ofStop(report.stop)]] : []),
    ...(report.integrity ? [['integrity_check', ofCounts(report.integrity)]] : []),
    ['faults', faults.length === 0 ? 'none' : ''],
    ...faults.map(fault => ['', fault]),
  ];
  return lines.map(([name, text]) => `${name.padEnd(24)}${text}`).join('\n');
};
