//! What an evidence folder says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::files::FileEntry;
use super::names::{ENDING, FILES_MAX, OUTCOMES_MAX, form_of, is_bundle_id, is_id, is_replayed};
use crate::sandbox::{Layer, Mode};
use crate::span::{BaseKind, SpanBegins, SpanEnds};
use crate::transcript::{Hash256, Position};
use crate::verdict::{Finding, FindingKind, HeapAnswer, RepeatKind};
use crate::visible::visible;

/// The form that is written here; fields may be added to it, never changed.
pub const SCHEMA: u32 = 1;

/// `manifest.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the folder.
    pub schema: u32,
    /// The version of spanwatch that wrote it.
    pub spanwatch: String,
    /// When, in UTC.
    pub written_at: String,
    /// The folder's name where it was written.
    pub id: String,
    /// Which divergences are counted as this one.
    pub signature: String,
    /// What diverged.
    pub span: SpanFacts,
    /// How its worker is started.
    pub start: StartFacts,
    /// Whether the same came of each replay.
    pub repeat: RepeatKind,
    /// Why not, where it could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<String>,
    /// Where the snapshot's hash differs: what both heaps are to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heap: Option<HeapAnswer>,
    /// What came of the replays, the first one's first; those with the same outcome together.
    pub outcomes: Vec<OutcomeFacts>,
    /// The worker that did it.
    pub worker: WorkerFacts,
    /// The engine that wrote the image that the span starts from, or the one that it ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineFacts>,
    /// The machine.
    pub host: HostFacts,
    /// The files of the folder, but for this one and those that change.
    pub files: BTreeMap<String, FileEntry>,
}

/// A span.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SpanFacts {
    /// Its vat.
    pub vat: String,
    /// The vat's name.
    pub name: Option<String>,
    /// The vat's incarnation.
    pub incarnation: u64,
    /// First position.
    pub start: Position,
    /// One past the last.
    pub end: Position,
    /// One past the last that is here.
    pub seen_to: Position,
    /// The hash of its items in the node's row.
    pub hash: Option<Hash256>,
    /// Its first item.
    pub begins: SpanBegins,
    /// Its last item, or a word for none.
    pub ends: SpanEnds,
    /// The recorded hash of the snapshot at its end.
    pub saves: Option<Hash256>,
    /// The length of each item's text in `recorded.jsonl`, in bytes.
    pub items: Vec<usize>,
}

/// How a worker is started for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartFacts {
    /// The source of what it starts from.
    pub base: BaseKind,
    /// The image that it starts from.
    pub image: Option<ImageFacts>,
    /// Whether that is one that no record speaks of: a diverging replay gave it.
    pub is_base_unproved: bool,
    /// Whether deliveries have a limit of computrons.
    pub is_metered: bool,
    /// Whether the vat may disavow imports.
    pub enable_disavow: bool,
    /// A setting of the kernel that goes to each vat.
    pub relax_durability_rules: bool,
    /// The bundles of a blank worker, by ID.
    pub bundles: Vec<String>,
}

/// An image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Of its bytes.
    pub sha256: Hash256,
    /// How many.
    pub bytes: u64,
}

/// What came of some replays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutcomeFacts {
    /// How many replays.
    pub times: u32,
    /// What they found; empty if they did as recorded.
    pub findings: Vec<Finding>,
    /// How many findings there were, as not all are kept.
    pub findings_total: usize,
    /// Where they could not go on.
    pub stopped_at: Option<Position>,
    /// What went wrong on our side after that.
    pub failure: Option<String>,
    /// The image at the end.
    pub image: Option<ImageFacts>,
    /// Where what the worker did is written.
    pub file: String,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFacts {
    /// Its program.
    pub path: String,
    /// What it says to `-v`.
    pub version: String,
    /// Of the program.
    pub sha256: String,
    /// The layers that had to hold.
    pub sandbox: Mode,
    /// The layers that held.
    pub layers: Vec<Layer>,
    /// Its `TZ`.
    pub time_zone: String,
    /// Its stack, in bytes.
    pub stack: u64,
}

/// An engine, as an image tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// The engine's version.
    pub version: String,
    /// The image's atoms, by their tags, with the size of each in bytes.
    pub atoms: BTreeMap<String, u64>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The kernel.
    pub kernel: String,
    /// The processor's architecture.
    pub arch: String,
    /// Its model.
    pub processor: Option<String>,
    /// How many processors.
    pub processors: usize,
    /// All memory, in bytes.
    pub memory: Option<u64>,
    /// In bytes.
    pub page_size: usize,
}

/// `seen.json`: how often the divergence was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// How often.
    pub times: u64,
    /// When first, in UTC.
    pub first_at: String,
    /// When last, in UTC.
    pub last_at: String,
    /// The bounds of the span of the last time.
    pub last: (Position, Position),
}

/// `workers.json`: what a worker did with the span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerColumn {
    /// The worker.
    pub worker: WorkerFacts,
    /// The result.
    pub outcome: WorkerOutcome,
    /// Where it diverges first.
    pub position: Option<Position>,
    /// In what.
    pub kind: Option<FindingKind>,
    /// Whether it did the same each time.
    pub repeat: Option<RepeatKind>,
    /// The same for people.
    pub explanation: String,
}

/// The result of a worker's replay of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerOutcome {
    /// The worker did as recorded.
    Reproduces,
    /// The worker did otherwise.
    Diverges,
    /// The replay failed and says nothing about the worker.
    Failed,
}

impl WorkerOutcome {
    /// The label, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reproduces => "reproduces",
            Self::Diverges => "diverges",
            Self::Failed => "failed",
        }
    }
}

/// So many differences of an outcome are kept; there is room for versions that keep more.
const FINDINGS_MAX: usize = 1_000;

impl Manifest {
    /// Whether all names in it are names that evidence has, and all numbers such as the keeper writes. What is wrong, if something is.
    ///
    /// # Errors
    /// When one is not: somebody else wrote it.
    pub(super) fn check(&self) -> Result<(), String> {
        let names = |what: &str, name: &str| {
            Err(format!("its manifest names {what} {}, which evidence does not have", visible(name)))
        };
        if !is_id(&self.id) {
            return names("itself", &self.id);
        }
        if self.files.len() > FILES_MAX || self.outcomes.len() > OUTCOMES_MAX {
            let (files, outcomes) = (self.files.len(), self.outcomes.len());
            return Err(format!("its manifest lists {files} files and {outcomes} outcomes, more than evidence has"));
        }
        for (name, entry) in &self.files {
            match form_of(name).filter(|form| form.is_listed) {
                None => return names("the file", name),
                Some(form) if entry.bytes > form.bytes_max => {
                    let (bytes, max) = (entry.bytes, form.bytes_max);
                    return Err(format!(
                        "its manifest lists {name} with {bytes} bytes, and such a file has no more than {max}"
                    ));
                }
                Some(_) if self.files.contains_key(&format!("{name}{ENDING}")) => {
                    return Err(format!("its manifest lists {name} twice, once compressed"));
                }
                Some(_) => {}
            }
        }
        for outcome in &self.outcomes {
            if !is_replayed(&outcome.file) {
                return names("the replay", &outcome.file);
            }
            if outcome.findings.len() > FINDINGS_MAX {
                return Err(format!("its manifest has {} findings of one replay", outcome.findings.len()));
            }
        }
        match self.start.bundles.iter().find(|id| !is_bundle_id(id)) {
            Some(id) => names("the bundle", id),
            None => Ok(()),
        }
    }
}

impl HostFacts {
    /// Of this machine.
    #[must_use]
    pub fn here() -> Self {
        let uname = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let field = |file: &str, name: &str| {
            let content = std::fs::read_to_string(file).unwrap_or_default();
            let line = content.lines().find(|line| line.starts_with(name)).map(str::to_owned)?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        Self {
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            arch: text(uname.machine()),
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory: field("/proc/meminfo", "MemTotal")
                .and_then(|text| Some(text.split_whitespace().next()?.parse::<u64>().ok()? * 1024)),
            page_size: rustix::param::page_size(),
        }
    }
}
