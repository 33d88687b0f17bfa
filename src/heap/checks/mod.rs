//! Reading an image: a [`Heap`] whose every reference was checked.
//!
//! | what is checked | where |
//! |---|---|
//! | atoms, versions, sizes | [`super::container`] |
//! | each slot: its kind, no bits where there is no field | `slots` |
//! | what a slot refers to is there and of the right kind | `fields` |
//! | chunks lie side by side, in the order in which slots need them, each used, and only texts and big integers by several slots | `chunks` |
//! | the content of a chunk: texts end, items count up, code can be walked, tables fit | `content` |
//! | no slot is in two chains, so every chain ends | `chains` |
//! | a weak collection and its keys say the same | `weak` |
//! | keys are where their hash says | `keys` |
//! | slots are in the order of a walk from the roots, and each is reached | `order` |
//!
//! Owns the only way from bytes to a [`Heap`]. It must never give one of which a check was left out, and nothing here recurses on input.

mod chains;
mod chunks;
mod content;
mod fault;
mod fields;
mod keys;
mod order;
mod place;
mod slots;
mod weak;

use super::container::Container;
use super::error::HeapError;
use super::model::Heap;
use super::slot::SLOT_BYTES;

impl Heap {
    /// Reads an image. Costs time and memory in proportion to its size.
    ///
    /// # Errors
    /// When the bytes are no image, another version wrote them, or anything in them is not as the engine writes it.
    pub fn read(bytes: Vec<u8>) -> Result<Self, HeapError> {
        let container = Container::read(&bytes)?;
        let slot_count = u32::try_from(container.heap.len() / SLOT_BYTES)
            .map_err(|_| HeapError::damaged("it has more slots than an engine can number"))?;
        if bytes.len() as u64 > crate::record::image::IMAGE_BYTES_MAX {
            return Err(HeapError::damaged("it is larger than an engine's heap can be"));
        }
        let mut heap = Self::unchecked(bytes, container, slot_count);
        heap.check_slots()?;
        heap.check_chains()?;
        heap.check_weak()?;
        heap.check_keys()?;
        order::check(&heap)?;
        Ok(heap)
    }
}
