//! Starting a program in its sandbox: our half of what [`super::enter`] does.
//!
//! The new process waits until we have done for it what it cannot do itself: its user in the new namespace, its own
//! `maps` among the files that it may read, its control group. Then it goes on until it is the worker, or tells which step
//! failed.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::process::{Pid, Resource, Signal, WaitOptions, getrlimit, kill_process, waitpid};

use super::cgroup::Member;
use super::enter::{self, FIRST_FREE_FD, Mount, Plan, Privileges, Root, Step, TOLD_LISTENER};
use super::files::{Files, MAPS};
use super::usage::Gauges;
use super::{Layer, Mode, NOBODY, Sandbox, Settings, landlock};
use crate::files::process::{self, UserRange};
use crate::files::temp::{Purpose, TempDir};

/// How long a new process may take until it is the worker.
const START_MAX: Duration = Duration::from_secs(20);
/// A descriptor beyond this is none of a worker's.
const DESCRIPTORS_MAX: u64 = 32;
/// The system's own limit on a worker's processor time stands this far behind ours, which tells more.
const CPU_MARGIN: Duration = Duration::from_secs(60);
const HUGE_PAGES: &CStr = c"GLIBC_TUNABLES=glibc.malloc.hugetlb=1";
/// How often a program is tried to be run while another process of ours still has it open for writing, and the pause.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// The worker's ends of pipes and files.
#[derive(Debug)]
pub(crate) struct Pipes<'a> {
    /// What it reads commands from: 3.
    pub commands: BorrowedFd<'a>,
    /// What it writes replies to: 4.
    pub replies: BorrowedFd<'a>,
    /// What it prints to: 1 and 2.
    pub output: BorrowedFd<'a>,
    /// What it writes a snapshot to: 7.
    pub save: Option<BorrowedFd<'a>>,
    /// What it reads a snapshot from: 8.
    pub load: Option<BorrowedFd<'a>>,
}

/// What a worker may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resources {
    /// Bytes of stack: decides how deep vats may recurse, so it must be the node's.
    pub stack: u64,
    /// Bytes of the largest file that it may write.
    pub file: u64,
    /// Bytes of memory; held by the system where it can.
    pub memory: u64,
    /// Processor time in all.
    pub cpu: Duration,
}

/// A process in a sandbox. Whoever has it must wait for its end.
#[derive(Debug)]
pub(crate) struct SandboxedProcess {
    pub pid: Pid,
    /// Its number as it sees it itself.
    pub own_number: u32,
    /// Becomes readable when the process has ended.
    pub pidfd: OwnedFd,
    /// Tells of system calls that are not allowed.
    pub listener: Option<OwnedFd>,
    /// What it uses.
    pub gauges: Option<Gauges>,
    /// Its control group.
    pub group: Option<Member>,
    /// Its own `maps`: the kernel finds the rule by this entry of its cache, which must not be dropped and made anew.
    _maps: Option<OwnedFd>,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
#[error("{}failed to {what}: {source}{}", layer.map(|layer| format!("layer {}: ", layer.label())).unwrap_or_default(), filter_hint(source))]
pub struct SpawnError {
    /// The layer that could not be had, if it was one.
    pub layer: Option<Layer>,
    /// What was tried.
    pub what: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// A refusal may come from a filter that spanwatch itself is under, which is mended in another place than the system's settings.
fn filter_hint(source: &io::Error) -> &'static str {
    if source.raw_os_error() == Some(libc::EPERM) && process::has_seccomp_filter() {
        "; spanwatch is under a filter of system calls: does SystemCallFilter= or RestrictNamespaces= of its service, or the \
         container's seccomp profile, refuse this?"
    } else {
        ""
    }
}

impl SpawnError {
    fn new(layer: Layer, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { layer: Some(layer), what, source }
    }

    /// Whether the program may be tried again at once.
    fn is_busy(&self) -> bool {
        self.source.raw_os_error() == Some(libc::ETXTBSY)
    }
}

impl From<io::Error> for SpawnError {
    fn from(source: io::Error) -> Self {
        Self { layer: None, what: "start a process", source }
    }
}

impl From<Errno> for SpawnError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// The worker's `TZ`.
pub(super) fn time_zone(settings: &Settings) -> OsString {
    let zone = settings.time_zone.clone().or_else(|| std::env::var_os("TZ"));
    zone.filter(|zone| !zone.is_empty()).unwrap_or_else(|| OsString::from("UTC"))
}

impl Sandbox {
    /// Starts the program as a worker.
    ///
    /// # Errors
    /// When a layer cannot be had, or the program cannot be run.
    pub(crate) fn spawn(
        &self,
        arguments: &[impl AsRef<OsStr>],
        pipes: &Pipes<'_>,
        resources: &Resources,
    ) -> Result<SandboxedProcess, SpawnError> {
        let mut tries = 0;
        loop {
            match self.try_spawn(arguments, pipes, resources) {
                // A process of ours that was born while the program was copied has the copy open until it is a worker.
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
        let is_sandboxed = self.mode() != Mode::Off;
        let user = (is_sandboxed && can_change_user()).then(|| self.settings.user.unwrap_or(NOBODY));
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, FileMode::empty())?;
        let (ours, low) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let theirs = out_of_the_way(low.as_fd())?;
        // We hear of the worker's start by the end of the last copy of this.
        drop(low);
        rustix::net::sockopt::set_socket_timeout(&ours, rustix::net::sockopt::Timeout::Recv, Some(START_MAX))?;
        let ruleset = self.rules.as_ref().map(landlock::Rules::ruleset).transpose();
        let ruleset =
            ruleset.map_err(|error| SpawnError::new(Layer::Landlock, "make the rules")(io::Error::other(error)))?;
        let ruleset = match ruleset {
            Some((ruleset, descriptor)) => Some((ruleset, out_of_the_way(descriptor.as_fd())?)),
            None => None,
        };
        let root = if self.has_namespaces { Some(root_of(&self.files)?) } else { None };
        let limits = limits(resources)?;

        let path = CString::new(self.program.path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        let mut texts = vec![path.clone()];
        for argument in arguments {
            texts.push(CString::new(argument.as_ref().as_bytes()).map_err(io::Error::other)?);
        }
        let mut zone = OsString::from("TZ=");
        zone.push(time_zone(&self.settings));
        let zone = CString::new(zone.as_bytes()).map_err(io::Error::other)?;
        let mut argument_list: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        argument_list.push(std::ptr::null());
        // libc asks for huge pages for the worker's heap then, where the system has them for who asks (glibc 2.35 and newer).
        let huge_pages = if self.settings.huge_pages { HUGE_PAGES.as_ptr() } else { std::ptr::null() };
        let environment = [zone.as_ptr(), huge_pages, std::ptr::null()];

        let Pipes { commands, replies, output, save, load } = *pipes;
        let null = out_of_the_way(null.as_fd())?;
        let (directory, program) =
            (out_of_the_way(self.directory.as_fd())?, out_of_the_way(self.program.file.as_fd())?);
        let [commands, replies, output, save, load] =
            [commands, replies, output, save.unwrap_or(null.as_fd()), load.unwrap_or(null.as_fd())].map(out_of_the_way);
        let (commands, replies, output, save, load) = (commands?, replies?, output?, save?, load?);
        let descriptors =
            [&null, &output, &output, &commands, &replies, &null, &null, &save, &load].map(AsRawFd::as_raw_fd);
        let key = key()?;
        let filter = self.filter.as_ref().map(|filter| filter.with_key(key));
        let plan = Plan {
            descriptors,
            talk: theirs.as_raw_fd(),
            limits: &limits,
            directory: directory.as_raw_fd(),
            root: root.as_ref(),
            privileges: is_sandboxed.then_some(Privileges { user }),
            ruleset: ruleset.as_ref().map(|(_, descriptor)| descriptor.as_raw_fd()),
            filter: filter.as_ref(),
            key,
            program: if is_sandboxed { Ok(program.as_raw_fd()) } else { Err(&path) },
            arguments: &argument_list,
            environment: &environment,
        };
        let mut newborn = Newborn(Some(give_birth(&plan).map_err(|source| match root {
            Some(_) => SpawnError::new(Layer::Namespaces, "make a process with namespaces of its own")(source),
            None => source.into(),
        })?));
        drop(theirs);
        let (pid, pidfd) = newborn.parts()?;

        let group = self.settings.group.as_ref().map(|group| group.take(pid, resources.memory)).transpose();
        let group = group.map_err(SpawnError::new(Layer::Cgroup, "put the process into its control group"))?;
        if root.is_some() {
            map_user(pid, user).map_err(SpawnError::new(Layer::Namespaces, "name the user in the new namespace"))?;
        }
        let maps = match ruleset {
            Some((ruleset, _)) => {
                let path = format!("/proc/{}/maps", pid.as_raw_nonzero());
                let maps = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())?;
                landlock::allow_reading(ruleset, &maps)
                    .map_err(|error| SpawnError::new(Layer::Landlock, "allow it its maps")(io::Error::other(error)))?;
                Some(maps)
            }
            None => None,
        };
        let gauges = Gauges::open(pid)?;
        let listener = match rustix::io::write(&ours, b"!") {
            Ok(_) => hear(&ours)?,
            // It is gone already; what it had to say is there to be read.
            Err(Errno::PIPE) => hear(&ours)?,
            Err(error) => return Err(error.into()),
        };
        newborn.0 = None;
        // The first process of a namespace has the number 1 there.
        let own_number = if root.is_some() { 1 } else { pid.as_raw_nonzero().get().unsigned_abs() };
        Ok(SandboxedProcess { pid, own_number, pidfd, listener, gauges: Some(gauges), group, _maps: maps })
    }
}

/// A process that is not the worker yet. Ends with this value.
struct Newborn(Option<(Pid, OwnedFd)>);

impl Newborn {
    fn parts(&self) -> io::Result<(Pid, OwnedFd)> {
        let (pid, pidfd) = self.0.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((*pid, pidfd.try_clone()?))
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some((pid, _)) = &self.0 {
            // Not reaped yet, so the number is still its own.
            let _ = kill_process(*pid, Signal::KILL);
            let _ = waitpid(Some(*pid), WaitOptions::empty());
        }
    }
}

/// Listens until the process has become the worker; the listener of its filter, if it has one.
fn hear(ours: &OwnedFd) -> Result<Option<OwnedFd>, SpawnError> {
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
            // It ended without a word being read.
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
        let step = Step::ALL.get(usize::from(told[1])).copied().unwrap_or(Step::Run);
        let number = i32::from_ne_bytes([told[4], told[5], told[6], told[7]]);
        let (layer, what) = step.describe();
        return Err(SpawnError { layer, what, source: io::Error::from_raw_os_error(number) });
    }
}

/// Makes the new process: its number, and the descriptor that tells of its end.
#[expect(unsafe_code, reason = "no safe wrapper makes a process with flags")]
fn give_birth(plan: &Plan<'_>) -> io::Result<(Pid, OwnedFd)> {
    let namespaces =
        libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
    let flags = libc::SIGCHLD | libc::CLONE_PIDFD | if plan.root.is_some() { namespaces } else { 0 };
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
            enter::enter(plan);
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

/// A number that nobody can guess.
fn key() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// A copy whose number is above those that the new process gives to its own, so that none is overwritten before it is copied.
fn out_of_the_way(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST_FREE_FD)?)
}

/// Where workers are that have no root of their own: in a directory that was removed, so that nothing is in it and nothing
/// can be made in it.
pub(super) fn directory(settings: &Settings) -> io::Result<OwnedFd> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok::<_, io::Error>(rustix::fs::open(path, flags, FileMode::empty())?)
    };
    if settings.mode == Mode::Off {
        return open(Path::new("/"));
    }
    let directory = TempDir::new(Purpose::Empty)?;
    // Whoever the worker will be, he must be able to go there.
    rustix::fs::chmod(directory.path(), FileMode::from_raw_mode(0o555))?;
    open(directory.path())
}

/// Root, unless it is that only by name: in a user namespace with one user in it there is nobody else to become, and that
/// one is an ordinary user outside (user_namespaces(7)).
fn can_change_user() -> bool {
    let is_alone = || matches!(process::user_ranges()[..], [UserRange { length: 1, .. }]);
    rustix::process::geteuid().is_root() && !is_alone()
}

/// Says which user outside is which inside a new user namespace (user_namespaces(7)): the same number.
fn map_user(pid: Pid, user: Option<u32>) -> io::Result<()> {
    let file = |name: &str| PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()));
    let (uid, gid) = match user {
        Some(user) => (user, user),
        None => {
            // Who is not root may name a group only where groups can no longer be changed.
            fs::write(file("setgroups"), "deny")?;
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        }
    };
    fs::write(file("gid_map"), format!("{gid} {gid} 1"))?;
    fs::write(file("uid_map"), format!("{uid} {uid} 1"))
}

/// What the process may use, within what this one may.
fn limits(resources: &Resources) -> Result<Vec<(libc::__rlimit_resource_t, u64)>, SpawnError> {
    let hard = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let stack = hard(Resource::Stack);
    if stack < resources.stack {
        let what = format!("{} bytes are asked for (--worker-stack), and ulimit -Hs allows {stack}", resources.stack);
        let error = io::Error::new(io::ErrorKind::PermissionDenied, what);
        return Err(SpawnError::new(Layer::Limits, "give it its stack")(error));
    }
    Ok(vec![
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, resources.file.min(hard(Resource::Fsize))),
        (libc::RLIMIT_STACK, resources.stack),
        (libc::RLIMIT_NOFILE, DESCRIPTORS_MAX.min(hard(Resource::Nofile))),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
        (libc::RLIMIT_CPU, (resources.cpu + CPU_MARGIN).as_secs().min(hard(Resource::Cpu))),
    ])
}

/// The root with a worker's files.
fn root_of(files: &Files) -> io::Result<Root> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let within = |path: &Path| path.strip_prefix("/").map(Path::to_path_buf).map_err(io::Error::other);
    let mut directories = std::collections::BTreeSet::from([PathBuf::from("empty")]);
    let mut mounts = Vec::new();
    let maps = PathBuf::from(MAPS);
    let all = files.code.iter().map(|path| (path, true)).chain(files.data.iter().map(|path| (path, false)));
    for (path, is_code) in all.chain([(&maps, false)]) {
        let (to, is_directory) = (within(path)?, path.is_dir());
        let parents = to.ancestors().skip(usize::from(!is_directory));
        directories.extend(parents.filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_path_buf));
        mounts.push(Mount { from: text(path)?, to: text(&to)?, is_directory, is_code });
    }
    if mounts.len() > enter::MOUNTS_MAX {
        let what = format!("the worker has {} libraries and zone files, which is too many", mounts.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let directories = directories.iter().map(|path| text(path)).collect::<io::Result<_>>()?;
    Ok(Root { directories, mounts })
}

impl AsFd for SandboxedProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
