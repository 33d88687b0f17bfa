//! The driver's end of a worker's pipe: it ends when the worker does.
//!
//! A pipe stays open as long as any process has its other end. A worker that its sandbox lets start nothing is the only such process: a plain
//! read ends with the worker, and costs one system call a message instead of two. A process that another worker started may live on where no
//! signal of ours reaches it, so reads from that one wait for the worker's end too. Owns that wait. It must never block after the worker has
//! ended.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// One direction of the talk with a worker.
#[derive(Debug)]
pub(super) struct Channel {
    pipe: File,
    /// Becomes readable when the process has ended; `None` where no other process can have the other end.
    process: Option<OwnedFd>,
}

/// The event that ended a wait.
enum Ready {
    Pipe,
    /// The process has ended, and the pipe has nothing more to give or take.
    Ended,
}

impl Channel {
    pub(super) fn new(pipe: OwnedFd, process: Option<OwnedFd>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, process.is_some())?;
        Ok(Self { pipe: File::from(pipe), process })
    }

    fn wait(&self, process: &OwnedFd, events: PollFlags) -> io::Result<Ready> {
        loop {
            let mut fds = [PollFd::new(&self.pipe, events), PollFd::new(process, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Ready::Pipe),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(Ready::Ended),
                Ok(_) => {}
            }
        }
    }

    /// Waits until this pipe has something, or another one of the same worker does; whether it is only that one.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn is_idle_beside(&self, other: &impl AsFd) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.pipe, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
        fds.extend(self.process.as_ref().map(|process| PollFd::new(process, PollFlags::IN)));
        while let Err(error) = poll(&mut fds, None) {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        Ok(fds[0].revents().is_empty() && fds[1].revents().contains(PollFlags::IN))
    }

    /// Does something with the pipe as soon as that can be done; `ended` if the process ends first.
    fn when_ready(
        &mut self,
        events: PollFlags,
        ended: io::Result<usize>,
        mut act: impl FnMut(&mut File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            if let Some(process) = &self.process
                && let Ready::Ended = self.wait(process, events)?
            {
                return ended;
            }
            match act(&mut self.pipe) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.when_ready(PollFlags::IN, Ok(0), |pipe| pipe.read(buffer))
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // A worker that waits for an answer has read all there was: nearly always there is room, and nothing to wait for.
        match self.pipe.write_vectored(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        let ended = Err(io::ErrorKind::BrokenPipe.into());
        self.when_ready(PollFlags::OUT, ended, |pipe| pipe.write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
