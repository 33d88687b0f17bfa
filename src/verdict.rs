//! What can be said of a span. Closed enums, and this is the one place where they become words.
//!
//! A divergence is what a healthy worker did otherwise than recorded. It is never mixed with what could not be checked
//! ([`Unverifiable`]: the record is incomplete or damaged) nor with trouble on our side ([`Failure`]).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::transcript::{Hash256, Position};

/// The outcome for one span.
#[derive(Debug)]
pub enum Verdict {
    /// Everything that the record says was seen again.
    Verified,
    /// Everything that could be seen was seen again; the end could not be seen.
    Partial(Partial),
    /// A worker did something else than the record says.
    Diverged(Divergence),
    /// A response in the record is not what the record itself implies. What came of the replay apart from that.
    Contradicted(Box<Verdict>),
    /// The record can't be replayed.
    Unverifiable(Unverifiable),
    /// It could have been replayed, but something on our side went wrong.
    Failed(Failure),
    /// There is nothing to replay. Counted, and decides nothing.
    NotApplicable(NotApplicable),
}

impl Verdict {
    /// The kind of verdict, without the details.
    #[must_use]
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Verified => VerdictKind::Verified,
            Self::Partial(_) => VerdictKind::Partial,
            Self::Diverged(_) => VerdictKind::Diverged,
            Self::Contradicted(_) => VerdictKind::Contradicted,
            Self::Unverifiable(_) => VerdictKind::Unverifiable,
            Self::Failed(_) => VerdictKind::Failed,
            Self::NotApplicable(_) => VerdictKind::NotApplicable,
        }
    }

    /// The label of the verdict's kind, as in JSON.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.kind().label()
    }

    /// The label of its reason, for a verdict that has one.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Verified | Self::Partial(_) | Self::Diverged(_) => None,
            Self::Contradicted(otherwise) => otherwise.reason(),
            Self::Unverifiable(reason) => Some(reason.label()),
            Self::Failed(failure) => Some(failure.label()),
            Self::NotApplicable(reason) => Some(reason.label()),
        }
    }

    /// Whether it says that the node's own record is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Unverifiable(reason) => reason.is_damage(),
            Self::Contradicted(otherwise) => otherwise.is_damage(),
            _ => false,
        }
    }

    /// Where the part that could be seen ends, if that is not all.
    #[must_use]
    pub fn partial(&self) -> Option<Partial> {
        match self {
            Self::Partial(partial) => Some(*partial),
            Self::Diverged(divergence) => divergence.partial,
            Self::Contradicted(otherwise) => otherwise.partial(),
            Self::Verified | Self::Unverifiable(_) | Self::Failed(_) | Self::NotApplicable(_) => None,
        }
    }

    /// Whether a worker was started for it.
    #[must_use]
    pub fn is_of_a_replay(&self) -> bool {
        match self {
            Self::Verified | Self::Partial(_) | Self::Diverged(_) | Self::Failed(_) => true,
            Self::Contradicted(otherwise) => otherwise.is_of_a_replay(),
            Self::Unverifiable(_) | Self::NotApplicable(_) => false,
        }
    }
}

/// The kind of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// [`Verdict::Verified`].
    Verified,
    /// [`Verdict::Partial`].
    Partial,
    /// [`Verdict::Diverged`].
    Diverged,
    /// [`Verdict::Contradicted`].
    Contradicted,
    /// [`Verdict::Unverifiable`].
    Unverifiable,
    /// [`Verdict::Failed`].
    Failed,
    /// [`Verdict::NotApplicable`].
    NotApplicable,
}

impl VerdictKind {
    /// All kinds, in the order in which a summary lists them.
    pub const ALL: [Self; 7] = [
        Self::Verified,
        Self::Partial,
        Self::Diverged,
        Self::Contradicted,
        Self::Unverifiable,
        Self::Failed,
        Self::NotApplicable,
    ];

    /// The label, as in JSON, metrics and the store.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Partial => "partial",
            Self::Diverged => "diverged",
            Self::Contradicted => "contradicted",
            Self::Unverifiable => "unverifiable",
            Self::Failed => "failed",
            Self::NotApplicable => "not_applicable",
        }
    }

    /// The kind with a label; `None` if no kind has it.
    #[must_use]
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

/// How much of a span could be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Partial {
    /// One past the last position that was replayed and compared.
    pub seen_to: Position,
    /// Where the span ends.
    pub end: Position,
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen_to, end } = self;
        write!(
            f,
            "replayed up to position {}; the node deleted the last {} of its items before they could be copied",
            seen_to.saturating_sub(1),
            end - seen_to
        )
    }
}

/// A divergence, with what makes it believable.
#[derive(Debug)]
pub struct Divergence {
    /// What differed, by position; at least one.
    pub findings: Vec<Finding>,
    /// How many findings there were in all: not all are kept of a worker that goes completely astray.
    pub findings_total: usize,
    /// What went wrong on our side after the findings, if something did.
    pub failure: Option<String>,
    /// Whether a fresh process did the same.
    pub repeat: Repeat,
    /// Set when the end of the span could not be seen: what was compared before it.
    pub partial: Option<Partial>,
    /// Set when the snapshot's hash differs: what both heaps are to each other.
    pub heap: Option<Box<HeapAnswer>>,
}

/// What two heaps whose images have different hashes are to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeapLikeness {
    /// The same heap: only how the engine keeps it differs.
    Isomorphic,
    /// The same heap now, but the engine will collect garbage at another time.
    GcSchedule,
    /// Not the same heap.
    Different,
    /// They could not be compared.
    #[default]
    Unknown,
}

impl HeapLikeness {
    /// Their words.
    pub const LABELS: [&str; 4] = ["isomorphic", "gc_schedule", "different", "unknown"];

    /// One word, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }

    /// A sentence.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Isomorphic => "the heaps are the same: only how the engine keeps them differs",
            Self::GcSchedule => {
                "the heaps are the same now, but garbage is collected at another time from here on, which may show"
            }
            Self::Different => "the heaps are not the same",
            Self::Unknown => "the heaps were not compared",
        }
    }
}

/// What comparing two heaps gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapAnswer {
    /// The answer.
    pub answer: HeapLikeness,
    /// The first places that differ, the most telling first, each as the vat's author would name it.
    pub places: Vec<String>,
    /// How many there are.
    pub places_total: u64,
    /// The first places where only how the engine keeps something differs: people can learn from it.
    pub traces: Vec<String>,
    /// How often each kind of that was found.
    pub trace_counts: BTreeMap<String, u64>,
    /// Why they were not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl HeapAnswer {
    /// The answer in a sentence, then a line a place.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let why = self.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let mut lines = vec![format!("{}{why}", self.answer.text())];
        lines.extend(self.places.iter().cloned());
        let more = self.places_total.saturating_sub(self.places.len() as u64);
        if more > 0 {
            lines.push(format!("and {}", crate::words::plural(more, "place more", "places more")));
        }
        lines.extend(self.traces.iter().cloned());
        lines
    }
}

/// What came of the further replays that every divergence gets, each in a fresh process from the same base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// The same findings each time.
    Deterministic,
    /// Not each time: what else there was.
    Flaky(Vec<RepeatOutcome>),
    /// They failed for a reason of ours.
    Unconfirmed(String),
}

/// What some of several replays found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatOutcome {
    /// How many.
    pub times: u32,
    /// What; empty if they did as recorded.
    pub findings: Vec<Finding>,
}

impl Repeat {
    /// The kind of result, without the details.
    #[must_use]
    pub fn kind(&self) -> RepeatKind {
        match self {
            Self::Deterministic => RepeatKind::Deterministic,
            Self::Flaky(_) => RepeatKind::Flaky,
            Self::Unconfirmed(_) => RepeatKind::Unconfirmed,
        }
    }

    /// The label of the kind, as in JSON.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.kind().label()
    }
}

/// The kind of a [`Repeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RepeatKind {
    /// [`Repeat::Deterministic`].
    Deterministic,
    /// [`Repeat::Flaky`].
    Flaky,
    /// [`Repeat::Unconfirmed`].
    Unconfirmed,
}

impl RepeatKind {
    /// The label, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Deterministic => "deterministic",
            Self::Flaky => "flaky",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// What kind of thing differed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A syscall is another one, or stands at another place.
    Syscall,
    /// A recorded syscall was not made.
    MissingSyscall,
    /// A syscall was made that is not recorded.
    ExtraSyscall,
    /// A delivery or the worker's start ended otherwise.
    Status,
    /// A delivery cost another number of computrons.
    Computrons,
    /// The heap at the end of the span is another one.
    SnapshotHash,
    /// The worker's process ended.
    WorkerExit,
}

impl FindingKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Syscall,
        Self::MissingSyscall,
        Self::ExtraSyscall,
        Self::Status,
        Self::Computrons,
        Self::SnapshotHash,
        Self::WorkerExit,
    ];

    /// One word, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Syscall => "syscall",
            Self::MissingSyscall => "missing_syscall",
            Self::ExtraSyscall => "extra_syscall",
            Self::Status => "status",
            Self::Computrons => "computrons",
            Self::SnapshotHash => "snapshot_hash",
            Self::WorkerExit => "worker_exit",
        }
    }
}

/// What a finding is known to be. It is a divergence all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingClass {
    /// A read of what describes a virtual collection, which is made or not depending on when the engine collects garbage.
    GcSensitiveRead,
}

impl FindingClass {
    /// One word, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::GcSensitiveRead => "gc_sensitive_read",
        }
    }
}

/// One difference between the record and the replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing differed.
    pub kind: FindingKind,
    /// Position of the item.
    pub position: Position,
    /// Number of the syscall within the delivery, from 0, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<usize>,
    /// What it is known to be, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<FindingClass>,
    /// What the record says; an excerpt where it is long. `None` if the record has nothing.
    pub recorded: Option<String>,
    /// What the replay did; an excerpt where it is long. `None` if it did nothing.
    pub replayed: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.label())?;
        if let Some(syscall) = self.syscall {
            write!(f, " (syscall {syscall})")?;
        }
        if self.class == Some(FindingClass::GcSensitiveRead) {
            write!(f, " (a read that garbage collection causes)")?;
        }
        let side = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, ": recorded {}, replayed {}", side(&self.recorded), side(&self.replayed))
    }
}

/// Why a span can't be replayed: what is wrong with the record.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unverifiable {
    /// The node deleted the items, and no archive has them.
    #[error("its items were pruned by the node")]
    ItemsPruned,
    /// The node's row of the span is not there any more.
    #[error(
        "its row is gone from the database: the vat was cleaned up after its termination, or the database was restored to an earlier state"
    )]
    RowGone,
    /// Some items are missing.
    #[error("item {missing} is missing ({present} of {count} are there)")]
    ItemsMissing {
        /// The first one missing.
        missing: Position,
        /// How many there are.
        present: u64,
        /// How many there should be.
        count: u64,
    },
    /// The items are not those that the span's hash speaks of.
    #[error("the hash of its items is {found}, recorded is {recorded}")]
    SpanHash {
        /// The row's.
        recorded: Hash256,
        /// The items'.
        found: Hash256,
    },
    /// The span's row is not one that a kernel writes.
    #[error("its row in transcriptSpans is damaged: {0}")]
    SpanRow(&'static str),
    /// An item is not what a kernel writes.
    #[error("item {position} is unreadable: {error}")]
    Item {
        /// Which.
        position: Position,
        /// Why.
        error: String,
    },
    /// The items are not in an order in which a kernel writes them.
    #[error("item {position} is out of place: {what}")]
    Shape {
        /// Which.
        position: Position,
        /// How.
        what: String,
    },
    /// More text than a replay may hold.
    #[error("its items have {bytes} bytes, more than a replay holds")]
    TooLarge {
        /// How much.
        bytes: u64,
    },
    /// An archive file that should hold the items is damaged.
    #[error("its items were pruned, and the archive file {file} is damaged: {error}")]
    TranscriptArchive {
        /// Its path.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// There is no image to start from, and none can be made by replaying what comes before.
    #[error("the image that it starts from is gone, and {0}")]
    BaseGone(String),
    /// The image to start from is not the one that the record speaks of.
    #[error("the image that it starts from is damaged: {0}")]
    BaseDamaged(String),
    /// A span before it had to be replayed first and gave no image.
    #[error("the image that it starts from is gone, and the span before it, which starts at {start}, was {}", .verdict.label())]
    ChainBroken {
        /// Where that span starts.
        start: Position,
        /// The kind of its verdict.
        verdict: VerdictKind,
    },
    /// A bundle that the worker is started with is missing.
    #[error("bundle {0} is missing")]
    BundleMissing(String),
    /// A bundle that the worker is started with is not what its ID says.
    #[error("bundle {id} is damaged: {error}")]
    BundleDamaged {
        /// Its ID.
        id: String,
        /// How.
        error: String,
    },
    /// The vat was started from a bundle that the kernel did not keep.
    #[error("the vat's code is not recorded: its initialize-worker names no bundle")]
    SourceUnknown,
    /// The vat's options decide how its worker is started, and can't be read.
    #[error("the vat's options are unreadable: {0}")]
    Options(String),
    /// A worker that is neither an xsnap process nor local.
    #[error("it runs in a worker of unknown type {0:?}")]
    WorkerType(String),
    /// The rows of the vat's history do not form one chain.
    #[error("the vat's history is broken at position {position}: {what}")]
    HistoryBroken {
        /// Where the chain breaks.
        position: Position,
        /// What was found there.
        what: String,
    },
}

impl Unverifiable {
    /// All labels.
    pub const LABELS: [&str; 18] = [
        "items_pruned",
        "row_gone",
        "items_missing",
        "span_hash_mismatch",
        "span_row_damaged",
        "item_unreadable",
        "item_out_of_place",
        "too_large",
        "transcript_archive_damaged",
        "base_gone",
        "base_damaged",
        "chain_broken",
        "bundle_missing",
        "bundle_damaged",
        "source_unknown",
        "options_unreadable",
        "worker_type_unknown",
        "history_broken",
    ];

    /// One word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::ItemsPruned => "items_pruned",
            Self::RowGone => "row_gone",
            Self::ItemsMissing { .. } => "items_missing",
            Self::SpanHash { .. } => "span_hash_mismatch",
            Self::SpanRow(_) => "span_row_damaged",
            Self::Item { .. } => "item_unreadable",
            Self::Shape { .. } => "item_out_of_place",
            Self::TooLarge { .. } => "too_large",
            Self::TranscriptArchive { .. } => "transcript_archive_damaged",
            Self::BaseGone(_) => "base_gone",
            Self::BaseDamaged(_) => "base_damaged",
            Self::ChainBroken { .. } => "chain_broken",
            Self::BundleMissing(_) => "bundle_missing",
            Self::BundleDamaged { .. } => "bundle_damaged",
            Self::SourceUnknown => "source_unknown",
            Self::Options(_) => "options_unreadable",
            Self::WorkerType(_) => "worker_type_unknown",
            Self::HistoryBroken { .. } => "history_broken",
        }
    }

    /// Whether the node's own record is damaged or was edited: neither pruning nor a missing archive explains it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::ItemsMissing { .. }
            | Self::SpanHash { .. }
            | Self::SpanRow(_)
            | Self::TranscriptArchive { .. }
            | Self::BaseDamaged(_)
            | Self::BundleMissing(_)
            | Self::BundleDamaged { .. }
            | Self::Item { .. }
            | Self::Shape { .. }
            | Self::HistoryBroken { .. } => true,
            Self::ItemsPruned
            | Self::RowGone
            | Self::TooLarge { .. }
            | Self::BaseGone(_)
            | Self::ChainBroken { .. }
            | Self::SourceUnknown
            | Self::Options(_)
            | Self::WorkerType(_) => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::ItemsPruned => {
                "if there is an archive, name it with --transcript-archive; for later spans set vat-transcript-retention = \"archival\""
            }
            Self::RowGone => "nothing: what was deleted with it cannot be seen any more, unless an archive has it",
            Self::BaseGone(_) => {
                "if there is an archive, name it with --snapshot-archive; for later spans set vat-snapshot-retention = \"debug\""
            }
            Self::ChainBroken { .. } => {
                "see that span's line; an archive of images (--snapshot-archive) would start from here"
            }
            Self::ItemsMissing { .. } | Self::SpanHash { .. } | Self::SpanRow(_) | Self::Item { .. } => {
                "the database was changed or damaged: keep the file as evidence, compare it with another node's copy, and restore it from a backup"
            }
            Self::BaseDamaged(_) => {
                "the stored image was changed or damaged: keep the file as evidence, and compare it with another node's copy"
            }
            Self::TranscriptArchive { .. } => {
                "copy the file from another node: its content is proved by the span's hash"
            }
            Self::HistoryBroken { .. } => {
                "rows were edited or lost: keep the file as evidence, compare it with another node's copy, and restore it from a backup"
            }
            Self::BundleMissing(_) | Self::BundleDamaged { .. } => {
                "copy the bundle from another node's database: its ID proves it"
            }
            Self::Shape { .. }
            | Self::TooLarge { .. }
            | Self::WorkerType(_)
            | Self::Options(_)
            | Self::SourceUnknown => "no kernel known to this version of spanwatch writes this: please report it",
        }
    }

    /// For a bundle that could not be proved.
    #[must_use]
    pub fn bundle(id: &str, error: &impl fmt::Display) -> Self {
        Self::BundleDamaged { id: id.to_owned(), error: error.to_string() }
    }
}

/// What went wrong on our side, or on the worker's in a way that says nothing about the record.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The worker's process could not be started.
    #[error("the worker could not be started: {0}")]
    WorkerStart(String),
    /// The worker says things that no worker says.
    #[error("the worker does not speak the protocol at position {position}: {error}")]
    WorkerProtocol {
        /// Where.
        position: Position,
        /// What it said.
        error: String,
    },
    /// The worker could not read or write (its exits 1 and 2): also an image of another engine's.
    #[error("the worker could not go on at position {position}: {exit}{said}")]
    WorkerIo {
        /// Where.
        position: Position,
        /// Its exit.
        exit: String,
        /// What it printed, if anything.
        said: String,
    },
    /// Somebody else ended the worker: the kernel for want of memory, or a person.
    #[error("the worker was killed from outside at position {position} ({signal})")]
    WorkerKilled {
        /// Where.
        position: Position,
        /// By which signal.
        signal: String,
    },
    /// A limit of ours was reached and the worker was ended.
    #[error("the worker was stopped at position {position}: {limit}")]
    Limit {
        /// Where.
        position: Position,
        /// Which limit.
        limit: String,
    },
    /// The sandbox killed the worker: it tried what it may not do.
    #[error("the sandbox killed the worker at position {position}: {rule}")]
    Sandbox {
        /// Where.
        position: Position,
        /// Which layer of the sandbox, and over what.
        rule: String,
    },
    /// The database could not be read.
    #[error("{0}")]
    Database(String),
    /// The system gave no memory, descriptor or thread.
    #[error("the system refused: {0}")]
    System(String),
}

impl Failure {
    /// All labels.
    pub const LABELS: [&str; 8] =
        ["worker_start", "worker_protocol", "worker_io", "worker_killed", "limit", "sandbox", "database", "system"];

    /// One word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::WorkerStart(_) => "worker_start",
            Self::WorkerProtocol { .. } => "worker_protocol",
            Self::WorkerIo { .. } => "worker_io",
            Self::WorkerKilled { .. } => "worker_killed",
            Self::Limit { .. } => "limit",
            Self::Sandbox { .. } => "sandbox",
            Self::Database(_) => "database",
            Self::System(_) => "system",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::WorkerStart(_) | Self::WorkerProtocol { .. } => {
                "is --worker an xsnap-worker? `spanwatch doctor` says which one is used"
            }
            Self::WorkerIo { .. } => {
                "an image can only be read by the engine version that wrote it: is this the node's worker?"
            }
            Self::WorkerKilled { .. } => {
                "look for an out-of-memory kill in the system's log, then verify the span again"
            }
            Self::Limit { .. } => "if the machine was busy, verify the span again with a higher limit (see --help)",
            Self::Sandbox { .. } => {
                "a worker does not do that: find out which code the vat ran, or, if the worker is new and needs the call, report it; \
                 docs/sandbox.md says what is allowed and why"
            }
            Self::Database(_) => {
                "what SQLite says decides: a lock passes, damage does not; the other spans were not affected"
            }
            Self::System(_) => "free some memory or descriptors, then verify the span again",
        }
    }
}

/// Why there is nothing to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotApplicable {
    /// The vat runs inside the kernel's process.
    LocalWorker,
    /// The span has no delivery.
    Empty,
}

impl NotApplicable {
    /// One word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LocalWorker => "local_worker",
            Self::Empty => "empty",
        }
    }

    /// A sentence.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::LocalWorker => "a local worker runs in the kernel's own process: there is nothing to replay it with",
            Self::Empty => "it has no delivery",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alerts and exit codes go by it, so what counts as damage is written down once more.
    #[test]
    fn damage_is_what_pruning_does_not_explain() {
        let damage = |reason: &Unverifiable| (reason.label(), reason.is_damage());
        let (recorded, found) = (crate::transcript::sha256(b"one"), crate::transcript::sha256(b"other"));
        let text = String::new;
        for (reason, expected) in [
            (Unverifiable::ItemsPruned, ("items_pruned", false)),
            (Unverifiable::RowGone, ("row_gone", false)),
            (Unverifiable::ItemsMissing { missing: 1, present: 1, count: 2 }, ("items_missing", true)),
            (Unverifiable::SpanHash { recorded, found }, ("span_hash_mismatch", true)),
            (Unverifiable::SpanRow(""), ("span_row_damaged", true)),
            (Unverifiable::TranscriptArchive { file: text(), error: text() }, ("transcript_archive_damaged", true)),
            (Unverifiable::BaseGone(text()), ("base_gone", false)),
            (Unverifiable::BaseDamaged(text()), ("base_damaged", true)),
            (Unverifiable::ChainBroken { start: 0, verdict: VerdictKind::Diverged }, ("chain_broken", false)),
            (Unverifiable::BundleMissing(text()), ("bundle_missing", true)),
            (Unverifiable::BundleDamaged { id: text(), error: text() }, ("bundle_damaged", true)),
            (Unverifiable::Item { position: 0, error: text() }, ("item_unreadable", true)),
            (Unverifiable::Shape { position: 0, what: text() }, ("item_out_of_place", true)),
            (Unverifiable::WorkerType(text()), ("worker_type_unknown", false)),
            (Unverifiable::HistoryBroken { position: 0, what: text() }, ("history_broken", true)),
        ] {
            assert_eq!(damage(&reason), expected);
        }
    }
}
