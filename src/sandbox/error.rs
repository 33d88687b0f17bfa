//! Why a sandbox can't be made, or a program not be started in one.
//!
//! Owns the words around both. It must never hide which layer failed: what to change depends on the layer.

use std::io;

use rustix::io::Errno;

use super::Layer;
use super::landlock::LandlockError;
use super::seccomp::PolicyError;
use crate::files::process;

/// Why a sandbox can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program can't be read.
    #[error("{0}")]
    Program(io::Error),
    /// The rules for files can't be made.
    #[error("layer landlock: {0}")]
    Landlock(LandlockError),
    /// The filter of system calls can't be made.
    #[error("layer seccomp: {0}")]
    Seccomp(PolicyError),
    /// The empty directory of workers can't be made.
    #[error("layer limits: failed to make an empty directory: {0}")]
    Directory(io::Error),
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
#[error("{}failed to {what}: {source}{}", layer.map(|layer| format!("layer {}: ", layer.label())).unwrap_or_default(), filter_hint(source))]
pub struct SpawnError {
    /// The layer that failed; `None` if it was the program.
    pub layer: Option<Layer>,
    /// The action that failed, as in "failed to …".
    pub what: &'static str,
    /// The system's error.
    pub source: io::Error,
}

/// A hint for a refusal that may come from a filter of system calls on spanwatch itself: the remedy is not in the system's settings.
fn filter_hint(source: &io::Error) -> &'static str {
    if source.raw_os_error() == Some(libc::EPERM) && process::has_seccomp_filter() {
        "; spanwatch is under a filter of system calls: does SystemCallFilter= or RestrictNamespaces= of its service, or the \
         container's seccomp profile, refuse this?"
    } else {
        ""
    }
}

impl SpawnError {
    pub(super) fn new(layer: Layer, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { layer: Some(layer), what, source }
    }

    /// Whether a process has the program open for writing, so that another attempt may succeed.
    pub(super) fn is_busy(&self) -> bool {
        self.source.raw_os_error() == Some(libc::ETXTBSY)
    }
}

impl From<io::Error> for SpawnError {
    fn from(source: io::Error) -> Self {
        Self { layer: None, what: "start a process", source }
    }
}

impl From<Errno> for SpawnError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}
