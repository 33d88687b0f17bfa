//! The daemon's own memory: verdicts, what is still to be done, what was captured, what was acknowledged.
//!
//! Owns one SQLite file in the state directory, its schema and its migrations. Every function is one transaction, so
//! that a kill at any moment leaves either all of it or none: a span is noted together with the cursor that moved past it,
//! a verdict together with the totals that count it. It knows nothing of the node's database.
//!
//! The queue of spans to be replayed is the table `spans` itself: a row without a verdict is due. Nothing is queued in
//! memory, so nothing is lost with it.

mod alarms;
mod captures;
mod queue;
mod verdicts;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row, Transaction};

pub use alarms::{Acknowledged, Alarm, AlarmKind, Unacknowledged};
pub use captures::{CaptureRow, CapturedItems};
pub use queue::{Backlog, Job, KnownVat, New, NodeSeen, Noted, NotedSpan, NotedVat, Source};
pub use verdicts::{Outcome, VerdictFilter, VerdictRow};

use crate::regular;
use crate::transcript::{Hash256, Position, SpanId, VatId};

const FILE_NAME: &str = "spanwatch.sqlite";
const LOCK_NAME: &str = "lock";
/// Beside the daemon, `ack` and `verdicts` use the file too, for a moment each.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Each brings the schema from the version of its index to the next one. Never change one that was released.
const MIGRATIONS: [&str; 2] = [include_str!("schema-1.sql"), include_str!("schema-2.sql")];

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file in it can't be used.
    #[error("failed to {what} {}: {source}; state.dir must be a directory of spanwatch's own that it may write", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("another spanwatch daemon uses the state directory {}: stop it, or give this one another state.dir", .0.display())]
    Locked(PathBuf),
    /// There is none.
    #[error("there is no store at {}: name the daemon's state directory with --state-dir, or its --config", .0.display())]
    Missing(PathBuf),
    /// It was written by a later version.
    #[error("{} has schema version {found}, this spanwatch knows versions up to {known}: use the later version, or another state.dir", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It was written by an earlier version, and its daemon still runs.
    #[error("the store in {} has schema version {found}, this spanwatch uses version {known}, and a daemon of the earlier version runs: restart it with this version, which migrates the store", dir.display())]
    OlderDaemon {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite refused.
    #[error("failed to {what} in {}: {source}; {}", path.display(), hint(source))]
    Sqlite {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// No room that may be used for captures.
    #[error(
        "capture.max_bytes is reached: {needed} bytes more are needed, and all that is captured is still needed too; raise it"
    )]
    CaptureFull {
        /// How much was to be added.
        needed: u64,
    },
}

fn hint(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::DiskFull) => "the disk of state.dir is full: free some room",
        Some(Code::ReadOnly | Code::CannotOpen | Code::PermissionDenied) => "may this user write the state directory?",
        Some(Code::NotADatabase | Code::DatabaseCorrupt) => {
            "the file is damaged: move it away, and the daemon starts with a new one"
        }
        _ => "if it persists, check the file with `PRAGMA integrity_check`",
    }
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    db: Mutex<Connection>,
    /// Held by the daemon for as long as it lives.
    _lock: Option<File>,
}

impl Store {
    /// Opens the store of a state directory for the daemon, which must be alone; makes both if need be.
    ///
    /// # Errors
    /// When the directory can't be used, another daemon uses it, or the file is damaged.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { what, path, source }
        };
        fs::create_dir_all(dir).map_err(failed("make", dir))?;
        let lock_path = dir.join(LOCK_NAME);
        let lock = regular::open_or_create(&lock_path, 0o640).map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Locked(dir.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        let store = Self::connect(dir.join(FILE_NAME), OpenFlags::SQLITE_OPEN_CREATE, Some(lock))?;
        store.migrate()?;
        Ok(store)
    }

    /// Opens the store that a daemon uses, or used. One of an earlier version is migrated, unless a daemon has it.
    ///
    /// # Errors
    /// When there is none, or it can't be opened.
    pub fn open_beside_the_daemon(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(StoreError::Missing(path));
        }
        let store = Self::connect(path, OpenFlags::empty(), None)?;
        let (found, known) = (store.version()?, MIGRATIONS.len() as i64);
        match found {
            0 => Err(StoreError::Missing(store.path)),
            _ if found > known => Err(StoreError::TooNew { path: store.path, found, known }),
            _ if found < known => {
                drop(store);
                match Self::open(dir) {
                    Err(StoreError::Locked(dir)) => Err(StoreError::OlderDaemon { dir, found, known }),
                    opened => opened,
                }
            }
            _ => Ok(store),
        }
    }

    fn connect(path: PathBuf, more: OpenFlags, lock: Option<File>) -> Result<Self, StoreError> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut file = path.clone().into_os_string();
            file.push(suffix);
            regular::check(Path::new(&file)).map_err(|source| StoreError::Io {
                what: "open",
                path: file.into(),
                source,
            })?;
        }
        regular::guard_sqlite();
        let opened = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
            let db = Connection::open_with_flags(&path, flags)?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            // A power cut may take back the last verdicts, never damage the file; they are then found due again.
            db.execute_batch(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
                 PRAGMA journal_size_limit = 16777216; PRAGMA temp_store = MEMORY;",
            )?;
            db.set_prepared_statement_cache_capacity(64);
            Ok(db)
        };
        match opened() {
            Ok(db) => Ok(Self { path, db: Mutex::new(db), _lock: lock }),
            Err(source) => Err(StoreError::Sqlite { what: "open the store", path, source }),
        }
    }

    fn version(&self) -> Result<i64, StoreError> {
        self.with("read the schema version", |db| db.query_row("PRAGMA user_version", [], |row| row.get(0)))
    }

    fn migrate(&self) -> Result<(), StoreError> {
        let (found, known) = (self.version()?, MIGRATIONS.len() as i64);
        if found > known {
            return Err(StoreError::TooNew { path: self.path.clone(), found, known });
        }
        for (version, script) in (1_i64..).zip(MIGRATIONS) {
            if version > found {
                self.write("migrate the schema", |db| {
                    db.execute_batch(script)?;
                    db.pragma_update(None, "user_version", version)
                })?;
            }
        }
        Ok(())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere rolled its transaction back.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something that reads.
    fn with<T>(
        &self,
        what: &'static str,
        reading: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        reading(&self.lock()).map_err(|source| StoreError::Sqlite { what, path: self.path.clone(), source })
    }

    /// Runs something that writes, as one transaction.
    fn write<T>(
        &self,
        what: &'static str,
        writing: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut db = self.lock();
        let written = || -> rusqlite::Result<T> {
            let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let result = writing(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        written().map_err(|source| StoreError::Sqlite { what, path: self.path.clone(), source })
    }
}

/// Seconds since 1970: how the store writes times.
#[must_use]
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Positions and counts are below 2^63, as they come from SQLite's integers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0))
}

fn span_id(row: &Row<'_>, first: usize) -> rusqlite::Result<SpanId> {
    Ok(SpanId {
        vat: VatId::new(row.get::<_, String>(first)?),
        start: unsigned(row, first + 1)?,
        end: unsigned(row, first + 2)?,
    })
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Hash256>> {
    let text: Option<String> = row.get(column)?;
    match text {
        None => Ok(None),
        Some(text) => Hash256::parse(&text)
            .map(Some)
            .ok_or_else(|| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "not a sha256 in hex".into())),
    }
}

/// One past the last position that was seen.
type SeenTo = Position;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_db::{Identity, Pulse, SpanRow, VatOptions};
    use std::collections::HashSet;

    #[test]
    fn a_store_is_one_daemons() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Store::open(dir.path()).expect("a new store");
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked(_))));
        Store::open_beside_the_daemon(dir.path()).expect("for a look");
        drop(first);
        Store::open(dir.path()).expect("the same store");
    }

    #[test]
    fn what_is_no_store_is_said_to_be_none() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(Store::open_beside_the_daemon(dir.path()), Err(StoreError::Missing(_))));
        fs::write(dir.path().join(FILE_NAME), "plain text, and more of it than a header has. ".repeat(10))
            .expect("write");
        let error = Store::open(dir.path()).expect_err("no database").to_string();
        assert!(error.contains("move it away"), "{error}");
    }

    #[test]
    fn a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a new store");
        store.write("pretend", |db| db.pragma_update(None, "user_version", 99)).expect("written");
        drop(store);
        assert!(matches!(Store::open(dir.path()), Err(StoreError::TooNew { found: 99, .. })));
        assert!(matches!(Store::open_beside_the_daemon(dir.path()), Err(StoreError::TooNew { found: 99, .. })));
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a new store");
        (dir, store)
    }

    /// A vat with spans of ten positions, all noted.
    fn with_spans(store: &Store, vat: &str, count: u64) -> Vec<SpanId> {
        let ids: Vec<SpanId> =
            (0..count).map(|n| SpanId { vat: VatId::new(vat), start: n * 10, end: n * 10 + 10 }).collect();
        let closed = ids.iter().map(|id| NotedSpan { row: row(id), source: Source::Live }).collect();
        let vat = KnownVat {
            vat: VatId::new(vat),
            cursor: count * 10,
            is_terminated: false,
            options: VatOptions::default(),
            history: (0, 0),
        };
        let node = NodeSeen {
            path: String::new(),
            identity: Identity { device: 1, inode: 2 },
            pulse: Pulse { crank: Some(3), activity_hash: Some("a".to_owned()), height: None },
        };
        let noted = Noted { node: node.clone(), vats: vec![NotedVat { vat, closed }], missed: 0, alarms: Vec::new() };
        assert_eq!(store.note(&noted).expect("noted").spans, count);
        assert_eq!(store.note(&noted).expect("noted again").spans, 0, "what is there already stays as it is");
        assert_eq!(store.node().expect("read"), Some(node));
        ids
    }

    fn row(id: &SpanId) -> SpanRow {
        let hash = Some(crate::transcript::sha256(id.to_string().as_bytes()));
        SpanRow { id: id.clone(), hash, is_current: false, incarnation: 0 }
    }

    #[test]
    fn a_verdict_is_written_once() {
        let (_dir, store) = store();
        let ids = with_spans(&store, "v1", 3);
        let first = store.next_job(&HashSet::new(), &HashSet::new()).expect("read").expect("a job");
        assert_eq!(first.row.id, ids[2], "the newest first");
        let outcome = Outcome { verdict: "verified", deliveries: 4, ..Outcome::default() };
        assert!(store.finish(first.id, &ids[2], &outcome).expect("written"));
        let other = Outcome { verdict: "diverged", kinds: vec!["status"], ..Outcome::default() };
        assert!(!store.finish(first.id, &ids[2], &other).expect("read"), "the first one stands");
        let mut totals = store.totals().expect("read");
        totals.sort();
        let told: Vec<(&str, &str, u64)> =
            totals.iter().map(|(name, label, value)| (&**name, &**label, *value)).collect();
        assert_eq!(told, [("deliveries", "", 4), ("spans", "verified", 1)]);
        assert_eq!((store.unacknowledged().expect("read").total(), store.backlog().expect("read").live), (0, 2));
        let taken = HashSet::from([store.due(&row(&ids[1])).expect("read").expect("due").id]);
        let next = store.next_job(&taken, &HashSet::new()).expect("read").expect("a job");
        assert_eq!(next.row.id, ids[0]);
        store.postpone(next.id, 60.0, "worker_start", true).expect("written");
        assert!(store.next_job(&taken, &HashSet::new()).expect("read").is_none(), "not before a minute");
    }

    #[test]
    fn a_divergence_outlives_what_is_forgotten_until_it_is_acknowledged() {
        let (_dir, store) = store();
        let ids = with_spans(&store, "v1", 2);
        for (id, verdict) in ids.iter().zip(["verified", "diverged"]) {
            let job = store.due(&row(id)).expect("read").expect("due");
            assert!(store.finish(job.id, id, &Outcome { verdict, ..Outcome::default() }).expect("written"));
        }
        assert_eq!(store.forget_older_than(-1.0).expect("written"), 1);
        let mut rows = Vec::new();
        store.verdicts(&VerdictFilter::default(), |row| rows.push(row)).expect("read");
        assert_eq!((rows.len(), &*rows[0].verdict), (1, "diverged"));
        assert_eq!(store.acknowledge(&rows[0].id, None).expect("written"), Acknowledged::Now);
        assert_eq!(store.forget_older_than(-1.0).expect("written"), 1);
        assert_eq!(store.totals().expect("read").len(), 2, "the counts stay");
    }

    #[test]
    fn room_is_made_only_of_what_is_done_with() {
        let (_dir, store) = store();
        let ids = with_spans(&store, "v1", 2);
        let images = [b"one", b"two"].map(|text| crate::transcript::sha256(text));
        let gzip = vec![0; 1_000];
        let user = |id: &SpanId| (id.vat.clone(), id.start);
        // Both spans start from the first image.
        for id in &ids {
            let (vat, start) = user(id);
            assert_eq!(store.keep_image(images[0], &gzip, (&vat, start), 1_500).expect("room"), 0);
        }
        assert_eq!(store.capture_bytes().expect("read"), 1_000, "one image once");
        let vat = VatId::new("v2");
        let finish = |id: &SpanId, verdict| {
            let job = store.due(&row(id)).expect("read").expect("due");
            assert!(store.finish(job.id, id, &Outcome { verdict, ..Outcome::default() }).expect("written"));
        };
        finish(&ids[0], "verified");
        let full = store.keep_image(images[1], &gzip, (&vat, 5), 1_500);
        assert!(matches!(full, Err(StoreError::CaptureFull { needed: 1_000 })), "the second span still needs it");
        assert!(store.has_image(images[0]).expect("read"));
        // That of a divergence is kept as long as there is room, that of any other verdict is not.
        finish(&ids[1], "diverged");
        assert_eq!(store.capture_bytes().expect("read"), 1_000);
        assert_eq!(store.keep_image(images[1], &gzip, (&vat, 5), 1_500).expect("room"), 1);
        assert!(!store.has_image(images[0]).expect("read") && store.has_image(images[1]).expect("read"));
    }

    #[test]
    fn items_are_captured_piece_by_piece() {
        let (_dir, store) = store();
        let vat = VatId::new("v1");
        let mut hasher = crate::transcript::SpanHasher::default();
        let mut next = 10;
        for texts in [vec![b"one".to_vec()], vec![b"two".to_vec(), b"three".to_vec()]] {
            texts.iter().for_each(|text| hasher.add(text));
            next += texts.len() as u64;
            let capture = CaptureRow { vat: vat.clone(), start: 10, next, hash: hasher.finish() };
            store.capture_items(&capture, &texts, 1_000).expect("room");
        }
        let items = store.captured_items(&vat, 10).expect("read").items;
        assert_eq!(items.iter().collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
        assert_eq!((items.hash(), store.captured_to(&vat, 10).expect("read")), (hasher.finish(), Some(13)));
        let known = store.captures().expect("read");
        assert_eq!((known.len(), known[0].next, known[0].hash), (1, 13, hasher.finish()));
        // From the start again: what was there goes.
        let capture = CaptureRow { vat: vat.clone(), start: 10, next: 11, hash: hasher.finish() };
        store.capture_items(&capture, &[b"other".to_vec()], 1_000).expect("room");
        assert_eq!(store.captured_items(&vat, 10).expect("read").items.len(), 1);
        assert_eq!(store.capture_bytes().expect("read"), 5);
    }
}
