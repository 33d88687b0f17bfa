//! The walk through both heaps in step, from the roots.
//!
//! Owns which object of one heap is which of the other. A pair is made where both are found in the same place. One whose
//! slots agree is believed at once; the others wait until nothing else is left, the most alike first, and what lies behind
//! them says so. Work is kept in queues: nothing may recurse, and no pair may be compared more than twice.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use super::compare::{Local, Pairing};
use super::keymap::{Sighting, Sightings};
use super::{Comparison, DIFFERENCES_MAX, Difference, Likeness, TRACES_MAX, Trace, TraceKind, What};
use crate::heap::graph::Label;
use crate::heap::slot::{Kind, SlotIndex};
use crate::heap::{Heap, ROOTS};

/// A node that is found in place of so many others, and is none of them, is not compared with yet another. In heaps that are
/// the same each node is found in place of one only, so no answer depends on this.
const TRIES_MAX: u32 = 64;

/// Two nodes that were found in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    one: SlotIndex,
    other: SlotIndex,
    /// Where: the nodes that refer to them, 0 for a root.
    from: (SlotIndex, SlotIndex),
    /// The number of the label in `Walk::labels`.
    label: u32,
    /// How many differences lie on the way.
    behind: u32,
}

struct Walk<'a> {
    pairing: Pairing<'a>,
    queue: VecDeque<Arrival>,
    /// Pairs that differ at first sight, with how much.
    deferred: BinaryHeap<Reverse<(usize, usize, Arrival)>>,
    is_deferred: HashSet<(SlotIndex, SlotIndex)>,
    /// The failed comparisons of each node with nodes of the replayed heap.
    tries: HashMap<SlotIndex, u32>,
    /// What can only be judged when all pairs are made.
    open: Vec<Arrival>,
    labels: Labels,
    /// For each entry of the replayed heap's weak collections, by collection and key: its cell.
    weak: HashMap<(SlotIndex, SlotIndex), SlotIndex>,
    /// How many entries of each weak collection of the recorded heap have a counterpart.
    weak_found: HashMap<SlotIndex, u64>,
    positions: Vec<(SlotIndex, SlotIndex, SlotIndex, SlotIndex)>,
    symbols: Sightings,
    differences: Vec<Difference>,
    differences_total: u64,
    traces: Vec<Trace>,
    counts: [u64; TraceKind::ALL.len()],
}

/// Labels by number, so that an arrival stays small.
#[derive(Debug, Default)]
struct Labels {
    numbers: HashMap<Label, u32>,
    labels: Vec<Label>,
}

impl Labels {
    fn number(&mut self, label: Label) -> u32 {
        let next = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(label).or_insert_with(|| {
            self.labels.push(label);
            next
        })
    }

    fn label(&self, number: u32) -> Label {
        self.labels.get(number as usize).copied().unwrap_or(Label::Content)
    }
}

/// Walks both heaps; the likeness is left open.
pub(super) fn walk<'a>(recorded: &'a Heap, replayed: &'a Heap) -> Comparison<'a> {
    let mut walk = Walk {
        pairing: Pairing::new(recorded, replayed),
        queue: VecDeque::new(),
        deferred: BinaryHeap::new(),
        is_deferred: HashSet::new(),
        tries: HashMap::new(),
        open: Vec::new(),
        labels: Labels::default(),
        weak: weak_entries(replayed),
        weak_found: HashMap::new(),
        positions: Vec::new(),
        symbols: Sightings::default(),
        differences: Vec::new(),
        differences_total: 0,
        traces: Vec::new(),
        counts: Default::default(),
    };
    let mut local = Local::default();
    walk.begin(recorded, replayed, &mut local);
    loop {
        while let Some(arrival) = walk.queue.pop_front() {
            walk.arrive(arrival, &mut local);
        }
        let Some(Reverse((_, _, arrival))) = walk.deferred.pop() else { break };
        if walk.pairing.counterparts(arrival.one, arrival.other) == (0, 0) {
            walk.pairing.compare(arrival.one, arrival.other, &mut local);
            walk.settle(arrival, &mut local);
        } else {
            walk.open.push(arrival);
        }
    }
    walk.end();
    let unpaired = (unpaired(recorded, &walk.pairing.recorded.pairs), unpaired(replayed, &walk.pairing.replayed.pairs));
    walk.counts[TraceKind::KeyNumber as usize] = walk.pairing.keys.renumbered;
    Comparison {
        recorded,
        replayed,
        likeness: Likeness::Different,
        differences: walk.differences,
        differences_total: walk.differences_total,
        traces: walk.traces,
        trace_counts: walk.counts,
        unpaired,
        pairs: walk.pairing.recorded.pairs,
    }
}

impl Walk<'_> {
    /// The roots, and the objects that liveslots registered under the same name: where pairs begin.
    fn begin(&mut self, recorded: &Heap, replayed: &Heap, local: &mut Local) {
        let (roots, roots_other) = (recorded.root_count(), replayed.root_count());
        if roots != roots_other {
            self.difference(0, 0, Label::Internal("roots", 0), What::Length(roots as u64, roots_other as u64), 0);
        }
        let mut roots: Vec<usize> = (0..roots.min(roots_other)).collect();
        // What the engine makes before any program runs is the surest.
        roots.sort_by_key(|root| !ROOTS.get(*root).is_some_and(|name| name.starts_with('%')));
        let intrinsics =
            roots.iter().take_while(|root| ROOTS.get(**root).is_some_and(|name| name.starts_with('%'))).count();
        for root in roots.iter().take(intrinsics) {
            self.root(*root, local);
        }
        let of_recorded: HashMap<&[u8], (u32, SlotIndex)> = (0_u32..)
            .zip(recorded.registered())
            .map(|(number, registered)| (registered.vref, (number, registered.object)))
            .collect();
        for registered in replayed.registered() {
            if let Some((number, object)) = of_recorded.get(registered.vref) {
                self.push(*object, registered.object, (0, 0), Label::Registered(*number), 0);
            }
        }
        for root in roots.iter().skip(intrinsics) {
            self.root(*root, local);
        }
    }

    fn root(&mut self, root: usize, local: &mut Local) {
        let (one, other) = (self.pairing.recorded.heap.root(root), self.pairing.replayed.heap.root(root));
        let label = Label::Root(u32::try_from(root).unwrap_or(u32::MAX));
        self.pairing.compare_roots(one, other, label, local);
        self.keep(local, (0, 0), 0);
    }

    fn push(&mut self, one: SlotIndex, other: SlotIndex, from: (SlotIndex, SlotIndex), label: Label, behind: u32) {
        let label = self.labels.number(label);
        self.queue.push_back(Arrival { one, other, from, label, behind });
    }

    fn difference(&mut self, recorded: SlotIndex, replayed: SlotIndex, label: Label, what: What, behind: u32) {
        self.differences_total += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(Difference { recorded, replayed, label, what, behind });
        }
    }

    fn arrive(&mut self, arrival: Arrival, local: &mut Local) {
        let Arrival { one, other, .. } = arrival;
        match self.pairing.counterparts(one, other) {
            pair if pair == (other, one) => {}
            (0, 0) if self.is_deferred.contains(&(one, other)) => self.open.push(arrival),
            (0, 0)
                if self.tries.get(&one).is_none_or(|tries| *tries < TRIES_MAX)
                    && self.pairing.is_comparable(one, other) =>
            {
                self.pairing.compare(one, other, local);
                if local.findings.is_empty() {
                    self.settle(arrival, local);
                } else {
                    self.is_deferred.insert((one, other));
                    *self.tries.entry(one).or_default() += 1;
                    let order = self.is_deferred.len();
                    self.deferred.push(Reverse((local.findings.len(), order, arrival)));
                }
            }
            _ => self.open.push(arrival),
        }
    }

    /// Makes two nodes a pair, with all that follows.
    fn settle(&mut self, arrival: Arrival, local: &mut Local) {
        let Arrival { one, other, behind, .. } = arrival;
        self.pairing.pair(one, other);
        self.weak_values_of(one, other, behind);
        for number in 0..local.slots.len() {
            let (slot, slot_other) = local.slots[number];
            self.pairing.pair(slot, slot_other);
            if matches!(self.pairing.recorded.heap.slot(slot).kind, Kind::WeakMap | Kind::WeakSet) {
                self.weak_entries_of(slot, slot_other, behind);
            }
        }
        self.keep(local, (one, other), behind);
    }

    /// Takes over what comparing two nodes gave.
    fn keep(&mut self, local: &mut Local, from: (SlotIndex, SlotIndex), behind: u32) {
        for (one, other, label) in local.symbols.drain(..) {
            self.symbols.add(one, other, Sighting { nodes: from, label, behind });
        }
        for (one, other) in local.templates.drain(..) {
            self.pairing.keys.pair_template(one, other);
        }
        let is_different = !local.findings.is_empty();
        for (label, what) in local.findings.drain(..) {
            self.difference(from.0, from.1, label, what, behind);
        }
        let behind = behind + u32::from(is_different);
        for (one, other, label) in local.children.drain(..) {
            self.push(one, other, from, label, behind);
        }
        for (one, other) in local.positions.drain(..) {
            self.positions.push((one, other, from.0, from.1));
        }
        for trace in local.traces.drain(..) {
            if self.traces.len() < TRACES_MAX {
                self.traces.push(Trace { recorded: from.0, ..trace });
            }
        }
        for (count, more) in self.counts.iter_mut().zip(local.counts) {
            *count += more;
        }
    }

    /// What weak collections have for an object that was just paired, where the collection was before.
    fn weak_values_of(&mut self, one: SlotIndex, other: SlotIndex, behind: u32) {
        let heap = self.pairing.recorded.heap;
        if heap.slot(one).kind != Kind::Instance {
            return;
        }
        for (_, entry) in heap.own(one).filter(|(_, slot)| slot.kind == Kind::WeakEntry) {
            let (list_other, _) = self.pairing.counterparts(entry.first(), 0);
            if list_other != 0 {
                self.weak_entry((entry.first(), list_other), (one, other), entry.second(), behind);
            }
        }
    }

    /// What a weak collection that was just paired has for objects that were before.
    fn weak_entries_of(&mut self, list: SlotIndex, list_other: SlotIndex, behind: u32) {
        let heap = self.pairing.recorded.heap;
        for (_, entry) in heap.chain(heap.slot(list).first()) {
            let (key_other, _) = self.pairing.counterparts(entry.first(), 0);
            if key_other != 0 {
                self.weak_entry((list, list_other), (entry.first(), key_other), entry.second(), behind);
            }
        }
    }

    fn weak_entry(
        &mut self,
        (list, list_other): (SlotIndex, SlotIndex),
        (key, key_other): (SlotIndex, SlotIndex),
        cell: SlotIndex,
        behind: u32,
    ) {
        let label = Label::WeakValue(list);
        match self.weak.get(&(list_other, key_other)) {
            Some(cell_other) => {
                *self.weak_found.entry(list).or_default() += 1;
                if cell != 0 && *cell_other != 0 {
                    self.push(cell, *cell_other, (key, key_other), label, behind);
                }
            }
            None => {
                let value = self.pairing.recorded.heap.slot(cell);
                self.difference(key, key_other, label, What::OnlyRecorded(value), behind);
            }
        }
    }

    /// What can only be told when all pairs are made.
    fn end(&mut self) {
        for arrival in std::mem::take(&mut self.open) {
            let Arrival { one, other, from, behind, .. } = arrival;
            if self.pairing.counterparts(one, other) != (other, one) {
                let label = self.labels.label(arrival.label);
                self.difference(from.0, from.1, label, What::Target(one, other), behind);
            }
        }
        for ((one, other), count, places) in std::mem::take(&mut self.symbols).contradictions() {
            self.differences_total += count.saturating_sub(places.len() as u64);
            for Sighting { nodes, label, behind } in places {
                self.difference(nodes.0, nodes.1, label, What::Name(one, other), behind);
            }
        }
        self.weak_only_replayed();
        // Entries that were deleted under an iterator are looked through, but not without end.
        let mut steps_left = 1 << 24;
        for (one, other, node, node_other) in std::mem::take(&mut self.positions) {
            if !self.is_same_position(one, other, &mut steps_left) {
                self.difference(node, node_other, Label::Internal("list", 0), What::Position, 0);
            }
        }
    }

    /// Entries of weak collections that only the replayed heap has, though it shares collection and key.
    fn weak_only_replayed(&mut self) {
        let (heap, heap_other) = (self.pairing.recorded.heap, self.pairing.replayed.heap);
        for list_other in 1..=heap_other.slot_count() {
            let slot = heap_other.slot(list_other);
            let (_, list) = self.pairing.counterparts(0, list_other);
            if !matches!(slot.kind, Kind::WeakMap | Kind::WeakSet) || list == 0 {
                continue;
            }
            let count = heap_other.chain(slot.first()).count() as u64;
            if self.weak_found.get(&list).copied().unwrap_or(0) == count {
                continue;
            }
            let known: HashSet<SlotIndex> =
                heap.chain(heap.slot(list).first()).map(|(_, entry)| entry.first()).collect();
            for (_, entry) in heap_other.chain(slot.first()) {
                let (_, key) = self.pairing.counterparts(0, entry.first());
                if key != 0 && !known.contains(&key) {
                    let value = heap_other.slot(entry.second());
                    self.difference(key, entry.first(), Label::WeakValue(list_other), What::OnlyReplayed(value), 0);
                }
            }
        }
    }

    /// Whether two iterators stand at the same entry. One that was deleted meanwhile leads on to those that are left.
    fn is_same_position(&self, mut one: SlotIndex, mut other: SlotIndex, steps_left: &mut u32) -> bool {
        let (heap, heap_other) = (self.pairing.recorded.heap, self.pairing.replayed.heap);
        while *steps_left > 0 {
            *steps_left -= 1;
            match self.pairing.counterparts(one, other) {
                _ if one == 0 || other == 0 => return one == other,
                (0, 0) => (one, other) = (heap.slot(one).next, heap_other.slot(other).next),
                pair => return pair == (other, one),
            }
        }
        false
    }
}

fn weak_entries(heap: &Heap) -> HashMap<(SlotIndex, SlotIndex), SlotIndex> {
    let mut entries = HashMap::new();
    for list in 1..=heap.slot_count() {
        let slot = heap.slot(list);
        if matches!(slot.kind, Kind::WeakMap | Kind::WeakSet) {
            for (_, entry) in heap.chain(slot.first()) {
                entries.insert((list, entry.first()), entry.second());
            }
        }
    }
    entries
}

fn unpaired(heap: &Heap, pairs: &[SlotIndex]) -> u64 {
    let without = (1..=heap.slot_count()).filter(|index| pairs.get(*index as usize) == Some(&0));
    without.filter(|index| heap.slot(*index).kind == Kind::Instance).count() as u64
}
