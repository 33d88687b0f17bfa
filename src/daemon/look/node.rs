//! The node's comings and goings: each is told once, and counted.

use super::Tracker;
use super::read::DatabaseRead;
use crate::daemon::complaints::Subject;
use crate::daemon::metrics::gauge_value;
use crate::daemon::view::{NodeEvent, NodeState};
use crate::kernel_db::{Access, DbError, Identity, Pulse};
use crate::store::{NodeSeen, now};

/// A change of the database that is no progress.
pub(super) struct DatabaseChange {
    from: NodeSeen,
    pub(super) is_replaced: bool,
    is_back: bool,
}

impl Tracker<'_> {
    /// How the database is another one than it was, or has lost what it had.
    pub(super) fn compare_with_last(&self, identity: Identity, pulse: &Pulse) -> Option<DatabaseChange> {
        let seen = self.seen.as_ref()?;
        let is_back = seen.pulse.crank > pulse.crank || seen.pulse.height > pulse.height;
        let is_other = seen.pulse.crank == pulse.crank && seen.pulse.activity_hash != pulse.activity_hash;
        let change =
            DatabaseChange { from: seen.clone(), is_replaced: seen.identity != identity, is_back: is_back || is_other };
        (change.is_replaced || change.is_back).then_some(change)
    }

    pub(super) fn tell_change(&self, DatabaseChange { from, is_replaced, is_back }: &DatabaseChange, to: &NodeSeen) {
        let event = |event: NodeEvent| self.shared.metrics.node_events.with_label_values(&[event.label()]).inc();
        if *is_replaced {
            event(NodeEvent::Replaced);
            let (from, to) = (from.identity.inode, to.identity.inode);
            tracing::warn!("the database was replaced by another file (inode {from} became {to})");
        }
        if *is_back {
            event(NodeEvent::MovedBackwards);
            let show = |pulse: &Pulse| {
                let part = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
                format!("block {}, crank {}", part(pulse.height), part(pulse.crank))
            };
            tracing::warn!(
                "the database moved backwards, from {} to {}: it was restored or rolled back; spans that close again are verified \
                 again where they differ",
                show(&from.pulse),
                show(&to.pulse)
            );
        }
    }

    pub(super) fn readable(&self, read: &DatabaseRead) {
        let state = if read.access == Access::Live { NodeState::Running } else { NodeState::Stopped };
        self.shared.metrics.last_look_timestamp_seconds.set(now());
        self.shared.metrics.node_block_height.set(read.pulse.height.map_or(0, gauge_value));
        self.shared.complaints.end(Subject::Database);
        self.change_state(state, None);
        self.shared.view.set(|view| {
            view.block_height = read.pulse.height;
            view.crank = read.pulse.crank;
            view.last_look_at = Some(now());
        });
    }

    pub(super) fn unreadable(&self, error: &DbError) {
        let state = match error {
            DbError::NotFound(_) => NodeState::Missing,
            DbError::Crashed(_) => NodeState::Crashed,
            _ => NodeState::Unreadable,
        };
        self.change_state(state, Some(error.to_string()));
        if state == NodeState::Unreadable {
            self.shared.complaints.complain(Subject::Database, &error.to_string());
        }
    }

    /// Logs and counts a change of the node's state, once.
    fn change_state(&self, state: NodeState, problem: Option<String>) {
        use NodeState::{Crashed, Missing, Running, Stopped};
        let before = self.shared.view.get();
        self.shared.view.set(|view| (view.state, view.problem) = (state, problem.clone()));
        let is_first = before.is_before_the_first_look();
        if before.state == state && !is_first {
            return;
        }
        self.shared.metrics.set_node_state(state);
        let event = match state {
            Running if matches!(before.state, Stopped | Crashed | Missing) => Some(NodeEvent::Started),
            Stopped | Crashed | Missing if before.state == Running => Some(NodeEvent::Stopped),
            _ => None,
        };
        if let Some(event) = event.filter(|_| !is_first) {
            self.shared.metrics.node_events.with_label_values(&[event.label()]).inc();
        }
        match (state, problem) {
            (Running, _) => tracing::info!("the node runs"),
            (Stopped, _) => {
                tracing::info!("the node is stopped; its committed rows are read, and its start is awaited");
            }
            (_, Some(problem)) => {
                tracing::warn!("{problem}; trying again every {:?}", self.shared.config.watch.poll_interval);
            }
            _ => {}
        }
        if state.is_readable() {
            self.shared.work.wake();
        }
    }
}
