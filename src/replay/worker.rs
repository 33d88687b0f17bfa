//! A worker: the process with its pipes, in the terms of the protocol.
//!
//! Owns the meaning of a worker's end: a limit, the sandbox, the system, or the worker itself. It must never judge what the worker says.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;

use super::channel::Channel;
use super::message::{self, FromWorker, MessageError};
use super::netstring::{NetstringError, NetstringReader, write_netstring};
use super::process::{Ends, Process, exit_of, pipe};
use super::watch::{Limits, Stopped};
use crate::record::image::{IMAGE_BYTES_MAX, Image, ImageError, Intake};
use crate::sandbox::{Sandbox, SpawnError};
use crate::verdict::{WorkerExit, signal_name};

/// The limit that the kernel gives to the worker of a metered vat, in computrons for each delivery
/// (`DEFAULT_CRANK_METERING_LIMIT` in `@agoric/xsnap/src/xsnap.js`).
const METERED_LIMIT: &str = "100000000";

/// The bytes of an image that the worker writes before it waits for us.
const IMAGE_PIPE_BYTES: usize = 256 * 1024;

/// The start of a worker for one span.
#[derive(Debug)]
pub struct WorkerStart<'a> {
    /// The program, in its sandbox.
    pub sandbox: &'a Sandbox,
    /// The vat; it shows in a list of processes.
    pub vat: &'a str,
    /// Whether deliveries have a limit.
    pub is_metered: bool,
    /// The image to start from; blank without one.
    pub image: Option<&'a Image>,
    /// The limits of the worker.
    pub limits: &'a Limits,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    commands: Channel,
    replies: NetstringReader<Channel>,
    /// The pipe that it writes its heap into; never read before it has data.
    saved: File,
    /// Set from the moment on in which it may be told to save its heap.
    intake: Option<Intake>,
}

/// Why a worker did not answer.
#[derive(Debug)]
pub enum WorkerError {
    /// The process ended by itself in a way that only code it runs brings about.
    Ended(WorkerExit),
    /// The process ended because it could not read or write, or was used wrongly.
    Io {
        /// The exit.
        exit: String,
        /// The last text that it printed.
        said: String,
    },
    /// Somebody else killed it.
    Killed(String),
    /// The worker was stopped at a limit.
    Limit(String),
    /// Its sandbox killed it.
    Sandbox(String),
    /// The worker sent a message that is not of the protocol.
    Protocol(String),
    /// The system refused.
    System(String),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(exit) => write!(f, "it ended: {exit}"),
            Self::Io { exit, said } if said.is_empty() => write!(f, "it ended: {exit}"),
            Self::Io { exit, said } => write!(f, "it ended: {exit}; it printed {said:?}"),
            Self::Killed(signal) => write!(f, "it was killed from outside ({signal})"),
            Self::Limit(limit) => write!(f, "it was stopped: {limit}"),
            Self::Sandbox(rule) => write!(f, "the sandbox killed it: {rule}"),
            Self::Protocol(error) => write!(f, "it does not speak the protocol: {error}"),
            Self::System(error) => write!(f, "the system refused: {error}"),
        }
    }
}

impl From<MessageError> for WorkerError {
    fn from(error: MessageError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<io::Error> for WorkerError {
    fn from(error: io::Error) -> Self {
        Self::System(error.to_string())
    }
}

impl Worker {
    /// Starts one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start(start: &WorkerStart<'_>) -> Result<Self, SpawnError> {
        let (command_reader, commands) = pipe()?;
        let (replies, reply_writer) = pipe()?;
        let (saved, save) = pipe()?;
        rustix::io::ioctl_fionbio(&saved, true).map_err(io::Error::from)?;
        // If refused, the transfer just takes more reads.
        let _ = rustix::pipe::fcntl_setpipe_size(&saved, IMAGE_PIPE_BYTES);
        let load = start.image.map(Image::to_read).transpose()?;
        let mut arguments = vec![format!("{}:spanwatch", start.vat)];
        if load.is_some() {
            arguments.extend(["-r".to_owned(), "@8:spanwatch".to_owned()]);
        }
        if start.is_metered {
            arguments.extend(["-l".to_owned(), METERED_LIMIT.to_owned()]);
        }
        let ends = Ends {
            commands: command_reader.as_fd(),
            replies: reply_writer.as_fd(),
            save: Some(save.as_fd()),
            load: load.as_ref().map(File::as_fd),
        };
        let process = Process::start(start.sandbox, &arguments, &ends, start.limits)?;
        // A process that the worker could start might keep its pipes open.
        let ended = || if start.sandbox.is_solitary() { Ok(None) } else { process.pidfd().map(Some) };
        let commands = Channel::new(commands, ended()?)?;
        let replies = NetstringReader::new(Channel::new(replies, ended()?)?);
        Ok(Self { process, commands, replies, saved: File::from(saved), intake: None })
    }

    /// Says that the next delivery begins.
    pub fn begin_delivery(&self) {
        self.process.begin_delivery();
    }

    /// Sends a message made of several parts.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), WorkerError> {
        let Self { process, commands, .. } = self;
        match process.awaiting(|| write_netstring(commands, parts)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(end_of(process)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends messages that were put together before. A worker that is gone is noticed when it is next listened to: it may have
    /// said something until then.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn send_batch(&mut self, batch: &[u8]) -> Result<(), WorkerError> {
        let Self { process, commands, .. } = self;
        match process.awaiting(|| commands.write_all(batch)) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Waits for the worker's next message.
    ///
    /// # Errors
    /// When the worker is gone or says what no worker says.
    pub fn receive(&mut self) -> Result<FromWorker<'_>, WorkerError> {
        let Self { process, replies, saved, intake, .. } = self;
        if let Some(intake) = intake {
            // The worker waits for room for its image before it reports that it is done.
            while replies.is_empty() && process.awaiting(|| replies.source().is_idle_beside(saved))? {
                while take(intake, saved)? {}
            }
        }
        match process.awaiting(|| replies.next_message()) {
            Ok(message) => Ok(message::parse(message)?),
            Err(NetstringError::Closed | NetstringError::Cut) => Err(end_of(process)),
            Err(NetstringError::Io(error)) => Err(error.into()),
            Err(error @ (NetstringError::Malformed(_) | NetstringError::TooLong(_))) => {
                Err(WorkerError::Protocol(error.to_string()))
            }
        }
    }

    /// The end of what its process has printed until now.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Gets ready for the image that the worker will write when it is told to.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn expect_image(&mut self) -> Result<(), WorkerError> {
        self.intake = Some(Intake::new()?);
        Ok(())
    }

    /// Takes the image that the worker has written, after it said so: it was expected, and can be taken once.
    ///
    /// # Errors
    /// When no image comes, or it is too large.
    pub fn take_image(&mut self) -> Result<Image, WorkerError> {
        let mut intake = self.intake.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        while take(&mut intake, &mut self.saved)? {}
        intake.finish().map_err(|error| WorkerError::System(error.to_string()))
    }
}

/// Takes what there is of an image; whether there was something.
fn take(intake: &mut Intake, saved: &mut File) -> Result<bool, WorkerError> {
    match intake.take(saved) {
        Ok(bytes) => Ok(bytes > 0),
        Err(ImageError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(ImageError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(ImageError::TooLarge(_)) => {
            Err(WorkerError::Limit(format!("it wrote an image of more than {IMAGE_BYTES_MAX} bytes")))
        }
        Err(error) => Err(WorkerError::System(error.to_string())),
    }
}

/// Tells what a worker's end means.
fn end_of(process: &mut Process) -> WorkerError {
    let end = process.end();
    match end.stopped {
        Some(Stopped::Limit(limit)) => return WorkerError::Limit(limit),
        Some(Stopped::Sandbox(rule)) => return WorkerError::Sandbox(rule),
        Some(Stopped::Aborted) => return WorkerError::Ended(WorkerExit::Signal(libc::SIGABRT)),
        None => {}
    }
    let Some(status) = end.status else {
        return WorkerError::Protocol("it closed its pipes but did not end".to_owned());
    };
    match (status.code(), status.signal()) {
        (Some(1 | 2), _) => WorkerError::Io { exit: exit_of(status).to_string(), said: end.said },
        (_, Some(libc::SIGSYS)) => {
            let which = "seccomp, which does not allow a system call that it made; the kernel's log names it";
            WorkerError::Sandbox(which.to_owned())
        }
        (_, Some(libc::SIGXFSZ)) => WorkerError::Limit("a file that it wrote grew too large".to_owned()),
        // These signals come from a fault in the program itself; the others come from outside.
        (_, Some(libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP))
        | (Some(_), None) => WorkerError::Ended(exit_of(status)),
        (_, signal) => WorkerError::Killed(signal_name(signal.unwrap_or_default())),
    }
}
