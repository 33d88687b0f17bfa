//! Lines for people.

use std::fmt::Write;
use std::time::Duration;

use super::Totals;
use crate::schedule::SpanReport;
use crate::verdict::{Repeat, Verdict};

/// A span's lines: one, and one more for each thing that is to be said about it.
#[must_use]
pub fn span(report: &SpanReport, workers: usize) -> String {
    let mut text = format!(
        "{:<14} {:<6} {:<16} inc {:<2} [{}, {}) {} → {}, {}",
        shouted(&report.verdict),
        report.id.vat,
        report.name.as_deref().unwrap_or("-"),
        report.incarnation,
        report.id.start,
        report.id.end,
        report.begins.unwrap_or("?"),
        report.ends.unwrap_or("?"),
        base(report),
    );
    if workers > 1 {
        let _ = write!(text, ", worker {}", report.worker);
    }
    if !report.is_asked {
        text.push_str(", on the way");
    }
    if matches!(report.verdict, Verdict::Verified | Verdict::Diverged(_) | Verdict::Failed(_)) {
        let _ = write!(
            text,
            ": {}, {}, {}, {:.2} s",
            plural(report.deliveries, "delivery", "deliveries"),
            plural(report.syscalls, "syscall", "syscalls"),
            if report.is_hash_compared { "snapshot hash" } else { "no snapshot hash" },
            report.took.as_secs_f64()
        );
    }
    match &report.verdict {
        Verdict::Verified => {}
        Verdict::Diverged(divergence) => {
            for finding in &divergence.findings {
                let _ = write!(text, "\n    diverged at {}:{}", report.id.vat, finding.position);
                let _ = write!(text, ", {finding}");
            }
            let unsaid = divergence.findings_total - divergence.findings.len();
            if unsaid > 0 {
                let _ = write!(text, "\n    and {unsaid} more");
            }
            match &divergence.repeat {
                Repeat::Deterministic => text.push_str("\n    deterministic: a fresh worker did the same again"),
                Repeat::Flaky(findings) if findings.is_empty() => {
                    text.push_str("\n    flaky: a fresh worker did as recorded");
                }
                Repeat::Flaky(findings) => {
                    text.push_str("\n    flaky: a fresh worker did otherwise:");
                    for finding in findings {
                        let _ = write!(text, "\n        at {}:{}, {finding}", report.id.vat, finding.position);
                    }
                }
                Repeat::Unconfirmed(why) => {
                    let _ = write!(text, "\n    not confirmed: the second replay failed, as {why}");
                }
            }
            if let Some(position) = report.stopped_at {
                let _ = write!(text, "\n    the replay could not go on from position {position}");
            }
        }
        Verdict::Unverifiable(reason) => {
            let _ = write!(text, "\n    {}: {reason}\n    {}", reason.label(), reason.hint());
        }
        Verdict::Failed(failure) => {
            let _ = write!(text, "\n    {}: {failure}\n    {}", failure.label(), failure.hint());
        }
        Verdict::NotApplicable(reason) => {
            let _ = write!(text, ": {}", reason.text());
        }
    }
    text
}

fn shouted(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Diverged(_) => verdict.label().to_uppercase(),
        Verdict::NotApplicable(_) => "-".to_owned(),
        _ => verdict.label().to_owned(),
    }
}

fn base(report: &SpanReport) -> String {
    let proof = if report.is_base_unproved { " from a diverged image" } else { "" };
    format!("{}{proof}", report.base)
}

/// The summary at the end.
#[must_use]
pub fn summary(totals: &Totals, took: Duration) -> String {
    let applicable: u64 = Verdict::LABELS[..4].iter().map(|label| totals.count(label)).sum();
    let mut text = format!(
        "{} of {} verified: {}, {}, {} compared in {:.1} s",
        totals.count("verified"),
        plural(applicable, "span", "spans"),
        plural(totals.deliveries, "delivery", "deliveries"),
        plural(totals.syscalls, "syscall", "syscalls"),
        plural(totals.hashes, "snapshot hash", "snapshot hashes"),
        took.as_secs_f64()
    );
    for label in ["diverged", "unverifiable", "failed"] {
        let count = totals.count(label);
        if count > 0 {
            let _ = write!(text, "; {count} {label}");
        }
    }
    if totals.count("not_applicable") > 0 {
        let _ = write!(text, "; {} with nothing to replay", totals.count("not_applicable"));
    }
    if totals.on_the_way > 0 {
        let _ = write!(text, "; {} of them only on the way to those asked for", totals.on_the_way);
    }
    if !totals.reasons.is_empty() {
        let reasons: Vec<String> = totals.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = write!(text, "\nreasons: {}", reasons.join(", "));
    }
    text
}

/// `1 span`, `2 spans`.
#[must_use]
pub fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
