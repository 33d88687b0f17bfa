//! The sandbox that a worker runs in: it can compute, and do nothing else.
//!
//! A worker runs code that strangers put on a chain, beside a validator's keys. Owns everything from the settings of a sandbox to a
//! worker's first instruction. It must never know the worker's protocol, decide a verdict, or start a worker with less protection than
//! was asked for without saying so.
//!
//! The layers, their order and their reasons are in `docs/sandbox.md`. `prepare` makes what a new process needs, `clone` makes the
//! process, `enter` puts the layers on in their order, and `spawn` is the parent's half of all that.

mod cgroup;
mod clone;
mod elf;
mod enter;
mod error;
mod files;
mod landlock;
mod prepare;
mod program;
mod seccomp;
mod spawn;
mod usage;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use files::Files;
use landlock::Rules;
use program::Program;
use seccomp::Filter;

pub use cgroup::Group;
pub(crate) use cgroup::Member;
pub use error::{SandboxError, SpawnError};
pub(crate) use files::ZONES;
pub use landlock::LandlockError;
pub(crate) use prepare::{Pipes, Resources};
pub use seccomp::PolicyError;
pub(crate) use seccomp::{Denied, denied};
pub(crate) use spawn::SandboxedProcess;
pub(crate) use usage::{Gauges, Usage};

/// The user of workers if spanwatch runs as root: `nobody`, who owns no files.
pub const NOBODY: u32 = 65_534;

/// The layers that must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every layer, or no worker.
    Strict,
    /// The base, or no worker; the other layers if the system has them.
    #[default]
    Default,
    /// No protection: only the limits of a worker.
    Off,
}

impl Mode {
    /// One word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Default => "default",
            Self::Off => "off",
        }
    }
}

/// A word that is no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be \"strict\", \"default\" or \"off\"")]
pub struct ModeError;

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        match text {
            "strict" => Ok(Self::Strict),
            "default" => Ok(Self::Default),
            "off" => Ok(Self::Off),
            _ => Err(ModeError),
        }
    }
}

/// A layer between a worker and the machine, in the order of `docs/sandbox.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// 1. A session of its own that dies with us.
    Process,
    /// 2. Its descriptors and its environment, and no others.
    Descriptors,
    /// 3. An empty directory, and limits on what it may use.
    Limits,
    /// 4. No privileges, and no way to gain any.
    Privileges,
    /// 5. The files that it may use (Landlock).
    Landlock,
    /// 6. The system calls that it may make.
    Seccomp,
    /// 7. Namespaces of its own: no network, no other processes, a root directory with its own files only.
    Namespaces,
    /// 8. Memory and processor time, watched.
    Watchdog,
    /// 8. Memory, limited by the system.
    Cgroup,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Process,
        Self::Descriptors,
        Self::Limits,
        Self::Privileges,
        Self::Landlock,
        Self::Seccomp,
        Self::Namespaces,
        Self::Watchdog,
        Self::Cgroup,
    ];
    /// Their names.
    pub const LABELS: [&str; 9] =
        ["process", "descriptors", "limits", "privileges", "landlock", "seccomp", "namespaces", "watchdog", "cgroup"];

    /// One word.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// The settings of a sandbox.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The layers that must hold.
    pub mode: Mode,
    /// If root: UID and GID for workers; [`NOBODY`] if not set.
    pub user: Option<u32>,
    /// The worker's `TZ`; by default ours, or UTC.
    pub time_zone: Option<OsString>,
    /// The allowed system calls in the form of [`POLICY`], which is the default.
    pub policy: Option<String>,
    /// The control group in which groups with a memory limit can be made.
    pub group: Option<Group>,
    /// Whether workers ask for huge pages: faster, but the system may have to move other memory to provide them.
    pub huge_pages: bool,
}

/// A layer that does not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingLayer {
    /// The layer.
    pub layer: Layer,
    /// The reason, in the system's words.
    pub reason: String,
}

/// A sandbox for the workers of one program.
#[derive(Debug)]
pub struct Sandbox {
    settings: Settings,
    program: Program,
    files: Files,
    rules: Option<Rules>,
    filter: Option<Filter>,
    has_namespaces: bool,
    /// The directory of workers without a root of their own.
    directory: OwnedFd,
    missing: Vec<MissingLayer>,
}

impl Sandbox {
    /// Prepares a sandbox. Which of its layers hold shows when a worker is started in it. Copies the program into memory.
    ///
    /// # Errors
    /// When the program can't be read, or this system lacks a layer that must hold.
    pub fn prepare(program: &Path, settings: Settings) -> Result<Self, SandboxError> {
        let program = Program::load(program).map_err(SandboxError::Program)?;
        let is_off = settings.mode == Mode::Off;
        let zone = prepare::time_zone(&settings);
        let files = match settings.mode {
            Mode::Off => Files::default(),
            Mode::Strict | Mode::Default => {
                Files::of(&program, &zone, settings.huge_pages).map_err(SandboxError::Program)?
            }
        };
        let rules = if is_off { None } else { Some(Rules::new(&files).map_err(SandboxError::Landlock)?) };
        let policy = settings.policy.as_deref().unwrap_or(POLICY);
        let filter = if is_off { None } else { Some(Filter::compile(policy).map_err(SandboxError::Seccomp)?) };
        let mut missing = Vec::new();
        if is_off {
            for layer in [Layer::Privileges, Layer::Landlock, Layer::Seccomp, Layer::Namespaces] {
                missing.push(MissingLayer { layer, reason: "the sandbox is off".to_owned() });
            }
        }
        if settings.group.is_none() {
            let reason =
                "no cgroup memory limit (needs `Delegate=memory pids`); the watchdog still limits memory".to_owned();
            missing.push(MissingLayer { layer: Layer::Cgroup, reason });
        }
        let directory = prepare::directory(&settings).map_err(SandboxError::Directory)?;
        Ok(Self { settings, program, files, rules, filter, has_namespaces: !is_off, directory, missing })
    }

    /// The same sandbox without namespaces, and the reason for that.
    #[must_use]
    pub fn without_namespaces(mut self, reason: String) -> Self {
        self.has_namespaces = false;
        self.missing.push(MissingLayer { layer: Layer::Namespaces, reason });
        self.missing.sort_by_key(|missing| missing.layer);
        self
    }

    /// The `TZ` of its workers.
    #[must_use]
    pub fn time_zone(&self) -> OsString {
        prepare::time_zone(&self.settings)
    }

    /// The mode that was asked for.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// The layers that hold.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        let is_missing = |layer: &Layer| self.missing.iter().any(|missing| missing.layer == *layer);
        Layer::ALL.into_iter().filter(|layer| !is_missing(layer)).collect()
    }

    /// The layers that do not hold.
    #[must_use]
    pub fn missing(&self) -> &[MissingLayer] {
        &self.missing
    }

    /// Whether no worker can start another process, nor hand a descriptor to one: the built-in policy allows no system call for either.
    #[must_use]
    pub fn is_solitary(&self) -> bool {
        self.filter.is_some() && self.settings.policy.is_none()
    }

    /// The path of the program, and the sha256 of the bytes that are run.
    #[must_use]
    pub fn program(&self) -> (&Path, crate::transcript::Hash256) {
        (&self.program.path, self.program.sha256)
    }

    /// The version of the kernel's Landlock, where it is used.
    #[must_use]
    pub fn landlock_abi(&self) -> Option<u32> {
        self.rules.as_ref().map(|rules| rules.abi)
    }
}

/// The system calls that the built-in policy allows, as it is written.
pub const POLICY: &str = seccomp::POLICY;
