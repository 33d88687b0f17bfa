//! A census of a heap: its objects by kind, and their number.
//!
//! Owns the counts, and which of the large things are shown. It must never compare.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::graph::Class;
use super::keys::Key;
use super::model::{ChunkUse, Heap};
use super::naming::Names;
use super::slot::{Kind, Slot, SlotIndex};
use super::text;

/// Slots by kind.
pub type Kinds = BTreeMap<Kind, u64>;

/// Counts the slots of a heap by kind, items of arrays included.
#[must_use]
pub fn kinds(heap: &Heap) -> Kinds {
    let mut kinds = Kinds::new();
    each_slot(heap, |slot| *kinds.entry(slot.kind).or_default() += 1);
    kinds
}

/// Shows every slot, those of the heap, of its arrays and of its stacks.
pub(super) fn each_slot(heap: &Heap, mut show: impl FnMut(Slot)) {
    for index in 1..=heap.slot_count() {
        let slot = heap.slot(index);
        show(slot);
        if has_items(slot.kind) {
            heap.items(slot.first()).for_each(&mut show);
        }
    }
}

pub(super) fn has_items(kind: Kind) -> bool {
    matches!(kind, Kind::Array | Kind::ArgumentsSloppy | Kind::ArgumentsStrict | Kind::Stack)
}

/// Something large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Large {
    /// The path to it.
    pub path: String,
    /// Bytes of a text, items of an array, entries of a collection.
    pub size: u64,
    /// The beginning of a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its kind in words.
    pub what: &'static str,
}

/// A heap in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Census {
    /// Slots by kind.
    pub slots: BTreeMap<&'static str, u64>,
    /// Chunks by use: how many, and how many bytes.
    pub chunks: BTreeMap<&'static str, (u64, u64)>,
    /// Objects by what they are.
    pub objects: BTreeMap<&'static str, u64>,
    /// The number of keys.
    pub keys: u64,
    /// The longest texts.
    pub largest_texts: Vec<Large>,
    /// The longest arrays.
    pub largest_arrays: Vec<Large>,
    /// The collections with the most entries.
    pub largest_collections: Vec<Large>,
    /// Functions by source file, most first.
    pub functions: Vec<(String, u64)>,
    /// The number of realms: one, and one for each compartment of the engine.
    pub realms: u64,
    /// The names of the objects that liveslots registered, by their first letter: `o`, `p`, `d`.
    pub registered: BTreeMap<String, u64>,
}

impl Census {
    /// Counts a heap; of large things and files, at most so many are named.
    #[must_use]
    pub fn of(heap: &Heap, names: &Names<'_>, shown_max: usize) -> Self {
        let mut objects = BTreeMap::new();
        let (mut files, mut realms) = (HashMap::new(), std::collections::HashSet::new());
        let (mut texts, mut arrays, mut collections) =
            (Largest::new(shown_max), Largest::new(shown_max), Largest::new(shown_max));
        for index in 1..=heap.slot_count() {
            let slot = heap.slot(index);
            if matches!(slot.kind, Kind::Module | Kind::Program) {
                realms.insert(slot.first());
            }
            if slot.kind != Kind::Instance {
                continue;
            }
            let class = heap.class(index);
            *objects.entry(class.label()).or_default() += 1;
            if class == Class::Function {
                let file = heap.origin(index).and_then(|origin| origin.file);
                *files.entry(file.unwrap_or_else(|| "(unknown)".to_owned())).or_default() += 1;
            }
            measure(heap, index, &mut texts, &mut arrays, &mut collections);
        }
        let mut functions: Vec<(String, u64)> = files.into_iter().collect();
        functions.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        functions.truncate(shown_max);
        let mut registered = BTreeMap::new();
        for object in heap.registered() {
            let sort =
                object.vref.iter().take_while(|byte| **byte != b'-' && **byte != b'+').copied().collect::<Vec<u8>>();
            let direction = object.vref.get(sort.len()).map_or("", |byte| if *byte == b'-' { "-" } else { "+" });
            *registered.entry(format!("{}{direction}", text::decode(&sort))).or_default() += 1;
        }
        let name = |large: Largest, what: &'static str| -> Vec<Large> {
            let show = |(size, node, sample): (u64, SlotIndex, Slot)| Large {
                path: names.path(node),
                size,
                text: matches!(sample.kind, Kind::String).then(|| text::quoted(heap.text(sample.first()), 60)),
                what,
            };
            large.found.into_iter().map(show).collect()
        };
        Self {
            slots: kinds(heap).into_iter().map(|(kind, count)| (kind.label(), count)).collect(),
            chunks: ChunkUse::ALL.into_iter().map(|used| (used.label(), heap.chunks(used))).collect(),
            objects,
            keys: heap.keys().count().into(),
            largest_texts: name(texts, "text"),
            largest_arrays: name(arrays, "array"),
            largest_collections: name(collections, "collection"),
            functions,
            realms: realms.len() as u64,
            registered,
        }
    }
}

/// The largest of what is offered.
struct Largest {
    max: usize,
    found: Vec<(u64, SlotIndex, Slot)>,
}

impl Largest {
    fn new(max: usize) -> Self {
        Self { max, found: Vec::with_capacity(max + 1) }
    }

    fn offer(&mut self, size: u64, node: SlotIndex, slot: Slot) {
        if size == 0 || self.found.len() == self.max && self.found.last().is_none_or(|least| least.0 >= size) {
            return;
        }
        let at = self.found.partition_point(|known| known.0 >= size);
        self.found.insert(at, (size, node, slot));
        self.found.truncate(self.max);
    }
}

fn measure(heap: &Heap, index: SlotIndex, texts: &mut Largest, arrays: &mut Largest, collections: &mut Largest) {
    let mut before = Kind::Uninitialized;
    for (_, slot) in heap.own(index) {
        match slot.kind {
            Kind::String => texts.offer(heap.text(slot.first()).len() as u64, index, slot),
            // A variable's text belongs to the scope.
            Kind::Closure => {
                let cell = heap.slot(slot.first());
                if cell.kind == Kind::String {
                    texts.offer(heap.text(cell.first()).len() as u64, slot.first(), cell);
                }
            }
            Kind::Array => {
                arrays.offer(slot.high, index, slot);
                for item in heap.items(slot.first()).filter(|item| item.kind == Kind::String) {
                    texts.offer(heap.text(item.first()).len() as u64, index, item);
                }
            }
            Kind::Integer if before == Kind::List => {
                collections.offer(u64::try_from(slot.integer()).unwrap_or(0), index, slot);
            }
            Kind::WeakMap | Kind::WeakSet => collections.offer(heap.chain(slot.first()).count() as u64, index, slot),
            Kind::List if matches!(before, Kind::Map | Kind::Set) => {
                for (_, entry) in heap.chain(slot.first()).filter(|(_, entry)| entry.kind == Kind::String) {
                    texts.offer(heap.text(entry.first()).len() as u64, index, entry);
                }
            }
            _ => {}
        }
        before = slot.kind;
    }
}

/// Texts and keys that only one of two heaps has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Only {
    /// Texts.
    pub texts: Vec<String>,
    /// Names of properties and variables.
    pub keys: Vec<String>,
    /// Functions.
    pub functions: Vec<String>,
}

/// Texts, keys and functions that are in one heap only, at most so many of each.
#[must_use]
pub fn only(recorded: &Heap, replayed: &Heap, shown_max: usize) -> (Only, Only) {
    let (mut in_recorded, mut in_replayed) = (Only::default(), Only::default());
    let (texts, texts_other) = (texts(recorded), texts(replayed));
    let (keys, keys_other) = (keys(recorded), keys(replayed));
    let missing = |of: &HashMap<&[u8], u64>, in_other: &HashMap<&[u8], u64>| -> Vec<String> {
        let mut missing: Vec<&[u8]> = of.keys().filter(|text| !in_other.contains_key(**text)).copied().collect();
        missing.sort_unstable();
        missing.into_iter().take(shown_max).map(|text| text::quoted(text, 100)).collect()
    };
    in_recorded.texts = missing(&texts, &texts_other);
    in_replayed.texts = missing(&texts_other, &texts);
    in_recorded.keys = missing(&keys, &keys_other);
    in_replayed.keys = missing(&keys_other, &keys);
    let (functions, functions_other) = (functions(recorded), functions(replayed));
    let missing = |of: &BTreeMap<String, u64>, in_other: &BTreeMap<String, u64>| -> Vec<String> {
        let more = of.iter().filter(|(name, count)| in_other.get(*name).copied().unwrap_or(0) < **count);
        more.take(shown_max).map(|(name, _)| name.clone()).collect()
    };
    in_recorded.functions = missing(&functions, &functions_other);
    in_replayed.functions = missing(&functions_other, &functions);
    (in_recorded, in_replayed)
}

fn texts(heap: &Heap) -> HashMap<&[u8], u64> {
    let mut texts = HashMap::new();
    each_slot(heap, |slot| {
        if slot.kind == Kind::String {
            *texts.entry(heap.text(slot.first())).or_default() += 1;
        }
    });
    texts
}

fn keys(heap: &Heap) -> HashMap<&[u8], u64> {
    let keys = (0..heap.keys().count()).filter_map(|id| match heap.key(id) {
        Key::Name(name) | Key::Registered(name) => Some((name, 1)),
        _ => None,
    });
    keys.collect()
}

fn functions(heap: &Heap) -> BTreeMap<String, u64> {
    let mut functions = BTreeMap::new();
    for index in 1..=heap.slot_count() {
        if heap.slot(index).kind == Kind::Instance && heap.class(index) == Class::Function {
            let name = heap.origin(index).map(|origin| origin.to_string()).unwrap_or_default();
            *functions.entry(name).or_default() += 1;
        }
    }
    functions
}
