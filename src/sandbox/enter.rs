//! The sandbox, layer by layer: the steps of a new process from clone(2) to the first instruction of the worker.
//!
//! Runs in a copy of a process with many threads, of which it is the only one: it makes system calls and nothing else.
//! Owns all layers in their order, in this one file. It must never allocate memory or take a lock, not even one of libc's, which
//! a thread may have held that is not here: [`super::prepare`] made everything that it needs. The layers are put on in the order of
//! `docs/sandbox.md`, but for the root of the namespaces: to build it takes privileges that layer 4 gives up, files that layer 5 takes
//! away, and more descriptors than layer 3 leaves.

#![expect(unsafe_code, reason = "what happens between fork and exec has no safe form")]

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::ptr;

use super::Layer;
use super::seccomp::Filter;

/// The program, for the moment of its start: the first number after a worker's own descriptors.
pub(super) const PROGRAM_FD: RawFd = 9;
/// The new process's end of its talk with the parent, for as long.
pub(super) const TALK_FD: RawFd = 10;
/// The ruleset of Landlock.
pub(super) const RULESET_FD: RawFd = 11;
/// The directory of workers without a root of their own.
const DIRECTORY_FD: RawFd = 12;
/// Every descriptor from here on is closed.
pub(super) const FIRST_FREE_FD: RawFd = 13;

/// Everything that the new process needs to become the worker.
pub(super) struct Entry<'a> {
    /// Descriptors 0 to 8 of the worker, in this order.
    pub(super) descriptors: [RawFd; 9],
    pub(super) talk: RawFd,
    pub(super) limits: &'a [(libc::__rlimit_resource_t, u64)],
    /// An empty directory that was removed, for workers without a root of their own.
    pub(super) directory: RawFd,
    pub(super) root: Option<&'a Root>,
    pub(super) privileges: Option<Privileges>,
    pub(super) ruleset: Option<RawFd>,
    pub(super) filter: Option<&'a Filter>,
    /// The key that the filter asks of the call that starts the worker.
    pub(super) key: u64,
    /// The program's memory file; its path if there is no sandbox.
    pub(super) program: Result<RawFd, &'a CStr>,
    /// Each ends with a null pointer.
    pub(super) arguments: &'a [*const libc::c_char],
    pub(super) environment: &'a [*const libc::c_char],
}

/// Layer 4.
#[derive(Clone, Copy)]
pub(super) struct Privileges {
    /// The user and group to become, if we are root.
    pub(super) user: Option<u32>,
}

/// Layer 7: a root directory with nothing but these in it.
#[derive(Debug)]
pub(super) struct Root {
    /// Directories to make, parents first; relative to the root.
    pub(super) directories: Vec<CString>,
    /// The mounts: from, to (relative to the root), whether it is a directory, whether it may be run.
    pub(super) mounts: Vec<Mount>,
}

#[derive(Debug)]
pub(super) struct Mount {
    pub(super) from: CString,
    pub(super) to: CString,
    pub(super) is_directory: bool,
    pub(super) is_code: bool,
}

/// The directory in which the root is built: every system has it. Its content is hidden in our namespace only.
const BUILT_AT: &CStr = c"/proc";
/// The most mounts that a root has.
pub(super) const MOUNTS_MAX: usize = 64;

/// A step of the way, for the report of one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum EntryStep {
    Session,
    Descriptors,
    Go,
    Limit,
    Directory,
    User,
    Private,
    Clone,
    Tmpfs,
    Make,
    Mount,
    Pivot,
    ReadOnly,
    Capabilities,
    NewPrivileges,
    Restrict,
    Filter,
    Tell,
    Run,
}

impl EntryStep {
    pub(super) const ALL: [Self; 19] = [
        Self::Session,
        Self::Descriptors,
        Self::Go,
        Self::Limit,
        Self::Directory,
        Self::User,
        Self::Private,
        Self::Clone,
        Self::Tmpfs,
        Self::Make,
        Self::Mount,
        Self::Pivot,
        Self::ReadOnly,
        Self::Capabilities,
        Self::NewPrivileges,
        Self::Restrict,
        Self::Filter,
        Self::Tell,
        Self::Run,
    ];

    /// The layer and what was tried; no layer where it was the program itself.
    pub(super) fn describe(self) -> (Option<Layer>, &'static str) {
        match self {
            Self::Session => (Some(Layer::Process), "make a session"),
            Self::Descriptors => (Some(Layer::Descriptors), "set up the descriptors"),
            Self::Go => (Some(Layer::Process), "hear from the parent"),
            Self::Limit => (Some(Layer::Limits), "set a limit"),
            Self::Directory => (Some(Layer::Limits), "go to an empty directory"),
            Self::User => (Some(Layer::Privileges), "become another user"),
            Self::Private => (Some(Layer::Namespaces), "part with the mounts of others"),
            Self::Clone => (Some(Layer::Namespaces), "take a file into the root"),
            Self::Tmpfs => (Some(Layer::Namespaces), "mount a root"),
            Self::Make => (Some(Layer::Namespaces), "make a directory in the root"),
            Self::Mount => (Some(Layer::Namespaces), "mount a file in the root"),
            Self::Pivot => (Some(Layer::Namespaces), "change the root"),
            Self::ReadOnly => (Some(Layer::Namespaces), "make the root read-only"),
            Self::Capabilities => (Some(Layer::Privileges), "give up capabilities"),
            Self::NewPrivileges => (Some(Layer::Privileges), "refuse new privileges"),
            Self::Restrict => (Some(Layer::Landlock), "apply the rules"),
            Self::Filter => (Some(Layer::Seccomp), "apply the filter"),
            Self::Tell => (Some(Layer::Seccomp), "hand over the filter's listener"),
            Self::Run => (None, "run the program"),
        }
    }
}

/// A step that went wrong, and the error's number.
type Failed = (EntryStep, i32);

/// The first byte of what is told to the parent.
pub(super) const TOLD_FAILURE: u8 = 0;
/// Likewise, with the descriptor of the filter's listener.
pub(super) const TOLD_LISTENER: u8 = 1;

/// Becomes the worker, or tells why not.
///
/// # Safety
/// Only for a process that was just made, and has one thread.
pub(super) unsafe fn enter(entry: &Entry<'_>) -> ! {
    // SAFETY: this is the process that the caller promises.
    unsafe {
        let mut talk = entry.talk;
        let (step, error) = become_worker(entry, &mut talk);
        let message = [TOLD_FAILURE, step as u8, 0, 0, 0, 0, 0, 0];
        let mut message = message;
        let number = error.to_ne_bytes();
        let mut at = 0;
        while at < 4 {
            message[4 + at] = number[at];
            at += 1;
        }
        libc::write(talk, message.as_ptr().cast(), message.len());
        libc::_exit(126);
    }
}

unsafe fn become_worker(entry: &Entry<'_>, talk: &mut RawFd) -> Failed {
    // SAFETY: as in `enter`.
    let failed = unsafe {
        (|| {
            own_session()?;
            take_descriptors(entry, talk)?;
            wait_for_parent()?;
            be_the_first_to_go();
            if let Some(privileges) = entry.privileges {
                become_nobody(privileges)?;
            }
            match entry.root {
                Some(root) => own_root(root)?,
                None => check(EntryStep::Directory, libc::fchdir(DIRECTORY_FD))?,
            }
            take_limits(entry)?;
            if entry.privileges.is_some() {
                give_up_privileges()?;
            }
            die_with_parent()?;
            if entry.ruleset.is_some() {
                check_long(EntryStep::Restrict, libc::syscall(libc::SYS_landlock_restrict_self, RULESET_FD, 0))?;
            }
            if let Some(filter) = entry.filter {
                filter_calls(filter)?;
            }
            run(entry)
        })()
    };
    match failed {
        Ok(never) => match never {},
        Err(failed) => failed,
    }
}

/// Layer 1: a process group and a session of its own, all signals as a new program expects them.
unsafe fn own_session() -> Result<(), Failed> {
    // All zeroes is the default action, and no signal (the kernel's own structures, rt_sigaction(2)).
    let nothing = [0_u64; 4];
    let (none, set_bytes) = (ptr::null::<u64>(), 8_usize);
    // SAFETY: structures of the size that the kernel expects; signals were blocked by the parent, so none comes in between.
    unsafe {
        let mut signal = 1;
        while signal < 65 {
            // Two can't be set and say so; the others are what they should be, whatever the answer.
            libc::syscall(libc::SYS_rt_sigaction, signal, nothing.as_ptr(), none, set_bytes);
            signal += 1;
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, nothing.as_ptr(), none, set_bytes);
        // A new process leads no group, which is all that setsid asks.
        check(EntryStep::Session, libc::setsid())?;
    }
    // SAFETY: as for this function.
    unsafe { die_with_parent() }
}

/// Said twice: a change of user takes it back (prctl(2)).
unsafe fn die_with_parent() -> Result<(), Failed> {
    // SAFETY: a signal number is all that it takes.
    check(EntryStep::Session, unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // A parent that died before can be told by its end of the talk; one that has not yet said "go" is waited for.
    let mut byte = 0_u8;
    // SAFETY: one byte of ours.
    let read = unsafe { libc::recv(TALK_FD, ptr::from_mut(&mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    if read == 0 { Err((EntryStep::Go, libc::ESRCH)) } else { Ok(()) }
}

/// Layer 2: the worker's descriptors, three of ours for the moment, and no others.
unsafe fn take_descriptors(entry: &Entry<'_>, talk: &mut RawFd) -> Result<(), Failed> {
    // SAFETY: plain numbers of descriptors, all of those that are copied above those that they are copied to.
    unsafe {
        check(EntryStep::Descriptors, libc::dup3(entry.talk, TALK_FD, libc::O_CLOEXEC))?;
        *talk = TALK_FD;
        let mut number = 0;
        while number < entry.descriptors.len() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "less than ten")]
            let to = number as RawFd;
            check(EntryStep::Descriptors, libc::dup2(entry.descriptors[number], to))?;
            number += 1;
        }
        if let Ok(program) = entry.program {
            check(EntryStep::Descriptors, libc::dup3(program, PROGRAM_FD, libc::O_CLOEXEC))?;
        }
        if let Some(ruleset) = entry.ruleset {
            check(EntryStep::Descriptors, libc::dup3(ruleset, RULESET_FD, libc::O_CLOEXEC))?;
        }
        check(EntryStep::Descriptors, libc::dup3(entry.directory, DIRECTORY_FD, libc::O_CLOEXEC))?;
        // Before Linux 5.9 there is no such call: all that this program opens is marked to be closed anyway.
        libc::syscall(libc::SYS_close_range, FIRST_FREE_FD.cast_unsigned(), u32::MAX, 0);
        Ok(())
    }
}

/// Waits for the parent's word that it has done its part.
unsafe fn wait_for_parent() -> Result<(), Failed> {
    let mut byte = 0_u8;
    loop {
        // SAFETY: one byte of ours.
        match unsafe { libc::read(TALK_FD, ptr::from_mut(&mut byte).cast(), 1) } {
            1 => return Ok(()),
            -1 if errno() == libc::EINTR => {}
            -1 => return Err((EntryStep::Go, errno())),
            _ => return Err((EntryStep::Go, libc::ESRCH)),
        }
    }
}

/// If memory runs out, the system takes a worker before it takes the node. Where that can't be said, it is not.
unsafe fn be_the_first_to_go() {
    // SAFETY: texts that end with a NUL and outlive the calls; a failed open gives -1, which write and close refuse.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(file, c"1000".as_ptr().cast(), 4);
        libc::close(file);
    }
}

/// Layer 3, but for the number of processes: that is taken with the privileges, which make up for it.
unsafe fn take_limits(entry: &Entry<'_>) -> Result<(), Failed> {
    // SAFETY: structures that outlive the calls.
    unsafe {
        libc::umask(0o077);
        let mut index = 0;
        while index < entry.limits.len() {
            let (resource, limit) = entry.limits[index];
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            check(EntryStep::Limit, libc::setrlimit(resource, &raw const limit))?;
            index += 1;
        }
    }
    Ok(())
}

/// Layer 4, first part: another user, while we still may.
unsafe fn become_nobody(privileges: Privileges) -> Result<(), Failed> {
    // SAFETY: plain numbers.
    unsafe {
        let mut capability: libc::c_ulong = 0;
        // Up to the first that the kernel does not know. Who may not drop one has none to begin with.
        while libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) >= 0 {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            capability += 1;
        }
        if let Some(user) = privileges.user {
            // Not by libc's functions of these names: they would do it for threads that are not in this process.
            check_long(EntryStep::User, libc::syscall(libc::SYS_setgroups, 0, ptr::null::<u32>()))?;
            check_long(EntryStep::User, libc::syscall(libc::SYS_setresgid, user, user, user))?;
            check_long(EntryStep::User, libc::syscall(libc::SYS_setresuid, user, user, user))?;
        }
    }
    Ok(())
}

/// Layer 4, second part: no capabilities, no way to gain any, no processes of its own.
unsafe fn give_up_privileges() -> Result<(), Failed> {
    #[repr(C)]
    struct Header {
        version: u32,
        process: i32,
    }
    // capset(2): version 3 takes the three sets in two halves each.
    let header = Header { version: 0x2008_0522, process: 0 };
    let none = [0_u32; 6];
    let no_process = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: structures of the size that the calls expect, which outlive them.
    unsafe {
        // There is nothing to be cleared where there is no such call.
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        check_long(EntryStep::Capabilities, libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()))?;
        check(EntryStep::NewPrivileges, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        // Until the program runs, which for having been made unreadable shows nothing either.
        check(EntryStep::NewPrivileges, libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
        check(EntryStep::Limit, libc::setrlimit(libc::RLIMIT_NPROC, &raw const no_process))
    }
}

/// Layer 7: a root that holds only what the worker needs. The process was made in its namespaces already.
unsafe fn own_root(root: &Root) -> Result<(), Failed> {
    const MODE: libc::mode_t = 0o755;
    let bare = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let mut clones = [-1; MOUNTS_MAX];
    // SAFETY: texts that end with a NUL and outlive the calls, and numbers.
    unsafe {
        let (nothing, private) = (ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        check(EntryStep::Private, libc::mount(nothing, c"/".as_ptr(), nothing, private, ptr::null()))?;
        // Before the root hides the paths of some of them.
        let mut index = 0;
        while index < root.mounts.len() {
            let from = root.mounts[index].from.as_ptr();
            let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
            let clone = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, from, flags);
            check_long(EntryStep::Clone, clone)?;
            #[expect(clippy::cast_possible_truncation, reason = "a descriptor")]
            {
                clones[index] = clone as RawFd;
            }
            index += 1;
        }
        let (kind, options) = (c"tmpfs".as_ptr(), c"mode=755,size=64k,nr_inodes=256".as_ptr());
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        check(EntryStep::Tmpfs, libc::mount(kind, BUILT_AT.as_ptr(), kind, flags, options.cast()))?;
        check(EntryStep::Tmpfs, libc::chdir(BUILT_AT.as_ptr()))?;
        let mut index = 0;
        while index < root.directories.len() {
            check(EntryStep::Make, libc::mkdir(root.directories[index].as_ptr(), MODE))?;
            index += 1;
        }
        let mut index = 0;
        while index < root.mounts.len() {
            let mount = &root.mounts[index];
            if !mount.is_directory {
                let file = libc::open(mount.to.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o444);
                check(EntryStep::Make, file)?;
                libc::close(file);
            }
            let (from, here) = (clones[index], libc::AT_FDCWD);
            let flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
            let moved = libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), here, mount.to.as_ptr(), flags);
            check_long(EntryStep::Mount, moved)?;
            let attributes = if mount.is_code { bare } else { bare | libc::MOUNT_ATTR_NOEXEC };
            set_mount_attributes(from, c"", libc::AT_EMPTY_PATH, attributes)?;
            libc::close(from);
            index += 1;
        }
        check_long(EntryStep::Pivot, libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(EntryStep::Pivot, libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(EntryStep::Directory, libc::chdir(c"/empty".as_ptr()))?;
        set_mount_attributes(libc::AT_FDCWD, c"/", 0, bare | libc::MOUNT_ATTR_NOEXEC)
    }
}

unsafe fn set_mount_attributes(directory: RawFd, path: &CStr, flags: libc::c_int, set: u64) -> Result<(), Failed> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the structure and the text outlive the call, which is told the structure's size.
    check_long(EntryStep::ReadOnly, unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
}

/// Layer 6: from here on there are only the calls of the policy.
unsafe fn filter_calls(filter: &Filter) -> Result<(), Failed> {
    // SAFETY: programs that outlive the calls, with their lengths.
    unsafe {
        let telling = program_of(&filter.telling);
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const telling);
        if listener >= 0 {
            #[expect(clippy::cast_possible_truncation, reason = "a descriptor")]
            return hand_over(listener as RawFd);
        }
        // Whatever we run in has a listener already, or the kernel has none to give: then the kernel kills.
        let killing = program_of(&filter.killing);
        let filtered = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const killing);
        check_long(EntryStep::Filter, filtered)
    }
}

fn program_of(lines: &[libc::sock_filter]) -> libc::sock_fprog {
    // The kernel takes no more than 4096 lines, and the compiler of the policy makes no more.
    #[expect(clippy::cast_possible_truncation, reason = "less than 4096")]
    libc::sock_fprog { len: lines.len() as u16, filter: lines.as_ptr().cast_mut() }
}

/// Gives a descriptor to the parent (unix(7), `SCM_RIGHTS`).
unsafe fn hand_over(descriptor: RawFd) -> Result<(), Failed> {
    let mut told = [TOLD_LISTENER];
    // Aligned as a header of a control message must be.
    let mut control = [0_u64; 8];
    // SAFETY: the buffers outlive the call, and the control message fits into its own.
    unsafe {
        let mut part = libc::iovec { iov_base: told.as_mut_ptr().cast(), iov_len: 1 };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), descriptor);
        if libc::sendmsg(TALK_FD, &raw const message, 0) == -1 { Err((EntryStep::Tell, errno())) } else { Ok(()) }
    }
}

/// The last step. Comes back only if it fails.
unsafe fn run(entry: &Entry<'_>) -> Result<std::convert::Infallible, Failed> {
    let (arguments, environment) = (entry.arguments.as_ptr(), entry.environment.as_ptr());
    // SAFETY: lists of texts, each of which ends as it must and outlives the call.
    unsafe {
        match entry.program {
            Ok(_) => {
                let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
                // The key is no argument of this call: the kernel ignores it, and the filter looks at it.
                libc::syscall(libc::SYS_execveat, PROGRAM_FD, path, arguments, environment, flags, entry.key);
            }
            Err(path) => {
                libc::execve(path.as_ptr(), arguments, environment);
            }
        }
    }
    Err((EntryStep::Run, errno()))
}

fn errno() -> i32 {
    // SAFETY: the address of this thread's own error number.
    unsafe { *libc::__errno_location() }
}

fn check(step: EntryStep, result: libc::c_int) -> Result<(), Failed> {
    if result == -1 { Err((step, errno())) } else { Ok(()) }
}

fn check_long(step: EntryStep, result: libc::c_long) -> Result<(), Failed> {
    if result == -1 { Err((step, errno())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_known_by_its_number() {
        for (number, step) in EntryStep::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number, "{step:?}");
        }
    }
}
