//! Reading evidence back: everything is proved again before it is replayed.

use std::ops::RangeInclusive;
use std::path::Path;

use super::EvidenceError;
use super::files::{self, FileEntry, replace};
use super::folder::{Content, Folder};
use super::manifest::{Manifest, SCHEMA, Seen, WorkerColumn};
use super::replayed::{self, ReplayedDelivery, ReplayedStart};
use crate::files::regular;
use crate::kernel_db::VatOptions;
use crate::record::SpanText;
use crate::record::bundle;
use crate::record::bundle::CodeBundle;
use crate::record::image::Image;
use crate::replay::is_zone_name;
use crate::span::{Beginning, Span, blank_beginning};
use crate::transcript::{Hash256, Item, Items, Position, SpanId, VatId};
use crate::verdict::{Failure, Unverifiable, Verdict};
use crate::visible::{json, visible};

/// More than this is read of no file with a bundle. A whole contract's has some 2 MB.
const BUNDLE_BYTES_MAX: u64 = 256 << 20;

/// What a worker's stack may be, as `--worker-stack` and `worker.stack` allow it.
const STACK_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 30;

/// An evidence folder.
#[derive(Debug)]
pub struct Case {
    folder: Folder,
    /// What it says of itself.
    pub manifest: Manifest,
    id: SpanId,
    text: SpanText,
}

/// Another bundle in place of one that the record names.
#[derive(Debug)]
pub struct Replacement {
    /// The recorded one's ID.
    pub old: String,
    /// The other one.
    pub new: CodeBundle,
}

impl Case {
    /// Opens a folder, or a file that was packed from one.
    ///
    /// # Errors
    /// When it is neither, or was changed.
    pub fn open(path: &Path) -> Result<Self, EvidenceError> {
        let folder = Folder::open(path)?;
        let manifest = read_manifest(&folder)?;
        manifest.check().map_err(|why| EvidenceError::NotEvidence { path: path.to_owned(), why })?;
        let (id, text) = read_items(&folder, &manifest)?;
        Ok(Self { folder, manifest, id, text })
    }

    /// Where it is: the folder, or the file that was packed from one.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Vat and bounds.
    #[must_use]
    pub fn id(&self) -> &SpanId {
        &self.id
    }

    /// The recorded items, sliced.
    ///
    /// # Errors
    /// When one of them is not what a kernel writes.
    pub fn items(&self) -> Result<Vec<(Position, Item<'_>)>, EvidenceError> {
        self.text.parse().map_err(|why| EvidenceError::Record { path: self.dir().to_owned(), why })
    }

    /// The items' texts.
    #[must_use]
    pub fn texts(&self) -> &Items {
        self.text.items()
    }

    /// The span.
    ///
    /// # Errors
    /// When its items are not in an order in which a kernel writes them.
    pub fn span<'a>(&'a self, items: &'a [(Position, Item<'a>)]) -> Result<Span<'a>, EvidenceError> {
        Span::new(&self.id, None, items, self.text.is_whole()).map_err(|verdict| match verdict {
            Verdict::Unverifiable(why) => EvidenceError::Record { path: self.dir().to_owned(), why },
            other => EvidenceError::NotEvidence {
                path: self.dir().to_owned(),
                why: format!("the span is {}", other.label()),
            },
        })
    }

    /// How the vat's worker is started.
    #[must_use]
    pub fn options(&self) -> VatOptions {
        VatOptions {
            name: self.manifest.span.name.clone(),
            worker_type: Some(crate::kernel_db::WorkerType::Xsnap),
            is_metered: self.manifest.start.is_metered,
            enable_disavow: self.manifest.start.enable_disavow,
        }
    }

    /// The time zone of the worker that diverged: a name of a zone that this system has, and nothing else.
    ///
    /// # Errors
    /// When it is anything else, such as a path: evidence may come from anybody.
    pub fn time_zone(&self) -> Result<&str, EvidenceError> {
        let zone = &self.manifest.worker.time_zone;
        if is_zone_name(zone) {
            return Ok(zone);
        }
        let why = format!(
            "its worker's time zone is {zone:?}, which is no zone of this system; name the one to replay with by --worker-tz"
        );
        Err(EvidenceError::NotReplayable { path: self.dir().to_owned(), why })
    }

    /// The stack of the worker that diverged, in bytes.
    ///
    /// # Errors
    /// When no worker can have been given so much or so little.
    pub fn stack(&self) -> Result<u64, EvidenceError> {
        let stack = self.manifest.worker.stack;
        if STACK_BYTES.contains(&stack) {
            return Ok(stack);
        }
        let (least, most) = STACK_BYTES.into_inner();
        let why = format!(
            "its worker's stack is {stack} bytes, which is not within {least} and {most}; say how many MiB to replay with by --worker-stack"
        );
        Err(EvidenceError::NotReplayable { path: self.dir().to_owned(), why })
    }

    /// The worker that diverged, in words: its version and the sha256 of its program.
    #[must_use]
    pub fn wanted_worker(&self) -> String {
        let worker = &self.manifest.worker;
        format!("{} with sha256 {}", visible(&worker.version), visible(&worker.sha256))
    }

    /// The image that the span starts from, if it starts from one.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn base(&self) -> Result<Option<Image>, EvidenceError> {
        match self.manifest.start.image {
            None => Ok(None),
            Some(facts) => self.image("base.xss", facts.sha256),
        }
    }

    /// The recorded image at the end of the span, if a source had it.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn recorded_end(&self) -> Result<Option<Image>, EvidenceError> {
        self.manifest.span.saves.map_or(Ok(None), |hash| self.image("recorded.xss", hash))
    }

    /// The image that the first replay ended with, where it is not the recorded one.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn replayed_end(&self) -> Result<Option<Image>, EvidenceError> {
        let image = self.manifest.outcomes.first().and_then(|outcome| outcome.image);
        image.map_or(Ok(None), |facts| self.image("replayed.xss", facts.sha256))
    }

    fn image(&self, name: &str, hash: Hash256) -> Result<Option<Image>, EvidenceError> {
        let path = self.dir().join(name);
        match self.folder.content(name).map_err(EvidenceError::io("open", &path))? {
            None => Ok(None),
            Some(Content { reader, bytes_max }) => Image::read(reader, hash, Some(bytes_max))
                .map(Some)
                .map_err(|error| EvidenceError::Damaged { path, why: error.to_string() }),
        }
    }

    /// A bundle of the folder.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn bundle(&self, id: &str) -> Result<Option<Vec<u8>>, EvidenceError> {
        files::read(&self.folder, &self.manifest.files, &format!("bundles/{id}"))
    }

    /// What a worker is given before the first delivery.
    ///
    /// # Errors
    /// When a bundle is missing or damaged.
    pub fn beginning<'a>(
        &self,
        span: &Span<'_>,
        base: Option<&'a Image>,
        replacements: &[&Replacement],
    ) -> Result<Beginning<'a>, EvidenceError> {
        if let Some(image) = base {
            return Ok(Beginning::Image(image));
        }
        if self.manifest.start.image.is_some() {
            let path = self.dir().join("base.xss");
            return Err(EvidenceError::Damaged { path, why: "the image that the span starts from is gone".to_owned() });
        }
        let source = |id: &str| {
            if let Some(replacement) = replacements.iter().find(|replacement| replacement.old == id) {
                return Ok(Some(replacement.new.clone()));
            }
            let bytes = self.bundle(id).map_err(|error| Verdict::Failed(Failure::System(error.to_string())))?;
            Ok(bytes.map(|bytes| CodeBundle { id: id.to_owned(), bytes }))
        };
        blank_beginning(source, span, &self.options(), self.manifest.start.relax_durability_rules).map_err(|verdict| {
            let path = self.dir().to_owned();
            match verdict {
                Verdict::Unverifiable(why) => EvidenceError::Record { path, why },
                Verdict::Failed(failure) => EvidenceError::Damaged { path, why: failure.to_string() },
                other => EvidenceError::NotEvidence { path, why: format!("the span is {}", other.label()) },
            }
        })
    }

    /// What the replays of one outcome did; the first outcome is number 0.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn replayed(&self, outcome: usize) -> Result<Vec<ReplayedDelivery>, EvidenceError> {
        let Some(facts) = self.manifest.outcomes.get(outcome) else { return Ok(Vec::new()) };
        let text = self.text_of(&facts.file)?.unwrap_or_default();
        replayed::read(&text, self.id.start)
            .map_err(|error| EvidenceError::Damaged { path: self.dir().join(&facts.file), why: error.to_string() })
    }

    /// How the worker was started in the replays of one outcome; the first outcome is number 0.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn replayed_start(&self, outcome: usize) -> Result<ReplayedStart, EvidenceError> {
        let Some(facts) = self.manifest.outcomes.get(outcome) else { return Ok(ReplayedStart::default()) };
        let text = self.text_of(&facts.file)?.unwrap_or_default();
        replayed::read_start(&text)
            .map_err(|error| EvidenceError::Damaged { path: self.dir().join(&facts.file), why: error.to_string() })
    }

    /// A text file of the folder.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn text_of(&self, name: &str) -> Result<Option<String>, EvidenceError> {
        let content = files::read(&self.folder, &self.manifest.files, name)?;
        Ok(content.map(|content| String::from_utf8_lossy(&content).into_owned()))
    }

    /// How often the divergence was met.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        serde_json::from_slice(&files::read_unlisted(&self.folder, "seen.json").ok()??).ok()
    }

    /// What workers did with the span.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerColumn> {
        let text = files::read_unlisted(&self.folder, "workers.json").ok().flatten().unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Notes in the folder what workers did with the span; what was known of the same worker is replaced. An archive stays as it is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn note_workers(&self, columns: &[WorkerColumn]) -> Result<(), EvidenceError> {
        self.folder.directory().map_or(Ok(()), |directory| note_workers(&directory, columns))
    }
}

/// Notes in a folder what workers did with its span.
///
/// # Errors
/// When it can't be written.
pub fn note_workers(dir: &Path, columns: &[WorkerColumn]) -> Result<(), EvidenceError> {
    let path = dir.join("workers.json");
    let text = files::read_small(dir, "workers.json").map_err(EvidenceError::io("read", &path))?.unwrap_or_default();
    let mut all: Vec<WorkerColumn> = serde_json::from_slice(&text).unwrap_or_default();
    for column in columns {
        match all.iter_mut().find(|known| known.worker == column.worker) {
            Some(known) => known.clone_from(column),
            None => all.push(column.clone()),
        }
    }
    let text = json(&serde_json::to_string_pretty(&all).unwrap_or_default()).into_owned() + "\n";
    replace(&path, text.as_bytes()).map_err(EvidenceError::io("write", &path))
}

impl Replacement {
    /// Reads `OLD=FILE`: a bundle as the kernel's database has it, or as bundlers write it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<std::sync::Arc<Self>, String> {
        let (old, file) = text.split_once('=').ok_or("expected OLD=FILE, with OLD the ID of a recorded bundle")?;
        let content = regular::open_named(Path::new(file))
            .and_then(|opened| regular::read_to_end(opened, BUNDLE_BYTES_MAX))
            .map_err(|error| format!("failed to read {file}: {error}"))?;
        let (id, bytes) = bundle::identify(content).map_err(|error| format!("{file} is no bundle: {error}"))?;
        Ok(std::sync::Arc::new(Self { old: old.to_owned(), new: CodeBundle { id, bytes } }))
    }
}

fn read_manifest(folder: &Folder) -> Result<Manifest, EvidenceError> {
    #[derive(serde::Deserialize)]
    struct Form {
        schema: u32,
    }
    let dir = folder.path();
    let path = dir.join("manifest.json");
    let not = |why: String| EvidenceError::NotEvidence { path: dir.to_owned(), why };
    let text = files::read_unlisted(folder, "manifest.json").map_err(EvidenceError::io("read", &path))?;
    let text = text.ok_or_else(|| not("it has no manifest.json".to_owned()))?;
    let form: Form = serde_json::from_slice(&text).map_err(|error| not(format!("manifest.json: {error}")))?;
    if form.schema > SCHEMA {
        return Err(EvidenceError::Newer { path: dir.to_owned(), found: form.schema, known: SCHEMA });
    }
    serde_json::from_slice(&text).map_err(|error| not(format!("manifest.json: {error}")))
}

fn read_items(folder: &Folder, manifest: &Manifest) -> Result<(SpanId, SpanText), EvidenceError> {
    let (facts, dir) = (&manifest.span, folder.path());
    let not = |why: String| EvidenceError::NotEvidence { path: dir.to_owned(), why };
    let vat = VatId::parse(&facts.vat).ok_or_else(|| not(format!("its vat is {:?}", facts.vat)))?;
    let id = SpanId { vat, start: facts.start, end: facts.end };
    let path = dir.join("recorded.jsonl");
    let damaged = |why: String| EvidenceError::Damaged { path: path.clone(), why };
    let entries: &std::collections::BTreeMap<String, FileEntry> = &manifest.files;
    let content = files::read(folder, entries, "recorded.jsonl")?.ok_or_else(|| damaged("it is gone".to_owned()))?;
    let mut items = Items::default();
    let mut rest = &content[..];
    for length in &facts.items {
        let (item, after) = rest.split_at_checked(*length).ok_or_else(|| damaged("it is too short".to_owned()))?;
        items.push(item);
        rest =
            after.strip_prefix(b"\n").ok_or_else(|| damaged("its lines are not those of the manifest".to_owned()))?;
    }
    let is_whole = facts.seen_to == facts.end;
    let count = facts.seen_to.checked_sub(facts.start);
    if count != Some(items.len() as u64) || facts.seen_to > facts.end {
        return Err(damaged(format!("it has {} items of {} to {}", items.len(), facts.start, facts.seen_to)));
    }
    let recorded = facts.hash.ok_or_else(|| not("it does not say what the hash of the span is".to_owned()))?;
    let text = SpanText::prove(id.clone(), items, is_whole, recorded);
    let text = text.map_err(|why: Unverifiable| EvidenceError::Record { path: dir.to_owned(), why })?;
    Ok((id, text))
}
