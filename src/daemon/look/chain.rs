//! Breaks in the histories of vats, as far as a look sees them: what is new must go on where what is known ended.
//!
//! Owns what is told of them. It compares rows that a look has read anyway, so it costs as much as there is news.

use std::collections::BTreeSet;

use super::read::VatRead;
use super::recheck::{Trust, changed};
use crate::history::{self, SeamFault};
use crate::kernel_db::SpanRow;
use crate::store::{Alarm, AlarmKind};
use crate::transcript::{Position, SpanId, VatId};

/// The reason of a break, as in verdicts.
const BROKEN: &str = "history_broken";

/// A break at a position of a vat's history.
pub(super) fn broken(vat: &VatId, position: Position, incarnation: u64, explanation: String) -> Alarm {
    let id = SpanId { vat: vat.clone(), start: position, end: position };
    Alarm { kind: AlarmKind::Damaged, id, incarnation, reason: BROKEN, explanation }
}

/// A row that can't be read as a span.
pub(super) fn unreadable(vat: &VatId, start: Position) -> Alarm {
    let explanation = format!("the row of transcriptSpans of {vat} that starts at {start} can't be read as a span");
    Alarm { reason: "span_row_damaged", ..broken(vat, start, 0, explanation) }
}

/// The break between the rows of a span and of the next one of its vat, if there is one.
pub(super) fn seam(before: &SpanRow, next: &SpanRow) -> Option<Alarm> {
    let (end, start) = (before.id.end, next.id.start);
    let explanation = if end < before.id.start {
        format!("the span that starts at {} ends at {end}, before it starts", before.id.start)
    } else {
        match history::seam(before, next)? {
            SeamFault::Gap | SeamFault::Overlap => {
                format!("the span that starts at {} ends at {end}, and the next one starts at {start}", before.id.start)
            }
            SeamFault::Incarnation => format!(
                "the span that starts at {start} is of incarnation {}, the one before it of incarnation {}",
                next.incarnation, before.incarnation
            ),
        }
    };
    Some(broken(&next.id.vat, end.min(start), before.incarnation, explanation))
}

/// Breaks among the spans of a vat that are new, which follow one that ended at `cursor`. Where the database may have been
/// restored, nobody knows whether the last one is still there.
pub(super) fn new_breaks(read: &VatRead, cursor: Position, trust: Trust) -> Vec<Alarm> {
    let vat = &read.vat;
    let mut alarms: Vec<Alarm> = read.closed.unreadable.iter().map(|start| unreadable(vat, *start)).collect();
    if !alarms.is_empty() {
        // Whether others meet can't be said across what can't be read.
        return alarms;
    }
    let next = if read.closed.is_cut { None } else { read.current.as_ref() };
    let rows: Vec<&SpanRow> = read.closed.rows.iter().chain(next).collect();
    if let Some(first) = rows.first().filter(|first| trust.0 && first.id.start != cursor) {
        let start = first.id.start;
        let what = if first.is_current { "the open span" } else { "the next span" };
        let explanation = format!("the last span that was seen ended at {cursor}, and {what} starts at {start}");
        alarms.push(broken(vat, cursor.min(start), first.incarnation, explanation));
    }
    alarms.extend(rows.windows(2).filter_map(|pair| seam(pair[0], pair[1])));
    alarms
}

/// An open span that has lost something: it only grows until it closes.
pub(super) fn rewound(before: &SpanRow, now: Option<&SpanRow>) -> Option<Alarm> {
    let now = now.filter(|now| now.id.start == before.id.start)?;
    let (was, is) = (before.id.end, now.id.end);
    let what = if is < was {
        format!("ended at {was}, and ends at {is} now")
    } else if now.incarnation != before.incarnation {
        format!("was of incarnation {}, and is of {} now", before.incarnation, now.incarnation)
    } else if is == was && now.hash != before.hash {
        format!("ended at {was}, as it does now, and has another hash")
    } else {
        return None;
    };
    let explanation = format!("the open span that starts at {} {what}", before.id.start);
    Some(changed(before, "row_changed", explanation))
}

/// What is wrong with the open span of a vat.
pub(super) fn open_breaks(read: &VatRead, living: Option<&BTreeSet<VatId>>) -> Option<Alarm> {
    let vat = &read.vat;
    let explanation = match &read.current {
        Some(open) => {
            let (start, last) = (open.id.start, read.last_start.unwrap_or(open.id.start));
            if read.is_doubled {
                "two of its spans are open".to_owned()
            } else if last > start {
                format!("the open span starts at {start}, and another one behind it, at {last}")
            } else if open.id.end < start {
                format!("the open span starts at {start} and ends at {}, before it starts", open.id.end)
            } else {
                return None;
            }
        }
        None if living.is_some_and(|living| living.contains(vat)) => {
            "none of its spans is open or readable, although the kernel's lists say that the vat is alive".to_owned()
        }
        None => return None,
    };
    let position = read.current.as_ref().map(|open| open.id.start).or(read.last_start).unwrap_or(0);
    Some(broken(vat, position, read.current.as_ref().map_or(0, |open| open.incarnation), explanation))
}

/// Vats that the kernel's lists say are alive and that have no row at all.
pub(super) fn without_rows(vats: &[VatRead], living: &BTreeSet<VatId>) -> Vec<Alarm> {
    let present: BTreeSet<&VatId> = vats.iter().map(|read| &read.vat).collect();
    let text = "it has no span at all, although the kernel's lists say that the vat is alive";
    living.iter().filter(|vat| !present.contains(vat)).map(|vat| broken(vat, 0, 0, text.to_owned())).collect()
}
