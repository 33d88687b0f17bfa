//! The history: spans that closed before the daemon saw the vat, noted a few at a time as the replays get through them.

use super::chain;
use super::{LookError, Tracker};
use crate::store::{Alarm, KnownVat, Noted, NotedSpan, NotedVat, SpanSource};

/// The number of spans of the history that are noted and wait for a replay, at most.
const HISTORY_SPANS: u32 = 32;

/// The progress of noting the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backfill {
    /// All of it is noted.
    Done,
    /// Some was noted, and there may be more.
    Noted,
    /// Enough is due already.
    Waiting,
}

impl Tracker<'_> {
    /// Notes some spans of the history, if few are waiting.
    ///
    /// Where images are kept the newest come first. Where not, each span starts from the image that the replay of the one
    /// before it gives, so the oldest must.
    pub(super) fn note_history(&mut self) -> Result<Backfill, LookError> {
        let with_history = self.vats.values().filter(|vat| vat.history.0 < vat.history.1);
        let Some(vat) = with_history.min_by(|one, other| one.vat.cmp(&other.vat)).cloned() else {
            return Ok(Backfill::Done);
        };
        let waiting = self.shared.store.backlog()?.history;
        if waiting >= u64::from(HISTORY_SPANS) {
            return Ok(Backfill::Waiting);
        }
        let (from, to) = vat.history;
        let (spans, images, is_backwards) = self.shared.record.db.read(|reader| {
            let spans = reader.closed_spans_backwards(&vat.vat, from, to, HISTORY_SPANS)?;
            // What the node does now says nothing of what it kept then.
            let has_image = match spans.rows.last().and_then(|row| row.id.start.checked_sub(1)) {
                Some(before) => {
                    let row = reader.snapshot(&vat.vat, before)?;
                    row.is_some_and(|row| row.has_image) || self.shared.record.archives.has_image(&vat.vat, before)
                }
                None => true,
            };
            let spans = if has_image { spans } else { reader.closed_spans(&vat.vat, from, to, HISTORY_SPANS)? };
            let images = spans.rows.iter().map(|row| reader.image_at_end(&row.id)).collect::<Result<Vec<_>, _>>()?;
            Ok((spans, images, has_image))
        })?;
        let history = match spans.rows.last() {
            Some(last) if spans.is_cut && is_backwards => (from, last.id.start),
            Some(last) if spans.is_cut => (last.id.end, to),
            _ => (0, 0),
        };
        let alarms: Vec<Alarm> = spans.unreadable.iter().map(|start| chain::unreadable(&vat.vat, *start)).collect();
        let span = |(row, image)| NotedSpan { row, source: SpanSource::History, image };
        let closed = spans.rows.into_iter().zip(images).map(span).collect();
        let vat = KnownVat { history, ..vat };
        let Some(node) = self.seen.clone() else { return Ok(Backfill::Done) };
        let of_vat = NotedVat { vat: vat.clone(), closed, forget_from: None };
        let noted = Noted { node, vats: vec![of_vat], missed: 0, alarms, is_replaced: false };
        let new = self.shared.store.note(&noted)?;
        self.shared.tell_alarms(&new.alarms);
        if new.spans > 0 {
            self.shared.work.wake();
        }
        self.vats.insert(vat.vat.clone(), vat);
        Ok(Backfill::Noted)
    }
}
