//! Several workers side by side: the totals of each, and the spans on which their verdicts differ.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Totals, json, text};
use crate::replay::WorkerProgram;
use crate::transcript::SpanId;
use crate::verdict::VerdictKind;
use crate::verify::SpanReport;
use crate::visible::Lines;
use crate::words::plural;

/// The outcome of each span with each worker. Keeps a verdict for each span and worker; nothing for one worker alone.
#[derive(Debug)]
pub struct Compared {
    of_worker: Vec<Totals>,
    verdicts: BTreeMap<SpanId, BTreeMap<usize, VerdictKind>>,
}

/// A span on which workers disagree.
#[derive(Debug, Serialize)]
struct DisagreementLine<'a> {
    r#type: &'static str,
    vat: &'a str,
    start: u64,
    end: u64,
    /// The verdict of each worker, in their order; null for a worker that did not come to it.
    verdicts: Vec<Option<VerdictKind>>,
}

/// The totals of one worker.
#[derive(Debug, Serialize)]
pub struct WorkerTotals<'a> {
    worker: usize,
    spans: BTreeMap<&'static str, u64>,
    reasons: &'a BTreeMap<&'static str, u64>,
    deliveries: u64,
    syscalls: u64,
    snapshot_hashes: u64,
}

impl Compared {
    /// For so many workers.
    #[must_use]
    pub fn of(workers: usize) -> Self {
        let of_worker = if workers > 1 { vec![Totals::default(); workers] } else { Vec::new() };
        Self { of_worker, verdicts: BTreeMap::new() }
    }

    /// Counts a worker's result.
    pub fn add(&mut self, report: &SpanReport) {
        let Some(totals) = self.of_worker.get_mut(report.worker) else { return };
        totals.add(report);
        self.verdicts.entry(report.id.clone()).or_default().insert(report.worker, report.verdict.kind());
    }

    fn disagreements(&self) -> impl Iterator<Item = (&SpanId, Vec<Option<VerdictKind>>)> {
        self.verdicts.iter().filter_map(|(id, of_worker)| {
            let verdicts: Vec<_> = (0..self.of_worker.len()).map(|worker| of_worker.get(&worker).copied()).collect();
            verdicts.windows(2).any(|pair| pair[0] != pair[1]).then_some((id, verdicts))
        })
    }

    /// The totals of each worker, for the summary; nothing for one worker alone.
    pub(super) fn by_worker(&self) -> Vec<WorkerTotals<'_>> {
        let of_one = |(worker, totals)| WorkerTotals::of(worker, totals);
        self.of_worker.iter().enumerate().map(of_one).collect()
    }

    /// A line for each span on which the workers disagree.
    pub fn json_lines(&self) -> impl Iterator<Item = String> {
        self.disagreements().map(|(id, verdicts)| {
            let (vat, start, end) = (id.vat.as_str(), id.start, id.end);
            json::line(&DisagreementLine { r#type: "disagreement", vat, start, end, verdicts })
        })
    }

    /// Lines for people: each worker's totals, and the spans on which they disagree. Empty for one worker alone.
    #[must_use]
    pub fn text(&self, programs: &[WorkerProgram]) -> String {
        let mut lines = Lines::default();
        if self.of_worker.is_empty() {
            return lines.into_text();
        }
        for (worker, (totals, program)) in self.of_worker.iter().zip(programs).enumerate() {
            writeln!(lines, "worker {worker} ({}): {}", program.path.display(), text::counts(totals));
        }
        let mut disagreements = 0;
        for (id, verdicts) in self.disagreements() {
            disagreements += 1;
            let said = verdicts.iter().enumerate();
            let said =
                said.map(|(worker, verdict)| format!("worker {worker} {}", verdict.map_or("-", VerdictKind::label)));
            let said = said.collect::<Vec<_>>().join(", ");
            writeln!(lines, "the workers disagree on {} [{}, {}): {said}", id.vat, id.start, id.end);
        }
        match disagreements {
            0 => writeln!(lines, "the workers agree on the verdict of each span"),
            count => writeln!(lines, "the workers disagree on {}", plural(count, "span", "spans")),
        }
        lines.into_text()
    }
}

impl<'a> WorkerTotals<'a> {
    fn of(worker: usize, totals: &'a Totals) -> Self {
        Self {
            worker,
            spans: totals.by_verdict(),
            reasons: &totals.reasons,
            deliveries: totals.deliveries(),
            syscalls: totals.syscalls(),
            snapshot_hashes: totals.hashes(),
        }
    }
}
