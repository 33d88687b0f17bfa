//! The node's comings and goings: each is told once, and counted.

use super::{Looker, News};
use crate::daemon::metrics::gauge_value;
use crate::kernel_db::{Access, DbError, Identity, Pulse};
use crate::store::{NodeSeen, now};

/// A change of the database that is no progress.
pub(super) struct Change {
    from: NodeSeen,
    pub(super) is_replaced: bool,
    is_back: bool,
}

impl Looker<'_> {
    /// How the database is another one than it was, or has lost what it had.
    pub(super) fn compare_with_last(&self, identity: Identity, pulse: &Pulse) -> Option<Change> {
        let seen = self.seen.as_ref()?;
        let is_back = seen.pulse.crank > pulse.crank || seen.pulse.height > pulse.height;
        let is_other = seen.pulse.crank == pulse.crank && seen.pulse.activity_hash != pulse.activity_hash;
        let change =
            Change { from: seen.clone(), is_replaced: seen.identity != identity, is_back: is_back || is_other };
        (change.is_replaced || change.is_back).then_some(change)
    }

    pub(super) fn tell_change(&self, Change { from, is_replaced, is_back }: &Change, to: &NodeSeen) {
        let event = |event| self.shared.metrics.node_events.with_label_values(&[event]).inc();
        if *is_replaced {
            event("replaced");
            let (from, to) = (from.identity.inode, to.identity.inode);
            tracing::warn!("the database was replaced by another file (inode {from} became {to})");
        }
        if *is_back {
            event("moved_backwards");
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

    pub(super) fn readable(&self, news: &News) {
        let state = if news.access == Access::Live { "running" } else { "stopped" };
        self.shared.metrics.last_look_timestamp_seconds.set(now());
        self.shared.metrics.node_block_height.set(news.pulse.height.map_or(0, gauge_value));
        self.shared.is_well_again("database");
        self.change_state(state, None);
        self.shared.set_view(|view| {
            view.block_height = news.pulse.height;
            view.crank = news.pulse.crank;
            view.last_look_at = Some(now());
        });
    }

    pub(super) fn unreadable(&self, error: &DbError) {
        let state = match error {
            DbError::NotFound(_) => "missing",
            DbError::Crashed(_) => "crashed",
            _ => "unreadable",
        };
        self.change_state(state, Some(error.to_string()));
        if state == "unreadable" {
            self.shared.complain("database", &error.to_string());
        }
    }

    /// Tells and counts once when the node comes or goes.
    fn change_state(&self, state: &'static str, problem: Option<String>) {
        let before = self.shared.view();
        self.shared.set_view(|view| (view.state, view.problem) = (state, problem.clone()));
        if before.state == state && (before.last_look_at.is_some() || before.problem.is_some()) {
            return;
        }
        self.shared.metrics.set_node_state(state);
        let is_first = before.last_look_at.is_none() && before.problem.is_none();
        let event = match state {
            "running" if matches!(before.state, "stopped" | "crashed" | "missing") => Some("started"),
            "stopped" | "crashed" | "missing" if before.state == "running" => Some("stopped"),
            _ => None,
        };
        if let Some(event) = event.filter(|_| !is_first) {
            self.shared.metrics.node_events.with_label_values(&[event]).inc();
        }
        match (state, problem) {
            ("running", _) => tracing::info!("the node runs"),
            ("stopped", _) => {
                tracing::info!("the node does not run; what it has committed is read, and its start awaited");
            }
            (_, Some(problem)) => {
                tracing::warn!("{problem}; it is looked for again each {:?}", self.shared.config.watch.poll_interval);
            }
            _ => {}
        }
        if matches!(state, "running" | "stopped") {
            self.shared.wake_workers();
        }
    }
}
