//! The faults of one slot and of the chunk that it uses, and their words.
//!
//! Owns every sentence about them. It must never look at an image.

/// A fault of a slot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SlotFault {
    #[error("what follows it is {0:#x}")]
    Next(u64),
    #[error("it has bits that no image has")]
    Bits,
    #[error("its key is {key}, and there are {count}")]
    Key { key: u32, count: u32 },
    #[error("its symbol is {symbol}, and there are {count} keys")]
    Symbol { symbol: u64, count: u32 },
    #[error("it stands where only a value can")]
    NotAValue,
    #[error("it refers to {0:#x}, which is no object")]
    NoObject(u64),
    #[error("it refers to slot {slot:#x}, and there are {count}")]
    NoSlot { slot: u64, count: u64 },
    #[error("its chunk is at {0:#x}, which is beyond the atom BLOC")]
    NoChunk(u64),
    #[error("its value has {0:#x}, which is out of range")]
    OutOfRange(u64),
    #[error("its chunk is at {found:#x}, and the next is at {next:#x}")]
    ChunkOrder { found: usize, next: usize },
    #[error("its chunk at {0:#x} is cut")]
    ChunkCut(usize),
    #[error("the head of its chunk at {0:#x} is damaged")]
    ChunkHead(usize),
    #[error("{0}")]
    SharedContent(ContentFault),
    #[error("its chunk at {offset:#x}: {fault}")]
    Content { offset: usize, fault: ContentFault },
}

/// A fault in the content of a chunk.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ContentFault {
    #[error("the text does not end")]
    TextOpen,
    #[error("something follows the text")]
    TextEnded,
    #[error("{words} words do not fit into {bytes} bytes")]
    Words { words: u64, bytes: usize },
    #[error("{bytes} bytes for {items} items")]
    Items { bytes: usize, items: u64 },
    #[error("an item is beyond the length")]
    ItemBeyond,
    #[error("{bytes} bytes for {slots} slots")]
    Stack { bytes: usize, slots: u64 },
    #[error("its code is broken at byte {0}")]
    Code(usize),
    #[error("its code has an unknown key at byte {0}")]
    CodeKey(usize),
    #[error("something follows the code")]
    CodeEnded,
    #[error("its captures are damaged")]
    Captures,
    #[error("it is too small for its expression")]
    Expression,
    #[error("{entries} entries do not fit into {bytes} bytes")]
    Entries { entries: u64, bytes: usize },
    #[error("it has an entry that no image has")]
    Entry,
}
