//! The report of one span with one worker: its verdict, and everything that is told beside it.
//!
//! Owns the rule how contradicting responses weigh against a replay. It must never hide a divergence.

use std::time::Duration;

use crate::audit::Contradictions;
use crate::evidence::{EvidenceError, Kept};
use crate::plan::{Base, PlannedSpan};
use crate::record::Origin;
use crate::replay::Replay;
use crate::span::{BaseKind, SpanBegins, SpanEnds};
use crate::transcript::{Hash256, Position, SpanId};
use crate::verdict::Verdict;

/// The outcome of one span with one worker.
#[derive(Debug)]
pub struct SpanReport {
    /// Vat and bounds.
    pub id: SpanId,
    /// The vat's name, if it has one and is not gone.
    pub name: Option<String>,
    /// The vat's incarnation.
    pub incarnation: u64,
    /// The number of the worker, from 0.
    pub worker: usize,
    /// Whether it was asked for; if not, it was on the way to one that was.
    pub is_asked: bool,
    /// The first item, if it is known.
    pub begins: Option<SpanBegins>,
    /// The end of the span, if it is known.
    pub ends: Option<SpanEnds>,
    /// The source of its items, once they were read and proved.
    pub items_from: Option<Origin>,
    /// The base.
    pub base: BaseKind,
    /// The source of the recorded image that it started from: the first that has one, or the one whose copy was proved. An image that the span
    /// before handed over has the same hash, and is not read again.
    pub base_from: Option<Origin>,
    /// Set when it started from an image that a diverging replay of ours gave and that no record speaks of.
    pub is_base_unproved: bool,
    /// The verdict.
    pub verdict: Verdict,
    /// Deliveries made and compared.
    pub deliveries: u64,
    /// Syscalls that the vat made in them.
    pub syscalls: u64,
    /// Whether the snapshot at its end was compared.
    pub is_hash_compared: bool,
    /// The position at which the replay stopped, if it did not reach the end.
    pub stopped_at: Option<Position>,
    /// The size of the image that it saved, in bytes.
    pub image_bytes: Option<u64>,
    /// The duration.
    pub took: Duration,
    /// Of a divergence: the evidence that was kept, or why none could be.
    pub evidence: Option<Result<Kept, EvidenceError>>,
    /// The images that its items name.
    pub images: NamedImages,
    /// Responses in its items that the items themselves contradict.
    pub contradictions: Contradictions,
}

/// The images that the proved items of a span name.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamedImages {
    /// In its `load-snapshot`.
    pub loads: Option<Hash256>,
    /// In its `save-snapshot`.
    pub saves: Option<Hash256>,
}

impl SpanReport {
    /// The report of a span that was not looked at yet.
    pub(super) fn new(planned: &PlannedSpan, name: Option<&str>, worker: usize) -> Self {
        let row = &planned.row;
        Self {
            id: row.id.clone(),
            name: name.map(str::to_owned),
            incarnation: row.incarnation,
            worker,
            is_asked: planned.is_asked,
            begins: planned.begins,
            ends: planned.ends,
            items_from: None,
            base: planned.base.kind(),
            base_from: match planned.base {
                Base::Recorded { at, .. } => Some(at),
                Base::Blank | Base::Chained | Base::Gone(_) => None,
            },
            is_base_unproved: false,
            verdict: Verdict::Verified,
            deliveries: 0,
            syscalls: 0,
            is_hash_compared: false,
            stopped_at: None,
            image_bytes: None,
            took: Duration::ZERO,
            evidence: None,
            images: NamedImages::default(),
            contradictions: Contradictions::default(),
        }
    }

    /// Takes the counts of the replay that the verdict is about.
    pub(super) fn add_replay(&mut self, replay: &Replay) {
        self.deliveries = replay.deliveries;
        self.syscalls = replay.syscalls;
        self.is_hash_compared = replay.is_hash_compared;
        self.stopped_at = replay.stopped_at;
    }

    /// Makes contradictions the verdict where the replay found no difference. What failed for a reason of ours and may be
    /// tried again keeps its verdict; [`SpanReport::conclude`] is for when it is not tried again.
    pub(super) fn weigh_contradictions(&mut self) {
        if !matches!(self.verdict, Verdict::Failed(_)) {
            self.conclude();
        }
    }

    /// Makes contradictions the verdict where the replay found no difference: nothing else may hide them.
    pub fn conclude(&mut self) {
        if !self.contradictions.is_empty() && !matches!(self.verdict, Verdict::Diverged(_) | Verdict::Contradicted(_)) {
            let otherwise = std::mem::replace(&mut self.verdict, Verdict::Verified);
            self.verdict = Verdict::Contradicted(Box::new(otherwise));
        }
    }
}
