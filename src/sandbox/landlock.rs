//! Layer 5: which files a worker may use. Everything else that Landlock knows is refused: all other files, making,
//! removing and renaming, device control, TCP, and where the kernel has it signals and abstract sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    Scope,
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
    /// Opens the files.
    pub(super) fn new(files: &Files) -> Result<Self, String> {
        let abi = abi().map_err(|error| why_not(&error))?;
        let read = BitFlags::from(AccessFs::ReadFile);
        let wanted = files.code.iter().map(|path| (path, read | AccessFs::Execute));
        let allowed = wanted
            .chain(files.data.iter().map(|path| (path, read)))
            .map(|(path, access)| {
                let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
                Ok((file.map_err(|error| format!("failed to open {}: {error}", path.display()))?, access))
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { allowed, abi })
    }

    /// A ruleset for one worker. What is added to either of the two is added to both: the descriptor is for the worker's
    /// process, which applies it, the other for us.
    pub(super) fn ruleset(&self) -> Result<(RulesetCreated, OwnedFd), String> {
        let make = || {
            let mut ruleset = Ruleset::default()
                .handle_access(AccessFs::from_all(NEWEST))?
                .handle_access(AccessNet::from_all(NEWEST))?
                .scope(Scope::from_all(NEWEST))?
                .create()?;
            for (file, access) in &self.allowed {
                ruleset = ruleset.add_rule(PathBeneath::new(file.as_fd(), *access))?;
            }
            Ok::<_, landlock::RulesetError>(ruleset)
        };
        let ruleset = make().map_err(|error| error.to_string())?;
        let descriptor = ruleset.try_clone().map_err(|error| error.to_string())?;
        let descriptor: Option<OwnedFd> = descriptor.into();
        Ok((ruleset, descriptor.ok_or("this kernel has no Landlock")?))
    }
}

/// Allows one more file to be read.
pub(super) fn allow_reading(ruleset: RulesetCreated, file: &OwnedFd) -> Result<(), String> {
    ruleset.add_rule(PathBeneath::new(file.as_fd(), AccessFs::ReadFile)).map(drop).map_err(|error| error.to_string())
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

/// A filter that refuses the call is told from a kernel that does not have it: the two are mended in different places.
fn why_not(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!(
            "a filter of system calls refuses landlock_create_ruleset ({error}), whatever the kernel has: in a service              SystemCallFilter= must name landlock_create_ruleset, landlock_add_rule, landlock_restrict_self and seccomp, as              config/spanwatch.service does (systemd 252 has no group with these); in a container the runtime's seccomp \
             profile must allow them"
        ),
        Some(libc::EOPNOTSUPP) => {
            "Landlock is switched off on this kernel: add landlock to the modules of its lsm= option".to_owned()
        }
        Some(libc::ENOSYS) => format!(
            "this kernel ({}) has no Landlock: it needs Linux 5.13 or newer, with landlock among the modules of its lsm= option",
            rustix::system::uname().release().to_string_lossy()
        ),
        _ => format!("failed to ask for the version of Landlock: {error}"),
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
            let why = why_not(&io::Error::from_raw_os_error(number));
            assert!(why.contains(says) && !why.contains(not), "{number}: {why}");
        }
    }
}
