//! The node's database. This is the only room that knows its schema and the only one that opens it.
//!
//! Owns: where the file is, how it may be opened without harm ([`Access`]), and the queries. Everything is read in
//! short transactions: [`KernelDb::read`] opens, reads, copies and closes, and nothing of the database outlives it.
//!
//! It must never write, checkpoint, or hold a connection between two reads, and it believes nothing: hashes are checked
//! by those who use what it returns.
//!
//! Source of the schema: `@agoric/swing-store` 0.10.0 (`src/transcriptStore.js`, `snapStore.js`, `bundleStore.js`).

mod access;
mod census;
mod news;
mod query;
mod rows;
mod vatstore;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::files::regular::{self, Special};
use crate::files::temp::{Purpose, TempDir};

use access::Hold;
pub use access::{Access, CommitMark};
pub(crate) use access::{Fingerprint, beside};
pub(crate) use census::{Edges, VatLists};
pub(crate) use news::{ClosedSpans, Head, Identity, Kept, NewItems, Pulse, Reread, RowKey};
pub use query::{OptionsFault, Reader, SchemaFault};
pub(crate) use rows::WorkerKeys;
pub use rows::{BundleRow, ItemsRead, SnapshotRow, SpanRow, VatOptions, WorkerType};
pub(crate) use vatstore::{VatstoreRow, VatstoreRows, VatstoreValue};

/// The file's name inside the kernel's directory (`dbFileInDirectory` in `swing-store/src/util.js`).
const FILE_NAME: &str = "swingstore.sqlite";
/// The time that a read waits for a lock: around a writer's close `database is locked` is seen for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// A copy of a database leaves this much room where it is made, in bytes.
const ROOM_TO_LEAVE: u64 = 1 << 30;
/// The pause before a database that is locked as a whole is tried again.
const LOCKED_PAUSE: Duration = Duration::from_millis(200);
/// The attempts at a read during which the file changes.
const TRIES_MAX: u32 = 5;

/// Why the database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// There is no such file.
    #[error("no kernel database at {}: give the file swingstore.sqlite or the directory that holds it (on a chain node: ~/.agoric/data/agoric)", .0.display())]
    NotFound(PathBuf),
    /// The file or one beside it can't be looked at or copied.
    #[error("failed to {what} {}: {source}; {hint}", path.display())]
    Io {
        /// The action that failed, as in "failed to …".
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The remedy.
        hint: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("failed to read the kernel database {}: {source}; {}", path.display(), sqlite_hint(source))]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The file, or one beside it, is a device, a FIFO or something else of the kind.
    #[error("failed to open {}, which is part of the kernel's database: {special}; links are followed on the way to the database itself only", path.display())]
    Special {
        /// The file.
        path: PathBuf,
        /// The kind of file.
        special: Special,
    },
    /// A table or column is missing.
    #[error("{} is not a kernel database that spanwatch knows: {fault}; expected what @agoric/swing-store 0.10 writes", path.display())]
    Schema {
        /// The database.
        path: PathBuf,
        /// The table or column that is missing.
        fault: SchemaFault,
    },
    /// A process keeps the whole file locked.
    #[error("another process locks the whole file {} (a backup or VACUUM?): try again when it is done", .0.display())]
    Locked(PathBuf),
    /// No process has it open, there are commits that only the `-wal` file has, and a copy may not be made.
    #[error("the node stopped without checkpointing its WAL beside {}, as when it is killed or the database is read while it stops; the last commits can be read once it runs again", .0.display())]
    Crashed(PathBuf),
    /// The file kept changing although no process seemed to have it open.
    #[error("{} changed during each of {TRIES_MAX} reads while no process held it open; is it being copied or restored? Try again when that is done", .0.display())]
    Unsteady(PathBuf),
}

fn sqlite_hint(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::NotADatabase) => "the file is not an SQLite database, or its start is damaged",
        Some(Code::DatabaseCorrupt) => {
            "the file is damaged: try `PRAGMA integrity_check` on a copy, or restore a backup"
        }
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            "another process locks the whole file (a backup or VACUUM?): try again when it is done"
        }
        Some(Code::CannotOpen | Code::PermissionDenied) => "may this user read the file, its -wal and its -shm?",
        _ => "if it persists, check the file with `PRAGMA integrity_check` on a copy",
    }
}

/// A kernel's database, found but not open.
///
/// There must be one of these at most for each file in a process: see [`Access`] on locks.
#[derive(Debug)]
pub struct KernelDb {
    path: PathBuf,
    /// Whether a database whose writer died may be copied: that needs as much room again.
    may_copy: bool,
    /// The file that the path led to last, if it is another one than the path says.
    led_to: Mutex<Option<PathBuf>>,
    /// The file whose tables were looked at already.
    known_schema: Mutex<Option<Identity>>,
    /// Taken for the whole of each read, so that there is one connection at most; holds the copy that is read in place
    /// of a database whose writer died.
    copy: Mutex<Option<CopyOfCrashed>>,
}

#[derive(Debug)]
struct CopyOfCrashed {
    of: Fingerprint,
    dir: TempDir,
}

impl DbError {
    /// Whether it is only that the node is away.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Crashed(_))
    }
}

impl KernelDb {
    /// Finds the database: `path` is the file or the directory that holds it.
    ///
    /// # Errors
    /// When there is no database.
    pub fn locate(path: &Path) -> Result<Self, DbError> {
        let file = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        // The real file: SQLite looks for the -wal beside it, not beside a link to it.
        let file = fs::canonicalize(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DbError::NotFound(file.clone()),
            _ => DbError::Io { what: "look at", path: file.clone(), hint: "may this user read the directory?", source },
        })?;
        let metadata = fs::metadata(&file).map_err(|source| DbError::Io {
            what: "look at",
            path: file.clone(),
            hint: "may this user read the directory?",
            source,
        })?;
        if let Some(special) = Special::of(&metadata) {
            return Err(DbError::Special { path: file, special });
        }
        Ok(Self {
            path: file,
            may_copy: true,
            led_to: Mutex::default(),
            known_schema: Mutex::default(),
            copy: Mutex::default(),
        })
    }

    /// A database that need not be there yet, read beside its node for as long as it lives. No copy is ever made of it.
    #[must_use]
    pub fn beside_a_node(path: &Path) -> Self {
        let is_file = path.extension().is_some_and(|extension| extension == "sqlite") && !path.is_dir();
        let path = if is_file { path.to_owned() } else { path.join(FILE_NAME) };
        Self { path, may_copy: false, led_to: Mutex::default(), known_schema: Mutex::default(), copy: Mutex::default() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The way in which the database would be opened now.
    ///
    /// # Errors
    /// When a file beside it can't be looked at.
    pub fn access(&self) -> Result<Access, DbError> {
        let _one_at_a_time = self.lock();
        Ok(self.access_now(&self.real_path()?)?.map_or(Access::Live, |(access, _)| access))
    }

    /// The identity of the file that is there now.
    ///
    /// # Errors
    /// When there is no database, or its files can't be examined.
    pub fn identity(&self) -> Result<Identity, DbError> {
        identity(&self.real_path()?)
    }

    /// The head of the index of the `-wal` file (the first part of `-shm`), which every commit changes: while it is the
    /// same, the database need not be read. `None` if the file is absent.
    #[must_use]
    pub fn commit_mark(&self) -> Option<CommitMark> {
        // Closing a descriptor of -shm drops the locks of an open connection.
        let _one_at_a_time = self.lock();
        access::commit_mark(&self.real_path().ok()?).ok()
    }

    /// The size of the `-wal` file beside it, in bytes.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.real_path().ok().and_then(|path| access::wal_bytes(&path).ok()).unwrap_or(0)
    }

    /// The real file: SQLite looks for the -wal beside it, not beside a link to it. Each read follows links once, here, and the log
    /// has where they lead whenever that changes.
    fn real_path(&self) -> Result<PathBuf, DbError> {
        let real = fs::canonicalize(&self.path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DbError::NotFound(self.path.clone()),
            _ => {
                let hint = "may this user read the directory?";
                DbError::Io { what: "look at", path: self.path.clone(), hint, source }
            }
        })?;
        let mut led_to = self.led_to.lock().unwrap_or_else(PoisonError::into_inner);
        if *led_to.as_ref().unwrap_or(&self.path) != real {
            tracing::info!("the path {} leads to the database {}", self.path.display(), real.display());
            *led_to = Some(real.clone());
        }
        Ok(real)
    }

    /// Opens the database, runs `reading` in one read transaction, and closes it.
    ///
    /// `reading` runs again from the start if the file changed under it, so it must not keep what an earlier run saw.
    ///
    /// # Errors
    /// When the database can't be opened, is not a kernel's, or `reading` fails.
    pub fn read<T>(&self, reading: impl Fn(&Reader<'_>) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let mut copy = self.lock();
        let mut is_locked = false;
        for attempt in 1..=TRIES_MAX {
            let real = self.real_path()?;
            let before = Fingerprint::of(&real);
            let Some((access, hold)) = self.access_now(&real)? else {
                std::thread::sleep(LOCKED_PAUSE);
                is_locked = true;
                continue;
            };
            is_locked = false;
            let path = match access {
                Access::Live | Access::Down => real.clone(),
                Access::Crashed if !self.may_copy => return Err(DbError::Crashed(self.path.clone())),
                Access::Crashed => match self.copy_of_crashed(&real, &mut copy, &before)? {
                    Some(path) => path,
                    None => continue,
                },
            };
            let read = self.read_once(&path, access, &reading);
            drop(hold);
            // Nothing guards an immutable read against a writer that starts meanwhile, so the files must be unchanged.
            if access == Access::Down && Fingerprint::of(&real) != before {
                continue;
            }
            // Around the start and the end of the node a lock or a missing file is seen for a moment.
            if attempt < TRIES_MAX && read.as_ref().is_err_and(Fault::may_pass) {
                std::thread::sleep(LOCKED_PAUSE);
                continue;
            }
            return read.map_err(|fault| match fault {
                Fault::Sqlite(source) => DbError::Sqlite { path: self.path.clone(), source },
                Fault::Schema(fault) => DbError::Schema { path: self.path.clone(), fault },
            });
        }
        Err(if is_locked { DbError::Locked(self.path.clone()) } else { DbError::Unsteady(self.path.clone()) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<CopyOfCrashed>> {
        // A panic elsewhere leaves nothing half done here: the copy is replaced as a whole.
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access_now(&self, real: &Path) -> Result<Option<(Access, Hold)>, DbError> {
        let look = || {
            if let Some((path, special)) = access::special_beside(real)? {
                return Ok(Err(DbError::Special { path, special }));
            }
            Access::of(real).map(Ok)
        };
        look().unwrap_or_else(|source: io::Error| {
            let path = real.to_owned();
            Err(match Special::in_error(&source) {
                Some(special) => DbError::Special { path, special },
                None if may_not_read(real) => {
                    let hint =
                        "this user may not read the file itself; let its group or an ACL in (docs/operations.md)";
                    DbError::Io { what: "open the kernel database", path, hint, source }
                }
                None => {
                    let hint = "may this user read the -wal and -shm files?";
                    DbError::Io { what: "look beside", path, hint, source }
                }
            })
        })
    }

    /// The copy to read, made or still good; `None` if the files changed while they were copied.
    fn copy_of_crashed(
        &self,
        real: &Path,
        copy: &mut Option<CopyOfCrashed>,
        now: &Fingerprint,
    ) -> Result<Option<PathBuf>, DbError> {
        if copy.as_ref().is_none_or(|copy| copy.of != *now) {
            *copy = None;
            let failed = |source| DbError::Io {
                what: "copy, as its writer died and left commits in the -wal file,",
                path: self.path.clone(),
                hint: "is there room for a copy in the temporary directory (TMPDIR)? Or start and stop the node once",
                source,
            };
            // First, as it makes room: what a run that was killed left is removed with it.
            let dir = TempDir::new(Purpose::Copy).map_err(failed)?;
            let needed = fs::metadata(real).map_err(failed)?.len();
            let needed = needed + access::wal_bytes(real).map_err(failed)?;
            let room = rustix::fs::statvfs(dir.path()).map_err(|error| failed(error.into()))?;
            let room = room.f_bavail.saturating_mul(room.f_frsize);
            if room < needed + ROOM_TO_LEAVE {
                let what = format!("it has {needed} bytes, and there is room for {room}");
                return Err(failed(io::Error::new(io::ErrorKind::StorageFull, what)));
            }
            let to = dir.path().join(FILE_NAME);
            copy_file(real, &to).map_err(failed)?;
            copy_file(&beside(real, "-wal"), &beside(&to, "-wal")).map_err(failed)?;
            if Fingerprint::of(real) != *now {
                return Ok(None);
            }
            *copy = Some(CopyOfCrashed { of: now.clone(), dir });
        }
        Ok(copy.as_ref().map(|copy| copy.dir.path().join(FILE_NAME)))
    }

    fn read_once<T>(
        &self,
        path: &Path,
        access: Access,
        reading: impl Fn(&Reader<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        // A copy is ours: SQLite may recover its WAL.
        let (mode, flag) = match access {
            Access::Live => ("mode=ro", OpenFlags::SQLITE_OPEN_READ_ONLY),
            Access::Down => ("mode=ro&immutable=1", OpenFlags::SQLITE_OPEN_READ_ONLY),
            Access::Crashed => ("mode=rw", OpenFlags::SQLITE_OPEN_READ_WRITE),
        };
        regular::guard_sqlite();
        let flags = flag | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(format!("file:{}?{mode}", uri_path(path)), flags)?;
        db.busy_timeout(BUSY_TIMEOUT)?;
        db.pragma_update(None, "trusted_schema", false)?;
        let transaction = db.transaction()?;
        // Looking at every table costs more than a poll does, so it is done once for each file.
        let file = identity(path).ok();
        let mut known = self.known_schema.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() || *known != file {
            query::check_schema(&transaction)?.map_err(Fault::Schema)?;
            *known = file;
        }
        drop(known);
        Ok(reading(&Reader::new(&transaction, access))?)
    }
}

/// Copies a regular file into a new one.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    io::copy(&mut regular::open(from)?, &mut fs::File::create_new(to)?).map(drop)
}

/// Whether this user is refused a file.
fn may_not_read(path: &Path) -> bool {
    regular::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn identity(path: &Path) -> Result<Identity, DbError> {
    let meta = fs::metadata(path).map_err(|source| DbError::Io {
        what: "look at",
        path: path.to_owned(),
        hint: "may this user read the directory?",
        source,
    })?;
    Ok(Identity { device: meta.dev(), inode: meta.ino() })
}

enum Fault {
    Sqlite(rusqlite::Error),
    Schema(SchemaFault),
}

impl Fault {
    fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        let Self::Sqlite(error) = self else { return false };
        let code = error.sqlite_error_code();
        matches!(code, Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::CannotOpen | Code::ReadOnly))
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A path as SQLite's URI file names want it.
pub(crate) fn uri_path(path: &Path) -> String {
    let mut uri = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.push_str(&format!("%{byte:02x}")),
            0x80.. => uri.push_str(&format!("%{byte:02x}")),
            _ => uri.push(char::from(*byte)),
        }
    }
    uri
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the database is one of the test's own")]
mod tests {
    use super::*;
    use rusqlite::params;

    #[test]
    fn paths_survive_the_uri() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a?b#c%20 é");
        Connection::open(&path).expect("create").execute_batch("CREATE TABLE t (x)").expect("write");
        let uri = format!("file:{}?mode=ro&immutable=1", uri_path(&path));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let db = Connection::open_with_flags(uri, flags).expect("open");
        db.prepare("SELECT x FROM t").expect("the table is there");
    }

    /// What a look reads depends on the number of vats and of the rows that are read again, not on how many there are.
    #[test]
    fn a_look_costs_the_same_however_long_the_history_is() {
        const VATS: u64 = 20;
        let dir = tempfile::tempdir().expect("a directory");
        let database = |spans: u64| {
            let path = dir.path().join(format!("{spans}.sqlite"));
            let mut writer = Connection::open(&path).expect("create");
            writer
                .execute_batch(
                    "CREATE TABLE transcriptSpans (vatID TEXT, startPos INTEGER, endPos INTEGER, hash TEXT, isCurrent INTEGER, \
                     incarnation INTEGER, PRIMARY KEY (vatID, startPos), UNIQUE (vatID, isCurrent)); \
                     CREATE TABLE snapshots (vatID TEXT, snapPos INTEGER, hash TEXT, PRIMARY KEY (vatID, snapPos)); \
                     CREATE TABLE kvStore (key TEXT, value TEXT, PRIMARY KEY (key)); \
                     INSERT INTO kvStore VALUES ('vat.dynamicIDs', '[\"v1\"]')",
                )
                .expect("a schema");
            let transaction = writer.transaction().expect("begin");
            for vat in 1..=VATS {
                for at in 0..spans {
                    let current = (at + 1 == spans).then_some(1);
                    let values =
                        params![format!("v{vat}"), at as i64 * 10, at as i64 * 10 + 10, "7".repeat(64), current];
                    transaction
                        .execute("INSERT INTO transcriptSpans VALUES (?, ?, ?, ?, ?, 0)", values)
                        .expect("write");
                    let values = params![format!("v{vat}"), at as i64 * 10 + 9, "7".repeat(64)];
                    transaction.execute("INSERT INTO snapshots VALUES (?, ?, ?)", values).expect("write");
                }
            }
            transaction.commit().expect("commit");
            path
        };
        let bytes_read = |path: &Path| {
            let read = || {
                let io = std::fs::read_to_string("/proc/thread-self/io").expect("read");
                let bytes = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("what was read");
                bytes.parse::<usize>().expect("a number")
            };
            let before = read();
            let db = Connection::open(path).expect("open");
            let reader = Reader::new(&db, Access::Live);
            assert_eq!(reader.heads().expect("heads").len() as u64, VATS);
            assert_eq!(reader.living_vats().expect("lists").map(|living| living.len()), Some(1));
            let again = reader.reread(&("v1".to_owned(), 1_000), 100).expect("rows");
            assert!(again.len() == 100 && again.iter().all(|row| row.row.is_some()));
            assert!(reader.last_start(&crate::transcript::VatId::new("v1")).expect("a row") > Some(1_000));
            read() - before
        };
        let (short, long) = (bytes_read(&database(250)), bytes_read(&database(5_000)));
        println!("{short} bytes with 250 spans a vat, {long} with 5000");
        assert!(long < short * 2, "{short} bytes with 250 spans a vat, {long} with 5000");
    }

    /// SQLite follows a large value to its end where only its presence is asked for in another way.
    #[test]
    fn a_look_at_the_rows_does_not_read_images() {
        const IMAGE_BYTES: usize = 32 << 20;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("swingstore.sqlite");
        let writer = Connection::open(&path).expect("create");
        let schema = "CREATE TABLE snapshots (vatID, snapPos, inUse, hash, uncompressedSize, compressedSize, compressedSnapshot);
            CREATE TABLE bundles (bundleID, bundle)";
        writer.execute_batch(schema).expect("write");
        let bytes = vec![7_u8; IMAGE_BYTES];
        let hash = "7".repeat(64);
        writer.execute("INSERT INTO snapshots VALUES ('v1', 9, 1, ?, 9, 9, ?)", params![hash, bytes]).expect("write");
        writer.execute("INSERT INTO bundles VALUES ('b0-lockdown', ?)", [bytes]).expect("write");
        drop(writer);
        let read = || {
            let io = std::fs::read_to_string("/proc/thread-self/io").expect("read");
            let bytes = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("what was read");
            bytes.parse::<usize>().expect("a number")
        };
        let before = read();
        let reader = Connection::open(&path).expect("open");
        let reader = Reader::new(&reader, Access::Live);
        let snapshots = reader.snapshots().expect("rows");
        assert!(snapshots.len() == 1 && snapshots[0].has_image, "{snapshots:?}");
        assert!(
            reader.snapshot(&crate::transcript::VatId::new("v1"), 9).expect("a row").is_some_and(|row| row.has_image)
        );
        assert!(reader.bundles().expect("rows")[0].is_present);
        assert!(read() - before < IMAGE_BYTES / 10, "{} bytes were read", read() - before);
    }
}
