//! Being a guest on the node's machine: priorities that workers inherit, and how much memory and disk are left.
//!
//! A refusal of the system is told, and is no reason not to run.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::config::Neighbour;
use crate::schedule::batch_scheduling;

/// Takes the low priorities that are configured, for this thread and all that it starts. What was refused, a sentence each.
#[must_use]
pub fn lower_priorities(config: &Neighbour) -> Vec<String> {
    let mut refused = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            refused.push(format!("the system refused {what}: {error}"));
        }
    };
    if config.nice > 0 {
        // What is set is no more than the change; a start under `nice` already counts.
        let now = rustix::process::getpriority_process(None).unwrap_or(0);
        note(
            "the lower priority",
            rustix::process::setpriority_process(None, config.nice.max(now)).map_err(Into::into),
        );
        note("SCHED_BATCH", batch_scheduling());
    }
    if config.io_idle {
        note("the idle class on the disk", idle_io());
    }
    if config.max_cpu_cores > 0 {
        note("the limit on processors", limit_cores(config.max_cpu_cores).map_err(Into::into));
    }
    refused
}

/// So many descriptors are enough for anything that this program does.
const DESCRIPTORS_WANTED: u64 = 8_192;

/// Raises the limit on open descriptors as far as the system lets us, and as is of use. What it is then.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let now = limit.current.unwrap_or(u64::MAX);
    let wanted = DESCRIPTORS_WANTED.min(limit.maximum.unwrap_or(u64::MAX));
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    if now >= wanted || setrlimit(Resource::Nofile, raised).is_err() { now } else { wanted }
}

/// `IOPRIO_WHO_PROCESS`, and `IOPRIO_CLASS_IDLE` at the place where `ioprio_set` wants the class.
const ONE_THREAD: libc::c_int = 1;
const IDLE_CLASS: libc::c_int = 3 << 13;

#[expect(unsafe_code, reason = "libc has no wrapper for this call")]
fn idle_io() -> io::Result<()> {
    // SAFETY: three numbers; 0 is this thread.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, ONE_THREAD, 0, IDLE_CLASS) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The last of those that we may use: the first is where a machine's own work tends to be.
fn limit_cores(count: usize) -> rustix::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut set = CpuSet::new();
    (0..CpuSet::MAX_CPU).rev().filter(|core| allowed.is_set(*core)).take(count).for_each(|core| set.set(core));
    sched_setaffinity(None, &set)
}

/// How much memory new programs could have, in bytes; `None` where the system does not say.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// How much room a user has on the disk that holds a path, in bytes.
#[must_use]
pub fn free_disk(path: &Path) -> Option<u64> {
    let room = rustix::fs::statvfs(path).ok()?;
    Some(room.f_bavail.saturating_mul(room.f_frsize))
}

/// The most memory that any worker that has ended had resident, in bytes.
#[must_use]
pub fn workers_peak_memory() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "no safe wrapper asks about children")]
    // SAFETY: the call fills in the structure that it is given, which was zeroed before.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    // In units of KiB on Linux.
    u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_what_is_left() {
        assert!(available_memory().expect("Linux says so") > 1 << 20);
        assert!(free_disk(Path::new("/")).expect("a disk") > 0);
        assert_eq!(free_disk(Path::new("/no/such")), None);
    }

    #[test]
    fn priorities_are_inherited_by_what_is_started() {
        std::thread::spawn(|| {
            let config = Neighbour {
                nice: 7,
                io_idle: true,
                max_cpu_cores: 1,
                min_available_memory: 0,
                shutdown_grace: Default::default(),
            };
            assert_eq!(lower_priorities(&config), Vec::<String>::new());
            let out = std::process::Command::new("/bin/sh")
                .args(["-c", "cut -d' ' -f19,41 /proc/self/stat; grep Cpus_allowed_list /proc/self/status"])
                .output()
                .expect("a shell");
            let text = String::from_utf8(out.stdout).expect("text");
            let mut lines = text.lines();
            // Fields 19 and 41 of proc(5): nice, and the policy, where 3 is SCHED_BATCH.
            let now = rustix::process::getpriority_process(None).expect("a priority");
            assert!(now >= 7, "{now}");
            assert_eq!(lines.next(), Some(&*format!("{now} 3")));
            let cores = lines.next().expect("a list");
            assert!(cores.chars().filter(|letter| matches!(letter, '-' | ',')).count() == 0, "{cores}");
        })
        .join()
        .expect("as asserted");
    }
}
