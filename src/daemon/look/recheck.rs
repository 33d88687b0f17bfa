//! Old rows, read again a few at each poll: what changed in them is an edit or damage, as a node never does it.
//!
//! Owns how far that has come and the comparison of rows with what they were. It believes what was seen first, until the
//! database is replaced by another file. One that was restored or rolled back has the rows that it had, up to some point: only
//! the newest rows, down to the first that is as it was, are learned anew ([`Trust`]).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::chain::{broken, seam, unreadable};
use super::{LookError, Tracker};
use crate::kernel_db::{Reader, Reread, RowKey, SpanRow};
use crate::store::{Alarm, AlarmKind, Rechecked, SeenImage, SeenSpan, StoreError, now};
use crate::transcript::{Hash256, Position, VatId};

/// No node is stopped, restored and comes further than it had been between two looks that are nearer than this.
const NEAR: Duration = Duration::from_secs(60);
/// So many rows that vanished are looked at for each one that is read.
const VANISHED_FACTOR: usize = 4;
/// How often it is written down how far a round has come, where there is nothing else to write.
const SAVE: Duration = Duration::from_secs(60);

/// Whether rows that differ from what they were have been changed where they are. Otherwise the database may have been
/// restored, and gone on from there, while nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trust(pub(super) bool);

/// How far the rows were read again.
#[derive(Debug, Default)]
pub(super) struct RecheckRound {
    /// The last row that was read; `None` before the first.
    at: Option<RowKey>,
    /// That row, where it is a span.
    pub(super) last: Option<SpanRow>,
    began_at: f64,
    /// When rows were read last.
    read: Option<Instant>,
    saved: Option<Instant>,
}

/// Some rows as they are and as they were, all from one read.
#[derive(Debug, Default)]
pub(super) struct RecheckBatch {
    rows: Vec<Reread>,
    seen: Vec<SeenSpan>,
    /// Where the last span of a vat starts now; of vats of which rows vanished.
    last_starts: HashMap<VatId, Option<Position>>,
    living: Option<BTreeSet<VatId>>,
    /// The last row that is in it; `None` if there are no more.
    to: Option<RowKey>,
}

impl Tracker<'_> {
    /// Whether the database is the one of the last look, as far as anybody can tell.
    pub(super) fn trust(&self, is_same: bool, is_other: bool) -> Trust {
        Trust(!is_other && (is_same || self.last_read.is_some_and(|at| at.elapsed() < NEAR)))
    }

    /// Takes up where an earlier process left off.
    pub(super) fn recall_memory(&mut self) -> Result<(), StoreError> {
        let store = &self.shared.store;
        self.tails = store.seen_last()?.into_iter().map(|row| (row.id.vat.clone(), row)).collect();
        let (at, began_at) = store.recheck_state()?.unwrap_or((None, now()));
        self.round = RecheckRound { at, began_at, ..RecheckRound::default() };
        Ok(())
    }

    /// Takes the last row of a vat from the store, after some were forgotten.
    pub(super) fn learn_tail(&mut self, vat: &VatId) -> Result<(), StoreError> {
        match self.shared.store.seen_last_of(vat)? {
            Some(row) => self.tails.insert(vat.clone(), row),
            None => self.tails.remove(vat),
        };
        Ok(())
    }

    /// Starts anew with another file.
    pub(super) fn forget_memory(&mut self) {
        self.tails.clear();
        self.heads.clear();
        self.round = RecheckRound { began_at: now(), ..RecheckRound::default() };
    }

    /// Whether it is time to read some rows again.
    pub(super) fn is_recheck_due(&self) -> bool {
        let pause = self.shared.config.watch.poll_interval / 2;
        self.shared.config.watch.recheck_rows > 0 && self.round.read.is_none_or(|at| at.elapsed() >= pause)
    }

    /// The next rows, and what they were. The inner error is the store's.
    pub(super) fn read_again(&self, reader: &Reader<'_>) -> rusqlite::Result<Result<RecheckBatch, StoreError>> {
        let limit = self.shared.config.watch.recheck_rows as usize;
        let after = self.round.at.clone().unwrap_or_else(Reread::before_the_first);
        let mut rows = reader.reread(&after, limit)?;
        let mut to = if rows.len() < limit { None } else { rows.last().map(|row| row.key.clone()) };
        let end = to.clone().unwrap_or_else(Reread::behind_the_last);
        let most = limit.saturating_mul(VANISHED_FACTOR);
        let mut seen = match self.shared.store.seen_between(&after, &end, most.saturating_add(1)) {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(error)),
        };
        if seen.len() > most {
            seen.truncate(most);
            // Those behind the last one that is looked at wait for the next batch.
            if let Some(last) = seen.last() {
                let key = Reread::key_of(&last.row.id);
                let last = (last.row.id.vat.as_str(), last.row.id.start);
                let is_within = |row: &Reread| row.id().is_some_and(|(vat, start)| (vat.as_str(), start) <= last);
                rows.truncate(rows.iter().rposition(is_within).map_or(0, |at| at + 1));
                to = Some(key);
            }
        }
        let present: HashSet<(&VatId, Position)> = rows.iter().filter_map(Reread::id).collect();
        let mut last_starts = HashMap::new();
        for SeenSpan { row, .. } in &seen {
            if !present.contains(&(&row.id.vat, row.id.start)) && !last_starts.contains_key(&row.id.vat) {
                last_starts.insert(row.id.vat.clone(), reader.last_start(&row.id.vat)?);
            }
        }
        Ok(Ok(RecheckBatch { living: reader.living_vats()?, rows, seen, last_starts, to }))
    }

    /// Compares them, notes what is new and tells what is wrong.
    pub(super) fn recheck(&mut self, batch: RecheckBatch) -> Result<(), LookError> {
        let began_at = self.round.began_at;
        let (done, last) = compare(&batch, self.round.last.as_ref());
        let is_end = batch.to.is_none();
        self.shared.metrics.rechecked_rows.inc_by(batch.rows.len() as u64);
        let is_news = !done.learned.is_empty() || !done.forgotten.is_empty() || !done.alarms.is_empty();
        let is_stale = self.round.saved.is_none_or(|at| at.elapsed() >= SAVE);
        if is_news || is_stale || (is_end && self.round.at.is_some()) {
            let began_at = if is_end { now() } else { began_at };
            let raised = self.shared.store.recheck(&done, began_at)?;
            self.round.saved = Some(Instant::now());
            self.shared.tell_alarms(&raised);
        }
        for SeenSpan { row, .. } in done.learned {
            let tail = self.tails.entry(row.id.vat.clone()).or_insert_with(|| row.clone());
            if tail.id.start < row.id.start {
                *tail = row;
            }
        }
        for (vat, start) in done.forgotten {
            if self.tails.get(&vat).is_some_and(|tail| tail.id.start >= start) {
                self.learn_tail(&vat)?;
            }
        }
        if is_end {
            self.shared.metrics.recheck_finished_timestamp_seconds.set(now());
        }
        let last = last.filter(|_| !is_end);
        let began_at = if is_end { now() } else { began_at };
        self.round = RecheckRound { at: batch.to, last, began_at, read: Some(Instant::now()), saved: self.round.saved };
        Ok(())
    }
}

/// What is new, gone or wrong in some rows; `last` is the row before the first of them. With the last of them, unless
/// something is wrong with it.
fn compare(batch: &RecheckBatch, last: Option<&SpanRow>) -> (Rechecked, Option<SpanRow>) {
    let mut done = Rechecked { at: batch.to.clone(), ..Rechecked::default() };
    let seen: HashMap<(&VatId, Position), &SeenSpan> =
        batch.seen.iter().map(|seen| ((&seen.row.id.vat, seen.row.id.start), seen)).collect();
    let is_alive = |vat: &VatId| batch.living.as_ref().is_some_and(|living| living.contains(vat));
    let mut present = HashSet::new();
    let mut before = last;
    for now in &batch.rows {
        let Some((vat, start)) = now.id() else { continue };
        present.insert((vat, start));
        let alarm = match (seen.get(&(vat, start)), &now.row) {
            (Some(seen), row) => {
                changed_row(&seen.row, row.as_ref()).or_else(|| changed_image(seen, now.image, is_alive(vat)))
            }
            (None, None) => Some(unreadable(vat, start)),
            (None, Some(row)) if row.is_current => None,
            (None, Some(row)) => {
                let image = now.image.map(|hash| SeenImage { hash, in_row: true });
                done.learned.push(SeenSpan { row: row.clone(), image });
                None
            }
        };
        let is_changed = alarm.is_some();
        let pair = before.zip(now.row.as_ref()).filter(|(before, row)| before.id.vat == row.id.vat);
        if let Some((before, row)) = pair.filter(|_| !is_changed) {
            let is_gone = batch.seen.iter().any(|seen| {
                let id = &seen.row.id;
                id.vat == row.id.vat && before.id.start < id.start && id.start < row.id.start
            });
            done.alarms.extend(seam(before, row).filter(|_| !is_gone));
        }
        done.alarms.extend(alarm);
        // A row that changed does not meet its neighbours any more: that is one fault, not two.
        before = now.row.as_ref().filter(|_| !is_changed);
    }
    for SeenSpan { row, .. } in &batch.seen {
        let (vat, start) = (&row.id.vat, row.id.start);
        if present.contains(&(vat, start)) || batch.living.is_none() {
            continue;
        }
        let has_later = batch.last_starts.get(vat).copied().flatten().is_some_and(|last| last > start);
        if is_alive(vat) || has_later {
            let why = if is_alive(vat) { "its vat is alive" } else { "later rows of its vat are there" };
            let what = format!("the row of its closed span [{start}, {}) is gone, and {why}", row.id.end);
            done.alarms.push(changed(row, "row_gone", what));
        } else {
            done.forgotten.push((vat.clone(), start));
        }
    }
    (done, before.cloned())
}

pub(super) fn differs(one: &SpanRow, other: &SpanRow) -> bool {
    one.id != other.id
        || one.hash != other.hash
        || one.incarnation != other.incarnation
        || one.is_current != other.is_current
}

/// An alarm about a row that is not what it was.
pub(super) fn changed(row: &SpanRow, reason: &'static str, explanation: String) -> Alarm {
    Alarm { kind: AlarmKind::Changed, id: row.id.clone(), incarnation: row.incarnation, reason, explanation }
}

/// What became of the row of a closed span that is there: nothing, if it is as it was.
pub(super) fn changed_row(was: &SpanRow, now: Option<&SpanRow>) -> Option<Alarm> {
    let start = was.id.start;
    let Some(now) = now else {
        let what = format!(
            "the row of its closed span that starts at {start} was {}, and can't be read as a span now",
            shown(was)
        );
        return Some(changed(was, "row_changed", what));
    };
    if !differs(was, now) {
        return None;
    }
    let what =
        format!("the row of its closed span that starts at {start} was {}, and is {} now", shown(was), shown(now));
    Some(changed(was, "row_changed", what))
}

fn shown(row: &SpanRow) -> String {
    let hash = row.hash.map_or_else(|| "no hash".to_owned(), |hash| format!("hash {hash}"));
    let open = if row.is_current { ", open" } else { "" };
    format!("(end {}, {hash}, incarnation {}{open})", row.id.end, row.incarnation)
}

/// What became of the row of the snapshot at the end of a span.
fn changed_image(seen: &SeenSpan, now: Option<Hash256>, is_alive: bool) -> Option<Alarm> {
    let SeenImage { hash, in_row } = seen.image?;
    let position = seen.row.id.end.saturating_sub(1);
    match now {
        Some(now) if now != hash && in_row => {
            let what = format!("the row of its snapshot at position {position} had the hash {hash}, and has {now} now");
            Some(changed(&seen.row, "image_changed", what))
        }
        Some(now) if now != hash => {
            let what =
                format!("the row of its snapshot at position {position} has the hash {now}, and items name {hash}");
            Some(broken(&seen.row.id.vat, position, seen.row.incarnation, what))
        }
        None if in_row && is_alive => {
            let what =
                format!("the row of its snapshot at position {position}, with the hash {hash}, is gone or unreadable");
            Some(changed(&seen.row, "image_gone", what))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::{SpanId, sha256};

    const ENDS: [Position; 3] = [6, 11, 16];

    fn span(start: Position, end: Position) -> SpanRow {
        let id = SpanId { vat: VatId::new("v1"), start, end };
        let hash = Some(sha256(id.to_string().as_bytes()));
        SpanRow { id, hash, is_current: false, incarnation: 0 }
    }

    fn image(end: Position) -> Hash256 {
        sha256(&end.to_be_bytes())
    }

    /// Three closed spans of v1 that were seen, and are there as they were.
    fn batch() -> RecheckBatch {
        let starts = [0, 6, 11];
        let rows = starts.iter().zip(ENDS).map(|(start, end)| Reread::of(span(*start, end), Some(image(end))));
        let seen = starts.iter().zip(ENDS).map(|(start, end)| {
            let image = Some(SeenImage { hash: image(end), in_row: true });
            SeenSpan { row: span(*start, end), image }
        });
        RecheckBatch {
            rows: rows.collect(),
            seen: seen.collect(),
            last_starts: HashMap::new(),
            living: Some(BTreeSet::from([VatId::new("v1")])),
            to: None,
        }
    }

    fn reasons(batch: &RecheckBatch) -> Vec<(&'static str, Position)> {
        compare(batch, None).0.alarms.iter().map(|alarm| (alarm.reason, alarm.id.start)).collect()
    }

    fn edit(batch: &mut RecheckBatch, at: usize, change: impl FnOnce(&mut SpanRow)) {
        change(batch.rows[at].row.as_mut().expect("a row"));
    }

    #[test]
    fn rows_that_are_as_they_were_say_nothing() {
        let (done, _) = compare(&batch(), None);
        assert!(done.alarms.is_empty() && done.learned.is_empty() && done.forgotten.is_empty(), "{done:?}");
    }

    #[test]
    fn each_change_of_a_row_is_one_alarm() {
        type Edit = fn(&mut RecheckBatch);
        let cases: [(Edit, &str, Position); 9] = [
            (|batch| edit(batch, 1, |row| row.hash = Some(sha256(b"other"))), "row_changed", 6),
            (|batch| edit(batch, 1, |row| row.hash = None), "row_changed", 6),
            (|batch| edit(batch, 1, |row| row.id.end = 10), "row_changed", 6),
            (|batch| edit(batch, 1, |row| row.incarnation = 7), "row_changed", 6),
            (|batch| edit(batch, 1, |row| row.is_current = true), "row_changed", 6),
            (|batch| batch.rows[1].row = None, "row_changed", 6),
            (|batch| drop(batch.rows.remove(1)), "row_gone", 6),
            (|batch| batch.rows[1].image = Some(sha256(b"other")), "image_changed", 6),
            (|batch| batch.rows[1].image = None, "image_gone", 6),
        ];
        for (number, (edit, reason, start)) in cases.into_iter().enumerate() {
            let mut batch = batch();
            edit(&mut batch);
            assert_eq!(reasons(&batch), [(reason, start)], "case {number}");
        }
    }

    #[test]
    fn breaks_between_rows_that_nobody_saw_before_are_found() {
        let mut batch = batch();
        batch.seen.clear();
        assert_eq!(reasons(&batch), []);
        assert_eq!(compare(&batch, None).0.learned.len(), 3);
        batch.rows.remove(1);
        assert_eq!(reasons(&batch), [("history_broken", 6)]);
        batch.rows[1].row = None;
        assert_eq!(reasons(&batch), [("span_row_damaged", 11)]);
    }

    #[test]
    fn a_terminated_vat_may_lose_its_rows_newest_first_and_no_others() {
        let vat = VatId::new("v1");
        let mut gone = batch();
        gone.living = Some(BTreeSet::new());
        // Snapshots go first.
        gone.rows.iter_mut().for_each(|row| row.image = None);
        gone.rows.truncate(1);
        gone.last_starts = HashMap::from([(vat.clone(), Some(0))]);
        assert_eq!(reasons(&gone), []);
        assert_eq!(compare(&gone, None).0.forgotten, [(vat.clone(), 6), (vat.clone(), 11)]);
        let mut middle = batch();
        middle.living = Some(BTreeSet::new());
        middle.rows.remove(1);
        middle.last_starts = HashMap::from([(vat, Some(11))]);
        assert_eq!(reasons(&middle), [("row_gone", 6)]);
    }
}
