//! The daemon's view of the node: what look, watch, the web server and the replaying threads tell one another about it.
//!
//! Owns the types that these modules exchange, and the lock around the current view. It decides nothing and reads nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The state of the node's database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeState {
    /// A node has the database open, and it can be read.
    Running,
    /// No node has it open, and it can be read.
    Stopped,
    /// The node died and left commits that only the `-wal` file holds.
    Crashed,
    /// There is no file.
    Missing,
    /// The file is there and can't be read.
    Unreadable,
}

impl NodeState {
    /// All states.
    pub(crate) const ALL: [Self; 5] = [Self::Running, Self::Stopped, Self::Crashed, Self::Missing, Self::Unreadable];

    /// The label, as in JSON and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether the database can be read.
    pub(crate) fn is_readable(self) -> bool {
        matches!(self, Self::Running | Self::Stopped)
    }
}

/// An event in the life of the node or its database, as a counter has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeEvent {
    /// The node opened the database.
    Started,
    /// The node closed it, or died.
    Stopped,
    /// Another file is in the place of the database.
    Replaced,
    /// The database has lost commits.
    MovedBackwards,
    /// A vat was terminated.
    VatTerminated,
}

impl NodeEvent {
    /// All events.
    pub(crate) const ALL: [Self; 5] =
        [Self::Started, Self::Stopped, Self::Replaced, Self::MovedBackwards, Self::VatTerminated];

    /// The label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Replaced => "replaced",
            Self::MovedBackwards => "moved_backwards",
            Self::VatTerminated => "vat_terminated",
        }
    }
}

/// The reason why the database was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookSource {
    /// The poll interval passed.
    Poll,
    /// One of its files changed.
    FileEvent,
}

impl LookSource {
    /// All sources.
    pub(crate) const ALL: [Self; 2] = [Self::Poll, Self::FileEvent];

    /// The label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::FileEvent => "file_event",
        }
    }
}

/// The result of one look at the database.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LookResult {
    /// Set when the database has changed since the last look.
    pub(crate) is_changed: bool,
    /// Set when there is more than one look takes: another should follow.
    pub(crate) is_unfinished: bool,
}

impl LookResult {
    /// All labels.
    pub(crate) const LABELS: [&str; 2] = ["nothing", "change"];

    /// The label in metrics.
    pub(crate) fn label(self) -> &'static str {
        Self::LABELS[usize::from(self.is_changed)]
    }
}

/// The place that keeps something of closed spans. A later one is the worse place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptBy {
    /// The node's database.
    Node,
    /// The node's archive.
    Archive,
    /// No place: only copies that the daemon made in time.
    Nobody,
}

/// The places that keep closed spans, as seen on those that closed last. `None` until one has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Retention {
    /// The place of the items.
    pub(crate) items: Option<KeptBy>,
    /// The place of the images.
    pub(crate) images: Option<KeptBy>,
}

impl Retention {
    /// A sentence for the log, with the setting that would improve it.
    pub(crate) fn describe(self) -> String {
        let advice = |line: &str| format!("; in app.toml, section [swingset], {line} would change that");
        let items = match self.items {
            None => {
                "no span has closed yet, so items of open spans are copied in case the node deletes them".to_owned()
            }
            Some(KeptBy::Node) => "the node keeps the items of closed spans".to_owned(),
            Some(KeptBy::Archive) => "the items of closed spans are read from the archive".to_owned(),
            Some(KeptBy::Nobody) => format!(
                "the node deletes the items of a span as it closes: items are copied before, except the last ones, which no reader \
                 can see{}",
                advice("vat-transcript-archive-dir (with node.transcript_archive here)")
            ),
        };
        let images = match self.images {
            None => "images in use are copied in case the node deletes them".to_owned(),
            Some(KeptBy::Node) => "the node keeps old images".to_owned(),
            Some(KeptBy::Archive) => "old images are read from the archive".to_owned(),
            Some(KeptBy::Nobody) => format!(
                "the node deletes old images: images are copied while they are in use{}",
                advice("vat-snapshot-archive-dir (with node.snapshot_archive here)")
            ),
        };
        format!("{items}; {images}")
    }
}

/// The node as the daemon knows it; a part of `/api/v1/status`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NodeView {
    /// The state of its database.
    pub(crate) state: NodeState,
    /// The reason why it can't be read.
    pub(crate) problem: Option<String>,
    /// The block height, on a chain node.
    pub(crate) block_height: Option<u64>,
    /// The crank number.
    pub(crate) crank: Option<u64>,
    /// The time of the last read that succeeded, in seconds since 1970.
    pub(crate) last_look_at: Option<f64>,
    /// The places that keep closed spans.
    pub(crate) retention: Retention,
    /// The number of vats that were seen.
    pub(crate) vats: u64,
}

impl NodeView {
    /// Whether no look has ended yet, neither well nor badly.
    pub(crate) fn is_before_the_first_look(&self) -> bool {
        self.last_look_at.is_none() && self.problem.is_none()
    }
}

/// The current view, behind its lock, and a sign of life from the thread that looks.
#[derive(Debug)]
pub(crate) struct View {
    node: Mutex<NodeView>,
    alive: Mutex<Instant>,
}

impl View {
    /// A view of a node that was never looked at.
    pub(crate) fn new() -> Self {
        let node = NodeView {
            state: NodeState::Missing,
            problem: None,
            block_height: None,
            crank: None,
            last_look_at: None,
            retention: Retention::default(),
            vats: 0,
        };
        Self { node: Mutex::new(node), alive: Mutex::new(Instant::now()) }
    }

    /// A copy of the view.
    pub(crate) fn get(&self) -> NodeView {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the view.
    pub(crate) fn set(&self, change: impl FnOnce(&mut NodeView)) {
        change(&mut self.node.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes that the thread that looks is alive.
    pub(crate) fn note_alive(&self) {
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The time since that thread gave its last sign of life.
    pub(crate) fn silence(&self) -> Duration {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alerts and dashboards go by the labels.
    #[test]
    fn labels_are_the_same_in_json_and_metrics() {
        for state in NodeState::ALL {
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.label());
        }
        let mut view = View::new().get();
        assert!(view.is_before_the_first_look() && !view.state.is_readable());
        view.retention.items = Some(KeptBy::Nobody);
        let json = serde_json::to_value(&view).expect("JSON");
        assert_eq!((&json["state"], &json["retention"]["items"]), (&"missing".into(), &"nobody".into()));
    }
}
