//! The gauges that are read off the store, the state directory and the system, rather than counted as things happen.

use super::metrics::{Metrics, gauge_value};
use super::neighbour;
use crate::evidence::Keeper;
use crate::evidence::keeper::Usage;
use crate::kernel_db::KernelDb;
use crate::store::{SpanSource, Store, StoreError, now};

/// Sets the gauges of the backlog, of alarms and of captures. Costs a few indexed queries.
pub(super) fn of_store(metrics: &Metrics, store: &Store) -> Result<(), StoreError> {
    let backlog = store.backlog()?;
    for (source, spans) in [(SpanSource::Live, backlog.live), (SpanSource::History, backlog.history)] {
        metrics.backlog_spans.with_label_values(&[source.label()]).set(gauge_value(spans));
    }
    let age = backlog.oldest_noticed_at.map_or(0.0, |at| (now() - at).max(0.0));
    metrics.backlog_oldest_age_seconds.set(age);
    let left = store.unacknowledged()?;
    metrics.divergences_unacknowledged.set(gauge_value(left.diverged));
    metrics.contradictions_unacknowledged.set(gauge_value(left.contradicted));
    metrics.damaged_spans.set(gauge_value(left.damaged));
    metrics.changed_rows.set(gauge_value(left.changed));
    metrics.capture_bytes.set(gauge_value(store.capture_bytes()?));
    Ok(())
}

/// Sets the gauges of workers' memory and of the node's `-wal` file.
pub(super) fn of_system(metrics: &Metrics, db: &KernelDb) {
    metrics.worker_peak_memory_bytes.set(gauge_value(neighbour::workers_peak_memory()));
    metrics.node_wal_bytes.set(gauge_value(db.wal_bytes()));
}

/// Sets the gauges of the evidence that is kept. Reads the directory of evidence.
pub(super) fn of_evidence(metrics: &Metrics, evidence: Option<&Keeper>) {
    let Usage { folders, bytes } = evidence.map(Keeper::usage).unwrap_or_default();
    metrics.evidence_folders.set(gauge_value(folders));
    metrics.evidence_bytes.set(gauge_value(bytes));
}
