//! The worker's process: how it is started and how it ends.
//!
//! Owns everything between `fork` and `exec`, and the certainty that no worker outlives the [`Process`] that stands for
//! it. It knows nothing of the protocol.
//!
//! Descriptors (`@agoric/xsnap/src/xsnap.js`): 0 null, 1 and 2 a pipe that is drained, 3 commands, 4 replies, 5 and 6
//! null, 7 the snapshot that the worker writes, 8 the one that it reads or null; nothing else is passed on.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, WaitId, WaitIdOptions, getrlimit, kill_process_group, pidfd_open, waitid,
};

use super::watch::{Limits, Watch, Watcher};
use crate::image::IMAGE_BYTES_MAX;

/// How long a worker that closed its pipe may take to end.
const END_GRACE: Duration = Duration::from_secs(5);
/// The first descriptor that a worker is not given; those that it is given are set up from above.
const FIRST_FREE_FD: RawFd = 9;

/// A worker's process. Ends with this value, with all that it may have started.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Becomes readable when the process has ended.
    pidfd: Option<OwnedFd>,
    /// Set once the process is reaped: from then on its number may be another's.
    status: Option<ExitStatus>,
    watch: Arc<Watch>,
    watcher: Option<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct End {
    /// The exit status; `None` if it had to be killed because it would not end.
    pub status: Option<ExitStatus>,
    /// The limit for which it was stopped, if it was.
    pub limit: Option<String>,
    /// The end of what it printed.
    pub said: String,
}

/// The pipes and files of a new worker.
#[derive(Debug)]
pub struct Pipes<'a> {
    /// What it reads commands from.
    pub commands: BorrowedFd<'a>,
    /// What it writes replies to.
    pub replies: BorrowedFd<'a>,
    /// What it writes a snapshot to.
    pub save: Option<BorrowedFd<'a>>,
    /// What it reads a snapshot from.
    pub load: Option<BorrowedFd<'a>>,
}

impl Process {
    /// Starts a program as a worker.
    ///
    /// # Errors
    /// When the system refuses, or the file is no program.
    pub fn start(
        program: &Path,
        arguments: &[impl AsRef<OsStr>],
        pipes: &Pipes<'_>,
        limits: &Limits,
    ) -> io::Result<Self> {
        LazyLock::force(&LOW_DESCRIPTORS);
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let (output, output_writer) = pipe()?;
        rustix::io::ioctl_fionbio(&output, true)?;

        let sources = [
            pipes.commands,
            pipes.replies,
            null.as_fd(),
            null.as_fd(),
            pipes.save.unwrap_or(null.as_fd()),
            pipes.load.unwrap_or(null.as_fd()),
        ];
        // Copies above the range that they go to, so that none is overwritten before it is copied.
        let copies = sources
            .iter()
            .map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE_FD)?))
            .collect::<io::Result<Vec<OwnedFd>>>()?;

        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("TZ", std::env::var_os("TZ").unwrap_or_else(|| OsString::from("UTC")))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::from(output_writer.try_clone()?))
            .stderr(Stdio::from(output_writer));
        let resources = resource_limits(limits)?;
        prepare(&mut command, copies.iter().map(AsRawFd::as_raw_fd).collect(), resources);
        let child = command.spawn()?;
        drop(command);
        drop(copies);

        let watch = Arc::new(Watch::default());
        let pid = Pid::from_child(&child);
        let mut process = Self { child, pidfd: None, status: None, watch: Arc::clone(&watch), watcher: None };
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        process.pidfd = Some(pidfd.try_clone()?);
        let limits = limits.clone();
        let watcher = std::thread::Builder::new()
            .name("worker-watch".to_owned())
            .spawn(move || Watcher { pid, pidfd, output: File::from(output), watch, limits }.run())?;
        process.watcher = Some(watcher);
        Ok(process)
    }

    /// A descriptor that becomes readable when the process has ended.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// Says that the next delivery begins: its limits count from now.
    pub fn begin_delivery(&self) {
        self.watch.begin_delivery();
    }

    /// Runs something that waits for the worker. Only then can it be found to have stalled.
    pub fn awaiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.watch.awaiting(wait)
    }

    /// Takes the end of a worker that closed its pipes: waits for a moment, then kills.
    pub fn end(&mut self) -> End {
        let deadline = Instant::now() + END_GRACE;
        let mut has_ended = self.has_ended();
        while !has_ended && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            has_ended = self.has_ended();
        }
        self.kill();
        End { status: self.status.filter(|_| has_ended), limit: self.watch.limit(), said: self.watch.said() }
    }

    /// Whether the process has ended, without reaping it: until then its number stays its own.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.status.is_some()
            || matches!(waitid(WaitId::Pid(Pid::from_child(&self.child)), options), Ok(Some(_)) | Err(_))
    }

    /// Kills the process and all that it started, and waits for its end.
    fn kill(&mut self) {
        if self.status.is_some() {
            return;
        }
        // Before it is reaped, the group with its number can be no other's.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        // The watcher ends when the process does. It may kill the group too, so it must be gone first.
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        self.status = self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A pipe whose ends no other program inherits: reader, writer.
///
/// # Errors
/// When there are no descriptors left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Keeps the numbers that a worker's descriptors get from being used by anything in this process.
///
/// `Command` reports a failed `exec` through a pipe of its own. If that had one of those numbers, setting up the worker
/// would overwrite it, and a file that is no program would look like a worker that ended at once.
static LOW_DESCRIPTORS: LazyLock<Vec<OwnedFd>> = LazyLock::new(|| {
    let mut kept = Vec::new();
    while let Ok(fd) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        if fd.as_raw_fd() >= FIRST_FREE_FD {
            break;
        }
        kept.push(fd);
    }
    kept
});

/// What the worker's process may use, within what this one may.
fn resource_limits(limits: &Limits) -> io::Result<[(libc::__rlimit_resource_t, u64); 3]> {
    let hard = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
    if hard(Resource::Stack) < limits.stack {
        let has = hard(Resource::Stack);
        let what =
            format!("a stack of {} bytes is asked for (--worker-stack), and ulimit -Hs allows {has}", limits.stack);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok([
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, IMAGE_BYTES_MAX.min(hard(Resource::Fsize))),
        (libc::RLIMIT_STACK, limits.stack),
    ])
}

#[expect(unsafe_code, reason = "what happens between fork and exec has no safe form")]
fn prepare(command: &mut Command, copies: Vec<RawFd>, resources: [(libc::__rlimit_resource_t, u64); 3]) {
    let parent = std::process::id();
    let set_up = move || {
        for (number, copy) in (3..).zip(&copies) {
            // SAFETY: both are plain numbers of open descriptors.
            check(unsafe { libc::dup2(*copy, number) })?;
        }
        // SAFETY: no memory is involved; marks all further descriptors to be closed by exec, and not now, as `Command`
        // still has a use for one of them.
        // Before Linux 5.11 there is no such call; all that this program opens is marked already.
        unsafe { libc::close_range(FIRST_FREE_FD.cast_unsigned(), u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
        // SAFETY: a new process is no group leader, which is all that setsid asks.
        check(unsafe { libc::setsid() })?;
        // SAFETY: a signal number is all that it takes.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // SAFETY: cannot fail and takes nothing.
        if unsafe { libc::getppid() }.cast_unsigned() != parent {
            // The parent died before its death would be told.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        for (resource, limit) in resources {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: the structure outlives the call.
            check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
        }
        // If memory runs out, the system takes a worker before it takes the node. Where that can't be said, it is not.
        // SAFETY: the texts end with a NUL and outlive the calls; a failed open gives -1, which write and close refuse.
        unsafe {
            let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            libc::write(file, c"1000".as_ptr().cast(), 4);
            libc::close(file);
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls that are safe between fork and exec, and allocates nothing.
    unsafe { command.pre_exec(set_up) };
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A status as a person reads it, with what the engine means by it (`ExitCode` in `@agoric/xsnap/api.js`).
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    if let Some(signal) = status.signal() {
        return signal_name(signal);
    }
    let code = status.code().unwrap_or_default();
    let meaning = match code {
        0 => "as if it was told to quit",
        1 => "wrong usage",
        2 => "could not read or write",
        11 => "not enough memory",
        12 => "stack overflow",
        15 => "unhandled exception",
        16 => "no more keys",
        17 => "too much computation",
        255 => "the engine aborted",
        _ => return format!("exit {code}"),
    };
    format!("exit {code} ({meaning})")
}

/// `SIGSEGV` and so on.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::watch::SAID_BYTES;
    use std::io::Read;

    fn start(script: &str, limits: &Limits) -> (Process, File, OwnedFd) {
        let (commands, to) = pipe().expect("a pipe");
        let (from, replies) = pipe().expect("a pipe");
        let pipes = Pipes { commands: commands.as_fd(), replies: replies.as_fd(), save: None, load: None };
        let process = Process::start(Path::new("/bin/sh"), &["-c", script], &pipes, limits).expect("a shell");
        (process, File::from(from), to)
    }

    fn output(script: &str) -> (String, End) {
        let (mut process, mut from, _to) = start(script, &Limits::default());
        let mut text = String::new();
        process.awaiting(|| from.read_to_string(&mut text)).expect("text");
        (text, process.end())
    }

    #[test]
    fn a_worker_gets_its_descriptors_and_no_others() {
        let _another = File::open("/dev/null").expect("open");
        let (text, end) = output(
            "cd /proc/self/fd; for n in *; do echo fd $n; done >&4; env >&4; echo core $(ulimit -c) stack $(ulimit -s) >&4",
        );
        assert_eq!(describe(end.status.expect("ended")), "exit 0 (as if it was told to quit)");
        let mut fds: Vec<u32> = text.lines().filter_map(|line| line.strip_prefix("fd ")?.parse().ok()).collect();
        fds.sort_unstable();
        // The shell itself has one or two more open while it lists the directory.
        assert_eq!(fds[..9], [0, 1, 2, 3, 4, 5, 6, 7, 8], "{text}");
        assert!(fds.len() <= 11, "{text}");
        // It also sets two variables for the directory that it went to.
        let variables: Vec<&str> = text.lines().filter(|line| line.contains('=') && !line.contains("PWD=")).collect();
        assert!(variables.len() == 1 && variables[0].starts_with("TZ="), "{text}");
        assert!(text.contains("core 0 stack 8192"), "{text}");
    }

    #[test]
    fn what_is_printed_is_kept_in_part() {
        let (_, end) = output("echo first; head -c 100000 /dev/zero | tr '\\0' x; echo last >&2; exit 11");
        assert!(end.said.ends_with("xlast") && end.said.len() <= SAID_BYTES, "{}", end.said.len());
        assert_eq!(describe(end.status.expect("ended")), "exit 11 (not enough memory)");
    }

    #[test]
    fn a_file_that_is_no_program_is_an_error_here() {
        let (commands, _to) = pipe().expect("a pipe");
        let pipes = Pipes { commands: commands.as_fd(), replies: commands.as_fd(), save: None, load: None };
        let no_arguments: &[&str] = &[];
        let error = Process::start(Path::new("/etc/passwd"), no_arguments, &pipes, &Limits::default());
        assert_eq!(error.expect_err("no program").kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn limits_end_a_worker_and_say_so() {
        for (script, limits, says) in [
            (
                "sleep 1000",
                Limits { stall_max: Duration::from_millis(300), ..Limits::default() },
                "it did nothing for 300ms",
            ),
            (
                "while :; do :; done",
                Limits { delivery_cpu_max: Duration::from_millis(300), ..Limits::default() },
                "one delivery took more than 300ms of processor time",
            ),
            (
                "while :; do sleep 0.01; done",
                Limits { delivery_max: Duration::from_millis(300), ..Limits::default() },
                "one delivery took more than 300ms",
            ),
            ("yes", Limits { printed_max: 1 << 20, ..Limits::default() }, "it printed more than 1048576 bytes"),
            ("sleep 1000", Limits { resident_max: 1, ..Limits::default() }, "it used more than 1 bytes of memory"),
        ] {
            let (mut process, mut from, _to) = start(script, &limits);
            let mut byte = [0];
            assert_eq!(process.awaiting(|| from.read(&mut byte)).expect("the end"), 0, "{script}");
            assert_eq!(process.end().limit.as_deref(), Some(says), "{script}");
        }
    }

    #[test]
    fn what_a_worker_started_ends_with_it() {
        let (mut process, mut from, _to) = start("sleep 1000 & echo $! >&4; exit 3", &Limits::default());
        let mut text = String::new();
        from.read_to_string(&mut text).ok();
        process.end();
        let child: i32 = text.trim().parse().expect("a number");
        let gone = || std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !gone() {
            assert!(Instant::now() < deadline, "process {child} lives on");
            std::thread::yield_now();
        }
    }
}
