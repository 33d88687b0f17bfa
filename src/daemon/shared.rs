//! The state that the daemon's threads share. Each part has its own module, and its own lock where it needs one.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::alarms;
use super::complaints::{Complaints, Subject};
use super::config::Config;
use super::gauges;
use super::metrics::{Metrics, gauge_value};
use super::pause::{self, PauseChange, PauseReason, Pauses};
use super::view::{NodeState, View};
use super::work::{Claim, Work};
use super::worker;
use crate::evidence::Keeper;
use crate::judge::SharedReplays;
use crate::kernel_db::KernelDb;
use crate::record::{Archives, Captured, Captures, Record};
use crate::replay::{Limits, WorkerProgram};
use crate::store::{Alarm, Job, SpanSource, Store, StoreError};
use crate::verdict::VerdictKind;

/// The pause before something that failed is tried again: a write to the store, a read of a node that is away.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// The parts that more than one thread needs.
#[derive(Debug)]
pub(super) struct Shared {
    /// The configuration.
    pub(super) config: Config,
    /// The node's record.
    pub(super) record: Record,
    /// The daemon's memory.
    pub(super) store: Arc<Store>,
    /// The keeper of evidence, if evidence is kept.
    pub(super) evidence: Option<Keeper>,
    /// The exported series.
    pub(super) metrics: Metrics,
    /// The worker; the list has one.
    pub(super) programs: Vec<WorkerProgram>,
    /// The limits of a worker.
    pub(super) limits: Limits,
    /// The parts that all replays share.
    pub(super) replays: SharedReplays,
    /// The claims on spans.
    pub(super) work: Work,
    /// The node as it is known.
    pub(super) view: View,
    /// The reasons to begin no replay.
    pub(super) pauses: Pauses,
    /// The trouble that was logged.
    pub(super) complaints: Complaints,
}

impl Shared {
    pub(super) fn new(
        config: Config,
        db: KernelDb,
        programs: Vec<WorkerProgram>,
        store: Arc<Store>,
        evidence: Option<Keeper>,
    ) -> Result<Self, StoreError> {
        let archives =
            Archives::growing(config.node.transcript_archive.as_deref(), config.node.snapshot_archive.as_deref());
        let captured: Arc<dyn Captured> = Arc::<Store>::clone(&store);
        let limits = worker::limits(&config.worker);
        let metrics = Metrics::new();
        metrics.add(&store.tally()?);
        metrics.last_verified_timestamp_seconds.set(store.last_verified_at()?.unwrap_or(0.0));
        metrics.capture_max_bytes.set(gauge_value(config.capture.max_bytes));
        metrics.evidence_max_bytes.set(gauge_value(config.evidence.max_bytes));
        let shared = Self {
            record: Record::new(db, archives).with_captures(Captures::of(captured)),
            limits,
            replays: SharedReplays::default(),
            work: Work::new(metrics.workers_running.clone()),
            view: View::new(),
            pauses: Pauses::default(),
            complaints: Complaints::default(),
            metrics,
            config,
            programs,
            store,
            evidence,
        };
        shared.measure_evidence();
        let program = &shared.programs[0];
        shared.metrics.identify(&program.version, &program.sha256, &shared.sandbox_layers());
        shared.metrics.set_node_state(NodeState::Missing);
        shared.refresh_gauges();
        Ok(shared)
    }

    /// The labels of the sandbox's layers that are in effect.
    pub(super) fn sandbox_layers(&self) -> Vec<&'static str> {
        self.programs[0].protection.layers.iter().map(|layer| layer.label()).collect()
    }

    /// The number of replays that run at once.
    pub(super) fn jobs(&self) -> usize {
        match self.config.schedule.jobs {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get).div_ceil(2),
            jobs => jobs,
        }
    }

    /// Claims the next span that is due, and waits for one; `None` when the daemon stops.
    pub(super) fn take_job(&self) -> Option<(Job, Claim<'_>)> {
        self.work.take(|claims| {
            let may_begin = self.pauses.reasons().is_empty() && self.view.get().state.is_readable();
            let next = if may_begin { self.store.next_job(&claims.spans, &claims.vats) } else { Ok(None) };
            next.unwrap_or_else(|error| {
                self.store_failed(&error);
                None
            })
        })
    }

    /// Repeats a write to the store until it succeeds; `None` if the daemon stops before that. The result of a replay is held so long:
    /// after a kill the span is due again.
    pub(super) fn persist<T>(&self, mut write: impl FnMut() -> Result<T, StoreError>) -> Option<T> {
        loop {
            match write() {
                Ok(written) => return Some(written),
                Err(error) => self.store_failed(&error),
            }
            if self.work.is_stopping() {
                return None;
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Measures memory and disk; replays pause while one of them is low.
    pub(super) fn update_pauses(&self) {
        for measured in pause::measure(&self.config) {
            if self.pauses.update(measured) == Some(PauseChange::Ended) {
                self.work.wake();
            }
        }
        for reason in PauseReason::ALL {
            self.metrics.paused.with_label_values(&[reason.label()]).set(i64::from(self.pauses.has(reason)));
        }
    }

    /// Whether captures may be written: not to a disk that is nearly full.
    pub(super) fn may_capture(&self) -> bool {
        !self.pauses.has(PauseReason::Disk)
    }

    /// Sets the gauges that are read off the store and the system.
    pub(super) fn refresh_gauges(&self) {
        if let Err(error) = gauges::of_store(&self.metrics, &self.store) {
            self.store_failed(&error);
        }
        gauges::of_system(&self.metrics, &self.record.db);
    }

    /// Sets the gauges of evidence.
    pub(super) fn measure_evidence(&self) {
        gauges::of_evidence(&self.metrics, self.evidence.as_ref());
    }

    /// Counts and logs trouble with the store.
    pub(super) fn store_failed(&self, error: &StoreError) {
        self.metrics.state_errors.inc();
        self.complaints.complain(Subject::Store, &error.to_string());
    }

    /// Logs alarms that were just raised, and sets their gauges.
    pub(super) fn tell_alarms(&self, raised: &[(String, Alarm)]) {
        if !raised.is_empty() {
            alarms::tell(raised);
            self.refresh_gauges();
        }
    }

    /// A line for the log and the service manager: node, verdicts, alarms, backlog, pauses.
    pub(super) fn summary(&self) -> String {
        let metrics = &self.metrics;
        let spans = |kind: VerdictKind| metrics.spans.with_label_values(&[kind.label()]).get();
        let waiting = |source: SpanSource| metrics.backlog_spans.with_label_values(&[source.label()]).get();
        let view = self.view.get();
        let height = view.block_height.map_or(String::new(), |height| format!(" at block {height}"));
        let mut text = format!(
            "node {}{height}; {} spans verified, {} partial, {} diverged ({} not acknowledged), {} unverifiable, {} failed, \
             {} missed; not acknowledged: {} contradicted, {} damaged, {} changed rows; {} waiting",
            view.state.label(),
            spans(VerdictKind::Verified),
            spans(VerdictKind::Partial),
            spans(VerdictKind::Diverged),
            metrics.divergences_unacknowledged.get(),
            spans(VerdictKind::Unverifiable),
            spans(VerdictKind::Failed),
            metrics.missed_spans.get(),
            metrics.contradictions_unacknowledged.get(),
            metrics.damaged_spans.get(),
            metrics.changed_rows.get(),
            waiting(SpanSource::Live) + waiting(SpanSource::History),
        );
        for reason in self.pauses.reasons() {
            text.push_str("; ");
            text.push_str(reason.text());
        }
        text
    }
}
