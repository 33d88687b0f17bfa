//! What the rows of closed spans and snapshots were when they were seen first, and how far they were read again since.
//!
//! Owns this memory. It has at most one row for each row of the node's own tables, some 150 bytes a span, and forgets what
//! the node deletes with a terminated vat; how long verdicts are kept does not matter to it. It starts anew where the
//! database is another file; of one that moved backwards it forgets the newest rows, as far as they differ. It never replaces what
//! it has: that is what rows are compared with.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::alarms::{Alarm, put_alarms};
use super::{Store, StoreError, now, signed, span_id, unsigned};
use crate::kernel_db::{RowKey, SpanRow};
use crate::transcript::{Hash256, Position, VatId};

/// A closed span with what is known of the image at its end.
#[derive(Debug, Clone)]
pub struct SeenSpan {
    /// Its row.
    pub row: SpanRow,
    /// The image that it saved.
    pub image: Option<SeenImage>,
}

/// The hash of the image at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenImage {
    /// The hash.
    pub hash: Hash256,
    /// Whether the row in `snapshots` had it; otherwise items of a span that was judged.
    pub in_row: bool,
}

/// What reading some rows again came to.
#[derive(Debug, Clone, Default)]
pub struct Rechecked {
    /// Rows that were not known.
    pub learned: Vec<SeenSpan>,
    /// Rows that the node deleted with their vat.
    pub forgotten: Vec<(VatId, Position)>,
    /// What is wrong.
    pub alarms: Vec<Alarm>,
    /// The last row that was read; `None` if all were.
    pub at: Option<RowKey>,
}

const COLUMNS: &str = "s.vat, s.start, s.end, s.incarnation, s.hash, i.hash, i.in_row FROM seen_spans AS s \
                       LEFT JOIN seen_images AS i ON i.vat = s.vat AND i.position = s.end - 1";

impl Store {
    /// The rows that were seen behind one key and up to another, in the order of the node's own index.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn seen_between(&self, after: &RowKey, to: &RowKey, limit: usize) -> Result<Vec<SeenSpan>, StoreError> {
        self.with("read the rows that were seen", |db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT {COLUMNS} WHERE (s.vat, s.start) > (?, ?) AND (s.vat, s.start) <= (?, ?) \
                 ORDER BY s.vat, s.start LIMIT ?"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![after.0, after.1, to.0, to.1, limit], seen_span)?;
            rows.collect()
        })
    }

    /// Whether a row is known just as it is.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn is_seen(&self, row: &SpanRow) -> Result<bool, StoreError> {
        self.with("look for a row that was seen", |db| is_seen(db, row))
    }

    /// Of each vat the last row that was seen.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn seen_last(&self) -> Result<Vec<SpanRow>, StoreError> {
        self.with("read the last rows that were seen", |db| {
            let mut statement = db.prepare(&format!(
                "SELECT {COLUMNS} JOIN (SELECT vat, max(start) AS start FROM seen_spans GROUP BY vat) AS last \
                 ON last.vat = s.vat AND last.start = s.start"
            ))?;
            let rows = statement.query_map([], |row| Ok(seen_span(row)?.row))?;
            rows.collect()
        })
    }

    /// The last row of one vat that was seen.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn seen_last_of(&self, vat: &VatId) -> Result<Option<SpanRow>, StoreError> {
        self.with("read the last row that was seen", |db| {
            db.prepare_cached(&format!("SELECT {COLUMNS} WHERE s.vat = ? ORDER BY s.start DESC LIMIT 1"))?
                .query_row([vat.as_str()], |row| Ok(seen_span(row)?.row))
                .optional()
        })
    }

    /// How far the rows were read again, and when that round began.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn recheck_state(&self) -> Result<Option<(Option<RowKey>, f64)>, StoreError> {
        self.with("read how far rows were read again", |db| {
            db.query_row("SELECT vat, start, began_at FROM recheck", [], |row| {
                let key: (Option<String>, Option<i64>) = (row.get(0)?, row.get(1)?);
                Ok((key.0.zip(key.1), row.get(2)?))
            })
            .optional()
        })
    }

    /// Writes what reading rows again came to, and how far it went. The alarms that are new.
    ///
    /// # Errors
    /// When it can't be written; then nothing of it is.
    pub fn recheck(&self, done: &Rechecked, began_at: f64) -> Result<Vec<(String, Alarm)>, StoreError> {
        self.write("note rows that were read again", |db| {
            for SeenSpan { row, image } in &done.learned {
                learn(db, row, image.as_ref().map(|image| image.hash))?;
            }
            for (vat, start) in &done.forgotten {
                // The node deletes all rows of `snapshots` first, then the spans, newest first.
                db.prepare_cached("DELETE FROM seen_images WHERE vat = ? AND position >= ?")?
                    .execute(params![vat.as_str(), signed(start.saturating_sub(1))])?;
                db.prepare_cached("DELETE FROM seen_spans WHERE vat = ? AND start = ?")?
                    .execute(params![vat.as_str(), signed(*start)])?;
            }
            let (vat, start) = done.at.clone().unzip();
            db.prepare_cached("INSERT OR REPLACE INTO recheck VALUES (1, ?, ?, ?)")?
                .execute(params![vat, start, began_at])?;
            put_alarms(db, &done.alarms)
        })
    }

    /// Notes which image the items of a span name at a position. The other hash if another one is known there. Of a span whose
    /// row is not known as it is nothing is noted: it may be of a history that was rolled back meanwhile.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn link(&self, span: &SpanRow, position: Position, image: Hash256) -> Result<Option<Hash256>, StoreError> {
        self.write("note an image's hash", |db| {
            if !is_seen(db, span)? {
                return Ok(None);
            }
            let vat = span.id.vat.as_str();
            put_image(db, vat, position, image, false)?;
            let known: Vec<u8> = db
                .prepare_cached("SELECT hash FROM seen_images WHERE vat = ? AND position = ?")?
                .query_row(params![vat, signed(position)], |row| row.get(0))?;
            Ok(Hash256::from_bytes(&known).filter(|known| *known != image))
        })
    }

    /// Raises alarms. Those that are new.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn raise(&self, alarms: &[Alarm]) -> Result<Vec<(String, Alarm)>, StoreError> {
        self.write("raise an alarm", |db| put_alarms(db, alarms))
    }
}

fn is_seen(db: &rusqlite::Connection, row: &SpanRow) -> rusqlite::Result<bool> {
    let found = db
        .prepare_cached(
            "SELECT 1 FROM seen_spans WHERE vat = ? AND start = ? AND end = ? AND incarnation = ? AND hash = ?",
        )?
        .query_row(
            params![
                row.id.vat.as_str(),
                signed(row.id.start),
                signed(row.id.end),
                signed(row.incarnation),
                hash_bytes(row.hash.as_ref())
            ],
            |_| Ok(()),
        )
        .optional()?;
    Ok(found.is_some())
}

fn seen_span(row: &Row<'_>) -> rusqlite::Result<SeenSpan> {
    let hash = |column: usize| -> rusqlite::Result<Option<Hash256>> {
        let bytes: Option<Vec<u8>> = row.get(column)?;
        Ok(bytes.and_then(|bytes| Hash256::from_bytes(&bytes)))
    };
    let in_row: Option<bool> = row.get(6)?;
    Ok(SeenSpan {
        row: SpanRow { id: span_id(row, 0)?, hash: hash(4)?, is_current: false, incarnation: unsigned(row, 3)? },
        image: hash(5)?.zip(in_row).map(|(hash, in_row)| SeenImage { hash, in_row }),
    })
}

fn hash_bytes(hash: Option<&Hash256>) -> &[u8] {
    hash.map_or(&[], Hash256::as_bytes)
}

/// Learns a row, with the hash in the row of `snapshots` at its end. One that is known stays as it was seen first.
pub(super) fn learn(db: &Transaction<'_>, row: &SpanRow, image: Option<Hash256>) -> rusqlite::Result<()> {
    let vat = row.id.vat.as_str();
    db.prepare_cached(
        "INSERT INTO seen_spans (vat, start, end, incarnation, hash) VALUES (?, ?, ?, ?, ?) ON CONFLICT (vat, start) DO NOTHING",
    )?
    .execute(params![
        vat,
        signed(row.id.start),
        signed(row.id.end),
        signed(row.incarnation),
        hash_bytes(row.hash.as_ref())
    ])?;
    if let Some((image, position)) = image.zip(row.id.end.checked_sub(1)) {
        put_image(db, vat, position, image, true)?;
    }
    Ok(())
}

/// The first hash stays; that a row has the same is noted.
fn put_image(
    db: &Transaction<'_>,
    vat: &str,
    position: Position,
    image: Hash256,
    in_row: bool,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO seen_images (vat, position, hash, in_row) VALUES (?, ?, ?, ?) ON CONFLICT (vat, position) DO UPDATE \
         SET in_row = 1 WHERE in_row = 0 AND excluded.in_row = 1 AND hash = excluded.hash",
    )?
    .execute(params![vat, signed(position), image.as_bytes(), in_row])?;
    Ok(())
}

/// Starts anew: of all vats, or of one from a position on.
pub(super) fn forget(db: &Transaction<'_>, of: Option<(&VatId, Position)>) -> rusqlite::Result<()> {
    match of {
        None => {
            db.execute("DELETE FROM seen_spans", [])?;
            db.execute("DELETE FROM seen_images", [])?;
            db.execute("INSERT OR REPLACE INTO recheck VALUES (1, NULL, NULL, ?)", [now()])?;
        }
        Some((vat, from)) => {
            for (table, column) in [("seen_spans", "start"), ("seen_images", "position")] {
                db.prepare_cached(&format!("DELETE FROM {table} WHERE vat = ? AND {column} >= ?"))?
                    .execute(params![vat.as_str(), signed(from)])?;
            }
        }
    }
    Ok(())
}
