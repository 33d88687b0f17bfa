//! Slots: the 32 bytes that every value, property and object of a heap is made of.
//!
//! Owns their layout. It must never follow what a slot refers to.

/// The number of a slot in its heap, from 1; 0 is none.
pub type SlotIndex = u32;

/// The size of a slot in an image.
pub const SLOT_BYTES: usize = 32;

/// Bits of a slot's flag.
pub mod flags {
    /// Of a property: not one that programs see.
    pub const INTERNAL: u8 = 1;
    /// Of a property: it can't be deleted.
    pub const DONT_DELETE: u8 = 2;
    /// Of a property: it is not enumerable. Of an entry of a collection: it was deleted.
    pub const DONT_ENUM: u8 = 4;
    /// Of a property: it can't be set.
    pub const DONT_SET: u8 = 8;
    /// Of an object: its first property says how it behaves.
    pub const EXOTIC: u8 = 1;
    /// Of an object: it is not extensible.
    pub const DONT_PATCH: u8 = 16;
    /// Of a key: it is a string, not a symbol.
    pub const NAME: u8 = 4;
    /// Of any slot: the garbage collector is at work; never set in an image.
    pub const MARK: u8 = 128;
}

/// The ID of the first slot after an exotic object's own.
pub mod behaviors {
    /// A scope of variables.
    pub const ENVIRONMENT: u32 = 4;
}

macro_rules! kinds {
    ($($number:literal $name:ident $label:literal,)*) => {
        /// The kind of a slot. The numbers are the engine's; kinds that it never writes to an image are left out.
        #[expect(missing_docs, reason = "the names are the engine's own")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i8)]
        pub enum Kind { $($name = $number,)* }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The kind of this number.
            #[must_use]
            pub fn of(number: i8) -> Option<Self> {
                match number { $($number => Some(Kind::$name),)* _ => None }
            }

            /// Its name in lower case.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Kind::$name => $label,)* }
            }
        }
    };
}

kinds! {
    -1 Uninitialized "uninitialized",
    0 Undefined "undefined",
    1 Null "null",
    2 Boolean "boolean",
    3 Integer "integer",
    4 Number "number",
    5 String "string",
    7 Symbol "symbol",
    8 BigInt "bigint",
    10 Reference "reference",
    11 Closure "closure",
    12 Frame "frame",
    13 Instance "instance",
    14 ArgumentsSloppy "arguments_sloppy",
    15 ArgumentsStrict "arguments_strict",
    16 Array "array",
    17 ArrayBuffer "array_buffer",
    18 Callback "callback",
    19 Code "code",
    20 CodeX "code_x",
    21 Date "date",
    22 DataView "data_view",
    23 FinalizationCell "finalization_cell",
    24 FinalizationRegistry "finalization_registry",
    25 Global "global",
    26 Host "host",
    27 Map "map",
    28 Module "module",
    29 Program "program",
    30 Promise "promise",
    31 Proxy "proxy",
    32 RegExp "regexp",
    33 Set "set",
    34 TypedArray "typed_array",
    35 WeakMap "weak_map",
    36 WeakRef "weak_ref",
    37 WeakSet "weak_set",
    38 Accessor "accessor",
    39 At "at",
    41 Error "error",
    42 Home "home",
    43 Key "key",
    45 List "list",
    46 Private "private",
    47 Stack "stack",
    48 Var "var",
    52 Export "export",
    53 WeakEntry "weak_entry",
    54 BufferInfo "buffer_info",
    55 ModuleSource "module_source",
}

/// A slot as it stands in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The next slot of its chain, or the index of an array's item.
    pub next: u32,
    /// The kind of the slot.
    pub kind: Kind,
    /// See [`flags`].
    pub flag: u8,
    /// Mostly the number of a key.
    pub id: u32,
    /// The first half of its value.
    pub low: u64,
    /// The second half of its value.
    pub high: u64,
}

impl Slot {
    /// The stand-in for a slot that is absent.
    pub const NONE: Slot = Slot { next: 0, kind: Kind::Uninitialized, flag: 0, id: 0, low: 0, high: 0 };

    /// The first half as a reference to a slot or as the offset of a chunk.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "references were checked to be smaller")]
    pub fn first(self) -> u32 {
        self.low as u32
    }

    /// The second half as a reference to a slot.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "references were checked to be smaller")]
    pub fn second(self) -> u32 {
        self.high as u32
    }

    /// The second half as a length.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the rest was checked to be zero")]
    pub fn length(self) -> u32 {
        self.high as u32
    }

    /// An integer, a boolean, the state of a promise.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the rest was checked to be zero")]
    pub fn integer(self) -> i32 {
        self.low as u32 as i32
    }

    /// The upper four bytes of the first half.
    #[must_use]
    pub fn upper(self) -> i32 {
        ((self.low >> 32) as u32).cast_signed()
    }

    /// A number or a date.
    #[must_use]
    pub fn number(self) -> f64 {
        f64::from_bits(self.low)
    }

    /// Whether it belongs to the engine and not to the program.
    #[must_use]
    pub fn is_internal(self) -> bool {
        self.flag & flags::INTERNAL != 0
    }
}

/// Reads a slot as it stands; `None` for a kind that is never written. Its halves are taken as they come.
#[must_use]
pub(super) fn raw(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, u16, Slot)> {
    let (next, rest) = take(bytes.as_slice());
    let kind = Kind::of(rest.first()?.cast_signed())?;
    let flag = *rest.get(1)?;
    let dummy = u16::from_le_bytes([*rest.get(2)?, *rest.get(3)?]);
    let id = u32::from_le_bytes([*rest.get(4)?, *rest.get(5)?, *rest.get(6)?, *rest.get(7)?]);
    let (low, rest) = take(rest.get(8..)?);
    let (high, _) = take(rest);
    #[expect(clippy::cast_possible_truncation, reason = "the caller that checks has the whole")]
    let slot = Slot { next: next as u32, kind, flag, id, low, high };
    Some((next, dummy, slot))
}

fn take(bytes: &[u8]) -> (u64, &[u8]) {
    match bytes.split_first_chunk::<8>() {
        Some((first, rest)) => (u64::from_le_bytes(*first), rest),
        None => (0, &[]),
    }
}
