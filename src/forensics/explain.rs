//! `spanwatch explain`: an account as text for people.

use super::account::{Account, DeliveryAccount, SyscallRow};
use super::cost::Cost;
use super::readable::readable;
use crate::replay::Mark;
use crate::verdict::HeapAnswer;
use crate::visible::{self, Lines};
use crate::words::{NAME_CHARS, plural};

/// Syscalls that agree are shown this far around one that differs.
const AROUND: usize = 2;
/// Deliveries that cost the same are shown this far around one that does not.
const AROUND_COSTS: usize = 2;
/// Deliveries with differences are shown up to this number, unless all are asked for.
const DELIVERIES: usize = 3;

/// The account as text; `is_all` shows everything.
#[must_use]
pub fn explain(account: &Account, is_all: bool) -> String {
    let mut text = Lines::default();
    what(account, &mut text);
    let shown = if is_all { account.deliveries.len() } else { DELIVERIES };
    for delivery in account.deliveries.iter().take(shown) {
        of_delivery(delivery, is_all, &mut text);
    }
    let unshown = account.deliveries.len().saturating_sub(shown);
    if unshown > 0 {
        writeln!(text);
        writeln!(text, "{} more differ (--all)", plural(unshown as u64, "delivery", "deliveries"));
    }
    costs(&account.costs, is_all, &mut text);
    if let Some(heap) = &account.heap {
        of_heap(heap, &mut text);
    }
    if !account.workers.is_empty() {
        heading("Workers", &mut text);
        for column in &account.workers {
            let worker = &column.worker;
            let sha = worker.sha256.get(..8).unwrap_or_default();
            writeln!(text, "  {:<10} {} ({}, sha256 {sha}…)", column.outcome.label(), worker.path, worker.version);
            let place = column.position.map(|position| format!("at position {position}, ")).unwrap_or_default();
            writeln!(text, "             {place}{}", column.explanation);
        }
    }
    heading("Causes that fit", &mut text);
    if account.causes.is_empty() {
        writeln!(text, "  none that is known");
    }
    for cause in &account.causes {
        writeln!(text, "  {} ({}): {}", cause.name, cause.confidence.words(), cause.reason);
    }
    heading("Next", &mut text);
    for step in &account.next {
        writeln!(text, "  {step}");
    }
    text.into_text()
}

/// A line of its own, after an empty one.
fn heading(line: &str, text: &mut Lines) {
    writeln!(text);
    writeln!(text, "{line}");
}

fn what(account: &Account, text: &mut Lines) {
    let Account { vat, name, incarnation, span, from_to, .. } = account;
    writeln!(text, "{}", account.id);
    writeln!(
        text,
        "vat {vat} ({}), incarnation {incarnation}, span [{}, {}) from {} to {}",
        visible::short(name.as_deref().unwrap_or("without a name"), NAME_CHARS),
        span.0,
        span.1,
        from_to.0.label(),
        from_to.1.label()
    );
    if let Some(seen) = account.seen.as_ref().filter(|seen| seen.times > 1) {
        let (start, end) = seen.last;
        writeln!(text, "met {} times, last at {} in span [{start}, {end})", seen.times, seen.last_at);
    }
    writeln!(text);
    writeln!(text, "Differences ({})", account.repeat.label());
    for finding in &account.findings {
        writeln!(text, "  at position {}, {finding}", finding.position);
    }
    let unsaid = account.findings_total.saturating_sub(account.findings.len());
    if unsaid > 0 {
        writeln!(text, "  and {unsaid} more");
    }
    if let Some(position) = account.stopped_at {
        writeln!(text, "  the replay could not go on from position {position}");
    }
    if account.outcomes.len() > 1 {
        heading("Replays", text);
        for outcome in &account.outcomes {
            writeln!(text, "  {outcome}");
        }
    }
}

fn of_delivery(delivery: &DeliveryAccount, is_all: bool, text: &mut Lines) {
    let DeliveryAccount { position, kind, readable, status, computrons, syscalls } = delivery;
    writeln!(text);
    writeln!(text, "Delivery {position}, {kind}: {readable}");
    let number = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    writeln!(
        text,
        "  status      recorded {}, replayed {}",
        status.0,
        status.1.as_deref().unwrap_or("none: it did not end")
    );
    writeln!(text, "  computrons  recorded {}, replayed {}", number(computrons.0), number(computrons.1));
    let is_near = |at: usize| {
        let near = &syscalls[at.saturating_sub(AROUND)..(at + AROUND + 1).min(syscalls.len())];
        is_all || near.iter().any(|row| row.mark != Mark::Ok)
    };
    let mut unshown = 0;
    for (at, row) in syscalls.iter().enumerate() {
        if !is_near(at) {
            unshown += 1;
            continue;
        }
        agreeing(&mut unshown, text);
        of_syscall(row, text);
    }
    agreeing(&mut unshown, text);
}

fn of_heap(heap: &HeapAnswer, text: &mut Lines) {
    writeln!(text);
    writeln!(text, "Heap at the end ({})", heap.answer.label());
    for line in heap.lines() {
        writeln!(text, "  {line}");
    }
}

fn agreeing(unshown: &mut usize, text: &mut Lines) {
    if *unshown > 0 {
        writeln!(text, "  ok          {} the same", plural(*unshown as u64, "syscall", "syscalls"));
        *unshown = 0;
    }
}

fn of_syscall(row: &SyscallRow, text: &mut Lines) {
    let side = |side: &Option<(usize, String)>| {
        side.as_ref().map_or_else(|| "nothing".to_owned(), |(at, request)| format!("#{at} {}", readable(request)))
    };
    let mark = row.mark.label().replace('_', " ");
    let notes = row.notes();
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
    match row.mark {
        Mark::Ok | Mark::Missing | Mark::NotReached => writeln!(text, "  {mark:<11} {}{notes}", side(&row.recorded)),
        Mark::Extra => writeln!(text, "  {mark:<11} {}{notes}", side(&row.replayed)),
        Mark::Moved => {
            let to = row.replayed.as_ref().map_or(0, |(to, _)| *to);
            writeln!(text, "  {mark:<11} {}, replayed as #{to}{notes}", side(&row.recorded));
        }
        Mark::Changed => {
            writeln!(text, "  {mark:<11} recorded {}", side(&row.recorded));
            writeln!(text, "              replayed {}{notes}", side(&row.replayed));
        }
    }
    if let Some(difference) = &row.difference {
        writeln!(text, "              they part at {difference}");
    }
}

fn costs(costs: &[Cost], is_all: bool, text: &mut Lines) {
    let differs = |cost: &Cost| cost.recorded != cost.replayed;
    let differing = costs.iter().filter(|cost| differs(cost)).count();
    let all = plural(costs.len() as u64, "delivery", "deliveries");
    if differing == 0 && !is_all {
        writeln!(text);
        writeln!(text, "Computrons: the same in each of {all}");
        return;
    }
    writeln!(text);
    writeln!(text, "Computrons, of {all} with a recorded cost ({differing} not the same)");
    let mut unshown = 0;
    for (at, cost) in costs.iter().enumerate() {
        let near = &costs[at.saturating_sub(AROUND_COSTS)..(at + AROUND_COSTS + 1).min(costs.len())];
        if !is_all && !near.iter().any(differs) {
            unshown += 1;
            continue;
        }
        skipped(&mut unshown, text);
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let by = match (cost.recorded, cost.replayed) {
            (Some(recorded), Some(replayed)) if recorded != replayed => {
                format!(" {:+}", i128::from(replayed) - i128::from(recorded))
            }
            _ => String::new(),
        };
        let Cost { position, readable, .. } = cost;
        let (recorded, replayed) = (number(cost.recorded), number(cost.replayed));
        writeln!(text, "  {position:>8} {recorded:>12} {replayed:>12}{by:<10} {readable}");
    }
    skipped(&mut unshown, text);
}

fn skipped(unshown: &mut usize, text: &mut Lines) {
    if *unshown > 0 {
        writeln!(text, "           {} the same", plural(*unshown as u64, "delivery", "deliveries"));
        *unshown = 0;
    }
}
