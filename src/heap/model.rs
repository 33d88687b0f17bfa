//! A heap: the bytes of an image, and what can be asked of them.
//!
//! Owns the bytes and every look into them. Only `checks` makes a heap, after which a reference can be followed without another
//! thought; should one be wrong all the same, nothing is read beyond the image and nothing panics.

use serde::Serialize;

use super::container::{Atom, Container, Creation, Version};
use super::keys::{Key, KeyId, Keys};
use super::slot::{self, Kind, SLOT_BYTES, Slot, SlotIndex, flags};

/// The bytes before the content of a chunk.
pub(super) const CHUNK_HEAD: usize = 16;

/// The use of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ChunkUse {
    String,
    Key,
    BigInt,
    Items,
    Stack,
    Buffer,
    Code,
    RegExpCode,
    RegExpData,
    Table,
    Host,
}

impl ChunkUse {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::String,
        Self::Key,
        Self::BigInt,
        Self::Items,
        Self::Stack,
        Self::Buffer,
        Self::Code,
        Self::RegExpCode,
        Self::RegExpData,
        Self::Table,
        Self::Host,
    ];

    /// Its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Key => "key",
            Self::BigInt => "bigint",
            Self::Items => "items",
            Self::Stack => "stack",
            Self::Buffer => "buffer",
            Self::Code => "code",
            Self::RegExpCode => "regexp_code",
            Self::RegExpData => "regexp_data",
            Self::Table => "table",
            Self::Host => "host",
        }
    }
}

/// A heap that was read from an image.
#[derive(Debug)]
pub struct Heap {
    pub(super) bytes: Vec<u8>,
    pub(super) container: Container,
    keys: Keys,
    pub(super) slot_count: u32,
    /// The number of chunks of each use, and their bytes with their heads.
    pub(super) chunks: [(u64, u64); ChunkUse::ALL.len()],
}

impl Heap {
    /// The heap of an image whose container was read, and of which nothing else was checked.
    pub(super) fn unchecked(bytes: Vec<u8>, container: Container, slot_count: u32) -> Self {
        let keys = Keys::new(&container);
        Self { bytes, container, keys, slot_count, chunks: Default::default() }
    }

    /// The engine that wrote it.
    #[must_use]
    pub fn version(&self) -> Version {
        self.container.version
    }

    /// The engine's counters.
    #[must_use]
    pub fn creation(&self) -> &Creation {
        &self.container.creation
    }

    /// The parts of the file.
    #[must_use]
    pub fn atoms(&self) -> &[Atom] {
        &self.container.atoms
    }

    /// The image.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of slots; they are numbered from 1.
    #[must_use]
    pub fn slot_count(&self) -> u32 {
        self.slot_count
    }

    /// The number of chunks of this use, and their bytes with their heads.
    #[must_use]
    pub fn chunks(&self, of: ChunkUse) -> (u64, u64) {
        self.chunks[of as usize]
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The key of a number.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Key<'_> {
        let Some(row) = self.keys().row(id) else { return Key::None };
        let slot = self.slot(self.reference_at(row));
        match slot.kind {
            Kind::Key if slot.flag & flags::NAME != 0 => Key::Name(self.text(slot.first())),
            Kind::Key => Key::Registered(self.text(slot.first())),
            Kind::String => Key::Unique(self.text(slot.first())),
            _ => Key::Nameless,
        }
    }

    /// The slot of a key, 0 for `Symbol()`.
    pub(super) fn key_slot(&self, id: KeyId) -> SlotIndex {
        self.keys().row(id).map_or(0, |row| self.reference_at(row))
    }

    /// A slot; [`Slot::NONE`] for 0.
    #[must_use]
    pub fn slot(&self, index: SlotIndex) -> Slot {
        match (index as usize).checked_sub(1) {
            Some(before) => self.slot_in(self.container.heap.start + before * SLOT_BYTES, self.container.heap.end),
            None => Slot::NONE,
        }
    }

    /// The number of roots.
    #[must_use]
    pub fn root_count(&self) -> usize {
        self.container.stack.len() / SLOT_BYTES
    }

    /// A root, by its number in [`super::ROOTS`].
    #[must_use]
    pub fn root(&self, number: usize) -> Slot {
        match self.container.stack.end.checked_sub((number + 1) * SLOT_BYTES) {
            Some(at) if at >= self.container.stack.start => self.slot_in(at, self.container.stack.end),
            _ => Slot::NONE,
        }
    }

    /// The range of a chunk's items in the image: the first, and the end. Empty for the offset 0.
    pub(super) fn items_range(&self, offset: u32) -> (u32, u32) {
        let content = self.chunk(offset);
        let start = self.container.blocks.start + offset as usize;
        let end = start + content.len() / SLOT_BYTES * SLOT_BYTES;
        (u32::try_from(start).unwrap_or(0), if offset == 0 { 0 } else { u32::try_from(end).unwrap_or(0) })
    }

    /// An item by where it is.
    pub(super) fn item_at(&self, at: u32) -> Slot {
        self.slot_in(at as usize, self.container.blocks.end)
    }

    /// The items of a chunk.
    pub fn items(&self, offset: u32) -> impl ExactSizeIterator<Item = Slot> + '_ {
        let (start, end) = self.items_range(offset);
        let count = (end.saturating_sub(start)) as usize / SLOT_BYTES;
        (0..count).map(move |item| self.slot_in(start as usize + item * SLOT_BYTES, self.container.blocks.end))
    }

    /// The elements of an array, each with its index as `next`. Where every index has an item, the engine goes by their order
    /// and may leave anything in that field.
    pub fn elements(&self, array: Slot) -> impl ExactSizeIterator<Item = Slot> + '_ {
        let items = self.items(array.first());
        let is_dense = items.len() as u64 == array.high;
        items.enumerate().map(move |(place, item)| match u32::try_from(place) {
            Ok(place) if is_dense => Slot { next: place, ..item },
            _ => item,
        })
    }

    /// The content of a chunk, with its padding; empty for the offset 0.
    #[must_use]
    pub fn chunk(&self, offset: u32) -> &[u8] {
        let blocks = self.bytes.get(self.container.blocks.clone()).unwrap_or_default();
        let head = (offset as usize).checked_sub(CHUNK_HEAD).and_then(|head| blocks.get(head..));
        let Some(size) = head.and_then(|head| head.first_chunk::<4>()) else { return &[] };
        let size = u32::from_le_bytes(*size) as usize;
        blocks.get(offset as usize..).and_then(|rest| rest.get(..size.saturating_sub(CHUNK_HEAD))).unwrap_or_default()
    }

    /// The text of a chunk, in the engine's encoding (see `super::text`).
    #[must_use]
    pub fn text(&self, offset: u32) -> &[u8] {
        let content = self.chunk(offset);
        let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        content.get(..end).unwrap_or_default()
    }

    /// The magnitude of a big integer, in little-endian words of four bytes.
    #[must_use]
    pub fn magnitude(&self, slot: Slot) -> &[u8] {
        // Two bytes for the words, then one for the sign.
        let words = (slot.high & 0xffff) as usize;
        self.chunk(slot.first()).get(..words * 4).unwrap_or_default()
    }

    /// The slots from one on to the end of its chain.
    pub fn chain(&self, first: SlotIndex) -> impl Iterator<Item = (SlotIndex, Slot)> + '_ {
        let mut at = first;
        std::iter::from_fn(move || {
            let slot = (at != 0).then(|| (at, self.slot(at)))?;
            at = slot.1.next;
            Some(slot)
        })
    }

    /// The slots of an object: internal ones and properties.
    pub fn own(&self, instance: SlotIndex) -> impl Iterator<Item = (SlotIndex, Slot)> + '_ {
        self.chain(self.slot(instance).next)
    }

    /// The reference that stands in a table at a byte of the image.
    pub(super) fn reference_at(&self, at: usize) -> SlotIndex {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        let reference = bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        u32::try_from(reference).ok().filter(|slot| *slot <= self.slot_count).unwrap_or(0)
    }

    fn slot_in(&self, at: usize, end: usize) -> Slot {
        let bytes = self.bytes.get(at..end).and_then(|rest| rest.first_chunk::<SLOT_BYTES>());
        bytes.and_then(slot::raw).map_or(Slot::NONE, |(_, _, slot)| slot)
    }
}
