//! The kinds of differences between two heaps that no program can see.
//!
//! The vocabulary of [`crate::heap::diff`], which finds them, and of evidence, which keeps them.

use serde::{Deserialize, Serialize};

/// A difference between two heaps that no program can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceKind {
    /// An address of the worker's memory, left behind by a regular expression with a lookahead or lookbehind.
    HostPointer,
    /// The remains of the last match of a regular expression.
    #[serde(rename = "regexp_scratch")]
    RegExpScratch,
    /// A whole number that is an INTEGER in one heap and a NUMBER in the other.
    NumberRepresentation,
    /// A key with another number.
    KeyNumber,
    /// The made-up name of a script or of a template literal.
    MadeUpName,
    /// The number of a compiled function.
    ProfileNumber,
    /// The size of a hash table.
    TableSize,
    /// Bytes behind the end of a buffer.
    BufferTail,
}

impl TraceKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::HostPointer,
        Self::RegExpScratch,
        Self::NumberRepresentation,
        Self::KeyNumber,
        Self::MadeUpName,
        Self::ProfileNumber,
        Self::TableSize,
        Self::BufferTail,
    ];

    /// Its name in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::HostPointer => "host_pointer",
            Self::RegExpScratch => "regexp_scratch",
            Self::NumberRepresentation => "number_representation",
            Self::KeyNumber => "key_number",
            Self::MadeUpName => "made_up_name",
            Self::ProfileNumber => "profile_number",
            Self::TableSize => "table_size",
            Self::BufferTail => "buffer_tail",
        }
    }

    /// Whether its places are worth naming.
    #[must_use]
    pub fn has_places(self) -> bool {
        matches!(self, Self::HostPointer | Self::RegExpScratch | Self::NumberRepresentation)
    }
}
