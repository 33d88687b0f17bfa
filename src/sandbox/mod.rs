//! The sandbox that a worker runs in: it can compute, and do nothing else.
//!
//! A worker runs code that strangers put on a chain, beside a validator's keys. Owns everything between the wish for a
//! worker and its first instruction. It knows nothing of the worker's protocol, decides no verdict, and never goes on
//! with less than was asked for without saying so.
//!
//! The layers, their order and their reasons are in `docs/sandbox.md`; `enter` puts them on, in that order.

mod cgroup;
mod elf;
mod enter;
mod files;
mod landlock;
mod program;
mod seccomp;
mod spawn;
mod usage;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use files::Files;
use landlock::Rules;
use program::Program;
use seccomp::Filter;

pub use cgroup::Group;
pub(crate) use cgroup::Member;
pub(crate) use files::ZONES;
pub(crate) use seccomp::{Denied, denied};
pub use spawn::SpawnError;
pub(crate) use spawn::{Pipes, Resources, SandboxedProcess};
pub(crate) use usage::{Gauges, Usage};

/// The user that workers run as where we are root ourselves: `nobody`, who owns nothing.
pub const NOBODY: u32 = 65_534;

/// How much of a sandbox is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every layer, or no worker.
    Strict,
    /// The base, or no worker; what else the system gives.
    #[default]
    Default,
    /// Only what keeps a worker in order.
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

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "strict" => Ok(Self::Strict),
            "default" => Ok(Self::Default),
            "off" => Ok(Self::Off),
            _ => Err("must be \"strict\", \"default\" or \"off\"".to_owned()),
        }
    }
}

/// What can stand between a worker and the machine, in the order of `docs/sandbox.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// 1. A session of its own that dies with us.
    Process,
    /// 2. Its descriptors and its environment, and no others.
    Descriptors,
    /// 3. An empty directory, and limits on what it may use.
    Limits,
    /// 4. No privileges, and none to be had.
    Privileges,
    /// 5. The files that it may use (Landlock).
    Landlock,
    /// 6. The system calls that it may make.
    Seccomp,
    /// 7. A machine of its own with nothing in it.
    Namespaces,
    /// 8. Memory and processor time, watched.
    Watchdog,
    /// 8. Memory, held by the system.
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
    /// Their words.
    pub const LABELS: [&str; 9] =
        ["process", "descriptors", "limits", "privileges", "landlock", "seccomp", "namespaces", "watchdog", "cgroup"];

    /// One word.
    #[must_use]
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// What is asked of a sandbox.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How much of it.
    pub mode: Mode,
    /// The user and group that workers run as where we are root; [`NOBODY`] if none is named.
    pub user: Option<u32>,
    /// The worker's `TZ`; ours if none is named, and UTC if we have none.
    pub time_zone: Option<OsString>,
    /// The system calls that are allowed, in the form of [`POLICY`], if not those.
    pub policy: Option<String>,
    /// Where groups of processes with a limit on memory can be made.
    pub group: Option<Group>,
    /// Whether workers ask for huge pages: faster, but the system may have to move other memory about to give them.
    pub huge_pages: bool,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program can't be read.
    #[error("{0}")]
    Program(std::io::Error),
    /// A layer can't be made.
    #[error("layer {}: {reason}", layer.label())]
    Layer {
        /// Which one.
        layer: Layer,
        /// What is missing.
        reason: String,
    },
}

/// A layer that does not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Which one.
    pub layer: Layer,
    /// What the system said.
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
    /// Where workers without a root of their own are.
    directory: OwnedFd,
    missing: Vec<Missing>,
}

impl Sandbox {
    /// Prepares the sandbox that is asked for, with namespaces where not told otherwise. Whether it holds shows when a
    /// worker is started in it.
    ///
    /// # Errors
    /// When the program can't be read, or this system can't give a layer that must be there.
    pub fn prepare(program: &Path, settings: Settings) -> Result<Self, SandboxError> {
        let program = Program::load(program).map_err(SandboxError::Program)?;
        let is_off = settings.mode == Mode::Off;
        let zone = spawn::time_zone(&settings);
        let files = match settings.mode {
            Mode::Off => Files::default(),
            Mode::Strict | Mode::Default => {
                Files::of(&program, &zone, settings.huge_pages).map_err(SandboxError::Program)?
            }
        };
        let layer = |layer| move |reason| SandboxError::Layer { layer, reason };
        let rules = if is_off { None } else { Some(Rules::new(&files).map_err(layer(Layer::Landlock))?) };
        let policy = settings.policy.as_deref().unwrap_or(POLICY);
        let filter = if is_off { None } else { Some(Filter::compile(policy).map_err(layer(Layer::Seccomp))?) };
        let mut missing = Vec::new();
        if is_off {
            for layer in [Layer::Privileges, Layer::Landlock, Layer::Seccomp, Layer::Namespaces] {
                missing.push(Missing { layer, reason: "the sandbox is off".to_owned() });
            }
        }
        if settings.group.is_none() {
            let reason = "no control group with a memory controller was delegated to us".to_owned();
            missing.push(Missing { layer: Layer::Cgroup, reason });
        }
        let directory = spawn::directory(&settings)
            .map_err(|error| layer(Layer::Limits)(format!("failed to make an empty directory: {error}")))?;
        Ok(Self { settings, program, files, rules, filter, has_namespaces: !is_off, directory, missing })
    }

    /// The same without namespaces.
    #[must_use]
    pub fn without_namespaces(mut self, reason: String) -> Self {
        self.has_namespaces = false;
        self.missing.push(Missing { layer: Layer::Namespaces, reason });
        self.missing.sort_by_key(|missing| missing.layer);
        self
    }

    /// The `TZ` of what runs in it.
    #[must_use]
    pub fn time_zone(&self) -> OsString {
        spawn::time_zone(&self.settings)
    }

    /// How much was asked for.
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

    /// Those that do not.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Whether no worker can start another process, nor hand a descriptor to one: the built-in policy has no system call
    /// for either.
    #[must_use]
    pub fn is_solitary(&self) -> bool {
        self.filter.is_some() && self.settings.policy.is_none()
    }

    /// The program, and the sha256 of what will be run.
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
