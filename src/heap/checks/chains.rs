//! The check of chains: every slot is in at most one, so each chain ends, and walking all of them takes as long as there are slots.
//!
//! Owns the marks of the slots that were met. It must never walk a slot twice.

use crate::heap::error::HeapError;
use crate::heap::model::Heap;
use crate::heap::slot::{Kind, SlotIndex};

impl Heap {
    /// Every slot is in at most one chain: so chains end, and walking all of them takes as long as there are slots.
    pub(super) fn check_chains(&self) -> Result<(), HeapError> {
        let mut claimed = vec![0_u64; self.slot_count as usize / 64 + 1];
        let mut claim = |first: SlotIndex, what: &str| {
            for (at, _) in self.chain(first) {
                let (word, bit) = (at as usize / 64, 1 << (at % 64));
                match claimed.get_mut(word) {
                    Some(word) if *word & bit == 0 => *word |= bit,
                    _ => return Err(HeapError::damaged(format!("slot {at} is in two chains, the second {what}"))),
                }
            }
            Ok(())
        };
        for index in 1..=self.slot_count {
            let slot = self.slot(index);
            match slot.kind {
                Kind::Instance => claim(index, "of an object's properties")?,
                Kind::Map | Kind::Set => {
                    let list = self.slot(slot.next);
                    if list.kind != Kind::List {
                        return Err(HeapError::damaged(format!("slot {index} is a collection without a list")));
                    }
                    claim(list.first(), "of a collection")?;
                }
                Kind::WeakMap | Kind::WeakSet => claim(slot.first(), "of a weak collection")?,
                Kind::Private => claim(slot.second(), "of private fields")?,
                Kind::FinalizationRegistry => claim(slot.first(), "of a finalization registry")?,
                _ => {}
            }
        }
        for table in [&self.container.names, &self.container.symbols] {
            for at in table.clone().step_by(8) {
                let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
                if bytes.is_none_or(|bytes| u64::from_le_bytes(*bytes) > u64::from(self.slot_count)) {
                    return Err(HeapError::damaged("a bucket of its atoms NAME and SYMB refers to no slot"));
                }
                claim(self.reference_at(at), "of keys")?;
            }
        }
        for at in self.container.keys.clone().step_by(8) {
            let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
            if bytes.is_none_or(|bytes| u64::from_le_bytes(*bytes) > u64::from(self.slot_count)) {
                return Err(HeapError::damaged("a row of its atom KEYS refers to no slot"));
            }
        }
        Ok(())
    }
}
