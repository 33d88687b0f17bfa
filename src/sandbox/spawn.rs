//! Starting a program in its sandbox: the parent's half of what [`super::enter`] does.
//!
//! Owns the order of a start. The new process waits until the parent has done for it what it cannot do itself: its user in the new
//! namespace, its own `maps` among the files that it may read, its control group. Then it goes on until it is the worker, or tells
//! which step failed. It must never return a process in which a layer that was asked for is missing.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::process::Pid;

use super::cgroup::Member;
use super::clone::Unstarted;
use super::enter::{EntryStep, TOLD_LISTENER};
use super::error::SpawnError;
use super::prepare::{Pipes, Prepared, Resources, out_of_the_way};
use super::usage::Gauges;
use super::{Layer, Sandbox, landlock};

/// The most time between the making of a process and its being the worker.
const START_MAX: Duration = Duration::from_secs(20);
/// The attempts to run a program while another process of ours still has it open for writing, and the pause between two.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// A process in a sandbox. Its owner must wait for its end.
#[derive(Debug)]
pub(crate) struct SandboxedProcess {
    pub pid: Pid,
    /// The number of the process in its own namespace.
    pub own_number: u32,
    /// Becomes readable when the process has ended.
    pub pidfd: OwnedFd,
    /// The listener of its filter: reports system calls that are not allowed.
    pub listener: Option<OwnedFd>,
    /// The memory and processor time that it uses.
    pub gauges: Option<Gauges>,
    /// Its control group.
    pub group: Option<Member>,
    /// Its own `maps`: the kernel finds the rule by this entry of its cache, which must not be dropped and made anew.
    _maps: Option<OwnedFd>,
}

impl Sandbox {
    /// Starts the program as a worker.
    ///
    /// # Errors
    /// When a layer can't be put on, or the program can't be run.
    pub(crate) fn spawn(
        &self,
        arguments: &[impl AsRef<OsStr>],
        pipes: &Pipes<'_>,
        resources: &Resources,
    ) -> Result<SandboxedProcess, SpawnError> {
        let mut tries = 0;
        loop {
            match self.try_spawn(arguments, pipes, resources) {
                // A process of ours that was made while the program was copied has the copy open until it is a worker.
                Err(error) if error.is_busy() && tries < BUSY_TRIES => {
                    tries += 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    fn try_spawn(
        &self,
        arguments: &[impl AsRef<OsStr>],
        pipes: &Pipes<'_>,
        resources: &Resources,
    ) -> Result<SandboxedProcess, SpawnError> {
        let (ours, theirs) = talk()?;
        let mut prepared = Prepared::new(self, arguments, pipes, resources)?;
        let has_namespaces = prepared.root.is_some();
        let unstarted = prepared.with_entry(&theirs, Unstarted::clone).map_err(|source| match has_namespaces {
            true => SpawnError::new(Layer::Namespaces, "make a process with namespaces of its own")(source),
            false => source.into(),
        })?;
        drop(theirs);
        let (pid, pidfd) = unstarted.parts()?;
        let group = self.settings.group.as_ref().map(|group| group.take(pid, resources.memory)).transpose();
        let group = group.map_err(SpawnError::new(Layer::Cgroup, "put the process into its control group"))?;
        if has_namespaces {
            let mapped = map_user(pid, prepared.user);
            mapped.map_err(SpawnError::new(Layer::Namespaces, "name the user in the new namespace"))?;
        }
        let maps = match prepared.ruleset.take() {
            Some((ruleset, _)) => {
                let path = format!("/proc/{}/maps", pid.as_raw_nonzero());
                let maps = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())?;
                let allowed = landlock::allow_reading(ruleset, &maps).map_err(io::Error::other);
                allowed.map_err(SpawnError::new(Layer::Landlock, "allow it its maps"))?;
                Some(maps)
            }
            None => None,
        };
        let gauges = Gauges::open(pid)?;
        let listener = match rustix::io::write(&ours, b"!") {
            Ok(_) => await_start(&ours)?,
            // The process has ended already; its report is there to be read.
            Err(Errno::PIPE) => await_start(&ours)?,
            Err(error) => return Err(error.into()),
        };
        unstarted.started();
        // The first process of a namespace has the number 1 there.
        let own_number = if has_namespaces { 1 } else { pid.as_raw_nonzero().get().unsigned_abs() };
        Ok(SandboxedProcess { pid, own_number, pidfd, listener, gauges: Some(gauges), group, _maps: maps })
    }
}

/// The two ends of the talk with a new process: ours, and the only one of the process.
fn talk() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let (ours, low) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // The end of its last copy tells that the worker has started, so the low one is closed here.
    let theirs = out_of_the_way(low.as_fd())?;
    rustix::net::sockopt::set_socket_timeout(&ours, rustix::net::sockopt::Timeout::Recv, Some(START_MAX))?;
    Ok((ours, theirs))
}

/// Waits until the process has become the worker. Returns the listener of its filter, if it has one.
fn await_start(ours: &OwnedFd) -> Result<Option<OwnedFd>, SpawnError> {
    let mut listener = None;
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut told = [0; 8];
        let received = recvmsg(ours, &mut [io::IoSliceMut::new(&mut told)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = match received {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                let what = format!("it was not there after {START_MAX:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, what).into());
            }
            Err(error) => return Err(error.into()),
        };
        if received.bytes == 0 {
            return Ok(listener);
        }
        if told[0] == TOLD_LISTENER {
            listener = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            continue;
        }
        let step = EntryStep::ALL.get(usize::from(told[1])).copied().unwrap_or(EntryStep::Run);
        let number = i32::from_ne_bytes([told[4], told[5], told[6], told[7]]);
        let (layer, what) = step.describe();
        return Err(SpawnError { layer, what, source: io::Error::from_raw_os_error(number) });
    }
}

/// Maps one user into a new user namespace (user_namespaces(7)), under the same number.
fn map_user(pid: Pid, user: Option<u32>) -> io::Result<()> {
    let file = |name: &str| PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()));
    let (uid, gid) = match user {
        Some(user) => (user, user),
        None => {
            // Other users than root may map a group only once groups can no longer be changed.
            fs::write(file("setgroups"), "deny")?;
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        }
    };
    fs::write(file("gid_map"), format!("{gid} {gid} 1"))?;
    fs::write(file("uid_map"), format!("{uid} {uid} 1"))
}

impl AsFd for SandboxedProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
