//! What the daemon's threads share.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::look::Retention;
use crate::daemon::config::Config;
use crate::daemon::metrics::{Metrics, PAUSE_REASONS, gauge_value};
use crate::daemon::neighbour;
use crate::evidence::Keeper;
use crate::evidence::keeper::Usage;
use crate::judge::House;
use crate::kernel_db::KernelDb;
use crate::record::{Archives, Captured, Captures, Record};
use crate::replay::{Limits, WorkerProgram};
use crate::store::{Alarm, Job, Store, StoreError, now};
use crate::transcript::{SpanId, VatId};

/// A complaint that comes again is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(600);
/// Of so many complaints it is known when they were told.
const COMPLAINTS_MAX: usize = 100;
/// No more alarms of one look are told one by one.
const ALARMS_TOLD_MAX: usize = 10;
/// How long a thread with nothing to do sleeps before it looks for work by itself.
const IDLE: Duration = Duration::from_secs(1);

/// What a person does about damage and changed rows, in a line.
pub(super) const WHAT_TO_DO: &str = "keep a copy of the database as evidence, compare it with another node's, and restore the node from a \
     backup (docs/operations.md, \"When an alert fires\")";

/// Everything that more than one thread needs.
#[derive(Debug)]
pub struct Shared {
    /// What the operator wants.
    pub config: Config,
    /// The node's record.
    pub record: Record,
    /// Our memory.
    pub store: Arc<Store>,
    /// Where the evidence of divergences is kept, if it is.
    pub evidence: Option<Keeper>,
    /// What is exported.
    pub metrics: Metrics,
    /// The worker; the list has one.
    pub programs: Vec<WorkerProgram>,
    /// What workers are held to.
    pub limits: Limits,
    /// What all replays share.
    pub house: House,
    work: Mutex<Work>,
    work_changed: Condvar,
    /// A bit for each of [`PAUSE_REASONS`].
    paused: AtomicU8,
    is_stopping: AtomicBool,
    view: Mutex<NodeView>,
    last_round: Mutex<Instant>,
    complaints: Mutex<BTreeMap<(&'static str, String), Complaint>>,
}

#[derive(Debug, Default)]
struct Work {
    running: HashSet<i64>,
    busy: HashSet<VatId>,
}

#[derive(Debug)]
struct Complaint {
    told: Instant,
    unsaid: u64,
}

/// What is known of the node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    /// One of the states that `docs/metrics.md` lists.
    pub state: &'static str,
    /// What is wrong, if something is.
    pub problem: Option<String>,
    /// The block height, where the host is a chain node.
    pub block_height: Option<u64>,
    /// The crank number.
    pub crank: Option<u64>,
    /// When the database was read with success last, in seconds since 1970.
    pub last_look_at: Option<f64>,
    /// What the node keeps of closed spans.
    pub retention: Retention,
    /// How many vats were seen.
    pub vats: u64,
}

/// Spans that one thread has taken; they are free again when it is dropped.
#[derive(Debug)]
pub struct Claim<'a> {
    shared: &'a Shared,
    jobs: Vec<i64>,
    vat: VatId,
}

impl Claim<'_> {
    /// Takes another span of the same vat. `false` if somebody has it.
    pub fn add(&mut self, id: i64) -> bool {
        let is_new = self.shared.work().running.insert(id);
        if is_new {
            self.jobs.push(id);
        }
        is_new
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut work = self.shared.work();
        self.jobs.iter().for_each(|id| {
            work.running.remove(id);
        });
        work.busy.remove(&self.vat);
        drop(work);
        self.shared.metrics.workers_running.dec();
    }
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
        let limits = super::limits(&config.worker);
        let metrics = Metrics::new();
        for (name, label, value) in store.totals()? {
            metrics.restore(&name, &label, value);
        }
        metrics.last_verified_timestamp_seconds.set(store.last_verified_at()?.unwrap_or(0.0));
        metrics.capture_max_bytes.set(gauge_value(config.capture.max_bytes));
        let view = NodeView {
            state: "missing",
            problem: None,
            block_height: None,
            crank: None,
            last_look_at: None,
            retention: Retention::default(),
            vats: 0,
        };
        let shared = Self {
            record: Record::new(db, archives).with_captures(Captures::of(captured)),
            limits,
            metrics,
            house: House::default(),
            work: Mutex::default(),
            work_changed: Condvar::new(),
            paused: AtomicU8::new(0),
            is_stopping: AtomicBool::new(false),
            view: Mutex::new(view),
            last_round: Mutex::new(Instant::now()),
            complaints: Mutex::default(),
            config,
            programs,
            store,
            evidence,
        };
        shared.metrics.evidence_max_bytes.set(gauge_value(shared.config.evidence.max_bytes));
        shared.measure_evidence();
        let program = &shared.programs[0];
        shared.metrics.identify(&program.version, &program.sha256, &shared.sandbox_layers());
        shared.metrics.set_node_state("missing");
        shared.refresh_gauges();
        Ok(shared)
    }

    /// What stands between a worker and the machine.
    #[must_use]
    pub fn sandbox_layers(&self) -> Vec<&'static str> {
        self.programs[0].protection.layers.iter().map(|layer| layer.label()).collect()
    }

    /// How many replays run at once.
    #[must_use]
    pub fn jobs(&self) -> usize {
        match self.config.schedule.jobs {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get).div_ceil(2),
            jobs => jobs,
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next span that is due; waits for one. `None` when the daemon stops.
    pub(super) fn take_job(&self) -> Option<(Job, Claim<'_>)> {
        let mut work = self.work();
        loop {
            if self.is_stopping() {
                return None;
            }
            let may_begin = self.paused.load(Ordering::Relaxed) == 0 && self.view().is_readable();
            let next = if may_begin { self.store.next_job(&work.running, &work.busy) } else { Ok(None) };
            match next {
                Ok(Some(job)) => {
                    work.running.insert(job.id);
                    let vat = job.row.id.vat.clone();
                    work.busy.insert(vat.clone());
                    self.metrics.workers_running.inc();
                    let jobs = vec![job.id];
                    return Some((job, Claim { shared: self, jobs, vat }));
                }
                Ok(None) => {}
                Err(error) => self.store_failed(&error),
            }
            work = self.work_changed.wait_timeout(work, IDLE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says that there is something to do.
    pub(super) fn wake_workers(&self) {
        // Whoever is about to wait has the lock until it does.
        drop(self.work());
        self.work_changed.notify_all();
    }

    /// How many spans are taken.
    #[must_use]
    pub fn running(&self) -> usize {
        self.work().running.len()
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.wake_workers();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// What is known of the node.
    #[must_use]
    pub fn view(&self) -> NodeView {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_view(&self, change: impl FnOnce(&mut NodeView)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says that the thread that looks at the database has come round.
    pub(super) fn came_round(&self) {
        *self.last_round.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Since when it has not.
    pub(super) fn since_last_round(&self) -> Duration {
        self.last_round.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// The reasons for which nothing new is begun.
    #[must_use]
    pub fn pauses(&self) -> Vec<&'static str> {
        let bits = self.paused.load(Ordering::Relaxed);
        (0..).zip(PAUSE_REASONS).filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, reason)| reason).collect()
    }

    /// Pauses when the machine is short of something, and goes on when it is not.
    pub(super) fn look_at_the_machine(&self) {
        let memory_min = self.config.neighbour.min_available_memory;
        let disk_min = self.config.state.min_free;
        let memory = neighbour::available_memory();
        let disk = neighbour::free_disk(&self.config.state.dir);
        let short = [
            (memory.is_some_and(|bytes| bytes < memory_min), memory, memory_min, "neighbour.min_available_memory"),
            (disk.is_some_and(|bytes| bytes < disk_min), disk, disk_min, "state.min_free"),
        ];
        for (bit, (is_short, has, needed, key)) in (0..).zip(short) {
            let reason = PAUSE_REASONS[bit];
            let before = if is_short {
                self.paused.fetch_or(1 << bit, Ordering::Relaxed)
            } else {
                self.paused.fetch_and(!(1 << bit), Ordering::Relaxed)
            };
            self.metrics.paused.with_label_values(&[reason]).set(i64::from(is_short));
            match (before & (1 << bit) != 0, is_short) {
                (false, true) => tracing::warn!(
                    "paused, as {reason} is short: {} bytes are left, {needed} are wanted ({key}); what closes meanwhile is noted",
                    has.unwrap_or(0)
                ),
                (true, false) => {
                    tracing::info!("there is enough {reason} again: going on");
                    self.wake_workers();
                }
                _ => {}
            }
        }
    }

    /// Whether captures may be written: not to a disk that is nearly full.
    pub(super) fn may_capture(&self) -> bool {
        !self.pauses().contains(&"disk")
    }

    /// Sets the gauges that are read off the store and the system.
    pub fn refresh_gauges(&self) {
        let metrics = &self.metrics;
        let read = || -> Result<(), StoreError> {
            let backlog = self.store.backlog()?;
            metrics.backlog_spans.with_label_values(&["live"]).set(gauge_value(backlog.live));
            metrics.backlog_spans.with_label_values(&["history"]).set(gauge_value(backlog.history));
            let age = backlog.oldest_noticed_at.map_or(0.0, |at| (now() - at).max(0.0));
            metrics.backlog_oldest_age_seconds.set(age);
            let left = self.store.unacknowledged()?;
            metrics.divergences_unacknowledged.set(gauge_value(left.diverged));
            metrics.contradictions_unacknowledged.set(gauge_value(left.contradicted));
            metrics.damaged_spans.set(gauge_value(left.damaged));
            metrics.changed_rows.set(gauge_value(left.changed));
            metrics.capture_bytes.set(gauge_value(self.store.capture_bytes()?));
            Ok(())
        };
        if let Err(error) = read() {
            self.store_failed(&error);
        }
        metrics.worker_peak_memory_bytes.set(gauge_value(neighbour::workers_peak_memory()));
        metrics.node_wal_bytes.set(gauge_value(self.record.db.wal_bytes()));
    }

    /// Sets the gauges of what evidence takes.
    pub(super) fn measure_evidence(&self) {
        let Usage { folders, bytes } = self.evidence.as_ref().map(Keeper::usage).unwrap_or_default();
        self.metrics.evidence_folders.set(gauge_value(folders));
        self.metrics.evidence_bytes.set(gauge_value(bytes));
    }

    /// Counts and tells trouble with the store.
    pub fn store_failed(&self, error: &StoreError) {
        self.metrics.state_errors.inc();
        self.complain("store", &error.to_string());
    }

    /// Logs a complaint, but not the same one over and over.
    pub(super) fn complain(&self, about: &'static str, text: &str) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() > COMPLAINTS_MAX {
            complaints.clear();
        }
        let now = Instant::now();
        let unsaid = match complaints.get_mut(&(about, text.to_owned())) {
            Some(known) if known.told.elapsed() < TELL_AGAIN => {
                known.unsaid += 1;
                return;
            }
            Some(known) => std::mem::replace(known, Complaint { told: now, unsaid: 0 }).unsaid,
            None => {
                complaints.insert((about, text.to_owned()), Complaint { told: now, unsaid: 0 });
                0
            }
        };
        drop(complaints);
        if unsaid > 0 {
            tracing::error!(times = unsaid + 1, "{text}");
        } else {
            tracing::error!("{text}");
        }
    }

    /// Tells of alarms that were raised a moment ago, of many only the first ones, and sets their gauges.
    pub(super) fn tell_alarms(&self, raised: &[(String, Alarm)]) {
        if raised.is_empty() {
            return;
        }
        for (id, Alarm { kind, id: SpanId { vat, start, .. }, reason, explanation, .. }) in
            raised.iter().take(ALARMS_TOLD_MAX)
        {
            let word = kind.label().to_uppercase();
            tracing::error!(%vat, start, reason, id, "{word}: {vat}: {explanation}; {WHAT_TO_DO}");
        }
        if let Some(more) = raised.len().checked_sub(ALARMS_TOLD_MAX).filter(|more| *more > 0) {
            tracing::error!("and {more} more of damage and changed rows: `spanwatch verdicts --alarms` lists them");
        }
        self.refresh_gauges();
    }

    /// Notes that there is nothing to complain about any more. Whether there was.
    pub(super) fn is_well_again(&self, about: &'static str) -> bool {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let before = complaints.len();
        complaints.retain(|(of, _), _| *of != about);
        complaints.len() < before
    }

    /// A line about everything.
    pub(super) fn summary(&self) -> String {
        let metrics = &self.metrics;
        let spans = |verdict| metrics.spans.with_label_values(&[verdict]).get();
        let view = self.view();
        let height = view.block_height.map_or(String::new(), |height| format!(" at block {height}"));
        let mut text = format!(
            "node {}{height}; {} spans verified, {} partial, {} diverged ({} not acknowledged), {} unverifiable, {} failed, \
             {} missed; not acknowledged: {} contradicted, {} damaged, {} changed rows; {} waiting",
            view.state,
            spans("verified"),
            spans("partial"),
            spans("diverged"),
            metrics.divergences_unacknowledged.get(),
            spans("unverifiable"),
            spans("failed"),
            metrics.missed_spans.get(),
            metrics.contradictions_unacknowledged.get(),
            metrics.damaged_spans.get(),
            metrics.changed_rows.get(),
            metrics.backlog_spans.with_label_values(&["live"]).get()
                + metrics.backlog_spans.with_label_values(&["history"]).get(),
        );
        for reason in self.pauses() {
            text.push_str("; paused for want of ");
            text.push_str(reason);
        }
        text
    }
}

impl NodeView {
    /// Whether the database can be read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        matches!(self.state, "running" | "stopped")
    }
}
