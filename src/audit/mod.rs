//! The audit: checks the kernel's answers, without a worker.
//!
//! A vat's vatstore is what the vat's own `vatstoreSet` and `vatstoreDelete` wrote, so the transcript implies each answer to
//! `vatstoreGet` and `vatstoreGetNextKey`, and the kernel's rows `<vatID>.vs.<key>` at the end. `vatstore` is the model
//! of it, `syscall` reads what is recorded, [`Responses`] compares the two; [`history`] walks whole histories
//! (`spanwatch audit`), and [`check_span`] looks at one span by itself (`verify` and the daemon).
//!
//! It believes only items that a span's hash proves. It must never call an honest record contradictory: what the
//! history does not determine is not compared.
//!
//! Sources: `@agoric/swingset-vat` 0.33.0 (`src/kernel/kernelSyscall.js`, `vatTranslator.js`, `vat-warehouse.js`) and
//! `@agoric/swing-store` 0.10.0 (`src/kvStore.js`).

mod contradiction;
mod end;
pub mod history;
mod keys;
mod responses;
mod syscall;
mod vatstore;

pub use contradiction::{Contradiction, ContradictionKind, Contradictions};
pub use end::EndCompared;
pub use history::{Auditor, End, Fault, VatAudit};
pub use keys::KeysLimit;
pub use responses::{Compared, Responses};

use crate::kernel_db::DbError;
use crate::transcript::{Item, Position};

/// Why the vatstore could not be followed: trouble of ours, which says nothing about the record.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file that holds what does not fit into memory.
    #[error("failed to keep the vatstore's keys in a temporary file: {0}; name a directory that has room with --temp")]
    Spill(#[from] rusqlite::Error),
    /// The node's database.
    #[error("{0}")]
    Database(String),
    /// The directory for it.
    #[error("failed to make a temporary file in {}: {source}; name another directory with --temp", dir.display())]
    Temp {
        /// The directory.
        dir: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl From<DbError> for AuditError {
    fn from(error: DbError) -> Self {
        Self::Database(error.to_string())
    }
}

/// Compares the responses in a span's items as far as the span alone determines them.
///
/// # Errors
/// For trouble of ours alone.
pub fn check_span(items: &[(Position, Item<'_>)]) -> Result<Contradictions, AuditError> {
    let mut responses = Responses::of_unknown_past();
    for (position, item) in items {
        responses.add(*position, item)?;
    }
    Ok(responses.into_contradictions())
}
