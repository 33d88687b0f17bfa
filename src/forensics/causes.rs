//! What is known to bring divergences about: a table of rules, each with its reason and how sure it is.
//!
//! A rule looks at what the evidence shows and says nothing where that does not speak for it. None changes a verdict: a
//! divergence with a known cause is one all the same. The causes are those that the maintainers of SwingSet met over the
//! years; the numbers are of issues of Agoric/agoric-sdk.

use serde::Serialize;

use super::account::DeliveryAccount;
use super::cost::Cost;
use crate::evidence::Manifest;
use crate::evidence::manifest::{WorkerColumn, WorkerOutcome};
use crate::replay::Mark;
use crate::span::BaseKind;
use crate::verdict::{Finding, FindingClass, FindingKind, HeapAnswer, HeapLikeness, RepeatKind, TraceKind, WorkerExit};

/// How sure a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The evidence shows it.
    Certain,
    /// Nothing else is known that looks like this.
    Likely,
    /// It would look like this, and so would other things.
    Possible,
}

impl Confidence {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Possible => "possible",
        }
    }
}

/// Something that may have brought the divergence about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// One word.
    pub name: &'static str,
    /// How sure.
    pub confidence: Confidence,
    /// What it is, and what speaks for it.
    pub reason: String,
}

/// What rules look at.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The evidence.
    pub manifest: &'a Manifest,
    /// What differs.
    pub findings: &'a [Finding],
    /// The deliveries in which something differs.
    pub deliveries: &'a [DeliveryAccount],
    /// What each delivery cost.
    pub costs: &'a [Cost],
    /// What workers did.
    pub workers: &'a [WorkerColumn],
}

/// The end of a worker's process among the findings.
struct WorkerEnd<'a> {
    /// The exit; `None` in evidence of version 0.1.0.
    exit: Option<WorkerExit>,
    /// The same for people.
    words: &'a str,
}

type Rule = fn(&Facts<'_>) -> Option<(Confidence, String)>;

/// All rules.
const RULES: [(&str, Rule); 14] = [
    ("worker", other_worker),
    ("garbage_collection", garbage_collection),
    ("record_changed", record_changed),
    ("bundle", bundle),
    ("engine", engine),
    ("metering", metering),
    ("order", order),
    ("record_cut", record_cut),
    ("limits", limits),
    ("crash", crash),
    ("host_in_heap", host_in_heap),
    ("compiler", compiler),
    ("time_zone", time_zone),
    ("gc_schedule", gc_schedule),
];

/// What may have brought a divergence about, the likeliest first.
#[must_use]
pub fn causes(facts: &Facts<'_>) -> Vec<Cause> {
    let mut causes: Vec<Cause> = RULES
        .iter()
        .filter_map(|(name, rule)| rule(facts).map(|(confidence, reason)| Cause { name, confidence, reason }))
        .collect();
    causes.sort_by_key(|cause| cause.confidence);
    causes
}

impl Facts<'_> {
    fn are_all(&self, kind: FindingKind) -> bool {
        !self.findings.is_empty() && self.findings.iter().all(|finding| finding.kind == kind)
    }

    fn has(&self, kind: FindingKind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }

    fn is_flaky(&self) -> bool {
        self.manifest.repeat == RepeatKind::Flaky
    }

    /// Whether the heap at the end was compared and is the recorded one.
    fn is_heap_the_same(&self) -> bool {
        let image = self.manifest.outcomes.first().and_then(|outcome| outcome.image);
        image.is_some_and(|image| Some(image.sha256) == self.manifest.span.saves)
    }

    /// Whether the first delivery of the span differs already.
    fn is_from_the_start(&self) -> bool {
        let first = self.costs.first();
        first.is_some_and(|first| self.findings.first().is_some_and(|finding| finding.position <= first.position))
    }

    fn heap(&self) -> Option<&HeapAnswer> {
        self.manifest.heap.as_ref()
    }

    /// The first place of a kind of trace in the heap; empty if the place was not kept.
    fn trace(&self, kind: TraceKind) -> Option<String> {
        let heap = self.heap()?;
        heap.trace_counts.get(&kind)?;
        Some(heap.first_trace(kind).unwrap_or_default().to_owned())
    }

    /// How many syscalls were made at another place. Findings of version 0.1.0 do not tell; the deliveries side by side do.
    fn moved(&self) -> usize {
        let told = self.findings.iter().filter(|finding| finding.moved_to.is_some()).count();
        let rows = self.deliveries.iter().flat_map(|delivery| &delivery.syscalls);
        if told > 0 { told } else { rows.filter(|row| row.mark == Mark::Moved).count() }
    }

    /// How the worker ended by itself, if it did.
    fn worker_end(&self) -> Option<WorkerEnd<'_>> {
        let finding = self.findings.iter().find(|finding| finding.kind == FindingKind::WorkerExit)?;
        Some(WorkerEnd { exit: finding.exit, words: finding.replayed.as_deref().unwrap_or_default() })
    }

    /// Whether the heaps are known to differ in nothing that a program can see.
    fn is_heap_isomorphic(&self) -> bool {
        self.heap().is_some_and(|heap| matches!(heap.answer, HeapLikeness::Isomorphic | HeapLikeness::GcSchedule))
    }

    fn begins_blank(&self) -> bool {
        self.manifest.start.image.is_none()
    }
}

fn other_worker(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let good = facts.workers.iter().find(|column| column.outcome == WorkerOutcome::Reproduces)?;
    let bad = facts.workers.iter().find(|column| column.outcome == WorkerOutcome::Diverges)?;
    if good.worker == bad.worker {
        return None;
    }
    if good.worker.sha256 == bad.worker.sha256 {
        return Some((
            Confidence::Likely,
            format!(
                "the same program reproduces the record in another environment (TZ {} and stack {} instead of TZ {} and stack {})",
                good.worker.time_zone, good.worker.stack, bad.worker.time_zone, bad.worker.stack
            ),
        ));
    }
    Some((
        Confidence::Certain,
        format!(
            "it is the worker: {} ({}) reproduces the record, {} ({}) does not",
            good.worker.path, good.worker.version, bad.worker.path, bad.worker.version
        ),
    ))
}

fn garbage_collection(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let is_read = |finding: &&Finding| finding.class == Some(FindingClass::GcSensitiveRead);
    let reads = facts.findings.iter().filter(is_read).count();
    let others = facts.findings.iter().filter(|finding| {
        finding.class.is_none() && !matches!(finding.kind, FindingKind::Computrons | FindingKind::SnapshotHash)
    });
    (reads > 0 && others.count() == 0).then(|| {
        (
            Confidence::Likely,
            format!(
                "garbage was collected at another time ({reads} of what differs): reads of what describes a virtual collection are made when its representative was collected before (#6360, #6588, #7142)"
            ),
        )
    })
}

fn record_changed(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    (facts.is_heap_the_same() && !facts.is_flaky() && !facts.findings.is_empty()).then(|| {
        (
            Confidence::Likely,
            "the record differs and not the worker: the heap at the end of the span is the recorded one, bit for bit"
                .to_owned(),
        )
    })
}

fn bundle(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let is_early = facts.is_from_the_start();
    let differs = is_early || facts.has(FindingKind::SnapshotHash) && !facts.is_heap_the_same();
    let when =
        if is_early { "the vat differs from its first delivery on" } else { "the worker was started from bundles" };
    (facts.begins_blank() && differs && !facts.is_flaky()).then(|| {
        (
            Confidence::Possible,
            format!("another lockdown, supervisor or vat bundle than the node ran: {when} (#8471, #9644); --with-bundle tries another"),
        )
    })
}

fn engine(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let differing = facts.costs.iter().filter(|cost| cost.replayed.is_some() && cost.replayed != cost.recorded).count();
    let made = facts.costs.iter().filter(|cost| cost.replayed.is_some()).count();
    (differing > 2 && differing * 2 > made && !facts.is_flaky()).then(|| {
        (
            Confidence::Likely,
            format!(
                "another engine, or a stale build of it: {differing} of {made} deliveries cost another number of computrons (#7012, #7831, #9618); the worker says that it is {}",
                facts.manifest.worker.version
            ),
        )
    })
}

fn metering(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    (facts.are_all(FindingKind::Computrons) && facts.findings.len() == 1 && facts.is_heap_the_same()).then(|| {
        (
            Confidence::Possible,
            "metering depends on something outside the vat, as it once did on garbage collection (#3457): one delivery's cost is all that differs".to_owned(),
        )
    })
}

fn order(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let moved = facts.moved();
    (moved > 0).then(|| {
        (
            Confidence::Likely,
            format!("promises or messages were taken in another order ({moved} of what differs): the same syscalls were made at another place (#6022)"),
        )
    })
}

fn record_cut(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let first = facts.findings.first()?;
    let is_trailing = facts.are_all(FindingKind::ExtraSyscall)
        && facts.findings.iter().all(|finding| finding.position == first.position);
    (is_trailing && first.class.is_none()).then(|| {
        (
            Confidence::Possible,
            "the record of the delivery lost syscalls (#3043): the replay makes more of them, and all others agree"
                .to_owned(),
        )
    })
}

fn limits(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let WorkerEnd { exit, words } = facts.worker_end()?;
    exit.is_some_and(WorkerExit::is_limit).then(|| {
        (
            Confidence::Likely,
            format!(
                "the worker came to a limit of the engine ({words}) that it did not come to on the node: compare `ulimit -s` (here {} bytes) and the memory of both (#2652, #5953)",
                facts.manifest.worker.stack
            ),
        )
    })
}

fn crash(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let WorkerEnd { exit, words } = facts.worker_end()?;
    let (confidence, what) = match exit {
        Some(exit) if exit.is_limit() => return None,
        _ if facts.is_flaky() => (Confidence::Possible, "not each time: the machine's memory, or a race in the engine"),
        Some(_) => (Confidence::Likely, "each time: a mistake in the engine or in how it was compiled"),
        None => (Confidence::Possible, "each time: a limit of the engine, or a mistake in it"),
    };
    Some((confidence, format!("the worker's process ended by itself ({words}), {what} (#3085, #3350, #6257)")))
}

fn host_in_heap(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    if let Some(place) = facts.trace(TraceKind::HostPointer) {
        let reason = format!("an address of the host is in the heap, another one in each process: {place}");
        return Some((Confidence::Certain, reason));
    }
    (facts.is_flaky() && facts.are_all(FindingKind::SnapshotHash)).then(|| {
        (
            Confidence::Likely,
            "something of the host is in the heap: a regular expression with a lookahead or lookbehind that the vat keeps and has used leaves a pointer in its data, another one in each process; the vat itself did the same each time".to_owned(),
        )
    })
}

fn compiler(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    if let Some(place) = facts.trace(TraceKind::NumberRepresentation) {
        return Some((
            Confidence::Likely,
            format!(
                "the worker was compiled without __has_builtin, or the node's was: a whole number is a floating-point number in one of them (#7829): {place}"
            ),
        ));
    }
    if facts.heap().is_some_and(|heap| heap.answer == HeapLikeness::GcSchedule) {
        return None;
    }
    let is_late = facts.has(FindingKind::SnapshotHash) && !facts.is_from_the_start();
    let is_hash_only = facts.are_all(FindingKind::SnapshotHash);
    (!facts.is_flaky() && (is_hash_only || is_late && !facts.is_heap_the_same())).then(|| {
        (
            Confidence::Possible,
            "the worker was compiled with another compiler or other options: one without __has_builtin keeps integer products as floating-point numbers (#7829); spanwatch bisect finds the delivery".to_owned(),
        )
    })
}

fn time_zone(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    let zone = &facts.manifest.worker.time_zone;
    let is_utc = ["UTC", "UTC0", "", ":UTC", "Etc/UTC"].contains(&zone.as_str());
    let differs = facts.has(FindingKind::SnapshotHash) && !facts.is_flaky() && !facts.is_heap_the_same();
    (differs && !facts.is_heap_isomorphic()).then(|| match is_utc {
        true => (
            Confidence::Possible,
            "the node runs in another time zone than UTC, and the vat uses local times of Date: give the node's with --worker-tz".to_owned(),
        ),
        false => (
            Confidence::Likely,
            format!("the replay's time zone is {zone}, and the vat uses local times of Date: give the node's with --worker-tz"),
        ),
    })
}

fn gc_schedule(facts: &Facts<'_>) -> Option<(Confidence, String)> {
    match facts.heap().map(|heap| heap.answer) {
        Some(HeapLikeness::GcSchedule) => {
            return Some((
                Confidence::Certain,
                "the heaps are the same, but not what the engine has counted for its next garbage collection (#3577, #5330, #5845, #6588)".to_owned(),
            ));
        }
        Some(HeapLikeness::Isomorphic | HeapLikeness::Different) => return None,
        Some(HeapLikeness::Unknown) | None => {}
    }
    let is_chained = facts.manifest.start.base == BaseKind::Chained || facts.manifest.start.is_base_unproved;
    (facts.are_all(FindingKind::SnapshotHash) && !facts.is_flaky()).then(|| {
        let more = if is_chained { ", the more so as it started from an image of a replay of ours" } else { "" };
        (
            Confidence::Possible,
            format!("the engine collected garbage at other times or grew its heap otherwise, and nothing that the vat can see differs{more} (#3577, #5330, #5845, #6588)"),
        )
    })
}

#[cfg(test)]
mod tests;
