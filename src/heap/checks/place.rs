//! The place of a slot: in the heap, on the stack, or in a chunk.
//!
//! Owns the words for it. It must never look at the slot.

use crate::heap::slot::SlotIndex;
use crate::heap::tables::ROOTS;

/// The place of a slot, which decides the meaning of its `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Heap(SlotIndex),
    Root(usize),
    /// An item of an array without holes, where the order tells the index.
    Element,
    /// An item of an array with holes, with the index that it must at least have.
    Item(u32),
    Saved,
}

impl std::fmt::Display for Place {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Heap(index) => write!(to, "slot {index}"),
            Self::Root(root) => write!(to, "root {root} ({})", ROOTS.get(*root).unwrap_or(&"")),
            Self::Element => write!(to, "an array's item"),
            Self::Item(least) => write!(to, "an array's item (at index {least} or later)"),
            Self::Saved => write!(to, "a slot of a suspended stack"),
        }
    }
}
