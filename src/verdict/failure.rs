//! Failures on our side, and reasons why there is nothing to replay.
//!
//! Owns the sentence, the label and the advice of each. A failure says nothing about the record and is never a divergence.

use super::labels::labels;
use crate::transcript::Position;

/// Trouble on our side, or on the worker's, that says nothing about the record.
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
        /// The message.
        error: String,
    },
    /// The worker could not read or write (its exits 1 and 2): also an image of another engine's.
    #[error("the worker could not go on at position {position}: {exit}{said}")]
    WorkerIo {
        /// Where.
        position: Position,
        /// The exit of the process.
        exit: String,
        /// The worker's last output; may be empty.
        said: String,
    },
    /// Another process ended the worker: the kernel as memory ran out, or a person.
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
        /// The limit.
        limit: String,
    },
    /// The sandbox killed the worker: it tried what it may not do.
    #[error("the sandbox killed the worker at position {position}: {rule}")]
    Sandbox {
        /// Where.
        position: Position,
        /// The layer of the sandbox, and the forbidden act.
        rule: String,
    },
    /// The database could not be read.
    #[error("{0}")]
    Database(String),
    /// The system gave no memory, descriptor or thread.
    #[error("the system refused: {0}")]
    System(String),
}

labels! { Failure {
    Self::WorkerStart(_) => "worker_start",
    Self::WorkerProtocol { .. } => "worker_protocol",
    Self::WorkerIo { .. } => "worker_io",
    Self::WorkerKilled { .. } => "worker_killed",
    Self::Limit { .. } => "limit",
    Self::Sandbox { .. } => "sandbox",
    Self::Database(_) => "database",
    Self::System(_) => "system",
} }

impl Failure {
    /// Advice for the operator.
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

labels! { all NotApplicable {
    LocalWorker => "local_worker",
    Empty => "empty",
} }

impl NotApplicable {
    /// A sentence.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::LocalWorker => "a local worker runs in the kernel's own process: there is nothing to replay it with",
            Self::Empty => "it has no delivery",
        }
    }
}
