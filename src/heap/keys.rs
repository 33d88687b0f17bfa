//! Keys: the names of properties and variables, and symbols.
//!
//! Owns the place of their table. Their numbers are in the order in which a worker came to know them, which is history: it must
//! never compare two of them by number.

use super::container::Container;

/// The number of a key in its heap.
pub type KeyId = u32;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// A string.
    Name(&'a [u8]),
    /// `Symbol.for(text)`.
    Registered(&'a [u8]),
    /// `Symbol(text)`, equal to none but itself.
    Unique(&'a [u8]),
    /// `Symbol()`.
    Nameless,
    /// No key: the number is beyond the table.
    None,
}

/// The number of keys, and the place of their table.
#[derive(Debug, Clone)]
pub struct Keys {
    at: usize,
    count: u32,
}

impl Keys {
    pub(super) fn new(container: &Container) -> Self {
        let count = u32::try_from(container.keys.len() / 8).unwrap_or(0);
        Self { at: container.keys.start, count }
    }

    /// The number of keys.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The place of a key's reference in the table; `None` beyond the table.
    pub(super) fn row(&self, id: KeyId) -> Option<usize> {
        (id < self.count).then(|| self.at + id as usize * 8)
    }
}
