//! The worker's process: its pipes, and its end.
//!
//! Owns the certainty that no worker outlives the [`Process`] that stands for it. It must never know the protocol, or the sandbox in which
//! [`crate::sandbox`] starts the process.
//!
//! Descriptors (`@agoric/xsnap/src/xsnap.js`): 0 null, 1 and 2 a pipe that is drained, 3 commands, 4 replies, 5 and 6 null, 7 the snapshot
//! that the worker writes, 8 the one that it reads or null; no other is passed on.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, waitid, waitpid};

use super::watch::{Limits, Stopped, Watch, Watcher};
use crate::record::image::{IMAGE_BYTES_MAX, Intake};
use crate::sandbox::{Member, Pipes, Resources, Sandbox, SandboxedProcess, SpawnError};
use crate::verdict::WorkerExit;

/// The most time between the closing of a worker's pipe and its end.
const END_GRACE: Duration = Duration::from_secs(5);

/// The most time that the watcher may take to empty the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// A worker's process. Ends with this value, with all that it may have started.
#[derive(Debug)]
pub struct Process {
    child: SandboxedProcess,
    /// Set once the process is reaped: from then on its number may be another's.
    status: Option<ExitStatus>,
    watch: Arc<Watch>,
    watcher: Option<JoinHandle<()>>,
    /// The pipe that it prints to; the watcher reads it.
    output: OwnedFd,
}

/// The end of a process.
#[derive(Debug)]
pub struct End {
    /// The exit status; `None` if it had to be killed because it would not end.
    pub status: Option<ExitStatus>,
    /// Why it was stopped, if it was.
    pub stopped: Option<Stopped>,
    /// The end of what it printed.
    pub said: String,
}

/// The pipes and files of a new worker.
#[derive(Debug)]
pub struct Ends<'a> {
    /// The pipe that it reads commands from.
    pub commands: BorrowedFd<'a>,
    /// The pipe that it writes replies to.
    pub replies: BorrowedFd<'a>,
    /// The pipe that it writes a snapshot to.
    pub save: Option<BorrowedFd<'a>>,
    /// The file that it reads a snapshot from.
    pub load: Option<BorrowedFd<'a>>,
}

impl Process {
    /// Starts a program as a worker.
    ///
    /// # Errors
    /// When the system refuses, or the file is no program.
    pub fn start(
        sandbox: &Sandbox,
        arguments: &[impl AsRef<OsStr>],
        ends: &Ends<'_>,
        limits: &Limits,
    ) -> Result<Self, SpawnError> {
        let (output, output_writer) = pipe()?;
        rustix::io::ioctl_fionbio(&output, true).map_err(io::Error::from)?;
        let Ends { commands, replies, save, load } = *ends;
        let pipes = Pipes { commands, replies, output: output_writer.as_fd(), save, load };
        let resources = Resources {
            stack: limits.stack,
            file: IMAGE_BYTES_MAX,
            memory: limits.resident_max,
            cpu: limits.span_cpu_max,
        };
        let mut child = sandbox.spawn(arguments, &pipes, &resources)?;
        let watch = Arc::new(Watch::default());
        let (pid, own_number) = (child.pid, child.own_number);
        let (listener, gauges) = (child.listener.take(), child.gauges.take());
        let of_watcher = File::from(output.try_clone()?);
        let mut process = Self { child, status: None, watch: Arc::clone(&watch), watcher: None, output };
        let pidfd = process.pidfd()?;
        let limits = limits.clone();
        let watcher = std::thread::Builder::new().name("worker-watch".to_owned()).spawn(move || {
            Watcher { pid, own_number, pidfd, listener, gauges, output: of_watcher, watch, limits }.run();
        })?;
        process.watcher = Some(watcher);
        Ok(process)
    }

    /// A descriptor that becomes readable when the process has ended.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        self.child.pidfd.try_clone()
    }

    /// Says that the next delivery begins: its limits count from now.
    pub fn begin_delivery(&self) {
        self.watch.begin_delivery();
    }

    /// Runs something that waits for the worker. Only then can it be found to have stalled.
    pub fn awaiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.watch.awaiting(wait)
    }

    /// The end of what it has printed until now. What it printed before its last reply is in the pipe, which the watcher may not have
    /// read on a busy machine: so this waits until the pipe is empty, for a moment at most.
    pub fn said(&self) -> String {
        let deadline = Instant::now() + OUTPUT_GRACE;
        while rustix::io::ioctl_fionread(&self.output).is_ok_and(|left| left > 0) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.watch.said()
    }

    /// Takes the end of a worker that closed its pipes: waits for a moment, then kills.
    pub fn end(&mut self) -> End {
        let has_ended = self.wait(Some(END_GRACE));
        self.kill();
        let has_run_out = self.child.group.as_ref().is_some_and(Member::has_run_out);
        let run_out = || has_run_out.then(|| Stopped::Limit("its control group ran out of memory".to_owned()));
        End {
            status: self.status.filter(|_| has_ended),
            stopped: self.watch.stopped().or_else(run_out),
            said: self.watch.said(),
        }
    }

    /// Waits for the end, for no longer than that if there is a limit; whether it has come.
    fn wait(&self, at_most: Option<Duration>) -> bool {
        let deadline = at_most.map(|at_most| Instant::now() + at_most);
        while !self.has_ended() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            // An interruption only means to look again.
            let _ = poll(&mut [PollFd::new(&self.child.pidfd, PollFlags::IN)], timeout.as_ref());
        }
        true
    }

    /// Whether the process has ended, without reaping it: until then its number stays its own.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.status.is_some() || matches!(waitid(WaitId::Pid(self.child.pid), options), Ok(Some(_)) | Err(_))
    }

    /// Kills the process and all that it started, and waits for its end.
    fn kill(&mut self) {
        if self.status.is_some() {
            return;
        }
        // Before it is reaped, the group with its number can be no other's.
        let _ = kill_process_group(self.child.pid, Signal::KILL);
        // The watcher ends when the process does. It may kill the group too, so it must be gone first.
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        let status = loop {
            match waitpid(Some(self.child.pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        self.status = Some(match status {
            Ok(Some((_, status))) => ExitStatus::from_raw(status.as_raw()),
            // Another part of this process has reaped it, which none should: as if killed from outside.
            Ok(None) | Err(_) => ExitStatus::from_raw(libc::SIGKILL),
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program as a worker without a driver, with an empty image, until it ends or reaches a limit.
///
/// # Errors
/// When it can't be started.
pub fn run_alone(sandbox: &Sandbox, arguments: &[impl AsRef<OsStr>], limits: &Limits) -> Result<End, SpawnError> {
    let (commands, _to) = pipe()?;
    let (_from, replies) = pipe()?;
    let (_saved, save) = pipe()?;
    let image = Intake::new().and_then(|intake| intake.finish().map_err(io::Error::other))?;
    let load = image.to_read()?;
    let ends = Ends {
        commands: commands.as_fd(),
        replies: replies.as_fd(),
        save: Some(save.as_fd()),
        load: Some(load.as_fd()),
    };
    let mut process = Process::start(sandbox, arguments, &ends, limits)?;
    process.awaiting(|| process.wait(None));
    Ok(process.end())
}

/// A pipe whose ends no other program inherits: reader, writer.
///
/// # Errors
/// When there are no descriptors left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// A process's status as data.
#[must_use]
pub fn exit_of(status: ExitStatus) -> WorkerExit {
    status.signal().map_or_else(|| WorkerExit::Code(status.code().unwrap_or_default()), WorkerExit::Signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::watch::SAID_BYTES;
    use crate::sandbox::{Mode, Settings};
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn start(script: &str, limits: &Limits) -> (Process, File, OwnedFd) {
        let (commands, to) = pipe().expect("a pipe");
        let (from, replies) = pipe().expect("a pipe");
        let ends = Ends { commands: commands.as_fd(), replies: replies.as_fd(), save: None, load: None };
        let process = Process::start(&unsandboxed("/bin/sh"), &["-c", script], &ends, limits).expect("a shell");
        (process, File::from(from), to)
    }

    /// A shell does what no sandbox allows.
    fn unsandboxed(program: &str) -> Sandbox {
        let settings = Settings { mode: Mode::Off, ..Settings::default() };
        Sandbox::prepare(Path::new(program), settings).expect("a program")
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
        assert_eq!(exit_of(end.status.expect("ended")).to_string(), "exit 0 (as if it was told to quit)");
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
        assert_eq!(exit_of(end.status.expect("ended")).to_string(), "exit 11 (not enough memory)");
    }

    #[test]
    fn a_file_that_is_no_program_is_an_error_here() {
        let (commands, _to) = pipe().expect("a pipe");
        let ends = Ends { commands: commands.as_fd(), replies: commands.as_fd(), save: None, load: None };
        let no_arguments: &[&str] = &[];
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"no program").expect("write");
        let path = file.into_temp_path();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let error = Process::start(&unsandboxed(path.to_str().expect("text")), no_arguments, &ends, &Limits::default());
        let error = error.expect_err("no program");
        assert_eq!(error.source.raw_os_error(), Some(libc::ENOEXEC), "{error}");
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
                "one delivery took more than 300ms by the clock",
            ),
            (
                "while :; do sleep 0.01; done",
                Limits { span_max: Duration::from_millis(300), ..Limits::default() },
                "the span took more than 300ms by the clock",
            ),
            ("yes", Limits { printed_max: 1 << 20, ..Limits::default() }, "it printed more than 1048576 bytes"),
            ("sleep 1000", Limits { resident_max: 1, ..Limits::default() }, "it used more than 1 bytes of memory"),
        ] {
            let (mut process, mut from, _to) = start(script, &limits);
            let mut byte = [0];
            assert_eq!(process.awaiting(|| from.read(&mut byte)).expect("the end"), 0, "{script}");
            assert_eq!(process.end().stopped, Some(Stopped::Limit(says.to_owned())), "{script}");
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
