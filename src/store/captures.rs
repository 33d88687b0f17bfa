//! Copies of what a pruning node is about to delete: items of spans that are still growing, and the images that they
//! start from.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Store, StoreError, hash, now, signed, unsigned};
use crate::record::{CaptureError, Captured};
use crate::transcript::{Hash256, Items, Position, SpanId, VatId};

/// What is captured of a span's items.
#[derive(Debug, Clone)]
pub struct CaptureRow {
    /// The vat.
    pub vat: VatId,
    /// Where the span starts.
    pub start: Position,
    /// One past the last item that was copied.
    pub next: Position,
    /// The span hash up to there.
    pub hash: Hash256,
}

/// The items that were captured of a span.
#[derive(Debug)]
pub struct CapturedItems {
    /// The texts, from the start of the span on.
    pub items: Items,
}

impl Captured for Store {
    fn has_image(&self, hash: Hash256) -> Result<bool, CaptureError> {
        Ok(Self::has_image(self, hash)?)
    }

    fn image_of(&self, span: &SpanId) -> Result<Option<Hash256>, CaptureError> {
        Ok(Self::image_of(self, &span.vat, span.start)?)
    }

    fn captured_to(&self, span: &SpanId) -> Result<Option<Position>, CaptureError> {
        Ok(Self::captured_to(self, &span.vat, span.start)?)
    }

    fn items(&self, span: &SpanId) -> Result<Items, CaptureError> {
        Ok(self.captured_items(&span.vat, span.start)?.items)
    }

    fn image(&self, hash: Hash256) -> Result<Option<Vec<u8>>, CaptureError> {
        Ok(Self::image(self, hash)?)
    }
}

impl From<StoreError> for CaptureError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl Store {
    /// What is captured of the items of spans that are not done with.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn captures(&self) -> Result<Vec<CaptureRow>, StoreError> {
        self.with("read the captures", |db| {
            let mut statement = db.prepare("SELECT vat, start, next, hash FROM captures WHERE is_done = 0")?;
            let rows = statement.query_map([], |row| {
                Ok(CaptureRow {
                    vat: VatId::new(row.get::<_, String>(0)?),
                    start: unsigned(row, 1)?,
                    next: unsigned(row, 2)?,
                    hash: hash(row, 3)?.unwrap_or_else(|| crate::transcript::SpanHasher::default().finish()),
                })
            })?;
            rows.collect()
        })
    }

    /// Adds items to what is captured of a span; `capture` says how far that goes with them. Makes room by dropping what
    /// is done with, oldest first.
    ///
    /// # Errors
    /// When there is no room within `bytes_max`, or it can't be written.
    pub fn capture_items(&self, capture: &CaptureRow, texts: &[Vec<u8>], bytes_max: u64) -> Result<u64, StoreError> {
        let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
        let first = capture.next - texts.len() as u64;
        let made = self.write("capture items", |db| {
            let Some(evicted) = make_room(db, bytes, bytes_max)? else { return Ok(None) };
            let key = params![capture.vat.as_str(), signed(capture.start)];
            if first == capture.start {
                db.prepare_cached("DELETE FROM captures WHERE vat = ? AND start = ?")?.execute(key)?;
            }
            db.prepare_cached(
                "INSERT INTO captures VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (vat, start) DO UPDATE SET \
                 next = excluded.next, hash = excluded.hash, bytes = bytes + excluded.bytes",
            )?
            .execute(params![
                capture.vat.as_str(),
                signed(capture.start),
                signed(capture.next),
                capture.hash.to_string(),
                signed(bytes),
                now()
            ])?;
            let mut insert = db.prepare_cached("INSERT INTO captured_items VALUES (?, ?, ?, ?)")?;
            for (position, text) in (first..).zip(texts) {
                insert.execute(params![capture.vat.as_str(), signed(capture.start), signed(position), text])?;
            }
            Ok(Some(evicted))
        })?;
        made.ok_or(StoreError::CaptureFull { needed: bytes })
    }

    /// Drops what is captured of a span's items: they are not what the node has.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn drop_capture(&self, vat: &VatId, start: Position) -> Result<(), StoreError> {
        self.write("drop a capture", |db| {
            db.execute("DELETE FROM captures WHERE vat = ? AND start = ?", params![vat.as_str(), signed(start)])?;
            Ok(())
        })
    }

    /// How far the items of a span are captured: one past the last.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn captured_to(&self, vat: &VatId, start: Position) -> Result<Option<Position>, StoreError> {
        self.with("read a capture", |db| {
            db.prepare_cached("SELECT next FROM captures WHERE vat = ? AND start = ?")?
                .query_row(params![vat.as_str(), signed(start)], |row| unsigned(row, 0))
                .optional()
        })
    }

    /// The items that were captured of a span. Their hash was compared with the node's as they were copied.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn captured_items(&self, vat: &VatId, start: Position) -> Result<CapturedItems, StoreError> {
        self.with("read captured items", |db| {
            let mut statement = db.prepare_cached(
                "SELECT position, item FROM captured_items WHERE vat = ? AND start = ? ORDER BY position",
            )?;
            let mut rows = statement.query(params![vat.as_str(), signed(start)])?;
            let mut items = Items::default();
            let mut next = start;
            while let Some(row) = rows.next()? {
                if unsigned(row, 0)? != next {
                    break;
                }
                items.push(row.get_ref(1)?.as_blob()?);
                next += 1;
            }
            Ok(CapturedItems { items })
        })
    }

    /// Whether an image is captured.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn has_image(&self, hash: Hash256) -> Result<bool, StoreError> {
        self.with("look for an image", |db| {
            let found = db
                .prepare_cached("SELECT 1 FROM images WHERE hash = ?")?
                .query_row([hash.to_string()], |_| Ok(()))
                .optional()?;
            Ok(found.is_some())
        })
    }

    /// A captured image, compressed.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image(&self, hash: Hash256) -> Result<Option<Vec<u8>>, StoreError> {
        self.with("read an image", |db| {
            db.prepare_cached("SELECT gzip FROM images WHERE hash = ?")?
                .query_row([hash.to_string()], |row| row.get(0))
                .optional()
        })
    }

    /// Keeps an image for the span that starts from it. Makes room by dropping what is done with, oldest first.
    ///
    /// # Errors
    /// When there is no room within `bytes_max`, or it can't be written.
    pub fn keep_image(
        &self,
        hash: Hash256,
        gzip: &[u8],
        user: (&VatId, Position),
        bytes_max: u64,
    ) -> Result<u64, StoreError> {
        let bytes = gzip.len() as u64;
        let made = self.write("keep an image", |db| {
            let is_there = db.prepare_cached("SELECT 1 FROM images WHERE hash = ?")?.exists([hash.to_string()])?;
            if is_there {
                use_image(db, hash, user)?;
                return Ok(Some(0));
            }
            let Some(evicted) = make_room(db, bytes, bytes_max)? else { return Ok(None) };
            db.prepare_cached("INSERT INTO images VALUES (?, ?, ?, ?)")?.execute(params![
                hash.to_string(),
                signed(bytes),
                now(),
                gzip
            ])?;
            use_image(db, hash, user)?;
            Ok(Some(evicted))
        })?;
        made.ok_or(StoreError::CaptureFull { needed: bytes })
    }

    /// Notes that a span starts from an image that is captured already. Whether it is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn use_image(&self, hash: Hash256, user: (&VatId, Position)) -> Result<bool, StoreError> {
        if !self.has_image(hash)? {
            return Ok(false);
        }
        self.write("note the use of an image", |db| use_image(db, hash, user))?;
        Ok(true)
    }

    /// The hash of the image that was copied for a span.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image_of(&self, vat: &VatId, start: Position) -> Result<Option<Hash256>, StoreError> {
        self.with("look for an image", |db| {
            let found = db
                .prepare_cached("SELECT hash FROM image_uses WHERE vat = ? AND start = ?")?
                .query_row(params![vat.as_str(), signed(start)], |row| hash(row, 0))
                .optional()?;
            Ok(found.flatten())
        })
    }

    /// Drops the copied items of spans that are not closed yet, of one vat or of all: the database is not the one that they
    /// were copied from, or went another way since. Those of spans that are due were noted with their hash and stay.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn distrust_captures(&self, vat: Option<&VatId>) -> Result<(), StoreError> {
        self.write("drop captures", |db| {
            db.execute(
                "DELETE FROM captures WHERE (?1 IS NULL OR vat = ?1) AND NOT EXISTS (SELECT 1 FROM spans AS s \
                 WHERE s.vat = captures.vat AND s.start = captures.start AND s.verdict IS NULL)",
                [vat.map(VatId::as_str)],
            )?;
            Ok(())
        })
    }

    /// Drops copies that nothing needs any more: of no span that is open, due, or history that is to come. Those of diverged
    /// spans stay until their room is needed. Gives what is free in the file back to the disk.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn tidy_captures(&self) -> Result<(), StoreError> {
        self.write("drop captures that are done with", |db| {
            for table in ["captures", "image_uses"] {
                db.execute(
                    &format!(
                        "UPDATE {table} AS c SET is_done = 1 WHERE NOT is_done \
                         AND NOT EXISTS (SELECT 1 FROM spans AS s \
                                         WHERE s.vat = c.vat AND s.start = c.start AND s.verdict IS NULL) \
                         AND NOT EXISTS (SELECT 1 FROM vats AS v WHERE v.vat = c.vat AND \
                           (v.cursor = c.start AND NOT v.is_terminated \
                            OR v.history_from <= c.start AND c.start < v.history_to))"
                    ),
                    [],
                )?;
                db.execute(
                    &format!(
                        "DELETE FROM {table} AS c WHERE is_done AND NOT EXISTS (SELECT 1 FROM spans AS s \
                         WHERE s.vat = c.vat AND s.start = c.start AND s.verdict = 'diverged')"
                    ),
                    [],
                )?;
            }
            db.execute("DELETE FROM images WHERE hash NOT IN (SELECT hash FROM image_uses)", [])?;
            Ok(())
        })?;
        self.with("give room back to the disk", |db| {
            // A statement that steps to its end does it; each page that is given back is a row.
            let mut statement = db.prepare("PRAGMA incremental_vacuum")?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        })
    }

    /// How many bytes are captured.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn capture_bytes(&self) -> Result<u64, StoreError> {
        self.with("count what is captured", captured_bytes)
    }
}

fn use_image(db: &Transaction<'_>, hash: Hash256, (vat, start): (&VatId, Position)) -> rusqlite::Result<()> {
    // A span that was judged before needs it no more, unless it turns out to be another one.
    db.prepare_cached(
        "INSERT OR REPLACE INTO image_uses (vat, start, hash, is_done) SELECT ?1, ?2, ?3, \
         EXISTS (SELECT 1 FROM spans WHERE vat = ?1 AND start = ?2 AND verdict IS NOT NULL) \
         AND NOT EXISTS (SELECT 1 FROM spans WHERE vat = ?1 AND start = ?2 AND verdict IS NULL)",
    )?
    .execute(params![vat.as_str(), signed(start), hash.to_string()])?;
    Ok(())
}

/// Gives the copies of a span free. Those of a divergence stay as long as there is room.
pub(super) fn release(db: &Transaction<'_>, vat: &str, start: i64, is_diverged: bool) -> rusqlite::Result<()> {
    if is_diverged {
        for table in ["captures", "image_uses"] {
            db.prepare_cached(&format!("UPDATE {table} SET is_done = 1 WHERE vat = ? AND start = ?"))?
                .execute(params![vat, start])?;
        }
        return Ok(());
    }
    db.prepare_cached("DELETE FROM captures WHERE vat = ? AND start = ?")?.execute(params![vat, start])?;
    let image: Option<String> = db
        .prepare_cached("DELETE FROM image_uses WHERE vat = ? AND start = ? RETURNING hash")?
        .query_row(params![vat, start], |row| row.get(0))
        .optional()?;
    if let Some(image) = image {
        db.prepare_cached("DELETE FROM images WHERE hash = ?1 AND ?1 NOT IN (SELECT hash FROM image_uses)")?
            .execute([image])?;
    }
    Ok(())
}

fn captured_bytes(db: &rusqlite::Connection) -> rusqlite::Result<u64> {
    db.prepare_cached(
        "SELECT (SELECT coalesce(sum(bytes), 0) FROM images) + (SELECT coalesce(sum(bytes), 0) FROM captures)",
    )?
    .query_row([], |row| unsigned(row, 0))
}

/// Drops what is done with, oldest first, until so many bytes more stay within the limit. How many captures were dropped;
/// `None` if that is not enough, and then none was.
fn make_room(db: &Transaction<'_>, bytes: u64, bytes_max: u64) -> rusqlite::Result<Option<u64>> {
    let mut held = captured_bytes(db)?;
    if held + bytes <= bytes_max {
        return Ok(Some(0));
    }
    let done = "SELECT captured_at, bytes, 'image', hash, 0 FROM images AS i WHERE NOT EXISTS \
                  (SELECT 1 FROM image_uses AS u WHERE u.hash = i.hash AND NOT u.is_done) \
                UNION ALL SELECT captured_at, bytes, 'items', vat, start FROM captures WHERE is_done ORDER BY 1";
    let mut candidates = Vec::new();
    {
        let mut statement = db.prepare_cached(done)?;
        let mut rows = statement.query([])?;
        while held + bytes > bytes_max
            && let Some(row) = rows.next()?
        {
            held -= unsigned(row, 1)?.min(held);
            candidates.push((row.get::<_, String>(2)?, row.get::<_, String>(3)?, row.get::<_, i64>(4)?));
        }
    }
    if held + bytes > bytes_max {
        return Ok(None);
    }
    for (what, key, start) in &candidates {
        if what == "image" {
            db.prepare_cached("DELETE FROM images WHERE hash = ?")?.execute([key])?;
        } else {
            db.prepare_cached("DELETE FROM captures WHERE vat = ? AND start = ?")?.execute(params![key, start])?;
        }
    }
    Ok(Some(candidates.len() as u64))
}
