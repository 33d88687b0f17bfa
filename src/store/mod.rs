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
mod tests;
