//! Files of our own: the state directory, what is in it, and evidence.
//!
//! Owns who can read and write them: directories have mode 0750, files 0640, and all belong to the owner and the group of the
//! directory that they are in, whatever the umask says and whichever user runs the program. A directory that somebody else
//! could write to is refused. Must never follow a link at the end of a path, make a file that the directory's owner cannot
//! write, or change anything that is not below a directory that was checked.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::files::regular::{self, Special};

/// What of a directory's mode may stay: all for the owner, reading for the group, and the bits that make new files inherit it.
const DIRECTORY_MODE: u32 = 0o750;
/// What of a file's mode may stay.
const FILE_MODE: u32 = 0o640;
/// Reading, writing and running, for everybody.
const PERMISSIONS: u32 = 0o777;
/// Writing for the group and for others.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why a directory or a file in it is not used.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The system refused.
    #[error("failed to {what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could change it.
    #[error("{} is not safe to use: {why}; {advice}", path.display())]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        why: String,
        /// What to do.
        advice: String,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OwnError {
    let path = path.to_owned();
    move |source| OwnError::Io { what, path, source }
}

fn unsafe_to_use(path: &Path, why: impl Into<String>, advice: String) -> OwnError {
    OwnError::Unsafe { path: path.to_owned(), why: why.into(), advice }
}

/// What is done with a directory that was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is ours alone, so others lose the right to read it.
    Close,
    /// A user named it, and it may be for other things too: who can read it stays as it is.
    Leave,
}

/// Makes a directory of ours if it is not there, and checks it. Gives its real path, and what had to be closed to others.
///
/// # Errors
/// When it can't be made, or others could write to it.
pub fn directory(path: &Path, existing: Existing) -> Result<(PathBuf, Vec<String>), OwnError> {
    if let Err(error) = fs::symlink_metadata(path) {
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            return Err(failed("look at", path)(error));
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(failed("make", path))?;
        }
        match rustix::fs::mkdir(path, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) => set_mode(path, DIRECTORY_MODE).map_err(failed("make", path))?,
            // Another process was quicker; what it made is checked as any.
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed("make", path)(error.into())),
        }
    }
    let real = check_directory(path)?;
    let closed = if existing == Existing::Close { close_directory(path)? } else { None };
    Ok((real, closed.into_iter().collect()))
}

fn close_directory(path: &Path) -> Result<Option<String>, OwnError> {
    let mode = fs::symlink_metadata(path).map_err(failed("look at", path))?.mode() & 0o7777;
    let less = mode & !PERMISSIONS | mode & DIRECTORY_MODE;
    if less == mode {
        return Ok(None);
    }
    set_mode(path, less).map_err(failed("close to others", path))?;
    Ok(Some(format!("{} ({mode:04o}, now {less:04o})", path.display())))
}

/// The directory's real path, if nobody but its owner can change what is in it, and the owner is this user. As root any
/// owner will do: what is made belongs to that owner.
///
/// # Errors
/// When it is not such a directory.
pub fn check_directory(path: &Path) -> Result<PathBuf, OwnError> {
    let found = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if found.is_symlink() {
        let to = fs::read_link(path).unwrap_or_default();
        let advice = format!("name the directory itself: {}", to.display());
        return Err(unsafe_to_use(path, "it is a symbolic link", advice));
    }
    if !found.is_dir() {
        let advice = "name a directory of spanwatch's own".to_owned();
        return Err(unsafe_to_use(path, "it is not a directory", advice));
    }
    let user = rustix::process::geteuid();
    if found.mode() & OTHERS_WRITE != 0 {
        let why = format!("users other than its owner can write to it (mode {:04o})", found.mode() & 0o7777);
        let advice =
            "they could replace what spanwatch keeps there: `chmod go-w` it after a look at what is in it, or name \
                      a directory of spanwatch's own"
                .to_owned();
        return Err(unsafe_to_use(path, why, advice));
    }
    if !user.is_root() && found.uid() != user.as_raw() {
        let why = format!("it belongs to user {}, and spanwatch runs as user {}", found.uid(), user.as_raw());
        let advice = format!("run spanwatch as that user, or `chown -R {}` it", user.as_raw());
        return Err(unsafe_to_use(path, why, advice));
    }
    let real = fs::canonicalize(path).map_err(failed("look at", path))?;
    for above in real.ancestors().skip(1) {
        let mode = fs::metadata(above).map_err(failed("look at", above))?.mode();
        if mode & 0o002 != 0 && mode & STICKY == 0 {
            let why = format!("every user can write to {} (mode {:04o})", above.display(), mode & 0o7777);
            let advice = "the directory could be replaced: `chmod o-w` the one above it, or name another".to_owned();
            return Err(unsafe_to_use(path, why, advice));
        }
    }
    Ok(real)
}

/// Checks a file that may be in a directory of ours: it must be a plain file of the directory's owner, and is closed to
/// others. As root a file of another owner is given to the directory's. What was changed, if anything was.
///
/// # Errors
/// When it is no plain file, or belongs to somebody else and we can't change that.
pub fn check_file(path: &Path) -> Result<Option<String>, OwnError> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed("look at", path))?,
    };
    plain(path, &found)?;
    let owner = owner_of(path).map_err(failed("look beside", path))?;
    let user = rustix::process::geteuid();
    if !user.is_root() && found.uid() != user.as_raw() {
        let why = format!("it belongs to user {}, and spanwatch runs as user {}", found.uid(), user.as_raw());
        let advice = format!("as root: `chown {}:{} {}`", owner.0, owner.1, path.display());
        return Err(unsafe_to_use(path, why, advice));
    }
    let mode = found.mode() & 0o7777;
    let less = mode & FILE_MODE;
    let is_foreign = user.is_root() && (found.uid(), found.gid()) != owner;
    if less == mode && !is_foreign {
        return Ok(None);
    }
    let file = open_plain(path, OFlags::RDONLY).map_err(failed("open", path))?;
    give(&file, less, owner).map_err(failed("close to others", path))?;
    Ok(Some(format!("{} ({mode:04o} of user {}, now {less:04o})", path.display(), found.uid())))
}

fn plain(path: &Path, found: &Metadata) -> Result<(), OwnError> {
    let Some(special) = Special::of(found) else { return Ok(()) };
    let advice = "find out who put it there, then move it away".to_owned();
    Err(unsafe_to_use(path, special.to_string(), advice))
}

/// Closes a directory below one of ours, and all in it, to others. Links in it are left alone. What was changed.
///
/// # Errors
/// When something in it can't be looked at or changed.
pub fn close_all(directory: &Path) -> Result<Vec<String>, OwnError> {
    let mut closed = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        closed.extend(close_directory(&directory)?);
        for entry in fs::read_dir(&directory).map_err(failed("list", &directory))? {
            let path = entry.map_err(failed("list", &directory))?.path();
            let found = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(failed("look at", &path))?,
            };
            if found.is_dir() {
                left.push(path);
            } else if found.is_file() {
                closed.extend(check_file(&path)?);
            }
        }
    }
    Ok(closed)
}

/// Makes a new file in a directory of ours.
///
/// # Errors
/// When there is something of that name, be it a link to nowhere, or the system refuses.
pub fn create_new(path: &Path) -> io::Result<File> {
    let owner = owner_of(path)?;
    let file = open_plain(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
    give(&file, FILE_MODE, owner)?;
    Ok(file)
}

/// Makes a new directory in a directory of ours.
///
/// # Errors
/// When there is something of that name, or the system refuses.
pub fn create_dir(path: &Path) -> io::Result<()> {
    let owner = owner_of(path)?;
    rustix::fs::mkdir(path, Mode::from_raw_mode(DIRECTORY_MODE))?;
    give(&open_dir(path)?, DIRECTORY_MODE, owner)
}

/// Opens a file of ours for writing, making it if it is not there. Nothing is removed from it.
///
/// # Errors
/// When it is no plain file, or the system refuses.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    match create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => regular::open_or_create(path, FILE_MODE),
        made => made,
    }
}

/// Never through a link, and never waiting for a FIFO's other end.
fn open_plain(path: &Path, how: OFlags) -> io::Result<File> {
    let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file =
        File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(FILE_MODE)).map_err(|error| -> io::Error {
            // ELOOP is of no help to a reader.
            if error == rustix::io::Errno::LOOP { Special::Link.into() } else { error.into() }
        })?);
    match Special::of(&file.metadata()?) {
        Some(special) => Err(special.into()),
        None => Ok(file),
    }
}

fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn set_mode(directory: &Path, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(open_dir(directory)?, Mode::from_raw_mode(mode))?)
}

/// User and group of the directory that a file is in.
fn owner_of(path: &Path) -> io::Result<(u32, u32)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = fs::metadata(parent)?;
    Ok((found.uid(), found.gid()))
}

fn give(file: &File, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) != (uid, gid) {
        if rustix::process::geteuid().is_root() {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        } else {
            // Only for a member of that group. Where it is refused the file has our own group, whose members the directory
            // does not let in.
            let _ = rustix::fs::fchown(file, None, Some(Gid::from_raw(gid)));
        }
    }
    if found.mode() & 0o7777 != mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}
