//! The content of an object as one number, by which it is recognized in the other heap before it is compared.
//!
//! Looks two references deep and at no more than the first few slots of each object, so it costs the same for every object.
//! Equal numbers are a hint that never decides anything: what was recognized is compared all the same.

use crate::heap::graph::Class;
use crate::heap::slot::{Kind, Slot, SlotIndex};
use crate::heap::{Heap, KeyId};

/// No more slots of an object are looked at.
const SLOTS_MAX: usize = 24;
/// No more items of an array or a collection are looked at.
const ITEMS_MAX: usize = 8;
/// The bytes of a text that count, at its start and at its end.
const TEXT_MAX: usize = 64;

/// The numbers of a heap's objects, as far as somebody asked for them.
#[derive(Debug)]
pub(super) struct Contents {
    shallow: Vec<u64>,
    deep: Vec<u64>,
}

impl Contents {
    pub(super) fn new(heap: &Heap) -> Self {
        let nodes = heap.slot_count() as usize + 1;
        Self { shallow: vec![0; nodes], deep: vec![0; nodes] }
    }

    /// The number of a node. `keys` gives keys of both heaps the same number.
    pub(super) fn of(&mut self, heap: &Heap, keys: &[u32], node: SlotIndex) -> u64 {
        if let Some(known) = self.deep.get(node as usize).filter(|known| **known != 0) {
            return *known;
        }
        let number = number(heap, keys, node, &mut |target| self.shallow(heap, keys, target));
        if let Some(place) = self.deep.get_mut(node as usize) {
            *place = number;
        }
        number
    }

    fn shallow(&mut self, heap: &Heap, keys: &[u32], node: SlotIndex) -> u64 {
        if let Some(known) = self.shallow.get(node as usize).filter(|known| **known != 0) {
            return *known;
        }
        let number = number(heap, keys, node, &mut |target| match heap.slot(target).kind {
            Kind::Instance => class_number(heap.class(target)),
            kind => kind as u64,
        });
        if let Some(place) = self.shallow.get_mut(node as usize) {
            *place = number;
        }
        number
    }
}

/// Mixes a number into another.
pub(super) fn mix(so_far: u64, with: u64) -> u64 {
    (so_far.rotate_left(5) ^ with).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

pub(super) fn mix_bytes(so_far: u64, bytes: &[u8]) -> u64 {
    let (head, rest) = bytes.split_at(bytes.len().min(TEXT_MAX));
    let tail = rest.get(rest.len().saturating_sub(TEXT_MAX)..).unwrap_or_default();
    let mut so_far = mix(so_far, bytes.len() as u64);
    for part in [head, tail] {
        let (words, rest) = part.as_chunks::<8>();
        so_far = words.iter().fold(so_far, |so_far, word| mix(so_far, u64::from_le_bytes(*word)));
        so_far = rest.iter().fold(so_far, |so_far, byte| mix(so_far, u64::from(*byte)));
    }
    so_far
}

fn class_number(class: Class) -> u64 {
    match class {
        Class::Object => 1,
        Class::Scope => 2,
        Class::Function => 3,
        Class::HostFunction => 4,
        Class::Other(kind) => 100 + kind as u64,
    }
}

fn key_number(keys: &[u32], id: KeyId) -> u64 {
    keys.get(id as usize).map_or(0, |key| u64::from(*key) + 1)
}

/// The number of a value; references are what `target` says.
pub(super) fn value(heap: &Heap, keys: &[u32], slot: Slot, target: &mut impl FnMut(SlotIndex) -> u64) -> u64 {
    match slot.kind {
        // The same number is the same in both forms.
        Kind::Integer => mix(4, f64::from(slot.integer()).to_bits()),
        Kind::Number => mix(4, slot.low),
        Kind::String | Kind::Key => mix_bytes(5, heap.text(slot.first())),
        Kind::BigInt => mix_bytes(8 + (slot.high >> 16), heap.magnitude(slot)),
        Kind::Symbol => mix(7, key_number(keys, slot.first())),
        Kind::Reference | Kind::Closure if slot.first() != 0 => mix(10, target(slot.first())),
        Kind::Boolean | Kind::Callback | Kind::Date | Kind::DataView | Kind::BufferInfo | Kind::Promise => {
            mix(slot.kind as u64, slot.low)
        }
        Kind::Code => mix(19, heap.chunk(slot.first()).len() as u64 + (key_number(keys, slot.id) << 32)),
        Kind::ArrayBuffer | Kind::RegExp => mix(17, heap.chunk(slot.first()).len() as u64),
        _ => mix(1, slot.kind as u64),
    }
}

fn number(heap: &Heap, keys: &[u32], node: SlotIndex, target: &mut impl FnMut(SlotIndex) -> u64) -> u64 {
    let own = heap.slot(node);
    if own.kind != Kind::Instance {
        return value(heap, keys, own, target) | 1;
    }
    let mut number = class_number(heap.class(node));
    let mut before = Kind::Uninitialized;
    for (_, slot) in heap.own(node).filter(|(_, slot)| slot.kind != Kind::WeakEntry).take(SLOTS_MAX) {
        let key = if slot.is_internal() { 0 } else { key_number(keys, slot.id) };
        number = mix(number, key);
        match slot.kind {
            Kind::Array | Kind::ArgumentsSloppy | Kind::ArgumentsStrict => {
                number = mix(number, slot.high);
                for item in heap.items(slot.first()).take(ITEMS_MAX) {
                    number = mix(number, value(heap, keys, item, target));
                }
            }
            Kind::List if matches!(before, Kind::Map | Kind::Set) => {
                for (_, entry) in heap.chain(slot.first()).take(ITEMS_MAX) {
                    number = mix(number, value(heap, keys, entry, target));
                }
            }
            _ => number = mix(number, value(heap, keys, slot, target)),
        }
        before = slot.kind;
    }
    // 0 marks an object whose number was not asked for.
    number | 1
}
