//! The texts of a span's items, in one allocation.
//!
//! Owns the limit on their bytes. It must never look into a text.

use super::{Hash256, SpanHasher};

/// Why a text has no items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemsError {
    /// The last line does not end.
    #[error("its last line is cut")]
    Cut,
    /// More than a replay may hold.
    #[error(
        "it holds more than {} bytes, of which each item counts for {} beside its text",
        Items::BYTES_MAX,
        Items::BYTES_EACH
    )]
    TooLarge,
}

/// The items of one span in order, each the text that the kernel wrote.
#[derive(Debug, Default, Clone)]
pub struct Items {
    text: Vec<u8>,
    ends: Vec<usize>,
    /// What stands between two items in the text: nothing, or a line break.
    between: &'static [u8],
    hasher: SpanHasher,
}

impl Items {
    /// No more text than this is held for one span. An item of 1.5 MB is a large one.
    pub const BYTES_MAX: u64 = 512 << 20;
    /// What an item counts for beside its text, so that a limit of bytes is one of items too.
    pub(crate) const BYTES_EACH: u64 = 16;

    /// The items that a text has, one a line, without copying it.
    ///
    /// # Errors
    /// When the last line does not end, or text and items together are more than [`Self::BYTES_MAX`].
    pub fn from_lines(text: Vec<u8>) -> Result<Self, ItemsError> {
        if text.last().is_some_and(|last| *last != b'\n') {
            return Err(ItemsError::Cut);
        }
        let count = text.iter().filter(|byte| **byte == b'\n').count();
        if count as u64 * Self::BYTES_EACH + text.len() as u64 > Self::BYTES_MAX {
            return Err(ItemsError::TooLarge);
        }
        let mut items = Self { between: b"\n", ends: Vec::with_capacity(count), ..Self::default() };
        let mut end = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let item = line.strip_suffix(b"\n").unwrap_or(line);
            items.ends.push(end + item.len());
            items.hasher.add(item);
            end += line.len();
        }
        items.text = text;
        Ok(items)
    }

    /// Appends the next item.
    pub fn push(&mut self, item: &[u8]) {
        self.text.extend_from_slice(item);
        self.ends.push(self.text.len());
        self.text.extend_from_slice(self.between);
        self.hasher.add(item);
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no item.
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
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| end + self.between.len()));
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

    #[test]
    fn lines_are_items() {
        let mut pushed = Items::default();
        for text in ["one", "", "three"] {
            pushed.push(text.as_bytes());
        }
        let mut items = Items::from_lines(b"one\n\n".to_vec()).expect("lines");
        items.push(b"three");
        assert_eq!(items.iter().collect::<Vec<_>>(), pushed.iter().collect::<Vec<_>>());
        assert_eq!((items.hash(), items.len()), (pushed.hash(), 3));
        assert!(Items::from_lines(Vec::new()).expect("no lines").is_empty());
        assert_eq!(Items::from_lines(b"one\ntwo".to_vec()).expect_err("cut"), ItemsError::Cut);
    }

    /// Each empty line would take more memory than its text.
    #[test]
    fn a_limit_of_bytes_is_one_of_items_too() {
        let lines = usize::try_from(Items::BYTES_MAX / (Items::BYTES_EACH + 1)).expect("in memory");
        assert_eq!(Items::from_lines(vec![b'\n'; lines + 1]).expect_err("too many"), ItemsError::TooLarge);
    }
}
