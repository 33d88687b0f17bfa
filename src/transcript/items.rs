//! The texts of a span's items, in one allocation.

use super::{Hash256, SpanHasher};

/// The items of one span in order, each the text that the kernel wrote.
#[derive(Debug, Default, Clone)]
pub struct Items {
    text: Vec<u8>,
    ends: Vec<usize>,
    hasher: SpanHasher,
}

impl Items {
    /// No more text than this is held for one span. An item of 1.5 MB is a large one.
    pub const BYTES_MAX: u64 = 512 << 20;

    /// Appends the next item.
    pub fn push(&mut self, item: &[u8]) {
        self.text.extend_from_slice(item);
        self.ends.push(self.text.len());
        self.hasher.add(item);
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The span hash of these items.
    #[must_use]
    pub fn hash(&self) -> Hash256 {
        self.hasher.finish()
    }

    /// The texts, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_went_in() {
        let mut items = Items::default();
        for text in ["one", "", "three"] {
            items.push(text.as_bytes());
        }
        assert_eq!(items.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert_eq!((items.len(), items.is_empty()), (3, false));
    }
}
