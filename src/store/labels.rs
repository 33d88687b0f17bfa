//! Labels in the store, typed: a closed set of values, or the label of a value that only a later version knows.

use serde::{Serialize, Serializer};

use super::SpanSource;
use crate::span::BaseKind;
use crate::verdict::{FindingKind, VerdictKind};

/// A closed set of values that the store writes as labels.
pub(crate) trait Labelled: Copy + PartialEq {
    /// The label of a value.
    fn label(self) -> &'static str;
    /// The value with a label.
    fn of_label(label: &str) -> Option<Self>;
}

/// A value that was read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored<T> {
    /// A value of the set.
    Known(T),
    /// The label of a value that another version of spanwatch wrote.
    Unknown(String),
}

impl<T: Labelled> Stored<T> {
    /// The value with a label.
    pub(super) fn read(label: &str) -> Self {
        T::of_label(label).map_or_else(|| Self::Unknown(label.to_owned()), Self::Known)
    }

    /// The label, as it is in the store.
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Known(value) => value.label(),
            Self::Unknown(label) => label,
        }
    }

    /// Whether it is this value.
    pub(crate) fn is(&self, value: T) -> bool {
        *self == Self::Known(value)
    }
}

impl<T: Labelled> Serialize for Stored<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

/// The state of a row in the list of verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowState {
    /// A span without a verdict yet.
    Pending,
    /// A row of the node's database that is not what it was.
    Changed,
    /// A span with a verdict of this kind.
    Judged(VerdictKind),
}

impl Labelled for RowState {
    fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Changed => "changed",
            Self::Judged(kind) => kind.label(),
        }
    }

    fn of_label(label: &str) -> Option<Self> {
        match label {
            "pending" => Some(Self::Pending),
            "changed" => Some(Self::Changed),
            _ => VerdictKind::of_label(label).map(Self::Judged),
        }
    }
}

/// The source of a row in the list of verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowSource {
    /// A span.
    Span(SpanSource),
    /// An alarm about rows of the node's database.
    Rows,
}

impl Labelled for RowSource {
    fn label(self) -> &'static str {
        match self {
            Self::Span(source) => source.label(),
            Self::Rows => "rows",
        }
    }

    fn of_label(label: &str) -> Option<Self> {
        if label == "rows" { Some(Self::Rows) } else { SpanSource::of_label(label).map(Self::Span) }
    }
}

impl Labelled for FindingKind {
    fn label(self) -> &'static str {
        self.label()
    }

    fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

impl Labelled for BaseKind {
    fn label(self) -> &'static str {
        self.label()
    }

    fn of_label(label: &str) -> Option<Self> {
        let all = [Self::Blank, Self::Recorded, Self::Captured, Self::Chained, Self::Missing, Self::Evidence];
        all.into_iter().find(|kind| kind.label() == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_another_version_is_kept_as_it_is() {
        let later: Stored<RowState> = Stored::read("doubted");
        assert_eq!((&later, later.label()), (&Stored::Unknown("doubted".to_owned()), "doubted"));
        assert_eq!(serde_json::to_value(&later).expect("JSON"), "doubted");
        assert!(Stored::<RowState>::read("diverged").is(RowState::Judged(VerdictKind::Diverged)));
        assert!(Stored::<RowSource>::read("history").is(RowSource::Span(SpanSource::History)));
        assert!(Stored::<BaseKind>::read("chained").is(BaseKind::Chained));
        assert!(Stored::<FindingKind>::read("computrons").is(FindingKind::Computrons));
    }
}
