//! The report of a span as the row that the store writes, and what its verdict means beside a live node.

use crate::report::json;
use crate::span::{SpanBegins, SpanEnds};
use crate::store::{FinishedSpan, Job, SpanSource};
use crate::tally::{Counter, Tally, finding_kinds};
use crate::verdict::{Unverifiable, Verdict};
use crate::verify::SpanReport;

/// The row that is written of a report.
pub(super) fn finished(report: &SpanReport, job: &Job, worker_sha256: &str) -> FinishedSpan {
    let mut tally = Tally::of(report);
    tally.add(Counter::Missed, u64::from(job.source == SpanSource::Live && is_missed(report)));
    FinishedSpan {
        verdict: report.verdict.kind(),
        reason: report.verdict.reason(),
        explanation: explanation(report),
        kinds: finding_kinds(&report.verdict),
        seen_to: report.verdict.partial().map(|partial| partial.seen_to),
        is_damage: report.verdict.is_damage(),
        base: report.base,
        detail: json::span(report),
        replay_seconds: report.took.as_secs_f64(),
        worker_sha256: worker_sha256.to_owned(),
        tally,
    }
}

fn explanation(report: &SpanReport) -> Option<String> {
    let of_replay = explanation_of(&report.verdict);
    let Some(first) = report.contradictions.kept.first() else { return of_replay };
    let more = report.contradictions.total - 1;
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let contradicted = format!("at position {}, a response contradicts the record: {first}{more}", first.position);
    Some(match of_replay {
        Some(of_replay) => format!("{of_replay}; {contradicted}"),
        None => contradicted,
    })
}

fn explanation_of(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Contradicted(otherwise) => explanation_of(otherwise),
        Verdict::Verified => None,
        Verdict::Partial(partial) => Some(partial.to_string()),
        Verdict::Diverged(divergence) => divergence.findings.first().map(|first| {
            let more = divergence.findings_total.saturating_sub(1);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let heap = divergence.heap.as_ref().map(|heap| format!("; {}", heap.answer.text())).unwrap_or_default();
            format!("at position {}, {first}{more}; {}{heap}", first.position, divergence.repeat.label())
        }),
        Verdict::Unverifiable(reason) => Some(format!("{reason}; {}", reason.hint())),
        Verdict::Failed(failure) => Some(format!("{failure}; {}", failure.hint())),
        Verdict::NotApplicable(reason) => Some(reason.text().to_owned()),
    }
}

/// Whether the node's deleting left nothing to replay, of a span that had something to replay.
fn is_missed(report: &SpanReport) -> bool {
    let is_deleted = matches!(
        report.verdict,
        Verdict::Unverifiable(Unverifiable::ItemsPruned | Unverifiable::RowGone | Unverifiable::BaseGone(_))
    );
    let items = report.id.end.saturating_sub(report.id.start);
    is_deleted && !holds_no_delivery(items, report.begins, report.ends)
}

/// Whether rows alone say that a span has its first and its last item and nothing between, as one between a snapshot and an upgrade
/// that follows at once.
fn holds_no_delivery(items: u64, begins: Option<SpanBegins>, ends: Option<SpanEnds>) -> bool {
    items <= 2 && begins.is_some() && matches!(ends, Some(SpanEnds::SaveSnapshot | SpanEnds::ShutdownWorker))
}

/// Whether rows that vanished during the reads can explain a verdict.
pub(super) fn may_come_of_vanishing(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Unverifiable(
            Unverifiable::ItemsPruned
                | Unverifiable::ItemsMissing { .. }
                | Unverifiable::SpanHash { .. }
                | Unverifiable::BaseGone(_)
                | Unverifiable::BaseDamaged(_)
                | Unverifiable::ChainBroken { .. }
                | Unverifiable::Shape { .. }
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot and an upgrade in one block leave a span of two items, neither a delivery.
    #[test]
    fn a_span_may_hold_no_delivery() {
        let loads = Some(SpanBegins::LoadSnapshot);
        assert!(holds_no_delivery(2, loads, Some(SpanEnds::ShutdownWorker)));
        assert!(holds_no_delivery(2, loads, Some(SpanEnds::SaveSnapshot)));
        // Its last item may be a delivery, or its first is not known.
        assert!(!holds_no_delivery(2, loads, None));
        assert!(!holds_no_delivery(2, loads, Some(SpanEnds::Termination)));
        assert!(!holds_no_delivery(2, None, Some(SpanEnds::ShutdownWorker)));
        assert!(!holds_no_delivery(3, loads, Some(SpanEnds::ShutdownWorker)));
    }
}
