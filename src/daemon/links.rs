//! The image that a span names at its beginning and its end, held against what was seen of it before.
//!
//! The span before it saved that image, the row of `snapshots` has its hash, and the span after it loads it: all three must
//! name the same, from wherever the replay had it. A record that does not was edited or damaged, however well each of its
//! spans replays by itself.

use super::shared::Shared;
use crate::kernel_db::SpanRow;
use crate::store::{Alarm, AlarmKind};
use crate::transcript::SpanId;
use crate::verdict::{Unverifiable, Verdict};
use crate::verify::SpanReport;

/// Notes the images that a judged span names. Where one is another than was seen, the history is broken there: that is its
/// verdict, unless it has a graver one; then it is an alarm beside it.
pub(super) fn weigh(shared: &Shared, row: &SpanRow, report: &mut SpanReport) {
    let id = &row.id;
    let named = [
        ("load-snapshot", id.start.checked_sub(1), report.images.loads),
        ("save-snapshot", id.end.checked_sub(1), report.images.saves),
    ];
    for (item, position, image) in named {
        let Some((position, image)) = position.zip(image) else { continue };
        let Some(known) = shared.persist(|| shared.store.link(row, position, image)) else { return };
        let Some(known) = known else { continue };
        let what = format!("{item} names the image {image}, and {known} was seen for position {position} before");
        let yields = match &report.verdict {
            Verdict::Verified | Verdict::Partial(_) | Verdict::NotApplicable(_) => true,
            Verdict::Unverifiable(reason) => !reason.is_damage(),
            Verdict::Diverged(_) | Verdict::Contradicted(_) | Verdict::Failed(_) => false,
        };
        if yields {
            report.verdict = Verdict::Unverifiable(Unverifiable::HistoryBroken { position, what });
        } else {
            raise(shared, row, position, what);
        }
    }
}

fn raise(shared: &Shared, row: &SpanRow, position: u64, explanation: String) {
    let alarm = Alarm {
        kind: AlarmKind::Damaged,
        id: SpanId { vat: row.id.vat.clone(), start: position, end: position },
        incarnation: row.incarnation,
        reason: "history_broken",
        explanation,
    };
    match shared.store.raise(&[alarm]) {
        Ok(raised) => shared.tell_alarms(&raised),
        Err(error) => shared.store_failed(&error),
    }
}
