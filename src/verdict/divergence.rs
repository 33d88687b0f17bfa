//! A divergence: its findings, what further replays said, and what the two heaps are to each other.
//!
//! Owns the labels and sentences for these. It must never decide any of them: `judge` does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::TraceKind;
use super::labels::labels;
use super::{Finding, Partial};

/// A divergence, with what makes it believable.
#[derive(Debug)]
pub struct Divergence {
    /// The differences, by position; at least one.
    pub findings: Vec<Finding>,
    /// The number of all findings; a worker that goes astray gives more than are kept.
    pub findings_total: usize,
    /// The failure on our side after the findings, if there was one.
    pub failure: Option<String>,
    /// Whether a fresh process did the same.
    pub repeat: Repeat,
    /// Set when the end of the span could not be seen: what was compared before it.
    pub partial: Option<Partial>,
    /// Set when the snapshot's hash differs: what both heaps are to each other.
    pub heap: Option<Box<HeapAnswer>>,
}

/// The likeness of two heaps whose images have different hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeapLikeness {
    /// The same heap: only how the engine keeps it differs.
    Isomorphic,
    /// The same heap now, but the engine will collect garbage at another time.
    GcSchedule,
    /// Not the same heap.
    Different,
    /// The heaps could not be compared.
    #[default]
    Unknown,
}

labels! { all HeapLikeness {
    Isomorphic => "isomorphic",
    GcSchedule => "gc_schedule",
    Different => "different",
    Unknown => "unknown",
} }

impl HeapLikeness {
    /// A sentence.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Isomorphic => "the heaps are the same: only how the engine keeps them differs",
            Self::GcSchedule => {
                "the heaps are the same now, but garbage is collected at another time from here on, which may show"
            }
            Self::Different => "the heaps are not the same",
            Self::Unknown => "the heaps were not compared",
        }
    }
}

/// The result of comparing two heaps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapAnswer {
    /// The answer.
    pub answer: HeapLikeness,
    /// The first places that differ, the most telling first, each as the vat's author would name it.
    pub places: Vec<String>,
    /// The number of all places.
    pub places_total: u64,
    /// The first places where only how the engine keeps something differs: people can learn from it.
    pub traces: Vec<String>,
    /// The number of traces of each kind.
    #[serde(serialize_with = "by_label")]
    pub trace_counts: BTreeMap<TraceKind, u64>,
    /// The kind of each of `traces`, in the same order. Absent in evidence of version 0.1.0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace_kinds: Vec<TraceKind>,
    /// Why they were not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Writes counts in the order of their labels.
fn by_label<S: Serializer>(counts: &BTreeMap<TraceKind, u64>, to: S) -> Result<S::Ok, S::Error> {
    counts.iter().map(|(kind, count)| (kind.label(), *count)).collect::<BTreeMap<_, _>>().serialize(to)
}

impl HeapAnswer {
    /// The first place of a kind of trace; `None` if none was kept, or the kinds are not known.
    #[must_use]
    pub fn first_trace(&self, kind: TraceKind) -> Option<&str> {
        let mut kinds = self.trace_kinds.iter().zip(&self.traces);
        kinds.find(|(known, _)| **known == kind).map(|(_, place)| &place[..])
    }

    /// The answer in a sentence, then a line a place.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let why = self.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let mut lines = vec![format!("{}{why}", self.answer.text())];
        lines.extend(self.places.iter().cloned());
        let more = self.places_total.saturating_sub(self.places.len() as u64);
        if more > 0 {
            lines.push(format!("and {}", crate::words::plural(more, "place more", "places more")));
        }
        lines.extend(self.traces.iter().cloned());
        lines
    }
}

/// The agreement of the further replays that every divergence gets, each in a fresh process from the same base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// The same findings each time.
    Deterministic,
    /// Not each time: what else there was.
    Flaky(Vec<RepeatOutcome>),
    /// The repeats failed for a reason of ours.
    Unconfirmed(String),
}

/// The findings that some of several replays share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatOutcome {
    /// The number of these replays.
    pub times: u32,
    /// What; empty if they did as recorded.
    pub findings: Vec<Finding>,
}

impl Repeat {
    /// The kind of result, without the details.
    #[must_use]
    pub fn kind(&self) -> RepeatKind {
        match self {
            Self::Deterministic => RepeatKind::Deterministic,
            Self::Flaky(_) => RepeatKind::Flaky,
            Self::Unconfirmed(_) => RepeatKind::Unconfirmed,
        }
    }

    /// The label of the kind, as in JSON.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.kind().label()
    }
}

/// The kind of a [`Repeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepeatKind {
    /// [`Repeat::Deterministic`].
    Deterministic,
    /// [`Repeat::Flaky`].
    Flaky,
    /// [`Repeat::Unconfirmed`].
    Unconfirmed,
}

labels! { all RepeatKind {
    Deterministic => "deterministic",
    Flaky => "flaky",
    Unconfirmed => "unconfirmed",
} }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_the_word_in_json_and_back() {
        for kind in RepeatKind::ALL {
            let text = format!("\"{}\"", kind.label());
            assert_eq!(serde_json::to_string(&kind).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<RepeatKind>(&text).expect("a kind"), kind);
        }
        for likeness in HeapLikeness::ALL {
            assert_eq!(serde_json::to_string(&likeness).expect("JSON"), format!("\"{}\"", likeness.label()));
        }
        for kind in TraceKind::ALL {
            assert_eq!(serde_json::to_string(&kind).expect("JSON"), format!("\"{}\"", kind.label()));
        }
    }

    #[test]
    fn a_heap_of_an_earlier_version_has_counts_and_no_kinds() {
        let text = r#"{"answer":"isomorphic","places":[],"places_total":0,"traces":["a place"],"trace_counts":{"host_pointer":1,"regexp_scratch":2}}"#;
        let heap: HeapAnswer = serde_json::from_str(text).expect("an answer");
        assert_eq!((heap.trace_counts[&TraceKind::HostPointer], heap.first_trace(TraceKind::HostPointer)), (1, None));
        let written = serde_json::to_string(&heap).expect("JSON");
        assert_eq!(written, text);
        let heap = HeapAnswer { trace_kinds: vec![TraceKind::HostPointer], ..heap };
        assert_eq!(heap.first_trace(TraceKind::HostPointer), Some("a place"));
    }
}
