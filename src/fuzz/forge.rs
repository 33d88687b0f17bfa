//! Changes to heap images, most of a sort that keeps an image valid: a reader that refuses everything would pass any test of the code
//! behind it.

use std::ops::Range;

use super::choices::Choices;
use crate::heap::Heap;

/// Changes images. Knows the layout just well enough to aim.
pub(super) struct Forger {
    blocks: Range<usize>,
    heap: Range<usize>,
    stack: Range<usize>,
    tables: Vec<Range<usize>>,
    /// Where each atom begins.
    atoms: Vec<usize>,
    keys: usize,
}

const SLOT: usize = 32;
const CHANGES_MAX: usize = 32;

impl Forger {
    pub(super) fn of(heap: &Heap) -> Self {
        let range = |tag: &str| heap.atoms().iter().find(|atom| atom.tag == tag).expect("all are there").range.clone();
        Self {
            blocks: range("BLOC"),
            heap: range("HEAP"),
            stack: range("STAC"),
            tables: ["CREA", "KEYS", "NAME", "SYMB"].map(range).to_vec(),
            atoms: heap.atoms().iter().map(|atom| atom.range.start - 8).chain([0]).collect(),
            keys: range("KEYS").len() / 8,
        }
    }

    /// Makes the changes that are chosen, up to a few.
    pub(super) fn forge(&self, image: &mut Vec<u8>, choices: &mut Choices<'_>) {
        for _ in 0..CHANGES_MAX {
            if choices.is_empty() {
                break;
            }
            match choices.below(32) {
                0 => {
                    let at = choices.below(image.len());
                    if let Some(byte) = image.get_mut(at) {
                        *byte ^= 1 << choices.below(8);
                    }
                }
                1 => {
                    let at = *self.atoms.get(choices.below(self.atoms.len())).expect("an atom");
                    let size = u32::try_from(choices.edge(image.len()) & 0xffff_ffff).expect("four bytes");
                    put(image, at, &size.to_be_bytes());
                }
                2 => {
                    let table = &self.tables[choices.below(self.tables.len())];
                    let at = table.start + choices.below(table.len() / 8) * 8;
                    put(image, at, &choices.edge(self.slots()).to_le_bytes());
                }
                3 if choices.below(8) == 0 => {
                    let keep = choices.below(image.len());
                    image.truncate(keep);
                }
                4 => {
                    let at = self.blocks.start + choices.below(self.blocks.len() / 8) * 8;
                    put(image, at, &choices.edge(self.blocks.len()).to_le_bytes());
                }
                5..=8 => self.content(image, choices),
                _ => self.slot(image, choices),
            }
        }
    }

    fn slots(&self) -> usize {
        self.heap.len() / SLOT
    }

    /// Changes bytes of a chunk that are no padding and no head: texts, code, numbers, items.
    fn content(&self, image: &mut [u8], choices: &mut Choices<'_>) {
        let at = self.blocks.start + choices.below(self.blocks.len());
        for at in at..(at + 1 + choices.below(4)).min(self.blocks.end) {
            if let Some(byte) = image.get_mut(at).filter(|byte| **byte != 0) {
                *byte = u8::try_from(choices.below(255) + 1).expect("a byte");
            }
        }
    }

    fn slot(&self, image: &mut [u8], choices: &mut Choices<'_>) {
        let count = self.slots();
        let index = match choices.below(16) {
            0 => None,
            _ => Some(choices.below(count)),
        };
        let at = match index {
            Some(index) => self.heap.start + index * SLOT,
            None => self.stack.start + choices.below(self.stack.len() / SLOT) * SLOT,
        };
        let index = index.unwrap_or(count);
        let Some(slot) = image.get(at..at + SLOT).map(<[u8]>::to_vec) else { return };
        let word = |slot: &[u8], at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes"));
        match choices.below(16) {
            0 => put(image, at, &choices.edge(count).to_le_bytes()),
            1 => put(image, at + 8, &[u8::try_from(choices.below(58)).expect("a byte").wrapping_sub(1)]),
            2 | 3 => put(image, at + 9, &[1 << choices.below(7)]),
            4 => put(image, at + 9, &[slot[9] ^ 1]),
            5 | 6 => put(image, at + 12, &u32::try_from(choices.below(self.keys)).expect("few").to_le_bytes()),
            7 => put(image, at + 12, &choices.word().to_le_bytes()),
            8 => put(image, at + 16 + 8 * choices.below(2), &choices.edge(count).to_le_bytes()),
            // References back to what a walk has met before may be changed without upsetting the order of slots.
            9..=11 => {
                let half = at + 16 + 8 * choices.below(2);
                let old = word(image, half);
                if old > 0 && old < index as u64 && slot[8] > 9 {
                    put(image, half, &(1 + choices.long() % index.max(1) as u64).to_le_bytes());
                }
            }
            12 => put(image, at + 16, &choices.long().to_le_bytes()),
            // Kinds whose values have the same form.
            13 => {
                const ALIKE: [&[u8]; 9] = [
                    &[27, 33],
                    &[35, 37],
                    &[14, 15, 16],
                    &[31, 38, 42],
                    &[3, 7],
                    &[4, 21, 22, 54, 39],
                    &[0, 1, 255, 12, 20, 48],
                    &[36, 10, 28, 29],
                    &[45, 46, 52, 53],
                ];
                if let Some(alike) = ALIKE.iter().find(|alike| alike.contains(&slot[8])) {
                    put(image, at + 8, &[alike[choices.below(alike.len())]]);
                }
            }
            // What another slot has.
            _ => {
                let from = self.heap.start + choices.below(index.min(count)) * SLOT;
                let Some(other) = image.get(from..from + SLOT).map(<[u8]>::to_vec) else { return };
                put(image, at + 8, &other[8..]);
            }
        }
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
