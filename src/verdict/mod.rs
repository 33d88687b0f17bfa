//! The outcomes of a span: closed enums, and the one place where they become words.
//!
//! A divergence is what a healthy worker did otherwise than recorded. It is never mixed with what could not be checked
//! ([`Unverifiable`]: the record is incomplete or damaged) nor with trouble on our side ([`Failure`]).

mod divergence;
mod exit;
mod failure;
mod finding;
mod labels;
mod trace_kind;
mod unverifiable;

use std::fmt;

use serde::Serialize;

pub use divergence::{Divergence, HeapAnswer, HeapLikeness, Repeat, RepeatKind, RepeatOutcome};
pub use exit::{WorkerExit, signal_name};
pub use failure::{Failure, NotApplicable};
pub use finding::{Finding, FindingClass, FindingKind, SyscallNames};
pub use trace_kind::TraceKind;
pub use unverifiable::Unverifiable;

use crate::transcript::Position;
use labels::labels;

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
    /// The span could have been replayed, but something on our side went wrong.
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

    /// The end of the part that could be seen, if that is not the whole span.
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

labels! { all VerdictKind {
    Verified => "verified",
    Partial => "partial",
    Diverged => "diverged",
    Contradicted => "contradicted",
    Unverifiable => "unverifiable",
    Failed => "failed",
    NotApplicable => "not_applicable",
} }

impl VerdictKind {
    /// The kind with a label; `None` if no kind has it.
    #[must_use]
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

/// The part of a span that could be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Partial {
    /// One past the last position that was replayed and compared.
    pub seen_to: Position,
    /// The end of the span.
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
