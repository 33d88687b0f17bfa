//! The files of a folder: what is big is compressed, and each is known by its size and sha256.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::EvidenceError;
use crate::own;
use crate::regular;
use crate::transcript::Hash256;

/// Files from this size on are compressed.
const BIG: usize = 64 * 1024;
/// What the manifest and the small files beside it may have, in bytes.
const SMALL_BYTES_MAX: u64 = 64 << 20;
/// Fast, and with images nearly as small as slower levels.
const LEVEL: i32 = 3;
/// The ending of compressed files.
pub(super) const ENDING: &str = ".zst";

/// A file as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Of the content, uncompressed.
    pub bytes: u64,
    /// Of the content, uncompressed.
    pub sha256: Hash256,
}

/// Writes the files of a folder.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    pub(super) entries: BTreeMap<String, FileEntry>,
}

impl Writer {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, entries: BTreeMap::new() }
    }

    /// Writes a file.
    pub(super) fn put(&mut self, name: &str, content: &[u8]) -> Result<(), EvidenceError> {
        self.write(name, content.len() >= BIG, |to| to.write_all(content))
    }

    /// Writes a big file as it comes.
    pub(super) fn put_big(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), EvidenceError> {
        self.write(name, true, write)
    }

    fn write(
        &mut self,
        name: &str,
        is_big: bool,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), EvidenceError> {
        let stored = if is_big { format!("{name}{ENDING}") } else { name.to_owned() };
        let path = self.dir.join(&stored);
        let attempt = || -> io::Result<FileEntry> {
            // A name has at most one directory in it.
            if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
                own::create_dir(parent)?;
            }
            let file = own::create_new(&path)?;
            let (entry, file) = if is_big {
                let mut to = Counted::new(zstd::Encoder::new(file, LEVEL)?);
                write(&mut to)?;
                let (entry, encoder) = to.finish();
                (entry, encoder.finish()?)
            } else {
                let mut to = Counted::new(file);
                write(&mut to)?;
                to.finish()
            };
            file.sync_all()?;
            Ok(entry)
        };
        let entry = attempt().map_err(EvidenceError::io("write", &path))?;
        self.entries.insert(stored, entry);
        Ok(())
    }
}

/// Counts and hashes what goes through.
struct Counted<W> {
    to: W,
    bytes: u64,
    hasher: Sha256,
}

impl<W: Write> Counted<W> {
    fn new(to: W) -> Self {
        Self { to, bytes: 0, hasher: Sha256::new() }
    }

    fn finish(self) -> (FileEntry, W) {
        (FileEntry { bytes: self.bytes, sha256: Hash256::from_digest(self.hasher) }, self.to)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Opens a file of a folder, whichever way it is stored; `None` if it has no such file.
pub(super) fn open(dir: &Path, name: &str) -> io::Result<Option<Box<dyn Read>>> {
    let found = |name: &str| match regular::open_in(dir, Path::new(name)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    if let Some(file) = found(name)? {
        return Ok(Some(Box::new(BufReader::new(file))));
    }
    Ok(match found(&format!("{name}{ENDING}"))? {
        Some(file) => Some(Box::new(zstd::Decoder::new(file)?)),
        None => None,
    })
}

/// Reads a file of a folder that its manifest lists, and proves it.
pub(super) fn read(
    dir: &Path,
    entries: &BTreeMap<String, FileEntry>,
    name: &str,
) -> Result<Option<Vec<u8>>, EvidenceError> {
    let path = dir.join(name);
    let Some(entry) = entries.get(name).or_else(|| entries.get(&format!("{name}{ENDING}"))) else { return Ok(None) };
    let damaged = |why: String| EvidenceError::Damaged { path: path.clone(), why };
    let file = open(dir, name).map_err(EvidenceError::io("open", &path))?;
    let file = file.ok_or_else(|| damaged("it is gone, and the manifest lists it".to_owned()))?;
    let mut content = Vec::new();
    // No more than it should have, whatever the compressed form would give.
    file.take(entry.bytes + 1).read_to_end(&mut content).map_err(|error| damaged(error.to_string()))?;
    if content.len() as u64 != entry.bytes {
        return Err(damaged(format!("it has not the {} bytes that the manifest lists", entry.bytes)));
    }
    let mut hasher = Sha256::new();
    hasher.update(&content);
    match Hash256::from_digest(hasher) {
        found if found == entry.sha256 => Ok(Some(content)),
        found => Err(damaged(format!("its sha256 is {found}, the manifest lists {}", entry.sha256))),
    }
}

/// Reads a small file that a folder may have and its manifest does not list; `None` if it has no such file.
pub(super) fn read_small(dir: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    match regular::open_in(dir, Path::new(name)) {
        Ok(file) => regular::read_to_end(file, SMALL_BYTES_MAX).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a small file anew, so that a reader finds either the old one or the new one.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // A process that was killed may have left one.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = own::create_new(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes what was created or renamed in a directory last.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The bytes that a directory takes, its subdirectories included.
pub(super) fn size_of(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                left.push(entry.path());
            } else {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}
