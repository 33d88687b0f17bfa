//! How a kernel's database may be opened without harm to the node that owns it.
//!
//! A read-only connection to a database in WAL mode is not harmless when no writer is there: SQLite creates `-wal` and
//! `-shm` beside it, owned by the reader, and a node of another user can then no longer write. So the two files and
//! the lock that every live connection holds decide:
//!
//! | `-wal` and `-shm` | lock held | how it is read |
//! |---|---|---|
//! | any | yes | [`Access::Live`]: read-only, beside the writer |
//! | `-wal` absent or empty | no | [`Access::Down`]: `immutable=1`, which touches no file |
//! | `-wal` with content | no | [`Access::Crashed`]: the writer died; a copy of both is read |
//!
//! Each of these files must be a regular one, and none a link: opening anything else may wait without end, or read another file. They
//! are checked before SQLite is asked; a file that is put there in between is refused by [`crate::files::regular::guard_sqlite`].
//!
//! Owns that decision and the lock that holds it. It must never write, or let SQLite create a file beside the database.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::files::regular::{self, Special};

/// The files that SQLite keeps beside a database, and opens by itself.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The byte of `-shm` on which every connection in WAL mode holds a shared lock (`UNIX_SHM_DMS` in SQLite's
/// `os_unix.c`).
const SHM_LOCKS: (i64, i64) = (128, 1);
/// The bytes of the database itself that only a writer locks, where it is not in WAL mode (`PENDING_BYTE` and
/// `RESERVED_BYTE` in SQLite's `os.h`).
const WRITER_LOCKS: (i64, i64) = (0x4000_0000, 2);
/// Those that all connections share, and a [`Hold`] too (`SHARED_FIRST`, `SHARED_SIZE`): they say nothing of life.
const SHARED_LOCKS: (i64, i64) = (0x4000_0002, 510);

/// Which of the three ways a database is read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A process has the database open.
    Live,
    /// No process has it open, and everything is in the main file.
    Down,
    /// No process has it open, and there are commits that only the `-wal` file holds.
    Crashed,
}

impl Access {
    /// Decides how the database at `path` may be opened, and sees to it that this stays so while the [`Hold`] lives. `None`
    /// while a connection has the whole file to itself, as the last one has for a moment when it leaves.
    ///
    /// # Errors
    /// When the file or one beside it can't be looked at.
    pub(super) fn of(path: &Path) -> io::Result<Option<(Self, Hold)>> {
        let Some(hold) = Hold::take(path)? else { return Ok(None) };
        let is_live = is_held_at(&beside(path, "-shm"), SHM_LOCKS)? || is_held(&hold.0, WRITER_LOCKS)?;
        let access = if is_live {
            Self::Live
        } else if wal_bytes(path)? == 0 {
            Self::Down
        } else {
            Self::Crashed
        };
        Ok(Some((access, hold)))
    }
}

/// The first of the files beside the database that is no regular one, and what it is.
///
/// # Errors
/// When one can't be looked at.
pub(super) fn special_beside(path: &Path) -> io::Result<Option<(PathBuf, Special)>> {
    for suffix in BESIDE {
        let file = beside(path, suffix);
        match regular::check(&file) {
            Ok(()) => {}
            Err(error) => match Special::in_error(&error) {
                Some(special) => return Ok(Some((file, special))),
                None => return Err(error),
            },
        }
    }
    Ok(None)
}

/// The size of the `-wal` file in bytes; 0 without one.
///
/// # Errors
/// When it can't be looked at.
pub(super) fn wal_bytes(path: &Path) -> io::Result<u64> {
    match fs::symlink_metadata(beside(path, "-wal")) {
        Ok(wal) => Ok(wal.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// The head of a `-wal` file's index as it was at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitMark([u8; 48]);

/// Reads it. The head is written twice in a row; a read in between gives a mark that equals no other, which is good enough.
///
/// Source: "The WAL-Index File Format" of SQLite's `walformat.html`.
pub(super) fn commit_mark(path: &Path) -> io::Result<CommitMark> {
    let mut head = [0; 48];
    regular::open(&beside(path, "-shm"))?.read_exact_at(&mut head, 0)?;
    Ok(CommitMark(head))
}

/// A shared lock on the database, of the kind that every connection holds.
///
/// The last connection to leave removes `-wal` and `-shm`, and for that it needs the database to itself. So a writer that
/// was there when this was taken cannot remove them before this is given back, and SQLite, which opens the database in
/// between, does not create them anew as ours. Where the lock is refused they may be about to be removed: SQLite would wait
/// for that and then create them, so it must not be asked to open the database.
///
/// SQLite closing its own descriptor of the file gives this back too, so it is only for the moment before a read.
#[derive(Debug)]
pub(super) struct Hold(File);

impl Hold {
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = regular::open(path)?;
        let lock = byte_range(READ_LOCK, SHARED_LOCKS);
        #[expect(unsafe_code, reason = "no safe wrapper locks a byte range that starts elsewhere than at 0")]
        // SAFETY: the descriptor is open, and F_SETLK only reads the structure, which outlives the call.
        let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) };
        match answer {
            -1 => {
                let error = io::Error::last_os_error();
                let is_refused = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES));
                if is_refused { Ok(None) } else { Err(error) }
            }
            _ => Ok(Some(Self(file))),
        }
    }
}

/// The path with a suffix on its file name: `swingstore.sqlite-wal`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `F_RDLCK`, `F_WRLCK` and `SEEK_SET`, in the type that the structure wants.
const READ_LOCK: libc::c_short = 0;
const WRITE_LOCK: libc::c_short = 1;
const FROM_START: libc::c_short = 0;

fn byte_range(kind: libc::c_short, (start, length): (i64, i64)) -> libc::flock {
    libc::flock { l_type: kind, l_whence: FROM_START, l_start: start, l_len: length, l_pid: 0 }
}

/// Whether any other process holds a lock on these bytes (start and length) of the file at a path.
///
/// Closing a descriptor of a file drops every POSIX lock that this process holds on it, those of an open connection
/// too. So this must not run while a connection of ours is open; [`super::KernelDb`] sees to that.
fn is_held_at(path: &Path, bytes: (i64, i64)) -> io::Result<bool> {
    match regular::open(path) {
        Ok(file) => is_held(&file, bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_held(file: &File, bytes: (i64, i64)) -> io::Result<bool> {
    let mut lock = byte_range(WRITE_LOCK, bytes);
    #[expect(unsafe_code, reason = "no safe wrapper asks about a byte range that starts elsewhere than at 0")]
    // SAFETY: the descriptor is open, and F_GETLK writes only into the structure that it is given, which outlives it.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) };
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<Option<[i64; 5]>>);

impl Fingerprint {
    /// Of the database at `path` and its `-wal`.
    pub(crate) fn of(path: &Path) -> Self {
        let of_one = |path: &Path| {
            let meta = fs::metadata(path).ok()?;
            Some([meta.dev() as i64, meta.ino() as i64, meta.size() as i64, meta.mtime(), meta.mtime_nsec()])
        };
        Self(vec![of_one(path), of_one(&beside(path, "-wal"))])
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the database is one of the test's own")]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use std::process::{Command, Stdio};

    /// The lock of a connection of this process does not show to this process, so the writer must be another one: a
    /// child that keeps its connection until its input ends. Here it is this test binary itself.
    #[test]
    fn a_live_writer_is_seen_and_a_dead_one_too() {
        const CHILD: &str = "SPANWATCH_TEST_WRITER";
        if let Some(path) = std::env::var_os(CHILD) {
            let db = Connection::open(path).expect("open");
            db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);").expect("write");
            println!("written");
            let _ = io::stdin().read_line(&mut String::new());
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("db.sqlite");
        let mut writer = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "kernel_db::access::tests::a_live_writer_is_seen_and_a_dead_one_too", "--nocapture"])
            .env(CHILD, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut output = io::BufReader::new(writer.stdout.take().expect("its output"));
        let mut line = String::new();
        while !line.contains("written") {
            line.clear();
            assert_ne!(io::BufRead::read_line(&mut output, &mut line).expect("a line"), 0, "the child ended early");
        }
        assert_eq!(Access::of(&path).expect("an answer").expect("not locked").0, Access::Live);
        writer.kill().expect("kill");
        writer.wait().expect("its end");
        assert_eq!(Access::of(&path).expect("an answer").expect("not locked").0, Access::Crashed);
        fs::remove_file(beside(&path, "-shm")).expect("remove");
        assert_eq!(Access::of(&path).expect("an answer").expect("not locked").0, Access::Crashed);
        fs::write(beside(&path, "-wal"), b"").expect("truncate");
        assert_eq!(Access::of(&path).expect("an answer").expect("not locked").0, Access::Down);
        fs::remove_file(beside(&path, "-wal")).expect("remove");
        assert_eq!(Access::of(&path).expect("an answer").expect("not locked").0, Access::Down);
    }
}
