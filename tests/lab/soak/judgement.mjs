// From what was written down to what is reported. No clock, no processes.

import { makeRandom } from './random.mjs';

// A span that closes when the node is about to stop may only be seen when it runs again.
const STOP_MARGIN = 1;
// After the daemon is started or stopped, blocks are not counted for either side for so long.
const SETTLE = 2;

const quantile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.ceil(part * sorted.length) - 1)];

const spread = values => {
  if (values.length === 0) return { count: 0 };
  const sorted = values.toSorted((a, b) => a - b);
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  return {
    count: sorted.length,
    mean,
    median: quantile(sorted, 0.5),
    p90: quantile(sorted, 0.9),
    p99: quantile(sorted, 0.99),
    max: sorted.at(-1),
  };
};

const tally = values => {
  const counts = {};
  for (const value of values) counts[value] = (counts[value] || 0) + 1;
  return counts;
};

const keyOf = ({ vat, start, end }) => `${vat} [${start}, ${end})`;

const groupByKey = list => {
  const groups = new Map();
  for (const one of list) groups.set(keyOf(one), [...(groups.get(keyOf(one)) || []), one]);
  return groups;
};

const FINAL = ['verified', 'partial', 'diverged', 'unverifiable', 'failed', 'not_applicable'];

// The spans that the daemon had to see closing, each with its verdicts.
const closedSpans = ({ blocks, verdicts, lives }) => {
  const from = lives[0].ready;
  const until = blocks.at(-1).committed_at - STOP_MARGIN;
  const given = groupByKey(verdicts.filter(({ verdict }) => FINAL.includes(verdict)));
  return blocks
    .filter(({ committed_at: at }) => at > from && at <= until)
    .flatMap(({ height, committed_at: at, closed }) =>
      closed.map(span => ({
        ...span,
        height,
        at,
        verdicts: given.get(keyOf(span)) || [],
        watched: lives.some(life => life.from <= at && at <= life.stopping),
      })),
    );
};

// What must hold whatever the node keeps, and what must hold where everything can be seen.
const faultsOf = (spans, { mode, unknown, alternate }) => {
  const faults = [];
  const must = (list, what) => {
    const some = list.slice(0, 5).map(keyOf).join(', ');
    if (list.length > 0) faults.push(`${what}: ${list.length} (${some}${list.length > 5 ? ', …' : ''})`);
  };
  const has = names => span => span.verdicts.some(({ verdict }) => names.includes(verdict));
  must(
    spans.filter(span => span.verdicts.length === 0),
    'closed spans without a verdict',
  );
  must(
    spans.filter(span => span.verdicts.length > 1),
    'spans with more than one verdict',
  );
  must(spans.filter(has(['diverged', 'failed'])), 'spans that diverged or failed');
  must(unknown, 'verdicts for spans that never were in the database');
  if (mode !== 'nothing') {
    // What closes while the daemon is stopped on purpose may be gone when it is back.
    const seen = spans.filter(({ watched }) => watched || !alternate);
    must(seen.filter(has(['partial', 'unverifiable'])), 'spans that are not verified');
  }
  return faults;
};

const delays = spans => {
  const timed = spans
    .filter(({ verdicts, watched }) => watched && verdicts.length === 1)
    .map(({ at, verdicts: [{ finished_at: finished, replay_seconds: replay, verdict }] }) => ({
      from: at,
      until: finished,
      delay: finished - at - (replay || 0),
      verdict,
    }))
    .filter(({ verdict }) => verdict === 'verified' || verdict === 'partial');
  const alone = timed.filter(one =>
    timed.every(other => other === one || other.from > one.until || other.until < one.from),
  );
  return { all: spread(timed.map(one => one.delay)), alone: spread(alone.map(one => one.delay)) };
};

// Which blocks ran wholly beside the daemon, which wholly without it.
const sides = ({ blocks, lives, liveAt }) => {
  const gaps = [];
  let from = liveAt;
  for (const life of lives) {
    gaps.push({ from, until: life.from });
    from = life.until;
  }
  gaps.push({ from, until: Infinity });
  const within = periods =>
    blocks.filter(({ committed_at: at, run_ms: run, commit_ms: commit }) =>
      periods.some(period => period.from + SETTLE <= at - (run + commit) / 1000 && at <= period.until),
    );
  return { on: within(lives.map(life => ({ from: life.from, until: life.stopping }))), off: within(gaps) };
};

// By what part the quantile of `on` is above that of `off`, with the interval that 95 of 100 resamplings fall into:
// blocks differ much, so a difference without it says little.
const RESAMPLINGS = 1000;

const compare = (on, off, part) => {
  if (on.length === 0 || off.length === 0) return undefined;
  const random = makeRandom(1);
  const ratio = (a, b) =>
    quantile(
      a.toSorted((x, y) => x - y),
      part,
    ) /
      quantile(
        b.toSorted((x, y) => x - y),
        part,
      ) -
    1;
  const resample = list => list.map(() => list[Math.floor(random() * list.length)]);
  const ratios = Array.from({ length: RESAMPLINGS }, () => ratio(resample(on), resample(off))).sort((a, b) => a - b);
  return { found: ratio(on, off), low: quantile(ratios, 0.025), high: quantile(ratios, 0.975) };
};

const blockTimes = parts => {
  const growth = new Map();
  let largest = 0;
  for (const { height, wal_bytes: wal } of parts.blocks) {
    growth.set(height, Math.max(0, wal - largest));
    largest = Math.max(largest, wal);
  }
  const describe = blocks => ({
    run_ms: spread(blocks.map(block => block.run_ms)),
    commit_ms: spread(blocks.map(block => block.commit_ms)),
    wal_bytes_max: Math.max(0, ...blocks.map(block => block.wal_bytes)),
    // The file never shrinks while the node runs, so its largest size alone does not tell who made it grow.
    wal_bytes_growth: blocks.map(block => growth.get(block.height)).reduce((sum, one) => sum + one, 0),
  });
  const { on, off } = sides(parts);
  const difference = (what, part) =>
    compare(
      on.map(block => block[what]),
      off.map(block => block[what]),
      part,
    );
  return {
    on: describe(on),
    off: describe(off),
    on_against_off: {
      run_ms: { median: difference('run_ms', 0.5), p99: difference('run_ms', 0.99) },
      commit_ms: { median: difference('commit_ms', 0.5), p99: difference('commit_ms', 0.99) },
    },
  };
};

const memory = ({ samples, lives }) => {
  const up = samples.filter(sample => sample.rss_kb > 0);
  if (up.length === 0) return undefined;
  const began = lives[0].from;
  const length = up.at(-1).at - began;
  const near = seconds =>
    up.reduce((best, one) => (Math.abs(one.at - began - seconds) < Math.abs(best.at - began - seconds) ? one : best));
  const moments = [10, length / 2, 300, 1800, length].filter(seconds => seconds <= length);
  return {
    at: moments
      .toSorted((a, b) => a - b)
      .map(near)
      .map(one => ({ seconds: one.at - began, life: one.life, rss_kb: one.rss_kb })),
    rss_kb_max: Math.max(...up.map(one => one.rss_kb)),
    workers_rss_kb_max: Math.max(...up.map(one => one.workers_rss_kb)),
    workers_max: Math.max(...up.map(one => one.workers)),
  };
};

// What the counters had reached in each life of the daemon, as last sampled, added up.
const counters = samples => {
  const last = new Map();
  for (const { life, metrics } of samples) if (metrics) last.set(life, metrics);
  const sums = {};
  for (const metrics of last.values()) {
    for (const [series, value] of Object.entries(metrics)) {
      if (/^spanwatch_\w+_total\b/.test(series) && value > 0) sums[series] = (sums[series] || 0) + value;
    }
  }
  return sums;
};

export const judge = parts => {
  const { options, lives, verdicts, rows, blocks } = parts;
  if (lives.length === 0) return { report: { blocks: blockTimes(parts) }, faults: [] };
  const spans = closedSpans(parts);
  const known = new Set([...rows, ...blocks.flatMap(({ closed }) => closed)].map(keyOf));
  const unknown = verdicts.filter(one => !known.has(keyOf(one)));
  const alternate = options.daemon === 'alternate';
  const faults = faultsOf(spans, { mode: options.mode, unknown, alternate });
  const final = spans.flatMap(span => span.verdicts);
  const partial = final.filter(({ verdict }) => verdict === 'partial');
  const sums = counters(parts.samples);
  const missed = sums.spanwatch_missed_spans_total || 0;
  if (missed > 0 && !alternate) faults.push(`missed spans: ${missed}`);
  const report = {
    spans: {
      closed: spans.length,
      by_snapshot: spans.filter(({ save }) => save).length,
      vats: new Set(spans.map(({ vat }) => vat)).size,
      while_not_running: spans.filter(({ watched }) => !watched).length,
      without_verdict: spans.filter(span => span.verdicts.length === 0).length,
      with_several_verdicts: spans.filter(span => span.verdicts.length > 1).length,
      unknown: unknown.length,
      missed,
    },
    verdicts: tally(final.map(({ verdict }) => verdict)),
    reasons: tally(final.filter(({ reason }) => reason).map(({ verdict, reason }) => `${verdict}: ${reason}`)),
    bases: tally(final.map(({ base }) => base)),
    attempts: tally(final.map(({ attempts }) => attempts)),
    unseen_items: {
      ...spread(partial.map(({ end, seen_to: seen }) => end - seen)),
      distribution: tally(partial.map(({ end, seen_to: seen }) => end - seen)),
    },
    replay_seconds: spread(final.flatMap(({ replay_seconds: seconds }) => seconds ?? [])),
    delay_seconds: delays(spans),
    blocks: blockTimes(parts),
    memory: memory(parts),
    counters: sums,
  };
  return { report, faults };
};
