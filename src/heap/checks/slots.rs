//! The check of slots, in the order in which the engine writes their chunks.
//!
//! Owns the walk over all slots: on the stack, in the heap, and in chunks of items. It must never recurse: no item has items.

use super::chunks::Chunks;
use super::fault::SlotFault;
use super::fields::{Field, fields};
use super::place::Place;
use crate::heap::error::HeapError;
use crate::heap::model::Heap;
use crate::heap::slot::{self, Kind, SLOT_BYTES, Slot, flags};

impl Heap {
    /// Checks each slot in the order in which chunks are written, and the chunks with them.
    pub(super) fn check_slots(&mut self) -> Result<(), HeapError> {
        let area = self.container.blocks.len();
        let mut chunks = Chunks::new(area);
        for root in 0..self.root_count() {
            let at = self.container.stack.end - (root + 1) * SLOT_BYTES;
            self.check_slot(at, Place::Root(root), &mut chunks)?;
        }
        for index in 0..self.slot_count {
            let at = self.container.heap.start + index as usize * SLOT_BYTES;
            self.check_slot(at, Place::Heap(index + 1), &mut chunks)?;
        }
        if chunks.next != area {
            let left = area.saturating_sub(chunks.next);
            return Err(HeapError::damaged(format!("no slot uses the last {left} bytes of its atom BLOC")));
        }
        self.chunks = chunks.found;
        Ok(())
    }

    fn check_slot(&self, at: usize, place: Place, chunks: &mut Chunks) -> Result<(), HeapError> {
        let Some((start, end, mut place)) = self.check_one(at, place, chunks)? else { return Ok(()) };
        for at in (start..end).step_by(SLOT_BYTES) {
            // No item has items, so nothing nests.
            self.check_one(at, place, chunks)?;
            if let Place::Item(least) = &mut place {
                *least = self.item_at(u32::try_from(at).unwrap_or(0)).next.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Checks a slot and the chunks that it is the first to use; the items that are to be checked next.
    fn check_one(
        &self,
        at: usize,
        place: Place,
        chunks: &mut Chunks,
    ) -> Result<Option<(usize, usize, Place)>, HeapError> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<SLOT_BYTES>());
        let Some(bytes) = bytes else { return Err(HeapError::damaged(format!("{place} is beyond its end"))) };
        let Some((next, dummy, slot)) = slot::raw(bytes) else {
            let kind = bytes[8].cast_signed();
            return Err(HeapError::damaged(format!("{place} is of kind {kind}, which no image has")));
        };
        let fault = |fault: SlotFault| HeapError::damaged(format!("{place} ({}): {fault}", slot.kind.label()));
        self.check_head(next, dummy, slot, place).map_err(fault)?;
        let (first, second) = fields(slot.kind);
        for (field, value) in [(&first, slot.low), (&second, slot.high)] {
            self.check_field(field, value).map_err(fault)?;
        }
        for (field, value, is_second) in [(first, slot.low, false), (second, slot.high, true)] {
            if matches!(field, Field::Chunk | Field::MaybeChunk) && value != 0 {
                // Checked above to be within the atom.
                let offset = u32::try_from(value).unwrap_or(0);
                let items = self.check_chunk(slot, is_second, offset, chunks).map_err(fault)?;
                if items.is_some() {
                    return Ok(items);
                }
            }
        }
        Ok(None)
    }

    /// Checks what every slot has: the next one, its bits and its key; and that its kind may stand where it does.
    fn check_head(&self, next: u64, dummy: u16, slot: Slot, place: Place) -> Result<(), SlotFault> {
        let is_next_right = match place {
            Place::Heap(_) => next <= u64::from(self.slot_count),
            Place::Root(_) | Place::Saved => next == 0,
            Place::Element => next < u64::from(u32::MAX),
            Place::Item(least) => next >= u64::from(least) && next < u64::from(u32::MAX),
        };
        if !is_next_right {
            return Err(SlotFault::Next(next));
        }
        if slot.flag & flags::MARK != 0 || dummy != 0 {
            return Err(SlotFault::Bits);
        }
        let count = self.keys().count();
        let may_have_any_id = slot.kind == Kind::Home;
        if !may_have_any_id && slot.id >= count {
            return Err(SlotFault::Key { key: slot.id, count });
        }
        if slot.kind == Kind::Symbol && slot.low >= u64::from(count) {
            return Err(SlotFault::Symbol { symbol: slot.low, count });
        }
        let is_item = matches!(place, Place::Element | Place::Item(_) | Place::Saved);
        let has_items = matches!(slot.kind, Kind::Array | Kind::ArgumentsSloppy | Kind::ArgumentsStrict | Kind::Stack);
        if is_item && (slot.kind == Kind::Instance || has_items) {
            return Err(SlotFault::NotAValue);
        }
        Ok(())
    }
}
