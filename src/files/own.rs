//! Owner and mode of the files that spanwatch keeps: the state directory with its content, and evidence.
//!
//! Owns who can read and write them: directories have mode 0750, files 0640, and all belong to the owner and the group of the
//! directory that they are in, whatever the umask says and whichever user runs the program. A directory that another user can write to
//! is refused. It must never follow a link at the end of a path, make a file that the directory's owner cannot write, or change
//! anything that is not below a directory that was checked.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};

use crate::files::regular::{self, Special};

/// The bits of a directory's mode that may stay: all for the owner, reading for the group.
const DIRECTORY_MODE: u32 = 0o750;
/// The bits of a file's mode that may stay.
const FILE_MODE: u32 = 0o640;
/// Reading, writing and running, for every user.
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
        /// The action that failed, as in "failed to …".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another user could change it.
    #[error("{} is not safe to use: {why}; {advice}", path.display())]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// The reason.
        why: String,
        /// The remedy.
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

/// The treatment of a directory that was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Spanwatch alone uses the directory, so others lose the right to read it.
    Close,
    /// A user named the directory, which may serve other ends too: its mode stays.
    Leave,
}

/// Makes a directory of ours if it is not there, and checks it. Returns its real path, and the changes of mode that were made.
///
/// # Errors
/// When the directory can't be made, or others could write to it.
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
            // Another process was quicker; its directory is checked as any.
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

/// The directory's real path, if only its owner can change its content, and the owner is this user. Root accepts any owner, who then
/// owns the files that are made.
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

/// Checks a file that may be in a directory of ours: it must be a plain file of the directory's owner, and is closed to others. Root gives
/// a file of another owner to the directory's. Returns the change, if there was one.
///
/// # Errors
/// When it is no plain file, or belongs to another user and that can't be changed.
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
    let file = regular::open(path).map_err(failed("open", path))?;
    give(&file, less, owner).map_err(failed("close to others", path))?;
    Ok(Some(format!("{} ({mode:04o} of user {}, now {less:04o})", path.display(), found.uid())))
}

fn plain(path: &Path, found: &Metadata) -> Result<(), OwnError> {
    let Some(special) = Special::of(found) else { return Ok(()) };
    let advice = "find out who put it there, then move it away".to_owned();
    Err(unsafe_to_use(path, special.to_string(), advice))
}

/// Closes a directory below one of ours, and all in it, to others. Links in it are left alone. Returns the changes.
///
/// # Errors
/// When an entry can't be looked at or changed.
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
/// When the name exists, even as a link to nowhere, or the system refuses.
pub fn create_new(path: &Path) -> io::Result<File> {
    let owner = owner_of(path)?;
    let file = regular::create_new(path, FILE_MODE)?;
    give(&file, FILE_MODE, owner)?;
    Ok(file)
}

/// Makes a new directory in a directory of ours.
///
/// # Errors
/// When the name exists, or the system refuses.
pub fn create_dir(path: &Path) -> io::Result<()> {
    let owner = owner_of(path)?;
    rustix::fs::mkdir(path, Mode::from_raw_mode(DIRECTORY_MODE))?;
    give(&regular::open_dir(path)?, DIRECTORY_MODE, owner)
}

/// Opens a file of ours for writing, and makes it if it is not there. Its content stays.
///
/// # Errors
/// When it is no plain file, or the system refuses.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    match create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => regular::open_or_create(path, FILE_MODE),
        made => made,
    }
}

fn set_mode(directory: &Path, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(regular::open_dir(directory)?, Mode::from_raw_mode(mode))?)
}

/// User and group of the directory that a file is in.
fn owner_of(path: &Path) -> io::Result<(u32, u32)> {
    let found = fs::metadata(regular::parent(path))?;
    Ok((found.uid(), found.gid()))
}

fn give(file: &File, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) != (uid, gid) {
        if rustix::process::geteuid().is_root() {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        } else {
            // A member of that group may do so. If refused, the file keeps our own group, whose members the directory does
            // not let in.
            let _ = rustix::fs::fchown(file, None, Some(Gid::from_raw(gid)));
        }
    }
    if found.mode() & 0o7777 != mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}
