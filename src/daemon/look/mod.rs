//! A look at the node's database: what is new since the last one, noted in the store, copied where the node deletes.
//!
//! Owns the cursors (what was noted of each vat) and the decision what is copied. Each look is one short read, with
//! another for each image that is copied; nothing of the database is held between them. What a look costs depends on what
//! is new and on how many vats there are.

mod chain;
mod copy;
mod node;
mod recheck;
mod retention;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::complaints::Subject;
use super::shared::Shared;
use super::view::{LookResult, LookSource, NodeEvent};
use crate::daemon::config::Since;
use crate::daemon::metrics::observe;
use crate::kernel_db::{
    Access, ClosedSpans, CommitMark, DbError, Head, Identity, Kept, NewItems, Pulse, Reader, SnapshotRow, SpanRow,
    VatOptions, WorkerType,
};
use crate::store::{Alarm, CaptureRow, KnownVat, NodeSeen, Noted, NotedSpan, NotedVat, SpanSource, StoreError};
use crate::tally::Counter;
use crate::transcript::{Hash256, Position, VatId};
use node::Change;
use recheck::{Batch, Round, Trust};

/// No more closed spans of one vat are noted in one look.
const CLOSED_SPANS_MAX: u32 = 500;
/// No more text is copied in one look.
const ITEM_BYTES_MAX: usize = 16 << 20;
/// As many spans of the history are kept noted.
const HISTORY_SPANS: u32 = 32;
/// So far back is looked for where a history became another one.
const REWRITTEN_SPANS_MAX: u32 = 10_000;

/// How the history comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    /// All of it is noted.
    None,
    /// Some was noted, and there may be more.
    Noted,
    /// Enough is due already.
    Waiting,
}

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
    round: Round,
    /// Set while something is left over from the last look.
    is_unfinished: bool,
    /// As it was before the last look.
    commit_mark: Option<CommitMark>,
    is_retention_told: bool,
}

/// What one read of the database gave.
struct News {
    access: Access,
    pulse: Pulse,
    /// `None` if the pulse is as it was.
    vats: Option<Vec<VatNews>>,
    static_names: Vec<(String, VatId)>,
    /// Whether rows that differ from what they were have been changed where they are.
    trust: Trust,
    /// Some old rows. The inner error is the store's.
    again: Option<Result<Batch, StoreError>>,
    /// The vats that the kernel's lists say are alive, where they can be read.
    living: Option<BTreeSet<VatId>>,
}

/// What is new of a vat.
struct VatNews {
    vat: VatId,
    current: Option<SpanRow>,
    /// Set when more than one of its spans is open.
    is_doubled: bool,
    /// Where its last span starts, open or not.
    last_start: Option<Position>,
    /// Those that closed since the last look.
    closed: ClosedSpans,
    /// Set when these are the spans of a history that is not the one that was noted.
    is_rewritten: bool,
    /// Set when its last rows are others than were seen, and it may have been restored: its rows, newest first.
    others: Option<ClosedSpans>,
    /// Set when the row of the last span that was seen is not what it was, and was not restored.
    edited: Option<Alarm>,
    /// The hashes in the rows of `snapshots` at the ends of those that closed, by position.
    images: HashMap<Position, Hash256>,
    /// What there is of the last one that closed.
    kept: Option<Kept>,
    /// Set at the first sight of a vat.
    options: Option<VatOptions>,
    last_closed: Option<SpanRow>,
    /// Set at the first sight of a vat that has a past: which part of that is to be worked through.
    history: Option<(Position, Position)>,
    /// From where on, and which.
    items: Option<(Position, NewItems)>,
    /// Set when there are items that this look does not take.
    is_over_budget: bool,
    /// The inner one is `None` where the span starts from no image that is there; the outer one where nobody looked.
    image: Option<Option<SnapshotRow>>,
}

/// Something that is told once the store has it.
enum Telling {
    Terminated(VatId, Option<String>),
    Gone(VatId, Position),
    Rewritten(VatId, usize),
    Restored(VatId, Position),
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
            round: Round::default(),
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
        let mut news = self.shared.record.db.read(|reader| self.read(reader, identity, source))?;
        observe(&self.shared.metrics.read_transaction_seconds, began.elapsed());
        self.readable(&news);
        self.last_read = Some(Instant::now());
        let again = news.again.take().transpose()?;
        let Some(vats) = news.vats.take() else {
            again.map_or(Ok(()), |batch| self.recheck(batch))?;
            return Ok(LookResult::default());
        };
        let change = self.compare_with_last(identity, &news.pulse);
        self.learn_retention(&vats);
        self.distrust(change.is_some(), &vats)?;
        let (noted, tellings) = self.noted(identity, &news, &vats, change.as_ref())?;
        let new = self.shared.store.note(&noted)?;
        // Whatever fails from here on is made up for at the next look.
        self.is_unfinished = true;
        if self.shared.complaints.end(Subject::Store) {
            tracing::info!("the store can be written again");
        }
        let is_changed = self.seen.as_ref() != Some(&noted.node);
        if let Some(change) = &change {
            self.tell_change(change, &noted.node);
        }
        self.seen = Some(noted.node);
        self.shared.metrics.add_to(Counter::Missed, noted.missed);
        if noted.is_replaced {
            self.forget_memory();
        }
        self.heads = vats.iter().filter_map(|news| Some((news.vat.clone(), news.current.clone()?))).collect();
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
        tellings.into_iter().for_each(|telling| self.tell(telling));
        self.shared.tell_alarms(&new.alarms);
        if new.spans > 0 {
            self.shared.work.wake();
        }
        if let Some(batch) = again {
            self.recheck(batch)?;
        }
        // What was dropped for want of trust is copied anew.
        let mut is_unfinished = change.is_some() || vats.iter().any(|news| news.closed.is_cut || news.is_rewritten);
        is_unfinished |= self.copy_items(&vats)?;
        is_unfinished |= self.copy_images(&vats)?;
        let history = self.note_history()?;
        // What waits for replays to come to their end is asked for again at the next poll, not at once.
        self.is_unfinished = is_unfinished || history != History::None || !self.images_refused.is_empty();
        is_unfinished |= history == History::Noted;
        self.shared.view.set(|view| view.vats = self.vats.len() as u64);
        Ok(LookResult { is_changed, is_unfinished })
    }

    /// Everything that is read of the database in one look.
    fn read(&self, reader: &Reader<'_>, identity: Identity, source: LookSource) -> rusqlite::Result<News> {
        let pulse = reader.pulse()?;
        let access = reader.access();
        let is_same_file = self.seen.as_ref().is_some_and(|seen| seen.identity == identity);
        let is_same = is_same_file && self.seen.as_ref().is_some_and(|seen| seen.pulse == pulse);
        let trust = self.trust(is_same, self.compare_with_last(identity, &pulse).is_some());
        let is_due = trust.0 && source == LookSource::Poll && self.is_recheck_due();
        let again = if is_due { Some(self.read_again(reader)?) } else { None };
        if is_same && !self.is_unfinished {
            return Ok(News { access, pulse, vats: None, static_names: Vec::new(), trust, again, living: None });
        }
        let mut heads = reader.heads()?;
        let doubled: HashSet<VatId> =
            heads.windows(2).filter(|pair| pair[0].vat == pair[1].vat).map(|pair| pair[0].vat.clone()).collect();
        heads.dedup_by(|one, other| one.vat == other.vat);
        let is_new = heads.iter().any(|head| !self.vats.contains_key(&head.vat));
        let static_names = if is_new { reader.static_vats()? } else { Vec::new() };
        let budget = Cell::new(ITEM_BYTES_MAX);
        // A database that was empty until now, or has come in the place of another one, has vats with a past.
        let has_past = self.vats.is_empty() || !is_same_file;
        let vats = heads
            .into_iter()
            .map(|head| {
                let is_doubled = doubled.contains(&head.vat);
                Ok(VatNews { is_doubled, ..self.read_vat(reader, head, has_past, trust, &budget)? })
            })
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let living = reader.living_vats()?;
        Ok(News { access, pulse, vats: Some(vats), static_names, trust, again, living })
    }

    fn read_vat(
        &self,
        reader: &Reader<'_>,
        head: Head,
        has_past: bool,
        trust: Trust,
        budget: &Cell<usize>,
    ) -> rusqlite::Result<VatNews> {
        let mut news = VatNews {
            vat: head.vat,
            current: head.current,
            is_doubled: false,
            last_start: head.last_start,
            closed: ClosedSpans::default(),
            is_rewritten: false,
            others: None,
            edited: None,
            images: HashMap::new(),
            kept: None,
            options: None,
            last_closed: None,
            history: None,
            items: None,
            is_over_budget: false,
            image: None,
        };
        let vat = news.vat.clone();
        let from = match self.vats.get(&vat) {
            None => {
                news.options = Some(reader.options_of(&vat)?.unwrap_or_default());
                let end = news.current.as_ref().map_or(Position::MAX, |row| row.id.start);
                news.last_closed = reader.closed_spans_backwards(&vat, 0, end, 1)?.rows.pop();
                if has_past { self.begin(reader, &mut news)? } else { 0 }
            }
            Some(known) if known.is_terminated && news.current.is_none() => return Ok(news),
            Some(known) => known.cursor,
        };
        let to = news.current.as_ref().map_or(Position::MAX, |row| row.id.start);
        if from < to {
            news.closed = reader.closed_spans(&vat, from, to, CLOSED_SPANS_MAX)?;
        }
        if let Some((first, last)) = self.noted.get(&vat)
            && (to < from || !news.closed.rows.is_empty())
        {
            let now = reader.span_at(&vat, last.id.start)?;
            let is_seen = self.tails.get(&vat).is_some_and(|tail| tail.id == last.id && tail.hash == last.hash);
            let is_other = now.as_ref().is_none_or(|now| now.id != last.id || now.hash != last.hash);
            if is_other && trust.0 && is_seen {
                // One that is gone is found when the rows are read again.
                news.edited = now.and_then(|now| recheck::changed_row(last, Some(&now)));
            } else if is_other {
                // What was noted last is not there any more: somewhere before it the history became another one.
                news.is_rewritten = true;
                news.closed = reader.closed_spans_backwards(&vat, *first, to, REWRITTEN_SPANS_MAX)?;
                news.closed.rows.reverse();
            }
        }
        if let Some(tail) = self.tails.get(&vat).filter(|_| !trust.0) {
            let now = reader.span_at(&vat, tail.id.start)?;
            if now.is_none_or(|now| now.id != tail.id || now.hash != tail.hash) {
                // Not only those before the open span: its row may be edited too.
                news.others = Some(reader.closed_spans_backwards(&vat, 0, Position::MAX, REWRITTEN_SPANS_MAX)?);
            }
        }
        for row in &news.closed.rows {
            if let Some((image, end)) = reader.image_at_end(&row.id)?.zip(row.id.end.checked_sub(1)) {
                news.images.insert(end, image);
            }
        }
        if let Some(last) = news.closed.rows.last().or(news.last_closed.as_ref()) {
            news.kept = Some(reader.kept(&last.id)?);
        }
        let options = self.vats.get(&vat).map(|known| &known.options).or(news.options.as_ref());
        let is_local = options.is_some_and(|options| options.worker_type == Some(WorkerType::Local));
        if let Some(row) = news.current.clone().filter(|_| !is_local) {
            if self.wants_items() && !self.is_refused(&self.items_refused, &vat) {
                let have = self.captures.get(&vat).filter(|capture| capture.start == row.id.start);
                let next = have.map_or(row.id.start, |capture| capture.next);
                news.is_over_budget = next < row.id.end && budget.get() == 0;
                if next < row.id.end && !news.is_over_budget {
                    let items = reader.new_items(&vat, next, row.id.end, budget.get())?;
                    let bytes: usize = items.texts.iter().map(Vec::len).sum();
                    budget.set(budget.get().saturating_sub(bytes));
                    news.items = Some((next, items));
                }
            }
            if self.wants_images() && self.images_done.get(&vat) != Some(&row.id.start) {
                news.image = Some(match row.id.start.checked_sub(1) {
                    Some(before) => reader.snapshot(&vat, before)?.filter(|image| image.has_image),
                    None => None,
                });
            }
        }
        Ok(news)
    }

    /// Where to begin with a vat that has a past.
    fn begin(&self, reader: &Reader<'_>, news: &mut VatNews) -> rusqlite::Result<Position> {
        let end = match (&news.current, &news.last_closed) {
            (Some(row), _) => row.id.start,
            (None, Some(row)) => row.id.end,
            (None, None) => 0,
        };
        news.history = Some(match self.shared.config.watch.since {
            Since::Now => (end, end),
            Since::Position(0) => (0, end),
            Since::Position(position) => {
                let across = reader.closed_spans_backwards(&news.vat, 0, position.saturating_add(1), 1)?.rows.pop();
                (across.filter(|row| row.id.end > position).map_or(position, |row| row.id.start), end)
            }
        });
        Ok(end)
    }

    /// What a look changes in the store, and what is to be told of it.
    fn noted(
        &self,
        identity: Identity,
        of: &News,
        vats: &[VatNews],
        change: Option<&Change>,
    ) -> Result<(Noted, Vec<Telling>), StoreError> {
        let (is_other, is_replaced) = (change.is_some(), change.is_some_and(|change| change.is_replaced));
        let News { pulse, static_names, trust, .. } = of;
        let living = of.living.as_ref();
        let mut tellings = Vec::new();
        let mut alarms = living.map_or_else(Vec::new, |living| chain::without_rows(vats, living));
        let is_alive = |vat: &VatId| living.is_some_and(|living| living.contains(vat));
        let (mut noted, mut missed) = (Vec::new(), 0);
        for news in vats {
            let vat = &news.vat;
            let known = self.vats.get(vat);
            let open_break = chain::open_breaks(news, living);
            let is_open_broken = open_break.is_some();
            alarms.extend(open_break);
            let mut now = known.cloned().unwrap_or_else(|| {
                let mut options = news.options.clone().unwrap_or_default();
                let name = static_names.iter().find(|(_, id)| id == vat).map(|(name, _)| name.clone());
                options.name = options.name.or(name);
                let history = news.history.unwrap_or((0, 0));
                KnownVat { vat: vat.clone(), cursor: history.1, is_terminated: false, options, history }
            });
            let cursor_before = now.cursor;
            let mut closed = news.closed.rows.clone();
            if news.is_rewritten {
                // Those before the newest one that is known are as they were.
                let mut known = None;
                for (at, row) in closed.iter().enumerate().rev() {
                    if self.shared.store.is_noted(row)? {
                        known = Some(at);
                        break;
                    }
                }
                closed.drain(..known.map_or(0, |at| at + 1));
                if !closed.is_empty() {
                    tellings.push(Telling::Rewritten(vat.clone(), closed.len()));
                }
            } else if !is_other {
                alarms.extend(chain::new_breaks(news, now.cursor, *trust));
            }
            alarms.extend(news.edited.clone());
            if let Some(before) = self.heads.get(vat).filter(|_| trust.0) {
                alarms.extend(chain::rewound(before, news.current.as_ref()));
            }
            let forget_from = match &news.others {
                // The open span goes on from what closed: where it is as it was, nothing before it was written anew.
                Some(_) if self.is_head_as_it_was(news) => None,
                Some(others) if !is_replaced => Some(self.known_to(others)?),
                _ => None,
            };
            if let Some(from) = forget_from.filter(|_| !news.is_rewritten) {
                tellings.push(Telling::Restored(vat.clone(), from));
            }
            if let Some(last) = closed.last() {
                now.cursor = last.id.end;
            }
            let is_cut = news.closed.is_cut && !news.is_rewritten;
            match &news.current {
                Some(row) => {
                    // An open span that is not where the history ends is a fault of the rows, and says nothing of what is new.
                    if !is_cut && (!is_open_broken || is_other) {
                        now.cursor = row.id.start;
                    }
                    now.is_terminated = false;
                }
                None if is_alive(vat) => {}
                None => {
                    if known.is_some_and(|known| !known.is_terminated) && !is_cut {
                        tellings.push(Telling::Terminated(vat.clone(), now.options.name.clone()));
                        // Its last span was open; if it is not among those that closed, its rows went first.
                        let is_local = now.options.worker_type == Some(WorkerType::Local);
                        if closed.is_empty() && !is_local && !is_other {
                            missed += 1;
                            tellings.push(Telling::Gone(vat.clone(), cursor_before));
                        }
                    }
                    now.is_terminated = !is_cut;
                }
            }
            let is_same =
                known.is_some_and(|known| known.cursor == now.cursor && known.is_terminated == now.is_terminated);
            if !is_same || !closed.is_empty() || forget_from.is_some() {
                let image = |row: &SpanRow| news.images.get(&row.id.end.checked_sub(1)?).copied();
                let span = |row: SpanRow| NotedSpan { image: image(&row), row, source: SpanSource::Live };
                noted.push(NotedVat { vat: now, closed: closed.into_iter().map(span).collect(), forget_from });
            }
        }
        for known in self.vanished(vats).into_iter().filter(|known| is_other || !is_alive(&known.vat)) {
            // In another database, or in one that moved to before its beginning, it is not there yet.
            if !is_other {
                tellings.push(Telling::Terminated(known.vat.clone(), known.options.name.clone()));
                if known.options.worker_type != Some(WorkerType::Local) {
                    missed += 1;
                    tellings.push(Telling::Gone(known.vat.clone(), known.cursor));
                }
            }
            let vat = KnownVat { is_terminated: true, ..known.clone() };
            noted.push(NotedVat { vat, closed: Vec::new(), forget_from: None });
        }
        if is_other && !is_replaced {
            // A vat without a row that is not alive may be created anew, with other spans.
            let present: HashSet<&VatId> = vats.iter().map(|news| &news.vat).collect();
            let is_gone = |vat: &VatId| living.is_some() && !is_alive(vat) && !present.contains(vat);
            for known in self.vats.values().filter(|known| is_gone(&known.vat)) {
                let vat = KnownVat { is_terminated: true, ..known.clone() };
                noted.push(NotedVat { vat, closed: Vec::new(), forget_from: Some(0) });
            }
        }
        let path = self.shared.record.db.path().display().to_string();
        let node = NodeSeen { path, identity, pulse: pulse.clone() };
        Ok((Noted { node, vats: noted, missed, alarms, is_replaced }, tellings))
    }

    /// Up to where the rows of a vat are still those that were seen.
    fn known_to(&self, newest_first: &ClosedSpans) -> Result<Position, StoreError> {
        for row in &newest_first.rows {
            if self.shared.store.is_seen(row)? {
                return Ok(row.id.end);
            }
        }
        Ok(0)
    }

    /// Whether the open span of a vat is just as it was at the last look.
    fn is_head_as_it_was(&self, news: &VatNews) -> bool {
        self.heads.get(&news.vat).zip(news.current.as_ref()).is_some_and(|(before, now)| !recheck::differs(before, now))
    }

    /// Vats of which no row is left although their last span was still open when we looked last.
    fn vanished(&self, vats: &[VatNews]) -> Vec<&KnownVat> {
        let present: HashSet<&VatId> = vats.iter().map(|news| &news.vat).collect();
        self.vats.values().filter(|known| !known.is_terminated && !present.contains(&known.vat)).collect()
    }

    fn tell(&self, telling: Telling) {
        match telling {
            Telling::Terminated(vat, name) => {
                self.shared.metrics.node_events.with_label_values(&[NodeEvent::VatTerminated.label()]).inc();
                tracing::info!(%vat, name, "the vat was terminated");
            }
            Telling::Gone(vat, position) => tracing::warn!(
                %vat,
                "the vat was terminated and its rows were deleted between two looks: what it did from position {position} on was not verified"
            ),
            Telling::Restored(vat, from) => tracing::warn!(
                %vat,
                "its newest rows are others than were seen: the database was restored, rolled back or edited; rows from position {from} on are learned anew"
            ),
            Telling::Rewritten(vat, count) => {
                tracing::warn!(%vat, "its history is another one than was noted: {count} of its spans are new");
            }
        }
    }

    /// Notes some spans of the history, if few are waiting.
    ///
    /// Where images are kept the newest come first. Where not, each span starts from the image that the replay of the one
    /// before it gives, so the oldest must.
    fn note_history(&mut self) -> Result<History, LookError> {
        let with_history = self.vats.values().filter(|vat| vat.history.0 < vat.history.1);
        let Some(vat) = with_history.min_by(|one, other| one.vat.cmp(&other.vat)).cloned() else {
            return Ok(History::None);
        };
        let waiting = self.shared.store.backlog()?.history;
        if waiting >= u64::from(HISTORY_SPANS) {
            return Ok(History::Waiting);
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
        let Some(node) = self.seen.clone() else { return Ok(History::None) };
        let of_vat = NotedVat { vat: vat.clone(), closed, forget_from: None };
        let noted = Noted { node, vats: vec![of_vat], missed: 0, alarms, is_replaced: false };
        let new = self.shared.store.note(&noted)?;
        self.shared.tell_alarms(&new.alarms);
        if new.spans > 0 {
            self.shared.work.wake();
        }
        self.vats.insert(vat.vat.clone(), vat);
        Ok(History::Noted)
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
