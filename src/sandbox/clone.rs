//! Making the process that becomes the worker, and ending one that does not become it.
//!
//! Owns the call of clone(2) and the process until it is the worker. It must never run code of ours in the child but
//! [`super::enter`], nor leave a process behind that is not the worker.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::enter::{self, Entry};

/// A process that is not the worker yet; ends with this value.
pub(super) struct Unstarted(Option<(Pid, OwnedFd)>);

impl Unstarted {
    /// Makes the process. It waits for a word from its parent (see [`super::enter`]).
    pub(super) fn clone(entry: &Entry<'_>) -> io::Result<Self> {
        Ok(Self(Some(clone(entry)?)))
    }

    /// The process's number, and a descriptor that becomes readable at its end.
    pub(super) fn parts(&self) -> io::Result<(Pid, OwnedFd)> {
        let (pid, pidfd) = self.0.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((*pid, pidfd.try_clone()?))
    }

    /// Leaves the process alone: it is the worker now.
    pub(super) fn started(mut self) {
        self.0 = None;
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some((pid, _)) = &self.0 {
            // Not reaped yet, so the number is still its own.
            let _ = kill_process(*pid, Signal::KILL);
            let _ = waitpid(Some(*pid), WaitOptions::empty());
        }
    }
}

/// Makes the process: its number, and the descriptor that becomes readable at its end.
#[expect(unsafe_code, reason = "no safe wrapper makes a process with flags")]
fn clone(entry: &Entry<'_>) -> io::Result<(Pid, OwnedFd)> {
    let namespaces =
        libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
    let flags = libc::SIGCHLD | libc::CLONE_PIDFD | if entry.root.is_some() { namespaces } else { 0 };
    let mut pidfd: RawFd = -1;
    // SAFETY: sets that the calls fill in; the child runs on a copy of this stack and never returns from `enter`. No handler
    // of a signal may run in it, as it would act on what it shares with us.
    let pid = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let pid = libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0_usize, &raw mut pidfd, 0_usize, 0_usize);
        if pid == 0 {
            enter::enter(entry);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if pid == -1 {
            return Err(error);
        }
        pid
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel made it for us.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}
