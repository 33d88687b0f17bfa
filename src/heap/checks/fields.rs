//! The fields of a slot's value: what each kind has, and whether it refers to something that is there.
//!
//! Owns the table of kinds and fields. It must never follow a reference further than to the slot that it names.

use super::fault::SlotFault;
use crate::heap::model::Heap;
use crate::heap::slot::Kind;
use crate::heap::tables::CALLBACKS;

/// As many typed arrays there are.
const TYPED_ARRAYS: u64 = 11;

/// A field of a kind's value.
pub(super) enum Field {
    None,
    /// Four bytes.
    Half,
    /// Eight bytes of anything.
    Whole,
    /// An object.
    Instance,
    /// Nothing, or an object.
    MaybeInstance,
    /// Nothing, or any slot.
    MaybeSlot,
    /// The offset of a chunk.
    Chunk,
    /// Nothing, or the offset of a chunk.
    MaybeChunk,
    /// At most this.
    UpTo(u64),
}

/// The fields of a kind: the first and the second eight bytes of its value.
pub(super) fn fields(kind: Kind) -> (Field, Field) {
    use Field::{Chunk, Half, Instance, MaybeChunk, MaybeInstance, MaybeSlot, None, UpTo, Whole};
    match kind {
        Kind::Uninitialized | Kind::Undefined | Kind::Null | Kind::Frame | Kind::CodeX | Kind::Var => (None, None),
        Kind::Boolean => (UpTo(1), None),
        Kind::Integer | Kind::Symbol => (Half, None),
        Kind::Promise => (UpTo(3), None),
        Kind::Number | Kind::Date | Kind::DataView | Kind::At | Kind::BufferInfo => (Whole, None),
        Kind::String => (Chunk, None),
        Kind::BigInt => (Chunk, UpTo(0x1_ffff)),
        Kind::Reference => (Instance, None),
        Kind::Closure => (MaybeSlot, None),
        Kind::Instance => (None, MaybeInstance),
        Kind::ArgumentsSloppy | Kind::ArgumentsStrict | Kind::Array | Kind::Stack => (MaybeChunk, Half),
        Kind::ArrayBuffer | Kind::Host => (MaybeChunk, None),
        Kind::Callback => (UpTo(CALLBACKS.len() as u64 - 1), None),
        Kind::Code => (Chunk, MaybeInstance),
        Kind::FinalizationCell => (MaybeInstance, MaybeInstance),
        Kind::FinalizationRegistry => (MaybeSlot, Half),
        Kind::Global | Kind::Map | Kind::Set => (Chunk, Half),
        Kind::Module | Kind::Program | Kind::ModuleSource => (MaybeInstance, Half),
        Kind::Proxy | Kind::Accessor | Kind::Home => (MaybeInstance, MaybeInstance),
        Kind::RegExp => (MaybeChunk, MaybeChunk),
        Kind::TypedArray => (UpTo(TYPED_ARRAYS - 1), UpTo(TYPED_ARRAYS - 1)),
        Kind::WeakMap | Kind::WeakSet => (MaybeSlot, None),
        Kind::WeakRef => (MaybeInstance, None),
        Kind::Error => (MaybeInstance, Half),
        Kind::Key => (MaybeChunk, Half),
        Kind::List => (MaybeSlot, MaybeSlot),
        Kind::Private => (MaybeInstance, MaybeSlot),
        Kind::Export => (MaybeSlot, MaybeInstance),
        Kind::WeakEntry => (MaybeSlot, MaybeSlot),
    }
}

impl Heap {
    /// Checks one field.
    pub(super) fn check_field(&self, field: &Field, value: u64) -> Result<(), SlotFault> {
        let slot_max = u64::from(self.slot_count);
        let is_instance = |value: u64| {
            u32::try_from(value).is_ok_and(|index| self.slot(index).kind == Kind::Instance)
                && value <= slot_max
                && value > 0
        };
        let is_right = match field {
            Field::None => value == 0,
            Field::Half => value <= u64::from(u32::MAX),
            Field::Whole => true,
            Field::UpTo(max) => value <= *max,
            Field::Instance => is_instance(value),
            Field::MaybeInstance => value == 0 || is_instance(value),
            Field::MaybeSlot => value <= slot_max,
            Field::Chunk => value != 0 && value < self.container.blocks.len() as u64,
            Field::MaybeChunk => value < self.container.blocks.len() as u64,
        };
        if is_right {
            return Ok(());
        }
        Err(match field {
            Field::Instance | Field::MaybeInstance => SlotFault::NoObject(value),
            Field::MaybeSlot => SlotFault::NoSlot { slot: value, count: slot_max },
            Field::Chunk | Field::MaybeChunk => SlotFault::NoChunk(value),
            _ => SlotFault::OutOfRange(value),
        })
    }
}
