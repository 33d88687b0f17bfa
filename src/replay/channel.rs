//! The driver's end of a worker's pipe: it ends when the worker does.
//!
//! A pipe stays open as long as any process has its other end, and what a worker started may live on where no signal of
//! ours reaches it. So whoever waits here waits for the worker's process too.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// One direction of the talk with a worker.
#[derive(Debug)]
pub(super) struct Channel {
    pipe: File,
    /// Becomes readable when the process has ended.
    process: OwnedFd,
}

/// What was waited for.
enum Ready {
    Pipe,
    /// The process has ended, and the pipe has nothing more to give or take.
    Ended,
}

impl Channel {
    pub(super) fn new(pipe: OwnedFd, process: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe: File::from(pipe), process })
    }

    fn wait(&self, events: PollFlags) -> io::Result<Ready> {
        loop {
            let mut fds = [PollFd::new(&self.pipe, events), PollFd::new(&self.process, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Ready::Pipe),
                Ok(_) if !fds[1].revents().is_empty() => return Ok(Ready::Ended),
                Ok(_) => {}
            }
        }
    }

    /// Does something with the pipe as soon as that can be done; `ended` if the process ends first.
    fn when_ready(
        &mut self,
        events: PollFlags,
        ended: io::Result<usize>,
        mut act: impl FnMut(&mut File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match self.wait(events)? {
                Ready::Ended => return ended,
                Ready::Pipe => match act(&mut self.pipe) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                },
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
        let ended = Err(io::ErrorKind::BrokenPipe.into());
        self.when_ready(PollFlags::OUT, ended, |pipe| pipe.write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
