//! Results in print: a line a span for people ([`text`]), an object a line for programs ([`json`]), and the places where a
//! vat's rows contradict one another ([`history`]).

pub mod compared;
pub mod history;
pub mod json;
pub mod plan;
pub mod text;

use std::collections::BTreeMap;

use crate::tally::{Counter, Tally};
use crate::verdict::{Verdict, VerdictKind};
use crate::verify::SpanReport;

/// The totals of all spans.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Totals {
    /// The counters of verdicts and of what was compared.
    tally: Tally,
    /// Of the unverifiable, failed and not applicable: how many for each reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Verified spans that were asked for.
    pub asked_verified: u64,
    /// Spans that were replayed only because one that was asked for starts from their image.
    pub on_the_way: u64,
    /// Responses that the record itself contradicts.
    pub contradictions: u64,
}

impl Totals {
    /// Counts a span.
    pub fn add(&mut self, report: &SpanReport) {
        self.tally.merge(&Tally::of(report));
        if let Some(reason) = report.verdict.reason() {
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.on_the_way += u64::from(!report.is_asked);
        self.asked_verified += u64::from(report.is_asked && matches!(report.verdict, Verdict::Verified));
        self.contradictions += report.contradictions.total;
    }

    /// The number of spans of each label, those without a span too.
    #[must_use]
    pub fn by_verdict(&self) -> BTreeMap<&'static str, u64> {
        VerdictKind::ALL.into_iter().map(|kind| (kind.label(), self.count(kind))).collect()
    }

    /// The number of spans with a verdict of one kind.
    #[must_use]
    pub fn count(&self, kind: VerdictKind) -> u64 {
        self.tally.get(Counter::Spans(kind))
    }

    /// The number of deliveries compared.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.tally.get(Counter::Deliveries)
    }

    /// The number of syscalls compared.
    #[must_use]
    pub fn syscalls(&self) -> u64 {
        self.tally.get(Counter::Syscalls)
    }

    /// The number of snapshot hashes compared.
    #[must_use]
    pub fn hashes(&self) -> u64 {
        self.tally.get(Counter::SnapshotHashes)
    }

    /// The number of spans that have something to replay.
    #[must_use]
    pub fn applicable(&self) -> u64 {
        let kinds = VerdictKind::ALL.into_iter().filter(|kind| *kind != VerdictKind::NotApplicable);
        kinds.map(|kind| self.count(kind)).sum()
    }
}
