//! A heap whose every reference was checked, and the checks.
//!
//! | what is checked | where |
//! |---|---|
//! | atoms, versions, sizes | `container` |
//! | each slot: its kind, no bits where there is no field, what it refers to is there and of the right kind | here |
//! | chunks lie side by side, in the order in which slots need them, each used, and only texts and big integers by several slots | here |
//! | what is in a chunk: texts end, items count up, code can be walked, tables fit | here |
//! | no slot is in two chains, so every chain ends | here |
//! | keys are where their hash says | `keys` |
//! | slots are in the order of a walk from the roots, and each is reached | `order` |
//!
//! Owns the bytes. After [`Heap::read`] a reference can be followed without another thought; should one be wrong all the
//! same, nothing is read beyond the image and nothing panics.

use serde::Serialize;

use super::code::Code;
use super::container::{Atom, Container, Creation, Version};
use super::keys::Keys;
use super::slot::{self, Kind, SLOT_BYTES, Slot, SlotIndex, flags};
use super::tables::{CALLBACKS, ROOTS};
use super::{HeapError, order};

const CHUNK_HEAD: usize = 16;
/// As many typed arrays there are.
const TYPED_ARRAYS: u64 = 11;

/// What a chunk is used for.
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
    bytes: Vec<u8>,
    container: Container,
    keys: Keys,
    slot_count: u32,
    chunks: [(u64, u64); ChunkUse::ALL.len()],
}

impl Heap {
    /// Reads an image.
    ///
    /// # Errors
    /// When it is none, of another version, or anything in it is not as the engine writes it.
    pub fn read(bytes: Vec<u8>) -> Result<Self, HeapError> {
        let container = Container::read(&bytes)?;
        let slot_count = u32::try_from(container.heap.len() / SLOT_BYTES)
            .map_err(|_| HeapError::damaged("it has more slots than an engine can number"))?;
        if bytes.len() as u64 > crate::record::image::IMAGE_BYTES_MAX {
            return Err(HeapError::damaged("it is larger than an engine's heap can be"));
        }
        let keys = Keys::new(&container);
        let mut heap = Self { bytes, container, keys, slot_count, chunks: Default::default() };
        heap.check_slots()?;
        heap.check_chains()?;
        heap.check_weak()?;
        heap.check_keys(&heap.container)?;
        order::check(&heap)?;
        Ok(heap)
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

    /// How many slots there are; they are numbered from 1.
    #[must_use]
    pub fn slot_count(&self) -> u32 {
        self.slot_count
    }

    /// How many chunks are used so, and their bytes with their heads.
    #[must_use]
    pub fn chunks(&self, of: ChunkUse) -> (u64, u64) {
        self.chunks[of as usize]
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A slot; [`Slot::NONE`] for 0.
    #[must_use]
    pub fn slot(&self, index: SlotIndex) -> Slot {
        match (index as usize).checked_sub(1) {
            Some(before) => self.slot_in(self.container.heap.start + before * SLOT_BYTES, self.container.heap.end),
            None => Slot::NONE,
        }
    }

    /// How many roots there are.
    #[must_use]
    pub fn root_count(&self) -> usize {
        self.container.stack.len() / SLOT_BYTES
    }

    /// A root, by the number that [`ROOTS`] names.
    #[must_use]
    pub fn root(&self, number: usize) -> Slot {
        match self.container.stack.end.checked_sub((number + 1) * SLOT_BYTES) {
            Some(at) if at >= self.container.stack.start => self.slot_in(at, self.container.stack.end),
            _ => Slot::NONE,
        }
    }

    /// Where the items of a chunk are: the first, and the end. Empty for the offset 0.
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

    /// The text of a chunk, in the engine's encoding (see [`super::text`]).
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

    /// What belongs to an object: internal slots and properties.
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

/// Where a slot stands, which decides what its `next` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
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

/// Which fields a kind's value has.
enum Field {
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

fn fields(kind: Kind) -> (Field, Field) {
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

/// The chunks, as they are met.
struct Chunks {
    /// The head of the next one.
    next: usize,
    /// Which chunks, by offset in units of eight bytes, are texts.
    texts: Vec<u64>,
    /// Which are the magnitudes of big integers.
    magnitudes: Vec<u64>,
    found: [(u64, u64); ChunkUse::ALL.len()],
}

impl Heap {
    /// Checks each slot in the order in which chunks are written, and the chunks with them.
    fn check_slots(&mut self) -> Result<(), HeapError> {
        let area = self.container.blocks.len();
        let mut chunks = Chunks {
            next: 0,
            texts: vec![0; area / 512 + 1],
            magnitudes: vec![0; area / 512 + 1],
            found: Default::default(),
        };
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
        let wrong = |what: &str| {
            let kind = slot.kind.label();
            HeapError::damaged(format!("{place} ({kind}): {what}"))
        };
        let is_next_right = match place {
            Place::Heap(_) => next <= u64::from(self.slot_count),
            Place::Root(_) | Place::Saved => next == 0,
            Place::Element => next < u64::from(u32::MAX),
            Place::Item(least) => next >= u64::from(least) && next < u64::from(u32::MAX),
        };
        if !is_next_right {
            return Err(wrong(&format!("what follows it is {next:#x}")));
        }
        if slot.flag & flags::MARK != 0 || dummy != 0 {
            return Err(wrong("it has bits that no image has"));
        }
        let may_have_any_id = slot.kind == Kind::Home;
        if !may_have_any_id && slot.id >= self.keys.count() {
            return Err(wrong(&format!("its key is {}, and there are {}", slot.id, self.keys.count())));
        }
        if slot.kind == Kind::Symbol && slot.low >= u64::from(self.keys.count()) {
            return Err(wrong(&format!("its symbol is {}, and there are {} keys", slot.low, self.keys.count())));
        }
        let is_item = matches!(place, Place::Element | Place::Item(_) | Place::Saved);
        let has_items = matches!(slot.kind, Kind::Array | Kind::ArgumentsSloppy | Kind::ArgumentsStrict | Kind::Stack);
        if is_item && (slot.kind == Kind::Instance || has_items) {
            return Err(wrong("it stands where only a value can"));
        }
        let (first, second) = fields(slot.kind);
        for (field, value) in [(&first, slot.low), (&second, slot.high)] {
            self.check_field(field, value).map_err(|what| wrong(&what))?;
        }
        for (field, value, is_second) in [(first, slot.low, false), (second, slot.high, true)] {
            if matches!(field, Field::Chunk | Field::MaybeChunk) && value != 0 {
                // Checked above to be within the atom.
                let offset = u32::try_from(value).unwrap_or(0);
                let items = self.check_chunk(slot, is_second, offset, chunks).map_err(|what| wrong(&what))?;
                if items.is_some() {
                    return Ok(items);
                }
            }
        }
        Ok(None)
    }

    fn check_field(&self, field: &Field, value: u64) -> Result<(), String> {
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
            Field::Instance | Field::MaybeInstance => format!("it refers to {value:#x}, which is no object"),
            Field::MaybeSlot => format!("it refers to slot {value:#x}, and there are {slot_max}"),
            Field::Chunk | Field::MaybeChunk => format!("its chunk is at {value:#x}, which is beyond the atom BLOC"),
            _ => format!("its value has {value:#x}, which is out of range"),
        })
    }

    /// Checks a chunk that a slot uses: the next one, or a text that was used before. The items in it, if it has some.
    fn check_chunk(
        &self,
        slot: Slot,
        is_second: bool,
        offset: u32,
        chunks: &mut Chunks,
    ) -> Result<Option<(usize, usize, Place)>, String> {
        let offset = offset as usize;
        let chunk_use = chunk_use(slot.kind, is_second);
        let next = chunks.next + CHUNK_HEAD;
        let mut shared = match chunk_use {
            ChunkUse::String | ChunkUse::Key => Some(&mut chunks.texts),
            ChunkUse::BigInt => Some(&mut chunks.magnitudes),
            _ => None,
        };
        let shared = shared.as_mut().and_then(|shared| shared.get_mut(offset / 512));
        let bit = 1 << (offset / 8 % 64);
        if offset != next {
            return match shared {
                Some(bits) if *bits & bit != 0 && offset.is_multiple_of(8) => {
                    if chunk_use == ChunkUse::BigInt {
                        self.check_content(slot, chunk_use, self.chunk(u32::try_from(offset).unwrap_or(0)))?;
                    }
                    Ok(None)
                }
                _ => Err(format!("its chunk is at {offset:#x}, and the next is at {next:#x}")),
            };
        }
        if let Some(bits) = shared {
            *bits |= bit;
        }
        let blocks = self.bytes.get(self.container.blocks.clone()).unwrap_or_default();
        let head = blocks.get(chunks.next..).and_then(|rest| rest.first_chunk::<CHUNK_HEAD>());
        let Some((size, zeros)) = head.and_then(|head| head.split_first_chunk::<4>()) else {
            return Err(format!("its chunk at {offset:#x} is cut"));
        };
        let size = u32::from_le_bytes(*size) as usize;
        let content = blocks.get(offset..).and_then(|rest| rest.get(..size.checked_sub(CHUNK_HEAD)?));
        let Some(content) = content.filter(|_| size.is_multiple_of(8) && zeros.iter().all(|byte| *byte == 0)) else {
            return Err(format!("the head of its chunk at {offset:#x} is damaged"));
        };
        chunks.next += size;
        let found = &mut chunks.found[chunk_use as usize];
        found.0 += 1;
        found.1 += size as u64;
        self.check_content(slot, chunk_use, content).map_err(|what| format!("its chunk at {offset:#x}: {what}"))?;
        let place = match chunk_use {
            ChunkUse::Items if (content.len() / SLOT_BYTES) as u64 == slot.high => Place::Element,
            ChunkUse::Items => Place::Item(0),
            ChunkUse::Stack => Place::Saved,
            _ => return Ok(None),
        };
        let start = self.container.blocks.start + offset;
        Ok(Some((start, start + content.len(), place)))
    }

    fn check_content(&self, slot: Slot, chunk_use: ChunkUse, content: &[u8]) -> Result<(), String> {
        let word = |at: usize| {
            let word = content.get(at * 4..).and_then(|rest| rest.first_chunk::<4>());
            word.map(|word| u32::from_le_bytes(*word))
        };
        match chunk_use {
            ChunkUse::String | ChunkUse::Key => {
                let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                if end == content.len() {
                    return Err("the text does not end".to_owned());
                }
                if content.get(..end).is_some_and(|text| text.contains(&0)) {
                    return Err("something follows the text".to_owned());
                }
            }
            ChunkUse::BigInt => {
                let words = slot.high & 0xffff;
                if words == 0 || words * 4 > content.len() as u64 {
                    return Err(format!("{words} words do not fit into {} bytes", content.len()));
                }
            }
            ChunkUse::Items => {
                let items = content.len() / SLOT_BYTES;
                if !content.len().is_multiple_of(SLOT_BYTES) || items as u64 > slot.high {
                    return Err(format!("{} bytes for {} items", content.len(), slot.high));
                }
                if items as u64 == slot.high {
                    return Ok(());
                }
                let last = items.checked_sub(1).and_then(|last| content.get(last * SLOT_BYTES..));
                let last = last.and_then(|last| last.first_chunk::<4>()).map(|last| u32::from_le_bytes(*last));
                if last.is_some_and(|last| u64::from(last) >= slot.high) {
                    return Err("an item is beyond the length".to_owned());
                }
            }
            ChunkUse::Stack => {
                if content.len() as u64 != slot.high * SLOT_BYTES as u64 {
                    return Err(format!("{} bytes for {} slots", content.len(), slot.high));
                }
            }
            ChunkUse::Code => {
                let mut code = Code::new(content);
                for instruction in code.by_ref() {
                    let instruction =
                        instruction.map_err(|broken| format!("its code is broken at byte {}", broken.at))?;
                    if instruction.key.is_some_and(|key| key >= self.keys.count()) {
                        return Err(format!("its code has an unknown key at byte {}", instruction.at));
                    }
                }
                if content.get(code.at()..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
                    return Err("something follows the code".to_owned());
                }
            }
            ChunkUse::RegExpCode => {
                let captures = word(1).filter(|captures| *captures as usize <= content.len() / 4);
                let names = captures.map(|captures| (0..captures as usize).map_while(|name| word(2 + name)));
                if names.is_none_or(|mut names| names.any(|name| name != u32::MAX && name >= self.keys.count())) {
                    return Err("its captures are damaged".to_owned());
                }
            }
            ChunkUse::RegExpData => {
                let parts = super::text::RegExpParts::of(self.chunk(slot.first()));
                if parts.is_none_or(|parts| parts.data_bytes() > content.len()) {
                    return Err("it is too small for its expression".to_owned());
                }
            }
            ChunkUse::Table => {
                let entries = content.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry));
                if slot.high * 8 > content.len() as u64 {
                    return Err(format!("{} entries do not fit into {} bytes", slot.high, content.len()));
                }
                let max = if slot.kind == Kind::Global { u64::from(self.slot_count) } else { 0 };
                if entries.into_iter().any(|entry| entry > max) {
                    return Err("it has an entry that no image has".to_owned());
                }
            }
            ChunkUse::Buffer | ChunkUse::Host => {}
        }
        Ok(())
    }

    /// What a weak collection has for an object stands in both, and both say the same.
    fn check_weak(&self) -> Result<(), HeapError> {
        let (mut of_lists, mut of_keys) = (Vec::new(), Vec::new());
        for index in 1..=self.slot_count {
            let slot = self.slot(index);
            match slot.kind {
                Kind::WeakMap | Kind::WeakSet => {
                    of_lists.extend(self.chain(slot.first()).map(|(_, entry)| (index, entry.first(), entry.second())));
                }
                Kind::Instance => of_keys.extend(
                    (self.own(index).filter(|(_, entry)| entry.kind == Kind::WeakEntry))
                        .map(|(_, entry)| (entry.first(), index, entry.second())),
                ),
                _ => {}
            }
        }
        of_lists.sort_unstable();
        of_keys.sort_unstable();
        let differs = of_lists.iter().zip(&of_keys).find(|(list, key)| list != key).map(|(list, key)| list.min(key));
        let Some((list, key, _)) = differs.or_else(|| match of_lists.len().cmp(&of_keys.len()) {
            std::cmp::Ordering::Less => of_keys.get(of_lists.len()),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => of_lists.get(of_keys.len()),
        }) else {
            return Ok(());
        };
        Err(HeapError::damaged(format!(
            "the weak collection of slot {list} and its key, slot {key}, do not say the same"
        )))
    }

    /// Every slot is in at most one chain: so chains end, and walking all of them takes as long as there are slots.
    fn check_chains(&self) -> Result<(), HeapError> {
        let mut claimed = vec![0_u64; self.slot_count as usize / 64 + 1];
        let mut claim = |first: SlotIndex, what: &str| {
            for (at, _) in self.chain(first) {
                let (word, bit) = (at as usize / 64, 1 << (at % 64));
                match claimed.get_mut(word) {
                    Some(word) if *word & bit == 0 => *word |= bit,
                    _ => return Err(HeapError::damaged(format!("slot {at} is in two chains, the second {what}"))),
                }
            }
            Ok(())
        };
        for index in 1..=self.slot_count {
            let slot = self.slot(index);
            match slot.kind {
                Kind::Instance => claim(index, "of an object's properties")?,
                Kind::Map | Kind::Set => {
                    let list = self.slot(slot.next);
                    if list.kind != Kind::List {
                        return Err(HeapError::damaged(format!("slot {index} is a collection without a list")));
                    }
                    claim(list.first(), "of a collection")?;
                }
                Kind::WeakMap | Kind::WeakSet => claim(slot.first(), "of a weak collection")?,
                Kind::Private => claim(slot.second(), "of private fields")?,
                Kind::FinalizationRegistry => claim(slot.first(), "of a finalization registry")?,
                _ => {}
            }
        }
        for table in [&self.container.names, &self.container.symbols] {
            for at in table.clone().step_by(8) {
                let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
                if bytes.is_none_or(|bytes| u64::from_le_bytes(*bytes) > u64::from(self.slot_count)) {
                    return Err(HeapError::damaged("a bucket of its atoms NAME and SYMB refers to no slot"));
                }
                claim(self.reference_at(at), "of keys")?;
            }
        }
        for at in self.container.keys.clone().step_by(8) {
            let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
            if bytes.is_none_or(|bytes| u64::from_le_bytes(*bytes) > u64::from(self.slot_count)) {
                return Err(HeapError::damaged("a row of its atom KEYS refers to no slot"));
            }
        }
        Ok(())
    }
}

fn chunk_use(kind: Kind, is_second: bool) -> ChunkUse {
    match kind {
        Kind::Key => ChunkUse::Key,
        Kind::BigInt => ChunkUse::BigInt,
        Kind::ArgumentsSloppy | Kind::ArgumentsStrict | Kind::Array => ChunkUse::Items,
        Kind::Stack => ChunkUse::Stack,
        Kind::ArrayBuffer => ChunkUse::Buffer,
        Kind::Code => ChunkUse::Code,
        Kind::RegExp if is_second => ChunkUse::RegExpData,
        Kind::RegExp => ChunkUse::RegExpCode,
        Kind::Global | Kind::Map | Kind::Set => ChunkUse::Table,
        Kind::Host => ChunkUse::Host,
        _ => ChunkUse::String,
    }
}
