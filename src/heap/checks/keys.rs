//! The check of keys: each stands in the table, and where its hash says.
//!
//! Owns the tables that find keys by their text. It must never walk a chain before `chains` has shown that chains end.

use crate::heap::error::HeapError;
use crate::heap::model::Heap;
use crate::heap::slot::{Kind, Slot, flags};

impl Heap {
    /// Checks the table of keys and the two tables that find keys by their text.
    pub(super) fn check_keys(&self) -> Result<(), HeapError> {
        let container = &self.container;
        let (mut names, mut registered) = (0_u32, 0_u32);
        for id in 0..self.keys().count() {
            let at = self.key_slot(id);
            if at == 0 {
                continue;
            }
            let slot = self.slot(at);
            match slot.kind {
                Kind::Key if slot.flag & flags::NAME != 0 => names += 1,
                Kind::Key => registered += 1,
                Kind::String => continue,
                other => {
                    return Err(HeapError::damaged(format!("key {id} is slot {at}, of kind {}", other.label())));
                }
            }
            if slot.id != id {
                return Err(HeapError::damaged(format!("key {id} is slot {at}, which is that of key {}", slot.id)));
            }
            if slot.length() != sum(self.text(slot.first())) {
                return Err(HeapError::damaged(format!("the hash of key {id} is not that of its text")));
            }
        }
        let found = self.check_buckets("NAME", &container.names, |slot| slot.flag & flags::NAME != 0)?;
        if found != names {
            return Err(HeapError::damaged(format!("{names} keys are names, and {found} are in its atom NAME")));
        }
        let found = self.check_buckets("SYMB", &container.symbols, |slot| slot.flag & flags::NAME == 0)?;
        if found != registered {
            return Err(HeapError::damaged(format!(
                "{registered} keys are registered symbols, and {found} are in its atom SYMB"
            )));
        }
        Ok(())
    }

    /// The number of keys in the buckets. No slot is in two chains (`check_chains`), so this ends.
    fn check_buckets(
        &self,
        atom: &str,
        table: &std::ops::Range<usize>,
        belongs: impl Fn(Slot) -> bool,
    ) -> Result<u32, HeapError> {
        let buckets = table.len() / 8;
        let mut found = 0;
        for bucket in 0..buckets {
            let first = self.reference_at(table.start + bucket * 8);
            for (at, slot) in self.chain(first) {
                let is_key = slot.kind == Kind::Key && belongs(slot) && self.key_slot(slot.id) == at;
                if !is_key || slot.length() as usize % buckets != bucket {
                    return Err(HeapError::damaged(format!("slot {at} does not belong in bucket {bucket} of {atom}")));
                }
                found += 1;
            }
        }
        Ok(found)
    }
}

/// The hash by which the engine finds a key (`fxSum`).
fn sum(text: &[u8]) -> u32 {
    text.iter().fold(0_u32, |sum, byte| (sum << 1).wrapping_add(u32::from(*byte))) & 0x7fff_ffff
}
