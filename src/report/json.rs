//! One JSON object a line, each with a `type`. The contract is `docs/json.md`; fields may be added, never changed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Totals;
use super::compared::{Compared, WorkerTotals};
use crate::audit::Contradiction;
use crate::record::Origin;
use crate::replay::WorkerProgram;
use crate::span::{BaseKind, SpanBegins, SpanEnds};
use crate::verdict::{Finding, HeapAnswer, Repeat, RepeatOutcome, Verdict};
use crate::verify::SpanReport;

/// One span's outcome.
#[derive(Debug, Serialize)]
struct SpanLine<'a> {
    r#type: &'static str,
    vat: &'a str,
    name: Option<&'a str>,
    incarnation: u64,
    start: u64,
    end: u64,
    worker: usize,
    asked: bool,
    begins: Option<SpanBegins>,
    ends: Option<SpanEnds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items_from: Option<Origin>,
    base: BaseKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_from: Option<Origin>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    base_unproved: bool,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    contradictions: &'a [Contradiction],
    #[serde(skip_serializing_if = "is_zero")]
    contradictions_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<&'a [Finding]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings_total: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_findings: Option<&'a [Finding]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcomes: Option<&'a [RepeatOutcome]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heap: Option<&'a HeapAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damage: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_to: Option<u64>,
    deliveries: u64,
    syscalls: u64,
    snapshot_hash_compared: bool,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct SummaryLine<'a> {
    r#type: &'static str,
    spanwatch: &'static str,
    workers: &'a [WorkerProgram],
    spans: BTreeMap<&'static str, u64>,
    reasons: &'a BTreeMap<&'static str, u64>,
    on_the_way: u64,
    deliveries: u64,
    syscalls: u64,
    snapshot_hashes: u64,
    contradictions: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    by_worker: Vec<WorkerTotals<'a>>,
    seconds: f64,
}

/// Any line's text, without its end.
#[must_use]
pub fn line(value: &impl Serialize) -> String {
    // The values have string keys and finite numbers, so nothing can fail.
    let text = serde_json::to_string(value).unwrap_or_default();
    crate::visible::json(&text).into_owned()
}

/// The line of a span.
#[must_use]
pub fn span(report: &SpanReport) -> String {
    let divergence = match &report.verdict {
        Verdict::Diverged(divergence) => Some(divergence),
        _ => None,
    };
    let outcomes = divergence.and_then(|divergence| match &divergence.repeat {
        Repeat::Flaky(outcomes) => Some(&outcomes[..]),
        Repeat::Deterministic | Repeat::Unconfirmed(_) => None,
    });
    line(&SpanLine {
        r#type: "span",
        vat: report.id.vat.as_str(),
        name: report.name.as_deref(),
        incarnation: report.incarnation,
        start: report.id.start,
        end: report.id.end,
        worker: report.worker,
        asked: report.is_asked,
        begins: report.begins,
        ends: report.ends,
        items_from: report.items_from,
        base: report.base,
        base_from: report.base_from,
        base_unproved: report.is_base_unproved,
        verdict: report.verdict.label(),
        replay: match &report.verdict {
            Verdict::Contradicted(otherwise) => Some(otherwise.label()),
            _ => None,
        },
        contradictions: &report.contradictions.kept,
        contradictions_total: report.contradictions.total,
        findings: divergence.map(|divergence| &divergence.findings[..]),
        findings_total: divergence.map(|divergence| divergence.findings_total),
        repeat: divergence.map(|divergence| divergence.repeat.label()),
        repeat_findings: outcomes.and_then(<[RepeatOutcome]>::first).map(|outcome| &outcome.findings[..]),
        outcomes,
        heap: divergence.and_then(|divergence| divergence.heap.as_deref()),
        evidence: report.evidence.as_ref().and_then(|kept| kept.as_ref().ok()).map(|kept| &kept.folder[..]),
        failure: divergence.and_then(|divergence| divergence.failure.as_deref()),
        reason: report.verdict.reason(),
        damage: report.verdict.is_damage(),
        explanation: explanation(&report.verdict),
        stopped_at: report.stopped_at,
        seen_to: report.verdict.partial().map(|partial| partial.seen_to),
        deliveries: report.deliveries,
        syscalls: report.syscalls,
        snapshot_hash_compared: report.is_hash_compared,
        seconds: seconds(report.took),
    })
}

fn explanation(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Verified | Verdict::Diverged(_) => None,
        Verdict::Partial(partial) => Some(partial.to_string()),
        Verdict::Contradicted(otherwise) => explanation(otherwise),
        Verdict::Unverifiable(reason) => Some(reason.to_string()),
        Verdict::Failed(failure) => Some(failure.to_string()),
        Verdict::NotApplicable(reason) => Some(reason.text().to_owned()),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The last line.
#[must_use]
pub fn summary(totals: &Totals, workers: &[WorkerProgram], compared: &Compared, took: Duration) -> String {
    line(&SummaryLine {
        r#type: "summary",
        spanwatch: env!("CARGO_PKG_VERSION"),
        workers,
        spans: totals.by_verdict(),
        reasons: &totals.reasons,
        on_the_way: totals.on_the_way,
        deliveries: totals.deliveries(),
        syscalls: totals.syscalls(),
        snapshot_hashes: totals.hashes(),
        contradictions: totals.contradictions,
        by_worker: compared.by_worker(),
        seconds: seconds(took),
    })
}

/// To the millisecond.
#[must_use]
pub fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1_000.0).round() / 1_000.0
}
