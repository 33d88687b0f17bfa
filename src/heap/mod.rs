//! Heap snapshots: reading one, comparing two, finding objects in them.
//!
//! An image is what the engine writes when a vat's worker saves its heap: every slot and chunk of memory, in an order that
//! depends on the graph of objects alone. Two images whose hashes differ can still be the same heap.
//!
//! 1. `container`, `slot`, `keys` and `code` are the format; `tables` is what the engine numbers. `model` has the type [`Heap`],
//!    and `checks` the only way to one: an image whose every reference was checked.
//! 2. `graph` says what refers to what, [`naming`] what its author would call it.
//! 3. [`census`] counts, [`query`] looks at one object and at who keeps it, [`diff`] compares two images, and
//!    [`fingerprint`] is a second opinion on that, from one image alone.
//!
//! Images are untrusted: the engine's own reader checks nothing. No index, offset or length is used before it is checked;
//! nothing recurses on input; memory stays a small multiple of the image. Nothing here does I/O.

pub mod census;
mod checks;
pub(crate) mod code;
mod container;
pub mod diff;
mod error;
pub mod fingerprint;
pub(crate) mod graph;
mod keys;
mod model;
pub mod naming;
pub mod query;
mod slot;
mod tables;
pub(crate) mod text;

pub use container::{Atom, Creation, UNDERSTOOD, Version};
pub use error::HeapError;
pub use keys::{Key, KeyId, Keys};
pub use model::{ChunkUse, Heap};
pub use slot::{Kind, Slot, SlotIndex, flags};
pub use tables::{CALLBACKS, OPCODES, ROOTS};
