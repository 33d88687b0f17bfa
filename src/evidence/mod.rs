//! Evidence: a folder with everything that is needed to replay a diverging span anywhere, without the node.
//!
//! [`keeper`] writes folders, counts what is the same again, and keeps within its limits; [`case`] reads one back and proves
//! it anew; [`manifest`] is what both know of its contents; [`pack`] makes one file of it, and [`archive`] reads such a file. Nothing of
//! what a sender made is believed: `names` is the table of all files, `folder` opens no others. Nothing here decides whether
//! something diverged, and failing to keep evidence never changes a verdict.
//!
//! What a folder holds is listed in `docs/forensics.md`.

pub mod archive;
pub mod case;
mod facts;
mod files;
mod folder;
pub mod keeper;
pub mod manifest;
mod names;
mod new_folder;
pub mod pack;
pub(crate) mod replayed;
mod signature;

use std::io;
use std::path::PathBuf;

pub use case::{Case, Replacement, note_workers};
pub use facts::{column, worker_facts};
pub use keeper::{Keeper, Kept, Witness};
pub use manifest::{Manifest, WorkerColumn, WorkerOutcome};
pub use replayed::{ReplayedDelivery, ReplayedStart, ReplayedSyscall};

use crate::files::own::OwnError;
use crate::verdict::Unverifiable;

/// Why evidence could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The system refused.
    #[error("failed to {what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory is not ours alone.
    #[error("{0}")]
    Own(#[from] OwnError),
    /// It would take more room than is allowed, and nothing acknowledged is left to be dropped.
    #[error(
        "{} has {bytes} bytes of evidence, and with this it would be more than evidence.max_bytes ({max}); acknowledge what is done with, or raise it",
        dir.display()
    )]
    Full {
        /// The directory of all folders.
        dir: PathBuf,
        /// What is in it.
        bytes: u64,
        /// What may be.
        max: u64,
    },
    /// It is no evidence folder.
    #[error("{} is no evidence: {why}", path.display())]
    NotEvidence {
        /// What was given.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// What it says of its worker is not what a worker can have.
    #[error("failed to replay {}: {why}", path.display())]
    NotReplayable {
        /// The folder.
        path: PathBuf,
        /// What it says, and what to do.
        why: String,
    },
    /// A newer version wrote it.
    #[error("{} was written in form {found}, and forms up to {known} are known here: use a newer spanwatch", path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its form.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// What is in the folder is not what its manifest speaks of.
    #[error("{} was changed or damaged: {why}; take another copy", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// Its items can't be replayed.
    #[error("the record in {} can't be replayed: {why}", path.display())]
    Record {
        /// The folder.
        path: PathBuf,
        /// Why not.
        why: Unverifiable,
    },
}

impl EvidenceError {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// One word, for a metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Full { .. } => "full",
            Self::Io { .. } | Self::Own(_) => "io",
            Self::NotEvidence { .. }
            | Self::NotReplayable { .. }
            | Self::Newer { .. }
            | Self::Damaged { .. }
            | Self::Record { .. } => "damaged",
        }
    }

    /// All labels that keeping can give.
    pub const LABELS: [&str; 3] = ["full", "io", "damaged"];
}
