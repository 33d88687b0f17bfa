//! The fit of a span's proved items to the rows around it: the vat's worker type, and the span that saved its image.
//!
//! [`crate::history`] looks at rows and at items as they stand; what is said here rests on items whose hash was checked.

use super::{Context, Handover};
use crate::kernel_db::{VatOptions, WorkerType};
use crate::plan::PlannedSpan;
use crate::record::ItemsAt;
use crate::transcript::{DeliveryKind, Hash256, Item, Position};
use crate::verdict::{NotApplicable, Unverifiable, Verdict};

/// The verdict of a span whose vat has options that say `local`: nothing to replay, unless its items are there and say
/// otherwise or are damaged.
pub(super) fn local(context: &Context<'_>, planned: &PlannedSpan) -> Verdict {
    let nothing = Verdict::NotApplicable(NotApplicable::LocalWorker);
    let loaded = context.record.items(&planned.row);
    let items = loaded.and_then(|(text, _)| {
        let items = text.parse().map_err(Verdict::Unverifiable)?;
        Ok(sign_of_a_process(&items))
    });
    match items {
        Ok(Some((position, what))) => {
            broken(position, format!("the vat's options say that its worker is local, {what}"))
        }
        Ok(None) => nothing,
        Err(Verdict::Unverifiable(reason)) if !reason.is_damage() => nothing,
        Err(other) => other,
    }
}

/// A span whose items say that its worker is local: so must the options, and nothing in the items may say otherwise.
pub(super) fn said_to_be_local(verdict: Verdict, options: &VatOptions, items: &[(Position, Item<'_>)]) -> Verdict {
    if !matches!(verdict, Verdict::NotApplicable(NotApplicable::LocalWorker)) {
        return verdict;
    }
    let start = items.first().map_or(0, |(position, _)| *position);
    match &options.worker_type {
        Some(worker) if *worker != WorkerType::Local => {
            let what =
                format!("initialize-worker says that the worker is local, the vat's options {:?}", worker.label());
            broken(start, what)
        }
        _ => match sign_of_a_process(items) {
            Some((position, what)) => {
                broken(position, format!("initialize-worker says that the worker is local, {what}"))
            }
            None => verdict,
        },
    }
}

/// A trace that only a vat in a process of its own leaves: another worker type, a snapshot, or metering.
fn sign_of_a_process(items: &[(Position, Item<'_>)]) -> Option<(Position, String)> {
    items.iter().find_map(|(position, item)| {
        let what = match &item.kind {
            DeliveryKind::InitializeWorker { worker_type, .. } if worker_type != "local" => {
                format!("initialize-worker that it is {worker_type:?}")
            }
            DeliveryKind::LoadSnapshot { .. } | DeliveryKind::SaveSnapshot { .. } => {
                format!("and {} is recorded, which those never do", item.kind.name())
            }
            _ if item.result.computrons.is_some() => "and computrons are recorded, which those do not count".to_owned(),
            _ => return None,
        };
        Some((*position, what))
    })
}

/// The verdict of a span that would be verified but does not load what the span before it saved; `None` if it does, or
/// if nothing is left that says what that was.
pub(super) fn broken_before(
    context: &Context<'_>,
    planned: &PlannedSpan,
    handover: Option<&Handover>,
    loaded: Hash256,
) -> Result<Option<Verdict>, Verdict> {
    let Some(before) = &planned.before else { return Ok(None) };
    let start = planned.row.id.start;
    let saved = match handover.filter(|handover| handover.start == before.row.id.start) {
        Some(Handover { saves: Some(saves), .. }) => Some(*saves),
        _ if matches!(before.items, ItemsAt::Captured(_) | ItemsAt::Nowhere) => None,
        _ => {
            match context
                .record
                .items(&before.row)
                .and_then(|(text, _)| Ok(saved_by(&text.parse().map_err(Verdict::Unverifiable)?)))
            {
                Ok(saved) => saved,
                // A span that was asked for has a verdict of its own.
                Err(Verdict::Unverifiable(reason)) if reason.is_damage() && !before.is_asked => {
                    let what = format!("nothing proves what the span before it saved: {reason}");
                    return Ok(Some(broken(start, what)));
                }
                Err(Verdict::Unverifiable(_)) => None,
                Err(trouble) => return Err(trouble),
            }
        }
    };
    Ok(saved
        .filter(|saved| *saved != loaded)
        .map(|saved| broken(start, format!("load-snapshot names {loaded}, the span before it saved {saved}"))))
}

fn saved_by(items: &[(Position, Item<'_>)]) -> Option<Hash256> {
    match items.last()?.1.kind {
        DeliveryKind::SaveSnapshot { image } => Some(image),
        _ => None,
    }
}

fn broken(position: Position, what: String) -> Verdict {
    Verdict::Unverifiable(Unverifiable::HistoryBroken { position, what })
}
