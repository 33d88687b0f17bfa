//! The page of `spanwatch report`: an account for a browser, in one file.
//!
//! Owns the markup. The page has no script, no image and no font, and a policy in it that forbids them. It must never let a text of a vat
//! become markup: every text is escaped, and hidden characters are made visible.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::account::{Account, DeliveryAccount, SyscallRow};
use super::cost::Cost;
use super::plot::plot;
use super::readable::readable;
use super::segments::{Segment, segments};
use crate::evidence::{Manifest, WorkerOutcome};
use crate::replay::Mark;
use crate::transcript::Position;
use crate::verdict::Finding;
use crate::visible::is_hidden;
use crate::words::plural;

const STYLE: &str = include_str!("html.css");
/// The agreeing syscalls that are shown around one that differs.
const AROUND: usize = 2;
/// The most syscalls that are listed of a run that agrees.
const AGREEING_SHOWN: usize = 200;
/// The characters of a long value that are shown on each side of a difference.
const CONTEXT_CHARS: usize = 300;
/// The characters that are shown of a difference.
const DIFFERING_CHARS: usize = 6_000;

/// The page.
#[must_use]
pub fn page(account: &Account, manifest: &Manifest) -> String {
    let name = account.name.as_deref().unwrap_or("without a name");
    let (start, end) = account.span;
    let sections = [
        ("what", "Differences", what(account)),
        ("timeline", "Timeline", timeline(account)),
        ("deliveries", "Syscalls", deliveries(account)),
        ("workers", "Workers", workers(account)),
        ("causes", "Causes that fit", causes(account)),
    ];
    let sections = sections
        .into_iter()
        .chain(account.heap.as_ref().map(|heap| ("heap", "Heap at the end", heap_lines(&heap.lines()))))
        .chain([("environment", "Environment", environment(manifest)), ("next", "Next steps", next(account))]);
    let sections: Vec<(&str, &str, Markup)> = sections.collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                link rel="icon" href="data:,";
                title { (visible(&format!("{} diverged: {}", account.vat, account.id))) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Vat " (visible(&account.vat)) " (" (visible(name)) ") diverged in [" (start) ", " (end) ")" }
                    p.quiet.code { (visible(&account.id)) }
                    @if let Some(first) = &account.first {
                        p.lead {
                            span.word.bad { (account.repeat.label()) } " at position " (first.position) ", "
                            (visible(&first.to_string()))
                        }
                    }
                    nav aria-label="Sections" {
                        ul { @for (id, title, _) in &sections { li { a href=(format!("#{id}")) { (title) } } } }
                    }
                }
                main {
                    @for (id, title, content) in &sections {
                        section aria-labelledby=(id) { h2 id=(id) { (title) } (content) }
                    }
                }
                footer {
                    "Made by spanwatch " (env!("CARGO_PKG_VERSION")) " from evidence that spanwatch "
                    (visible(&manifest.spanwatch)) " wrote at " (visible(&manifest.written_at)) "."
                }
            }
        }
    };
    page.into_string()
}

/// Nothing may be fetched or run; the one style sheet is let in by its hash.
fn policy() -> String {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'")
}

fn what(account: &Account) -> Markup {
    let Account { incarnation, span: (start, end), from_to, .. } = account;
    let unsaid = account.findings_total.saturating_sub(account.findings.len());
    html! {
        dl {
            dt { "Vat" } dd { (visible(&account.vat)) ", " (visible(account.name.as_deref().unwrap_or("without a name"))) }
            dt { "Incarnation" } dd { (incarnation) }
            dt { "Span" } dd { "[" (start) ", " (end) ") from " (from_to.0.label()) " to " (from_to.1.label()) }
            dt { "Repeated" } dd { (account.repeat.label()) }
            @if let Some(seen) = &account.seen {
                dt { "Met" }
                dd {
                    (plural(seen.times, "time", "times")) ", first at " (visible(&seen.first_at)) ", last at "
                    (visible(&seen.last_at)) " in span [" (seen.last.0) ", " (seen.last.1) ")"
                }
            }
            @if let Some(position) = account.stopped_at {
                dt { "Stopped" } dd { "the replay could not go on from position " (position) }
            }
        }
        div.scroll {
            table {
                caption { "Differences in the first replay" }
                thead { tr { th.number scope="col" { "Position" } th scope="col" { "Kind" } th scope="col" { "Recorded and replayed" } } }
                tbody {
                    @for finding in &account.findings {
                        tr {
                            td.number { (finding.position) }
                            td {
                                (finding.kind.label())
                                @if let Some(syscall) = finding.syscall { " (syscall " (syscall) ")" }
                                @if finding.class.is_some() { br; span.quiet { "a read that garbage collection causes" } }
                            }
                            td { (finding_sides(finding)) }
                        }
                    }
                    @if unsaid > 0 { tr { td colspan="3" { "and " (unsaid) " more" } } }
                }
            }
        }
        @if account.outcomes.len() > 1 {
            h3 { "Replays" }
            ul { @for outcome in &account.outcomes { li.code { (visible(outcome)) } } }
        }
    }
}

fn finding_sides(finding: &Finding) -> Markup {
    let (recorded, replayed) = finding.sides();
    sides(recorded.as_deref(), replayed.as_deref())
}

fn timeline(account: &Account) -> Markup {
    let costs = &account.costs;
    let positions: Vec<Position> = account.findings.iter().map(|finding| finding.position).collect();
    let unreplayed = costs.iter().filter(|cost| cost.replayed.is_none()).count();
    let differing = costs.iter().filter(|cost| cost.replayed.is_some() && cost.recorded != cost.replayed).count();
    let number = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    html! {
        (plot(costs, &positions))
        details open[differing > 0 && costs.len() <= 40] {
            summary {
                "Computrons of " (plural(costs.len() as u64, "delivery", "deliveries")) ", " (differing) " not the same"
                @if unreplayed > 0 { ", " (unreplayed) " not replayed" }
            }
            div.scroll {
                table {
                    thead {
                        tr {
                            th.number scope="col" { "Position" } th.number scope="col" { "Recorded" }
                            th.number scope="col" { "Replayed" } th.number scope="col" { "Difference" }
                            th scope="col" { "Delivery" }
                        }
                    }
                    tbody {
                        @for cost in costs {
                            @let by = by(cost);
                            tr.same[by.is_none()] {
                                td.number { (cost.position) }
                                td.number { (number(cost.recorded)) }
                                td.number { (number(cost.replayed)) }
                                td.number {
                                    @match by {
                                        None => "none",
                                        Some(by) if cost.replayed.is_none() => (by),
                                        Some(by) => span.word.bad { (by) },
                                    }
                                }
                                td.code { (visible(&cost.readable)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// In what a cost differs, if it does.
fn by(cost: &Cost) -> Option<String> {
    match (cost.recorded, cost.replayed) {
        (recorded, replayed) if recorded == replayed => None,
        (Some(recorded), Some(replayed)) => Some(format!("{:+}", i128::from(replayed) - i128::from(recorded))),
        (_, None) => Some("not replayed".to_owned()),
        (None, _) => Some("not recorded".to_owned()),
    }
}

fn deliveries(account: &Account) -> Markup {
    html! {
        @if account.deliveries.is_empty() { p { "No delivery differs in what it did." } }
        @for delivery in &account.deliveries { (of_delivery(delivery)) }
    }
}

fn of_delivery(delivery: &DeliveryAccount) -> Markup {
    let DeliveryAccount { position, kind, readable, status, computrons, syscalls } = delivery;
    let number = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    html! {
        article {
            h3 { "Delivery " (position) ", " (visible(kind)) ": " span.code { (visible(readable)) } }
            dl {
                dt { "Status" }
                dd { "recorded " (visible(&status.0)) ", replayed " (visible(status.1.as_deref().unwrap_or("none: it did not end"))) }
                dt { "Computrons" }
                dd { "recorded " (number(computrons.0)) ", replayed " (number(computrons.1)) }
            }
            @if syscalls.is_empty() { p.quiet { "It made no syscalls." } } @else {
                div.scroll {
                    table {
                        caption { "Its syscalls, side by side" }
                        thead {
                            tr {
                                th scope="col" { "Mark" } th.number scope="col" { "Recorded" }
                                th.number scope="col" { "Replayed" } th scope="col" { "Syscall" }
                            }
                        }
                        tbody { @for run in runs(syscalls) { (of_run(&run)) } }
                    }
                }
            }
        }
    }
}

/// Rows to be shown one by one, or a run of rows that agree and stand away from a difference.
enum Run<'a> {
    One(&'a SyscallRow),
    Agreeing(&'a [SyscallRow]),
}

fn runs(rows: &[SyscallRow]) -> Vec<Run<'_>> {
    let is_near = |at: usize| {
        let near = &rows[at.saturating_sub(AROUND)..(at + AROUND + 1).min(rows.len())];
        near.iter().any(|row| row.mark != Mark::Ok)
    };
    let mut runs = Vec::new();
    let mut at = 0;
    while at < rows.len() {
        let far = (at..rows.len()).take_while(|at| !is_near(*at)).count();
        if far > 1 {
            runs.push(Run::Agreeing(&rows[at..at + far]));
            at += far;
        } else {
            runs.push(Run::One(&rows[at]));
            at += 1;
        }
    }
    runs
}

fn of_run(run: &Run<'_>) -> Markup {
    match run {
        Run::One(row) => of_row(row),
        Run::Agreeing(rows) => html! {
            tr.same {
                td { "ok" }
                td colspan="2" {}
                td {
                    details {
                        summary { (plural(rows.len() as u64, "syscall", "syscalls")) " the same" }
                        ol start=(rows[0].recorded.as_ref().map_or(0, |(at, _)| *at)) {
                            @for row in rows.iter().take(AGREEING_SHOWN) {
                                li.code { (visible(&row.recorded.as_ref().map(|(_, text)| readable(text)).unwrap_or_default())) }
                            }
                        }
                        @if rows.len() > AGREEING_SHOWN { p { "and " (rows.len() - AGREEING_SHOWN) " more" } }
                    }
                }
            }
        },
    }
}

fn of_row(row: &SyscallRow) -> Markup {
    let number = |side: &Option<(usize, String)>| side.as_ref().map(|(at, _)| format!("#{at}")).unwrap_or_default();
    let text = |side: &Option<(usize, String)>| side.as_ref().map(|(_, text)| readable(text)).unwrap_or_default();
    let is_same = row.mark == Mark::Ok;
    html! {
        tr.same[is_same] {
            td { @if is_same { "ok" } @else { span.word.bad { (row.mark.label().replace('_', " ")) } } }
            td.number { (number(&row.recorded)) }
            td.number { (number(&row.replayed)) }
            td {
                @match (&row.recorded, &row.replayed) {
                    (Some((_, recorded)), Some((_, replayed))) if row.mark == Mark::Changed => {
                        (sides(Some(recorded), Some(replayed)))
                        @if let Some(difference) = &row.difference {
                            p.quiet { "They part at " span.code { (visible(&difference.path)) } "." }
                        }
                    }
                    (None, replayed) => span.side.replayed { span.name { "replayed only" } span.code { (visible(&text(replayed))) } },
                    (recorded, None) => span.side.recorded { span.name { "recorded only" } span.code { (visible(&text(recorded))) } },
                    (recorded, _) => span.code { (visible(&text(recorded))) },
                }
                @for note in row.notes() { p.quiet { (note) } }
            }
        }
    }
}

/// Two texts, one above the other, with what each has of its own marked in it.
fn sides(recorded: Option<&str>, replayed: Option<&str>) -> Markup {
    let side = |text: Option<&str>| html! { span.code { (visible(&cut(text.unwrap_or("nothing"), DIFFERING_CHARS))) } };
    let (one, other) = match (recorded, replayed) {
        (Some(recorded), Some(replayed)) => {
            let segments = segments(recorded, replayed);
            (marked(&segments, true), marked(&segments, false))
        }
        (recorded, replayed) => (side(recorded), side(replayed)),
    };
    html! {
        span.side.recorded { span.name { "recorded" } (one) }
        span.side.replayed { span.name { "replayed" } (other) }
    }
}

fn marked(segments: &[Segment], is_recorded: bool) -> Markup {
    let last = segments.len().saturating_sub(1);
    html! {
        span.code {
            @for (at, segment) in segments.iter().enumerate() {
                @match segment {
                    Segment::Same(text) => (visible(&shortened(text, at > 0, at < last))),
                    Segment::Differs(one, other) => {
                        @let text = if is_recorded { one } else { other };
                        @if text.is_empty() { b aria-label="nothing here" { "␣" } }
                        @else { b { (visible(&cut(text, DIFFERING_CHARS))) } }
                    }
                }
            }
        }
    }
}

/// The shared text, as far as it stands beside a difference.
fn shortened(text: &str, is_after: bool, is_before: bool) -> String {
    let count = text.chars().count();
    let keep = CONTEXT_CHARS * (usize::from(is_after) + usize::from(is_before)).max(1);
    if count <= keep {
        return text.to_owned();
    }
    let begin: String = text.chars().take(if is_after || !is_before { CONTEXT_CHARS } else { 0 }).collect();
    let end: String = text.chars().skip(if is_before { count - CONTEXT_CHARS } else { count }).collect();
    let left_out = count - begin.chars().count() - end.chars().count();
    format!("{begin} … {left_out} characters … {end}")
}

fn cut(text: &str, chars: usize) -> String {
    let count = text.chars().count();
    if count <= chars {
        return text.to_owned();
    }
    let begin: String = text.chars().take(chars).collect();
    format!("{begin} … {} characters more", count - chars)
}

fn workers(account: &Account) -> Markup {
    html! {
        @if account.workers.is_empty() { p { "No worker's outcome is noted." } } @else {
            div.scroll {
                table.wide {
                    caption {
                        "The result of each worker. " code { "spanwatch replay EVIDENCE --worker PATH" } " adds one."
                    }
                    thead {
                        tr {
                            th scope="col" { "Worker" } th scope="col" { "Outcome" }
                            th.number scope="col" { "Position" } th scope="col" { "Kind" } th scope="col" { "Repeated" }
                            th scope="col" { "In words" }
                        }
                    }
                    tbody {
                        @for column in &account.workers {
                            tr {
                                th scope="row" {
                                    span.code { (visible(&column.worker.path)) }
                                    br;
                                    span.quiet {
                                        (visible(&column.worker.version)) ", sha256 "
                                        span.code { (visible(column.worker.sha256.get(..16).unwrap_or(&column.worker.sha256))) "…" }
                                        ", TZ " (visible(&column.worker.time_zone))
                                    }
                                }
                                td {
                                    span.word.good[column.outcome == WorkerOutcome::Reproduces].bad[column.outcome == WorkerOutcome::Diverges] {
                                        (column.outcome.label())
                                    }
                                }
                                td.number { @if let Some(position) = column.position { (position) } }
                                td { @if let Some(kind) = column.kind { (kind.label()) } }
                                td { @if let Some(repeat) = column.repeat { (repeat.label()) } }
                                td { (visible(&column.explanation)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn causes(account: &Account) -> Markup {
    html! {
        @if account.causes.is_empty() { p { "None that is known." } } @else {
            div.scroll {
                table {
                    thead { tr { th scope="col" { "Cause" } th scope="col" { "How sure" } th scope="col" { "Why" } } }
                    tbody {
                        @for cause in &account.causes {
                            tr {
                                th scope="row" { (cause.name) }
                                td { (cause.confidence.words()) }
                                td { (visible(&cause.reason)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn heap_lines(lines: &[String]) -> Markup {
    html! { ul { @for line in lines { li.code { (visible(line)) } } } }
}

fn environment(manifest: &Manifest) -> Markup {
    let Manifest { worker, host, start, span, .. } = manifest;
    let yes = |is: bool| if is { "yes" } else { "no" };
    html! {
        h3 { "Worker" }
        dl {
            dt { "Program" } dd.code { (visible(&worker.path)) }
            dt { "Version" } dd { (visible(&worker.version)) }
            dt { "sha256" } dd.code { (visible(&worker.sha256)) }
            dt { "Sandbox" } dd { (worker.sandbox.label()) ": " (worker.layers.iter().map(|layer| layer.label()).collect::<Vec<_>>().join(", ")) }
            dt { "TZ" } dd { (visible(&worker.time_zone)) }
            dt { "Stack" } dd { (worker.stack) " bytes" }
        }
        h3 { "Host" }
        dl {
            dt { "Kernel" } dd { (visible(&host.kernel)) ", " (visible(&host.arch)) }
            dt { "Processor" } dd { (host.processors) " × " (visible(host.processor.as_deref().unwrap_or("unknown"))) }
            dt { "Memory" } dd { @if let Some(memory) = host.memory { (memory) " bytes" } @else { "unknown" } ", pages of " (host.page_size) }
        }
        h3 { "Start of the span" }
        dl {
            dt { "Base" } dd { (start.base.label()) @if start.is_base_unproved { ", unproved: a diverging replay gave it" } }
            dt { "Metered" } dd { (yes(start.is_metered)) }
            dt { "May disavow" } dd { (yes(start.enable_disavow)) }
            dt { "Relaxed durability" } dd { (yes(start.relax_durability_rules)) }
            @if let Some(hash) = &span.hash { dt { "Span hash" } dd.code { (hash.to_string()) } }
        }
        h3 { "Images and bundles" }
        div.scroll {
            table {
                thead { tr { th scope="col" { "What" } th.number scope="col" { "Bytes" } th scope="col" { "sha256" } } }
                tbody {
                    @if let Some(image) = &start.image {
                        tr { th scope="row" { "base image" } td.number { (image.bytes) } td.code { (image.sha256.to_string()) } }
                    }
                    @if let Some(hash) = &span.saves {
                        tr { th scope="row" { "image at the end, recorded" } td.number {} td.code { (hash.to_string()) } }
                    }
                    @for outcome in &manifest.outcomes {
                        @if let Some(image) = &outcome.image {
                            tr {
                                th scope="row" { "image at the end, replayed (" (outcome.times) " ×)" }
                                td.number { (image.bytes) } td.code { (image.sha256.to_string()) }
                            }
                        }
                    }
                    @for id in &start.bundles {
                        tr { th scope="row" { "bundle" } td.number {} td.code { (visible(id)) } }
                    }
                }
            }
        }
        details {
            summary { "Files of the evidence" }
            div.scroll {
                table {
                    thead { tr { th scope="col" { "File" } th.number scope="col" { "Bytes" } th scope="col" { "sha256" } } }
                    tbody {
                        @for (name, entry) in &manifest.files {
                            tr { th scope="row" { (visible(name)) } td.number { (entry.bytes) } td.code { (entry.sha256.to_string()) } }
                        }
                    }
                }
            }
        }
    }
}

fn next(account: &Account) -> Markup {
    html! { ul { @for step in &account.next { li.code { (visible(step)) } } } }
}

/// A text with what would not be seen, or would turn round what is seen, made to be seen.
fn visible(text: &str) -> Markup {
    html! {
        @for piece in text.split_inclusive(is_hidden) {
            @match piece.chars().next_back().filter(|last| is_hidden(*last)) {
                Some(hidden) => {
                    (piece[..piece.len() - hidden.len_utf8()])
                    span.control { (format!("U+{:04X}", u32::from(hidden))) }
                }
                None => (piece),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_text() {
        assert_eq!(visible("</script><b a=\"\">").into_string(), "&lt;/script&gt;&lt;b a=&quot;&quot;&gt;");
        assert_eq!(
            visible("a\u{202e}b\0\n\u{1b}").into_string(),
            concat!(
                r#"a<span class="control">U+202E</span>b<span class="control">U+0000</span>"#,
                r#"<span class="control">U+000A</span><span class="control">U+001B</span>"#
            )
        );
        assert_eq!(visible("").into_string(), "");
        assert!(heap_lines(&["<i>".to_owned()]).into_string().contains("&lt;i&gt;"));
    }

    #[test]
    fn long_values_are_shown_where_they_part() {
        let one = format!("{}1{}", "a".repeat(5_000), "b".repeat(5_000));
        let other = one.replacen("1", "2", 1);
        let shown = sides(Some(&one), Some(&other)).into_string();
        assert!(shown.contains("<b>1</b>") && shown.contains("<b>2</b>"), "{shown}");
        assert!(shown.contains(" … 4700 characters … aaa") && shown.contains("bbb … 4700 characters … "), "{shown}");
        assert!(shown.len() < 2_000, "{shown}");
    }
}
