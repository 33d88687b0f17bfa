//! Watching a running worker: draining what it prints, and holding it to its limits.
//!
//! Owns the thread beside each worker, so that the driver can simply block on the pipes. It never reaps the process.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::sandbox::{Denied, Gauges, Usage, denied};

/// The pause between two looks at a running worker.
const TICK: Duration = Duration::from_millis(100);
/// No more than this counts as the time between two looks.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// A worker that can't be looked at this often is stopped.
const BLIND_MAX: u32 = 50;
/// The bytes that are kept of a worker's output: the last ones.
pub(super) const SAID_BYTES: usize = 4 * 1024;

/// The limits of a running worker. Reaching a limit is never a divergence.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most time without processor use and without a message, while a message is expected.
    pub stall_max: Duration,
    /// Processor time for one delivery.
    pub delivery_cpu_max: Duration,
    /// Processor time for all of a span.
    pub span_cpu_max: Duration,
    /// Time for one delivery, whatever it does: by the clock, but for what it waits for a processor.
    pub delivery_max: Duration,
    /// Likewise for all of a span.
    pub span_max: Duration,
    /// Memory that it holds, in bytes: resident, swapped out, and page tables.
    pub resident_max: u64,
    /// The most bytes that it may print in all.
    pub printed_max: u64,
    /// The stack that the process is started with, in bytes: decides how deep code may recurse, so it must be the
    /// node's.
    pub stack: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stall_max: Duration::from_secs(60),
            delivery_cpu_max: Duration::from_secs(600),
            span_cpu_max: Duration::from_secs(4 * 3_600),
            delivery_max: Duration::from_secs(1_800),
            span_max: Duration::from_secs(8 * 3_600),
            resident_max: 6 << 30,
            printed_max: 256 << 20,
            stack: 8 << 20,
        }
    }
}

/// Why a worker was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// At a limit.
    Limit(String),
    /// By its sandbox.
    Sandbox(String),
    /// The worker called `abort`, which the sandbox carries out.
    Aborted,
}

/// The state that driver and watcher share.
#[derive(Debug, Default)]
pub(super) struct Watch {
    deliveries: AtomicU64,
    exchanges: AtomicU64,
    is_awaited: AtomicBool,
    stopped: Mutex<Option<Stopped>>,
    said: Mutex<Vec<u8>>,
}

impl Watch {
    /// Says that the next delivery begins: its limits count from now.
    pub(super) fn begin_delivery(&self) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs something that waits for the worker. Only then can it be found to have stalled.
    pub(super) fn awaiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.is_awaited.store(true, Ordering::Relaxed);
        let result = wait();
        self.is_awaited.store(false, Ordering::Relaxed);
        result
    }

    /// Why the worker was stopped, if it was.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The end of what it printed.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)).trim().to_owned()
    }
}

/// The thread beside each worker: drains what it prints and holds it to its limits, so that the driver can simply block
/// on the pipes.
pub(super) struct Watcher {
    pub(super) pid: Pid,
    /// Its number as it sees it itself.
    pub(super) own_number: u32,
    pub(super) pidfd: OwnedFd,
    /// The listener of the filter of system calls, where the kernel has it.
    pub(super) listener: Option<OwnedFd>,
    /// The memory and processor time that it uses.
    pub(super) gauges: Option<Gauges>,
    pub(super) output: File,
    pub(super) watch: Arc<Watch>,
    pub(super) limits: Limits,
}

impl Watcher {
    /// Watches until the worker has ended.
    pub(super) fn run(mut self) {
        let mut printed = 0;
        let mut is_open = true;
        let mut watched = Watched::new(Instant::now());
        let mut next_look = Instant::now() + TICK;
        loop {
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            let has_listener = self.listener.is_some();
            fds.extend(self.listener.as_ref().map(|listener| PollFd::new(listener, PollFlags::IN)));
            if is_open {
                fds.push(PollFd::new(&self.output, PollFlags::IN));
            }
            let wait = next_look.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
            let ready = poll(&mut fds, Some(&timeout));
            let ended = !fds[0].revents().is_empty();
            let is_denied = has_listener && fds[1].revents().contains(PollFlags::IN);
            let is_unheard = has_listener && !is_denied && fds[1].revents().contains(PollFlags::HUP);
            match ready {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return self.stop(Stopped::Limit(format!("it could not be watched: {error}"))),
            }
            if is_unheard {
                // It has begun to end, and frees its memory: until that is done this would wake us without pause.
                self.listener = None;
            }
            if is_denied
                && let Some(denied) =
                    self.listener.as_ref().and_then(|listener| denied(listener.as_fd(), self.own_number))
            {
                return self.stop(match denied {
                    Denied::Abort => Stopped::Aborted,
                    Denied::Call(call) => {
                        Stopped::Sandbox(format!("seccomp, which does not allow the system call {call}"))
                    }
                });
            }
            if is_open {
                is_open = self.drain(&mut printed);
            }
            if ended {
                // Processes that it started may still hold its pipes, and a reader of the pipes waits for them too. It is
                // not reaped yet, so the group is its own.
                let _ = kill_process_group(self.pid, Signal::KILL);
                return;
            }
            if printed > self.limits.printed_max {
                let limit = format!("it printed more than {} bytes", self.limits.printed_max);
                return self.stop(Stopped::Limit(limit));
            }
            if Instant::now() >= next_look {
                let now = Instant::now();
                next_look = now + TICK;
                let usage = self.gauges.as_ref().and_then(Gauges::read);
                if let Some(limit) = watched.look(now, usage, &self.watch, &self.limits) {
                    return self.stop(Stopped::Limit(limit));
                }
            }
        }
    }

    /// Reads what is there; whether more may come.
    fn drain(&mut self, printed: &mut u64) -> bool {
        let mut chunk = [0; 16 * 1024];
        // A worker that prints without end must not keep the watcher from its other duties.
        for _ in 0..64 {
            // Taken before: who sees the pipe empty then finds here what was in it.
            let mut said = self.watch.said.lock().unwrap_or_else(PoisonError::into_inner);
            match self.output.read(&mut chunk) {
                Ok(0) => return false,
                Ok(read) => {
                    *printed += read as u64;
                    said.extend_from_slice(&chunk[..read]);
                    let surplus = said.len().saturating_sub(SAID_BYTES);
                    said.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn stop(&self, why: Stopped) {
        *self.watch.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        let _ = kill_process_group(self.pid, Signal::KILL);
    }
}

/// The watcher's memory between two looks.
#[derive(Debug)]
struct Watched {
    looked: Instant,
    /// The time that counts: by the clock, without that in which the machine was suspended, we could not look, or the worker had no processor.
    clock: Duration,
    /// The time that the worker had waited for a processor.
    waited: Duration,
    deliveries: u64,
    delivery_began: Duration,
    delivery_cpu_began: Duration,
    progress: (u64, Duration),
    progressed: Duration,
    /// The looks in a row that showed nothing.
    blind: u32,
}

impl Watched {
    fn new(now: Instant) -> Self {
        Self {
            looked: now,
            clock: Duration::ZERO,
            waited: Duration::ZERO,
            deliveries: 0,
            delivery_began: Duration::ZERO,
            delivery_cpu_began: Duration::ZERO,
            progress: (0, Duration::ZERO),
            progressed: Duration::ZERO,
            blind: 0,
        }
    }

    /// The limit that is reached, if one is.
    fn look(&mut self, now: Instant, usage: Option<Usage>, watch: &Watch, limits: &Limits) -> Option<String> {
        let Some(usage) = usage else {
            // Gone already, and the descriptor of the process will say so; or else there is no way to hold it to anything.
            self.blind += 1;
            return (self.blind > BLIND_MAX)
                .then(|| "its files in /proc can't be read, so it can't be watched".to_owned());
        };
        self.blind = 0;
        self.go_on(now, usage.waited);
        let deliveries = watch.deliveries.load(Ordering::Relaxed);
        if deliveries != self.deliveries {
            self.deliveries = deliveries;
            self.delivery_began = self.clock;
            self.delivery_cpu_began = usage.cpu;
        }
        let progress = (watch.exchanges.load(Ordering::Relaxed), usage.cpu);
        if progress != self.progress || !watch.is_awaited.load(Ordering::Relaxed) {
            self.progress = progress;
            self.progressed = self.clock;
        }
        let delivery_cpu = usage.cpu.saturating_sub(self.delivery_cpu_began);
        if self.clock - self.progressed > limits.stall_max {
            Some(format!("it did nothing for {:?}", limits.stall_max))
        } else if delivery_cpu > limits.delivery_cpu_max {
            Some(format!("one delivery took more than {:?} of processor time", limits.delivery_cpu_max))
        } else if usage.cpu > limits.span_cpu_max {
            Some(format!("the span took more than {:?} of processor time", limits.span_cpu_max))
        } else if self.clock - self.delivery_began > limits.delivery_max {
            Some(format!("one delivery took more than {:?} by the clock", limits.delivery_max))
        } else if self.clock > limits.span_max {
            Some(format!("the span took more than {:?} by the clock", limits.span_max))
        } else if usage.memory > limits.resident_max {
            Some(format!("it used more than {} bytes of memory", limits.resident_max))
        } else {
            None
        }
    }

    /// Moves the clock on. A machine that was suspended, or too busy to let us look, and a worker that got no processor, are no fault of
    /// the worker's.
    fn go_on(&mut self, now: Instant, waited: Duration) {
        let passed = now.saturating_duration_since(self.looked).min(LOOK_MAX);
        self.clock += passed.saturating_sub(waited.saturating_sub(self.waited));
        (self.looked, self.waited) = (now, waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks ten times a second for so many seconds, at a worker that is waited for and gets so much of a processor, and waits so much for
    /// one; the limit that it reaches.
    fn watch(seconds: u32, cpu: f64, waits: f64, limits: &Limits) -> Option<String> {
        let watch = Watch::default();
        watch.is_awaited.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let mut watched = Watched::new(began);
        (1..=seconds * 10).find_map(|look| {
            let passed = TICK * look;
            let usage = Usage { cpu: passed.mul_f64(cpu), waited: passed.mul_f64(waits), memory: 1 };
            watched.look(began + passed, Some(usage), &watch, limits)
        })
    }

    #[test]
    fn only_time_in_which_the_worker_could_do_something_counts() {
        let limits = Limits { stall_max: SECOND * 10, delivery_max: SECOND * 20, ..Limits::default() };
        let (idle, late) = ("it did nothing for 10s", "one delivery took more than 20s by the clock");
        for (what, cpu, waits, found) in [
            ("it does nothing", 0.0, 0.0, Some(idle)),
            ("it does a little", 0.1, 0.0, Some(late)),
            ("it has no processor", 0.0, 1.0, None),
            ("it has one for a tenth of the time", 0.1, 0.9, None),
        ] {
            assert_eq!(watch(60, cpu, waits, &limits).as_deref(), found, "{what}");
        }
        assert_eq!(watch(250, 0.1, 0.9, &limits).as_deref(), Some(late), "a tenth of the time is enough in the end");
    }

    #[test]
    fn a_machine_that_was_suspended_stops_no_worker() {
        let limits = Limits { stall_max: SECOND * 10, ..Limits::default() };
        let watch = Watch::default();
        watch.is_awaited.store(true, Ordering::Relaxed);
        let mut now = Instant::now();
        let mut watched = Watched::new(now);
        for _ in 0..9 {
            now += SECOND * 3_600;
            assert_eq!(watched.look(now, Some(Usage::default()), &watch, &limits), None);
        }
    }
}
