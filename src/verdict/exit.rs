//! The end of a worker's process: its exit code or the signal that ended it.
//!
//! Owns the words for both. It must never decide whether an end is a divergence: `replay` does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a worker's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerExit {
    /// The process exited with this code.
    Code(i32),
    /// This signal ended the process.
    Signal(i32),
}

impl WorkerExit {
    /// Whether memory or stack ran out.
    #[must_use]
    pub fn is_out_of_memory(self) -> bool {
        matches!(self, Self::Code(11 | 12))
    }

    /// Whether the engine stopped at one of its own limits: memory, stack, keys or computrons.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self, Self::Code(11 | 12 | 16 | 17))
    }
}

impl fmt::Display for WorkerExit {
    /// Writes the exit with its meaning to the engine (`ExitCode` in `@agoric/xsnap/api.js`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match *self {
            Self::Code(code) => code,
            Self::Signal(signal) => return f.write_str(&signal_name(signal)),
        };
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
            _ => return write!(f, "exit {code}"),
        };
        write!(f, "exit {code} ({meaning})")
    }
}

/// The name of a signal: `SIGSEGV` and so on.
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
