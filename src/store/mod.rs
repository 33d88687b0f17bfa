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
mod labels;
mod memory;
mod queue;
mod verdicts;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row, Transaction};

pub use alarms::{Acknowledged, Alarm, AlarmKind};
pub use captures::CaptureRow;
pub(crate) use labels::{RowState, Stored};
pub use memory::{Rechecked, SeenImage, SeenSpan};
pub use queue::{Job, KnownVat, NodeSeen, Noted, NotedSpan, NotedVat, SpanSource};
pub use verdicts::{FinishedSpan, VerdictFilter, VerdictRow};

use crate::files::own::{self, Existing, OwnError};
use crate::files::regular;
use crate::kernel_db::{Fingerprint, beside, uri_path};
use crate::transcript::{Hash256, Position, SpanId, VatId};

const FILE_NAME: &str = "spanwatch.sqlite";
const LOCK_NAME: &str = "lock";
/// The directory of evidence, where no other is configured.
pub const EVIDENCE_NAME: &str = "evidence";
/// How often a store is opened to be read while a daemon beside it starts or stops, and the pause.
const READ_TRIES: u32 = 5;
const READ_PAUSE: Duration = Duration::from_millis(100);
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
    /// Others could change it.
    #[error("{0} (state.dir)")]
    Own(#[from] OwnError),
    /// A daemon started while it was read.
    #[error("the daemon started while {} was read, so this list may mix two states: run the command again", .0.display())]
    Unsteady(PathBuf),
    /// Another daemon has it.
    #[error("another spanwatch daemon uses the state directory {}: stop it, or give this one another state.dir", .0.display())]
    Locked(PathBuf),
    /// No store is there.
    #[error("there is no store at {}: name the daemon's state directory with --state-dir, or its --config", .0.display())]
    Missing(PathBuf),
    /// This user may not look.
    #[error("failed to look at {}: {source}; the directory lets in its owner and the members of its group: join the group, or run this as root", path.display())]
    NotLetIn {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
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
        Some(Code::ReadOnly | Code::CannotOpen | Code::PermissionDenied) => {
            "does the state directory belong to this user?"
        }
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
    /// The file as it was when it was opened without a daemon beside it.
    at_rest: Option<Fingerprint>,
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
        let (dir, mut closed) = own::directory(dir, Existing::Close)?;
        closed.extend(check_files(&dir)?);
        let evidence = dir.join(EVIDENCE_NAME);
        if evidence.is_dir() && !evidence.is_symlink() {
            closed.extend(own::close_all(&evidence)?);
        }
        if let Some(first) = closed.first() {
            let more = if closed.len() > 1 { format!(" and {} more", closed.len() - 1) } else { String::new() };
            tracing::warn!(
                "closed to other users in the state directory, as an earlier version left it open: {first}{more}"
            );
        }
        let lock_path = dir.join(LOCK_NAME);
        let lock = own::open_or_create(&lock_path).map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Locked(dir)),
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        let path = dir.join(FILE_NAME);
        // SQLite gives -wal and -shm the mode and the owner of this file.
        match own::create_new(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make", &path)(error)),
            _ => {}
        }
        let store = Self::connect(path, Some(lock))?;
        store.migrate()?;
        Ok(store)
    }

    /// Opens the store that a daemon uses, or used, to write to it. One of an earlier version is migrated, unless a daemon has it.
    ///
    /// # Errors
    /// When no store is there, it belongs to another user, or it can't be opened.
    pub fn open_beside_the_daemon(dir: &Path) -> Result<Self, StoreError> {
        let path = existing(dir)?;
        let dir = own::check_directory(dir)?;
        check_files(&dir)?;
        match Self::connect(path, None)?.of_known_version(&dir) {
            Err(StoreError::OlderDaemon { dir, found, known }) => match Self::open(&dir) {
                Err(StoreError::Locked(dir)) => Err(StoreError::OlderDaemon { dir, found, known }),
                opened => opened,
            },
            opened => opened,
        }
    }

    /// Opens the store that a daemon uses, or used, to read it. For that a user must be in the group of the directory and need
    /// not be allowed to write to it.
    ///
    /// # Errors
    /// When no store is there, or it can't be opened.
    pub fn open_to_read(dir: &Path) -> Result<Self, StoreError> {
        let path = existing(dir)?;
        if rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_ok() {
            return Self::open_beside_the_daemon(dir);
        }
        let mut tries = 0;
        loop {
            // Without a daemon there is no -wal, and SQLite, which would make one, can't. With one the daemon's -shm is read.
            let at_rest = if beside(&path, "-wal").exists() { None } else { Some(Fingerprint::of(&path)) };
            tries += 1;
            match Self::connect_to_read(&path, at_rest).and_then(|store| store.of_known_version(dir)) {
                // The daemon started or stopped just now.
                Err(StoreError::Sqlite { .. }) if tries < READ_TRIES => std::thread::sleep(READ_PAUSE),
                opened => return opened,
            }
        }
    }

    /// Says whether what was read since [`Self::open_to_read`] is one state of the store: where it was opened without a
    /// daemon beside it, none may have started since.
    ///
    /// # Errors
    /// When one has.
    pub fn was_steady(&self) -> Result<(), StoreError> {
        match &self.at_rest {
            Some(before) if *before != Fingerprint::of(&self.path) => Err(StoreError::Unsteady(self.path.clone())),
            _ => Ok(()),
        }
    }

    fn of_known_version(self, dir: &Path) -> Result<Self, StoreError> {
        let (found, known) = (self.version()?, MIGRATIONS.len() as i64);
        match found {
            0 => Err(StoreError::Missing(self.path)),
            _ if found < known => Err(StoreError::OlderDaemon { dir: dir.to_owned(), found, known }),
            _ if found > known => Err(StoreError::TooNew { path: self.path, found, known }),
            _ => Ok(self),
        }
    }

    fn connect_to_read(path: &Path, at_rest: Option<Fingerprint>) -> Result<Self, StoreError> {
        look_at_files(path)?;
        let opened = || -> rusqlite::Result<Connection> {
            let how = if at_rest.is_some() { "mode=ro&immutable=1" } else { "mode=ro" };
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
            let db = Connection::open_with_flags(format!("file:{}?{how}", uri_path(path)), flags)?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            db.execute_batch("PRAGMA temp_store = MEMORY;")?;
            Ok(db)
        };
        let opened = opened();
        let path = path.to_owned();
        match opened {
            Ok(db) => Ok(Self { path, db: Mutex::new(db), at_rest, _lock: None }),
            Err(source) => Err(StoreError::Sqlite { what: "open the store", path, source }),
        }
    }

    fn connect(path: PathBuf, lock: Option<File>) -> Result<Self, StoreError> {
        look_at_files(&path)?;
        let opened = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
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
            Ok(db) => Ok(Self { path, db: Mutex::new(db), at_rest: None, _lock: lock }),
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

/// The store's file, if it is there.
fn existing(dir: &Path) -> Result<PathBuf, StoreError> {
    let path = dir.join(FILE_NAME);
    match path.try_exists() {
        Ok(true) => Ok(path),
        Ok(false) => Err(StoreError::Missing(path)),
        Err(source) => Err(StoreError::NotLetIn { path, source }),
    }
}

/// Refuses special files in the place of those that SQLite will open, and has it do the same.
fn look_at_files(store: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = beside(store, suffix);
        regular::check(&path).map_err(|source| StoreError::Io { what: "open", path, source })?;
    }
    regular::guard_sqlite();
    Ok(())
}

/// Checks what is in the state directory, before SQLite opens it. What had to be closed to others.
fn check_files(dir: &Path) -> Result<Vec<String>, OwnError> {
    let store = dir.join(FILE_NAME);
    let files = [beside(&store, "-wal"), beside(&store, "-shm"), dir.join(LOCK_NAME), store];
    let mut closed = Vec::new();
    for file in files {
        closed.extend(own::check_file(&file)?);
    }
    Ok(closed)
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
    use super::alarms::Unacknowledged;
    use super::*;
    use crate::kernel_db::{Identity, Pulse, SpanRow, VatOptions};
    use crate::span::BaseKind;
    use crate::tally::{Counter, Tally};
    use crate::verdict::{Failure, FindingKind, VerdictKind};
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

    /// What the first version wrote is there after a migration: what is due, captures, acknowledgements. Damage that was found
    /// then and told to nobody alarms now.
    #[test]
    fn a_store_of_the_first_version_is_migrated() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE_NAME);
        #[expect(clippy::disallowed_methods, reason = "the store is one of the test's own")]
        let db = Connection::open(&path).expect("create");
        db.execute_batch(MIGRATIONS[0]).expect("the first schema");
        db.execute_batch(
            "PRAGMA user_version = 1;
             INSERT INTO vats VALUES ('v1', 30, 0, 'one', 'xsnap', 0, 0, 0, 0);
             INSERT INTO spans (vat, start, end, hash, incarnation, source, noticed_at) VALUES ('v1', 0, 10, 'aa', 0, 'live', 1);
             INSERT INTO spans (vat, start, end, hash, incarnation, source, noticed_at, verdict, finished_at, acknowledged_at, note)
               VALUES ('v1', 10, 20, 'bb', 0, 'live', 1, 'diverged', 2, 3, 'known');
             INSERT INTO spans (vat, start, end, hash, incarnation, source, noticed_at, verdict, reason, finished_at)
               VALUES ('v1', 20, 30, 'cc', 0, 'live', 1, 'unverifiable', 'span_hash_mismatch', 2),
                      ('v1', 30, 40, 'dd', 0, 'live', 1, 'unverifiable', 'items_pruned', 2);
             INSERT INTO captures VALUES ('v1', 0, 1, 'ee', 3, 1, 0);
             INSERT INTO captured_items VALUES ('v1', 0, 0, x'616263');",
        )
        .expect("rows of then");
        db.close().expect("close");
        // Also by a command that finds no daemon running.
        let store = Store::open_beside_the_daemon(dir.path()).expect("migrated");
        let left = store.unacknowledged().expect("read");
        assert_eq!(left, Unacknowledged { damaged: 1, ..Unacknowledged::default() });
        assert_eq!(
            (store.backlog().expect("read").live, store.captured_to(&VatId::new("v1"), 0).expect("read")),
            (1, Some(1))
        );
        let mut rows = Vec::new();
        store
            .verdicts(&VerdictFilter { is_alarm: true, ..VerdictFilter::default() }, |row| rows.push(row))
            .expect("read");
        let told: Vec<_> =
            rows.iter().map(|row| (row.start, row.damage, row.acknowledged, row.note.as_deref())).collect();
        assert_eq!(told, [(20, true, Some(false), None), (10, false, Some(true), Some("known"))]);
        assert!(store.seen_last().expect("read").is_empty(), "rows of then may be of a history that was rolled back");
        drop(store);
        Store::open(dir.path()).expect("once is enough");
    }

    #[test]
    fn a_store_that_an_older_daemon_uses_is_left_to_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a new store");
        store.write("pretend", |db| db.pragma_update(None, "user_version", 1)).expect("written");
        let refused = Store::open_beside_the_daemon(dir.path());
        assert!(matches!(refused, Err(StoreError::OlderDaemon { found: 1, .. })), "{refused:?}");
    }

    #[test]
    fn an_alarm_is_raised_once_and_there_are_not_too_many() {
        let (_dir, store) = store();
        let alarm = |number: u64| Alarm {
            kind: AlarmKind::Changed,
            id: SpanId { vat: VatId::new("v1"), start: number, end: number + 1 },
            incarnation: 0,
            reason: "row_changed",
            explanation: "it changed".to_owned(),
        };
        assert_eq!(store.raise(&[alarm(1), alarm(2)]).expect("written").len(), 2);
        assert_eq!(store.raise(&[alarm(1), alarm(3)]).expect("written").len(), 1, "the first is known");
        let id = &store.raise(&[alarm(4)]).expect("written")[0].0;
        assert_eq!(store.acknowledge(id, None).expect("written"), Acknowledged::Now);
        assert_eq!(store.acknowledge(id, None).expect("written"), Acknowledged::Before);
        assert_eq!(store.acknowledge("v1.4-changed-9", None).expect("read"), Acknowledged::Unknown);
        assert!(store.raise(&[alarm(4)]).expect("written").is_empty(), "neither is one that was acknowledged");
        let many: Vec<Alarm> = (100..20_000).map(alarm).collect();
        store.raise(&many).expect("written");
        assert_eq!(store.unacknowledged().expect("read").changed, 10_000);
        assert_eq!(store.acknowledge_all(AlarmKind::Changed, Some("v1"), None).expect("written"), 10_000);
        assert_eq!(store.unacknowledged().expect("read").total(), 0);
    }

    /// What is remembered of rows is a fraction of what is remembered of verdicts.
    #[test]
    fn a_row_that_is_remembered_takes_less_than_200_bytes() {
        const ROWS: u64 = 20_000;
        let (_dir, store) = store();
        let size = |store: &Store| {
            let count = |pragma: &str| store.with("measure", |db| db.query_row(pragma, [], |row| unsigned(row, 0)));
            count("PRAGMA page_count").expect("pages") * count("PRAGMA page_size").expect("a size")
        };
        let before = size(&store);
        let learned = (0..ROWS).map(|n| {
            let id = SpanId { vat: VatId::new("v1234"), start: 21_000_000 + n * 200, end: 21_000_200 + n * 200 };
            let image = Some(SeenImage { hash: crate::transcript::sha256(&n.to_le_bytes()), in_row: true });
            SeenSpan { row: row(&id), image }
        });
        let done = Rechecked { learned: learned.collect(), ..Rechecked::default() };
        store.recheck(&done, 1.0).expect("written");
        let bytes = (size(&store) - before) / ROWS;
        println!("{bytes} bytes a row");
        assert!((60..200).contains(&bytes), "{bytes} bytes");
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
        let closed = ids.iter().map(|id| NotedSpan { row: row(id), source: SpanSource::Live, image: None }).collect();
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
        let noted = Noted {
            node: node.clone(),
            vats: vec![NotedVat { vat, closed, forget_from: None }],
            missed: 0,
            alarms: Vec::new(),
            is_replaced: false,
        };
        assert_eq!(store.note(&noted).expect("noted").spans, count);
        assert_eq!(store.note(&noted).expect("noted again").spans, 0, "what is there already stays as it is");
        assert_eq!(store.node().expect("read"), Some(node));
        ids
    }

    fn row(id: &SpanId) -> SpanRow {
        let hash = Some(crate::transcript::sha256(id.to_string().as_bytes()));
        SpanRow { id: id.clone(), hash, is_current: false, incarnation: 0 }
    }

    fn finished(verdict: VerdictKind) -> FinishedSpan {
        let mut tally = Tally::default();
        tally.add(Counter::Spans(verdict), 1);
        FinishedSpan {
            verdict,
            reason: None,
            explanation: None,
            kinds: Vec::new(),
            seen_to: None,
            is_damage: false,
            base: BaseKind::Blank,
            detail: String::new(),
            replay_seconds: 0.0,
            worker_sha256: String::new(),
            tally,
        }
    }

    /// A later version may have written labels that this one does not know; reading them back must neither fail nor lose them.
    #[test]
    fn labels_of_a_later_version_are_listed_as_they_are() {
        let (_dir, store) = store();
        let ids = with_spans(&store, "v1", 1);
        let job = store.due(&row(&ids[0])).expect("read").expect("due");
        store.finish(job.id, &ids[0], &finished(VerdictKind::Verified)).expect("written");
        let later = "UPDATE spans SET verdict = 'doubted', kinds = 'mood,status', base = 'dream';
                     INSERT INTO totals VALUES ('spans', 'doubted', 1), ('rings', '', 2)";
        store.write("pretend", |db| db.execute_batch(later)).expect("written");
        let mut rows = Vec::new();
        store.verdicts(&VerdictFilter::default(), |row| rows.push(row)).expect("read");
        let told = serde_json::to_value(&rows[0]).expect("JSON");
        assert_eq!((&told["verdict"], &told["base"]), (&"doubted".into(), &"dream".into()));
        assert_eq!(told["kinds"], serde_json::json!(["mood", "status"]));
        let tally = store.tally().expect("read");
        assert_eq!(tally.iter().collect::<Vec<_>>(), [(Counter::Spans(VerdictKind::Verified), 1)]);
        assert_eq!(store.totals().expect("read").len(), 3);
        // A span whose source is unknown can't be replayed: that is an error in words.
        store
            .write("pretend", |db| {
                db.execute_batch(
                    "PRAGMA ignore_check_constraints = 1; UPDATE spans SET verdict = NULL, source = 'tape'",
                )
            })
            .expect("written");
        let error = store.due(&row(&ids[0])).expect_err("unknown").to_string();
        assert!(error.contains("\"tape\""), "{error}");
    }

    #[test]
    fn a_verdict_is_written_once() {
        let (_dir, store) = store();
        let ids = with_spans(&store, "v1", 3);
        let first = store.next_job(&HashSet::new(), &HashSet::new()).expect("read").expect("a job");
        assert_eq!(first.row.id, ids[2], "the newest first");
        let mut outcome = finished(VerdictKind::Verified);
        outcome.tally.add(Counter::Deliveries, 4);
        assert!(store.finish(first.id, &ids[2], &outcome).expect("written"));
        let other = FinishedSpan { kinds: vec![FindingKind::Status], ..finished(VerdictKind::Diverged) };
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
        store.postpone(next.id, 60.0, &Failure::WorkerStart(String::new()), true).expect("written");
        assert!(store.next_job(&taken, &HashSet::new()).expect("read").is_none(), "not before a minute");
    }

    #[test]
    fn a_divergence_outlives_what_is_forgotten_until_it_is_acknowledged() {
        let (_dir, store) = store();
        let ids = with_spans(&store, "v1", 2);
        for (id, verdict) in ids.iter().zip([VerdictKind::Verified, VerdictKind::Diverged]) {
            let job = store.due(&row(id)).expect("read").expect("due");
            assert!(store.finish(job.id, id, &finished(verdict)).expect("written"));
        }
        assert_eq!(store.forget_older_than(-1.0).expect("written"), 1);
        let mut rows = Vec::new();
        store.verdicts(&VerdictFilter::default(), |row| rows.push(row)).expect("read");
        assert_eq!((rows.len(), rows[0].verdict.label()), (1, "diverged"));
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
            assert!(store.finish(job.id, id, &finished(verdict)).expect("written"));
        };
        finish(&ids[0], VerdictKind::Verified);
        let full = store.keep_image(images[1], &gzip, (&vat, 5), 1_500);
        assert!(matches!(full, Err(StoreError::CaptureFull { needed: 1_000 })), "the second span still needs it");
        assert!(store.has_image(images[0]).expect("read"));
        // That of a divergence is kept as long as there is room, that of any other verdict is not.
        finish(&ids[1], VerdictKind::Diverged);
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
