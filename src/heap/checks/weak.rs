//! The check of weak collections: an entry stands in the collection and in its key, and both say the same.
//!
//! It must never follow an entry to its value.

use crate::heap::error::HeapError;
use crate::heap::model::Heap;
use crate::heap::slot::Kind;

impl Heap {
    /// Checks that each entry stands in its collection and in its key, with the same value.
    pub(super) fn check_weak(&self) -> Result<(), HeapError> {
        let (mut of_lists, mut of_keys) = (Vec::new(), Vec::new());
        for index in 1..=self.slot_count {
            let slot = self.slot(index);
            match slot.kind {
                Kind::WeakMap | Kind::WeakSet => {
                    of_lists.extend(self.chain(slot.first()).map(|(_, entry)| (index, entry.first(), entry.second())));
                }
                Kind::Instance => of_keys.extend(
                    (self.own(index).filter(|(_, entry)| entry.kind == Kind::WeakEntry))
                        .map(|(_, entry)| (entry.first(), index, entry.second())),
                ),
                _ => {}
            }
        }
        of_lists.sort_unstable();
        of_keys.sort_unstable();
        let differs = of_lists.iter().zip(&of_keys).find(|(list, key)| list != key).map(|(list, key)| list.min(key));
        let Some((list, key, _)) = differs.or_else(|| match of_lists.len().cmp(&of_keys.len()) {
            std::cmp::Ordering::Less => of_keys.get(of_lists.len()),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => of_lists.get(of_keys.len()),
        }) else {
            return Ok(());
        };
        Err(HeapError::damaged(format!(
            "the weak collection of slot {list} and its key, slot {key}, do not say the same"
        )))
    }
}
