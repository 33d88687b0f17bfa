//! Lines for people.

use std::fmt::Write;
use std::time::Duration;

use super::Totals;
use crate::kernel_db::SpanRow;
use crate::span::{SpanBegins, SpanEnds};
use crate::verdict::{Divergence, Repeat, RepeatOutcome, Verdict, VerdictKind};
use crate::verify::SpanReport;
use crate::visible::Lines;
use crate::words::{plural, vat_name};

/// Places of a heap that are shown.
const PLACES: usize = 3;

/// A span's lines: one, and one more for each thing that is to be said about it.
#[must_use]
pub fn span(report: &SpanReport, workers: usize) -> String {
    let mut first = format!(
        "{:<14} {:<6} {:<16} inc {:<2} [{}, {}) {} → {}, {}",
        shouted(&report.verdict),
        report.id.vat,
        vat_name(report.name.as_deref()),
        report.incarnation,
        report.id.start,
        report.id.end,
        report.begins.map_or("?", SpanBegins::label),
        report.ends.map_or("?", SpanEnds::label),
        base(report),
    );
    if workers > 1 {
        let _ = write!(first, ", worker {}", report.worker);
    }
    if !report.is_asked {
        first.push_str(", on the way");
    }
    if report.verdict.is_of_a_replay() {
        let _ = write!(
            first,
            ": {}, {}, {}, {:.2} s",
            plural(report.deliveries, "delivery", "deliveries"),
            plural(report.syscalls, "syscall", "syscalls"),
            if report.is_hash_compared { "snapshot hash" } else { "no snapshot hash" },
            report.took.as_secs_f64()
        );
    }
    if let Verdict::NotApplicable(reason) = &report.verdict {
        let _ = write!(first, ": {}", reason.text());
    }
    let mut text = Lines::default();
    writeln!(text, "{first}");
    let replayed = match &report.verdict {
        Verdict::Contradicted(otherwise) => {
            writeln!(text, "    apart from the responses: {}", otherwise.label());
            otherwise
        }
        verdict => verdict,
    };
    contradictions(report, &mut text);
    match replayed {
        Verdict::Verified | Verdict::NotApplicable(_) | Verdict::Contradicted(_) => {}
        Verdict::Partial(partial) => writeln!(text, "    {partial}"),
        Verdict::Diverged(divergence) => diverged(report, divergence, &mut text),
        Verdict::Unverifiable(reason) => {
            writeln!(text, "    {}: {reason}", reason.label());
            writeln!(text, "    {}", reason.hint());
        }
        Verdict::Failed(failure) => {
            writeln!(text, "    {}: {failure}", failure.label());
            writeln!(text, "    {}", failure.hint());
        }
    }
    text.into_text_without_end()
}

/// The lines of a divergence: findings, agreement of the replays, evidence.
fn diverged(report: &SpanReport, divergence: &Divergence, text: &mut Lines) {
    let vat = &report.id.vat;
    for finding in &divergence.findings {
        writeln!(text, "    diverged at {vat}:{}, {finding}", finding.position);
    }
    let unsaid = divergence.findings_total - divergence.findings.len();
    if unsaid > 0 {
        writeln!(text, "    and {unsaid} more");
    }
    repeated(report, &divergence.repeat, text);
    if let Some(heap) = &divergence.heap {
        let why = heap.why.as_ref().map(|why| format!(", as {why}")).unwrap_or_default();
        writeln!(text, "    {}{why}", heap.answer.text());
        for place in heap.places.iter().chain(&heap.traces).take(PLACES) {
            writeln!(text, "        {place}");
        }
    }
    match &report.evidence {
        Some(Ok(kept)) => writeln!(text, "    evidence: {kept}"),
        Some(Err(error)) => writeln!(text, "    no evidence could be kept: {error}"),
        None => {}
    }
    if let Some(failure) = &divergence.failure {
        writeln!(text, "    then: {failure}");
    }
    if let Some(partial) = &divergence.partial {
        writeln!(text, "    {partial}");
    }
    if let Some(position) = report.stopped_at {
        writeln!(text, "    the replay could not go on from position {position}");
    }
}

fn repeated(report: &SpanReport, repeat: &Repeat, text: &mut Lines) {
    match repeat {
        Repeat::Deterministic => writeln!(text, "    deterministic: each fresh worker did the same again"),
        Repeat::Flaky(outcomes) => {
            for RepeatOutcome { times, findings } in outcomes {
                let workers = plural(u64::from(*times), "fresh worker", "fresh workers");
                let what = if findings.is_empty() { "as recorded" } else { "otherwise:" };
                writeln!(text, "    flaky: {workers} did {what}");
                for finding in findings {
                    writeln!(text, "        at {}:{}, {finding}", report.id.vat, finding.position);
                }
            }
        }
        Repeat::Unconfirmed(why) => writeln!(text, "    not confirmed: the repetition failed, as {why}"),
    }
}

/// Responses that the record itself contradicts, a line each.
fn contradictions(report: &SpanReport, text: &mut Lines) {
    for contradiction in &report.contradictions.kept {
        writeln!(text, "    contradicted at {}:{}, {contradiction}", report.id.vat, contradiction.position);
    }
    let unsaid = report.contradictions.total - report.contradictions.kept.len() as u64;
    if unsaid > 0 {
        writeln!(text, "    and {} more", plural(unsaid, "contradiction", "contradictions"));
    }
}

fn shouted(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Diverged(_) | Verdict::Contradicted(_) => verdict.label().to_uppercase(),
        Verdict::NotApplicable(_) => "-".to_owned(),
        _ => verdict.label().to_owned(),
    }
}

fn base(report: &SpanReport) -> String {
    let proof = if report.is_base_unproved { " from a diverged image" } else { "" };
    format!("{}{proof}", report.base.label())
}

/// The summary at the end.
#[must_use]
pub fn summary(totals: &Totals, took: Duration) -> String {
    let applicable: u64 = totals.applicable();
    let compared = format!(
        "{}, {}, {} compared in {:.1} s",
        plural(totals.deliveries(), "delivery", "deliveries"),
        plural(totals.syscalls(), "syscall", "syscalls"),
        plural(totals.hashes(), "snapshot hash", "snapshot hashes"),
        took.as_secs_f64()
    );
    let mut text = format!(
        "{} of {} verified: {compared}{}",
        totals.count(VerdictKind::Verified),
        plural(applicable, "span", "spans"),
        others(totals)
    );
    if totals.on_the_way > 0 {
        let _ = write!(text, "; {} of them only on the way to those asked for", totals.on_the_way);
    }
    if !totals.reasons.is_empty() {
        // The labels are ours.
        let reasons: Vec<String> = totals.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = write!(text, "\nreasons: {}", reasons.join(", "));
    }
    text
}

/// The summary where no closed span was asked for, with the spans that are open.
#[must_use]
pub fn nothing_matches(open: &[&SpanRow]) -> String {
    let bounds = |row: &&SpanRow| format!("[{}, {})", row.id.start, row.id.end);
    match open {
        [] => "no closed span matches".to_owned(),
        [row] => format!("no closed span matches; {} of {} is still open", bounds(row), row.id.vat),
        rows => format!("no closed span matches; {} spans are still open", rows.len()),
    }
}

/// The verdicts of some spans, in short.
pub(super) fn counts(totals: &Totals) -> String {
    let applicable: u64 = totals.applicable();
    format!(
        "{} of {} verified{}",
        totals.count(VerdictKind::Verified),
        plural(applicable, "span", "spans"),
        others(totals)
    )
}

fn others(totals: &Totals) -> String {
    let mut text = String::new();
    for kind in VerdictKind::ALL {
        let _ = match (kind, totals.count(kind)) {
            (VerdictKind::Verified, _) | (_, 0) => Ok(()),
            (VerdictKind::NotApplicable, count) => write!(text, "; {count} with nothing to replay"),
            (_, count) => write!(text, "; {count} {}", kind.label()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Contradiction, ContradictionKind, Contradictions};
    use crate::span::BaseKind;
    use crate::transcript::{SpanId, VatId, sha256};
    use crate::verdict::{Failure, Finding, FindingKind, NotApplicable, Partial, Unverifiable};

    fn report(verdict: Verdict) -> SpanReport {
        SpanReport {
            id: SpanId { vat: VatId::new("v9"), start: 5, end: 19 },
            name: Some("zoe".to_owned()),
            incarnation: 1,
            worker: 0,
            is_asked: true,
            begins: Some(SpanBegins::LoadSnapshot),
            ends: Some(SpanEnds::SaveSnapshot),
            items_from: None,
            base_from: None,
            base: BaseKind::Recorded,
            is_base_unproved: false,
            verdict,
            deliveries: 12,
            syscalls: 1,
            is_hash_compared: true,
            stopped_at: None,
            image_bytes: None,
            took: Duration::from_millis(1_234),
            evidence: None,
            images: crate::verify::NamedImages::default(),
            contradictions: Contradictions::default(),
        }
    }

    fn unverifiable() -> Vec<Unverifiable> {
        let (recorded, found) = (sha256(b"recorded"), sha256(b"found"));
        vec![
            Unverifiable::ItemsPruned,
            Unverifiable::RowGone,
            Unverifiable::ItemsMissing { missing: 7, present: 13, count: 14 },
            Unverifiable::SpanHash { recorded, found },
            Unverifiable::SpanRow("it ends before it starts"),
            Unverifiable::Item { position: 7, error: "EOF while parsing an object at line 1 column 5".to_owned() },
            Unverifiable::Shape { position: 7, what: "save-snapshot stands in the middle of the span".to_owned() },
            Unverifiable::TooLarge { bytes: 600_000_000 },
            Unverifiable::TranscriptArchive {
                file: "/a/transcript.v9.5.19.gz".to_owned(),
                error: "its last line is cut".to_owned(),
            },
            Unverifiable::BaseGone("the span before it, which starts at 0, has no items to replay".to_owned()),
            Unverifiable::BaseDamaged("in the database its gzip is damaged after 0 bytes of image: corrupt".to_owned()),
            Unverifiable::ChainBroken { start: 0, verdict: VerdictKind::Diverged },
            Unverifiable::BundleMissing("b1-00".to_owned()),
            Unverifiable::BundleDamaged { id: "b1-00".to_owned(), error: "it does not match its ID".to_owned() },
            Unverifiable::SourceUnknown,
            Unverifiable::Options("EOF while parsing".to_owned()),
            Unverifiable::WorkerType("nodeWorker".to_owned()),
            Unverifiable::HistoryBroken {
                position: 5,
                what: "the row of the span that ends here is missing".to_owned(),
            },
        ]
    }

    fn failures() -> Vec<Failure> {
        let position = 7;
        vec![
            Failure::WorkerStart("Permission denied".to_owned()),
            Failure::WorkerProtocol { position, error: "an unknown message: \"xyz\"".to_owned() },
            Failure::WorkerIo { position, exit: "exit 2 (could not read or write)".to_owned(), said: String::new() },
            Failure::WorkerKilled { position, signal: "SIGKILL".to_owned() },
            Failure::Limit { position, limit: "it did nothing for 60s".to_owned() },
            Failure::Database("database is locked".to_owned()),
            Failure::System("no memory".to_owned()),
        ]
    }

    fn divergences() -> Vec<Divergence> {
        let finding = |kind, syscall, recorded: Option<&str>, replayed: Option<&str>| Finding {
            syscall,
            ..Finding::new(kind, 7, recorded, replayed)
        };
        let all = vec![
            finding(FindingKind::Syscall, Some(0), Some("[\"send\"]"), Some("[\"exit\"]")),
            finding(FindingKind::MissingSyscall, Some(1), Some("[\"send\"]"), None),
            finding(FindingKind::ExtraSyscall, Some(2), None, Some("[\"send\"]")),
            finding(FindingKind::Status, None, Some("ok"), Some("error")),
            finding(FindingKind::Computrons, None, Some("10"), Some("11")),
            finding(FindingKind::SnapshotHash, None, Some("00"), Some("11")),
            finding(FindingKind::WorkerExit, None, Some("the worker went on"), Some("SIGSEGV")),
        ];
        let one = vec![all[4].clone()];
        let with = |findings: &Vec<Finding>, findings_total, repeat| Divergence {
            findings: findings.clone(),
            findings_total,
            failure: None,
            repeat,
            partial: None,
            heap: None,
        };
        vec![
            with(&all, 7, Repeat::Deterministic),
            with(&one, 60, Repeat::Flaky(vec![RepeatOutcome { times: 3, findings: Vec::new() }])),
            with(&one, 1, Repeat::Flaky(vec![RepeatOutcome { times: 1, findings: all[3..4].to_vec() }])),
            with(&one, 1, Repeat::Unconfirmed("the worker was killed".to_owned())),
        ]
    }

    fn contradicted(verdict: Verdict, total: u64) -> SpanReport {
        let mut contradictions = Contradictions::default();
        let contradiction = Contradiction {
            kind: ContradictionKind::Value,
            position: 7,
            syscall: Some(2),
            key: Some("\"vc.5.sé\"".to_owned()),
            recorded: "[\"ok\",\"1\"]".to_owned(),
            implied: "null".to_owned(),
        };
        contradictions.add(contradiction);
        contradictions.total = total;
        SpanReport { contradictions, ..report(verdict) }
    }

    #[test]
    fn every_line_reads_well() {
        let mut verdicts = vec![Verdict::Verified, Verdict::Partial(Partial { seen_to: 9, end: 19 })];
        verdicts.extend(divergences().into_iter().map(Verdict::Diverged));
        verdicts.extend(unverifiable().into_iter().map(Verdict::Unverifiable));
        verdicts.extend(failures().into_iter().map(Verdict::Failed));
        verdicts.extend([NotApplicable::LocalWorker, NotApplicable::Empty].map(Verdict::NotApplicable));
        let mut totals = Totals::default();
        let mut lines = Vec::new();
        for verdict in verdicts {
            let report = report(verdict);
            totals.add(&report);
            lines.push(span(&report, 1));
        }
        let mut odd = report(Verdict::Verified);
        (odd.is_asked, odd.is_base_unproved, odd.is_hash_compared, odd.name, odd.begins) =
            (false, true, false, None, None);
        totals.add(&odd);
        lines.push(span(&odd, 2));
        for otherwise in [Verdict::Verified, Verdict::Unverifiable(Unverifiable::ItemsPruned)] {
            let report = contradicted(Verdict::Contradicted(Box::new(otherwise)), 1);
            totals.add(&report);
            lines.push(span(&report, 1));
        }
        lines.extend(divergences().into_iter().take(1).map(|one| span(&contradicted(Verdict::Diverged(one), 60), 1)));
        lines.push(summary(&totals, Duration::from_secs(3)));
        insta::assert_snapshot!(lines.join("\n"));
    }
}
