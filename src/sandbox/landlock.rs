//! Layer 5: the files that a worker may use.
//!
//! Owns the rules. Everything else that Landlock knows is refused: all other files, making, removing and renaming, device control, TCP,
//! and where the kernel has it signals and abstract sockets. It must never allow a file that [`super::files`] does not name, but for
//! the worker's own `maps`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope,
};
use rustix::fs::{Mode, OFlags};

use super::files::Files;

/// The newest version whose rights are handled; a kernel that knows fewer handles those that it knows.
const NEWEST: ABI = ABI::V6;

/// The rules that all workers of a program share.
#[derive(Debug)]
pub(super) struct Rules {
    allowed: Vec<(OwnedFd, BitFlags<AccessFs>)>,
    /// The kernel's version.
    pub(super) abi: u32,
}

impl Rules {
    /// Opens the files that the rules name.
    pub(super) fn new(files: &Files) -> Result<Self, LandlockError> {
        let abi = abi().map_err(LandlockError::of)?;
        let read = BitFlags::from(AccessFs::ReadFile);
        let wanted = files.code.iter().map(|path| (path, read | AccessFs::Execute));
        let allowed = wanted
            .chain(files.data.iter().map(|path| (path, read)))
            .map(|(path, access)| {
                let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
                let file = file.map_err(|error| LandlockError::Open { path: path.clone(), source: error.into() });
                Ok((file?, access))
            })
            .collect::<Result<_, LandlockError>>()?;
        Ok(Self { allowed, abi })
    }

    /// A ruleset for one worker, and a descriptor by which the worker's process applies it. A rule that is added to the ruleset later
    /// counts for both.
    pub(super) fn ruleset(&self) -> Result<(RulesetCreated, OwnedFd), LandlockError> {
        let make = || {
            let mut ruleset = Ruleset::default()
                .handle_access(AccessFs::from_all(NEWEST))?
                .handle_access(AccessNet::from_all(NEWEST))?
                .scope(Scope::from_all(NEWEST))?
                .create()?;
            for (file, access) in &self.allowed {
                ruleset = ruleset.add_rule(PathBeneath::new(file.as_fd(), *access))?;
            }
            Ok::<_, RulesetError>(ruleset)
        };
        let ruleset = make()?;
        let descriptor = ruleset.try_clone().map_err(LandlockError::Descriptor)?;
        let descriptor: Option<OwnedFd> = descriptor.into();
        Ok((ruleset, descriptor.ok_or(LandlockError::Absent)?))
    }
}

/// Allows one more file to be read.
pub(super) fn allow_reading(ruleset: RulesetCreated, file: &OwnedFd) -> Result<(), RulesetError> {
    ruleset.add_rule(PathBeneath::new(file.as_fd(), AccessFs::ReadFile)).map(drop)
}

/// The version of the kernel's Landlock.
#[expect(unsafe_code, reason = "the crate tells only what it made of the version, after the fact")]
fn abi() -> io::Result<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no pointer and makes nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, VERSION) };
    if version < 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(version).map_err(io::Error::other)
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// A filter of system calls refuses Landlock's calls. The remedy differs from that for a kernel without Landlock.
    #[error(
        "a filter of system calls refuses landlock_create_ruleset ({0}), whatever the kernel has: in a service \
         SystemCallFilter= must name landlock_create_ruleset, landlock_add_rule, landlock_restrict_self and seccomp, as \
         config/spanwatch.service does (systemd 252 has no group with these); in a container the runtime's seccomp \
         profile must allow them"
    )]
    Filtered(io::Error),
    /// The kernel has Landlock, and it is not among the modules in use.
    #[error("Landlock is switched off on this kernel: add landlock to the modules of its lsm= option")]
    SwitchedOff,
    /// The kernel is too old.
    #[error(
        "this kernel ({release}) has no Landlock: it needs Linux 5.13 or newer, with landlock among the modules of its lsm= option"
    )]
    TooOld {
        /// The kernel's release.
        release: String,
    },
    /// The kernel gave no version.
    #[error("failed to ask for the version of Landlock: {0}")]
    Version(io::Error),
    /// A file that the worker needs can't be opened.
    #[error("failed to open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel refused a rule.
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
    /// The ruleset's descriptor can't be copied.
    #[error("failed to copy the descriptor of the ruleset: {0}")]
    Descriptor(io::Error),
    /// The kernel made no ruleset.
    #[error("this kernel has no Landlock")]
    Absent,
}

impl LandlockError {
    /// The meaning of an error of `landlock_create_ruleset`.
    fn of(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Filtered(error),
            Some(libc::EOPNOTSUPP) => Self::SwitchedOff,
            Some(libc::ENOSYS) => {
                Self::TooOld { release: rustix::system::uname().release().to_string_lossy().into_owned() }
            }
            _ => Self::Version(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_told_from_a_kernel_without_landlock() {
        for (number, says, not) in [
            (libc::EPERM, "SystemCallFilter=", "5.13"),
            (libc::EACCES, "SystemCallFilter=", "5.13"),
            (libc::ENOSYS, "Linux 5.13 or newer", "SystemCallFilter="),
            (libc::EOPNOTSUPP, "switched off on this kernel", "5.13"),
            (libc::EIO, "failed to ask for the version", "5.13"),
        ] {
            let why = LandlockError::of(io::Error::from_raw_os_error(number)).to_string();
            assert!(why.contains(says) && !why.contains(not), "{number}: {why}");
        }
    }
}
