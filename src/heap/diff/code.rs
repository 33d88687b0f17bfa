//! The comparison of two pieces of byte code: whether they are the same program.
//!
//! Owns which operands may differ. It must never compare keys by number.

use super::CodeDifference;
use super::keymap::{KeyMap, SameKey};
use crate::heap::code::{Code, Instruction, LINE, MadeUp, MadeUpKeys, PROFILE};
use crate::heap::{Heap, KeyId};

/// Differences without a meaning in code that is the same.
#[derive(Debug, Default)]
pub(super) struct SameCode {
    /// Numbers of compiled functions that differ.
    pub profiles: u64,
    /// Made-up names that differ.
    pub made_up: u64,
    /// Templates that must be the same for the code to be.
    pub templates: Vec<(KeyId, KeyId)>,
}

/// Compares two pieces of code.
pub(super) fn compare(
    keys: &KeyMap,
    heaps: (&Heap, &Heap),
    recorded: &[u8],
    replayed: &[u8],
) -> Result<SameCode, CodeDifference> {
    if recorded == replayed && keys.renumbered == 0 {
        return Ok(SameCode::default());
    }
    let mut same = SameCode::default();
    let (mut one, mut other) = (Code::new(recorded).flatten(), Code::new(replayed).flatten());
    let (mut lines, mut moved) = ((None, None), None);
    let mut made_up = MadeUpKeys::default();
    loop {
        let (first, second) = (one.next(), other.next());
        let (Some(a), Some(b)) = (first, second) else {
            return match (first, second, moved) {
                (None, None, None) => Ok(same),
                (None, None, Some(lines)) => {
                    Err(CodeDifference { lines, opcodes: (Some(LINE), Some(LINE)), only_lines: true })
                }
                _ => Err(difference(lines, first, second)),
            };
        };
        let context = made_up.next(&a);
        if a.opcode != b.opcode {
            return Err(difference(lines, first, second));
        }
        if a.opcode == LINE {
            lines = (a.line(), b.line());
            if lines.0 != lines.1 && moved.is_none() {
                moved = Some(lines);
            }
        } else if a.opcode == PROFILE {
            same.profiles += u64::from(a.operand != b.operand);
        } else if let (Some(key_one), Some(key_other)) = (a.key, b.key) {
            match keys.same(heaps, key_one, key_other, context.is_some()) {
                Some(SameKey::MadeUp) => {
                    if context == Some(MadeUp::Template) {
                        if !keys.same_template(key_one, key_other) {
                            return Err(difference(lines, first, second));
                        }
                        same.templates.push((key_one, key_other));
                    }
                    same.made_up += u64::from(heaps.0.key(key_one) != heaps.1.key(key_other));
                }
                Some(_) => {}
                None => return Err(difference(lines, first, second)),
            }
        } else if a.operand != b.operand {
            return Err(difference(lines, first, second));
        }
    }
}

fn difference(
    lines: (Option<u32>, Option<u32>),
    first: Option<Instruction<'_>>,
    second: Option<Instruction<'_>>,
) -> CodeDifference {
    let opcodes = (first.map(|one| one.opcode), second.map(|other| other.opcode));
    CodeDifference { lines, opcodes, only_lines: false }
}
