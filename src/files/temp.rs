//! Temporary directories: of mode 0700, with names that nobody can guess, and removed whatever ends the program.
//!
//! Owns their names and their removal: at the end of the value, when a signal ends the program
//! ([`remove_on_signals`]), and after a kill by the next run that makes one. A directory is locked for as long as its process lives, so
//! that the living are told from the dead without process numbers, which other containers may use too. Must never remove what another user owns,
//! or what a link leads to.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const PREFIX: &str = "spanwatch-";
/// Characters of a name that are drawn by lot.
const RANDOM: usize = 16;
/// How often a new directory is removed under our hands before we give up.
const TRIES: usize = 10;

/// What a directory is for: a part of its name.
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
    /// Makes one in the system's directory for such (`TMPDIR`).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(purpose: Purpose) -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir(), purpose)
    }

    /// Makes one in a directory, and removes what runs that were killed left there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new_in(parent: &Path, purpose: Purpose) -> io::Result<Self> {
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
            let lock = match open_dir(dir.path()) {
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

    /// Where it is.
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

fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn is_same(found: &fs::Metadata, opened: &File) -> bool {
    opened.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == (found.dev(), found.ino()))
}

/// Removes what runs of this user left that were killed.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let prefixes = Purpose::ALL.map(Purpose::prefix);
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
            // What can't be looked at is left to the next run.
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
    let lock = open_dir(path)?;
    let opened = lock.metadata()?;
    if opened.uid() != user
        || !is_same(&found, &lock)
        || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
    {
        return Ok(());
    }
    tracing::info!("removing {}, which a run that was killed left", path.display());
    // It follows no link, neither here nor below.
    fs::remove_dir_all(path)
}

/// Has the directories removed when SIGINT, SIGTERM or SIGHUP ends the program; it then ends as by the signal. For
/// programs that do not handle these signals in another way. What the program was started to ignore stays ignored.
pub fn remove_on_signals() {
    let signals = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
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

/// Whether this process ignores a signal, as SIGHUP under nohup.
pub(crate) fn is_ignored(signal: i32) -> bool {
    ignored_signals() >> (signal - 1) & 1 == 1
}

/// A bit for each signal, from 1 on (proc_pid_status(5)).
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
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

    /// What a kill leaves is a directory that nobody has locked.
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

    #[test]
    fn what_is_ignored_is_known() {
        assert_eq!(ignored_signals() >> (SIGTERM - 1) & 1, 0);
    }
}
