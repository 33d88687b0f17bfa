//! News: the queries of a daemon that looks again and again.
//!
//! Owns the queries whose cost grows with the news or with the number of vats. None may grow with the length of the history.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use super::query::{Reader, bytes_of, position, signed, span_row};
use super::rows::{SpanRow, VatOptions};
use crate::transcript::{Hash256, Position, SpanId, VatId};

/// The identity of a database's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The device that holds it.
    pub device: u64,
    /// Its inode on that.
    pub inode: u64,
}

/// Values of which every block changes one: while they are the same, so is the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulse {
    /// `crankNumber`.
    pub crank: Option<u64>,
    /// `activityhash`.
    pub activity_hash: Option<String>,
    /// `host.height`, where the host is a chain node.
    pub height: Option<u64>,
}

/// A vat that has spans.
#[derive(Debug, Clone)]
pub struct Head {
    /// Which.
    pub vat: VatId,
    /// The span that items are being added to; `None` once the vat is terminated.
    pub current: Option<SpanRow>,
    /// The start of its last span, open or not.
    pub last_start: Option<Position>,
}

/// Some closed spans of a vat.
#[derive(Debug, Clone, Default)]
pub struct ClosedSpans {
    /// Those that can be read as one.
    pub rows: Vec<SpanRow>,
    /// Where those start that can't.
    pub unreadable: Vec<Position>,
    /// Set when there may be more than were asked for.
    pub is_cut: bool,
}

/// The key of a row of `transcriptSpans`: vat and start.
pub type RowKey = (String, i64);

/// A row of `transcriptSpans` that is read once more.
#[derive(Debug, Clone)]
pub struct Reread {
    /// Its key.
    pub key: RowKey,
    /// The key as that of a span.
    id: Option<(VatId, Position)>,
    /// The row, if it can be read as a span.
    pub row: Option<SpanRow>,
    /// The hash in the row of `snapshots` at its end, if it is closed and there is one.
    pub image: Option<Hash256>,
}

impl Reread {
    /// A row that can be read.
    #[cfg(test)]
    pub(crate) fn of(row: SpanRow, image: Option<Hash256>) -> Self {
        let id = Some((row.id.vat.clone(), row.id.start));
        Self { key: Self::key_of(&row.id), id, row: Some(row), image }
    }

    /// Vat and start, where the key is one of a span.
    #[must_use]
    pub fn id(&self) -> Option<(&VatId, Position)> {
        self.id.as_ref().map(|(vat, start)| (vat, *start))
    }

    /// The key of a span's row.
    #[must_use]
    pub fn key_of(id: &SpanId) -> RowKey {
        (id.vat.as_str().to_owned(), signed(id.start))
    }

    /// No row of a vat comes before this.
    #[must_use]
    pub fn before_the_first() -> RowKey {
        ("v".to_owned(), -1)
    }

    /// No row of a vat comes after this.
    #[must_use]
    pub fn behind_the_last() -> RowKey {
        ("w".to_owned(), -1)
    }
}

/// What the node still has of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The last of its items.
    pub items: bool,
    /// The image that it starts from; `None` where it starts from none.
    pub image: Option<bool>,
}

/// Items that were added to a span since it was last looked at.
#[derive(Debug, Clone, Default)]
pub struct NewItems {
    /// The texts.
    pub texts: Vec<Vec<u8>>,
    /// Set when there are more than were asked for.
    pub is_cut: bool,
}

impl Reader<'_> {
    /// The values that change with every block.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn pulse(&self) -> rusqlite::Result<Pulse> {
        let number = |key| Ok::<_, rusqlite::Error>(self.kv(key)?.and_then(|text| text.parse().ok()));
        Ok(Pulse {
            crank: number("crankNumber")?,
            activity_hash: self.kv("activityhash")?,
            height: number("host.height")?,
        })
    }

    /// All vats that have spans, each with its current one.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn heads(&self) -> rusqlite::Result<Vec<Head>> {
        // From one vat's first row to the next vat's by the index, over all spans in between.
        let mut statement = self.db.prepare(
            "WITH RECURSIVE vats (id) AS (
               SELECT min(vatID) FROM transcriptSpans
               UNION ALL SELECT (SELECT min(vatID) FROM transcriptSpans WHERE vatID > vats.id) FROM vats
               WHERE vats.id IS NOT NULL)
             SELECT s.vatID, s.startPos, s.endPos, s.hash, s.isCurrent, s.incarnation, vats.id,
               (SELECT max(startPos) FROM transcriptSpans WHERE vatID = vats.id)
             FROM vats LEFT JOIN transcriptSpans AS s ON s.vatID = vats.id AND s.isCurrent = 1
             WHERE vats.id IS NOT NULL",
        )?;
        let rows = statement.query_map([], |row| {
            let vat = bytes_of(row.get_ref(6)?).and_then(|id| VatId::parse(std::str::from_utf8(id).ok()?));
            let last_start = position(row.get_ref(7)?);
            Ok(vat.map(|vat| Head { vat, current: span_row(row), last_start }))
        })?;
        rows.filter_map(Result::transpose).collect()
    }

    /// The vats that the kernel's own lists say are alive; `None` where a list can't be read.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn living_vats(&self) -> rusqlite::Result<Option<BTreeSet<VatId>>> {
        let mut living: BTreeSet<VatId> = self.static_vats()?.into_iter().map(|(_, vat)| vat).collect();
        if let Some(list) = self.kv("vat.dynamicIDs")? {
            let Ok(dynamic) = serde_json::from_str::<Vec<String>>(&list) else { return Ok(None) };
            living.extend(dynamic.iter().filter_map(|id| VatId::parse(id)));
        }
        Ok(Some(living))
    }

    /// The closed spans of a vat that start in `[from, to)`, first to last, at most `limit` of them.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn closed_spans(
        &self,
        vat: &VatId,
        from: Position,
        to: Position,
        limit: u32,
    ) -> rusqlite::Result<ClosedSpans> {
        self.some_spans(vat, from, to, limit, "ASC")
    }

    /// Likewise, last to first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn closed_spans_backwards(
        &self,
        vat: &VatId,
        from: Position,
        to: Position,
        limit: u32,
    ) -> rusqlite::Result<ClosedSpans> {
        self.some_spans(vat, from, to, limit, "DESC")
    }

    fn some_spans(
        &self,
        vat: &VatId,
        from: Position,
        to: Position,
        limit: u32,
        order: &str,
    ) -> rusqlite::Result<ClosedSpans> {
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT vatID, startPos, endPos, hash, isCurrent, incarnation FROM transcriptSpans \
             WHERE vatID = ? AND startPos >= ? AND startPos < ? AND isCurrent IS NULL ORDER BY startPos {order} LIMIT ?"
        ))?;
        let mut rows = statement.query(params![vat.as_str(), signed(from), signed(to), limit])?;
        let mut spans = ClosedSpans::default();
        while let Some(row) = rows.next()? {
            match span_row(row) {
                Some(row) => spans.rows.push(row),
                None => spans.unreadable.push(position(row.get_ref(1)?).unwrap_or(from)),
            }
        }
        spans.is_cut = spans.rows.len() + spans.unreadable.len() == limit as usize;
        Ok(spans)
    }

    /// The row of the span of a vat that starts at a position.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn span_at(&self, vat: &VatId, start: Position) -> rusqlite::Result<Option<SpanRow>> {
        let mut statement = self.db.prepare_cached(
            "SELECT vatID, startPos, endPos, hash, isCurrent, incarnation FROM transcriptSpans \
             WHERE vatID = ? AND startPos = ?",
        )?;
        let row = statement.query_row(params![vat.as_str(), signed(start)], |row| Ok(span_row(row))).optional()?;
        Ok(row.flatten())
    }

    /// Some rows of spans behind a key, in the order of their index, at most `limit` of them. Those whose key is none that a
    /// kernel writes are left out: they belong to no vat.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn reread(&self, after: &RowKey, limit: usize) -> rusqlite::Result<Vec<Reread>> {
        let mut statement = self.db.prepare_cached(
            "SELECT vatID, startPos, endPos, hash, isCurrent, incarnation FROM transcriptSpans \
             WHERE (vatID, startPos) > (?, ?) AND vatID < 'w' AND typeof(vatID) = 'text' AND vatID NOT GLOB '*[^v0-9]*' \
             AND typeof(startPos) = 'integer' ORDER BY vatID, startPos LIMIT ?",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![after.0, after.1, limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let vat = bytes_of(row.get_ref(0)?).and_then(|id| VatId::parse(std::str::from_utf8(id).ok()?));
            let id = vat.zip(position(row.get_ref(1)?));
            let key = (row.get(0)?, row.get(1)?);
            let row = span_row(row);
            let image = match row.as_ref().filter(|row| !row.is_current) {
                Some(row) => self.image_at_end(&row.id)?,
                None => None,
            };
            found.push(Reread { key, id, row, image });
        }
        Ok(found)
    }

    /// The hash in the row of `snapshots` at the end of a span, if there is one.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn image_at_end(&self, span: &SpanId) -> rusqlite::Result<Option<Hash256>> {
        let Some(at) = span.end.checked_sub(1) else { return Ok(None) };
        let mut statement = self.db.prepare_cached("SELECT hash FROM snapshots WHERE vatID = ? AND snapPos = ?")?;
        let hash = statement.query_row(params![span.vat.as_str(), signed(at)], |row| {
            let text = bytes_of(row.get_ref(0)?).and_then(|text| std::str::from_utf8(text).ok());
            Ok(text.and_then(Hash256::parse))
        });
        Ok(hash.optional()?.flatten())
    }

    /// Where the last span of a vat starts; `None` if none is there.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn last_start(&self, vat: &VatId) -> rusqlite::Result<Option<Position>> {
        let mut statement = self.db.prepare_cached("SELECT max(startPos) FROM transcriptSpans WHERE vatID = ?")?;
        statement.query_row([vat.as_str()], |row| Ok(position(row.get_ref(0)?)))
    }

    /// What there is of a closed span.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn kept(&self, span: &SpanId) -> rusqlite::Result<Kept> {
        let last = SpanId { start: span.end.saturating_sub(1), ..span.clone() };
        let image = match span.start.checked_sub(1) {
            Some(before) => self.snapshot(&span.vat, before)?.map(|row| row.has_image),
            None => None,
        };
        Ok(Kept { items: self.count_items(&last)? > 0, image })
    }

    /// The items of a vat in `[from, to)`, in order and without a gap, no more than `bytes_max` of text (but one at least).
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn new_items(
        &self,
        vat: &VatId,
        from: Position,
        to: Position,
        bytes_max: usize,
    ) -> rusqlite::Result<NewItems> {
        let mut statement = self.db.prepare_cached(
            "SELECT position, item FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ? \
             ORDER BY position",
        )?;
        let mut rows = statement.query(params![vat.as_str(), signed(from), signed(to)])?;
        let (mut items, mut bytes, mut next) = (NewItems::default(), 0, from);
        while let Some(row) = rows.next()? {
            let (Some(at), Some(text)) = (position(row.get_ref(0)?), bytes_of(row.get_ref(1)?)) else { break };
            if at != next {
                break;
            }
            if bytes + text.len() > bytes_max && !items.texts.is_empty() {
                items.is_cut = true;
                break;
            }
            bytes += text.len();
            next += 1;
            items.texts.push(text.to_vec());
        }
        Ok(items)
    }

    /// The options of one vat; `None` when they are gone or unreadable. A static vat's name is not among them.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn options_of(&self, vat: &VatId) -> rusqlite::Result<Option<VatOptions>> {
        Ok(self.kv(&format!("{vat}.options"))?.and_then(|json| VatOptions::parse(&json).ok()))
    }
}
