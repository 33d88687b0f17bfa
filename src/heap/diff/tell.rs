//! A comparison in words: each place as the vat's author would name it, the most telling first.
//!
//! Owns the order. It must never leave out a difference without saying so, and decides nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Comparison, Difference, Trace, TraceKind, What};
use crate::heap::graph::{Class, Label, Origin};
use crate::heap::naming::Names;
use crate::heap::slot::{Kind, Slot, SlotIndex, flags};
use crate::heap::text;
use crate::heap::{Heap, OPCODES};

/// Longer texts are cut.
const CHARACTERS_MAX: usize = 100;

/// A place that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The path to it.
    pub path: String,
    /// The kind of difference: `value`, `target`, `only_recorded`, `only_replayed`, `order`, `attributes`, `length`, `name`, `code`, `lines`,
    /// `bytes`, `position`, `setting`, or the kind of a trace.
    pub what: &'static str,
    /// The recorded heap's side.
    pub recorded: Option<String>,
    /// The replayed heap's side.
    pub replayed: Option<String>,
    /// The function that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The source file of that function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The number of differences on the way to it.
    pub behind: u32,
    /// The kind of a difference without a meaning; `None` for one that has a meaning.
    #[serde(skip)]
    pub trace: Option<TraceKind>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.write(to, ["recorded", "replayed"])
    }
}

impl Place {
    /// The same sentence with other names for the two heaps.
    #[must_use]
    pub fn with_names<'a>(&'a self, names: [&'a str; 2]) -> impl std::fmt::Display + 'a {
        std::fmt::from_fn(move |to| self.write(to, names))
    }

    fn write(&self, to: &mut std::fmt::Formatter<'_>, [one, other]: [&str; 2]) -> std::fmt::Result {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(to, "{}: ", self.path)?;
        match (self.trace, self.what) {
            (None, "order") => write!(to, "the same, in another order")?,
            (Some(TraceKind::HostPointer), _) => {
                write!(to, "an address of the worker's memory, left in the data of {}", side(&self.recorded))?;
            }
            (Some(TraceKind::RegExpScratch), _) => {
                write!(to, "remains of the last match in the data of {}", side(&self.recorded))?;
            }
            (Some(TraceKind::NumberRepresentation), _) => {
                let (number, kind) = number_and_kind(&self.recorded);
                let (_, kind_other) = number_and_kind(&self.replayed);
                write!(to, "{number} is kept as {kind} in the {one} heap and as {kind_other} in the {other} one")?;
            }
            _ => write!(to, "{one} {}, {other} {}", side(&self.recorded), side(&self.replayed))?,
        }
        if let Some(function) = &self.function {
            let place = match (&self.file, self.line) {
                (Some(file), Some(line)) => format!(", {file}:{line}"),
                (Some(file), None) => format!(", {file}"),
                _ => String::new(),
            };
            write!(to, " (in function {function}{place})")?;
        }
        Ok(())
    }
}

/// Takes `42 (INTEGER)` apart.
fn number_and_kind(side: &Option<String>) -> (&str, &str) {
    let parts = side.as_deref().and_then(|side| side.split_once(' '));
    parts.map_or(("it", "a number"), |(number, kind)| (number, kind.trim_matches(['(', ')'])))
}

/// A comparison in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The places, the most telling first.
    pub differences: Vec<Place>,
    /// The number of differences in all.
    pub differences_total: u64,
    /// The differences that no program can see, where the place is worth naming.
    pub traces: Vec<Place>,
    /// The number of each kind of them.
    pub trace_counts: BTreeMap<TraceKind, u64>,
}

/// Puts a comparison in words, at most so many places of each sort.
#[must_use]
pub fn tell(comparison: &Comparison<'_>, places_max: usize) -> Told {
    let trace_counts = TraceKind::ALL
        .into_iter()
        .map(|kind| (kind, comparison.trace_counts[kind as usize]))
        .filter(|(_, count)| *count > 0)
        .collect();
    let mut told = Told {
        differences: Vec::new(),
        differences_total: comparison.differences_total,
        traces: Vec::new(),
        trace_counts,
    };
    if comparison.differences.is_empty() && comparison.traces.is_empty() {
        return told;
    }
    let teller =
        Teller { comparison, recorded: Names::of(comparison.recorded), replayed: Names::of(comparison.replayed) };
    let mut order: Vec<(&Difference, _)> =
        comparison.differences.iter().map(|difference| (difference, teller.rank(difference))).collect();
    order.sort_by_key(|(_, rank)| *rank);
    told.differences = order.into_iter().take(places_max).map(|(difference, _)| teller.place(difference)).collect();
    let mut traces: Vec<&Trace> = comparison.traces.iter().collect();
    traces.sort_by_key(|trace| (trace.kind, teller.recorded.cost(trace.recorded)));
    told.traces = traces.into_iter().take(places_max).map(|trace| teller.trace(trace)).collect();
    told
}

struct Teller<'a> {
    comparison: &'a Comparison<'a>,
    recorded: Names<'a>,
    replayed: Names<'a>,
}

impl Teller<'_> {
    /// Less is told earlier: what lies behind no other difference, what a program sees, what is near.
    fn rank(&self, difference: &Difference) -> (u32, u32, u32) {
        let is_inside = matches!(difference.label, Label::Internal(..) | Label::Weak(..) | Label::WeakValue(_));
        let sort = match difference.what {
            What::Setting(..) => 0,
            What::Value(..)
            | What::OnlyRecorded(_)
            | What::OnlyReplayed(_)
            | What::Code(_)
            | What::Bytes(_)
            | What::Name(..) => 1,
            What::Length(..) | What::Target(..) | What::Order | What::Attributes(..) | What::Object(..) => 2,
            What::Position => 3,
        };
        let cost = if difference.recorded == 0 { 40 } else { self.recorded.cost(difference.recorded) };
        (difference.behind, sort + 2 * u32::from(is_inside), cost)
    }

    fn place(&self, difference: &Difference) -> Place {
        let heaps = (self.comparison.recorded, self.comparison.replayed);
        let (names, names_other) = (&self.recorded, &self.replayed);
        // A label of what only the replayed heap has is in that heap's terms.
        let path = match difference.what {
            What::OnlyReplayed(_) => {
                let label = names_other.label(difference.replayed, difference.label);
                if difference.recorded == 0 { label } else { format!("{}{label}", names.path(difference.recorded)) }
            }
            _ => names.place(difference.recorded, difference.label),
        };
        let value = |names: &Names<'_>, heap: &Heap, slot: Slot| Some(value(names, heap, slot));
        let (what, recorded, replayed) = match difference.what {
            What::Value(a, b) => {
                let (mut one, mut other) = (value(names, heaps.0, a), value(names_other, heaps.1, b));
                if let (Kind::String, Kind::String) = (a.kind, b.kind) {
                    (one, other) = texts(heaps.0.text(a.first()), heaps.1.text(b.first()));
                }
                ("value", one, other)
            }
            What::Target(one, other) => ("target", target(names, heaps.0, one), target(names_other, heaps.1, other)),
            What::OnlyRecorded(slot) => ("only_recorded", value(names, heaps.0, slot), None),
            What::OnlyReplayed(slot) => ("only_replayed", None, value(names_other, heaps.1, slot)),
            What::Order => ("order", None, None),
            What::Attributes(one, other) => ("attributes", Some(attributes(one)), Some(attributes(other))),
            What::Object(one, other) => ("attributes", Some(object_attributes(one)), Some(object_attributes(other))),
            What::Name(one, other) => {
                let (one, other) = (heaps.0.key_name(one), heaps.1.key_name(other));
                let other = if one == other { format!("another {other}") } else { other };
                ("name", Some(one), Some(other))
            }
            What::Length(one, other) => ("length", Some(format!("length {one}")), Some(format!("length {other}"))),
            What::Code(code) => {
                let text = |line: Option<u32>, opcode: Option<u8>| {
                    let opcode =
                        opcode.and_then(|opcode| OPCODES.get(usize::from(opcode))).map_or("its end", |(name, _)| name);
                    let line = line.map_or(String::new(), |line| format!(" in line {line}"));
                    Some(if code.only_lines {
                        format!("the same code{line}")
                    } else {
                        format!("code with {opcode}{line}")
                    })
                };
                let what = if code.only_lines { "lines" } else { "code" };
                (what, text(code.lines.0, code.opcodes.0), text(code.lines.1, code.opcodes.1))
            }
            What::Bytes(at) => {
                let text = Some(format!("bytes that differ from byte {at} on"));
                ("bytes", text.clone(), text)
            }
            What::Position => ("position", Some("one entry".to_owned()), Some("another entry".to_owned())),
            What::Setting(name, one, other) => {
                ("setting", Some(format!("{name} {one}")), Some(format!("{name} {other}")))
            }
        };
        let origin = self.origin(difference.recorded);
        Place {
            path,
            what,
            recorded,
            replayed,
            line: origin.as_ref().and_then(|origin| origin.line),
            file: origin.as_ref().and_then(|origin| origin.file.clone()),
            function: origin.map(|origin| name_of(&origin)),
            behind: difference.behind,
            trace: None,
        }
    }

    fn trace(&self, trace: &Trace) -> Place {
        let origin = self.origin(trace.recorded);
        let (heap, heap_other) = (self.comparison.recorded, self.comparison.replayed);
        let side = |heap: &Heap, slot: Slot| match (trace.kind, slot.kind) {
            (TraceKind::NumberRepresentation, Kind::Integer) => Some(format!("{} (INTEGER)", slot.integer())),
            (TraceKind::NumberRepresentation, _) => Some(format!("{} (NUMBER)", text::number(slot.number()))),
            _ => Some(format!("the regular expression {}", regexp_source(heap, trace.recorded))),
        };
        let (recorded, counterpart) = (side(heap, trace.slots.0), self.comparison.pairs.get(trace.recorded as usize));
        let replayed = match trace.kind {
            TraceKind::NumberRepresentation => side(heap_other, trace.slots.1),
            _ => counterpart.map(|other| format!("the regular expression {}", regexp_source(heap_other, *other))),
        };
        let path = match trace.kind {
            TraceKind::NumberRepresentation => self.recorded.place(trace.recorded, trace.label),
            _ => self.recorded.path(trace.recorded),
        };
        Place {
            path,
            what: trace.kind.label(),
            recorded,
            replayed,
            line: origin.as_ref().and_then(|origin| origin.line),
            file: origin.as_ref().and_then(|origin| origin.file.clone()),
            function: origin.map(|origin| name_of(&origin)),
            behind: 0,
            trace: Some(trace.kind),
        }
    }

    fn origin(&self, node: SlotIndex) -> Option<Origin> {
        self.comparison.recorded.origin(self.recorded.function_near(node)?)
    }
}

fn name_of(origin: &Origin) -> String {
    if origin.name.is_empty() { "(anonymous)".to_owned() } else { origin.name.clone() }
}

/// The source text of a regular expression: the slot after it.
fn regexp_source(heap: &Heap, node: SlotIndex) -> String {
    let source = heap.own(node).map(|(_, slot)| slot).find(|slot| slot.kind == Kind::Key);
    source.map_or_else(|| "?".to_owned(), |slot| format!("/{}/", text::decode(heap.text(slot.first()))))
}

/// Two texts that differ: from shortly before the place where they do.
fn texts(one: &[u8], other: &[u8]) -> (Option<String>, Option<String>) {
    const BEFORE: usize = 30;
    let at = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    if one.len().max(other.len()) <= CHARACTERS_MAX || at <= BEFORE {
        return (Some(text::quoted(one, CHARACTERS_MAX)), Some(text::quoted(other, CHARACTERS_MAX)));
    }
    let shown = |of: &[u8]| {
        let part = text::quoted(of.get(at - BEFORE..).unwrap_or_default(), CHARACTERS_MAX - BEFORE);
        Some(format!("…{part}, from byte {} of {}", at - BEFORE, of.len()))
    };
    (shown(one), shown(other))
}

/// A value for people.
pub(in crate::heap) fn value(names: &Names<'_>, heap: &Heap, slot: Slot) -> String {
    match slot.kind {
        Kind::Uninitialized => "uninitialized".to_owned(),
        Kind::Undefined => "undefined".to_owned(),
        Kind::Null => "null".to_owned(),
        Kind::Boolean => (slot.integer() != 0).to_string(),
        Kind::Integer => slot.integer().to_string(),
        Kind::Number => text::number(slot.number()),
        Kind::Date => format!("the date {}", text::number(slot.number())),
        Kind::String => text::quoted(heap.text(slot.first()), CHARACTERS_MAX),
        Kind::Key => text::quoted(heap.text(slot.first()), CHARACTERS_MAX),
        Kind::BigInt => text::big_integer(heap.magnitude(slot), slot.high >> 16 & 0xff != 0),
        Kind::Symbol => heap.key_name(slot.first()),
        Kind::Reference => target(names, heap, slot.first()).unwrap_or_default(),
        Kind::Closure => match heap.slot(slot.first()) {
            // One variable in another would be no engine's doing.
            cell if cell.kind == Kind::Closure => "a variable".to_owned(),
            cell => value(names, heap, cell),
        },
        Kind::Home => target(names, heap, slot.first()).unwrap_or_else(|| "none".to_owned()),
        Kind::Accessor => "a getter or setter".to_owned(),
        Kind::RegExp => "a regular expression with other code".to_owned(),
        Kind::Callback => super::super::CALLBACKS.get(slot.first() as usize).map_or("?", |name| name).to_owned(),
        Kind::Promise => {
            let states = ["undecided", "pending", "fulfilled", "rejected"];
            states.get(slot.first() as usize).map_or("?", |state| state).to_owned()
        }
        Kind::BufferInfo => format!("length {}", slot.integer()),
        other => format!("{} {:#x} {:#x}", other.label(), slot.low, slot.high),
    }
}

/// An object for people.
pub(in crate::heap) fn target(names: &Names<'_>, heap: &Heap, node: SlotIndex) -> Option<String> {
    if node == 0 {
        return None;
    }
    if heap.slot(node).kind != Kind::Instance {
        return Some(format!("the variable {}", names.path(node)));
    }
    let class = heap.class(node);
    let what = match class {
        Class::Function | Class::HostFunction => {
            let origin = heap.origin(node);
            origin.map_or_else(|| class.label().to_owned(), |origin| format!("{} {origin}", class.label()))
        }
        Class::Other(Kind::RegExp) => format!("RegExp {}", regexp_source(heap, node)),
        _ => class.label().to_owned(),
    };
    Some(format!("{what} at {}", names.path(node)))
}

fn attributes(flag: u8) -> String {
    let names = [(flags::DONT_ENUM, "enumerable"), (flags::DONT_SET, "writable"), (flags::DONT_DELETE, "configurable")];
    let mut text: Vec<&str> = names.into_iter().filter(|(bit, _)| flag & bit == 0).map(|(_, name)| name).collect();
    if flag & flags::INTERNAL != 0 {
        text.push("internal");
    }
    if text.is_empty() { "neither enumerable, writable nor configurable".to_owned() } else { text.join(", ") }
}

fn object_attributes(flag: u8) -> String {
    let extensible = if flag & flags::DONT_PATCH == 0 { "extensible" } else { "not extensible" };
    format!("{extensible} (flags {flag:#04x})")
}
