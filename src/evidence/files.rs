//! The files of a folder: what is big is compressed, and each is known by its size and sha256.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::EvidenceError;
use super::folder::{Content, Folder, RATIO_MAX, SLACK_BYTES};
use super::names::ENDING;
use crate::files::own;
use crate::files::publish;
use crate::files::regular;
use crate::transcript::Hash256;

/// Files from this size on are compressed.
const BIG: usize = 64 * 1024;
/// What the manifest and the small files beside it may have, in bytes.
const SMALL_BYTES_MAX: u64 = 64 << 20;
/// Fast, and with images nearly as small as slower levels.
const LEVEL: i32 = 3;
/// Small enough to stay in the cache between being read and being hashed.
const CHUNK: usize = 64 * 1024;

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
                let mut file = encoder.finish()?;
                weigh_down(&mut file, entry.bytes)?;
                (entry, file)
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

/// A reader takes no more content from a file than in proportion to its size. What was compressed better than that, as a heap of zeros
/// is, gets a frame of zeros behind it that decoders skip.
fn weigh_down(file: &mut File, bytes: u64) -> io::Result<()> {
    const SKIPPABLE: u32 = 0x184D_2A50;
    let size = file.metadata()?.len();
    let missing = (bytes.saturating_sub(SLACK_BYTES).div_ceil(RATIO_MAX)).saturating_sub(size);
    let Some(missing) = u32::try_from(missing).ok().filter(|missing| *missing > 0) else { return Ok(()) };
    file.write_all(&SKIPPABLE.to_le_bytes())?;
    file.write_all(&missing.to_le_bytes())?;
    io::copy(&mut io::repeat(0).take(u64::from(missing)), file)?;
    Ok(())
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

/// Reads a file of a folder that its manifest lists, and proves it.
pub(super) fn read(
    folder: &Folder,
    entries: &BTreeMap<String, FileEntry>,
    name: &str,
) -> Result<Option<Vec<u8>>, EvidenceError> {
    let path = folder.path().join(name);
    let Some(entry) = entries.get(name).or_else(|| entries.get(&format!("{name}{ENDING}"))) else { return Ok(None) };
    let mut content = Vec::new();
    prove(folder, entry, name, &path, |bytes| content.extend_from_slice(bytes))?;
    Ok(Some(content))
}

/// Reads a file bit by bit and proves it; what comes is not proved before all of it has come.
pub(super) fn prove(
    folder: &Folder,
    entry: &FileEntry,
    name: &str,
    path: &Path,
    mut take: impl FnMut(&[u8]),
) -> Result<(), EvidenceError> {
    let damaged = |why: String| EvidenceError::Damaged { path: path.to_owned(), why };
    let content = folder.content(name).map_err(EvidenceError::io("open", path))?;
    let Content { reader, bytes_max } =
        content.ok_or_else(|| damaged("it is gone, and the manifest lists it".to_owned()))?;
    if entry.bytes > bytes_max {
        let bytes = entry.bytes;
        return Err(damaged(format!(
            "the manifest lists {bytes} bytes, and a file of its name and size has no more than {bytes_max}"
        )));
    }
    // No more than it should have, whatever the compressed form would give.
    let mut reader = reader.take(entry.bytes + 1);
    let (mut bytes, mut hasher, mut chunk) = (0, Sha256::new(), vec![0; CHUNK]);
    loop {
        let read = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(error.to_string())),
        };
        bytes += read as u64;
        hasher.update(&chunk[..read]);
        take(&chunk[..read]);
    }
    if bytes != entry.bytes {
        return Err(damaged(format!("it has not the {} bytes that the manifest lists", entry.bytes)));
    }
    match Hash256::from_digest(hasher) {
        found if found == entry.sha256 => Ok(()),
        found => Err(damaged(format!("its sha256 is {found}, the manifest lists {}", entry.sha256))),
    }
}

/// Reads a small file that the manifest does not list; `None` if the folder has no such file.
pub(super) fn read_unlisted(folder: &Folder, name: &str) -> io::Result<Option<Vec<u8>>> {
    let Some(Content { reader, bytes_max }) = folder.content(name)? else { return Ok(None) };
    let mut content = Vec::new();
    reader.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {bytes_max} bytes")));
    }
    Ok(Some(content))
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
    publish::sync_dir(regular::parent(path))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A vat can fill its heap with zeros; its evidence is to be opened all the same.
    #[test]
    fn what_we_write_can_be_read_however_well_it_was_compressed() {
        const BYTES: u64 = SLACK_BYTES + (16 << 20);
        let dir = tempfile::tempdir().expect("a directory");
        let mut writer = Writer::new(dir.path().to_owned());
        let zeros = |to: &mut dyn Write| io::copy(&mut io::repeat(0).take(BYTES), to).map(drop);
        writer.put_big("base.xss", zeros).expect("written");
        let folder = Folder::open(dir.path()).expect("a folder");
        let entry = &writer.entries["base.xss.zst"];
        assert_eq!(entry.bytes, BYTES);
        prove(&folder, entry, "base.xss", dir.path(), |_| ()).expect("proved");
        // Without what weighs it down it would be refused.
        let path = dir.path().join("base.xss.zst");
        let file = File::options().write(true).open(&path).expect("open");
        file.set_len(16 << 10).expect("cut");
        let folder = Folder::open(dir.path()).expect("a folder");
        let error = prove(&folder, entry, "base.xss", dir.path(), |_| ()).expect_err("too much").to_string();
        assert!(error.contains("has no more than"), "{error}");
    }
}
