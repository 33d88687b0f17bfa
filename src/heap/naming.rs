//! Names of objects as the author of the vat would give them: the shortest path from a place where people begin to look.
//!
//! Owns which way is the better one: from an object that liveslots registered (`⟨o+11⟩`) before the global object, along
//! properties and variables before prototypes and the engine's own slots. It must never decide what differs.

use super::graph::{Class, Label};
use super::keys::Key;
use super::model::Heap;
use super::slot::{Kind, Slot, SlotIndex};
use super::tables::ROOTS;
use super::text;

/// The name of the variable in which liveslots keeps what it registered.
const REGISTRY: &[u8] = b"slotToVal";

/// An object that liveslots knows by a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered<'a> {
    /// Its name, as `o+11`.
    pub vref: &'a [u8],
    /// The object.
    pub object: SlotIndex,
}

impl Heap {
    /// The objects that liveslots has registered and that are still there, in the order of registration.
    #[must_use]
    pub fn registered(&self) -> Vec<Registered<'_>> {
        let mut found = Vec::new();
        let mut cells = Vec::new();
        for index in 1..=self.slot_count() {
            let slot = self.slot(index);
            if slot.kind == Kind::Closure && self.key(slot.id) == Key::Name(REGISTRY) && !cells.contains(&slot.first())
            {
                // Every function that uses the variable has it, and all of them the same one.
                cells.push(slot.first());
                if cells.len() > 16 {
                    break;
                }
            }
        }
        for cell in cells {
            let Some(map) = self.target(self.slot(cell)) else { continue };
            let mut own = self.own(map).map(|(_, slot)| slot).skip_while(|slot| slot.kind != Kind::Map);
            let (Some(_), Some(list)) = (own.next(), own.next()) else { continue };
            let mut entries = self.chain(list.first()).map(|(_, slot)| slot);
            while let (Some(key), Some(value)) = (entries.next(), entries.next()) {
                let weak = self.target(value).and_then(|weak| self.own(weak).map(|(_, slot)| slot).find(is_weak_ref));
                if let (Kind::String, Some(weak)) = (key.kind, weak)
                    && weak.first() != 0
                {
                    found.push(Registered { vref: self.text(key.first()), object: weak.first() });
                }
            }
        }
        found
    }

    /// The scope of the variables of a program that are in no function, if there is one.
    #[must_use]
    pub fn program_scope(&self) -> SlotIndex {
        const PROGRAM_ROOT: usize = 2;
        let Some(program) = self.target(self.root(PROGRAM_ROOT)) else { return 0 };
        let internal = self.own(program).map(|(_, slot)| slot).find(|slot| slot.kind == Kind::Program);
        let realm = internal.map_or(0, Slot::first);
        let closures = self.own(realm).nth(1);
        closures.and_then(|(_, slot)| self.target(slot)).unwrap_or(0)
    }
}

impl Heap {
    /// The key at a place of a map.
    fn map_key(&self, map: SlotIndex, place: u32) -> Option<Slot> {
        let list = self.own(map).map(|(_, slot)| slot).skip_while(|slot| slot.kind != Kind::Map).nth(1)?;
        self.chain(list.first()).nth(place as usize * 2).map(|(_, slot)| slot)
    }

    /// A slot of a suspended function.
    fn saved(&self, function: SlotIndex, place: u32) -> Option<Slot> {
        let stack = self.own(function).map(|(_, slot)| slot).find(|slot| slot.kind == Kind::Stack)?;
        self.items(stack.first()).nth(place as usize)
    }
}

fn is_weak_ref(slot: &Slot) -> bool {
    slot.kind == Kind::WeakRef
}

/// A step on the way to a node.
#[derive(Debug, Clone, Copy)]
struct Step {
    from: SlotIndex,
    label: Label,
}

/// The shortest way to every node.
#[derive(Debug)]
pub struct Names<'a> {
    heap: &'a Heap,
    registered: Vec<Registered<'a>>,
    steps: Vec<Step>,
    costs: Vec<u32>,
}

/// Not reached.
const FAR: u32 = u32::MAX;

impl<'a> Names<'a> {
    /// Finds the ways of a heap.
    #[must_use]
    pub fn of(heap: &'a Heap) -> Self {
        let registered = heap.registered();
        let nodes = heap.slot_count() as usize + 1;
        let nowhere = Step { from: 0, label: Label::Content };
        let mut names = Self { heap, registered, steps: vec![nowhere; nodes], costs: vec![FAR; nodes] };
        names.walk();
        names
    }

    /// Dijkstra's algorithm with a list of nodes for each distance.
    fn walk(&mut self) {
        let mut starts: Vec<(u32, Label, SlotIndex)> = Vec::new();
        for (number, registered) in (0_u32..).zip(&self.registered) {
            starts.push((0, Label::Registered(number), registered.object));
        }
        let program = self.heap.program_scope();
        if program != 0 {
            starts.push((4, Label::Program, program));
        }
        for (number, name) in (0_u32..).zip(ROOTS) {
            let root = self.heap.root(number as usize);
            let cost = match number {
                0 => 5,
                _ if name.starts_with('%') => 12,
                _ => 20,
            };
            match root.kind {
                Kind::Reference => starts.push((cost, Label::Root(number), root.first())),
                Kind::Closure if root.first() != 0 => starts.push((cost, Label::Root(number), root.first())),
                _ => {}
            }
        }
        let mut buckets: Vec<Vec<SlotIndex>> = Vec::new();
        for (cost, label, node) in starts {
            self.offer(node, cost, Step { from: 0, label }, &mut buckets);
        }
        let mut cost = 0;
        while cost < buckets.len() {
            while let Some(node) = buckets.get_mut(cost).and_then(Vec::pop) {
                if self.costs.get(node as usize).is_some_and(|known| *known as usize == cost) {
                    let heap = self.heap;
                    let so_far = u32::try_from(cost).unwrap_or(FAR - 1);
                    heap.references(node, |label, target| {
                        let cost = so_far.saturating_add(weight(label));
                        self.offer(target, cost, Step { from: node, label }, &mut buckets);
                    });
                }
            }
            if let Some(done) = buckets.get_mut(cost) {
                *done = Vec::new();
            }
            cost += 1;
        }
    }

    fn offer(&mut self, node: SlotIndex, cost: u32, step: Step, buckets: &mut Vec<Vec<SlotIndex>>) {
        let Some(known) = self.costs.get_mut(node as usize) else { return };
        if cost >= *known {
            return;
        }
        *known = cost;
        if let Some(place) = self.steps.get_mut(node as usize) {
            *place = step;
        }
        if buckets.len() <= cost as usize {
            buckets.resize_with(cost as usize + 1, Vec::new);
        }
        if let Some(bucket) = buckets.get_mut(cost as usize) {
            bucket.push(node);
        }
    }

    /// The distance of a node: a smaller one is better known.
    #[must_use]
    pub fn cost(&self, node: SlotIndex) -> u32 {
        self.costs.get(node as usize).copied().unwrap_or(FAR)
    }

    /// Whether a slot is a node, that is an object or a cell that something refers to.
    #[must_use]
    pub fn is_node(&self, slot: SlotIndex) -> bool {
        self.cost(slot) != FAR
    }

    /// The name that liveslots gave to an object.
    #[must_use]
    pub fn vref(&self, object: SlotIndex) -> Option<String> {
        let registered = self.registered.iter().find(|registered| registered.object == object);
        registered.map(|registered| text::decode(registered.vref))
    }

    /// The node before a node on its way, 0 for a start.
    #[must_use]
    pub fn before(&self, node: SlotIndex) -> SlotIndex {
        self.steps.get(node as usize).map_or(0, |step| step.from)
    }

    /// The path to a node, as `⟨o+11⟩.deposit[[scope]]::balance`.
    #[must_use]
    pub fn path(&self, node: SlotIndex) -> String {
        let mut labels = Vec::new();
        let mut at = node;
        loop {
            let reached = self.costs.get(at as usize).is_some_and(|cost| *cost != FAR);
            let Some(step) = self.steps.get(at as usize).filter(|_| reached) else { return format!("#{node}") };
            labels.push((step.from, step.label));
            at = step.from;
            if at == 0 {
                break;
            }
        }
        // The middle of a long path tells nothing.
        const LABELS_MAX: usize = 24;
        labels.reverse();
        if labels.len() <= LABELS_MAX {
            return labels.into_iter().map(|(from, label)| self.label(from, label)).collect();
        }
        let (first, last) = (labels.iter().take(LABELS_MAX / 2), labels.iter().skip(labels.len() - LABELS_MAX / 2));
        let text = |(from, label): &(SlotIndex, Label)| self.label(*from, *label);
        format!("{}…{}", first.map(text).collect::<String>(), last.map(text).collect::<String>())
    }

    /// The path to what a node has under a label.
    #[must_use]
    pub fn place(&self, node: SlotIndex, label: Label) -> String {
        if node == 0 { self.label(0, label) } else { format!("{}{}", self.path(node), self.label(node, label)) }
    }

    /// A label of a node as it stands in a path.
    #[must_use]
    pub fn label(&self, from: SlotIndex, label: Label) -> String {
        let heap = self.heap;
        match label {
            Label::Root(0) => "globalThis".to_owned(),
            Label::Root(root) => match ROOTS.get(root as usize) {
                Some(name) if name.starts_with('%') => (*name).to_owned(),
                Some(name) if !name.is_empty() => format!("%{name}%"),
                _ => format!("%root {root}%"),
            },
            Label::Registered(number) => match self.registered.get(number as usize) {
                Some(registered) => format!("⟨{}⟩", text::decode(registered.vref)),
                None => "⟨?⟩".to_owned(),
            },
            Label::Program | Label::Content => String::new(),
            Label::Property(key) => heap.key_text(key),
            Label::Getter(key) => format!("{}[[get]]", heap.key_text(key)),
            Label::Setter(key) => format!("{}[[set]]", heap.key_text(key)),
            Label::Item(item) => format!("[{item}]"),
            Label::Scope => "[[scope]]".to_owned(),
            Label::Variable(key) => format!("::{}", heap.key_name(key)),
            Label::Outer => "[[outer]]".to_owned(),
            Label::Prototype => "[[prototype]]".to_owned(),
            Label::MapKey(place) => format!("[[key {place}]]"),
            Label::MapValue(place) => match heap.map_key(from, place) {
                Some(key) if key.kind == Kind::String => format!(".get({})", text::quoted(heap.text(key.first()), 40)),
                Some(key) if key.kind == Kind::Integer => format!(".get({})", key.integer()),
                _ => format!("[[value {place}]]"),
            },
            Label::Member(place) => format!("[[member {place}]]"),
            Label::WeakValue(_) => "[[weak value]]".to_owned(),
            Label::Private(key) => format!(".{}", heap.key_name(key)),
            Label::Saved(place) => match heap.saved(from, place) {
                Some(local) if local.id != 0 => format!("[[local {}]]", heap.key_name(local.id)),
                _ => format!("[[local {place}]]"),
            },
            Label::Internal(name, 0) => format!("[[{name}]]"),
            Label::Internal("brand", key) => format!("[[brand {}]]", heap.key_name(key)),
            Label::Internal(name, number) | Label::Weak(name, number) => format!("[[{name} {number}]]"),
        }
    }

    /// The function that a node belongs to, if its way leads through one: the nearest, whose scope or property it is.
    #[must_use]
    pub fn function_near(&self, node: SlotIndex) -> Option<SlotIndex> {
        const STEPS_MAX: usize = 6;
        let mut at = node;
        for _ in 0..STEPS_MAX {
            if at == 0 {
                return None;
            }
            if self.heap.slot(at).kind == Kind::Instance && self.heap.class(at) == Class::Function {
                return Some(at);
            }
            at = self.before(at);
        }
        None
    }
}

/// The cost of going this way.
fn weight(label: Label) -> u32 {
    match label {
        Label::Registered(_) | Label::Root(_) | Label::Program => 0,
        Label::Property(_)
        | Label::Item(_)
        | Label::Variable(_)
        | Label::Scope
        | Label::Private(_)
        | Label::Content => 1,
        Label::MapValue(_) | Label::Member(_) | Label::Getter(_) | Label::Setter(_) | Label::Saved(_) => 2,
        Label::Outer => 3,
        Label::MapKey(_) => 4,
        Label::WeakValue(_) | Label::Internal(..) => 6,
        Label::Prototype => 8,
        Label::Weak(..) => 10,
    }
}
