//! Temporary directories: of mode 0700, with random names, and removed whatever ends the program.
//!
//! Owns their names and their removal: with the value, when a signal ends the program ([`remove_on_signals`]), and after a kill by the
//! next run that makes one. A process holds a lock on its directory, so a directory without a lock is a dead process's; process numbers
//! would not tell, as other containers use the same ones. It must never remove a directory of another user, or follow a link.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::files::{process, regular};

const PREFIX: &str = "spanwatch-";
/// The random characters of a name.
const RANDOM: usize = 16;
/// The attempts to make a directory that another program removes at once.
const TRIES: usize = 10;

/// The purpose of a directory: a part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A copy of a database whose writer died.
    Copy,
    /// Evidence that was unpacked: earlier versions left such directories.
    Evidence,
    /// The empty directory in which workers are.
    Empty,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Copy, Self::Evidence, Self::Empty];

    fn prefix(self) -> String {
        let word = match self {
            Self::Copy => "copy",
            Self::Evidence => "evidence",
            Self::Empty => "empty",
        };
        format!("{PREFIX}{word}-")
    }
}

/// Directories that are to be removed when a signal ends the program.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    // A list of paths is whole whatever panicked.
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary directory, removed with this value.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    /// There until the value is dropped.
    dir: Option<tempfile::TempDir>,
    /// Held for as long as the directory is in use.
    _lock: File,
}

impl TempDir {
    /// Makes a directory in `TMPDIR`, or in `/tmp`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(purpose: Purpose) -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir(), purpose)
    }

    /// Makes a directory in another one, and removes what killed runs left there.
    fn new_in(parent: &Path, purpose: Purpose) -> io::Result<Self> {
        sweep(parent);
        for _ in 0..TRIES {
            // Under the lock a signal waits until the directory is in the list.
            let mut live = live();
            let private = fs::Permissions::from_mode(0o700);
            let dir = tempfile::Builder::new()
                .prefix(&purpose.prefix())
                .rand_bytes(RANDOM)
                .permissions(private)
                .tempdir_in(parent)?;
            // A sweep of another process may come before the lock.
            let lock = match regular::open_dir(dir.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock?,
            };
            // A file system without locks has no sweep either.
            let _ = flock(&lock, FlockOperation::LockExclusive);
            // Or between the two.
            if fs::symlink_metadata(dir.path()).is_ok_and(|found| is_same(&found, &lock)) {
                let path = dir.path().to_owned();
                live.push(path.clone());
                return Ok(Self { path, dir: Some(dir), _lock: lock });
            }
        }
        Err(io::Error::other(
            "a new directory was removed at once, again and again: does another program clean up there?",
        ))
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A signal that comes now waits until the directory is gone.
        let mut live = live();
        self.dir = None;
        live.retain(|path| *path != self.path);
    }
}

fn is_same(found: &fs::Metadata, opened: &File) -> bool {
    opened.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == (found.dev(), found.ino()))
}

/// Removes what killed runs of this user left.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let prefixes = Purpose::ALL.map(Purpose::prefix);
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
            // An entry that can't be read is left to the next run.
            let _ = remove_if_dead(&entry.path());
        }
    }
}

fn remove_if_dead(path: &Path) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != user {
        return Ok(());
    }
    let lock = regular::open_dir(path)?;
    let opened = lock.metadata()?;
    if opened.uid() != user
        || !is_same(&found, &lock)
        || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
    {
        return Ok(());
    }
    tracing::info!("removing {}, which a run that was killed left", path.display());
    // This follows no link, neither here nor below.
    fs::remove_dir_all(path)
}

/// Removes the directories when SIGINT, SIGTERM or SIGHUP ends the program, which then ends as by the signal. For commands that do
/// not handle these signals in another way. A signal that the program was started to ignore stays ignored.
pub fn remove_on_signals() {
    let signals = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !process::is_ignored(*signal));
    let started = signal_hook::iterator::Signals::new(signals).and_then(|mut signals| {
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Kept until the end, so that no other thread makes one.
                let live = live();
                for path in &*live {
                    let _ = fs::remove_dir_all(path);
                }
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        })
    });
    if let Err(error) = started {
        tracing::debug!("temporary directories will outlive a signal: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_private_and_goes_with_its_value() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = TempDir::new_in(parent.path(), Purpose::Copy).expect("a directory");
        let path = dir.path().to_owned();
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777, 0o700);
        fs::write(path.join("file"), "content").expect("write");
        assert!(live().contains(&path));
        drop(dir);
        assert!(!path.exists() && !live().contains(&path));
    }

    /// A kill leaves a directory without a lock.
    #[test]
    fn the_next_run_removes_what_a_killed_one_left_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a directory");
        let at = |name: &str| parent.path().join(name);
        for name in [
            "spanwatch-copy-1234-abcdef",
            "spanwatch-evidence-abcdef",
            "spanwatch-empty-x",
            "spanwatch-other",
            "elsewhere",
        ] {
            fs::create_dir(at(name)).expect("make");
            fs::write(at(name).join("file"), "content").expect("write");
        }
        std::os::unix::fs::symlink(at("elsewhere"), at("spanwatch-copy-link")).expect("link");
        std::os::unix::fs::symlink(at("elsewhere"), at("spanwatch-empty-x").join("link")).expect("link");
        fs::write(at("spanwatch-copy-file"), "content").expect("write");
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            fs::create_dir(at("spanwatch-copy-foreign")).expect("make");
            std::os::unix::fs::chown(at("spanwatch-copy-foreign"), Some(12_345), None).expect("chown");
        }
        let used = TempDir::new_in(parent.path(), Purpose::Copy).expect("a directory");
        let other = TempDir::new_in(parent.path(), Purpose::Evidence).expect("a directory");
        for (name, stays) in [
            ("spanwatch-copy-1234-abcdef", false),
            ("spanwatch-evidence-abcdef", false),
            ("spanwatch-empty-x", false),
            ("spanwatch-other/file", true),
            ("elsewhere/file", true),
            ("spanwatch-copy-link", true),
            ("spanwatch-copy-file", true),
            ("spanwatch-copy-foreign", is_root),
        ] {
            assert_eq!(at(name).exists(), stays, "{name}");
        }
        assert!(used.path().exists() && other.path().exists(), "what is in use stays");
    }

    /// Each new directory sweeps, and may meet one that another thread has made and not yet locked.
    #[test]
    fn a_sweep_takes_nothing_that_is_just_made() {
        let parent = tempfile::tempdir().expect("a directory");
        let is_done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                        sweep(parent.path());
                    }
                });
            }
            let made: Vec<_> = (0..2_000).map(|_| TempDir::new_in(parent.path(), Purpose::Empty).map(drop)).collect();
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(made.iter().all(Result::is_ok), "{:?}", made.iter().find(|made| made.is_err()));
        });
    }
}
