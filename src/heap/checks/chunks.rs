//! The check of chunks: they lie side by side, in the order in which slots need them, and each is used.
//!
//! Owns the marks of those that several slots may use. It must never read beyond the atom BLOC.

use super::fault::SlotFault;
use super::place::Place;
use crate::heap::model::{CHUNK_HEAD, ChunkUse, Heap};
use crate::heap::slot::{Kind, SLOT_BYTES, Slot};

/// The chunks, as they are met.
pub(super) struct Chunks {
    /// The head of the next one.
    pub(super) next: usize,
    /// The chunks that are texts: a bit for each offset, in units of eight bytes.
    texts: Vec<u64>,
    /// The chunks that are magnitudes of big integers, likewise.
    magnitudes: Vec<u64>,
    /// The number of chunks of each use, and their bytes with their heads.
    pub(super) found: [(u64, u64); ChunkUse::ALL.len()],
}

impl Chunks {
    /// None met yet, in an area of so many bytes.
    pub(super) fn new(area: usize) -> Self {
        let marks = vec![0; area / 512 + 1];
        Self { next: 0, texts: marks.clone(), magnitudes: marks, found: Default::default() }
    }
}

impl Heap {
    /// Checks a chunk that a slot uses: the next one, or a text that was used before. The items in it, if it has some.
    pub(super) fn check_chunk(
        &self,
        slot: Slot,
        is_second: bool,
        offset: u32,
        chunks: &mut Chunks,
    ) -> Result<Option<(usize, usize, Place)>, SlotFault> {
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
                        let content = self.chunk(u32::try_from(offset).unwrap_or(0));
                        self.check_content(slot, chunk_use, content).map_err(SlotFault::SharedContent)?;
                    }
                    Ok(None)
                }
                _ => Err(SlotFault::ChunkOrder { found: offset, next }),
            };
        }
        if let Some(bits) = shared {
            *bits |= bit;
        }
        let blocks = self.bytes.get(self.container.blocks.clone()).unwrap_or_default();
        let head = blocks.get(chunks.next..).and_then(|rest| rest.first_chunk::<CHUNK_HEAD>());
        let Some((size, zeros)) = head.and_then(|head| head.split_first_chunk::<4>()) else {
            return Err(SlotFault::ChunkCut(offset));
        };
        let size = u32::from_le_bytes(*size) as usize;
        let content = blocks.get(offset..).and_then(|rest| rest.get(..size.checked_sub(CHUNK_HEAD)?));
        let Some(content) = content.filter(|_| size.is_multiple_of(8) && zeros.iter().all(|byte| *byte == 0)) else {
            return Err(SlotFault::ChunkHead(offset));
        };
        chunks.next += size;
        let found = &mut chunks.found[chunk_use as usize];
        found.0 += 1;
        found.1 += size as u64;
        self.check_content(slot, chunk_use, content).map_err(|fault| SlotFault::Content { offset, fault })?;
        let place = match chunk_use {
            ChunkUse::Items if (content.len() / SLOT_BYTES) as u64 == slot.high => Place::Element,
            ChunkUse::Items => Place::Item(0),
            ChunkUse::Stack => Place::Saved,
            _ => return Ok(None),
        };
        let start = self.container.blocks.start + offset;
        Ok(Some((start, start + content.len(), place)))
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
