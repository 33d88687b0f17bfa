//! Byte code: one instruction after the other.
//!
//! Owns how long an instruction is and what its operand means. It must never follow a branch: functions inside a function
//! lie inline, so one straight walk sees everything.

use super::tables::OPCODES;

/// The end of the code; what follows is padding.
const NO_CODE: u8 = 0;
/// The source file of what follows; the operand is a key.
pub const FILE: u8 = 83;
const GET_PROPERTY: u8 = 96;
/// The line of what follows.
pub const LINE: u8 = 124;
const SET_PROPERTY: u8 = 185;
const TEMPLATE: u8 = 212;
const TEMPLATE_CACHE: u8 = 213;
/// The function's number for the profiler.
pub const PROFILE: u8 = 236;

/// An instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// Its offset in the chunk.
    pub at: usize,
    /// See [`OPCODES`].
    pub opcode: u8,
    /// A key, if the operand is one.
    pub key: Option<u32>,
    /// The operand's bytes, a constant without its length.
    pub operand: &'a [u8],
}

impl Instruction<'_> {
    /// The name of its opcode.
    #[cfg(test)]
    fn name(&self) -> &'static str {
        OPCODES.get(usize::from(self.opcode)).map_or("", |(name, _)| name)
    }

    /// The line that it sets.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        match *self.operand {
            [low, high] if self.opcode == LINE => Some(u16::from_le_bytes([low, high]).into()),
            _ => None,
        }
    }
}

/// An instruction that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Its offset in the chunk.
    pub at: usize,
}

/// The instructions of a chunk.
#[derive(Debug, Clone)]
pub struct Code<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Code<'a> {
    /// Walks over these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn instruction(&self) -> Option<Instruction<'a>> {
        let opcode = *self.bytes.get(self.at)?;
        let (_, size) = OPCODES.get(usize::from(opcode))?;
        let rest = self.bytes.get(self.at + 1..)?;
        let instruction = |key, operand| Some(Instruction { at: self.at, opcode, key, operand });
        match *size {
            0 => {
                let key = rest.first_chunk::<4>()?;
                instruction(Some(u32::from_le_bytes(*key)), key.as_slice())
            }
            -1 => instruction(None, rest.get(1..1 + usize::from(*rest.first()?))?),
            -2 => {
                let length = usize::from(u16::from_le_bytes(*rest.first_chunk::<2>()?));
                instruction(None, rest.get(2..2 + length)?)
            }
            -4 => {
                let length = usize::try_from(u32::from_le_bytes(*rest.first_chunk::<4>()?)).ok()?;
                instruction(None, rest.get(4..length.checked_add(4)?)?)
            }
            size => instruction(None, rest.get(..usize::from(size.unsigned_abs()) - 1)?),
        }
    }
}

impl<'a> Iterator for Code<'a> {
    type Item = Result<Instruction<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.bytes.get(self.at), None | Some(&NO_CODE)) {
            return None;
        }
        let Some(instruction) = self.instruction() else {
            let at = self.at;
            self.at = self.bytes.len();
            return Some(Err(Broken { at }));
        };
        let (_, size) = OPCODES[usize::from(instruction.opcode)];
        self.at += match size {
            0 => 5,
            size if size < 0 => 1 + usize::from(size.unsigned_abs()) + instruction.operand.len(),
            size => usize::from(size.unsigned_abs()),
        };
        Some(Ok(instruction))
    }
}

impl Code<'_> {
    /// The offset of the next instruction; at the end, of the first byte of padding.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }
}

/// The keys of a piece of code that the engine numbers itself (`#7`), so that another number means the same.
///
/// There are two: the name of a script without one, and the place of a template literal with a tag in the realm's cache.
/// The latter is read right after `TEMPLATE_CACHE` and set right after `TEMPLATE`.
#[derive(Debug, Default)]
pub struct MadeUpKeys {
    last: u8,
}

/// The place of a key that the engine made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeUp {
    /// As a script's name.
    File,
    /// As a place in the cache of templates.
    Template,
}

impl MadeUpKeys {
    /// Whether the key of the next instruction may be made up. All instructions must be shown, in order.
    pub fn next(&mut self, instruction: &Instruction<'_>) -> Option<MadeUp> {
        let made_up = match (self.last, instruction.opcode) {
            (_, FILE) => Some(MadeUp::File),
            (TEMPLATE_CACHE, GET_PROPERTY) | (TEMPLATE, SET_PROPERTY) => Some(MadeUp::Template),
            _ => None,
        };
        self.last = instruction.opcode;
        made_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        // FILE @7, LINE 258, INTEGER_2 5, STRING_1 "ab", END, padding.
        let bytes = [83, 7, 0, 0, 0, 124, 2, 1, 115, 5, 0, 201, 2, 97, 98, 68, 0, 0];
        let code: Result<Vec<_>, _> = Code::new(&bytes).collect();
        let code = code.expect("it is whole");
        let seen: Vec<_> = code.iter().map(|one| (one.name(), one.key, one.line(), one.operand)).collect();
        assert_eq!(
            seen,
            [
                ("FILE", Some(7), None, &[7, 0, 0, 0][..]),
                ("LINE", None, Some(258), &[2, 1]),
                ("INTEGER_2", None, None, &[5, 0]),
                ("STRING_1", None, None, b"ab"),
                ("END", None, None, &[]),
            ]
        );
    }

    proptest! {
        #[test]
        fn anything_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut code = Code::new(&bytes);
            let count = code.by_ref().count();
            prop_assert!(count <= bytes.len());
            prop_assert!(code.at() <= bytes.len());
        }
    }
}
