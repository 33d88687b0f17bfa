//! Layer 6: the system calls that a worker may make.
//!
//! Owns the policy, which is data with a reason a line (`seccomp/x86_64.json`, `seccomp/aarch64.json`), and the filters made from it. A
//! call that is not on the list is held in the kernel, which tells us, until we have killed the worker: so the operator learns which
//! call it was. A kernel that can't tell us kills the worker itself. It must never let a call pass that is not on the list.

use std::os::fd::{AsRawFd, BorrowedFd};

use seccompiler::{BpfProgram, TargetArch};
use syscalls::Sysno;

/// The policy of this machine's architecture.
#[cfg(target_arch = "x86_64")]
pub(super) const POLICY: &str = include_str!("seccomp/x86_64.json");
/// The policy of this machine's architecture.
#[cfg(target_arch = "aarch64")]
pub(super) const POLICY: &str = include_str!("seccomp/aarch64.json");
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the sandbox has a list of system calls for x86_64 and aarch64 only");

/// The filter's name in the policy.
const NAME: &str = "worker";
/// A program begins with a check of the architecture, whose refusal stays a kill: numbers of another one mean nothing.
const ARCHITECTURE_CHECK: usize = 3;
/// `BPF_RET | BPF_K`: ends the program with a constant.
const RETURN: u16 = 0x06;
/// `BPF_JMP | BPF_JEQ | BPF_K`: compares with a constant.
const IS_EQUAL: u16 = 0x15;
/// Stands in the policy, as the sixth argument of `execveat`, for a key that is drawn at each start. The kernel ignores that
/// argument and the filter sees it. The key stands in the filter and in the memory of the process before its start, and a
/// worker reads neither: so no worker can make the call that made it a worker.
pub(super) const KEY: u64 = 0x7370_616e_6b65_7921;

/// The policy as programs for the kernel.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// A call that is not allowed waits, and is told to us.
    pub(super) telling: Vec<libc::sock_filter>,
    /// A call that is not allowed kills.
    pub(super) killing: Vec<libc::sock_filter>,
}

impl Filter {
    /// Makes the filters of a policy.
    pub(super) fn compile(policy: &str) -> Result<Self, PolicyError> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)
            .map_err(|error| PolicyError::Architecture(error.to_string()))?;
        let program = compile(policy, arch)?;
        let of = |program: &BpfProgram| {
            program
                .iter()
                .map(|line| libc::sock_filter { code: line.code, jt: line.jt, jf: line.jf, k: line.k })
                .collect()
        };
        let killing: Vec<libc::sock_filter> = of(&program);
        let mut telling: Vec<libc::sock_filter> = of(&program);
        for line in telling.iter_mut().skip(ARCHITECTURE_CHECK) {
            if line.code == RETURN && line.k == libc::SECCOMP_RET_KILL_PROCESS {
                line.k = libc::SECCOMP_RET_USER_NOTIF;
            }
        }
        Ok(Self { telling, killing })
    }

    /// The filter of one start: with its key in place of [`KEY`].
    pub(super) fn with_key(&self, key: u64) -> Self {
        let mut filter = self.clone();
        for line in filter.telling.iter_mut().chain(&mut filter.killing).filter(|line| line.code == IS_EQUAL) {
            for (stands, half) in halves(KEY).into_iter().zip(halves(key)) {
                if line.k == stands {
                    line.k = half;
                    break;
                }
            }
        }
        filter
    }
}

/// The filter compares a number of 64 bits in two halves.
fn halves(number: u64) -> [u32; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    [(number >> 32) as u32, number as u32]
}

fn compile(policy: &str, arch: TargetArch) -> Result<BpfProgram, PolicyError> {
    let mut programs = seccompiler::compile_from_json(policy.as_bytes(), arch)?;
    programs.remove(NAME).ok_or(PolicyError::NoFilter)
}

/// Why a policy gives no filter.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No filter can be made for this machine.
    #[error("{0}")]
    Architecture(String),
    /// The text is no policy.
    #[error(transparent)]
    Policy(#[from] seccompiler::Error),
    /// The policy is one for other programs.
    #[error("the policy has no filter {NAME:?}")]
    NoFilter,
}

/// A call that was not allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// One that is not on the list.
    Call(String),
    /// The last act of `abort`: the program ends itself, as it would have without us.
    Abort,
}

/// Takes the call that is waiting, if one is. `own` is the number of the worker's process as the worker sees it.
pub(crate) fn denied(listener: BorrowedFd<'_>, own: u32) -> Option<Denied> {
    #[expect(unsafe_code, reason = "libc has no wrapper for this call")]
    // SAFETY: the kernel wants a zeroed structure of plain numbers, and fills it in.
    let notification = unsafe {
        let mut notification: libc::seccomp_notif = std::mem::zeroed();
        if libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification) == -1 {
            return None;
        }
        notification
    };
    let libc::seccomp_data { nr, args, .. } = notification.data;
    // The kernel looks at the lower halves. `abort` signals the one thread of its own process, which has the process's number.
    let [_, process] = halves(args[0]);
    let [_, thread] = halves(args[1]);
    let [_, signal] = halves(args[2]);
    if i64::from(nr) == libc::SYS_tgkill && (process, thread, signal) == (own, own, libc::SIGABRT.cast_unsigned()) {
        return Some(Denied::Abort);
    }
    let number = usize::try_from(nr).ok();
    Some(Denied::Call(match number.and_then(Sysno::new) {
        Some(call) => format!("{} ({nr}){}", call.name(), deciding_argument(i64::from(nr), args)),
        None => format!("number {nr}"),
    }))
}

/// The argument by which the policy lets a call pass or not, in words.
fn deciding_argument(call: i64, arguments: [u64; 6]) -> String {
    let (index, name) = match call {
        libc::SYS_mmap => (3, "flags"),
        libc::SYS_mremap => (1, "an old length of"),
        libc::SYS_fcntl => (1, "the command"),
        libc::SYS_madvise => (2, "the advice"),
        _ => return String::new(),
    };
    format!(" with {name} {:#x}", arguments[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: [(&str, TargetArch); 2] = [
        (include_str!("seccomp/x86_64.json"), TargetArch::x86_64),
        (include_str!("seccomp/aarch64.json"), TargetArch::aarch64),
    ];

    #[test]
    fn both_policies_compile() {
        for (policy, arch) in POLICIES {
            let program = compile(policy, arch).expect("a policy");
            assert!(program.len() > 50, "{arch:?}: {} lines", program.len());
        }
    }

    /// What seccompiler makes: only the check of the architecture may go on killing.
    #[test]
    fn only_another_architecture_kills_where_we_are_told() {
        let Filter { telling, killing } = Filter::compile(POLICY).expect("a policy");
        let kills = |program: &[libc::sock_filter]| -> Vec<usize> {
            let is_kill = |line: &libc::sock_filter| line.code == RETURN && line.k == libc::SECCOMP_RET_KILL_PROCESS;
            program.iter().enumerate().filter(|(_, line)| is_kill(line)).map(|(at, _)| at).collect()
        };
        assert_eq!(kills(&telling), [ARCHITECTURE_CHECK - 1]);
        assert!(kills(&killing).len() > 20);
        assert_eq!(telling.len(), killing.len());
    }

    /// One place in each policy; a program whose key was not found would let a worker start another program.
    #[test]
    fn a_start_has_a_key_of_its_own() {
        let count = |program: &[libc::sock_filter], key: u64| {
            halves(key).map(|half| program.iter().filter(|line| line.code == IS_EQUAL && line.k == half).count())
        };
        for (policy, arch) in POLICIES {
            let program = compile(policy, arch).expect("a policy");
            let found =
                halves(KEY).map(|half| program.iter().filter(|line| line.code == IS_EQUAL && line.k == half).count());
            assert_eq!(found, [1, 1], "{arch:?}");
        }
        let key = 0x0123_4567_89ab_cdef;
        let filter = Filter::compile(POLICY).expect("a policy").with_key(key);
        for program in [&filter.telling, &filter.killing] {
            assert_eq!((count(program, KEY), count(program, key)), ([0, 0], [1, 1]));
        }
    }

    #[test]
    fn each_rule_has_a_reason() {
        for (policy, arch) in POLICIES {
            let policy: serde_json::Value = serde_json::from_str(policy).expect("json");
            for rule in policy[NAME]["filter"].as_array().expect("rules") {
                let reason = rule["comment"].as_str().unwrap_or_default();
                assert!(reason.len() > 10, "{arch:?}: {rule} has no reason");
            }
        }
    }

    #[test]
    fn a_policy_that_is_none_is_refused() {
        for policy in [
            "",
            "{}",
            r#"{"worker":{"mismatch_action":"kill_process","match_action":"allow","filter":[{"syscall":"no_such"}]}}"#,
        ] {
            Filter::compile(policy).expect_err(policy);
        }
    }
}
