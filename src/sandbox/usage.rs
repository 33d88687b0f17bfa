//! The memory and processor time of a running process, as the system counts them (proc(5)).
//!
//! Owns three files of `/proc`, opened before the process is the worker: later a `/proc` with `hidepid` would not show it to its own user,
//! as it cannot be dumped. It must never judge a value.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::process::Pid;

/// The lines of `/proc/<pid>/status` that together are the memory a process holds: what is mapped and in memory, what was swapped out, the
/// page tables of what it has mapped (also of pages that are not there), and pages of the system's pool of huge ones. Memory that is
/// shared and not mapped shows in none of them; the filter of system calls lets no worker have any.
const MEMORY: [&str; 4] = ["VmRSS:", "VmSwap:", "VmPTE:", "HugetlbPages:"];

/// The memory and processor time that a process used until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Processor time.
    pub cpu: Duration,
    /// Time for which it could have run and had no processor. Zero where the system does not count it.
    pub waited: Duration,
    /// Memory that it holds now, in bytes.
    pub memory: u64,
}

/// The open files that give a process's usage.
#[derive(Debug)]
pub(crate) struct Gauges {
    stat: File,
    status: File,
    /// Not every kernel counts what it has.
    schedstat: Option<File>,
}

impl Gauges {
    /// Opens the files of a process.
    pub(super) fn open(pid: Pid) -> io::Result<Self> {
        let open = |name: &str| File::open(format!("/proc/{}/{name}", pid.as_raw_nonzero()));
        Ok(Self { stat: open("stat")?, status: open("status")?, schedstat: open("schedstat").ok() })
    }

    /// `None` once the process is gone.
    pub(crate) fn read(&self) -> Option<Usage> {
        let mut text = [0; 8192];
        let cpu = cpu_of(&text_of(&self.stat, &mut text)?)?;
        let memory = memory_of(&text_of(&self.status, &mut text)?)?;
        let waited = self.schedstat.as_ref().and_then(|file| waited_of(&text_of(file, &mut text)?));
        Some(Usage { cpu, waited: waited.unwrap_or_default(), memory })
    }
}

fn text_of(file: &File, into: &mut [u8]) -> Option<String> {
    let read = file.read_at(into, 0).ok()?;
    Some(String::from_utf8_lossy(&into[..read]).into_owned())
}

/// From proc_pid_stat(5): user and system time are the fields 14 and 15.
fn cpu_of(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let ticks: u64 = fields.nth(11)?.parse::<u64>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    Some(Duration::from_millis(ticks.saturating_mul(1_000) / rustix::param::clock_ticks_per_second()))
}

/// From proc_pid_status(5), in KiB there. A process that has ended and was not waited for has no such lines.
fn memory_of(status: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let resident = kib(MEMORY[0])?;
    let others = MEMORY[1..].iter().filter_map(|name| kib(name));
    Some(others.fold(resident, u64::saturating_add).saturating_mul(1024))
}

/// The second of the three numbers (the kernel's `sched-stats.rst`), in nanoseconds.
fn waited_of(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_process_holds_counts() {
        let status = "Name:\tVmRSS: 9 kB\nVmPeak:\t 900000 kB\nVmRSS:\t    100 kB\nRssShmem:\t 7 kB\nVmPTE:\t  20 kB\nVmSwap:\t   3 kB\nHugetlbPages:\t 2048 kB\n";
        assert_eq!(memory_of(status), Some((100 + 20 + 3 + 2048) * 1024));
        assert_eq!(memory_of("VmRSS:\t 5 kB\n"), Some(5 * 1024), "a kernel without swap and huge pages");
        assert_eq!(memory_of("Name:\tx\nState:\tZ (zombie)\n"), None);
        assert_eq!(waited_of("492253 51987 1\n"), Some(Duration::from_nanos(51_987)));
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 100 1000 25 0";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(2)), "at 100 ticks a second");
    }

    #[test]
    fn this_process_has_a_usage() {
        let pid = rustix::process::getpid();
        let usage = Gauges::open(pid).expect("three files").read().expect("it lives");
        assert!(usage.memory > 1 << 20, "{usage:?}");
    }
}
