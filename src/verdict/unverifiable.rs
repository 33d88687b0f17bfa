//! Reasons why the record of a span can't be replayed.
//!
//! Owns the sentence, the label and the advice of each reason, and whether the reason is damage. Never trouble of ours: that is a
//! [`super::Failure`].

use std::fmt;

use super::VerdictKind;
use super::labels::labels;
use crate::transcript::{Hash256, Position};

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
        /// The number of items that are there.
        present: u64,
        /// The number of items that should be there.
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
        /// The size in bytes.
        bytes: u64,
    },
    /// An archive file that should hold the items is damaged.
    #[error("its items were pruned, and the archive file {file} is damaged: {error}")]
    TranscriptArchive {
        /// The file's path.
        file: String,
        /// The fault.
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
        /// The first position of that span.
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
        /// The bundle's ID.
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
        /// The position of the break.
        position: Position,
        /// The rows or items that were found there.
        what: String,
    },
}

labels! { Unverifiable {
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
} }

impl Unverifiable {
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

    /// Advice for the operator.
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
