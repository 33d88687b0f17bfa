//! The file around a heap: its atoms, who wrote it, and the counters of the engine.
//!
//! Owns the order and the sizes of the atoms, and which versions are understood. It must never look into the heap itself.

use std::ops::Range;

use serde::Serialize;

use super::error::HeapError;

/// The versions whose images can be read.
pub const UNDERSTOOD: &str = "XS 13.3 with slots of 32 bytes, little-endian, signature \"xsnap 1\" (xsnap 0.15.0)";

const MAJOR_MINOR: (u8, u8) = (13, 3);
const SLOT_SIZE: i8 = 32;
const SIGNATURE: &[u8] = b"xsnap 1";

/// A part of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Atom {
    /// Its four letters.
    pub tag: &'static str,
    /// The size of its content in bytes.
    pub bytes: usize,
    /// The range of its content in the file.
    #[serde(skip)]
    pub range: Range<usize>,
}

/// The version of the engine that wrote an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The first part.
    pub major: u8,
    /// The second part.
    pub minor: u8,
    /// The third part, which the engine's reader ignores.
    pub patch: u8,
}

impl std::fmt::Display for Version {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The counters of the engine (`txCreation`), by the names that it gives them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "COUNTERS explains those that tell something")]
pub struct Creation {
    pub initial_chunk_size: i32,
    pub incremental_chunk_size: i32,
    pub initial_heap_count: i32,
    pub incremental_heap_count: i32,
    pub stack_count: i32,
    pub initial_key_count: i32,
    pub incremental_key_count: i32,
    pub name_modulo: i32,
    pub symbol_modulo: i32,
    pub parser_buffer_size: i32,
    pub parser_table_modulo: i32,
    pub static_size: i32,
    pub profile_id: u32,
    pub tag: i32,
}

/// The meaning of a counter that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterMeaning {
    /// When the next garbage collection comes.
    GcSchedule,
    /// The past, with no effect on the future.
    History,
    /// The way in which the worker was started or built.
    Settings,
}

impl Creation {
    /// The counters by name, each with what a difference in it says.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, i64, CounterMeaning); 14] {
        use CounterMeaning::{GcSchedule, History, Settings};
        [
            ("initialChunkSize", self.initial_chunk_size.into(), GcSchedule),
            ("incrementalChunkSize", self.incremental_chunk_size.into(), Settings),
            ("initialHeapCount", self.initial_heap_count.into(), GcSchedule),
            ("incrementalHeapCount", self.incremental_heap_count.into(), Settings),
            ("stackCount", self.stack_count.into(), Settings),
            ("initialKeyCount", self.initial_key_count.into(), History),
            ("incrementalKeyCount", self.incremental_key_count.into(), Settings),
            ("nameModulo", self.name_modulo.into(), Settings),
            ("symbolModulo", self.symbol_modulo.into(), Settings),
            ("parserBufferSize", self.parser_buffer_size.into(), Settings),
            ("parserTableModulo", self.parser_table_modulo.into(), Settings),
            ("staticSize", self.static_size.into(), Settings),
            ("profileID", self.profile_id.into(), History),
            ("tag", self.tag.into(), History),
        ]
    }
}

/// The atoms of an image, in their order.
#[derive(Debug)]
pub(super) struct Container {
    pub version: Version,
    pub creation: Creation,
    pub atoms: Vec<Atom>,
    pub blocks: Range<usize>,
    pub heap: Range<usize>,
    pub stack: Range<usize>,
    pub keys: Range<usize>,
    pub names: Range<usize>,
    pub symbols: Range<usize>,
}

impl Container {
    /// Finds the atoms of an image and reads who wrote it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, HeapError> {
        let head = bytes.get(..8).ok_or_else(|| not_one(bytes))?;
        if head.get(4..) != Some(b"XS_M".as_slice()) {
            return Err(not_one(bytes));
        }
        // The writer forgets the profile ID and the tag when it adds up the whole.
        let told = size_at(bytes, 0);
        if told.checked_add(8) != Some(bytes.len() as u64) {
            return Err(HeapError::damaged(format!(
                "its head speaks of {} bytes and it has {}: it was cut, or something was added",
                told.saturating_add(8),
                bytes.len()
            )));
        }
        let mut reader = Atoms { bytes, at: 8, atoms: Vec::with_capacity(9) };
        let version = reader.next("VERS")?;
        let [major, minor, patch, slot_size] = *bytes
            .get(version)
            .and_then(|content| content.first_chunk::<4>())
            .ok_or_else(|| HeapError::damaged("its atom VERS is too short"))?;
        let signature = reader.next("SIGN")?;
        let signature = bytes.get(signature).unwrap_or_default();
        let slot_size = slot_size.cast_signed();
        if (major, minor) != MAJOR_MINOR || slot_size != SLOT_SIZE || signature != SIGNATURE {
            let order = if slot_size < 0 { "big-endian" } else { "little-endian" };
            return Err(HeapError::Version {
                understood: UNDERSTOOD,
                found: format!(
                    "XS {major}.{minor}.{patch} with slots of {} bytes, {order}, signature {:?}",
                    slot_size.unsigned_abs(),
                    String::from_utf8_lossy(signature.get(..64.min(signature.len())).unwrap_or_default())
                ),
            });
        }
        let creation = reader.next("CREA")?;
        let creation = read_creation(bytes.get(creation).unwrap_or_default())?;
        let blocks = reader.next("BLOC")?;
        let heap = reader.rows("HEAP", 32)?;
        let stack = reader.rows("STAC", 32)?;
        let keys = reader.rows("KEYS", 8)?;
        let names = reader.rows("NAME", 8)?;
        let symbols = reader.rows("SYMB", 8)?;
        if reader.at != bytes.len() {
            return Err(HeapError::damaged(format!("{} bytes follow its last atom", bytes.len() - reader.at)));
        }
        for (what, range, modulo) in
            [("NAME", &names, creation.name_modulo), ("SYMB", &symbols, creation.symbol_modulo)]
        {
            if u64::try_from(modulo).ok() != Some(range.len() as u64 / 8) {
                let rows = range.len() / 8;
                return Err(HeapError::damaged(format!(
                    "its atom {what} has {rows} buckets and its counter says {modulo}"
                )));
            }
        }
        let version = Version { major, minor, patch };
        Ok(Self { version, creation, atoms: reader.atoms, blocks, heap, stack, keys, names, symbols })
    }
}

fn not_one(bytes: &[u8]) -> HeapError {
    let what = if bytes.starts_with(b"SQLite format 3") {
        "it is an SQLite database; name one of its images as DB:vat@snapPos".to_owned()
    } else {
        format!("it has {} bytes and does not begin with an atom XS_M", bytes.len())
    };
    HeapError::NotASnapshot(what)
}

struct Atoms<'a> {
    bytes: &'a [u8],
    at: usize,
    atoms: Vec<Atom>,
}

impl Atoms<'_> {
    fn next(&mut self, tag: &'static str) -> Result<Range<usize>, HeapError> {
        let head = self.bytes.get(self.at..).and_then(|rest| rest.get(..8));
        let found = head.and_then(|head| head.get(4..)).unwrap_or_default();
        if found != tag.as_bytes() {
            return Err(HeapError::damaged(format!(
                "at byte {} should be its atom {tag}, and there is {:?}",
                self.at,
                String::from_utf8_lossy(found)
            )));
        }
        let size = size_at(self.bytes, self.at);
        let left = (self.bytes.len() - self.at) as u64;
        if size < 8 || size > left {
            return Err(HeapError::damaged(format!("its atom {tag} says it has {size} bytes, and there are {left}")));
        }
        let end = self.at + usize::try_from(size).unwrap_or(usize::MAX);
        let range = self.at + 8..end;
        self.at = end;
        self.atoms.push(Atom { tag, bytes: range.len(), range: range.clone() });
        Ok(range)
    }

    fn rows(&mut self, tag: &'static str, row_bytes: usize) -> Result<Range<usize>, HeapError> {
        let range = self.next(tag)?;
        if !range.len().is_multiple_of(row_bytes) {
            let bytes = range.len();
            return Err(HeapError::damaged(format!("its atom {tag} has {bytes} bytes, not a multiple of {row_bytes}")));
        }
        Ok(range)
    }
}

fn size_at(bytes: &[u8], at: usize) -> u64 {
    let size = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    size.map_or(0, |size| u64::from(u32::from_be_bytes(*size)))
}

fn read_creation(content: &[u8]) -> Result<Creation, HeapError> {
    if content.len() != 56 {
        return Err(HeapError::damaged(format!("its atom CREA has {} bytes, not 56", content.len())));
    }
    let field = |number: usize| {
        content.get(number * 4..).and_then(|rest| rest.first_chunk::<4>()).map_or(0, |field| i32::from_le_bytes(*field))
    };
    Ok(Creation {
        initial_chunk_size: field(0),
        incremental_chunk_size: field(1),
        initial_heap_count: field(2),
        incremental_heap_count: field(3),
        stack_count: field(4),
        initial_key_count: field(5),
        incremental_key_count: field(6),
        name_modulo: field(7),
        symbol_modulo: field(8),
        parser_buffer_size: field(9),
        parser_table_modulo: field(10),
        static_size: field(11),
        profile_id: field(12).cast_unsigned(),
        tag: field(13),
    })
}
