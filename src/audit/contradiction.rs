//! Contradictions: answers in the record that the record itself refutes, in words.
//!
//! Owns their kinds and sentences. It must never find one: the modules that follow the record do.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::transcript::Position;
use crate::visible;
use crate::words::excerpts;

/// Longer keys are shown in part.
const KEY_BYTES_MAX: usize = 300;

/// A kind of contradiction to the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContradictionKind {
    /// The response to a `vatstoreGet`.
    Value,
    /// The response to a `vatstoreGetNextKey`.
    NextKey,
    /// A response of a form that the kernel never gives to that syscall.
    Form,
    /// A key without its row in `kvStore`.
    RowMissing,
    /// A row in `kvStore` of a key that the vat does not have.
    RowExtra,
    /// A row in `kvStore` with another value.
    RowDiffers,
}

impl ContradictionKind {
    /// The kinds that a span by itself can have.
    pub const RESPONSES: [Self; 3] = [Self::Value, Self::NextKey, Self::Form];

    /// One word, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::NextKey => "next_key",
            Self::Form => "form",
            Self::RowMissing => "row_missing",
            Self::RowExtra => "row_extra",
            Self::RowDiffers => "row_differs",
        }
    }
}

/// One contradiction. All texts are safe to print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contradiction {
    /// The kind.
    pub kind: ContradictionKind,
    /// Position of the item with the response; of a row in `kvStore`, one past the last item that was followed.
    pub position: Position,
    /// Number of the syscall within the delivery, from 0; none for a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<usize>,
    /// The key that was asked for, or that the row has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The answer in the record, or the value of the row.
    pub recorded: String,
    /// The answer that the transcript implies.
    pub implied: String,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.label())?;
        if let Some(syscall) = self.syscall {
            write!(f, " (syscall {syscall})")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", key {key}")?;
        }
        write!(f, ": recorded {}, implied {}", self.recorded, self.implied)
    }
}

/// Some contradictions, and how many there are in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contradictions {
    /// The first of them, by position.
    pub kept: Vec<Contradiction>,
    /// The number of contradictions.
    pub total: u64,
    /// The number of each kind.
    counts: BTreeMap<ContradictionKind, u64>,
}

impl Contradictions {
    /// The most that are kept of one span, or of one vat's history.
    pub const KEPT_MAX: usize = 50;

    /// Whether there is one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Counts one and keeps it if it is among the first.
    pub fn add(&mut self, contradiction: Contradiction) {
        self.total += 1;
        *self.counts.entry(contradiction.kind).or_default() += 1;
        if self.kept.len() < Self::KEPT_MAX {
            self.kept.push(contradiction);
        }
    }

    /// Adds others behind these.
    pub fn append(&mut self, others: Self) {
        self.total += others.total;
        others.counts.into_iter().for_each(|(kind, count)| *self.counts.entry(kind).or_default() += count);
        let room = Self::KEPT_MAX.saturating_sub(self.kept.len());
        self.kept.extend(others.kept.into_iter().take(room));
    }

    /// The number of each kind that was found.
    pub fn kinds(&self) -> impl Iterator<Item = (ContradictionKind, u64)> {
        self.counts.iter().map(|(kind, count)| (*kind, *count))
    }
}

/// A key in quotes: quotes, backslashes, hidden characters and bytes that are not UTF-8 are escaped, so that no two keys look alike.
pub(super) fn shown(key: &[u8]) -> String {
    let mut quoted = Vec::with_capacity(key.len() + 2);
    for byte in key {
        quoted.extend((matches!(byte, b'"' | b'\\')).then_some(b'\\'));
        quoted.push(*byte);
    }
    let text = format!("\"{}\"", visible::of_bytes(&quoted));
    match text.len() > KEY_BYTES_MAX {
        true => format!("{}… ({} bytes)", &text[..text.floor_char_boundary(KEY_BYTES_MAX)], text.len()),
        false => text,
    }
}

/// A response's JSON text, cut and safe to print.
pub(super) fn shown_response(text: &str) -> String {
    let (cut, _) = excerpts(Some(text), None);
    visible::visible(&cut.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_to_print() {
        assert_eq!(shown("vc.5.sé\u{1b}[2J\n\"".as_bytes()), r#""vc.5.sé\u{1b}[2J\n\"""#);
        assert_eq!(shown(b"lone \xed\xa0\xbd"), r#""lone \xed\xa0\xbd""#);
        assert_eq!(shown("\u{202e}".as_bytes()), r#""\u{202e}""#);
        assert!(shown(&vec![b'x'; 10_000]).len() < 400);
    }
}
