//! Keeping evidence: one folder for each divergence that is not the same as one before.
//!
//! Two divergences are the same if they are of one vat and one worker, and the first thing that differs is of one kind:
//! a worker that goes astray does so at each span, and one folder tells all that a thousand would. Once the divergence of
//! a folder is acknowledged, the next one gets a folder of its own.
//!
//! A folder is written under a temporary name and renamed, so that whoever sees it sees all of it. Its number and size are
//! limited: acknowledged folders go first, the oldest first, others never.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::files::{Writer, read_small, replace, size_of};
use super::manifest::{
    EngineFacts, HostFacts, ImageFacts, Manifest, OutcomeFacts, SCHEMA, Seen, SpanFacts, StartFacts, WorkerColumn,
    WorkerFacts,
};
use super::{EvidenceError, replayed};
use crate::files::own::{self, Existing};
use crate::files::publish::sync_dir;
use crate::heap::Heap;
use crate::judge::{Judged, is_same};
use crate::record::SpanText;
use crate::record::image::Image;
use crate::replay::{Limits, Replay, ReplayStart, WorkerProgram};
use crate::span::{Beginning, Span};
use crate::transcript::{DeliveryKind, Hash256, sha256};
use crate::verdict::{Divergence, Finding, FindingClass, FindingKind, Repeat, Verdict};
use crate::visible::{Lines, json, lines, short};
use crate::words::NAME_CHARS;

/// Beginning of the names of folders that are being written.
const UNFINISHED: &str = ".unfinished-";
/// More folders than this are not kept, however small they are.
const FOLDERS_MAX: usize = 1_000;

/// A divergence with all that was seen of it.
pub struct Witness<'a> {
    /// The vat's name.
    pub name: Option<&'a str>,
    /// The vat's incarnation.
    pub incarnation: u64,
    /// The span's items.
    pub text: &'a SpanText,
    /// The span.
    pub span: &'a Span<'a>,
    /// The hash in its row.
    pub hash: Option<Hash256>,
    /// How its replays were started.
    pub start: &'a ReplayStart<'a>,
    /// A setting of the kernel.
    pub relax_durability_rules: bool,
    /// Where what it starts from is from.
    pub base: &'a str,
    /// Whether that is an image that no record speaks of.
    pub is_base_unproved: bool,
    /// What came of the replays.
    pub judged: &'a Judged,
    /// Gives a bundle by its ID.
    pub bundle: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// The recorded image at the end of the span, where that differs and anybody has it.
    pub recorded_end: Option<&'a Image>,
}

/// Where the evidence of a divergence is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The directory of all folders.
    pub dir: PathBuf,
    /// The folder's name in it.
    pub folder: String,
    /// How often the divergence was met, this time included.
    pub times: u64,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dir.join(&self.folder).display())?;
        if self.times > 1 {
            write!(f, ", of the first of {} that are the same", self.times)?;
        }
        Ok(())
    }
}

/// What is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many folders.
    pub folders: u64,
    /// Their size, in bytes.
    pub bytes: u64,
}

/// A directory of evidence.
pub struct Keeper {
    dir: PathBuf,
    bytes_max: u64,
    /// Folders that a person has acknowledged.
    acknowledged: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// One at a time within the process; a lock on a file sees to the others.
    lock: Mutex<()>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("dir", &self.dir).field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

/// A folder that is there.
struct Folder {
    name: String,
    signature: String,
    written_at: String,
    bytes: u64,
}

impl Keeper {
    /// Opens a directory, making it if need be. What a process that was killed left unfinished is removed.
    ///
    /// # Errors
    /// When it can't be made or written to.
    pub fn open(
        dir: &Path,
        bytes_max: u64,
        acknowledged: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) -> Result<Self, EvidenceError> {
        let dir = own::directory(dir, Existing::Leave)?.0;
        let keeper = Self { dir, bytes_max, acknowledged: Box::new(acknowledged), lock: Mutex::new(()) };
        let _alone = keeper.alone()?;
        for entry in fs::read_dir(&keeper.dir).map_err(EvidenceError::io("list", &keeper.dir))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(keeper)
    }

    /// Keeps the evidence of a divergence: writes a folder, or counts it into the one that is the same.
    ///
    /// # Errors
    /// When it can't be written, or there is no room.
    pub fn keep(&self, witness: &Witness<'_>) -> Result<Kept, EvidenceError> {
        let _one_at_a_time = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.alone()?;
        let Verdict::Diverged(divergence) = &witness.judged.verdict else {
            let why = "nothing diverged".to_owned();
            return Err(EvidenceError::NotEvidence { path: self.dir.clone(), why });
        };
        let signature = signature(witness, divergence);
        let id = id_of(witness);
        let folders = self.folders()?;
        let acknowledged = (self.acknowledged)();
        let same = folders.iter().find(|folder| {
            folder.signature == signature && (folder.name == id || !acknowledged.contains(&folder.name))
        });
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let bounds = (witness.span.id.start, witness.span.id.end);
        if let Some(same) = same {
            let times = self.count(&same.name, &now, bounds)?;
            return Ok(Kept { dir: self.dir.clone(), folder: same.name.clone(), times });
        }
        let folder = if folders.iter().any(|folder| folder.name == id) { format!("{id}.{signature}") } else { id };
        let unfinished = self.dir.join(format!("{UNFINISHED}{}", std::process::id()));
        let written = self
            .write(&unfinished, &folder, &signature, &now, witness, divergence)
            .and_then(|()| self.make_room(&unfinished, folders, &acknowledged))
            .and_then(|()| {
                let to = self.dir.join(&folder);
                let rename = || fs::rename(&unfinished, &to).and_then(|()| sync_dir(&self.dir));
                rename().map_err(EvidenceError::io("rename to its name", &to))
            });
        if let Err(error) = written {
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        Ok(Kept { dir: self.dir.clone(), folder, times: 1 })
    }

    /// What is kept.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let folders = self.folders().unwrap_or_default();
        Usage { folders: folders.len() as u64, bytes: folders.iter().map(|folder| folder.bytes).sum() }
    }

    /// Holds other processes off.
    fn alone(&self) -> Result<File, EvidenceError> {
        let path = self.dir.join(".lock");
        let lock = || -> io::Result<File> {
            let file = own::open_or_create(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        lock().map_err(EvidenceError::io("lock", &path))
    }

    fn folders(&self) -> Result<Vec<Folder>, EvidenceError> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(EvidenceError::io("list", &self.dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(Some(text)) = read_small(&entry.path(), "manifest.json") else { continue };
            // Somebody else's folder takes no part.
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let bytes = size_of(&entry.path()).unwrap_or_default();
            folders.push(Folder { name, signature: manifest.signature, written_at: manifest.written_at, bytes });
        }
        folders.sort_by(|one, other| (&one.written_at, &one.name).cmp(&(&other.written_at, &other.name)));
        Ok(folders)
    }

    fn count(&self, folder: &str, now: &str, last: (u64, u64)) -> Result<u64, EvidenceError> {
        let path = self.dir.join(folder).join("seen.json");
        let before = read_small(&self.dir.join(folder), "seen.json").ok().flatten();
        let before = before.and_then(|text| serde_json::from_slice::<Seen>(&text).ok());
        let mut seen =
            before.unwrap_or_else(|| Seen { times: 1, first_at: now.to_owned(), last_at: now.to_owned(), last });
        seen.times += 1;
        (seen.last_at, seen.last) = (now.to_owned(), last);
        replace(&path, pretty(&seen).as_bytes()).map_err(EvidenceError::io("write", &path))?;
        Ok(seen.times)
    }

    /// Drops what is acknowledged, oldest first, until the new folder fits.
    fn make_room(&self, new: &Path, mut folders: Vec<Folder>, acknowledged: &[String]) -> Result<(), EvidenceError> {
        let size = size_of(new).map_err(EvidenceError::io("measure", new))?;
        loop {
            let bytes: u64 = folders.iter().map(|folder| folder.bytes).sum();
            if bytes + size <= self.bytes_max && folders.len() < FOLDERS_MAX {
                return Ok(());
            }
            let Some(oldest) = folders.iter().position(|folder| acknowledged.contains(&folder.name)) else {
                return Err(EvidenceError::Full { dir: self.dir.clone(), bytes, max: self.bytes_max });
            };
            let path = self.dir.join(folders.remove(oldest).name);
            // By another name first: half a folder must not look like a whole one.
            let doomed = self.dir.join(format!("{UNFINISHED}doomed"));
            let remove = || fs::rename(&path, &doomed).and_then(|()| fs::remove_dir_all(&doomed));
            remove().map_err(EvidenceError::io("remove", &path))?;
        }
    }

    fn write(
        &self,
        dir: &Path,
        id: &str,
        signature: &str,
        now: &str,
        witness: &Witness<'_>,
        divergence: &Divergence,
    ) -> Result<(), EvidenceError> {
        let Witness { span, start, judged, .. } = witness;
        let _ = fs::remove_dir_all(dir);
        own::create_dir(dir).map_err(EvidenceError::io("make", dir))?;
        let mut files = Writer::new(dir.to_owned());
        let items: Vec<usize> = witness.text.items().iter().map(<[u8]>::len).collect();
        files.put(
            "recorded.jsonl",
            &witness.text.items().iter().fold(Vec::new(), |mut all, item| {
                all.extend_from_slice(item);
                all.push(b'\n');
                all
            }),
        )?;
        let mut outcomes: Vec<(&Replay, OutcomeFacts)> = Vec::new();
        for replay in &judged.replays {
            if let Some((_, known)) = outcomes.iter_mut().find(|(known, _)| is_same(known, replay)) {
                known.times += 1;
                continue;
            }
            let suffix = if outcomes.is_empty() { String::new() } else { format!("-{}", outcomes.len() + 1) };
            let file = format!("replayed{suffix}.jsonl");
            files.put_big(&file, |to| replayed::write(to, witness.text, span, replay))?;
            if let Some(image) = replay.image.as_ref().filter(|_| !replay.is_image_recorded) {
                files.put_big(&format!("replayed{suffix}.xss"), |mut to| image.copy_to(&mut to))?;
            }
            if !replay.trace.console.is_empty() {
                files.put(&format!("console{suffix}.txt"), replay.trace.console.as_bytes())?;
            }
            if !replay.trace.printed.is_empty() {
                files.put(&format!("printed{suffix}.txt"), lines(&replay.trace.printed).as_bytes())?;
            }
            outcomes.push((replay, outcome(replay, span, file)));
        }
        let mut bundles = Vec::new();
        let image = match start.beginning {
            Beginning::Image(image) => {
                files.put_big("base.xss", |mut to| image.copy_to(&mut to))?;
                Some(ImageFacts { sha256: image.hash(), bytes: image.bytes() })
            }
            Beginning::Blank { .. } => {
                if let DeliveryKind::InitializeWorker { worker_bundles, source, .. } = span.begins {
                    for id in worker_bundles.iter().chain(source) {
                        if let Some(bytes) = (witness.bundle)(id) {
                            files.put(&format!("bundles/{id}"), &bytes)?;
                            bundles.push(id.clone());
                        }
                    }
                }
                None
            }
        };
        let has_other_end = outcomes.iter().any(|(replay, _)| replay.is_hash_compared && !replay.is_image_recorded);
        if has_other_end {
            // One of the replays may have given it itself.
            let own = judged.replays.iter().find(|replay| replay.is_image_recorded);
            let own = own.and_then(|replay| replay.image.as_ref());
            if let Some(image) = own.or(witness.recorded_end) {
                files.put_big("recorded.xss", |mut to| image.copy_to(&mut to))?;
            }
        }
        let worker = worker_facts(start.program, start.limits);
        let column = column(&judged.verdict, worker.clone());
        files.put("README.txt", readme(id, witness, divergence).as_bytes())?;
        let manifest = Manifest {
            schema: SCHEMA,
            spanwatch: env!("CARGO_PKG_VERSION").to_owned(),
            written_at: now.to_owned(),
            id: id.to_owned(),
            signature: signature.to_owned(),
            span: SpanFacts {
                vat: span.id.vat.to_string(),
                name: witness.name.map(str::to_owned),
                incarnation: witness.incarnation,
                start: span.id.start,
                end: span.id.end,
                seen_to: span.seen_to,
                hash: witness.hash,
                begins: span.begins.name().to_owned(),
                ends: span.ends.label().to_owned(),
                saves: span.saves,
                items,
            },
            start: StartFacts {
                base: witness.base.to_owned(),
                image,
                is_base_unproved: witness.is_base_unproved,
                is_metered: start.options.is_metered,
                enable_disavow: start.options.enable_disavow,
                relax_durability_rules: witness.relax_durability_rules,
                bundles,
            },
            repeat: divergence.repeat.label().to_owned(),
            unconfirmed: match &divergence.repeat {
                Repeat::Unconfirmed(why) => Some(why.clone()),
                Repeat::Deterministic | Repeat::Flaky(_) => None,
            },
            heap: divergence.heap.as_deref().cloned(),
            outcomes: outcomes.into_iter().map(|(_, outcome)| outcome).collect(),
            worker,
            engine: engine_of(witness),
            host: HostFacts::here(),
            files: files.entries.clone(),
        };
        let seen =
            Seen { times: 1, first_at: now.to_owned(), last_at: now.to_owned(), last: (span.id.start, span.id.end) };
        files.put("seen.json", pretty(&seen).as_bytes())?;
        files.put("workers.json", pretty(&[column]).as_bytes())?;
        // Last: what has no manifest is no evidence.
        let path = dir.join("manifest.json");
        replace(&path, pretty(&manifest).as_bytes()).map_err(EvidenceError::io("write", &path))
    }
}

/// Of the image that the span starts from, or where it starts from none of the one that it ends with.
fn engine_of(witness: &Witness<'_>) -> Option<EngineFacts> {
    let image = match witness.start.beginning {
        Beginning::Image(image) => image,
        Beginning::Blank { .. } => witness.judged.replays.iter().find_map(|replay| replay.image.as_ref())?,
    };
    let mut bytes = Vec::new();
    image.copy_to(&mut bytes).ok()?;
    // An image that can't be read is told where heaps are compared.
    let heap = Heap::read(bytes).ok()?;
    let atoms = heap.atoms().iter().map(|atom| (atom.tag.to_owned(), atom.bytes as u64)).collect();
    Some(EngineFacts { version: heap.version().to_string(), atoms })
}

fn pretty(value: &impl Serialize) -> String {
    // What is serialized here has string keys and finite numbers, so there is nothing that could fail.
    json(&serde_json::to_string_pretty(value).unwrap_or_default()).into_owned() + "\n"
}

/// As the store names the span to people.
fn id_of(witness: &Witness<'_>) -> String {
    let id = &witness.span.id;
    let hash = witness.hash.unwrap_or_else(|| witness.text.items().hash()).to_string();
    format!("{}.{}.{}-{}", id.vat, id.start, id.end, &hash[..8])
}

/// What is the same in divergences that are the same.
fn signature(witness: &Witness<'_>, divergence: &Divergence) -> String {
    let first = divergence.findings.first();
    let worker = witness.start.program.sha256.as_str();
    let text = format!(
        "{}\n{worker}\n{}\n{}",
        witness.span.id.vat,
        divergence.repeat.label(),
        first.map(kind_of).unwrap_or_default()
    );
    sha256(text.as_bytes()).to_string()[..8].to_owned()
}

/// A finding without what is its alone.
fn kind_of(finding: &Finding) -> String {
    let name = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.split('"').nth(1).unwrap_or_default().to_owned()
    };
    let detail = match finding.kind {
        FindingKind::Syscall | FindingKind::MissingSyscall | FindingKind::ExtraSyscall => {
            let class = finding.class.map(FindingClass::label).unwrap_or_default();
            format!("{}/{}/{class}", name(&finding.recorded), name(&finding.replayed))
        }
        FindingKind::WorkerExit => finding.replayed.clone().unwrap_or_default(),
        FindingKind::Status | FindingKind::Computrons | FindingKind::SnapshotHash => String::new(),
    };
    format!("{} {detail}", finding.kind.label())
}

fn outcome(replay: &Replay, span: &Span<'_>, file: String) -> OutcomeFacts {
    let bytes = replay.image.as_ref().map_or(0, Image::bytes);
    OutcomeFacts {
        times: 1,
        findings: replay.findings.clone(),
        findings_total: replay.findings_total,
        stopped_at: replay.stopped_at,
        failure: replay.failure.as_ref().map(ToString::to_string),
        image: replayed::end_of(replay, span).map(|sha256| ImageFacts { sha256, bytes }),
        file,
    }
}

/// A worker as evidence names it.
#[must_use]
pub fn worker_facts(program: &WorkerProgram, limits: &Limits) -> WorkerFacts {
    WorkerFacts {
        path: program.path.display().to_string(),
        version: program.version.clone(),
        sha256: program.sha256.clone(),
        sandbox: program.protection.mode.label().to_owned(),
        layers: program.protection.layers.iter().map(|layer| layer.label().to_owned()).collect(),
        time_zone: program.sandbox.time_zone().to_string_lossy().into_owned(),
        stack: limits.stack,
    }
}

/// What a worker did, in a line.
#[must_use]
pub fn column(verdict: &Verdict, worker: WorkerFacts) -> WorkerColumn {
    let mut column = WorkerColumn {
        worker,
        outcome: "failed".to_owned(),
        position: None,
        kind: None,
        repeat: None,
        explanation: String::new(),
    };
    match verdict {
        Verdict::Contradicted(otherwise) => return self::column(otherwise, column.worker),
        Verdict::Verified => {
            column.outcome = "reproduces".to_owned();
            column.explanation = "all as recorded".to_owned();
        }
        Verdict::Partial(partial) => {
            column.outcome = "reproduces".to_owned();
            column.explanation = partial.to_string();
        }
        Verdict::Diverged(divergence) => {
            let first = divergence.findings.first();
            column.outcome = "diverges".to_owned();
            column.position = first.map(|finding| finding.position);
            column.kind = first.map(|finding| finding.kind);
            column.repeat = Some(divergence.repeat.label().to_owned());
            column.explanation = first.map(ToString::to_string).unwrap_or_default();
        }
        Verdict::Unverifiable(why) => column.explanation = why.to_string(),
        Verdict::Failed(failure) => column.explanation = failure.to_string(),
        Verdict::NotApplicable(why) => column.explanation = why.text().to_owned(),
    }
    column
}

fn readme(id: &str, witness: &Witness<'_>, divergence: &Divergence) -> String {
    let span = &witness.span.id;
    let (vat, name) = (&span.vat, short(witness.name.unwrap_or("without a name"), NAME_CHARS));
    let mut text = Lines::default();
    writeln!(text, "Evidence of a divergence");
    writeln!(text, "========================");
    writeln!(text);
    writeln!(text, "Vat {vat} ({name}), incarnation {}, span [{}, {}).", witness.incarnation, span.start, span.end);
    writeln!(text, "A worker did something else than the node's transcript says:");
    match divergence.findings.first() {
        Some(first) => writeln!(text, "at position {}, {first}", first.position),
        None => writeln!(text),
    }
    match &divergence.repeat {
        Repeat::Deterministic => writeln!(text, "Each repetition in a fresh process gave the same (deterministic)."),
        Repeat::Flaky(_) => writeln!(text, "Repetitions in a fresh process did not always give the same (flaky)."),
        Repeat::Unconfirmed(why) => writeln!(text, "No repetition could tell whether it does the same again: {why}."),
    }
    writeln!(text);
    writeln!(text, "This folder has all that is needed to replay the span, without the node. Type next:");
    writeln!(text);
    writeln!(text, "    spanwatch explain {id}");
    writeln!(text, "    spanwatch replay {id} --worker PATH/TO/xsnap-worker");
    writeln!(text);
    writeln!(
        text,
        "The first says what differs and what may be the cause; the second replays the span again, with any worker."
    );
    writeln!(text, "docs/forensics.md of spanwatch {} explains each file.", env!("CARGO_PKG_VERSION"));
    text.into_text()
}
