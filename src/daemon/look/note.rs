//! Noting: the changes of the store that follow from one read of the database, with the events and alarms that are told once the store
//! has them.
//!
//! It decides and writes nothing. A span that closed must never be passed over: what can't be noted is counted as missed.

use std::collections::{BTreeSet, HashSet};

use super::chain;
use super::node::DatabaseChange;
use super::read::{DatabaseRead, VatRead};
use super::tell::VatEvent;
use super::{Tracker, recheck};
use crate::kernel_db::{ClosedSpans, Identity, SpanRow, WorkerType};
use crate::store::{Alarm, KnownVat, NodeSeen, Noted, NotedSpan, NotedVat, SpanSource, StoreError};
use crate::transcript::{Position, VatId};

/// The changes of one look, as they come together.
struct Noting<'a> {
    tracker: &'a Tracker<'a>,
    read: &'a DatabaseRead,
    vats: &'a [VatRead],
    /// Set when the database is another one, or an earlier state of it.
    is_other: bool,
    /// Set when another file is in its place.
    is_replaced: bool,
    noted: Vec<NotedVat>,
    alarms: Vec<Alarm>,
    events: Vec<VatEvent>,
    missed: u64,
}

impl Tracker<'_> {
    /// The changes of the store that follow from a read, and the events to be told.
    pub(super) fn noted(
        &self,
        identity: Identity,
        read: &DatabaseRead,
        vats: &[VatRead],
        change: Option<&DatabaseChange>,
    ) -> Result<(Noted, Vec<VatEvent>), StoreError> {
        let mut noting = Noting {
            tracker: self,
            read,
            vats,
            is_other: change.is_some(),
            is_replaced: change.is_some_and(|change| change.is_replaced),
            noted: Vec::new(),
            alarms: read.living.as_ref().map_or_else(Vec::new, |living| chain::without_rows(vats, living)),
            events: Vec::new(),
            missed: 0,
        };
        for vat in vats {
            noting.vat(vat)?;
        }
        noting.vanished();
        noting.unlisted();
        let Noting { is_replaced, noted, alarms, events, missed, .. } = noting;
        let path = self.shared.record.db.path().display().to_string();
        let node = NodeSeen { path, identity, pulse: read.pulse.clone() };
        Ok((Noted { node, vats: noted, missed, alarms, is_replaced }, events))
    }
}

impl Noting<'_> {
    fn living(&self) -> Option<&BTreeSet<VatId>> {
        self.read.living.as_ref()
    }

    fn is_alive(&self, vat: &VatId) -> bool {
        self.living().is_some_and(|living| living.contains(vat))
    }

    fn vat(&mut self, read: &VatRead) -> Result<(), StoreError> {
        let vat = &read.vat;
        let known = self.tracker.vats.get(vat);
        let open_break = chain::open_breaks(read, self.living());
        let is_open_broken = open_break.is_some();
        self.alarms.extend(open_break);
        let before = known.cloned().unwrap_or_else(|| self.first_sight(read));
        let closed = self.closed(read, before.cursor)?;
        self.alarms.extend(read.edited.clone());
        if let Some(open) = self.tracker.heads.get(vat).filter(|_| self.read.trust.0) {
            self.alarms.extend(chain::rewound(open, read.current.as_ref()));
        }
        let forget_from = self.forget_from(read)?;
        let now = self.moved_on(read, &before, &closed, is_open_broken);
        let is_same = known.is_some_and(|known| known.cursor == now.cursor && known.is_terminated == now.is_terminated);
        if !is_same || !closed.is_empty() || forget_from.is_some() {
            let image = |row: &SpanRow| read.images.get(&row.id.end.checked_sub(1)?).copied();
            let span = |row: SpanRow| NotedSpan { image: image(&row), row, source: SpanSource::Live };
            self.noted.push(NotedVat { vat: now, closed: closed.into_iter().map(span).collect(), forget_from });
        }
        Ok(())
    }

    /// A vat that was never seen.
    fn first_sight(&self, read: &VatRead) -> KnownVat {
        let vat = read.vat.clone();
        let mut options = read.options.clone().unwrap_or_default();
        let name = self.read.static_names.iter().find(|(_, id)| *id == vat).map(|(name, _)| name.clone());
        options.name = options.name.or(name);
        let history = read.history.unwrap_or((0, 0));
        KnownVat { vat, cursor: history.1, is_terminated: false, options, history }
    }

    /// The closed spans that are new, after the one that ended at `cursor`.
    fn closed(&mut self, read: &VatRead, cursor: Position) -> Result<Vec<SpanRow>, StoreError> {
        let mut closed = read.closed.rows.clone();
        if read.is_rewritten {
            // Those before the newest one that is known are as they were.
            let mut known = None;
            for (at, row) in closed.iter().enumerate().rev() {
                if self.tracker.shared.store.is_noted(row)? {
                    known = Some(at);
                    break;
                }
            }
            closed.drain(..known.map_or(0, |at| at + 1));
            if !closed.is_empty() {
                self.events.push(VatEvent::Rewritten(read.vat.clone(), closed.len()));
            }
        } else if !self.is_other {
            self.alarms.extend(chain::new_breaks(read, cursor, self.read.trust));
        }
        Ok(closed)
    }

    /// The position from which rows of the vat are others than were seen, so that they are learned anew.
    fn forget_from(&mut self, read: &VatRead) -> Result<Option<Position>, StoreError> {
        let from = match &read.others {
            // The open span goes on from what closed: where it is as it was, nothing before it was written anew.
            Some(_) if self.tracker.is_head_as_it_was(read) => None,
            Some(others) if !self.is_replaced => Some(self.tracker.known_to(others)?),
            _ => None,
        };
        if let Some(from) = from.filter(|_| !read.is_rewritten) {
            self.events.push(VatEvent::Restored(read.vat.clone(), from));
        }
        Ok(from)
    }

    /// The vat after this look: its cursor moves past what closed, and it may be terminated.
    fn moved_on(&mut self, read: &VatRead, before: &KnownVat, closed: &[SpanRow], is_open_broken: bool) -> KnownVat {
        let vat = &read.vat;
        let mut now = before.clone();
        if let Some(last) = closed.last() {
            now.cursor = last.id.end;
        }
        let is_cut = read.closed.is_cut && !read.is_rewritten;
        match &read.current {
            Some(row) => {
                // An open span that is not where the history ends is a fault of the rows, and says nothing of what is new.
                if !is_cut && (!is_open_broken || self.is_other) {
                    now.cursor = row.id.start;
                }
                now.is_terminated = false;
            }
            None if self.is_alive(vat) => {}
            None => {
                let is_known = self.tracker.vats.contains_key(vat);
                if is_known && !before.is_terminated && !is_cut {
                    self.events.push(VatEvent::Terminated(vat.clone(), now.options.name.clone()));
                    // Its last span was open; if it is not among those that closed, its rows went first.
                    let is_local = now.options.worker_type == Some(WorkerType::Local);
                    if closed.is_empty() && !is_local && !self.is_other {
                        self.missed += 1;
                        self.events.push(VatEvent::Gone(vat.clone(), before.cursor));
                    }
                }
                now.is_terminated = !is_cut;
            }
        }
        now
    }

    /// Vats whose last span was open at the last look and of which no row is left.
    fn vanished(&mut self) {
        let tracker = self.tracker;
        let present: HashSet<&VatId> = self.vats.iter().map(|read| &read.vat).collect();
        let vanished = tracker.vats.values().filter(|known| !known.is_terminated && !present.contains(&known.vat));
        for known in vanished {
            if !self.is_other && self.is_alive(&known.vat) {
                continue;
            }
            // In another database, or in one that moved to before its beginning, it is not there yet.
            if !self.is_other {
                self.events.push(VatEvent::Terminated(known.vat.clone(), known.options.name.clone()));
                if known.options.worker_type != Some(WorkerType::Local) {
                    self.missed += 1;
                    self.events.push(VatEvent::Gone(known.vat.clone(), known.cursor));
                }
            }
            let vat = KnownVat { is_terminated: true, ..known.clone() };
            self.noted.push(NotedVat { vat, closed: Vec::new(), forget_from: None });
        }
    }

    /// Vats without a row that are not alive in a database that moved backwards: they may be created anew, with other spans.
    fn unlisted(&mut self) {
        if !self.is_other || self.is_replaced || self.living().is_none() {
            return;
        }
        let tracker = self.tracker;
        let present: HashSet<&VatId> = self.vats.iter().map(|read| &read.vat).collect();
        for known in tracker.vats.values().filter(|known| !present.contains(&known.vat)) {
            if !self.is_alive(&known.vat) {
                let vat = KnownVat { is_terminated: true, ..known.clone() };
                self.noted.push(NotedVat { vat, closed: Vec::new(), forget_from: Some(0) });
            }
        }
    }
}

impl Tracker<'_> {
    /// The position up to which the rows of a vat are still those that were seen.
    fn known_to(&self, newest_first: &ClosedSpans) -> Result<Position, StoreError> {
        for row in &newest_first.rows {
            if self.shared.store.is_seen(row)? {
                return Ok(row.id.end);
            }
        }
        Ok(0)
    }

    /// Whether the open span of a vat is just as it was at the last look.
    fn is_head_as_it_was(&self, read: &VatRead) -> bool {
        self.heads.get(&read.vat).zip(read.current.as_ref()).is_some_and(|(before, now)| !recheck::differs(before, now))
    }
}
