//! A look at the node's database: what is new since the last one, noted in the store, copied where the node deletes.
//!
//! Owns the cursors (what was noted of each vat) and the decision what is copied. Each look is one short read, with
//! another for each image that is copied; nothing of the database is held between them. What a look costs depends on what
//! is new and on how many vats there are.

mod copy;
mod node;
mod retention;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::shared::Shared;
use super::watch::LookSource;
use crate::config::Since;
use crate::kernel_db::{
    Access, CommitMark, DbError, Identity, Kept, NewItems, Pulse, Reader, SnapshotRow, SpanRow, VatOptions, WorkerType,
};
use crate::metrics::observe;
use crate::store::{CaptureRow, KnownVat, NodeSeen, Noted, NotedSpan, NotedVat, Source, StoreError};
use crate::transcript::{Position, VatId};
pub use retention::{Keeper, Retention};

/// No more closed spans of one vat are noted in one look.
const CLOSED_SPANS_MAX: u32 = 500;
/// No more text is copied of one vat in one look.
const ITEM_BYTES_MAX: usize = 16 << 20;
/// As many spans of the history are kept noted.
const HISTORY_SPANS: u64 = 32;

/// What a look found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// Something is new.
    pub(super) is_changed: bool,
    /// There is more than one look takes: another should follow.
    pub(super) is_unfinished: bool,
}

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

pub(super) struct Looker<'a> {
    shared: &'a Shared,
    vats: HashMap<VatId, KnownVat>,
    seen: Option<NodeSeen>,
    /// Of spans that are open: how far their items were copied.
    captures: HashMap<VatId, CaptureRow>,
    /// Open spans whose image is copied, or that need none.
    images_done: HashMap<VatId, Position>,
    images_refused: HashMap<VatId, Instant>,
    /// Of each vat the first and the last span that were noted live: what a database that moved backwards is compared with.
    noted: HashMap<VatId, (Position, SpanRow)>,
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
}

/// What is new of a vat.
#[derive(Default)]
struct VatNews {
    vat: Option<VatId>,
    current: Option<SpanRow>,
    closed: Vec<SpanRow>,
    /// What there is of the last of them.
    kept: Option<Kept>,
    is_cut: bool,
    /// Set when these are the spans of a history that is not the one that was noted.
    is_rewritten: bool,
    /// Set at the first sight of a vat.
    options: Option<VatOptions>,
    last_closed: Option<SpanRow>,
    history: Option<(Position, Position)>,
    items: Option<NewItems>,
    image: Option<SnapshotRow>,
}

impl<'a> Looker<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>) -> Self {
        let mut looker = Self {
            shared,
            vats: HashMap::new(),
            seen: None,
            captures: HashMap::new(),
            images_done: HashMap::new(),
            images_refused: HashMap::new(),
            noted: HashMap::new(),
            is_unfinished: true,
            commit_mark: None,
            is_retention_told: false,
        };
        if let Err(error) = looker.recall() {
            shared.store_failed(&error);
        }
        looker
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
        Ok(())
    }

    /// Whether there may have been a commit since the last look. Costs next to nothing.
    pub(super) fn is_commit_new(&self) -> bool {
        let mark = self.shared.db.commit_mark();
        mark.is_none() || mark != self.commit_mark
    }

    /// Looks once.
    pub(super) fn look(&mut self, source: LookSource) -> Found {
        // Taken before: what is committed while we read is looked at again.
        self.commit_mark = self.shared.db.commit_mark();
        let found = match self.try_look() {
            Ok(found) => found,
            Err(LookError::Database(error)) => {
                self.unreadable(&error);
                Found::default()
            }
            Err(LookError::Store(error)) => {
                self.shared.store_failed(&error);
                // What is in memory may be ahead of the store.
                if let Err(error) = self.recall() {
                    self.shared.store_failed(&error);
                }
                Found::default()
            }
        };
        let label = if found.is_changed { "change" } else { "nothing" };
        self.shared.metrics.looks.with_label_values(&[source.label(), label]).inc();
        found
    }

    fn try_look(&mut self) -> Result<Found, LookError> {
        let identity = self.shared.db.identity()?;
        let began = Instant::now();
        let news = self.shared.db.read(|reader| self.read(reader, identity))?;
        observe(&self.shared.metrics.read_transaction_seconds, began.elapsed());
        self.readable(&news);
        let Some(vats) = news.vats else {
            return Ok(Found::default());
        };
        self.compare_with_last(identity, &news.pulse);
        self.learn_retention(&vats);
        let (noted, mut is_unfinished) = self.noted(identity, &news.pulse, &news.static_names, &vats)?;
        let new = self.shared.store.note(&noted)?;
        let is_changed = self.seen.as_ref() != Some(&noted.node);
        self.seen = Some(noted.node);
        for NotedVat { vat, closed } in noted.vats {
            if let Some((first, last)) = closed.first().zip(closed.last()) {
                let noted = self.noted.entry(vat.vat.clone());
                noted.or_insert_with(|| (first.row.id.start, last.row.clone())).1 = last.row.clone();
            }
            self.vats.insert(vat.vat.clone(), vat);
        }
        if new > 0 {
            self.shared.wake_workers();
        }
        is_unfinished |= self.copy_items(&vats)?;
        is_unfinished |= self.copy_images(&vats)?;
        let history = self.note_history()?;
        // What waits for replays to come to their end is asked for again at the next poll, not at once.
        self.is_unfinished = is_unfinished || history != History::None;
        is_unfinished |= history == History::Noted;
        self.shared.set_view(|view| view.vats = self.vats.len() as u64);
        Ok(Found { is_changed, is_unfinished })
    }

    /// Everything that is read of the database in one look.
    fn read(&self, reader: &Reader<'_>, identity: Identity) -> rusqlite::Result<News> {
        let pulse = reader.pulse()?;
        let access = reader.access();
        let is_same = self.seen.as_ref().is_some_and(|seen| seen.identity == identity && seen.pulse == pulse);
        if is_same && !self.is_unfinished {
            return Ok(News { access, pulse, vats: None, static_names: Vec::new() });
        }
        let heads = reader.heads()?;
        let is_new = heads.iter().any(|head| !self.vats.contains_key(&head.vat));
        let static_names = if is_new { reader.static_vats()? } else { Vec::new() };
        let vats = heads
            .into_iter()
            .map(|head| self.read_vat(reader, head.vat, head.current))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(News { access, pulse, vats: Some(vats), static_names })
    }

    fn read_vat(&self, reader: &Reader<'_>, vat: VatId, current: Option<SpanRow>) -> rusqlite::Result<VatNews> {
        let mut news = VatNews { current, ..VatNews::default() };
        let from = match self.vats.get(&vat) {
            None => {
                news.options = Some(reader.options_of(&vat)?.unwrap_or_default());
                let end = news.current.as_ref().map_or(Position::MAX, |row| row.id.start);
                news.last_closed = reader.closed_spans_backwards(&vat, 0, end, 1)?.pop();
                // A vat that is there when we first come has a past; one that comes later has not.
                self.is_first_time().then(|| self.begin(reader, &vat, &mut news)).transpose()?.unwrap_or(0)
            }
            Some(known) if known.is_terminated && news.current.is_none() => {
                news.vat = Some(vat);
                return Ok(news);
            }
            Some(known) => known.cursor,
        };
        let to = news.current.as_ref().map_or(Position::MAX, |row| row.id.start);
        if from < to {
            news.closed = reader.closed_spans(&vat, from, to, CLOSED_SPANS_MAX)?;
            news.is_cut = news.closed.len() == CLOSED_SPANS_MAX as usize;
        }
        if let Some((first, last)) = self.noted.get(&vat)
            && (to < from || !news.closed.is_empty())
        {
            let now = reader.span_at(&vat, last.id.start)?;
            if now.is_none_or(|now| now.id != last.id || now.hash != last.hash) {
                // What was noted last is not there any more: somewhere before it the history became another one.
                news.is_rewritten = true;
                news.is_cut = false;
                news.closed = reader.closed_spans_backwards(&vat, *first, to, CLOSED_SPANS_MAX)?;
                news.closed.reverse();
            }
        }
        if let Some(last) = news.closed.last().or(news.last_closed.as_ref()) {
            news.kept = Some(reader.kept(&last.id)?);
        }
        let options = self.vats.get(&vat).map(|known| &known.options).or(news.options.as_ref());
        let is_local = options.is_some_and(|options| options.worker_type == Some(WorkerType::Local));
        if let Some(row) = news.current.as_ref().filter(|_| !is_local) {
            if self.wants_items() {
                let have = self.captures.get(&vat).filter(|capture| capture.start == row.id.start);
                let next = have.map_or(row.id.start, |capture| capture.next);
                if next < row.id.end {
                    news.items = Some(reader.new_items(&vat, next, row.id.end, ITEM_BYTES_MAX)?);
                }
            }
            if self.wants_images() && self.images_done.get(&vat) != Some(&row.id.start) {
                news.image = match row.id.start.checked_sub(1) {
                    Some(before) => reader.snapshot(&vat, before)?.filter(|image| image.has_image),
                    None => None,
                };
            }
        }
        news.vat = Some(vat);
        Ok(news)
    }

    /// Where to begin with a vat on the first look of all.
    fn begin(&self, reader: &Reader<'_>, vat: &VatId, news: &mut VatNews) -> rusqlite::Result<Position> {
        let end = match (&news.current, &news.last_closed) {
            (Some(row), _) => row.id.start,
            (None, Some(row)) => row.id.end,
            (None, None) => 0,
        };
        news.history = Some(match self.shared.config.watch.since {
            Since::Now => (0, 0),
            Since::Position(0) => (0, end),
            Since::Position(position) => {
                let across = reader.closed_spans_backwards(vat, 0, position.saturating_add(1), 1)?.pop();
                (across.filter(|row| row.id.end > position).map_or(position, |row| row.id.start), end)
            }
        });
        Ok(end)
    }

    fn is_first_time(&self) -> bool {
        self.seen.is_none()
    }

    /// What a look changes in the store, and whether there is more to note.
    fn noted(
        &self,
        identity: Identity,
        pulse: &Pulse,
        static_names: &[(String, VatId)],
        vats: &[VatNews],
    ) -> Result<(Noted, bool), StoreError> {
        let mut noted = Vec::new();
        let mut is_unfinished = false;
        for news in vats {
            let Some(vat) = &news.vat else { continue };
            let known = self.vats.get(vat);
            let mut now = known.cloned().unwrap_or_else(|| {
                let mut options = news.options.clone().unwrap_or_default();
                let name = static_names.iter().find(|(_, id)| id == vat).map(|(name, _)| name.clone());
                options.name = options.name.or(name);
                let history = news.history.unwrap_or((0, 0));
                let cursor = if news.history.is_some() { history.1.max(self.first_cursor(news)) } else { 0 };
                KnownVat { vat: vat.clone(), cursor, is_terminated: false, options, history }
            });
            let event = |event| self.shared.metrics.node_events.with_label_values(&[event]).inc();
            let mut closed = news.closed.clone();
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
                tracing::warn!(%vat, "its history is another one than was noted: {} of its spans are new", closed.len());
            } else if let Some(first) = closed.first().filter(|first| first.id.start != now.cursor) {
                tracing::warn!(%vat, "no span starts at {}, where the last one ended; the next one starts at {}", now.cursor, first.id.start);
            }
            if let Some(last) = news.closed.last() {
                now.cursor = last.id.end;
            }
            match &news.current {
                Some(row) => {
                    if now.cursor > row.id.start && closed.is_empty() && known.is_some() {
                        tracing::warn!(%vat, "its transcript is shorter than it was: the open span starts at {}, not at {}", row.id.start, now.cursor);
                    }
                    if !news.is_cut {
                        now.cursor = row.id.start;
                    }
                    now.is_terminated = false;
                }
                None => {
                    if !now.is_terminated && known.is_some() {
                        event("vat_terminated");
                        let name = now.options.name.as_deref().unwrap_or("-");
                        tracing::info!(%vat, name, "the vat was terminated");
                    }
                    now.is_terminated = !news.is_cut;
                }
            }
            is_unfinished |= news.is_cut;
            let is_same =
                known.is_some_and(|known| known.cursor == now.cursor && known.is_terminated == now.is_terminated);
            if !is_same || !closed.is_empty() {
                let closed = closed.into_iter().map(|row| NotedSpan { row, source: Source::Live }).collect();
                noted.push(NotedVat { vat: now, closed });
            }
        }
        noted.extend(self.vanished(vats));
        let path = self.shared.db.path().display().to_string();
        Ok((Noted { node: NodeSeen { path, identity, pulse: pulse.clone() }, vats: noted }, is_unfinished))
    }

    fn first_cursor(&self, news: &VatNews) -> Position {
        match (&news.current, &news.last_closed) {
            (Some(row), _) => row.id.start,
            (None, Some(row)) => row.id.end,
            (None, None) => 0,
        }
    }

    /// Vats of which no row is left although their last span was still open when we looked last.
    fn vanished(&self, vats: &[VatNews]) -> Vec<NotedVat> {
        let present: HashSet<&VatId> = vats.iter().filter_map(|news| news.vat.as_ref()).collect();
        let gone = self.vats.values().filter(|known| !known.is_terminated && !present.contains(&known.vat));
        gone.map(|known| {
            self.shared.metrics.node_events.with_label_values(&["vat_terminated"]).inc();
            self.shared.metrics.missed_spans.inc();
            if let Err(error) = self.shared.store.count("missed", "", 1) {
                self.shared.store_failed(&error);
            }
            tracing::warn!(vat = %known.vat, "the vat was terminated and all its rows were deleted between two looks: what it did from position {} on was not verified", known.cursor);
            NotedVat { vat: KnownVat { is_terminated: true, ..known.clone() }, closed: Vec::new() }
        })
        .collect()
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
        if waiting >= HISTORY_SPANS {
            return Ok(History::Waiting);
        }
        let is_backwards = matches!(self.shared.view().retention.images, Some(Keeper::Node | Keeper::Archive));
        let limit = u32::try_from(HISTORY_SPANS).unwrap_or(1);
        let (from, to) = vat.history;
        let rows = self.shared.db.read(|reader| match is_backwards {
            true => reader.closed_spans_backwards(&vat.vat, from, to, limit),
            false => reader.closed_spans(&vat.vat, from, to, limit),
        })?;
        let history = match rows.last() {
            Some(last) if rows.len() as u64 == HISTORY_SPANS && is_backwards => (from, last.id.start),
            Some(last) if rows.len() as u64 == HISTORY_SPANS => (last.id.end, to),
            _ => (0, 0),
        };
        let closed = rows.into_iter().map(|row| NotedSpan { row, source: Source::History }).collect();
        let vat = KnownVat { history, ..vat };
        let Some(node) = self.seen.clone() else { return Ok(History::None) };
        let noted = Noted { node, vats: vec![NotedVat { vat: vat.clone(), closed }] };
        if self.shared.store.note(&noted)? > 0 {
            self.shared.wake_workers();
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
