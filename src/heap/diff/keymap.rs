//! The map from the keys of one heap to those of the other. It must never pair keys by number.
//!
//! Names and registered symbols are the same if their text is. Whether two unique symbols are the same can be told only when
//! all places are known where one stands for the other ([`Sightings`]). Keys that the engine makes up (`#7`) are paired as
//! they are met, and only where it makes them up; a property that a program calls `#7` is a name like any other.

use std::collections::HashMap;

use crate::heap::graph::Label;
use crate::heap::slot::SlotIndex;
use crate::heap::{Heap, Key, KeyId};

/// The engine's own symbols, such as `Symbol.iterator`, have the numbers below.
const WELL_KNOWN_END: KeyId = 14;

/// The keys of two heaps.
#[derive(Debug)]
pub(super) struct KeyMap {
    /// For each key of the recorded heap, a number that equal texts share.
    pub recorded: Vec<u32>,
    /// The same for the replayed heap.
    pub replayed: Vec<u32>,
    made_up: Pairs,
    /// Keys whose number is not the same in both heaps.
    pub renumbered: u64,
}

#[derive(Debug, Default)]
struct Pairs {
    of_recorded: HashMap<KeyId, KeyId>,
    of_replayed: HashMap<KeyId, KeyId>,
}

impl Pairs {
    fn may_be(&self, recorded: KeyId, replayed: KeyId) -> bool {
        self.of_recorded.get(&recorded).is_none_or(|known| *known == replayed)
            && self.of_replayed.get(&replayed).is_none_or(|known| *known == recorded)
    }

    fn pair(&mut self, recorded: KeyId, replayed: KeyId) {
        self.of_recorded.entry(recorded).or_insert(replayed);
        self.of_replayed.entry(replayed).or_insert(recorded);
    }
}

/// Why two keys are taken for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SameKey {
    /// They are the same text.
    Text,
    /// They are unique symbols of the same name, which may be the same.
    Unique,
    /// The engine made both up.
    MadeUp,
}

impl KeyMap {
    pub(super) fn of(recorded: &Heap, replayed: &Heap) -> Self {
        let mut numbers: HashMap<Key<'_>, u32> = HashMap::new();
        let mut number = |heap| {
            let mut list = Vec::new();
            each_key(heap, |key| {
                let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                list.push(*numbers.entry(key).or_insert(next));
            });
            list
        };
        let (recorded, replayed): (Vec<u32>, Vec<u32>) = (number(recorded), number(replayed));
        let same = recorded.iter().zip(&replayed).filter(|(one, other)| one == other).count();
        let renumbered = (recorded.len().max(replayed.len()) - same) as u64;
        Self { recorded, replayed, made_up: Pairs::default(), renumbered }
    }

    /// Whether two keys can be the same. `may_be_made_up` where the engine puts keys of its own.
    pub(super) fn same(
        &self,
        heaps: (&Heap, &Heap),
        recorded: KeyId,
        replayed: KeyId,
        may_be_made_up: bool,
    ) -> Option<SameKey> {
        let numbers = (self.recorded.get(recorded as usize), self.replayed.get(replayed as usize));
        match heaps.0.key(recorded) {
            // Those that every engine has keep their numbers; a program can make another of the same name, and damage a name.
            Key::Unique(_) if recorded < WELL_KNOWN_END || replayed < WELL_KNOWN_END => {
                (recorded == replayed && numbers.0 == numbers.1).then_some(SameKey::Text)
            }
            Key::Unique(_) | Key::Nameless => (numbers.0 == numbers.1).then_some(SameKey::Unique),
            _ if numbers.0 == numbers.1 && numbers.0.is_some() && !may_be_made_up => Some(SameKey::Text),
            Key::Name(one) if may_be_made_up && is_made_up(one) => match heaps.1.key(replayed) {
                Key::Name(other) if is_made_up(other) => Some(SameKey::MadeUp),
                _ => None,
            },
            _ => (numbers.0 == numbers.1 && numbers.0.is_some()).then_some(SameKey::Text),
        }
    }

    /// Whether two places in the caches of templates can be the same.
    pub(super) fn same_template(&self, recorded: KeyId, replayed: KeyId) -> bool {
        self.made_up.may_be(recorded, replayed)
    }

    /// Keeps it that two places in the caches of templates are the same.
    pub(super) fn pair_template(&mut self, recorded: KeyId, replayed: KeyId) {
        self.made_up.pair(recorded, replayed);
    }
}

/// Where a unique symbol of one heap stands for one of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    /// The nodes.
    pub nodes: (SlotIndex, SlotIndex),
    /// Where in the nodes.
    pub label: Label,
    /// How many differences lie on the way.
    pub behind: u32,
}

/// All places where unique symbols stand for each other.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    places: HashMap<(KeyId, KeyId), (u64, Vec<Sighting>)>,
}

impl Sightings {
    /// Of each pair, so many places are kept; the others are counted.
    const KEPT_MAX: usize = 100;

    pub(super) fn add(&mut self, recorded: KeyId, replayed: KeyId, sighting: Sighting) {
        let (count, kept) = self.places.entry((recorded, replayed)).or_default();
        *count += 1;
        if kept.len() < Self::KEPT_MAX {
            kept.push(sighting);
        }
    }

    /// Takes each symbol for the one that it stands for most often, and returns the places that speak against it, with how
    /// many they are. There are none exactly if each symbol of one heap is always the same one of the other.
    pub(super) fn contradictions(self) -> Vec<((KeyId, KeyId), u64, Vec<Sighting>)> {
        let mut all: Vec<_> = self.places.into_iter().map(|(pair, (count, kept))| (pair, count, kept)).collect();
        all.sort_by_key(|((recorded, replayed), count, _)| {
            (std::cmp::Reverse(*count), recorded != replayed, *recorded, *replayed)
        });
        let mut pairs = Pairs::default();
        all.retain(|((recorded, replayed), _, _)| {
            let is_free = pairs.may_be(*recorded, *replayed);
            if is_free {
                pairs.pair(*recorded, *replayed);
            }
            !is_free
        });
        all
    }
}

fn each_key<'a>(heap: &'a Heap, mut show: impl FnMut(Key<'a>)) {
    for id in 0..heap.keys().count() {
        show(heap.key(id));
    }
}

/// Whether a name is one that the engine makes up: `#` and digits.
pub(super) fn is_made_up(name: &[u8]) -> bool {
    matches!(name, [b'#', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}
