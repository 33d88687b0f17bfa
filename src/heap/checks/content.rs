//! The check of a chunk's content: each use of chunks has a form of its own.
//!
//! Owns those forms. It must never trust a length or an index in the content before it was compared with what is there.

use super::fault::ContentFault;
use crate::heap::code::Code;
use crate::heap::model::{ChunkUse, Heap};
use crate::heap::slot::{Kind, SLOT_BYTES, Slot};
use crate::heap::text::RegExpParts;

impl Heap {
    /// Checks the content of a chunk that a slot uses.
    pub(super) fn check_content(&self, slot: Slot, chunk_use: ChunkUse, content: &[u8]) -> Result<(), ContentFault> {
        match chunk_use {
            ChunkUse::String | ChunkUse::Key => text(content),
            ChunkUse::BigInt => big_int(slot, content),
            ChunkUse::Items => items(slot, content),
            ChunkUse::Stack => stack(slot, content),
            ChunkUse::Code => code(content, self.keys().count()),
            ChunkUse::RegExpCode => captures(content, self.keys().count()),
            ChunkUse::RegExpData => {
                let parts = RegExpParts::of(self.chunk(slot.first()));
                let fits = parts.is_some_and(|parts| parts.data_bytes() <= content.len());
                if fits { Ok(()) } else { Err(ContentFault::Expression) }
            }
            ChunkUse::Table => {
                let entry_max = if slot.kind == Kind::Global { u64::from(self.slot_count) } else { 0 };
                table(slot, content, entry_max)
            }
            ChunkUse::Buffer | ChunkUse::Host => Ok(()),
        }
    }
}

fn text(content: &[u8]) -> Result<(), ContentFault> {
    let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if end == content.len() {
        return Err(ContentFault::TextOpen);
    }
    if content.get(..end).is_some_and(|text| text.contains(&0)) {
        return Err(ContentFault::TextEnded);
    }
    Ok(())
}

fn big_int(slot: Slot, content: &[u8]) -> Result<(), ContentFault> {
    let words = slot.high & 0xffff;
    if words == 0 || words * 4 > content.len() as u64 {
        return Err(ContentFault::Words { words, bytes: content.len() });
    }
    Ok(())
}

fn items(slot: Slot, content: &[u8]) -> Result<(), ContentFault> {
    let items = content.len() / SLOT_BYTES;
    if !content.len().is_multiple_of(SLOT_BYTES) || items as u64 > slot.high {
        return Err(ContentFault::Items { bytes: content.len(), items: slot.high });
    }
    if items as u64 == slot.high {
        return Ok(());
    }
    let last = items.checked_sub(1).and_then(|last| content.get(last * SLOT_BYTES..));
    let last = last.and_then(|last| last.first_chunk::<4>()).map(|last| u32::from_le_bytes(*last));
    if last.is_some_and(|last| u64::from(last) >= slot.high) {
        return Err(ContentFault::ItemBeyond);
    }
    Ok(())
}

fn stack(slot: Slot, content: &[u8]) -> Result<(), ContentFault> {
    if content.len() as u64 != slot.high * SLOT_BYTES as u64 {
        return Err(ContentFault::Stack { bytes: content.len(), slots: slot.high });
    }
    Ok(())
}

fn code(content: &[u8], key_count: u32) -> Result<(), ContentFault> {
    let mut code = Code::new(content);
    for instruction in code.by_ref() {
        let instruction = instruction.map_err(|broken| ContentFault::Code(broken.at))?;
        if instruction.key.is_some_and(|key| key >= key_count) {
            return Err(ContentFault::CodeKey(instruction.at));
        }
    }
    if content.get(code.at()..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
        return Err(ContentFault::CodeEnded);
    }
    Ok(())
}

fn captures(content: &[u8], key_count: u32) -> Result<(), ContentFault> {
    let word = |at: usize| {
        let word = content.get(at * 4..).and_then(|rest| rest.first_chunk::<4>());
        word.map(|word| u32::from_le_bytes(*word))
    };
    let captures = word(1).filter(|captures| *captures as usize <= content.len() / 4);
    let names = captures.map(|captures| (0..captures as usize).map_while(|name| word(2 + name)));
    if names.is_none_or(|mut names| names.any(|name| name != u32::MAX && name >= key_count)) {
        return Err(ContentFault::Captures);
    }
    Ok(())
}

fn table(slot: Slot, content: &[u8], entry_max: u64) -> Result<(), ContentFault> {
    if slot.high * 8 > content.len() as u64 {
        return Err(ContentFault::Entries { entries: slot.high, bytes: content.len() });
    }
    let mut entries = content.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry));
    if entries.any(|entry| entry > entry_max) {
        return Err(ContentFault::Entry);
    }
    Ok(())
}
