//! Transcripts of vats: spans, their items, and the hash that proves a copy of them.
//!
//! Owns the shapes of an item's JSON text (`{"d":delivery,"sc":[{"s":syscall,"r":response}],"r":result}`, written by
//! `swingset-vat/src/kernel/vat-warehouse.js`), the span hash (`swing-store/src/transcriptStore.js`) and the canonical equality of syscalls. It
//! does no I/O and must never print an item's text again from parsed values: the text for the worker is sliced verbatim out of the item.

pub mod canonical;
mod hash;
mod item;
mod items;

pub use hash::{Hash256, SpanHasher, sha256};
pub use item::{DeliveryKind, Item, ItemError, ItemResult, RealDelivery, Syscall};
pub use items::{Items, ItemsError};

use std::fmt;
use std::sync::Arc;

/// A vat's identifier, `v` and a decimal number. A copy shares the text: there are as many as there are spans.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VatId(Arc<str>);

impl VatId {
    /// Takes the text of a `vatID` column as it is.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// Takes only what a kernel makes. It ends up in a worker's arguments and in what it is told, so nothing else will do.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('v')?;
        let is_number = (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Self::new(text))
    }

    /// The text, as it stands in the database.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Shares the text of another where it is the same.
    pub(crate) fn share(&mut self, other: &Self) {
        if self == other {
            self.0 = Arc::clone(&other.0);
        }
    }

    /// Sorts by number where there is one, so that `v9` comes before `v10`.
    fn order(&self) -> (u64, &str) {
        let number = self.0.strip_prefix('v').and_then(|digits| digits.parse().ok());
        (number.unwrap_or(u64::MAX), &self.0)
    }
}

impl PartialOrd for VatId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for VatId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl fmt::Display for VatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The number of an item in its vat's transcript; it goes on across incarnations.
pub type Position = u64;

/// Which span: the vat and the half-open range of positions `[start, end)`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId {
    /// The vat whose transcript it is a part of.
    pub vat: VatId,
    /// Position of the first item.
    pub start: Position,
    /// One past the position of the last item.
    pub end: Position,
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}, {})", self.vat, self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernels_ids_are_taken() {
        assert_eq!(VatId::parse("v12"), Some(VatId::new("v12")));
        for text in ["", "v", "12", "v1\"", "-v1", "v1\0", "v1111111111111111111"] {
            assert_eq!(VatId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn vats_sort_by_number() {
        let mut vats: Vec<VatId> = ["v10", "v9", "odd", "v1"].map(VatId::new).to_vec();
        vats.sort();
        let order: Vec<&str> = vats.iter().map(VatId::as_str).collect();
        assert_eq!(order, ["v1", "v9", "v10", "odd"]);
    }
}
