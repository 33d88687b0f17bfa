//! Keeping evidence: one folder for each divergence that is not the same as one before.
//!
//! Owns the directory of all folders: which divergences are counted into a folder that is there (`signature`), the limits on
//! number and size, and the lock between processes. Once the divergence of a folder is acknowledged, the next one of its signature gets
//! a folder of its own.
//!
//! A folder is written under a temporary name and renamed, so that a reader sees all of it or nothing. Acknowledged folders are
//! dropped first, the oldest first; others never.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::EvidenceError;
use super::files::{read_small, replace, size_of};
use super::manifest::{Manifest, Seen};
use super::new_folder::{NewFolder, pretty};
use super::signature::signature;
use crate::files::own::{self, Existing};
use crate::files::publish::sync_dir;
use crate::judge::Judged;
use crate::record::SpanText;
use crate::record::image::Image;
use crate::replay::ReplayStart;
use crate::span::{BaseKind, Span};
use crate::transcript::Hash256;
use crate::verdict::Verdict;

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
    /// The source of what it starts from.
    pub base: BaseKind,
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
        let (vat, worker) = (witness.span.id.vat.as_str(), witness.start.program.sha256.as_str());
        let signature = signature(vat, worker, divergence);
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
        let new = NewFolder { dir: &unfinished, id: &folder, signature: &signature, now: &now, witness, divergence };
        let written = new.write().and_then(|()| self.make_room(&unfinished, folders, &acknowledged)).and_then(|()| {
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
}

/// As the store names the span to people.
fn id_of(witness: &Witness<'_>) -> String {
    let id = &witness.span.id;
    let hash = witness.hash.unwrap_or_else(|| witness.text.items().hash()).to_string();
    format!("{}.{}.{}-{}", id.vat, id.start, id.end, &hash[..8])
}
