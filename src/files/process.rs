//! Facts about this process, as `/proc/self` has them.
//!
//! Owns the form of those files (proc_pid_status(5), user_namespaces(7)). It must never fail: a fact that can't be read is absent.

use std::fs;

/// Whether this process ignores a signal, as SIGHUP under nohup.
pub fn is_ignored(signal: i32) -> bool {
    // A bit for each signal, from 1 on.
    let mask = status("SigIgn").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    mask.unwrap_or(0) >> (signal - 1) & 1 == 1
}

/// Whether a filter of system calls is on this process.
pub fn has_seccomp_filter() -> bool {
    // 0 stands for no filter, 1 for the strict mode.
    status("Seccomp").as_deref() == Some("2")
}

fn status(field: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}

/// A range of users of this process's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRange {
    /// The first user's number outside.
    pub outside: u32,
    /// How many users there are.
    pub length: u32,
}

/// The users of this process's user namespace; empty if that can't be read.
pub fn user_ranges() -> Vec<UserRange> {
    ranges(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

fn ranges(map: &str) -> Vec<UserRange> {
    let lines = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().skip(1).map(str::parse);
        Some(UserRange { outside: numbers.next()?.ok()?, length: numbers.next()?.ok()? })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_a_process_that_is_like_any_other() {
        assert!(!is_ignored(libc::SIGTERM));
        assert!(user_ranges().iter().any(|range| range.length > 0), "{:?}", user_ranges());
    }

    #[test]
    fn a_map_of_users_is_read_line_by_line() {
        let whole = UserRange { outside: 0, length: u32::MAX };
        assert_eq!(ranges("         0          0 4294967295\n"), [whole]);
        let two = [UserRange { outside: 1000, length: 1 }, UserRange { outside: 100_000, length: 65_536 }];
        assert_eq!(ranges("0 1000 1\n1 100000 65536\n"), two);
        assert_eq!(ranges("nonsense\n0 1\n"), []);
    }
}
