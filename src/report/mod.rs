//! How results are told: a line a span for people ([`text`]), an object a line for programs ([`json`]), and where a
//! vat's rows contradict one another ([`history`]).

pub mod compared;
pub mod history;
pub mod json;
pub mod plan;
pub mod text;

use std::collections::BTreeMap;

use crate::verdict::{Verdict, VerdictKind};
use crate::verify::SpanReport;

/// What became of all spans together.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Spans by the kind of their verdict.
    pub verdicts: BTreeMap<VerdictKind, u64>,
    /// Of the unverifiable, failed and not applicable: how many for each reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Verified spans that were asked for.
    pub asked_verified: u64,
    /// Spans that were replayed only because one that was asked for starts from their image.
    pub on_the_way: u64,
    /// Deliveries made and compared.
    pub deliveries: u64,
    /// Syscalls compared.
    pub syscalls: u64,
    /// Snapshot hashes compared.
    pub hashes: u64,
    /// Responses that the record itself contradicts.
    pub contradictions: u64,
}

impl Totals {
    /// Counts a span.
    pub fn add(&mut self, report: &SpanReport) {
        *self.verdicts.entry(report.verdict.kind()).or_default() += 1;
        if let Some(reason) = report.verdict.reason() {
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.on_the_way += u64::from(!report.is_asked);
        self.asked_verified += u64::from(report.is_asked && matches!(report.verdict, Verdict::Verified));
        self.deliveries += report.deliveries;
        self.syscalls += report.syscalls;
        self.hashes += u64::from(report.is_hash_compared);
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
        self.verdicts.get(&kind).copied().unwrap_or(0)
    }

    /// The number of spans that have something to replay.
    #[must_use]
    pub fn applicable(&self) -> u64 {
        let kinds = VerdictKind::ALL.into_iter().filter(|kind| *kind != VerdictKind::NotApplicable);
        kinds.map(|kind| self.count(kind)).sum()
    }
}
