//! One object: what is in it, and who keeps it.
//!
//! Owns the way back from a path to an object: what [`Names`] prints can be asked for. It must never guess: a path that
//! leads nowhere says how far it led.

use serde::Serialize;

use super::diff::{target, value};
use super::graph::{Class, Label};
use super::model::Heap;
use super::naming::Names;
use super::slot::{Kind, Slot, SlotIndex, flags};
use super::tables::ROOTS;

/// A property or what else an object has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its name, as in a path.
    pub name: String,
    /// The value in words.
    pub value: String,
}

/// An object in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// The shortest path to it.
    pub path: String,
    /// The number of its slot.
    pub slot: SlotIndex,
    /// Its kind in words.
    pub what: String,
    /// Its fields, in their order.
    pub fields: Vec<Field>,
    /// The number of fields.
    pub fields_total: u64,
}

/// A reference to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retainer {
    /// The path to the reference.
    pub path: String,
    /// The kind of the object that holds it, in words.
    pub what: String,
    /// Whether it keeps the object alive.
    pub keeps: bool,
}

/// A step from a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathStep {
    /// The label of the reference.
    pub by: String,
    /// The object there, in words.
    pub what: String,
}

/// The references that keep an object alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retained {
    /// The shortest path to it.
    pub path: String,
    /// Its kind in words.
    pub what: String,
    /// The shortest way from a root along references that keep, the object itself last. Empty if nothing keeps it.
    pub from_root: Vec<PathStep>,
    /// The references to it.
    pub retainers: Vec<Retainer>,
    /// The number of references.
    pub retainers_total: u64,
}

/// Why a path leads to no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No slot has this number.
    #[error("slots are numbered from 1 to {count}")]
    Number {
        /// The number of slots.
        count: u32,
    },
    /// The path begins with no name that is known.
    #[error(
        "a path begins with <o+11> or another name that liveslots registered, globalThis, %Map% or another intrinsic, or \
         ::name for a variable of the program"
    )]
    Start,
    /// The path leads part of the way.
    #[error("{so_far} is there, and refers to nothing as {rest}")]
    Rest {
        /// The part that leads to an object.
        so_far: String,
        /// The part that does not.
        rest: String,
    },
}

/// Finds an object by a path.
///
/// # Errors
/// When the path leads to no object.
pub fn find(heap: &Heap, names: &Names<'_>, path: &str) -> Result<SlotIndex, PathError> {
    if let Some(number) = path.strip_prefix('#') {
        let slot = number.parse().ok().filter(|slot| (1..=heap.slot_count()).contains(slot));
        return slot.ok_or(PathError::Number { count: heap.slot_count() });
    }
    let path = path.replace('<', "⟨").replacen('>', "⟩", usize::from(path.starts_with('<')));
    let (mut node, mut rest) = start(heap, names, &path).ok_or(PathError::Start)?;
    while !rest.is_empty() {
        // A name can be the beginning of another: the longest that fits is meant.
        let mut best: Option<(usize, SlotIndex)> = None;
        let mut show = |label: Label, target: SlotIndex| {
            let text = names.label(node, label);
            if !text.is_empty() && rest.starts_with(&text) && best.is_none_or(|(length, _)| length < text.len()) {
                best = Some((text.len(), target));
            }
        };
        heap.references(node, &mut show);
        let cell = heap.slot(node);
        match best {
            Some((length, target)) => {
                node = target;
                rest = rest.get(length..).unwrap_or_default();
            }
            // A variable stands for what is in it.
            None if cell.kind == Kind::Reference => node = cell.first(),
            None => {
                let so_far = path.strip_suffix(rest).unwrap_or_default();
                return Err(PathError::Rest { so_far: so_far.to_owned(), rest: rest.to_owned() });
            }
        }
    }
    let slot = heap.slot(node);
    Ok(if slot.kind == Kind::Reference { slot.first() } else { node })
}

fn start<'p>(heap: &Heap, names: &Names<'_>, path: &'p str) -> Option<(SlotIndex, &'p str)> {
    if path.starts_with("::") {
        return Some((heap.program_scope(), path)).filter(|(scope, _)| *scope != 0);
    }
    let mut best: Option<(SlotIndex, &str)> = None;
    let mut offer = |label: Label, node: SlotIndex| {
        let text = names.label(0, label);
        if let Some(rest) = path.strip_prefix(text.as_str()).filter(|_| !text.is_empty())
            && best.is_none_or(|(_, known)| known.len() > rest.len())
        {
            best = Some((node, rest));
        }
    };
    for (number, registered) in (0_u32..).zip(heap.registered()) {
        offer(Label::Registered(number), registered.object);
    }
    for number in 0..u32::try_from(ROOTS.len()).unwrap_or(0) {
        let root = heap.root(number as usize);
        if matches!(root.kind, Kind::Reference | Kind::Closure) && root.first() != 0 {
            offer(Label::Root(number), root.first());
        }
    }
    best
}

/// Looks at an object; of what is in it, at most so much.
#[must_use]
pub fn look(heap: &Heap, names: &Names<'_>, node: SlotIndex, fields_max: usize) -> Object {
    let (mut fields, mut fields_total) = (Vec::new(), 0);
    let mut add = |name: String, value: String| {
        fields_total += 1;
        if fields.len() < fields_max {
            fields.push(Field { name, value });
        }
    };
    let own = heap.slot(node);
    if own.kind != Kind::Instance {
        add("value".to_owned(), value(names, heap, own));
    } else {
        each_field(heap, names, node, &mut add);
    }
    Object { path: names.path(node), slot: node, what: describe(heap, names, node), fields, fields_total }
}

fn describe(heap: &Heap, names: &Names<'_>, node: SlotIndex) -> String {
    let slot = heap.slot(node);
    if slot.kind != Kind::Instance {
        return format!("a variable, {}", slot.kind.label());
    }
    let class = heap.class(node);
    let origin = heap.origin(node).map(|origin| format!(" {origin}")).unwrap_or_default();
    let frozen = if slot.flag & flags::DONT_PATCH == 0 || class == Class::Scope { "" } else { ", not extensible" };
    let vref = names.vref(node).map(|vref| format!(", registered as {vref}"));
    format!("{}{origin}{frozen}{}", class.label(), vref.unwrap_or_default())
}

fn each_field(heap: &Heap, names: &Names<'_>, node: SlotIndex, add: &mut impl FnMut(String, String)) {
    let own = heap.slot(node);
    let class = heap.class(node);
    if own.second() != 0 {
        let label = if class == Class::Scope { Label::Outer } else { Label::Prototype };
        add(names.label(node, label), target(names, heap, own.second()).unwrap_or_default());
    }
    let mut before = Kind::Uninitialized;
    for (_, slot) in heap.own(node) {
        let label = if class == Class::Scope && slot.kind == Kind::Closure {
            Label::Variable(slot.id)
        } else if slot.is_internal() || class == Class::Scope {
            Label::Internal(slot.kind.label(), 0)
        } else {
            Label::Property(slot.id)
        };
        let label = names.label(node, label);
        match slot.kind {
            Kind::Array | Kind::ArgumentsSloppy | Kind::ArgumentsStrict => {
                add("[[length]]".to_owned(), slot.high.to_string());
                for item in heap.elements(slot) {
                    add(format!("[{}]", item.next), value(names, heap, item));
                }
            }
            Kind::Stack => {
                for (place, item) in (0_u32..).zip(heap.items(slot.first())) {
                    add(names.label(node, Label::Saved(place)), value(names, heap, item));
                }
            }
            Kind::List if matches!(before, Kind::Map | Kind::Set) => {
                entries(heap, names, slot, before == Kind::Map, add);
            }
            Kind::Code => add("[[scope]]".to_owned(), target(names, heap, slot.second()).unwrap_or("none".to_owned())),
            Kind::Private => {
                for (_, field) in heap.chain(slot.second()) {
                    add(names.label(node, Label::Private(field.id)), value(names, heap, field));
                }
            }
            Kind::Proxy => {
                add("[[handler]]".to_owned(), target(names, heap, slot.first()).unwrap_or("none".to_owned()));
                add("[[target]]".to_owned(), target(names, heap, slot.second()).unwrap_or("none".to_owned()));
            }
            Kind::WeakRef => add(label, target(names, heap, slot.first()).unwrap_or("nothing any more".to_owned())),
            Kind::WeakEntry => {
                let collection = format!("in the weak collection at slot {}", slot.first());
                add(
                    format!("[[{collection}]]"),
                    value(names, heap, Slot { kind: Kind::Closure, low: slot.high, ..slot }),
                );
            }
            Kind::Accessor => {
                let side = |function: SlotIndex| target(names, heap, function).unwrap_or("none".to_owned());
                add(format!("{label}[[get]]"), side(slot.first()));
                add(format!("{label}[[set]]"), side(slot.second()));
            }
            _ => add(label, value(names, heap, slot)),
        }
        before = slot.kind;
    }
}

fn entries(heap: &Heap, names: &Names<'_>, list: Slot, is_map: bool, add: &mut impl FnMut(String, String)) {
    let mut chain = heap.chain(list.first()).map(|(_, slot)| slot);
    for place in 0_u32.. {
        let Some(first) = chain.next() else { break };
        let key = value(names, heap, first);
        match is_map.then(|| chain.next()).flatten() {
            Some(second) => add(format!("[[{key}]]"), value(names, heap, second)),
            None => add(format!("[[member {place}]]"), key),
        }
    }
}

/// Finds who keeps an object; of those that refer to it, at most so many are named.
#[must_use]
pub fn retainers(heap: &Heap, names: &Names<'_>, node: SlotIndex, retainers_max: usize) -> Retained {
    let (mut found, mut retainers_total) = (Vec::new(), 0);
    for from in 1..=heap.slot_count() {
        // A slot that is neither an object nor a cell belongs to one, and is shown there.
        if !names.is_node(from) {
            continue;
        }
        heap.references(from, |label, target| {
            if target == node {
                retainers_total += 1;
                found.push((names.cost(from), from, label));
            }
        });
    }
    found.sort_by_key(|(cost, from, _)| (*cost, *from));
    let mut retainers: Vec<Retainer> = Vec::new();
    for number in 0..u32::try_from(ROOTS.len()).unwrap_or(0) {
        if heap.root(number as usize).kind == Kind::Reference && heap.root(number as usize).first() == node {
            retainers_total += 1;
            let path = names.label(0, Label::Root(number));
            retainers.push(Retainer { path, what: "the engine's roots".to_owned(), keeps: true });
        }
    }
    retainers.extend(
        found
            .into_iter()
            .map(|(_, from, label)| Retainer {
                path: names.place(from, label),
                what: describe(heap, names, from),
                keeps: label.keeps(),
            })
            .take(retainers_max),
    );
    retainers.truncate(retainers_max);
    let from_root = from_root(heap, names, node);
    Retained { path: names.path(node), what: describe(heap, names, node), from_root, retainers, retainers_total }
}

/// The shortest way from a root, breadth first. A name that liveslots gave is no root: it refers weakly.
fn from_root(heap: &Heap, names: &Names<'_>, node: SlotIndex) -> Vec<PathStep> {
    let nodes = heap.slot_count() as usize + 1;
    let mut before: Vec<Option<(SlotIndex, Label)>> = vec![None; nodes];
    let mut queue = std::collections::VecDeque::new();
    let mut offer =
        |target: SlotIndex, from: SlotIndex, label: Label, queue: &mut std::collections::VecDeque<SlotIndex>| {
            if let Some(place @ None) = before.get_mut(target as usize) {
                *place = Some((from, label));
                queue.push_back(target);
            }
        };
    for number in 0..u32::try_from(heap.root_count()).unwrap_or(0) {
        let root = heap.root(number as usize);
        if matches!(root.kind, Kind::Reference | Kind::Closure) && root.first() != 0 {
            offer(root.first(), 0, Label::Root(number), &mut queue);
        }
    }
    while let Some(from) = queue.pop_front() {
        if from == node {
            break;
        }
        heap.references(from, |label, target| {
            if label.keeps() {
                offer(target, from, label, &mut queue);
            }
        });
    }
    let mut steps = Vec::new();
    let mut at = node;
    while let Some((from, label)) = before.get(at as usize).copied().flatten() {
        let by = match label {
            Label::Content => "value".to_owned(),
            label => names.label(from, label),
        };
        steps.push(PathStep { by, what: describe(heap, names, at) });
        at = from;
    }
    steps.reverse();
    steps
}
