//! Two nodes side by side: what differs in them, and what they lead to.
//!
//! Looks at the slots of the nodes alone. What they refer to is handed back as pairs to be compared later; nothing here
//! decides whether a pair holds.

use std::collections::HashSet;

use super::align::{Edit, align};
use super::code;
use super::content::{Contents, mix, value};
use super::keymap::{KeyMap, SameKey};
use super::{Trace, TraceKind, What};
use crate::heap::graph::{Class, Label};
use crate::heap::slot::{Kind, Slot, SlotIndex};
use crate::heap::text::RegExpParts;
use crate::heap::{Heap, KeyId};

/// A heap and what is known of its nodes.
#[derive(Debug)]
pub(super) struct Side<'a> {
    pub heap: &'a Heap,
    /// For each slot its counterpart, 0 for none yet.
    pub pairs: Vec<SlotIndex>,
    pub contents: Contents,
    /// The objects that are caches of templates: the engine makes their keys up.
    pub caches: HashSet<SlotIndex>,
}

/// Two nodes, as far as they themselves go.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// What differs.
    pub findings: Vec<(Label, What)>,
    /// What must be a pair for the two to be the same.
    pub children: Vec<(SlotIndex, SlotIndex, Label)>,
    /// Slots that are the same if the two are: entries of collections, lists of weak ones.
    pub slots: Vec<(SlotIndex, SlotIndex)>,
    /// Unique symbols that are the same if the two are, and where they stand.
    pub symbols: Vec<(KeyId, KeyId, Label)>,
    /// Templates that are the same if the two are.
    pub templates: Vec<(KeyId, KeyId)>,
    /// Where iterators stand.
    pub positions: Vec<(SlotIndex, SlotIndex)>,
    pub traces: Vec<Trace>,
    pub counts: [u64; TraceKind::ALL.len()],
}

impl Local {
    fn clear(&mut self) {
        self.findings.clear();
        self.children.clear();
        self.slots.clear();
        self.symbols.clear();
        self.templates.clear();
        self.positions.clear();
        self.traces.clear();
        self.counts = Default::default();
    }

    fn count(&mut self, kind: TraceKind, more: u64) {
        self.counts[kind as usize] += more;
    }
}

/// The slots that belong to an object, with their numbers.
type Own = Vec<(SlotIndex, Slot)>;

/// Both heaps and the buffers of a comparison.
#[derive(Debug)]
pub(super) struct Pairing<'a> {
    pub recorded: Side<'a>,
    pub replayed: Side<'a>,
    pub keys: KeyMap,
    own: (Own, Own),
}

impl<'a> Pairing<'a> {
    pub(super) fn new(recorded: &'a Heap, replayed: &'a Heap) -> Self {
        let side = |heap: &'a Heap| Side {
            heap,
            pairs: vec![0; heap.slot_count() as usize + 1],
            contents: Contents::new(heap),
            caches: caches(heap),
        };
        let keys = KeyMap::of(recorded, replayed);
        Self { recorded: side(recorded), replayed: side(replayed), keys, own: Default::default() }
    }

    fn heaps(&self) -> (&'a Heap, &'a Heap) {
        (self.recorded.heap, self.replayed.heap)
    }

    /// The counterparts of two nodes, 0 for none.
    pub(super) fn counterparts(&self, one: SlotIndex, other: SlotIndex) -> (SlotIndex, SlotIndex) {
        let of = |side: &Side<'_>, node: SlotIndex| side.pairs.get(node as usize).copied().unwrap_or(0);
        (of(&self.recorded, one), of(&self.replayed, other))
    }

    pub(super) fn pair(&mut self, one: SlotIndex, other: SlotIndex) {
        if let (Some(first), Some(second)) =
            (self.recorded.pairs.get_mut(one as usize), self.replayed.pairs.get_mut(other as usize))
        {
            (*first, *second) = (other, one);
        }
    }

    /// Whether two nodes are of the same class: others are not compared at all.
    pub(super) fn is_comparable(&self, one: SlotIndex, other: SlotIndex) -> bool {
        let (first, second) = self.heaps();
        match (first.slot(one).kind, second.slot(other).kind) {
            (Kind::Instance, Kind::Instance) => {
                let class = first.class(one);
                class == second.class(other)
                    && (class != Class::HostFunction || self.callback(first, one) == self.callback(second, other))
            }
            (one, other) => one != Kind::Instance && other != Kind::Instance,
        }
    }

    fn callback(&self, heap: &Heap, function: SlotIndex) -> Option<u64> {
        heap.own(function).find(|(_, slot)| slot.kind == Kind::Callback).map(|(_, slot)| slot.low)
    }

    /// Compares two nodes of the same class.
    pub(super) fn compare(&mut self, one: SlotIndex, other: SlotIndex, local: &mut Local) {
        local.clear();
        let (first, second) = self.heaps();
        let (a, b) = (first.slot(one), second.slot(other));
        if a.kind != Kind::Instance {
            if a.flag != b.flag {
                local.findings.push((Label::Content, What::Attributes(a.flag, b.flag)));
            }
            self.slot((one, a), (other, b), Label::Content, one, local);
            return;
        }
        let class = first.class(one);
        let is_scope = class == Class::Scope;
        if a.flag != b.flag {
            local.findings.push((Label::Content, What::Object(a.flag, b.flag)));
        }
        let label = if is_scope { Label::Outer } else { Label::Prototype };
        self.child(a.second(), b.second(), label, local);
        let (mut own_one, mut own_other) = std::mem::take(&mut self.own);
        own_one.clear();
        own_other.clear();
        own_one.extend(first.own(one).filter(|(_, slot)| slot.kind != Kind::WeakEntry));
        own_other.extend(second.own(other).filter(|(_, slot)| slot.kind != Kind::WeakEntry));
        let is_cache = self.recorded.caches.contains(&one) && self.replayed.caches.contains(&other);
        let are_aligned = own_one.len() == own_other.len()
            && own_one.iter().zip(&own_other).all(|((_, a), (_, b))| self.belong(*a, *b, is_scope, is_cache));
        if are_aligned {
            for place in 0..own_one.len() {
                self.own_pair(&own_one, place, &own_other, place, (one, is_scope, is_cache), local);
            }
        } else {
            self.own_aligned(&own_one, &own_other, (one, is_scope, is_cache), local);
        }
        self.own = (own_one, own_other);
        if local.findings.iter().any(|(_, what)| matches!(what, What::Code(code) if !code.only_lines)) {
            // Variables of different functions have nothing to do with each other.
            local.children.retain(|(_, _, label)| *label != Label::Scope);
        }
    }

    /// Compares two roots.
    pub(super) fn compare_roots(&mut self, a: Slot, b: Slot, label: Label, local: &mut Local) {
        local.clear();
        self.slot((0, a), (0, b), label, 0, local);
    }

    /// Whether two slots of objects are the same property, or stand for the same thing inside.
    fn belong(&self, a: Slot, b: Slot, is_scope: bool, is_cache: bool) -> bool {
        if a.is_internal() != b.is_internal() {
            return false;
        }
        if a.is_internal() && !is_scope {
            return true;
        }
        if a.kind == Kind::Home && b.kind == Kind::Home {
            return true;
        }
        a.id == 0 && b.id == 0 || self.keys.same(self.heaps(), a.id, b.id, is_cache || is_frame(a, b)).is_some()
    }

    fn own_aligned(
        &mut self,
        own_one: &[(SlotIndex, Slot)],
        own_other: &[(SlotIndex, Slot)],
        node: (SlotIndex, bool, bool),
        local: &mut Local,
    ) {
        let (_, is_scope, _) = node;
        let token = |keys: &[u32], slot: &Slot| {
            if slot.is_internal() && !is_scope || slot.kind == Kind::Key {
                1 << 63 | slot.kind as u64
            } else {
                keys.get(slot.id as usize).map_or(0, |key| u64::from(*key))
            }
        };
        let first: Vec<u64> = own_one.iter().map(|(_, slot)| token(&self.keys.recorded, slot)).collect();
        let second: Vec<u64> = own_other.iter().map(|(_, slot)| token(&self.keys.replayed, slot)).collect();
        let mut has_moved = false;
        for edit in align(&first, &second, false) {
            match edit {
                Edit::Same(a, b) | Edit::Changed(a, b) => self.own_pair(own_one, a, own_other, b, node, local),
                Edit::Moved(a, b) => {
                    has_moved = true;
                    self.own_pair(own_one, a, own_other, b, node, local);
                }
                Edit::OnlyFirst(at) => {
                    let slot = own_one[at].1;
                    local.findings.push((own_label(slot, is_scope, at), What::OnlyRecorded(slot)));
                }
                Edit::OnlySecond(at) => {
                    let slot = own_other[at].1;
                    local.findings.push((own_label(slot, is_scope, at), What::OnlyReplayed(slot)));
                }
            }
        }
        if has_moved {
            local.findings.push((Label::Content, What::Order));
        }
    }

    /// Two slots of two objects that stand for the same.
    fn own_pair(
        &mut self,
        own_one: &[(SlotIndex, Slot)],
        at_one: usize,
        own_other: &[(SlotIndex, Slot)],
        at_other: usize,
        (one, is_scope, is_cache): (SlotIndex, bool, bool),
        local: &mut Local,
    ) {
        let ((index, a), (index_other, b)) = (own_one[at_one], own_other[at_other]);
        let label = own_label(a, is_scope, at_one);
        let before =
            |own: &[(SlotIndex, Slot)], at: usize| at.checked_sub(1).map_or(Slot::NONE, |before| own[before].1);
        let (before_a, before_b) = (before(own_one, at_one), before(own_other, at_other));
        self.same_id(a, b, is_cache, label, local);
        if a.flag != b.flag {
            local.findings.push((label, What::Attributes(a.flag, b.flag)));
        }
        let is_collection = |kind: Kind| matches!(kind, Kind::Map | Kind::Set);
        if a.kind == Kind::List
            && b.kind == Kind::List
            && is_collection(before_a.kind)
            && before_a.kind == before_b.kind
        {
            self.collection(a, b, before_a.kind == Kind::Map, local);
        } else if a.kind == Kind::Integer
            && before_a.kind == Kind::List
            && before_b.kind == Kind::List
            && a.is_internal()
            && (a.low == b.low || self.have_other_sizes(before_a, before_b))
        {
            // How many entries there are: their difference says so.
        } else if a.kind == Kind::ArrayBuffer && b.kind == Kind::ArrayBuffer {
            let length = |own: &[(SlotIndex, Slot)], at: usize| {
                own.get(at + 1).filter(|(_, slot)| slot.kind == Kind::BufferInfo).map_or(0, |(_, slot)| slot.integer())
            };
            let (length, length_other) = (length(own_one, at_one), length(own_other, at_other));
            self.buffer((a, length), (b, length_other), local);
        } else {
            self.slot((index, a), (index_other, b), label, one, local);
        }
    }

    /// Whether two lists of a collection's entries have other lengths.
    fn have_other_sizes(&self, one: Slot, other: Slot) -> bool {
        let (first, second) = self.heaps();
        first.chain(one.first()).count() != second.chain(other.first()).count()
    }

    /// Notes what follows from two slots having the same key.
    fn same_id(&mut self, a: Slot, b: Slot, is_cache: bool, label: Label, local: &mut Local) {
        if a.kind == Kind::Home {
            local.count(TraceKind::ProfileNumber, u64::from(a.id != b.id));
        } else if (a.id, b.id) != (0, 0) {
            match self.keys.same(self.heaps(), a.id, b.id, is_cache || a.is_internal() || is_frame(a, b)) {
                Some(SameKey::Unique) => local.symbols.push((a.id, b.id, label)),
                Some(SameKey::MadeUp) => {
                    if is_cache {
                        local.templates.push((a.id, b.id));
                    }
                    local.count(
                        TraceKind::MadeUpName,
                        u64::from(self.recorded.heap.key(a.id) != self.replayed.heap.key(b.id)),
                    );
                }
                Some(SameKey::Text) => {}
                None => local.findings.push((label, What::Name(a.id, b.id))),
            }
        }
    }

    /// Two references, either of which may be none.
    fn child(&self, one: SlotIndex, other: SlotIndex, label: Label, local: &mut Local) {
        match (one, other) {
            (0, 0) => {}
            (0, _) | (_, 0) => local.findings.push((label, What::Target(one, other))),
            _ => {
                if self.counterparts(one, other) != (other, one) {
                    local.children.push((one, other, label));
                }
            }
        }
    }

    /// Two slots that stand for the same.
    fn slot(&mut self, a: (SlotIndex, Slot), b: (SlotIndex, Slot), label: Label, node: SlotIndex, local: &mut Local) {
        let ((index, a), (index_other, b)) = (a, b);
        let (first, second) = self.heaps();
        let differs = What::Value(a, b);
        if a.kind != b.kind {
            if same_number(a, b) {
                local.count(TraceKind::NumberRepresentation, 1);
                let trace = Trace { kind: TraceKind::NumberRepresentation, recorded: node, label, slots: (a, b) };
                local.traces.push(trace);
            } else {
                local.findings.push((label, differs));
            }
            return;
        }
        match a.kind {
            Kind::Number | Kind::Date => {
                if a.low != b.low && !(a.number().is_nan() && b.number().is_nan()) {
                    local.findings.push((label, differs));
                }
            }
            Kind::String => {
                if first.text(a.first()) != second.text(b.first()) {
                    local.findings.push((label, differs));
                }
            }
            Kind::Key => {
                if first.text(a.first()) != second.text(b.first()) || a.high != b.high {
                    local.findings.push((label, differs));
                }
            }
            Kind::BigInt => {
                if first.magnitude(a) != second.magnitude(b) || a.high != b.high {
                    local.findings.push((label, differs));
                }
            }
            Kind::Symbol => match self.keys.same((first, second), a.first(), b.first(), false) {
                Some(SameKey::Unique) => local.symbols.push((a.first(), b.first(), label)),
                Some(_) => {}
                None => local.findings.push((label, differs)),
            },
            Kind::Reference | Kind::Closure => self.child(a.first(), b.first(), label, local),
            Kind::Accessor => {
                let key = if let Label::Property(key) = label { key } else { a.id };
                self.child(a.first(), b.first(), Label::Getter(key), local);
                self.child(a.second(), b.second(), Label::Setter(key), local);
            }
            Kind::Array | Kind::ArgumentsSloppy | Kind::ArgumentsStrict => self.array(a, b, node, local),
            Kind::Stack => self.saved(a, b, node, local),
            Kind::Code => {
                let (one, other) = (first.chunk(a.first()), second.chunk(b.first()));
                match code::compare(&self.keys, (first, second), one, other) {
                    Ok(same) => {
                        local.count(TraceKind::ProfileNumber, same.profiles);
                        local.count(TraceKind::MadeUpName, same.made_up);
                        local.templates.extend(same.templates);
                    }
                    Err(difference) => local.findings.push((Label::Content, What::Code(difference))),
                }
                if a.id != b.id && self.keys.same((first, second), a.id, b.id, false).is_none() {
                    local.findings.push((label, differs));
                }
                self.child(a.second(), b.second(), Label::Scope, local);
            }
            Kind::Home => {
                self.child(a.first(), b.first(), Label::Internal("home", 0), local);
                self.child(a.second(), b.second(), Label::Internal("module", 0), local);
            }
            Kind::Proxy => {
                self.child(a.first(), b.first(), Label::Internal("handler", 0), local);
                self.child(a.second(), b.second(), Label::Internal("target", 0), local);
            }
            Kind::Module | Kind::Program | Kind::ModuleSource => {
                self.child(a.first(), b.first(), Label::Internal("realm", 0), local);
                let (id, id_other) = (a.second(), b.second());
                if id != id_other && self.keys.same((first, second), id, id_other, true).is_none() {
                    local.findings.push((label, differs));
                }
            }
            Kind::Error => {
                if a.high != b.high {
                    local.findings.push((label, differs));
                }
                self.child(a.first(), b.first(), Label::Internal("stack", 0), local);
            }
            Kind::RegExp => self.regexp(a, b, label, node, local),
            Kind::Map | Kind::Set => local.count(TraceKind::TableSize, u64::from(a.high != b.high)),
            Kind::WeakMap | Kind::WeakSet => local.slots.push((index, index_other)),
            Kind::List => local.positions.push((a.first(), b.first())),
            Kind::Private => self.private(a, b, node, local),
            Kind::FinalizationRegistry => self.registry(a, b, node, local),
            Kind::FinalizationCell => {
                self.child(a.first(), b.first(), Label::Weak("registered", index), local);
                self.child(a.second(), b.second(), Label::Weak("token", index), local);
            }
            Kind::WeakRef => self.child(a.first(), b.first(), Label::Weak("target", 0), local),
            Kind::Export => {
                self.child(a.first(), b.first(), label, local);
                self.child(a.second(), b.second(), Label::Internal("module", 0), local);
            }
            Kind::Host => {
                if first.chunk(a.first()) != second.chunk(b.first()) {
                    local.findings.push((label, What::Bytes(0)));
                }
            }
            // Its table says where the properties of the global object are.
            Kind::Global => {}
            _ => {
                if (a.low, a.high) != (b.low, b.high) {
                    local.findings.push((label, differs));
                }
            }
        }
    }

    fn buffer(&self, (a, length): (Slot, i32), (b, length_other): (Slot, i32), local: &mut Local) {
        let (first, second) = self.heaps();
        if length != length_other {
            // The slot that has the length says so.
            return;
        }
        let (one, other) = (first.chunk(a.first()), second.chunk(b.first()));
        let length = usize::try_from(length).unwrap_or(0).min(one.len()).min(other.len());
        match one.iter().zip(other).take(length).position(|(one, other)| one != other) {
            Some(at) => local.findings.push((Label::Content, What::Bytes(at))),
            None => local.count(TraceKind::BufferTail, u64::from(one != other)),
        }
    }

    fn regexp(&mut self, a: Slot, b: Slot, label: Label, node: SlotIndex, local: &mut Local) {
        let (first, second) = self.heaps();
        let (one, other) = (first.chunk(a.first()), second.chunk(b.first()));
        let names = RegExpParts::of(one).map_or(0, |parts| parts.captures);
        let words =
            |code: &[u8]| code.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<_>>();
        let is_same = one == other && self.keys.renumbered == 0
            || one.len() == other.len()
                && words(one).into_iter().zip(words(other)).enumerate().all(|(at, (one, other))| {
                    one == other && !(2..2 + names).contains(&at)
                        || (2..2 + names).contains(&at)
                            && (one == other && one == u32::MAX
                                || self.keys.same((first, second), one, other, false).is_some())
                });
        if !is_same {
            local.findings.push((label, What::Value(a, b)));
            return;
        }
        let (left, right) = (first.chunk(a.second()), second.chunk(b.second()));
        if left != right {
            let parts = RegExpParts::of(one);
            let mut differing = left.iter().zip(right).enumerate().filter(|(_, (one, other))| one != other);
            let is_address =
                left.len() == right.len() && differing.all(|(at, _)| parts.is_some_and(|parts| parts.is_address(at)));
            let kind = if is_address { TraceKind::HostPointer } else { TraceKind::RegExpScratch };
            local.count(kind, 1);
            local.traces.push(Trace { kind, recorded: node, label, slots: (a, b) });
        }
    }

    /// Whether two values are the same as far as can be told before what they refer to is paired.
    fn seem_same(&mut self, a: Slot, b: Slot) -> bool {
        if a.kind == Kind::Reference && b.kind == Kind::Reference {
            let (one, other) = (a.first(), b.first());
            return match self.counterparts(one, other) {
                (0, 0) => self.content(true, one) == self.content(false, other),
                pair => pair == (other, one),
            };
        }
        let (first, second) = self.heaps();
        match (a.kind, b.kind) {
            (Kind::String, Kind::String) => first.text(a.first()) == second.text(b.first()),
            (Kind::BigInt, Kind::BigInt) => a.high == b.high && first.magnitude(a) == second.magnitude(b),
            (Kind::Symbol, Kind::Symbol) => self.keys.same((first, second), a.first(), b.first(), false).is_some(),
            (Kind::Accessor, Kind::Accessor) => true,
            (one, other) if one == other => (a.low, a.high) == (b.low, b.high),
            _ => same_number(a, b),
        }
    }

    fn content(&mut self, is_recorded: bool, node: SlotIndex) -> u64 {
        let (side, keys) = match is_recorded {
            true => (&mut self.recorded, &self.keys.recorded),
            false => (&mut self.replayed, &self.keys.replayed),
        };
        side.contents.of(side.heap, keys, node)
    }

    /// A value as a number: equal numbers may be the same value.
    fn token(&mut self, is_recorded: bool, slot: Slot) -> u64 {
        let (side, keys) = match is_recorded {
            true => (&mut self.recorded, &self.keys.recorded),
            false => (&mut self.replayed, &self.keys.replayed),
        };
        let (heap, pairs, contents) = (side.heap, &side.pairs, &mut side.contents);
        value(heap, keys, slot, &mut |target| match pairs.get(target as usize) {
            Some(0) | None => contents.of(heap, keys, target),
            // A pair goes by the number of its recorded object.
            Some(_) if is_recorded => mix(3, target.into()),
            Some(counterpart) => mix(3, (*counterpart).into()),
        })
    }

    fn array(&mut self, a: Slot, b: Slot, node: SlotIndex, local: &mut Local) {
        let (first, second) = self.heaps();
        let (items, items_other) = (first.elements(a), second.elements(b));
        let (count, count_other) = (items.len(), items_other.len());
        let are_same = count == count_other
            && items.zip(items_other).all(|(a, b)| a.next == b.next && a.flag == b.flag && self.seem_same(a, b));
        if are_same {
            for (a, b) in first.elements(a).zip(second.elements(b)) {
                self.slot((0, a), (0, b), Label::Item(a.next), node, local);
            }
            if a.high != b.high {
                local.findings.push((Label::Content, What::Length(a.high, b.high)));
            }
            return;
        }
        let is_dense = count as u64 == a.high && count_other as u64 == b.high;
        let mut tokens = |is_recorded: bool, heap: &'a Heap, of: Slot| -> Vec<u64> {
            let items = heap.elements(of);
            items.map(|item| if is_dense { self.token(is_recorded, item) } else { item.next.into() }).collect()
        };
        let (one, other) = (tokens(true, first, a), tokens(false, second, b));
        let before = local.findings.len();
        let (at, at_other) = (first.items_range(a.first()).0, second.items_range(b.first()).0);
        let item = |heap: &Heap, start: u32, number: usize| {
            let item = heap.item_at(start + u32::try_from(number * 32).unwrap_or(0));
            if is_dense { Slot { next: u32::try_from(number).unwrap_or(0), ..item } } else { item }
        };
        let mut has_moved = false;
        for edit in align(&one, &other, is_dense) {
            match edit {
                Edit::Same(place, to) | Edit::Changed(place, to) | Edit::Moved(place, to) => {
                    has_moved |= matches!(edit, Edit::Moved(..));
                    let (a, b) = (item(first, at, place), item(second, at_other, to));
                    if a.flag != b.flag {
                        local.findings.push((Label::Item(a.next), What::Attributes(a.flag, b.flag)));
                    }
                    self.slot((0, a), (0, b), Label::Item(a.next), node, local);
                }
                Edit::OnlyFirst(place) => {
                    let item = item(first, at, place);
                    local.findings.push((Label::Item(item.next), What::OnlyRecorded(item)));
                }
                Edit::OnlySecond(place) => {
                    let item = item(second, at_other, place);
                    local.findings.push((Label::Item(item.next), What::OnlyReplayed(item)));
                }
            }
        }
        if has_moved {
            local.findings.push((Label::Content, What::Order));
        }
        if a.high != b.high && local.findings.len() == before {
            local.findings.push((Label::Content, What::Length(a.high, b.high)));
        }
    }

    fn saved(&mut self, a: Slot, b: Slot, node: SlotIndex, local: &mut Local) {
        let (first, second) = self.heaps();
        if a.high != b.high {
            local.findings.push((Label::Internal("stack", 0), What::Length(a.high, b.high)));
        }
        for (place, (a, b)) in (0_u32..).zip(first.items(a.first()).zip(second.items(b.first()))) {
            if a.id != b.id && self.keys.same((first, second), a.id, b.id, true).is_none() || a.flag != b.flag {
                local.findings.push((Label::Saved(place), What::Value(a, b)));
            } else {
                self.slot((0, a), (0, b), Label::Saved(place), node, local);
            }
        }
    }

    fn collection(&mut self, a: Slot, b: Slot, is_map: bool, local: &mut Local) {
        let (first, second) = self.heaps();
        let stride = if is_map { 2 } else { 1 };
        let (mut entry, mut entry_other) = (first.chain(a.first()), second.chain(b.first()));
        // Mostly all is in its place, and nothing has to be listed.
        let mut are_same = true;
        for number in 0_usize.. {
            match (entry.next(), entry_other.next()) {
                (None, None) => break,
                (Some((_, a)), Some((_, b))) if number % stride != 0 || a.flag == b.flag && self.seem_same(a, b) => {}
                _ => {
                    are_same = false;
                    break;
                }
            }
        }
        if are_same {
            let entries = first.chain(a.first()).zip(second.chain(b.first())).enumerate();
            for (number, (a, b)) in entries {
                self.entry(a, b, (number, stride), local);
            }
            return;
        }
        let list = |heap: &'a Heap, of: Slot| heap.chain(of.first()).collect::<Vec<_>>();
        let (one, other) = (list(first, a), list(second, b));
        let tokens: Vec<u64> = one.iter().step_by(stride).map(|(_, slot)| self.token(true, *slot)).collect();
        let tokens_other: Vec<u64> = other.iter().step_by(stride).map(|(_, slot)| self.token(false, *slot)).collect();
        let mut has_moved = false;
        let label = |place: usize| {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            if is_map { Label::MapValue(place) } else { Label::Member(place) }
        };
        for edit in align(&tokens, &tokens_other, false) {
            match edit {
                Edit::Same(place, to) | Edit::Changed(place, to) | Edit::Moved(place, to) => {
                    has_moved |= matches!(edit, Edit::Moved(..));
                    for step in 0..stride {
                        let pair = (one.get(place * stride + step), other.get(to * stride + step));
                        if let (Some(a), Some(b)) = pair {
                            self.entry(*a, *b, (place * stride + step, stride), local);
                        }
                    }
                }
                Edit::OnlyFirst(place) => {
                    let slot = one.get((place + 1) * stride - 1).map_or(Slot::NONE, |(_, slot)| *slot);
                    local.findings.push((label(place), What::OnlyRecorded(slot)));
                }
                Edit::OnlySecond(place) => {
                    let slot = other.get((place + 1) * stride - 1).map_or(Slot::NONE, |(_, slot)| *slot);
                    local.findings.push((label(place), What::OnlyReplayed(slot)));
                }
            }
        }
        if has_moved {
            local.findings.push((Label::Content, What::Order));
        }
    }

    fn entry(
        &mut self,
        a: (SlotIndex, Slot),
        b: (SlotIndex, Slot),
        (number, stride): (usize, usize),
        local: &mut Local,
    ) {
        let place = u32::try_from(number / stride).unwrap_or(u32::MAX);
        let label = match (stride, number % stride) {
            (1, _) => Label::Member(place),
            (_, 0) => Label::MapKey(place),
            _ => Label::MapValue(place),
        };
        local.slots.push((a.0, b.0));
        if a.1.flag != b.1.flag {
            local.findings.push((label, What::Attributes(a.1.flag, b.1.flag)));
        }
        self.slot(a, b, label, 0, local);
    }

    fn private(&mut self, a: Slot, b: Slot, node: SlotIndex, local: &mut Local) {
        let (first, second) = self.heaps();
        self.child(a.first(), b.first(), Label::Internal("brand", a.id), local);
        let list = |heap: &'a Heap, of: Slot| heap.chain(of.second()).collect::<Vec<_>>();
        let (one, other) = (list(first, a), list(second, b));
        let tokens = |keys: &[u32], of: &[(SlotIndex, Slot)]| -> Vec<u64> {
            of.iter().map(|(_, slot)| keys.get(slot.id as usize).map_or(0, |key| u64::from(*key))).collect()
        };
        let (tokens, tokens_other) = (tokens(&self.keys.recorded, &one), tokens(&self.keys.replayed, &other));
        for edit in align(&tokens, &tokens_other, false) {
            match edit {
                Edit::Same(at, to) | Edit::Changed(at, to) | Edit::Moved(at, to) => {
                    let label = Label::Private(one[at].1.id);
                    if matches!(edit, Edit::Moved(..)) {
                        local.findings.push((label, What::Order));
                    }
                    let (flag, flag_other) = (one[at].1.flag, other[to].1.flag);
                    if flag != flag_other {
                        local.findings.push((label, What::Attributes(flag, flag_other)));
                    }
                    if !is_composite(one[at].1.kind) {
                        self.slot(one[at], other[to], label, node, local);
                    }
                }
                Edit::OnlyFirst(at) => {
                    local.findings.push((Label::Private(one[at].1.id), What::OnlyRecorded(one[at].1)));
                }
                Edit::OnlySecond(at) => {
                    local.findings.push((Label::Private(other[at].1.id), What::OnlyReplayed(other[at].1)));
                }
            }
        }
    }

    fn registry(&mut self, a: Slot, b: Slot, node: SlotIndex, local: &mut Local) {
        let (first, second) = self.heaps();
        if a.high != b.high {
            local.findings.push((Label::Internal("pending", 0), What::Length(a.high, b.high)));
        }
        let list = |heap: &'a Heap, of: Slot| heap.chain(of.first()).collect::<Vec<_>>();
        let (one, other) = (list(first, a), list(second, b));
        if let (Some(a), Some(b)) = (one.first(), other.first()) {
            self.slot(*a, *b, Label::Internal("callback", 0), node, local);
        }
        let pairs =
            |of: &[(SlotIndex, Slot)]| of.get(1..).unwrap_or_default().chunks(2).map(<[_]>::to_vec).collect::<Vec<_>>();
        let (one, other) = (pairs(&one), pairs(&other));
        let held = |pair: &Vec<(SlotIndex, Slot)>| pair.first().map_or(Slot::NONE, |(_, slot)| *slot);
        let tokens: Vec<u64> = one.iter().map(|pair| self.token(true, held(pair))).collect();
        let tokens_other: Vec<u64> = other.iter().map(|pair| self.token(false, held(pair))).collect();
        let mut has_moved = false;
        for edit in align(&tokens, &tokens_other, false) {
            let label = |at: usize| Label::Internal("held", u32::try_from(at * 2 + 1).unwrap_or(u32::MAX));
            match edit {
                Edit::Same(at, to) | Edit::Changed(at, to) | Edit::Moved(at, to) => {
                    has_moved |= matches!(edit, Edit::Moved(..));
                    for (a, b) in one[at].iter().zip(&other[to]) {
                        if !is_composite(a.1.kind) {
                            self.slot(*a, *b, label(at), node, local);
                        }
                    }
                }
                Edit::OnlyFirst(at) => local.findings.push((label(at), What::OnlyRecorded(held(&one[at])))),
                Edit::OnlySecond(at) => local.findings.push((label(at), What::OnlyReplayed(held(&other[at])))),
            }
        }
        if has_moved {
            local.findings.push((Label::Internal("held", 0), What::Order));
        }
    }
}

/// Whether a slot has others of its own. Those are compared where such a slot can stand and nowhere else, so nothing nests.
fn is_composite(kind: Kind) -> bool {
    matches!(kind, Kind::Private | Kind::FinalizationRegistry)
}

/// Whether two slots are frames of an error's stack, whose key is the file.
fn is_frame(a: Slot, b: Slot) -> bool {
    a.kind == Kind::Key && b.kind == Kind::Key
}

fn own_label(slot: Slot, is_scope: bool, at: usize) -> Label {
    if is_scope && slot.kind == Kind::Closure {
        Label::Variable(slot.id)
    } else if slot.is_internal() || is_scope || slot.kind == Kind::Key {
        let what = if slot.kind == Kind::Key && !slot.is_internal() { "frame" } else { slot.kind.label() };
        Label::Internal(what, u32::try_from(at + 1).unwrap_or(u32::MAX))
    } else {
        Label::Property(slot.id)
    }
}

/// Whether two slots are the same number in both of the engine's forms. −0 has only one.
fn same_number(a: Slot, b: Slot) -> bool {
    let value = |slot: Slot| match slot.kind {
        Kind::Integer => Some(f64::from(slot.integer())),
        Kind::Number => Some(slot.number()),
        _ => None,
    };
    matches!((value(a), value(b)), (Some(one), Some(other)) if one.to_bits() == other.to_bits())
}

/// The caches of templates: the third slot of each realm.
fn caches(heap: &Heap) -> HashSet<SlotIndex> {
    let realms: HashSet<SlotIndex> = (1..=heap.slot_count())
        .map(|index| heap.slot(index))
        .filter(|slot| matches!(slot.kind, Kind::Module | Kind::Program) && slot.first() != 0)
        .map(Slot::first)
        .collect();
    realms.into_iter().filter_map(|realm| heap.own(realm).nth(2).and_then(|(_, slot)| heap.target(slot))).collect()
}
