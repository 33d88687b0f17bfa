//! How a kernel's database may be opened without harm to the node that owns it.
//!
//! A read-only connection to a database in WAL mode is not harmless when no writer is there: SQLite creates `-wal` and
//! `-shm` beside it, owned by whoever looks, and a node of another user can then no longer write. So the two files and
//! the lock that every live connection holds decide:
//!
//! | `-wal` and `-shm` | lock held | how it is read |
//! |---|---|---|
//! | any | yes | [`Access::Live`]: read-only, beside the writer |
//! | `-wal` absent or empty | no | [`Access::Down`]: `immutable=1`, which touches no file |
//! | `-wal` with content | no | [`Access::Crashed`]: the writer died; a copy of both is read |

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The byte of `-shm` on which every connection in WAL mode holds a shared lock (`UNIX_SHM_DMS` in SQLite's
/// `os_unix.c`).
const SHM_LOCKS: (i64, i64) = (128, 1);
/// The bytes of the database itself that a connection locks: all the time in WAL mode, while it reads or writes in
/// others (`PENDING_BYTE` and what follows in SQLite's `os.h`). One that locks the file exclusively has no `-shm`.
const FILE_LOCKS: (i64, i64) = (0x4000_0000, 512);

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
    /// Decides how the database at `path` may be opened now.
    ///
    /// # Errors
    /// When a file beside it can't be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let wal_bytes = match fs::metadata(beside(path, "-wal")) {
            Ok(wal) => wal.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if is_held(&beside(path, "-shm"), SHM_LOCKS)? || is_held(path, FILE_LOCKS)? {
            Ok(Self::Live)
        } else if wal_bytes == 0 {
            Ok(Self::Down)
        } else {
            Ok(Self::Crashed)
        }
    }
}

/// The path with a suffix on its file name: `swingstore.sqlite-wal`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `F_WRLCK` and `SEEK_SET`, in the type that the structure wants.
const WRITE_LOCK: libc::c_short = 1;
const FROM_START: libc::c_short = 0;

/// Whether any other process holds a lock on these bytes (start and length).
///
/// Closing a descriptor of a file drops every POSIX lock that this process holds on it, those of an open connection
/// too. So this must not run while a connection of ours is open; [`super::KernelDb`] sees to that.
fn is_held(path: &Path, (start, length): (i64, i64)) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut lock = libc::flock { l_type: WRITE_LOCK, l_whence: FROM_START, l_start: start, l_len: length, l_pid: 0 };
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
pub(super) struct Fingerprint(Vec<Option<[i64; 5]>>);

impl Fingerprint {
    /// Of the database at `path` and its `-wal`.
    pub(super) fn of(path: &Path) -> Self {
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
        assert_eq!(Access::of(&path).expect("an answer"), Access::Live);
        writer.kill().expect("kill");
        writer.wait().expect("its end");
        assert_eq!(Access::of(&path).expect("an answer"), Access::Crashed);
        fs::remove_file(beside(&path, "-shm")).expect("remove");
        assert_eq!(Access::of(&path).expect("an answer"), Access::Crashed);
        fs::write(beside(&path, "-wal"), b"").expect("truncate");
        assert_eq!(Access::of(&path).expect("an answer"), Access::Down);
        fs::remove_file(beside(&path, "-wal")).expect("remove");
        assert_eq!(Access::of(&path).expect("an answer"), Access::Down);
    }
}
