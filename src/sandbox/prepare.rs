//! Preparing a start: everything that the new process needs, made before there is one.
//!
//! Owns the texts, descriptors and rules that [`super::enter`] points to, as the new process can make none itself. It must never
//! start anything, nor give a worker more than its [`Settings`] allow.

use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::landlock::RulesetCreated;
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::enter::{self, Entry, FIRST_FREE_FD, Mount, Privileges, Root};
use super::error::SpawnError;
use super::files::{Files, MAPS};
use super::landlock::Rules;
use super::seccomp::Filter;
use super::{Layer, Mode, NOBODY, Sandbox, Settings};
use crate::files::process::{self, UserRange};
use crate::files::temp::{Purpose, TempDir};

/// The most descriptors that a worker has.
const DESCRIPTORS_MAX: u64 = 32;
/// The system's own limit on a worker's processor time stands this far behind ours, which tells more.
const CPU_MARGIN: Duration = Duration::from_secs(60);
const HUGE_PAGES: &CStr = c"GLIBC_TUNABLES=glibc.malloc.hugetlb=1";

/// The worker's ends of pipes and files.
#[derive(Debug)]
pub(crate) struct Pipes<'a> {
    /// The pipe of commands: 3.
    pub commands: BorrowedFd<'a>,
    /// The pipe of replies: 4.
    pub replies: BorrowedFd<'a>,
    /// The pipe of printed output: 1 and 2.
    pub output: BorrowedFd<'a>,
    /// The pipe that it writes a snapshot to: 7.
    pub save: Option<BorrowedFd<'a>>,
    /// The file that it reads a snapshot from: 8.
    pub load: Option<BorrowedFd<'a>>,
}

/// The resources that a worker may use.
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

/// One start, prepared.
pub(super) struct Prepared<'a> {
    /// The path of the program, then its arguments.
    texts: Vec<CString>,
    /// `TZ` of the worker.
    zone: CString,
    huge_pages: bool,
    files: Descriptors,
    limits: Vec<(libc::__rlimit_resource_t, u64)>,
    pub(super) root: Option<Root>,
    /// The user to become; `None` to stay who we are.
    pub(super) user: Option<u32>,
    pub(super) ruleset: Option<(RulesetCreated, OwnedFd)>,
    filter: Option<Filter>,
    key: u64,
    sandbox: &'a Sandbox,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(
        sandbox: &'a Sandbox,
        arguments: &[impl AsRef<OsStr>],
        pipes: &Pipes<'_>,
        resources: &Resources,
    ) -> Result<Self, SpawnError> {
        let is_sandboxed = sandbox.mode() != Mode::Off;
        let user = (is_sandboxed && can_change_user()).then(|| sandbox.settings.user.unwrap_or(NOBODY));
        let mut texts = vec![text(sandbox.program.path.as_os_str())?];
        for argument in arguments {
            texts.push(text(argument.as_ref())?);
        }
        let mut zone = OsString::from("TZ=");
        zone.push(time_zone(&sandbox.settings));
        let key = key()?;
        Ok(Self {
            texts,
            zone: text(&zone)?,
            huge_pages: sandbox.settings.huge_pages,
            files: Descriptors::new(sandbox, pipes)?,
            limits: limits(resources)?,
            root: if sandbox.has_namespaces { Some(root_of(&sandbox.files)?) } else { None },
            user,
            ruleset: sandbox.rules.as_ref().map(ruleset).transpose()?,
            filter: sandbox.filter.as_ref().map(|filter| filter.with_key(key)),
            key,
            sandbox,
        })
    }

    /// Runs `act` with the entry of a process that talks with us over `talk`.
    pub(super) fn with_entry<T>(&self, talk: &OwnedFd, act: impl FnOnce(&Entry<'_>) -> T) -> T {
        let is_sandboxed = self.sandbox.mode() != Mode::Off;
        let mut arguments: Vec<*const c_char> = self.texts.iter().map(|text| text.as_ptr()).collect();
        arguments.push(std::ptr::null());
        // libc asks for huge pages for the worker's heap then, where the system has them on request (glibc 2.35 and newer).
        let huge_pages = if self.huge_pages { HUGE_PAGES.as_ptr() } else { std::ptr::null() };
        let path = self.texts.first().map_or(c"", CString::as_c_str);
        act(&Entry {
            descriptors: self.files.numbers(),
            talk: talk.as_raw_fd(),
            limits: &self.limits,
            directory: self.files.directory.as_raw_fd(),
            root: self.root.as_ref(),
            privileges: is_sandboxed.then_some(Privileges { user: self.user }),
            ruleset: self.ruleset.as_ref().map(|(_, descriptor)| descriptor.as_raw_fd()),
            filter: self.filter.as_ref(),
            key: self.key,
            program: if is_sandboxed { Ok(self.files.program.as_raw_fd()) } else { Err(path) },
            arguments: &arguments,
            environment: &[self.zone.as_ptr(), huge_pages, std::ptr::null()],
        })
    }
}

/// The descriptors of a start, each with a number above those that the new process gives to its own.
struct Descriptors {
    null: OwnedFd,
    commands: OwnedFd,
    replies: OwnedFd,
    output: OwnedFd,
    save: OwnedFd,
    load: OwnedFd,
    directory: OwnedFd,
    program: OwnedFd,
}

impl Descriptors {
    fn new(sandbox: &Sandbox, pipes: &Pipes<'_>) -> io::Result<Self> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, FileMode::empty())?;
        let null = out_of_the_way(null.as_fd())?;
        Ok(Self {
            commands: out_of_the_way(pipes.commands)?,
            replies: out_of_the_way(pipes.replies)?,
            output: out_of_the_way(pipes.output)?,
            save: out_of_the_way(pipes.save.unwrap_or(null.as_fd()))?,
            load: out_of_the_way(pipes.load.unwrap_or(null.as_fd()))?,
            directory: out_of_the_way(sandbox.directory.as_fd())?,
            program: out_of_the_way(sandbox.program.file.as_fd())?,
            null,
        })
    }

    /// The descriptors of the worker, from 0 to 8.
    fn numbers(&self) -> [RawFd; 9] {
        let Self { null, commands, replies, output, save, load, .. } = self;
        [null, output, output, commands, replies, null, null, save, load].map(AsRawFd::as_raw_fd)
    }
}

/// The rules of one start: the ruleset, and the descriptor by which the new process applies it.
fn ruleset(rules: &Rules) -> Result<(RulesetCreated, OwnedFd), SpawnError> {
    let made = rules.ruleset().map_err(io::Error::other);
    let (ruleset, descriptor) = made.map_err(SpawnError::new(Layer::Landlock, "make the rules"))?;
    Ok((ruleset, out_of_the_way(descriptor.as_fd())?))
}

fn text(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(io::Error::other)
}

/// The worker's `TZ`.
pub(super) fn time_zone(settings: &Settings) -> OsString {
    let zone = settings.time_zone.clone().or_else(|| std::env::var_os("TZ"));
    zone.filter(|zone| !zone.is_empty()).unwrap_or_else(|| OsString::from("UTC"))
}

/// A random number.
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
pub(super) fn out_of_the_way(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST_FREE_FD)?)
}

/// The directory of workers without a root of their own: one that was removed, so that it is empty and nothing can be made in it.
pub(super) fn directory(settings: &Settings) -> io::Result<OwnedFd> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok::<_, io::Error>(rustix::fs::open(path, flags, FileMode::empty())?)
    };
    if settings.mode == Mode::Off {
        return open(Path::new("/"));
    }
    let directory = TempDir::new(Purpose::Empty)?;
    // Any user that the worker may run as must be able to enter it.
    rustix::fs::chmod(directory.path(), FileMode::from_raw_mode(0o555))?;
    open(directory.path())
}

/// Whether this process is root and can become another user. In a user namespace with one user there is no other, and that one is an
/// ordinary user outside (user_namespaces(7)).
fn can_change_user() -> bool {
    let is_alone = || matches!(process::user_ranges()[..], [UserRange { length: 1, .. }]);
    rustix::process::geteuid().is_root() && !is_alone()
}

/// The limits of the process, within those of this one.
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

/// The root directory with a worker's files.
fn root_of(files: &Files) -> io::Result<Root> {
    let within = |path: &Path| path.strip_prefix("/").map(Path::to_path_buf).map_err(io::Error::other);
    let mut directories = std::collections::BTreeSet::from([PathBuf::from("empty")]);
    let mut mounts = Vec::new();
    let maps = PathBuf::from(MAPS);
    let all = files.code.iter().map(|path| (path, true)).chain(files.data.iter().map(|path| (path, false)));
    for (path, is_code) in all.chain([(&maps, false)]) {
        let (to, is_directory) = (within(path)?, path.is_dir());
        let parents = to.ancestors().skip(usize::from(!is_directory));
        directories.extend(parents.filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_path_buf));
        mounts.push(Mount { from: text(path.as_os_str())?, to: text(to.as_os_str())?, is_directory, is_code });
    }
    if mounts.len() > enter::MOUNTS_MAX {
        let what = format!("the worker has {} libraries and zone files, which is too many", mounts.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let directories = directories.iter().map(|path| text(path.as_os_str())).collect::<io::Result<_>>()?;
    Ok(Root { directories, mounts })
}
