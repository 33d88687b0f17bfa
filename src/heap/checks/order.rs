//! The order of slots: an image numbers them as a walk from the keys and the roots meets them (`fxIndexSlots`).
//!
//! Walking again must give 1, 2, 3 … to the last. That is the strongest check of all: it proves that every slot is reachable
//! and that none refers to another by mistake. Owns that walk. The engine recurses here; this must never do so.

use crate::heap::error::HeapError;
use crate::heap::model::Heap;
use crate::heap::slot::{Kind, Slot, SlotIndex};

/// A part that is still to be walked; the next is on top.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// An object, unless it has its number.
    Instance(SlotIndex),
    /// The rest of an object's chain.
    Chain(SlotIndex),
    /// A slot that holds a value, unless it has its number.
    Cell(SlotIndex),
    /// The rest of a list.
    List(SlotIndex),
    /// The rest of an object's private fields, or of a finalization registry.
    Own(SlotIndex),
    /// The rest of an array's items: where the next is, and where they end.
    Items(u32, u32),
}

struct Walk<'a> {
    heap: &'a Heap,
    /// Slots up to this one have their number.
    numbered: SlotIndex,
    /// For slots of a list that have their number: the first one behind them that had none. 0 is unknown.
    skips: Vec<u32>,
    tasks: Vec<Task>,
}

/// Stands in `Walk::skips` for the end of a list.
const END: u32 = u32::MAX;

/// Checks the order of all slots.
pub(super) fn check(heap: &Heap) -> Result<(), HeapError> {
    let mut walk =
        Walk { heap, numbered: 0, skips: vec![0; heap.slot_count() as usize + 1], tasks: Vec::with_capacity(256) };
    for id in 0..heap.keys().count() {
        let slot = heap.key_slot(id);
        if slot != 0 {
            walk.number(slot)?;
        }
    }
    for root in 0..heap.root_count() {
        walk.value(heap.root(root));
        while let Some(task) = walk.tasks.pop() {
            walk.run(task)?;
        }
    }
    if walk.numbered == heap.slot_count() {
        Ok(())
    } else {
        let (met, all) = (walk.numbered, heap.slot_count());
        Err(HeapError::damaged(format!("only {met} of its {all} slots can be reached from its roots")))
    }
}

impl Walk<'_> {
    fn has_number(&self, slot: SlotIndex) -> bool {
        slot <= self.numbered
    }

    fn number(&mut self, slot: SlotIndex) -> Result<(), HeapError> {
        self.numbered += 1;
        if slot == self.numbered {
            Ok(())
        } else {
            let expected = self.numbered;
            Err(HeapError::damaged(format!(
                "its slots are out of order: slot {slot} is met where {expected} should be"
            )))
        }
    }

    fn push_instance(&mut self, slot: SlotIndex) {
        if slot != 0 && !self.has_number(slot) {
            self.tasks.push(Task::Instance(slot));
        }
    }

    fn run(&mut self, task: Task) -> Result<(), HeapError> {
        match task {
            Task::Instance(slot) if self.has_number(slot) => {}
            Task::Instance(slot) | Task::Chain(slot) => self.chain(slot)?,
            Task::Cell(at) => {
                if at != 0 && !self.has_number(at) {
                    self.number(at)?;
                    self.value(self.heap.slot(at));
                }
            }
            Task::List(at) => {
                let at = self.first_without_number(at)?;
                if at != 0 {
                    self.number(at)?;
                    let slot = self.heap.slot(at);
                    self.tasks.push(Task::List(slot.next));
                    self.value(slot);
                }
            }
            Task::Own(at) => {
                if at != 0 {
                    self.number(at)?;
                    let slot = self.heap.slot(at);
                    self.tasks.push(Task::Own(slot.next));
                    self.value(slot);
                }
            }
            Task::Items(at, end) => {
                if at < end {
                    self.tasks.push(Task::Items(at + 32, end));
                    self.value(self.heap.item_at(at));
                }
            }
        }
        Ok(())
    }

    /// The rest of an object's chain, as far as it goes without leaving it.
    fn chain(&mut self, mut at: SlotIndex) -> Result<(), HeapError> {
        while at != 0 {
            let slot = self.heap.slot(at);
            if self.has_number(at) {
                at = slot.next;
                continue;
            }
            self.number(at)?;
            let before = self.tasks.len();
            match slot.kind {
                Kind::Instance => self.push_instance(slot.second()),
                Kind::Closure => {
                    let cell = slot.first();
                    if cell != 0 && !self.has_number(cell) {
                        self.number(cell)?;
                        self.value(self.heap.slot(cell));
                    }
                }
                _ => self.value(slot),
            }
            if self.tasks.len() > before {
                // The pushed tasks come first, then the rest of this chain.
                self.tasks.insert(before, Task::Chain(slot.next));
                return Ok(());
            }
            at = slot.next;
        }
        Ok(())
    }

    /// Pushes what a value leads to, the first on top.
    fn value(&mut self, slot: Slot) {
        match slot.kind {
            Kind::Reference => self.push_instance(slot.first()),
            Kind::Closure => self.tasks.push(Task::Cell(slot.first())),
            Kind::Accessor | Kind::Home | Kind::Proxy => {
                self.push_instance(slot.second());
                self.push_instance(slot.first());
            }
            Kind::ArgumentsSloppy | Kind::ArgumentsStrict | Kind::Array | Kind::Stack => {
                let (at, end) = self.heap.items_range(slot.first());
                self.tasks.push(Task::Items(at, end));
            }
            Kind::Code => self.push_instance(slot.second()),
            Kind::Module | Kind::Program => self.push_instance(slot.first()),
            Kind::Export => {
                self.push_instance(slot.second());
                self.tasks.push(Task::Cell(slot.first()));
            }
            Kind::Error => self.push_instance(slot.first()),
            Kind::List | Kind::WeakMap | Kind::WeakSet => self.tasks.push(Task::List(slot.first())),
            Kind::Private => {
                self.tasks.push(Task::Own(slot.second()));
                self.push_instance(slot.first());
            }
            Kind::WeakEntry if self.has_number(slot.first()) => self.tasks.push(Task::Cell(slot.second())),
            Kind::FinalizationRegistry => self.tasks.push(Task::Own(slot.first())),
            _ => {}
        }
    }

    /// The first slot of a list from here on that has no number. Iterators point into the lists of their collections, so
    /// a list may be walked often: what was passed once is passed in one step.
    fn first_without_number(&mut self, start: SlotIndex) -> Result<SlotIndex, HeapError> {
        let mut at = start;
        let mut steps = 0;
        while at != 0 && self.has_number(at) {
            at = self.behind(at);
            steps += 1;
            if steps > self.heap.slot_count() {
                return Err(HeapError::damaged(format!("the list at slot {start} goes in a circle")));
            }
        }
        let found = at;
        let mut at = start;
        while at != found && at != 0 {
            let behind = self.behind(at);
            if let Some(skip) = self.skips.get_mut(at as usize) {
                *skip = if found == 0 { END } else { found };
            }
            at = behind;
        }
        Ok(found)
    }

    fn behind(&self, at: SlotIndex) -> SlotIndex {
        match self.skips.get(at as usize) {
            None | Some(0) => self.heap.slot(at).next,
            Some(&END) => 0,
            Some(&skip) => skip,
        }
    }
}
