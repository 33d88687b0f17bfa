//! Every series that the daemon exports.
//!
//! One struct holds them all, on a registry of its own that is passed down: there is no global. Each series is there from
//! the start, at 0, so that an alert never waits for the first event. `docs/metrics.md` is compared with this by a test.
//! Counters of verdicts begin at what the store has counted, so a restart takes nothing back.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::pause::PauseReason;
use super::view::{LookResult, LookSource, NodeEvent, NodeState};
use crate::audit::ContradictionKind;
use crate::evidence::EvidenceError;
use crate::sandbox::Layer;
use crate::store::SpanSource;
use crate::tally::{Counter, Tally};
use crate::verdict::{Failure, FindingKind, HeapLikeness, Unverifiable, VerdictKind};

/// All series. The help text of each is in [`Metrics::new`].
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub spans: IntCounterVec,
    pub divergences: IntCounterVec,
    pub divergences_unacknowledged: IntGauge,
    pub contradictions: IntCounterVec,
    pub contradictions_unacknowledged: IntGauge,
    pub damaged_spans: IntGauge,
    pub changed_rows: IntGauge,
    pub rechecked_rows: IntCounter,
    pub recheck_finished_timestamp_seconds: Gauge,
    pub unverifiable_spans: IntCounterVec,
    pub failures: IntCounterVec,
    pub missed_spans: IntCounter,
    pub unseen_items: IntCounter,
    pub deliveries: IntCounter,
    pub syscalls: IntCounter,
    pub snapshot_hashes: IntCounter,
    pub backlog_spans: IntGaugeVec,
    pub backlog_oldest_age_seconds: Gauge,
    pub last_verified_timestamp_seconds: Gauge,
    pub last_look_timestamp_seconds: Gauge,
    pub node_state: IntGaugeVec,
    pub node_block_height: IntGauge,
    pub node_wal_bytes: IntGauge,
    pub node_events: IntCounterVec,
    pub looks: IntCounterVec,
    pub file_events: IntCounter,
    pub http_connections_dropped: IntCounter,
    pub read_transaction_seconds: Histogram,
    pub replay_seconds: Histogram,
    pub verdict_delay_seconds: Histogram,
    pub snapshot_bytes: Histogram,
    pub worker_peak_memory_bytes: IntGauge,
    pub workers_running: IntGauge,
    pub capture_bytes: IntGauge,
    pub capture_max_bytes: IntGauge,
    pub captures_evicted: IntCounter,
    pub capture_failures: IntCounter,
    pub evidence_folders: IntGauge,
    pub evidence_bytes: IntGauge,
    pub evidence_max_bytes: IntGauge,
    pub evidence_failures: IntCounterVec,
    pub state_errors: IntCounter,
    pub paused: IntGaugeVec,
}

/// Registers series. A name that can't be registered is a mistake in this file, which its test finds.
struct Maker(Registry);

impl Maker {
    fn add<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        #[expect(clippy::expect_used, reason = "the names are constants, and a test makes them all")]
        let collector = collector.expect("a valid series");
        #[expect(clippy::expect_used, reason = "likewise")]
        self.0.register(Box::new(collector.clone())).expect("a series of its own");
        collector
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("spanwatch_{name}"), help)
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn float(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::with_opts(Self::opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
        let counters = self.add(IntCounterVec::new(Self::opts(name, help), &[label]));
        for value in values {
            counters.with_label_values(&[value]);
        }
        counters
    }

    fn gauges(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntGaugeVec {
        let gauges = self.add(IntGaugeVec::new(Self::opts(name, help), &[label]));
        for value in values {
            gauges.with_label_values(&[value]);
        }
        gauges
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(format!("spanwatch_{name}"), help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes them all.
    #[must_use]
    pub fn new() -> Self {
        let make = Maker(Registry::new());
        let looks = make.add(IntCounterVec::new(
            Maker::opts("looks_total", "Looks at the node's database, by trigger and result."),
            &["source", "found"],
        ));
        for source in LookSource::ALL.map(LookSource::label) {
            for found in LookResult::LABELS {
                looks.with_label_values(&[source, found]);
            }
        }
        let divergences = make.add(IntCounterVec::new(
            Maker::opts(
                "divergences_total",
                "Diverged spans by kind of finding, for snapshot_hash also by the relation of the two heaps; a span counts once for each kind.",
            ),
            &["kind", "heap"],
        ));
        for kind in FindingKind::ALL {
            let is_heap = kind == FindingKind::SnapshotHash;
            for heap in if is_heap { &HeapLikeness::LABELS[..] } else { &[""] } {
                divergences.with_label_values(&[kind.label(), heap]);
            }
        }
        Self {
            spans: make.counters("spans_total", "Closed spans that were given a verdict.", "verdict", &VerdictKind::ALL.map(VerdictKind::label)),
            divergences,
            divergences_unacknowledged: make
                .gauge("divergences_unacknowledged", "Diverged spans that are not acknowledged."),
            contradictions: make.counters(
                "contradictions_total",
                "Kernel responses that contradict their transcript, by kind.",
                "kind",
                &ContradictionKind::RESPONSES.map(ContradictionKind::label),
            ),
            contradictions_unacknowledged: make
                .gauge("contradictions_unacknowledged", "Contradicted spans that are not acknowledged."),
            damaged_spans: make.gauge(
                "damaged_spans",
                "Damaged spans in the node's database and breaks in vats' histories that are not acknowledged.",
            ),
            changed_rows: make.gauge(
                "changed_rows",
                "Rows of closed spans and snapshots that changed or vanished after they were seen and are not acknowledged.",
            ),
            rechecked_rows: make
                .counter("rechecked_rows_total", "Rows of spans that were read again and compared with the first read."),
            recheck_finished_timestamp_seconds: make.float(
                "recheck_finished_timestamp_seconds",
                "Time when all rows of spans had last been read again, in seconds since 1970; 0 if never.",
            ),
            unverifiable_spans: make.counters(
                "unverifiable_spans_total",
                "Spans whose record can't be replayed, by reason.",
                "reason",
                &Unverifiable::LABELS,
            ),
            failures: make.counters(
                "failures_total",
                "Attempts at a span that failed because of the verifier or its machine, by reason.",
                "reason",
                &Failure::LABELS,
            ),
            missed_spans: make.counter(
                "missed_spans_total",
                "Closed spans that the node deleted before anything of them could be replayed.",
            ),
            unseen_items: make.counter(
                "unseen_items_total",
                "Items at the ends of partially verified spans that the node deleted before they were seen.",
            ),
            deliveries: make.counter("deliveries_total", "Deliveries replayed and compared."),
            syscalls: make.counter("syscalls_total", "Syscalls replayed and compared."),
            snapshot_hashes: make.counter("snapshot_hashes_total", "Heap snapshot hashes compared."),
            backlog_spans: make.gauges("backlog_spans", "Closed spans that wait for a verdict.", "source", &SpanSource::ALL.map(SpanSource::label)),
            backlog_oldest_age_seconds: make.float(
                "backlog_oldest_age_seconds",
                "Age of the oldest live span without a verdict, in seconds; 0 if each has one.",
            ),
            last_verified_timestamp_seconds: make.float(
                "last_verified_timestamp_seconds",
                "When a span was verified last, in whole or in part (partial), in seconds since 1970; 0 if none was.",
            ),
            last_look_timestamp_seconds: make.float(
                "last_look_timestamp_seconds",
                "Time of the last successful read of the node's database, in seconds since 1970; 0 if never.",
            ),
            node_state: make.gauges(
                "node_state",
                "1 for the current state of the node's database, 0 for the others.",
                "state",
                &NodeState::ALL.map(NodeState::label),
            ),
            node_block_height: make.gauge("node_block_height", "Block height that the node has committed."),
            node_wal_bytes: make.gauge("node_wal_bytes", "Size of the -wal file beside the node's database, in bytes."),
            node_events: make.counters(
                "node_events_total",
                "Events of the node and its database.",
                "event",
                &NodeEvent::ALL.map(NodeEvent::label),
            ),
            looks,
            http_connections_dropped: make.counter(
                "http_connections_dropped_total",
                "Connections closed at the limit: each time the one that had waited longest for a complete request.",
            ),
            file_events: make.counter(
                "file_events_total",
                "Wake-ups by changes of the database's files; most come before a commit is visible.",
            ),
            read_transaction_seconds: make.histogram(
                "read_transaction_seconds",
                "Duration of a read of the node's database, from open to close, in seconds.",
                &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0],
            ),
            replay_seconds: make.histogram(
                "replay_seconds",
                "Duration of a span's replay with all the reads that it needs, in seconds.",
                &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, 1800.0],
            ),
            verdict_delay_seconds: make.histogram(
                "verdict_delay_seconds",
                "Delay from noticing the end of a live span to its verdict, without the replay itself, in seconds.",
                &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0],
            ),
            snapshot_bytes: make.histogram(
                "snapshot_bytes",
                "Size of the heap snapshots that replays gave, in bytes.",
                &[1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8, 5e8, 1e9],
            ),
            worker_peak_memory_bytes: make
                .gauge("worker_peak_memory_bytes", "Peak resident memory of any worker since the start, in bytes."),
            workers_running: make.gauge("workers_running", "Replays in progress."),
            capture_bytes: make.gauge("capture_bytes", "Size of the copies of items and images that the node deletes, in bytes."),
            capture_max_bytes: make.gauge("capture_max_bytes", "Limit for these copies, in bytes: capture.max_bytes."),
            captures_evicted: make
                .counter("captures_evicted_total", "Copies dropped to make room for newer ones; no span needed them any more."),
            capture_failures: make.counter("capture_failures_total", "Copies of items and images that failed."),
            evidence_folders: make.gauge("evidence_folders", "Evidence folders kept."),
            evidence_bytes: make.gauge("evidence_bytes", "Size of the evidence folders, in bytes."),
            evidence_max_bytes: make
                .gauge("evidence_max_bytes", "Limit for the evidence folders, in bytes: evidence.max_bytes."),
            evidence_failures: make.counters(
                "evidence_failures_total",
                "Divergences whose evidence could not be kept, by reason.",
                "reason",
                &EvidenceError::LABELS,
            ),
            state_errors: make.counter("state_errors_total", "Failed reads and writes of the daemon's own store."),
            paused: make.gauges("paused", "1 while replays are paused for this reason.", "reason", &PauseReason::ALL.map(PauseReason::label)),
            registry: make.0,
        }
    }

    /// What does not change while the daemon runs: itself, its worker, the sandbox.
    pub fn identify(&self, worker_version: &str, worker_sha256: &str, layers: &[&str]) {
        let make = Maker(self.registry.clone());
        let version = env!("CARGO_PKG_VERSION");
        let build = make.add(IntGaugeVec::new(
            Maker::opts("build_info", "1, with the version of the daemon and the commit that it was built from."),
            &["version", "commit"],
        ));
        build.with_label_values(&[version, crate::COMMIT]).set(1);
        let worker = make.add(IntGaugeVec::new(
            Maker::opts("worker_info", "1, with the version and the sha256 of the worker."),
            &["version", "sha256"],
        ));
        worker.with_label_values(&[worker_version, worker_sha256]).set(1);
        let sandbox = make.gauges("sandbox_layer", "1 for each sandbox layer in effect.", "layer", &Layer::LABELS);
        for layer in layers {
            sandbox.with_label_values(&[layer]).set(1);
        }
        // What the process uses; a machine where that can't be read goes without.
        let process = prometheus::process_collector::ProcessCollector::for_self();
        let _ = self.registry.register(Box::new(process));
    }

    /// Adds a tally: the store's at the start, then that of each verdict.
    pub fn add(&self, tally: &Tally) {
        for (counter, value) in tally.iter() {
            self.add_to(counter, value);
        }
    }

    /// Adds to one counter.
    pub fn add_to(&self, counter: Counter, value: u64) {
        let labelled = |counters: &IntCounterVec, label: &str| counters.with_label_values(&[label]).inc_by(value);
        match counter {
            Counter::Spans(kind) => labelled(&self.spans, kind.label()),
            Counter::Divergences(kind, heap) => {
                // Heaps that were not compared, as before heaps could be.
                let heap = heap.or((kind == FindingKind::SnapshotHash).then_some(HeapLikeness::Unknown));
                let labels = [kind.label(), heap.map_or("", HeapLikeness::label)];
                self.divergences.with_label_values(&labels).inc_by(value);
            }
            Counter::Contradictions(kind) => labelled(&self.contradictions, kind.label()),
            Counter::Unverifiable(reason) => labelled(&self.unverifiable_spans, reason),
            Counter::Failures(failure) => labelled(&self.failures, failure),
            Counter::Missed => self.missed_spans.inc_by(value),
            Counter::UnseenItems => self.unseen_items.inc_by(value),
            Counter::Deliveries => self.deliveries.inc_by(value),
            Counter::Syscalls => self.syscalls.inc_by(value),
            Counter::SnapshotHashes => self.snapshot_hashes.inc_by(value),
        }
    }

    /// Sets the one state that holds, of those of a gauge with one label.
    pub fn set_node_state(&self, state: NodeState) {
        for known in NodeState::ALL {
            self.node_state.with_label_values(&[known.label()]).set(i64::from(known == state));
        }
    }

    /// All series in Prometheus' text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory cannot fail, and what is registered can be encoded.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// A number of things as a gauge takes it.
#[must_use]
pub fn gauge_value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Observes a duration.
pub fn observe(histogram: &Histogram, took: Duration) {
    histogram.observe(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported() -> String {
        let metrics = Metrics::new();
        metrics.identify("xsnap 0", "00", &Layer::LABELS);
        metrics.encode()
    }

    /// Names, types, labels and help texts in `docs/metrics.md` are those that are exported, no more and no fewer.
    #[test]
    fn the_documentation_lists_what_is_exported() {
        let documented = include_str!("../../docs/metrics.md");
        let exported = exported();
        let mut names = Vec::new();
        for line in exported.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
                && name.starts_with("spanwatch_")
            {
                names.push((name.to_owned(), kind.to_owned()));
            }
        }
        let help = |name: &str| {
            let prefix = format!("# HELP {name} ");
            exported.lines().find_map(|line| line.strip_prefix(&prefix)).expect("a help text").to_owned()
        };
        let labels = |name: &str| {
            let mut labels: Vec<String> = Vec::new();
            for line in exported.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{"))) {
                let (inside, _) = line.split_once('}').expect("labels");
                for label in inside.split(',').filter_map(|pair| pair.split('=').next()) {
                    if !labels.iter().any(|known| known == label) {
                        labels.push(label.to_owned());
                    }
                }
            }
            labels.sort();
            labels
        };
        let mut rows: Vec<String> = names
            .iter()
            .map(|(name, kind)| {
                let labels: Vec<String> = labels(name).iter().map(|label| format!("`{label}`")).collect();
                format!("| `{name}` | {kind} | {} | {} |", labels.join(", "), help(name))
            })
            .collect();
        rows.sort();
        let mut told: Vec<&str> = documented.lines().filter(|line| line.starts_with("| `spanwatch_")).collect();
        told.sort_unstable();
        assert_eq!(told.join("\n"), rows.join("\n"), "docs/metrics.md must have these rows:\n{}", rows.join("\n"));
    }

    #[test]
    fn every_series_is_there_from_the_start() {
        let exported = exported();
        for line in [
            "spanwatch_spans_total{verdict=\"partial\"} 0",
            "spanwatch_divergences_total{heap=\"\",kind=\"worker_exit\"} 0",
            "spanwatch_unverifiable_spans_total{reason=\"row_gone\"} 0",
            "spanwatch_failures_total{reason=\"system\"} 0",
            "spanwatch_looks_total{found=\"change\",source=\"file_event\"} 0",
            "spanwatch_replay_seconds_count 0",
            "spanwatch_sandbox_layer{layer=\"landlock\"} 1",
        ] {
            assert!(exported.lines().any(|one| one == line), "{line}\n{exported}");
        }
    }

    /// The lists of labels are complete: each value of the enums has its label in them.
    #[test]
    fn every_label_is_known_beforehand() {
        use crate::transcript::sha256;
        let reasons = [
            Unverifiable::ItemsPruned,
            Unverifiable::RowGone,
            Unverifiable::ItemsMissing { missing: 0, present: 0, count: 0 },
            Unverifiable::SpanHash { recorded: sha256(b""), found: sha256(b"") },
            Unverifiable::SpanRow(""),
            Unverifiable::Item { position: 0, error: String::new() },
            Unverifiable::Shape { position: 0, what: String::new() },
            Unverifiable::TooLarge { bytes: 0 },
            Unverifiable::TranscriptArchive { file: String::new(), error: String::new() },
            Unverifiable::BaseGone(String::new()),
            Unverifiable::BaseDamaged(String::new()),
            Unverifiable::ChainBroken { start: 0, verdict: VerdictKind::Failed },
            Unverifiable::BundleMissing(String::new()),
            Unverifiable::BundleDamaged { id: String::new(), error: String::new() },
            Unverifiable::SourceUnknown,
            Unverifiable::Options(String::new()),
            Unverifiable::WorkerType(String::new()),
            Unverifiable::HistoryBroken { position: 0, what: String::new() },
        ];
        assert_eq!(reasons.map(|reason| reason.label()), Unverifiable::LABELS);
    }
}
