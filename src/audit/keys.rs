//! A sorted table of keys, in memory up to a limit and in a temporary file beyond it.
//!
//! Owns where the keys are kept. It must never know their meaning, and no key is lost when the table moves to a file.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, params};

use super::AuditError;
use super::vatstore::{Entry, EntryBytes, KeyEntry};

/// The memory of an entry beside its key: itself, the allocation of its key, and its share of the tree's nodes.
const ENTRY_BYTES: usize = 128;
/// The part of the temporary file that SQLite keeps in memory, in KiB.
const CACHE_KIB: i64 = 64 << 10;

/// The limits on keys in memory, and the place beyond them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysLimit {
    /// The most memory that the keys of one vat take, in bytes.
    pub memory_max: usize,
    /// The directory of the temporary file beyond that; the system's if `None`.
    pub temp: Option<PathBuf>,
}

impl Default for KeysLimit {
    /// No limit: for the keys of one span, which is in memory already.
    fn default() -> Self {
        Self { memory_max: usize::MAX, temp: None }
    }
}

#[derive(Debug)]
pub(super) struct Keys {
    at: Place,
    limit: KeysLimit,
    bytes: usize,
}

#[derive(Debug)]
enum Place {
    Memory(BTreeMap<Box<[u8]>, Entry>),
    /// The file is gone from its directory as soon as SQLite has opened it.
    File(Connection),
}

impl Keys {
    pub(super) fn new(limit: KeysLimit) -> Self {
        Self { at: Place::Memory(BTreeMap::new()), limit, bytes: 0 }
    }

    pub(super) fn is_spilled(&self) -> bool {
        matches!(self.at, Place::File(_))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Entry>, AuditError> {
        match &self.at {
            Place::Memory(map) => Ok(map.get(key).cloned()),
            Place::File(db) => {
                let mut statement = db.prepare_cached("SELECT entry FROM keys WHERE key = ?")?;
                Ok(statement.query_row([key], entry_of_row(0)).optional()?)
            }
        }
    }

    /// The last entry before a key.
    pub(super) fn before(&self, key: &[u8]) -> Result<Option<Entry>, AuditError> {
        match &self.at {
            Place::Memory(map) => {
                let mut range = map.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key)));
                Ok(range.next_back().map(|(_, entry)| entry.clone()))
            }
            Place::File(db) => {
                let mut statement =
                    db.prepare_cached("SELECT entry FROM keys WHERE key < ? ORDER BY key DESC LIMIT 1")?;
                Ok(statement.query_row([key], entry_of_row(0)).optional()?)
            }
        }
    }

    /// The first entry after a key, or the first of all.
    pub(super) fn after(&self, key: Option<&[u8]>) -> Result<Option<KeyEntry>, AuditError> {
        match &self.at {
            Place::Memory(map) => {
                let from = key.map_or(Bound::Unbounded, Bound::Excluded);
                let mut range = map.range::<[u8], _>((from, Bound::Unbounded));
                Ok(range.next().map(|(key, entry)| (key.clone(), entry.clone())))
            }
            Place::File(db) => {
                let read =
                    |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?.into_boxed_slice(), entry_of_row(1)(row)?));
                let found = match key {
                    Some(key) => db
                        .prepare_cached("SELECT key, entry FROM keys WHERE key > ? ORDER BY key LIMIT 1")?
                        .query_row([key], read),
                    None => db.prepare_cached("SELECT key, entry FROM keys ORDER BY key LIMIT 1")?.query_row([], read),
                };
                Ok(found.optional()?)
            }
        }
    }

    pub(super) fn put(&mut self, key: &[u8], entry: Entry) -> Result<(), AuditError> {
        match &mut self.at {
            Place::Memory(map) => {
                match map.get_mut(key) {
                    Some(known) => *known = entry,
                    None => {
                        map.insert(key.into(), entry);
                        self.bytes += key.len() + ENTRY_BYTES;
                    }
                }
                if self.bytes > self.limit.memory_max { self.spill() } else { Ok(()) }
            }
            Place::File(db) => Ok(put_in_file(db, key, &entry)?),
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<(), AuditError> {
        match &mut self.at {
            Place::Memory(map) => {
                if map.remove(key).is_some() {
                    self.bytes -= key.len() + ENTRY_BYTES;
                }
            }
            Place::File(db) => {
                db.prepare_cached("DELETE FROM keys WHERE key = ?")?.execute([key])?;
            }
        }
        Ok(())
    }

    /// Moves everything to a temporary file, and goes on there.
    fn spill(&mut self) -> Result<(), AuditError> {
        let Place::Memory(map) = &mut self.at else { return Ok(()) };
        let dir = self.limit.temp.clone().unwrap_or_else(std::env::temp_dir);
        let failed = |source| AuditError::Temp { dir: dir.clone(), source };
        let file = tempfile::Builder::new().prefix("spanwatch-keys-").tempfile_in(&dir).map_err(failed)?;
        #[expect(clippy::disallowed_methods, reason = "a file of our own, and not the node's")]
        let db = Connection::open(file.path())?;
        // No other process reads the file, and nothing of it has to outlive this one.
        db.execute_batch(&format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; \
             PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB}; \
             CREATE TABLE keys (key BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID; BEGIN"
        ))?;
        file.close().map_err(failed)?;
        while let Some((key, entry)) = map.pop_first() {
            put_in_file(&db, &key, &entry)?;
        }
        self.at = Place::File(db);
        self.bytes = 0;
        Ok(())
    }
}

fn put_in_file(db: &Connection, key: &[u8], entry: &Entry) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(
        "INSERT INTO keys (key, entry) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET entry = excluded.entry",
    )?;
    statement.execute(params![key, entry.to_bytes()])?;
    Ok(())
}

/// Reads an entry from a column.
fn entry_of_row(column: usize) -> impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    move |row| {
        let bytes: EntryBytes = row.get(column)?;
        Entry::from_bytes(&bytes).ok_or(rusqlite::Error::InvalidColumnType(
            column,
            "entry".to_owned(),
            rusqlite::types::Type::Blob,
        ))
    }
}
