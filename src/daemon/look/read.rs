//! Reading: one short read of the node's database, with everything that a look needs.
//!
//! It changes nothing, neither here nor in the store. What it costs depends on what is new, and on how many vats there are.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::Tracker;
use super::recheck::{self, RecheckBatch, Trust};
use crate::daemon::config::Since;
use crate::daemon::view::LookSource;
use crate::kernel_db::{
    Access, ClosedSpans, Head, Identity, Kept, NewItems, Pulse, Reader, SnapshotRow, SpanRow, VatOptions, WorkerType,
};
use crate::store::{Alarm, StoreError};
use crate::transcript::{Hash256, Position, VatId};

/// No more closed spans of one vat are noted in one look.
const CLOSED_SPANS_MAX: u32 = 500;
/// No more text is copied in one look, in bytes.
const ITEM_BYTES_MAX: usize = 16 << 20;
/// The number of spans back to which a place is searched where a history became another one.
const REWRITTEN_SPANS_MAX: u32 = 10_000;

/// The result of one read of the database.
pub(super) struct DatabaseRead {
    pub(super) access: Access,
    pub(super) pulse: Pulse,
    /// `None` if the pulse is as it was.
    pub(super) vats: Option<Vec<VatRead>>,
    pub(super) static_names: Vec<(String, VatId)>,
    /// Whether rows that differ from what they were have been changed where they are.
    pub(super) trust: Trust,
    /// Some old rows. The inner error is the store's.
    pub(super) again: Option<Result<RecheckBatch, StoreError>>,
    /// The vats that the kernel's lists say are alive, where they can be read.
    pub(super) living: Option<BTreeSet<VatId>>,
}

/// The rows of a vat that are new.
pub(super) struct VatRead {
    pub(super) vat: VatId,
    pub(super) current: Option<SpanRow>,
    /// Set when more than one of its spans is open.
    pub(super) is_doubled: bool,
    /// Where its last span starts, open or not.
    pub(super) last_start: Option<Position>,
    /// Those that closed since the last look.
    pub(super) closed: ClosedSpans,
    /// Set when these are the spans of a history that is not the one that was noted.
    pub(super) is_rewritten: bool,
    /// Set when its last rows are others than were seen, and it may have been restored: its rows, newest first.
    pub(super) others: Option<ClosedSpans>,
    /// Set when the row of the last span that was seen is not what it was, and was not restored.
    pub(super) edited: Option<Alarm>,
    /// The hashes in the rows of `snapshots` at the ends of those that closed, by position.
    pub(super) images: HashMap<Position, Hash256>,
    /// The parts of the last one that closed that the database still has.
    pub(super) kept: Option<Kept>,
    /// Set at the first sight of a vat.
    pub(super) options: Option<VatOptions>,
    pub(super) last_closed: Option<SpanRow>,
    /// Set at the first sight of a vat that has a past: which part of that is to be worked through.
    pub(super) history: Option<(Position, Position)>,
    /// Items of the open span that are not copied yet, with the position of the first.
    pub(super) items: Option<(Position, NewItems)>,
    /// Set when there are items that this look does not take.
    pub(super) is_over_budget: bool,
    /// The inner one is `None` where the span starts from no image that is there; the outer one where nobody looked.
    pub(super) image: Option<Option<SnapshotRow>>,
}

impl Tracker<'_> {
    /// Reads everything that one look needs, in one transaction.
    pub(super) fn read(
        &self,
        reader: &Reader<'_>,
        identity: Identity,
        source: LookSource,
    ) -> rusqlite::Result<DatabaseRead> {
        let pulse = reader.pulse()?;
        let access = reader.access();
        let is_same_file = self.seen.as_ref().is_some_and(|seen| seen.identity == identity);
        let is_same = is_same_file && self.seen.as_ref().is_some_and(|seen| seen.pulse == pulse);
        let trust = self.trust(is_same, self.compare_with_last(identity, &pulse).is_some());
        let is_due = trust.0 && source == LookSource::Poll && self.is_recheck_due();
        let again = if is_due { Some(self.read_again(reader)?) } else { None };
        if is_same && !self.is_unfinished {
            return Ok(DatabaseRead {
                access,
                pulse,
                vats: None,
                static_names: Vec::new(),
                trust,
                again,
                living: None,
            });
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
                self.read_vat(reader, VatRead::of(head, is_doubled), has_past, trust, &budget)
            })
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let living = reader.living_vats()?;
        Ok(DatabaseRead { access, pulse, vats: Some(vats), static_names, trust, again, living })
    }
}

impl VatRead {
    /// A vat of which only its newest rows are known.
    fn of(head: Head, is_doubled: bool) -> Self {
        Self {
            vat: head.vat,
            current: head.current,
            is_doubled,
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
        }
    }

    /// The end of its closed spans, as far as its open span says.
    fn closed_end(&self) -> Position {
        self.current.as_ref().map_or(Position::MAX, |row| row.id.start)
    }
}

fn is_same_span(one: &SpanRow, other: &SpanRow) -> bool {
    one.id == other.id && one.hash == other.hash
}

/// The parts of a vat's rows, each read where something of it may be new.
impl Tracker<'_> {
    fn read_vat(
        &self,
        reader: &Reader<'_>,
        mut read: VatRead,
        has_past: bool,
        trust: Trust,
        budget: &Cell<usize>,
    ) -> rusqlite::Result<VatRead> {
        let from = match self.vats.get(&read.vat) {
            None => self.read_first_sight(reader, &mut read, has_past)?,
            Some(known) if known.is_terminated && read.current.is_none() => return Ok(read),
            Some(known) => known.cursor,
        };
        let to = read.closed_end();
        if from < to {
            read.closed = reader.closed_spans(&read.vat, from, to, CLOSED_SPANS_MAX)?;
        }
        self.read_noted(reader, &mut read, from, trust)?;
        if let Some(tail) = self.tails.get(&read.vat).filter(|_| !trust.0) {
            let now = reader.span_at(&read.vat, tail.id.start)?;
            if now.is_none_or(|now| !is_same_span(&now, tail)) {
                // Not only those before the open span: its row may be edited too.
                read.others = Some(reader.closed_spans_backwards(&read.vat, 0, Position::MAX, REWRITTEN_SPANS_MAX)?);
            }
        }
        for row in &read.closed.rows {
            if let Some((image, end)) = reader.image_at_end(&row.id)?.zip(row.id.end.checked_sub(1)) {
                read.images.insert(end, image);
            }
        }
        if let Some(last) = read.closed.rows.last().or(read.last_closed.as_ref()) {
            read.kept = Some(reader.kept(&last.id)?);
        }
        self.read_open(reader, &mut read, budget)?;
        Ok(read)
    }

    /// Reads what is noted once of a vat. The position from which its spans are new.
    fn read_first_sight(&self, reader: &Reader<'_>, read: &mut VatRead, has_past: bool) -> rusqlite::Result<Position> {
        read.options = Some(reader.options_of(&read.vat)?.unwrap_or_default());
        read.last_closed = reader.closed_spans_backwards(&read.vat, 0, read.closed_end(), 1)?.rows.pop();
        if has_past { self.begin(reader, read) } else { Ok(0) }
    }

    /// Reads the last span that was noted again, where something is new: another row in its place is an edit or another history.
    fn read_noted(
        &self,
        reader: &Reader<'_>,
        read: &mut VatRead,
        from: Position,
        trust: Trust,
    ) -> rusqlite::Result<()> {
        let to = read.closed_end();
        let Some((first, last)) = self.noted.get(&read.vat) else { return Ok(()) };
        if to >= from && read.closed.rows.is_empty() {
            return Ok(());
        }
        let now = reader.span_at(&read.vat, last.id.start)?;
        if now.as_ref().is_some_and(|now| is_same_span(now, last)) {
            return Ok(());
        }
        let is_seen = self.tails.get(&read.vat).is_some_and(|tail| is_same_span(tail, last));
        if trust.0 && is_seen {
            // One that is gone is found when the rows are read again.
            read.edited = now.and_then(|now| recheck::changed_row(last, Some(&now)));
        } else {
            // What was noted last is not there any more: somewhere before it the history became another one.
            read.is_rewritten = true;
            read.closed = reader.closed_spans_backwards(&read.vat, *first, to, REWRITTEN_SPANS_MAX)?;
            read.closed.rows.reverse();
        }
        Ok(())
    }

    /// Reads what is to be copied of an open span: its items, and the row of the image that it starts from.
    fn read_open(&self, reader: &Reader<'_>, read: &mut VatRead, budget: &Cell<usize>) -> rusqlite::Result<()> {
        let vat = &read.vat;
        let options = self.vats.get(vat).map(|known| &known.options).or(read.options.as_ref());
        let is_local = options.is_some_and(|options| options.worker_type == Some(WorkerType::Local));
        let Some(row) = read.current.clone().filter(|_| !is_local) else { return Ok(()) };
        if self.wants_items() && !self.is_refused(&self.items_refused, vat) {
            let next = self.copied_to(vat, &row);
            read.is_over_budget = next < row.id.end && budget.get() == 0;
            if next < row.id.end && !read.is_over_budget {
                let items = reader.new_items(vat, next, row.id.end, budget.get())?;
                let bytes: usize = items.texts.iter().map(Vec::len).sum();
                budget.set(budget.get().saturating_sub(bytes));
                read.items = Some((next, items));
            }
        }
        if self.wants_images() && self.images_done.get(vat) != Some(&row.id.start) {
            read.image = Some(match row.id.start.checked_sub(1) {
                Some(before) => reader.snapshot(vat, before)?.filter(|image| image.has_image),
                None => None,
            });
        }
        Ok(())
    }

    /// The position at which to begin with a vat that has a past.
    fn begin(&self, reader: &Reader<'_>, read: &mut VatRead) -> rusqlite::Result<Position> {
        let end = match (&read.current, &read.last_closed) {
            (Some(row), _) => row.id.start,
            (None, Some(row)) => row.id.end,
            (None, None) => 0,
        };
        read.history = Some(match self.shared.config.watch.since {
            Since::Now => (end, end),
            Since::Position(0) => (0, end),
            Since::Position(position) => {
                let across = reader.closed_spans_backwards(&read.vat, 0, position.saturating_add(1), 1)?.rows.pop();
                (across.filter(|row| row.id.end > position).map_or(position, |row| row.id.start), end)
            }
        });
        Ok(end)
    }
}
