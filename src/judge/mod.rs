//! The verdict of several replays of a span: the first one finds, further ones in fresh processes confirm.
//!
//! Owns the rule for a worker that ran out of memory: its replay is repeated alone before it counts. This module must never take trouble of
//! ours for a finding, nor drop a finding because a later replay lacks it.

pub(crate) mod heaps;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError, RwLock};

use crate::record::image::Image;
use crate::replay::{OutOfStep, Replay, ReplayStart, replay, replay_ahead};
use crate::span::Span;
use crate::transcript::VatId;
use crate::verdict::{Divergence, Failure, Finding, Partial, Repeat, RepeatOutcome, Verdict};

/// Default number of repetitions of a divergence.
pub const REPEATS: u32 = 3;

/// The repetition of divergences, and the state that replays share.
#[derive(Debug, Clone, Copy)]
pub struct Repeats<'a> {
    /// Number of repetitions of a divergence.
    pub times: u32,
    /// The state that all replays of the process share.
    pub shared: &'a SharedReplays,
}

/// The state that all replays of a process share.
#[derive(Debug, Default)]
pub struct SharedReplays {
    /// Shared by all replays, but for one that must have the machine's memory to itself.
    memory: RwLock<()>,
    /// Vats that print: the record does not say where, so none can run ahead.
    printing: Mutex<HashSet<VatId>>,
}

impl SharedReplays {
    fn prints(&self, vat: &VatId) -> bool {
        self.printing.lock().unwrap_or_else(PoisonError::into_inner).contains(vat)
    }

    fn note_printing(&self, vat: &VatId) {
        self.printing.lock().unwrap_or_else(PoisonError::into_inner).insert(vat.clone());
    }
}

/// The replays of a span and their verdict.
#[derive(Debug)]
pub struct Judged {
    /// The verdict of the span.
    pub verdict: Verdict,
    /// The first replay, and the repeats if it had findings. An image that an earlier one gave too is not kept again.
    pub replays: Vec<Replay>,
}

impl Judged {
    /// The replay that the verdict is about.
    #[must_use]
    pub fn first(&self) -> &Replay {
        &self.replays[0]
    }

    /// The image for the span after this one: the recorded one, whichever replay gave it, else that of the first replay.
    #[must_use]
    pub fn take_image(&mut self) -> Option<Image> {
        let mut images = self.replays.iter_mut().map(|replay| (replay.is_image_recorded, replay.image.take()));
        let first = images.next().and_then(|(is_recorded, image)| Some((is_recorded, image?)));
        let better = images.find(|(is_recorded, image)| *is_recorded && image.is_some());
        match (first, better) {
            (Some((true, image)), _) => Some(image),
            (_, Some((_, Some(image)))) => Some(image),
            (first, _) => first.map(|(_, image)| image),
        }
    }
}

/// One of the two ways to replay a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Responses lie ready before the worker asks.
    Ahead,
    /// Message by message.
    InStep,
}

/// Replays a span, again if something differs, and gives the verdict of all replays together.
#[must_use]
pub fn judge(span: &Span<'_>, start: &ReplayStart<'_>, repeats: &Repeats<'_>) -> Judged {
    judge_by(span, repeats, |way| match way {
        Way::Ahead => replay_ahead(span, start),
        Way::InStep => replay(span, start),
    })
}

/// [`judge`] without a worker of its own: `run` makes each replay.
fn judge_by(span: &Span<'_>, repeats: &Repeats<'_>, run: impl Fn(Way) -> Replay) -> Judged {
    let memory = &repeats.shared.memory;
    let beside_others = || {
        let _shared = memory.read().unwrap_or_else(PoisonError::into_inner);
        run(Way::InStep)
    };
    let mut replays = if repeats.shared.prints(&span.id.vat) { Vec::new() } else { ahead(span, repeats.shared, &run) };
    if replays.is_empty() {
        replays.push(beside_others());
    }
    if replays[0].findings.is_empty() {
        replays.truncate(1);
        return Judged { verdict: without_finding(span, &replays[0]), replays };
    }
    if replays[0].is_out_of_memory && replays[0].findings_total == 1 {
        // Perhaps the machine was short of memory because of our own replays. The result counts when the worker runs alone.
        let alone = memory.write().unwrap_or_else(PoisonError::into_inner);
        let again = run(Way::InStep);
        drop(alone);
        if again.findings.is_empty() && again.is_complete {
            tracing::warn!("{}: a worker ran out of memory, and did not when it ran alone", span.id);
            return Judged { verdict: without_finding(span, &again), replays: vec![again] };
        }
        replays.push(again);
    }
    while replays.len() <= repeats.times as usize {
        let mut again = beside_others();
        let is_known = |image: &Image| replays.iter().any(|before| hash_of(before) == Some(image.hash()));
        if again.image.as_ref().is_some_and(is_known) && !again.is_image_recorded {
            again.image = None;
        }
        replays.push(again);
    }
    Judged { verdict: diverged(span, &replays), replays }
}

/// The quick way. Empty if the vat printed; on a difference the replay without running ahead, and before it the first one unless the second
/// one confirms it.
fn ahead(span: &Span<'_>, shared: &SharedReplays, run: &impl Fn(Way) -> Replay) -> Vec<Replay> {
    let _shared = shared.memory.read().unwrap_or_else(PoisonError::into_inner);
    let quick = run(Way::Ahead);
    match quick.out_of_step {
        None => vec![quick],
        Some(OutOfStep::Printed) => {
            shared.note_printing(&span.id.vat);
            Vec::new()
        }
        Some(OutOfStep::Differed) => {
            let slow = run(Way::InStep);
            if quick.is_confirmed_by(&slow) { vec![slow] } else { vec![quick, slow] }
        }
    }
}

fn hash_of(replay: &Replay) -> Option<crate::transcript::Hash256> {
    replay.image.as_ref().map(Image::hash)
}

/// The verdict of a replay without a finding.
fn without_finding(span: &Span<'_>, replay: &Replay) -> Verdict {
    match (&replay.failure, partial(span)) {
        (Some(failure), _) => Verdict::Failed(failure.clone()),
        (None, Some(partial)) if replay.is_complete => Verdict::Partial(partial),
        (None, None) if replay.is_complete => Verdict::Verified,
        (None, _) => {
            Verdict::Failed(Failure::System("the replay stopped without a reason: please report this".to_owned()))
        }
    }
}

/// Set where the end of the span could not be seen.
fn partial(span: &Span<'_>) -> Option<Partial> {
    (span.seen_to < span.id.end).then_some(Partial { seen_to: span.seen_to, end: span.id.end })
}

fn diverged(span: &Span<'_>, replays: &[Replay]) -> Verdict {
    let once = &replays[0];
    Verdict::Diverged(Divergence {
        findings: once.findings.clone(),
        findings_total: once.findings_total,
        failure: once.failure.as_ref().map(Failure::to_string),
        repeat: repeat(once, &replays[1..]),
        partial: partial(span),
        heap: None,
    })
}

/// The agreement of the repeats with the first replay's findings.
fn repeat(once: &Replay, repeats: &[Replay]) -> Repeat {
    let mut others: Vec<RepeatOutcome> = Vec::new();
    let mut trouble = None;
    for again in repeats {
        if is_same(once, again) {
            continue;
        }
        // Of a replay that failed half-way, what it had found until then is all that can be compared.
        let agree = once.findings.starts_with(&again.findings) || again.findings.starts_with(&once.findings);
        match again.failure.as_ref().or(once.failure.as_ref()) {
            Some(failure) if agree => trouble = trouble.or_else(|| Some(failure.to_string())),
            _ => count(&mut others, &again.findings),
        }
    }
    match (others.is_empty(), trouble) {
        (false, _) => Repeat::Flaky(others),
        (true, Some(failure)) => Repeat::Unconfirmed(failure),
        (true, None) if repeats.is_empty() => Repeat::Unconfirmed("it was not repeated".to_owned()),
        (true, None) => Repeat::Deterministic,
    }
}

/// Whether two replays found the same.
#[must_use]
pub fn is_same(one: &Replay, other: &Replay) -> bool {
    one.findings == other.findings && one.findings_total == other.findings_total
}

fn count(outcomes: &mut Vec<RepeatOutcome>, findings: &[Finding]) {
    match outcomes.iter_mut().find(|outcome| outcome.findings == findings) {
        Some(outcome) => outcome.times += 1,
        None => outcomes.push(RepeatOutcome { times: 1, findings: findings.to_vec() }),
    }
}

#[cfg(test)]
mod tests;
