//! Files and folders that commands write for people: each is there whole or not at all.
//!
//! Owns the step from unfinished to published: each is written under a random name in the directory where it belongs, and renamed when it
//! is complete. It must never follow a link at the name, overwrite a file unless asked to, or leave anything behind after an error. A
//! killed process leaves names that begin with `PREFIX`; the next folder that is made there removes them.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempDir};

use crate::files::regular::{self, parent};

/// The beginning of the names of unfinished files and folders.
const PREFIX: &str = ".spanwatch-unfinished-";

/// Writes a new file.
///
/// # Errors
/// When the name exists, or the file can't be written.
pub fn create(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let file = unfinished(path, write)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    sync_dir(parent(path))
}

/// Writes a file in place of an older one.
///
/// # Errors
/// When anything but a regular file is there, or the file can't be written.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    regular::check(path)?;
    let file = unfinished(path, write)?;
    file.persist(path).map_err(|error| error.error)?;
    sync_dir(parent(path))
}

fn unfinished(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<NamedTempFile> {
    // As any file that a command makes: the umask decides.
    let permissions = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(PREFIX).permissions(permissions).tempfile_in(parent(path))?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes the names in a directory last: those that were created, renamed or removed.
///
/// # Errors
/// When the system refuses.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A folder that is being made: removed unless it is published.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    folder: PathBuf,
    /// A private directory around it.
    staging: TempDir,
    /// Marks the folder as one that is still being made.
    _lock: File,
}

impl Staged {
    /// Begins a new folder.
    ///
    /// # Errors
    /// When the name exists, or the folder can't be made.
    pub fn new(target: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        sweep(parent(target));
        let private = Permissions::from_mode(0o700);
        let staging = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(parent(target))?;
        let lock = locked(staging.path())?;
        let folder = staging.path().join("folder");
        fs::create_dir(&folder)?;
        Ok(Self { target: target.to_owned(), folder, staging, _lock: lock })
    }

    /// The path of the unfinished folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// When the name exists by now, or the system refuses.
    pub fn publish(self) -> io::Result<()> {
        sync_dir(&self.folder)?;
        match renameat_with(CWD, &self.folder, CWD, &self.target, RenameFlags::NOREPLACE) {
            // Some file systems lack the flag. Without it only an empty directory would be replaced.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&self.folder, &self.target)?,
            other => other?,
        }
        self.staging.close()?;
        sync_dir(parent(&self.target))
    }
}

/// Locks a folder as one that is being made.
fn locked(folder: &Path) -> io::Result<File> {
    let folder = regular::open_dir(folder)?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

/// Removes unfinished folders whose process was killed.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Ok(_lock) = locked(&entry.path())
        {
            // Another user's folder can't be removed, and is left.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("list")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn no_link_is_followed_and_nothing_stays_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("precious"), "old").expect("write");
        symlink("precious", path("link")).expect("a link");
        symlink("nowhere", path("dangling")).expect("a link");
        fs::create_dir(path("directory")).expect("a directory");
        let before = names(dir.path());
        let write = |file: &mut File| file.write_all(b"new");
        for name in ["precious", "link", "dangling", "directory"] {
            assert_eq!(create(&path(name), write).expect_err(name).kind(), io::ErrorKind::AlreadyExists, "{name}");
            assert_eq!(Staged::new(&path(name)).expect_err(name).kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        for name in ["link", "dangling", "directory"] {
            replace(&path(name), write).expect_err(name);
        }
        let fail = |_: &mut File| Err(io::ErrorKind::StorageFull.into());
        create(&path("unwritten"), fail).expect_err("no room");
        replace(&path("unwritten"), fail).expect_err("no room");
        drop(Staged::new(&path("unpublished")).expect("a folder"));
        assert_eq!(names(dir.path()), before);
        assert_eq!(fs::read(path("precious")).expect("read"), b"old");

        replace(&path("precious"), write).expect("written");
        create(&path("file"), write).expect("written");
        assert_eq!(fs::read(path("precious")).expect("read"), b"new");
        let staged = Staged::new(&path("folder")).expect("a folder");
        fs::write(staged.path().join("file"), "x").expect("write");
        staged.publish().expect("published");
        assert_eq!(names(&path("folder")), ["file"]);
        assert_eq!(names(dir.path()).len(), before.len() + 2);
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let left = dir.path().join(format!("{PREFIX}left"));
        fs::create_dir_all(left.join("folder/bundles")).expect("a directory");
        symlink("/", dir.path().join(format!("{PREFIX}link"))).expect("a link");
        let other = Staged::new(&dir.path().join("other")).expect("a folder");
        assert!(!left.exists());
        Staged::new(&dir.path().join("one")).expect("a folder").publish().expect("published");
        assert!(other.path().exists(), "the folder of one that is at work was removed");
    }
}
