//! A look at the node's database: what is new since the last one is noted in the store, and what the node deletes is copied.
//!
//! Owns what is known from look to look ([`Tracker`]) and the order of the steps. Each look is one short read, with another for each image
//! that is copied; nothing of the database is held between them. A look costs as much as there is news, and a little for each vat.
//!
//! | step | module |
//! |---|---|
//! | reading | `read` |
//! | comparing the database with the last look, telling its state | `node` |
//! | noting: the changes of the store | `note`; `chain` finds breaks in histories |
//! | telling what happened to vats | `tell` |
//! | reading old rows again | `recheck` |
//! | copying items and images | `copy`; `retention` learns what the node keeps |
//! | noting spans of the past | `past` |

mod chain;
mod copy;
mod node;
mod note;
mod past;
mod read;
mod recheck;
mod retention;
mod tell;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::complaints::Subject;
use super::metrics::observe;
use super::shared::Shared;
use super::view::{LookResult, LookSource};
use crate::kernel_db::{CommitMark, DbError, SpanRow};
use crate::store::{CaptureRow, KnownVat, NodeSeen, Noted, NotedVat, StoreError};
use crate::tally::Counter;
use crate::transcript::{Position, VatId};
use past::Backfill;
use read::VatRead;
use recheck::RecheckRound;

/// The thread that looks, with everything that it knows from look to look.
pub(super) struct Tracker<'a> {
    shared: &'a Shared,
    vats: HashMap<VatId, KnownVat>,
    seen: Option<NodeSeen>,
    /// Of spans that are open: how far their items were copied.
    captures: HashMap<VatId, CaptureRow>,
    /// Open spans whose image is copied, or that need none.
    images_done: HashMap<VatId, Position>,
    /// Vats of which something could not be copied, and when that is tried again.
    images_refused: HashMap<VatId, Instant>,
    items_refused: HashMap<VatId, Instant>,
    /// Of each vat the first and the last span that were noted live: what a database that moved backwards is compared with.
    noted: HashMap<VatId, (Position, SpanRow)>,
    /// Of each vat the last closed span that was seen, noted or not.
    tails: HashMap<VatId, SpanRow>,
    /// The open spans as they were at the last full look.
    heads: HashMap<VatId, SpanRow>,
    /// When the database was read last.
    last_read: Option<Instant>,
    /// How far its old rows were read again.
    round: RecheckRound,
    /// Set while something is left over from the last look.
    is_unfinished: bool,
    /// As it was before the last look.
    commit_mark: Option<CommitMark>,
    is_retention_told: bool,
}

impl<'a> Tracker<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>) -> Self {
        let mut tracker = Self {
            shared,
            vats: HashMap::new(),
            seen: None,
            captures: HashMap::new(),
            images_done: HashMap::new(),
            images_refused: HashMap::new(),
            items_refused: HashMap::new(),
            noted: HashMap::new(),
            tails: HashMap::new(),
            heads: HashMap::new(),
            last_read: None,
            round: RecheckRound::default(),
            is_unfinished: true,
            commit_mark: None,
            is_retention_told: false,
        };
        if let Err(error) = tracker.recall() {
            shared.store_failed(&error);
        }
        tracker
    }

    /// Takes up where an earlier process left off.
    fn recall(&mut self) -> Result<(), StoreError> {
        let store = &self.shared.store;
        self.seen = store.node()?;
        self.vats = store.vats()?.into_iter().map(|vat| (vat.vat.clone(), vat)).collect();
        self.noted =
            store.noted_live()?.into_iter().map(|(first, last)| (last.id.vat.clone(), (first, last))).collect();
        self.captures.clear();
        for capture in store.captures()? {
            let newest = self.captures.get(&capture.vat).is_none_or(|known| known.start < capture.start);
            if newest {
                self.captures.insert(capture.vat.clone(), capture);
            }
        }
        self.is_unfinished = true;
        self.recall_memory()
    }

    /// Whether there may have been a commit since the last look. Costs next to nothing.
    pub(super) fn is_commit_new(&self) -> bool {
        let mark = self.shared.record.db.commit_mark();
        mark.is_none() || mark != self.commit_mark
    }

    /// Looks once.
    pub(super) fn look(&mut self, source: LookSource) -> LookResult {
        // Taken before: what is committed while we read is looked at again.
        self.commit_mark = self.shared.record.db.commit_mark();
        let found = match self.try_look(source) {
            Ok(found) => found,
            Err(LookError::Database(error)) => {
                self.unreadable(&error);
                LookResult::default()
            }
            Err(LookError::Store(error)) => {
                self.shared.store_failed(&error);
                // What is in memory may be ahead of the store.
                if let Err(error) = self.recall() {
                    self.shared.store_failed(&error);
                }
                LookResult::default()
            }
        };
        self.shared.metrics.looks.with_label_values(&[source.label(), found.label()]).inc();
        found
    }

    fn try_look(&mut self, source: LookSource) -> Result<LookResult, LookError> {
        let identity = self.shared.record.db.identity()?;
        let began = Instant::now();
        let mut read = self.shared.record.db.read(|reader| self.read(reader, identity, source))?;
        observe(&self.shared.metrics.read_transaction_seconds, began.elapsed());
        self.readable(&read);
        self.last_read = Some(Instant::now());
        let again = read.again.take().transpose()?;
        let Some(vats) = read.vats.take() else {
            again.map_or(Ok(()), |batch| self.recheck(batch))?;
            return Ok(LookResult::default());
        };
        let change = self.compare_with_last(identity, &read.pulse);
        self.learn_retention(&vats);
        self.distrust(change.is_some(), &vats)?;
        let (noted, events) = self.noted(identity, &read, &vats, change.as_ref())?;
        let new = self.shared.store.note(&noted)?;
        // A failure from here on is made up for at the next look.
        self.is_unfinished = true;
        if self.shared.complaints.end(Subject::Store) {
            tracing::info!("the store can be written again");
        }
        let is_changed = self.seen.as_ref() != Some(&noted.node);
        if let Some(change) = &change {
            self.tell_change(change, &noted.node);
        }
        self.remember(noted, &vats)?;
        events.into_iter().for_each(|event| self.tell(event));
        self.shared.tell_alarms(&new.alarms);
        if new.spans > 0 {
            self.shared.work.wake();
        }
        if let Some(batch) = again {
            self.recheck(batch)?;
        }
        // Copies that were dropped as untrusted are made anew.
        let mut is_unfinished = change.is_some() || vats.iter().any(|read| read.closed.is_cut || read.is_rewritten);
        is_unfinished |= self.copy_items(&vats)?;
        is_unfinished |= self.copy_images(&vats)?;
        let history = self.note_history()?;
        // A history that waits for replays is asked for again at the next poll, not at once.
        self.is_unfinished = is_unfinished || history != Backfill::Done || !self.images_refused.is_empty();
        is_unfinished |= history == Backfill::Noted;
        self.shared.view.set(|view| view.vats = self.vats.len() as u64);
        Ok(LookResult { is_changed, is_unfinished })
    }

    /// Takes over what the store has noted: the next look is compared with it.
    fn remember(&mut self, noted: Noted, vats: &[VatRead]) -> Result<(), StoreError> {
        self.seen = Some(noted.node);
        self.shared.metrics.add_to(Counter::Missed, noted.missed);
        if noted.is_replaced {
            self.forget_memory();
        }
        self.heads = vats.iter().filter_map(|read| Some((read.vat.clone(), read.current.clone()?))).collect();
        for NotedVat { vat, closed, forget_from } in noted.vats {
            if forget_from.is_some() {
                self.learn_tail(&vat.vat)?;
                self.round.last = None;
            }
            if let Some(last) = closed.last() {
                self.tails.insert(vat.vat.clone(), last.row.clone());
            }
            if let Some((first, last)) = closed.first().zip(closed.last()) {
                let noted = self.noted.entry(vat.vat.clone());
                noted.or_insert_with(|| (first.row.id.start, last.row.clone())).1 = last.row.clone();
            }
            self.vats.insert(vat.vat.clone(), vat);
        }
        Ok(())
    }
}

enum LookError {
    Database(DbError),
    Store(StoreError),
}

impl From<DbError> for LookError {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for LookError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
