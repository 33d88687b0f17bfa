//! Files as input: a regular file, or an error that names what is there instead.
//!
//! Opening a FIFO waits for a writer, reading a device may never end, and a symbolic link leads to a file that another user chose. So
//! every file that others may have put there is opened here: without blocking, and checked before a byte is read. SQLite opens its files
//! itself; [`guard_sqlite`] puts the same check below it.
//!
//! Owns how files and directories are opened. It must never wait for a file, or decide how much of one is read: each reader has its own
//! limit.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path};
use std::sync::Once;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The flags of every open: it does not wait for the writer of a FIFO, and no terminal becomes ours.
const FLAGS: OFlags = OFlags::NONBLOCK.union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// The kind of file at a path in place of a regular one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is {}, not a regular file", self.name())]
pub enum Special {
    /// A symbolic link, where none is followed.
    Link,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device, such as a terminal or `/dev/zero`.
    CharacterDevice,
    /// A block device, such as a disk.
    BlockDevice,
    /// A kind that this program does not know.
    Unknown,
}

impl Special {
    fn name(self) -> &'static str {
        match self {
            Self::Link => "a symbolic link",
            Self::Directory => "a directory",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::CharacterDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Unknown => "a special file",
        }
    }

    /// The kind of a file that is not regular.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let kind = metadata.file_type();
        Some(match () {
            () if kind.is_file() => return None,
            () if kind.is_symlink() => Self::Link,
            () if kind.is_dir() => Self::Directory,
            () if kind.is_fifo() => Self::Fifo,
            () if kind.is_socket() => Self::Socket,
            () if kind.is_char_device() => Self::CharacterDevice,
            () if kind.is_block_device() => Self::BlockDevice,
            () => Self::Unknown,
        })
    }

    /// The kind of file that an error of this module names, if it names one.
    #[must_use]
    pub fn in_error(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

impl From<Special> for io::Error {
    fn from(special: Special) -> Self {
        Self::new(io::ErrorKind::InvalidInput, special)
    }
}

/// Opens a regular file for reading. The last part of the path must be no link; those before it may be.
///
/// # Errors
/// A [`Special`] when something else is there; otherwise what the system says.
pub fn open(path: &Path) -> io::Result<File> {
    // A device may do something on being opened alone, so it is looked at before.
    refuse_special(&std::fs::symlink_metadata(path)?)?;
    checked(rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | FLAGS, Mode::empty()))
}

/// Opens a regular file that the operator names for reading: links are followed.
///
/// # Errors
/// As those of [`open`].
pub fn open_named(path: &Path) -> io::Result<File> {
    refuse_special(&std::fs::metadata(path)?)?;
    checked(rustix::fs::open(path, OFlags::RDONLY | FLAGS, Mode::empty()))
}

/// Opens a regular file below a directory for reading. No part of the name may be a link, nor lead out of the directory; the
/// directory itself may be reached by links.
///
/// # Errors
/// As those of [`open`]; also when the name is absolute or has a `..`.
pub fn open_in(directory: &Path, name: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut parent = rustix::fs::open(directory, flags, Mode::empty())?;
    let mut parts = name.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else { break };
        if parts.peek().is_none() {
            let path = CString::new(part.as_bytes()).map_err(io::Error::other)?;
            refuse_special(&looked_at(&parent, &path)?)?;
            return checked(rustix::fs::openat(
                &parent,
                path,
                OFlags::RDONLY | OFlags::NOFOLLOW | FLAGS,
                Mode::empty(),
            ));
        }
        parent = rustix::fs::openat(&parent, part, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|error| {
            match error {
                // A link is no directory to the system where it is not followed.
                Errno::LOOP | Errno::NOTDIR => io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} is no directory", Path::new(part).display()),
                ),
                other => other.into(),
            }
        })?;
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} does not lead to a file below it", name.display())))
}

/// Opens a regular file of ours for reading and writing, and makes it with this mode if it is not there. Its content stays. Neither a
/// link nor anything else than a regular file is opened.
///
/// # Errors
/// As those of [`open`].
pub fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => refuse_special(&metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | FLAGS;
    checked(rustix::fs::open(path, flags, Mode::from_raw_mode(mode)))
}

/// Makes a regular file with this mode, and opens it for reading and writing.
///
/// # Errors
/// When the name exists, even as a link to nowhere; otherwise what the system says.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | FLAGS;
    checked(rustix::fs::open(path, flags, Mode::from_raw_mode(mode)))
}

/// Opens a directory; the last part of the path must be no link.
///
/// # Errors
/// When it is no directory, or the system refuses.
pub fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The directory in which a path is.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// All of a file, if it has no more bytes than that.
///
/// # Errors
/// When it has more, or can't be read.
pub fn read_to_end(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        let what = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(content)
}

/// Whether a path may be opened: it is a regular file, or nothing is there.
///
/// # Errors
/// A [`Special`] when something else is there, a link among them; otherwise what the system says.
pub fn check(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => refuse_special(&metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn refuse_special(metadata: &Metadata) -> io::Result<()> {
    Special::of(metadata).map_or(Ok(()), |special| Err(special.into()))
}

/// The metadata of a name in an open directory.
fn looked_at(parent: &OwnedFd, name: &CStr) -> io::Result<Metadata> {
    let file = rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    File::from(file).metadata()
}

/// The opened file, if it is regular: between the look and the open another may have taken its place.
fn checked(opened: rustix::io::Result<OwnedFd>) -> io::Result<File> {
    match opened {
        Ok(file) => {
            let file = File::from(file);
            refuse_special(&file.metadata()?)?;
            Ok(file)
        }
        Err(Errno::LOOP) => Err(Special::Link.into()),
        // Linux refuses to open a socket so, and a FIFO for writing that has no reader.
        Err(Errno::NXIO) => Err(Special::Socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// The one special file that SQLite reads: the source of its random numbers.
const RANDOM: &CStr = c"/dev/urandom";

/// Makes SQLite refuse all but regular files (and directories, to make a file's name last), and wait for none. SQLite opens the `-wal`,
/// `-shm` and `-journal` of a database itself, by when another file may be there than was checked.
pub fn guard_sqlite() {
    static GUARDED: Once = Once::new();
    GUARDED.call_once(|| {
        #[expect(unsafe_code, reason = "SQLite has its system calls replaced through pointers")]
        // SAFETY: the default file system of SQLite lives as long as the program; its functions take itself first. SQLite calls what it is
        // given as the `open` that it replaces, with three arguments (`osOpen` in its os_unix.c).
        unsafe {
            let system = rusqlite::ffi::sqlite3_vfs_find(std::ptr::null());
            let Some(replace) = system.as_ref().and_then(|system| system.xSetSystemCall) else { return };
            let open = std::mem::transmute::<
                unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int,
                unsafe extern "C" fn(),
            >(open_for_sqlite);
            replace(system, c"open".as_ptr(), Some(open));
        }
    });
}

#[expect(unsafe_code, reason = "stands in for a function of C")]
/// `open` as SQLite calls it. A refusal is `EINVAL`, which SQLite reports as a file that can't be opened.
unsafe extern "C" fn open_for_sqlite(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: SQLite gives a path that ends with a NUL; the structure is filled in before it is read, and the number is ours to close.
    unsafe {
        let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let file = libc::open(path, flags, mode);
        if file < 0 || CStr::from_ptr(path) == RANDOM {
            return file;
        }
        let mut stat: libc::stat = std::mem::zeroed();
        let kind = if libc::fstat(file, &raw mut stat) == 0 { stat.st_mode & libc::S_IFMT } else { 0 };
        if kind == libc::S_IFREG || kind == libc::S_IFDIR {
            return file;
        }
        libc::close(file);
        *libc::__errno_location() = libc::EINVAL;
        -1
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the database is one of the test's own")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    /// A directory with one thing of each kind, and a regular file.
    fn kinds() -> (tempfile::TempDir, Vec<(&'static str, &'static str)>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("regular"), "content").expect("write");
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
        drop(UnixListener::bind(path("socket")).expect("a socket"));
        std::fs::create_dir(path("directory")).expect("a directory");
        symlink("regular", path("link")).expect("a link");
        symlink("/dev/zero", path("link-to-zero")).expect("a link");
        symlink("fifo", path("link-to-fifo")).expect("a link");
        symlink("nowhere", path("link-to-nothing")).expect("a link");
        let named = vec![
            ("fifo", "it is a FIFO, not a regular file"),
            ("socket", "it is a socket, not a regular file"),
            ("directory", "it is a directory, not a regular file"),
            ("link", "it is a symbolic link, not a regular file"),
            ("link-to-zero", "it is a symbolic link, not a regular file"),
            ("link-to-fifo", "it is a symbolic link, not a regular file"),
            ("link-to-nothing", "it is a symbolic link, not a regular file"),
        ];
        (dir, named)
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (dir, kinds) = kinds();
        let path = |name: &str| dir.path().join(name);
        let content = |file: io::Result<File>| read_to_end(file.expect("a file"), 7).expect("read");
        assert_eq!(content(open(&path("regular"))), b"content");
        assert_eq!(content(open_in(dir.path(), Path::new("regular"))), b"content");
        assert_eq!(content(open_or_create(&path("regular"), 0o600)), b"content");
        check(&path("regular")).expect("a regular file");
        check(&path("nothing")).expect("nothing");
        for (name, says) in kinds {
            let refused = [
                open(&path(name)).map(drop),
                open_in(dir.path(), Path::new(name)).map(drop),
                open_or_create(&path(name), 0o600).map(drop),
                check(&path(name)),
            ];
            for (number, refused) in refused.into_iter().enumerate() {
                let error = refused.expect_err(name);
                assert_eq!(error.to_string(), says, "{name}, {number}");
                assert!(Special::in_error(&error).is_some(), "{name}");
            }
        }
        assert_eq!(
            open(Path::new("/dev/zero")).expect_err("a device").to_string(),
            Special::CharacterDevice.to_string()
        );
        assert_eq!(open(&path("nothing")).expect_err("nothing").kind(), io::ErrorKind::NotFound);
        assert!(!path("nowhere").exists(), "a link was followed to make a file");
    }

    /// What an operator names may be a link, and must be a regular file all the same.
    #[test]
    fn links_are_followed_where_the_operator_names_a_file() {
        let (dir, _) = kinds();
        open_named(&dir.path().join("link")).expect("a link to a regular file");
        for (name, special) in [
            ("fifo", Special::Fifo),
            ("link-to-fifo", Special::Fifo),
            ("link-to-zero", Special::CharacterDevice),
            ("socket", Special::Socket),
            ("directory", Special::Directory),
        ] {
            let error = open_named(&dir.path().join(name)).expect_err(name);
            assert_eq!(Special::in_error(&error), Some(special), "{name}");
        }
    }

    #[test]
    fn no_name_leads_out_of_its_directory() {
        let (dir, _) = kinds();
        let inner = dir.path().join("directory");
        std::fs::write(inner.join("file"), "x").expect("write");
        symlink("directory", dir.path().join("link-to-directory")).expect("a link");
        open_in(dir.path(), Path::new("directory/file")).expect("a file");
        open_in(&dir.path().join("link-to-directory"), Path::new("file")).expect("a directory that a link leads to");
        for name in ["link-to-directory/file", "regular/file", "../x", "directory/../regular", "/etc/passwd", ".", ""] {
            let error = open_in(dir.path(), Path::new(name)).expect_err(name);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
    }

    #[test]
    fn a_limit_is_a_limit() {
        let (dir, _) = kinds();
        let file = || open(&dir.path().join("regular")).expect("a file");
        assert_eq!(read_to_end(file(), 6).expect_err("too long").to_string(), "it has more than 6 bytes");
        assert_eq!(read_to_end(file(), 7).expect("read"), b"content");
    }

    /// What lies there when SQLite opens it counts, and not what was there when we looked.
    #[test]
    fn sqlite_opens_nothing_else_either() {
        guard_sqlite();
        let (dir, _) = kinds();
        let database = dir.path().join("db.sqlite");
        let db = rusqlite::Connection::open(&database).expect("open");
        db.execute_batch("CREATE TABLE t (x)").expect("write");
        drop(db);
        for suffix in ["-journal", "-wal", "-shm"] {
            let mut beside = database.clone().into_os_string();
            beside.push(suffix);
            if suffix != "-journal" {
                let db = rusqlite::Connection::open(&database).expect("open");
                db.execute_batch("PRAGMA journal_mode = WAL").expect("write");
            }
            let mode = Mode::from_raw_mode(0o444);
            rustix::fs::mknodat(rustix::fs::CWD, &beside, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            let db = rusqlite::Connection::open_with_flags(&database, flags).expect("open");
            let error = db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).expect_err(suffix);
            // To SQLite a journal that can't be opened is one that this connection may not roll back.
            let code =
                if suffix == "-journal" { rusqlite::ErrorCode::ReadOnly } else { rusqlite::ErrorCode::CannotOpen };
            assert_eq!(error.sqlite_error_code(), Some(code), "{suffix}: {error}");
            std::fs::remove_file(&beside).expect("remove");
        }
        let db = rusqlite::Connection::open(dir.path().join("fifo")).and_then(|db| db.execute_batch("SELECT * FROM t"));
        assert_eq!(db.expect_err("a FIFO").sqlite_error_code(), Some(rusqlite::ErrorCode::CannotOpen));
    }
}
