//! The queries, all inside one read transaction.
//!
//! Owns the SQL of spans, items, snapshots, bundles and options, each with a limit on the bytes that a value may have. It must never
//! write, nor read a table as a whole into memory.

use std::collections::{BTreeSet, HashMap};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::access::Access;
use super::rows::{BundleRow, ItemsRead, SnapshotRow, SpanRow, VatOptions, WorkerKeys};
use crate::transcript::{Hash256, Items, Position, SpanId, VatId};

/// No more is read of a value of `kvStore`. A list of ten thousand vats has 100 KB.
const KV_BYTES_MAX: i64 = 16 << 20;

/// A larger compressed image is not read; the largest seen on a chain have some 20 MB.
const COMPRESSED_BYTES_MAX: i64 = 512 << 20;
/// A larger bundle is not read; the largest seen on a chain have some 2 MB.
const BUNDLE_BYTES_MAX: i64 = 64 << 20;

/// Tables and columns without which nothing can be done.
const SCHEMA: [(&str, &[&str]); 5] = [
    ("transcriptSpans", &["vatID", "startPos", "endPos", "hash", "isCurrent", "incarnation"]),
    ("transcriptItems", &["vatID", "position", "item", "incarnation"]),
    ("snapshots", &["vatID", "snapPos", "inUse", "hash", "uncompressedSize", "compressedSnapshot"]),
    ("bundles", &["bundleID", "bundle"]),
    ("kvStore", &["key", "value"]),
];

/// A table or column that a kernel's database must have, and this one lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaFault {
    /// A table is missing.
    #[error("it has no table {0}")]
    NoTable(&'static str),
    /// A column is missing.
    #[error("its table {table} has no column {column}")]
    NoColumn {
        /// The table.
        table: &'static str,
        /// The missing column.
        column: &'static str,
    },
}

/// Why the options of a vat can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsFault {
    /// The value is a blob or a number.
    #[error("they are not text")]
    NotText,
    /// The text is not JSON of the right shape.
    #[error("{0}")]
    Json(String),
}

/// The outer error is SQLite's, the inner one names a table or column that is missing.
pub(super) fn check_schema(db: &Connection) -> rusqlite::Result<Result<(), SchemaFault>> {
    for (table, columns) in SCHEMA {
        // A view could be anything, and take for ever.
        let is_table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?";
        if db.query_row(is_table, [table], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(Err(SchemaFault::NoTable(table)));
        }
        let mut statement = db.prepare("SELECT name FROM pragma_table_info(?)")?;
        let present = statement.query_map([table], |row| row.get::<_, String>(0))?;
        let present = present.collect::<rusqlite::Result<Vec<_>>>()?;
        if let Some(&column) = columns.iter().find(|column| !present.iter().any(|name| name == *column)) {
            return Ok(Err(SchemaFault::NoColumn { table, column }));
        }
    }
    Ok(Ok(()))
}

/// A read transaction on a kernel's database.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) db: &'a Connection,
    access: Access,
}

impl<'a> Reader<'a> {
    pub(super) fn new(db: &'a Connection, access: Access) -> Self {
        Self { db, access }
    }

    /// How the database is read.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// All spans, by vat and start; those that can't be read as a span come as a sentence each.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn spans(&self) -> rusqlite::Result<(Vec<SpanRow>, Vec<String>)> {
        let mut statement = self.db.prepare(
            "SELECT vatID, startPos, endPos, hash, isCurrent, incarnation FROM transcriptSpans ORDER BY vatID, startPos",
        )?;
        let mut rows = statement.query([])?;
        let (mut spans, mut faults): (Vec<SpanRow>, _) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            match span_row(row) {
                Some(mut span) => {
                    if let Some(SpanRow { id: before, .. }) = spans.last() {
                        span.id.vat.share(&before.vat);
                    }
                    spans.push(span);
                }
                None => faults.push(format!(
                    "a row of transcriptSpans is unreadable: vatID {:?}, startPos {:?}, endPos {:?}, incarnation {:?}",
                    start_of(row.get_ref(0)?),
                    start_of(row.get_ref(1)?),
                    start_of(row.get_ref(2)?),
                    start_of(row.get_ref(5)?)
                )),
            }
        }
        spans.sort_by(|one, other| one.id.cmp(&other.id));
        Ok((spans, faults))
    }

    /// All snapshots, by vat and position, without their images. Rows that can't be read as one are left out: a span
    /// that needs one of them is then without a base image, and says so.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn snapshots(&self) -> rusqlite::Result<Vec<SnapshotRow>> {
        let mut statement = self.db.prepare(
            "SELECT vatID, snapPos, hash, octet_length(compressedSnapshot) IS NOT NULL, uncompressedSize, inUse FROM snapshots \
             ORDER BY vatID, snapPos",
        )?;
        let mut rows = statement.query([])?;
        let mut snapshots: Vec<SnapshotRow> = Vec::new();
        while let Some(row) = rows.next()? {
            let Some(mut snapshot) = snapshot_row(row) else { continue };
            if let Some(before) = snapshots.last() {
                snapshot.vat.share(&before.vat);
            }
            snapshots.push(snapshot);
        }
        Ok(snapshots)
    }

    /// The snapshot that a vat saved at a position, without its image.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn snapshot(&self, vat: &VatId, at: Position) -> rusqlite::Result<Option<SnapshotRow>> {
        let mut statement = self.db.prepare_cached(
            "SELECT vatID, snapPos, hash, octet_length(compressedSnapshot) IS NOT NULL, uncompressedSize, inUse FROM snapshots \
             WHERE vatID = ? AND snapPos = ?",
        )?;
        let row = statement.query_row(params![vat.as_str(), signed(at)], |row| Ok(snapshot_row(row))).optional()?;
        Ok(row.flatten())
    }

    /// How many of the span's items there are.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn count_items(&self, span: &SpanId) -> rusqlite::Result<u64> {
        let mut statement = self.db.prepare_cached(
            "SELECT count(*) FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ?",
        )?;
        statement.query_row(params![span.vat.as_str(), signed(span.start), signed(span.end)], |row| {
            Ok(position(row.get_ref(0)?).unwrap_or(0))
        })
    }

    /// The items of a span.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn items(&self, span: &SpanId) -> rusqlite::Result<ItemsRead> {
        let bounds = params![span.vat.as_str(), signed(span.start), signed(span.end)];
        let bytes: Option<i64> = self.db.query_row(
            "SELECT sum(octet_length(item)) FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ?",
            bounds,
            |row| row.get(0),
        )?;
        let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        if bytes > Items::BYTES_MAX {
            return Ok(ItemsRead::TooLarge { bytes });
        }
        let mut statement = self.db.prepare_cached(
            "SELECT position, item FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ? \
             ORDER BY position",
        )?;
        let mut rows = statement.query(bounds)?;
        let mut items = Items::default();
        let (mut next, mut present, mut missing) = (span.start, 0, None);
        while let Some(row) = rows.next()? {
            let position = position(row.get_ref(0)?);
            present += 1;
            match (position, bytes_of(row.get_ref(1)?)) {
                (Some(position), Some(item)) if position == next && missing.is_none() => {
                    items.push(item);
                    next += 1;
                }
                _ => missing = missing.or(Some(next)),
            }
        }
        Ok(match missing.or((next < span.end).then_some(next)) {
            None => ItemsRead::All(items),
            Some(_) if present == 0 => ItemsRead::None,
            Some(missing) => ItemsRead::Gap { missing, present },
        })
    }

    /// The items that are left of a span, each with its position, up to the bytes that a span may have.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn items_left(&self, span: &SpanId) -> rusqlite::Result<Vec<(Position, Vec<u8>)>> {
        let mut statement = self.db.prepare_cached(
            "SELECT position, item FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ? \
             ORDER BY position",
        )?;
        let mut rows = statement.query(params![span.vat.as_str(), signed(span.start), signed(span.end)])?;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let Some((position, item)) = position(row.get_ref(0)?).zip(bytes_of(row.get_ref(1)?)) else { continue };
            bytes += item.len() as u64;
            if bytes > Items::BYTES_MAX {
                break;
            }
            items.push((position, item.to_vec()));
        }
        Ok(items)
    }

    /// The keys that say with which bundles a vat's worker is started: those of the vat, then those of others.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn worker_keys(&self, vat: &VatId) -> rusqlite::Result<WorkerKeys> {
        let mut options: Vec<String> = self.kv(&format!("{vat}.options"))?.into_iter().collect();
        let mut statement = self.db.prepare_cached(
            "SELECT value FROM kvStore WHERE key > 'v' AND key < 'w' AND key GLOB 'v[0-9]*.options' LIMIT 1000",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            options.extend(text_of(row.get_ref(0)?));
        }
        let mut statement =
            self.db.prepare_cached("SELECT bundleID FROM bundles WHERE bundleID GLOB 'b1-*' LIMIT 1000")?;
        let mut rows = statement.query([])?;
        let mut bundles = Vec::new();
        while let Some(row) = rows.next()? {
            bundles.extend(text_of(row.get_ref(0)?));
        }
        Ok(WorkerKeys { source: self.kv(&format!("{vat}.source"))?, options, bundles })
    }

    /// The compressed image of the snapshot that a vat saved at a position, if it is there.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn compressed_image(&self, vat: &VatId, position: Position) -> rusqlite::Result<Option<Vec<u8>>> {
        let image = self
            .db
            .query_row(
                "SELECT CASE WHEN octet_length(compressedSnapshot) <= ?3 THEN compressedSnapshot END \
                 FROM snapshots WHERE vatID = ?1 AND snapPos = ?2",
                params![vat.as_str(), signed(position), COMPRESSED_BYTES_MAX],
                |row| Ok(bytes_of(row.get_ref(0)?).map(<[u8]>::to_vec)),
            )
            .optional()?;
        Ok(image.flatten())
    }

    /// All bundles, by ID, without their bytes.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn bundles(&self) -> rusqlite::Result<Vec<BundleRow>> {
        let mut statement =
            self.db.prepare("SELECT bundleID, octet_length(bundle) IS NOT NULL FROM bundles ORDER BY bundleID")?;
        let rows = statement.query_map([], |row| {
            Ok(text_of(row.get_ref(0)?).and_then(|id| Some(BundleRow { id, is_present: row.get(1).ok()? })))
        })?;
        rows.filter_map(Result::transpose).collect()
    }

    /// A bundle's bytes. The outer `None` is a bundle without a row, the inner one a row without bytes.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn bundle(&self, id: &str) -> rusqlite::Result<Option<Option<Vec<u8>>>> {
        self.db
            .query_row(
                "SELECT CASE WHEN octet_length(bundle) <= ?2 THEN bundle END FROM bundles WHERE bundleID = ?1",
                params![id, BUNDLE_BYTES_MAX],
                |row| Ok(bytes_of(row.get_ref(0)?).map(<[u8]>::to_vec)),
            )
            .optional()
    }

    /// The options of every vat that has some; for those that can't be read, why.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn vat_options(&self) -> rusqlite::Result<HashMap<VatId, Result<VatOptions, OptionsFault>>> {
        let mut options = HashMap::new();
        // The bounds make it a range of the key's index.
        let mut statement = self
            .db
            .prepare("SELECT key, value FROM kvStore WHERE key > 'v' AND key < 'w' AND key GLOB 'v[0-9]*.options'")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = text_of(row.get_ref(0)?);
            let Some(vat) = key.as_ref().and_then(|key| key.strip_suffix(".options")) else { continue };
            let parsed = match text_of(row.get_ref(1)?) {
                Some(value) => VatOptions::parse(&value).map_err(|error| OptionsFault::Json(error.to_string())),
                None => Err(OptionsFault::NotText),
            };
            options.insert(VatId::new(vat), parsed);
        }
        for (name, vat) in self.static_vats()? {
            if let Ok(options) = options.entry(vat).or_insert_with(|| Ok(VatOptions::default())) {
                options.name.get_or_insert(name);
            }
        }
        Ok(options)
    }

    /// The vats that have options.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn vats_with_options(&self) -> rusqlite::Result<BTreeSet<VatId>> {
        let mut statement =
            self.db.prepare("SELECT key FROM kvStore WHERE key > 'v' AND key < 'w' AND key GLOB 'v[0-9]*.options'")?;
        let keys = statement.query_map([], |row| Ok(text_of(row.get_ref(0)?)))?;
        let vat = |key: Option<String>| key.and_then(|key| VatId::parse(key.strip_suffix(".options")?));
        keys.filter_map(|key| key.map(vat).transpose()).collect()
    }

    /// The static vats by name.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn static_vats(&self) -> rusqlite::Result<Vec<(String, VatId)>> {
        let mut statement =
            self.db.prepare("SELECT key, value FROM kvStore WHERE key >= 'vat.name.' AND key < 'vat.name/'")?;
        let rows = statement.query_map([], |row| {
            let (key, value) = (text_of(row.get_ref(0)?), text_of(row.get_ref(1)?));
            Ok(key
                .zip(value)
                .and_then(|(key, value)| Some((key.strip_prefix("vat.name.")?.to_owned(), VatId::new(value)))))
        })?;
        rows.filter_map(Result::transpose).collect()
    }

    /// Whether the kernel was told to let vats keep non-durable objects in durable places (`kernelKeeper.js`: any value
    /// counts).
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn relax_durability_rules(&self) -> rusqlite::Result<bool> {
        Ok(self.kv("kernel.relaxDurabilityRules")?.is_some_and(|value| !value.is_empty()))
    }

    /// A value of `kvStore`; `None` also if it is longer than any that is read here can be.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn kv(&self, key: &str) -> rusqlite::Result<Option<String>> {
        let value = self
            .db
            .query_row(
                "SELECT CASE WHEN octet_length(value) <= ?2 THEN value END FROM kvStore WHERE key = ?1",
                params![key, KV_BYTES_MAX],
                |row| Ok(text_of(row.get_ref(0)?)),
            )
            .optional()?;
        Ok(value.flatten())
    }
}

/// As much of a value as a message shows.
fn start_of(value: ValueRef<'_>) -> ValueRef<'_> {
    const BYTES_MAX: usize = 80;
    match value {
        ValueRef::Text(bytes) => ValueRef::Text(&bytes[..bytes.len().min(BYTES_MAX)]),
        ValueRef::Blob(bytes) => ValueRef::Blob(&bytes[..bytes.len().min(BYTES_MAX)]),
        number => number,
    }
}

pub(super) fn span_row(row: &Row<'_>) -> Option<SpanRow> {
    let id = SpanId {
        vat: VatId::parse(&text_of(row.get_ref(0).ok()?)?)?,
        start: position(row.get_ref(1).ok()?)?,
        end: position(row.get_ref(2).ok()?)?,
    };
    Some(SpanRow {
        id,
        hash: hash_of(row.get_ref(3).ok()?),
        is_current: !matches!(row.get_ref(4).ok()?, ValueRef::Null),
        incarnation: position(row.get_ref(5).ok()?)?,
    })
}

fn snapshot_row(row: &Row<'_>) -> Option<SnapshotRow> {
    Some(SnapshotRow {
        vat: VatId::new(text_of(row.get_ref(0).ok()?)?),
        position: position(row.get_ref(1).ok()?)?,
        hash: hash_of(row.get_ref(2).ok()?),
        has_image: row.get(3).ok()?,
        bytes: position(row.get_ref(4).ok()?),
        in_use: !matches!(row.get_ref(5).ok()?, ValueRef::Null),
    })
}

pub(super) fn position(value: ValueRef<'_>) -> Option<Position> {
    match value {
        ValueRef::Integer(number) => Position::try_from(number).ok(),
        _ => None,
    }
}

/// A sha256 in hex, as text: the swing-store writes no other type.
fn hash_of(value: ValueRef<'_>) -> Option<Hash256> {
    match value {
        ValueRef::Text(bytes) => Hash256::parse(std::str::from_utf8(bytes).ok()?),
        _ => None,
    }
}

pub(super) fn bytes_of(value: ValueRef<'_>) -> Option<&[u8]> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
        _ => None,
    }
}

fn text_of(value: ValueRef<'_>) -> Option<String> {
    bytes_of(value).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}

/// SQLite's integers are signed; positions come from it, so none is too large.
pub(super) fn signed(position: Position) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
