//! The comparison of two heaps: whether they are the same, and the places where they differ.
//!
//! | what is compared | how |
//! |---|---|
//! | objects, variables, values | both heaps are walked in step from the roots; an object of one is an object of the other, one to one |
//! | properties | by key and in their order, with their attributes |
//! | arrays, maps, sets | aligned by content first, so that one element more is one difference |
//! | weak collections | by object and collection, in no order: no program can see one |
//! | symbols | one to one, by all the places where they stand |
//! | functions | their code, instruction by instruction, then what their scopes hold |
//! | regular expressions | their code; not what the last match left behind |
//!
//! | what is not, as no program can see it | told as |
//! |---|---|
//! | numbers of keys, of scripts without a name, of compiled functions | a count |
//! | whether a whole number is an INTEGER or a NUMBER to the engine | a trace with its place: compilers differ here |
//! | what the last match of a regular expression left behind, host addresses in it | a trace with its place |
//! | sizes of hash tables, order of weak entries, bytes behind the end of a buffer | a count |
//!
//! A pair of objects that agrees at first sight is believed at once; one that does not waits until all others are paired, so
//! that a difference does not spoil what is equal. A difference that only follows from another one comes last. Must never report two heaps as
//! isomorphic unless each object has one counterpart.

pub mod align;
mod code;
mod compare;
mod content;
mod keymap;
mod tell;
mod walk;

use serde::Serialize;

use super::container::CounterMeaning;
use super::graph::Label;
use super::slot::{Slot, SlotIndex};
use super::{ChunkUse, Heap, KeyId, Kind};

pub use crate::verdict::TraceKind;
pub use tell::{Place, Told, tell};
pub(super) use tell::{target, value};

/// The likeness of two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Likeness {
    /// The same bytes.
    Identical,
    /// The same heap; what differs is history and scratch memory.
    Isomorphic,
    /// The same heap now, but the next garbage collection comes at another time, and what it finalizes may show.
    GcScheduleDiffers,
    /// Not the same heap.
    Different,
}

impl Likeness {
    /// Its name in metrics and JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Isomorphic => "isomorphic",
            Self::GcScheduleDiffers => "gc_schedule_differs",
            Self::Different => "different",
        }
    }
}

/// A difference at a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// Another value.
    Value(Slot, Slot),
    /// Another object.
    Target(SlotIndex, SlotIndex),
    /// Something is there in the recorded heap only.
    OnlyRecorded(Slot),
    /// Something is there in the replayed heap only.
    OnlyReplayed(Slot),
    /// The same, in another order.
    Order,
    /// Attributes of a property.
    Attributes(u8, u8),
    /// Attributes of an object, such as being frozen.
    Object(u8, u8),
    /// A length.
    Length(u64, u64),
    /// Another symbol, or another name where none is expected to differ: the keys of each heap.
    Name(KeyId, KeyId),
    /// The code of a function.
    Code(CodeDifference),
    /// The bytes of a buffer, from this one on.
    Bytes(usize),
    /// The position of an iterator in its collection.
    Position,
    /// A setting of the engine.
    Setting(&'static str, i64, i64),
}

/// The first difference between two pieces of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeDifference {
    /// The line that they last agreed on, in each.
    pub lines: (Option<u32>, Option<u32>),
    /// The opcodes there, none at the end.
    pub opcodes: (Option<u8>, Option<u8>),
    /// Whether only lines differ: the same program, moved in its file.
    pub only_lines: bool,
}

/// A place that differs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The node of the recorded heap that has it, 0 for a root.
    pub recorded: SlotIndex,
    /// The node of the replayed heap.
    pub replayed: SlotIndex,
    /// The place in the node. In the replayed heap's terms where it is only there.
    pub label: Label,
    /// The difference.
    pub what: What,
    /// The number of differences on the way to it: it may only follow from those.
    pub behind: u32,
}

/// The place of a difference that no program can see.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trace {
    /// The kind of the difference.
    pub kind: TraceKind,
    /// The node of the recorded heap that has it.
    pub recorded: SlotIndex,
    /// The place in the node.
    pub label: Label,
    /// Both slots.
    pub slots: (Slot, Slot),
}

/// The result of comparing two heaps.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The heap of the record.
    pub recorded: &'a Heap,
    /// The heap of the replay.
    pub replayed: &'a Heap,
    /// The answer.
    pub likeness: Likeness,
    /// The places, as they were found; [`tell`] brings them in order. No more than [`DIFFERENCES_MAX`].
    pub differences: Vec<Difference>,
    /// The number of differences.
    pub differences_total: u64,
    /// The differences that no program can see, where the place is worth naming. No more than [`TRACES_MAX`].
    pub traces: Vec<Trace>,
    /// The number of each kind of them.
    pub trace_counts: [u64; TraceKind::ALL.len()],
    /// Objects that have no counterpart, in each heap.
    pub unpaired: (u64, u64),
    /// Nodes of the recorded heap and their counterparts.
    pub pairs: Vec<SlotIndex>,
}

/// More places are counted but not kept.
pub const DIFFERENCES_MAX: usize = 100_000;
/// More traces are counted but not kept.
pub const TRACES_MAX: usize = 10_000;

/// Compares two heaps.
#[must_use]
pub fn compare<'a>(recorded: &'a Heap, replayed: &'a Heap) -> Comparison<'a> {
    if recorded.bytes() == replayed.bytes() {
        return Comparison {
            recorded,
            replayed,
            likeness: Likeness::Identical,
            differences: Vec::new(),
            differences_total: 0,
            traces: Vec::new(),
            trace_counts: Default::default(),
            unpaired: (0, 0),
            pairs: Vec::new(),
        };
    }
    let mut comparison = walk::walk(recorded, replayed);
    let (mut schedule, mut settings) = (false, Vec::new());
    let counters = recorded.creation().counters().into_iter().zip(replayed.creation().counters());
    for ((name, one, meaning), (_, other, _)) in counters.filter(|((_, one, _), (_, other, _))| one != other) {
        match meaning {
            CounterMeaning::GcSchedule => schedule = true,
            CounterMeaning::Settings => settings.push(Difference {
                recorded: 0,
                replayed: 0,
                label: Label::Internal("engine", 0),
                what: What::Setting(name, one, other),
                behind: 0,
            }),
            CounterMeaning::History => {}
        }
    }
    comparison.differences_total += settings.len() as u64;
    comparison.differences.extend(settings);
    comparison.likeness = match (comparison.differences_total, schedule) {
        (0, false) => Likeness::Isomorphic,
        (0, true) => Likeness::GcScheduleDiffers,
        _ => Likeness::Different,
    };
    comparison
}

/// A count that differs between two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delta {
    /// The counted kind.
    pub name: String,
    /// In the recorded image.
    pub recorded: i64,
    /// In the replayed image.
    pub replayed: i64,
}

/// Everything that is counted and differs: sizes of atoms, counters, slots by kind, bytes of chunks by use.
#[must_use]
pub fn deltas(recorded: &Heap, replayed: &Heap) -> Vec<Delta> {
    let mut all = Vec::new();
    let mut add = |name: String, recorded: i64, replayed: i64| {
        if recorded != replayed {
            all.push(Delta { name, recorded, replayed });
        }
    };
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for (one, other) in recorded.atoms().iter().zip(replayed.atoms()) {
        add(format!("atom {} bytes", one.tag), signed(one.bytes as u64), signed(other.bytes as u64));
    }
    for ((name, one, _), (_, other, _)) in
        recorded.creation().counters().into_iter().zip(replayed.creation().counters())
    {
        add(format!("counter {name}"), one, other);
    }
    let (one, other) = (super::census::kinds(recorded), super::census::kinds(replayed));
    for kind in Kind::ALL {
        let count = |of: &super::census::Kinds| signed(of.get(kind).copied().unwrap_or(0));
        add(format!("slots {}", kind.label()), count(&one), count(&other));
    }
    for chunk_use in ChunkUse::ALL {
        let (one, other) = (recorded.chunks(chunk_use), replayed.chunks(chunk_use));
        add(format!("chunks {}", chunk_use.label()), signed(one.0), signed(other.0));
        add(format!("chunk bytes {}", chunk_use.label()), signed(one.1), signed(other.1));
    }
    all
}
