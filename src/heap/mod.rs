//! What is in a heap snapshot: reading one, comparing two, finding things in them.
//!
//! An image is what the engine writes when a vat's worker saves its heap: every slot and chunk of memory, in an order that
//! depends on the graph of objects alone. Two images whose hashes differ can still be the same heap.
//!
//! 1. `container`, `slot`, `keys` and `code` are the format, [`Heap`] an image whose every reference was checked (`check`,
//!    `order`). `tables` is what the engine numbers.
//! 2. [`graph`] says what refers to what, [`naming`] what its author would call it.
//! 3. [`census`] counts, [`query`] looks at one object and at who keeps it, [`diff`] compares two images, and
//!    [`fingerprint`] is a second opinion on that, from one image alone.
//!
//! Images are untrusted: the engine's own reader checks nothing. No index, offset or length is used before it is checked;
//! nothing recurses on input; memory stays a small multiple of the image. Nothing here does I/O.

pub mod census;
mod check;
pub mod code;
mod container;
pub mod diff;
pub mod fingerprint;
pub mod graph;
mod keys;
pub mod naming;
mod order;
pub mod query;
mod slot;
mod tables;
pub mod text;

pub use check::{ChunkUse, Heap};
pub use container::{Atom, Creation, UNDERSTOOD, Version};
pub use keys::{Key, KeyId, Keys};
pub use slot::{Kind, Slot, SlotIndex, flags};
pub use tables::{CALLBACKS, OPCODES, ROOTS};

/// Why an image can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// It is something else.
    #[error("it is no XS heap snapshot: {0}")]
    NotASnapshot(String),
    /// Another engine wrote it.
    #[error("it was written by {found}; understood is {UNDERSTOOD}, so its numbers would be misread")]
    Version {
        /// What it says of its writer.
        found: String,
    },
    /// It says something that no engine writes.
    #[error("it is damaged, or no xsnap wrote it: {0}")]
    Damaged(String),
}

impl HeapError {
    fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}
