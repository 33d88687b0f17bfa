//! Keys: the names of properties and variables, and symbols.
//!
//! Owns the check of the tables that find them. Their numbers are in the order in which a worker came to know them, which is
//! history: it must never compare two of them by number.

use super::check::Heap;
use super::container::Container;
use super::slot::{Kind, SlotIndex, flags};
use super::{HeapError, Slot};

/// The number of a key in its heap.
pub type KeyId = u32;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// A string.
    Name(&'a [u8]),
    /// `Symbol.for(text)`.
    Registered(&'a [u8]),
    /// `Symbol(text)`, equal to none but itself.
    Unique(&'a [u8]),
    /// `Symbol()`.
    Nameless,
    /// No key: the number is beyond the table.
    None,
}

/// How many keys there are, and where their table is.
#[derive(Debug, Clone)]
pub struct Keys {
    at: usize,
    count: u32,
}

impl Keys {
    pub(super) fn new(container: &Container) -> Self {
        let count = u32::try_from(container.keys.len() / 8).unwrap_or(0);
        Self { at: container.keys.start, count }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Where the slot of a key stands in the table; `None` beyond the table.
    pub(super) fn row(&self, id: KeyId) -> Option<usize> {
        (id < self.count).then(|| self.at + id as usize * 8)
    }
}

impl Heap {
    /// The key of a number.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Key<'_> {
        let Some(row) = self.keys().row(id) else { return Key::None };
        let slot = self.slot(self.reference_at(row));
        match slot.kind {
            Kind::Key if slot.flag & flags::NAME != 0 => Key::Name(self.text(slot.first())),
            Kind::Key => Key::Registered(self.text(slot.first())),
            Kind::String => Key::Unique(self.text(slot.first())),
            _ => Key::Nameless,
        }
    }

    /// The slot of a key, 0 for `Symbol()`.
    pub(super) fn key_slot(&self, id: KeyId) -> SlotIndex {
        self.keys().row(id).map_or(0, |row| self.reference_at(row))
    }

    /// Checks the table of keys and the two tables that find keys by their text.
    pub(super) fn check_keys(&self, container: &Container) -> Result<(), HeapError> {
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

    /// How many keys are in the buckets. No slot is in two chains (`check_chains`), so this ends.
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
