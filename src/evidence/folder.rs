//! Where the files of evidence are: in a folder, or in a file that was packed from one.
//!
//! Owns the look at all of it before anything is read: only regular files of known names and sizes count, nothing that can be executed is
//! among them, and no link is followed. Files that evidence does not have are not opened. It must never write.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::EvidenceError;
use super::archive::{self, Unpacked};
use super::names::{DIRECTORIES, ENDING, FILES_MAX, Form, STORED_BYTES_MAX, form_of};
use crate::files::bounded;
use crate::files::regular::{self, Special};

/// A compressed file gives so much content for each of its bytes. Real images give 5.
pub(super) const RATIO_MAX: u64 = 256;
/// And so much in any case.
pub(super) const SLACK_BYTES: u64 = 64 << 20;

/// Evidence, as it is stored.
#[derive(Debug)]
pub(super) struct Folder {
    /// What the person gave.
    path: PathBuf,
    place: Place,
    /// The bytes that each file takes, by the name under which it is stored.
    pub(super) sizes: BTreeMap<String, u64>,
    /// Files that evidence does not have.
    pub(super) left_out: Vec<String>,
}

#[derive(Debug)]
enum Place {
    Directory(File),
    Archive(BTreeMap<String, File>),
}

/// A file of evidence, whichever way it is stored.
pub(super) struct Content {
    pub(super) reader: Box<dyn Read>,
    /// It gives no more than this.
    pub(super) bytes_max: u64,
}

impl Folder {
    /// Opens a folder, or a file that was packed from one.
    pub(super) fn open(path: &Path) -> Result<Self, EvidenceError> {
        let io = |error: io::Error| EvidenceError::io("open", path)(error);
        let metadata = fs::symlink_metadata(path).map_err(io)?;
        if metadata.is_dir() {
            let directory = regular::open_dir(path).map_err(io)?;
            let not = |why| EvidenceError::NotEvidence { path: path.to_owned(), why };
            let mut listing = Listing::default();
            let listed = listing.add(&through(&directory), "").map_err(EvidenceError::io("list", path))?;
            // Any other directory has files that evidence must not have: to name one of these would mislead.
            let is_evidence = || fs::symlink_metadata(through(&directory).join("manifest.json")).is_ok();
            listed.map_err(|why| not(if is_evidence() { why } else { "it has no manifest.json".to_owned() }))?;
            let Listing { sizes, left_out, .. } = listing;
            return Ok(Self { path: path.to_owned(), place: Place::Directory(directory), sizes, left_out });
        }
        let archive = regular::open(path).map_err(io)?;
        let Unpacked { files, .. } =
            archive::read(archive).map_err(|why| EvidenceError::NotEvidence { path: path.to_owned(), why })?;
        let mut sizes = BTreeMap::new();
        for (name, file) in &files {
            sizes.insert(name.clone(), file.metadata().map_err(io)?.len());
        }
        Ok(Self { path: path.to_owned(), place: Place::Archive(files), sizes, left_out: Vec::new() })
    }

    /// What the person gave.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, by a path that leads to the same one whatever is renamed; `None` for an archive.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Directory(directory) => Some(through(directory)),
            Place::Archive(_) => None,
        }
    }

    /// A file as it is stored; `None` if the folder lacks it.
    pub(super) fn stored(&self, name: &str) -> io::Result<Option<File>> {
        // What was not looked at is not there.
        if !self.sizes.contains_key(name) {
            return Ok(None);
        }
        match &self.place {
            Place::Directory(directory) => regular::open_in(&through(directory), Path::new(name)).map(Some),
            Place::Archive(files) => files.get(name).map(File::try_clone).transpose(),
        }
    }

    /// A file's content, in either form of storage; `None` if the folder lacks it.
    pub(super) fn content(&self, name: &str) -> io::Result<Option<Content>> {
        let Some(form) = form_of(name) else { return Ok(None) };
        for stored in [name.to_owned(), format!("{name}{ENDING}")] {
            if let (Some(file), Some(size)) = (self.stored(&stored)?, self.sizes.get(&stored)) {
                return content_of(&stored, form, file, *size).map(Some);
            }
        }
        Ok(None)
    }
}

/// A path to an open directory.
fn through(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn content_of(stored: &str, form: &Form, file: File, size: u64) -> io::Result<Content> {
    let from = FromStart::of(file);
    let bytes_max = form.bytes_max.min(SLACK_BYTES + size.saturating_mul(RATIO_MAX));
    let reader: Box<dyn Read> =
        if stored.ends_with(ENDING) { Box::new(bounded::zstd(from)?) } else { Box::new(BufReader::new(from)) };
    // One byte more, so that the reader sees the excess.
    Ok(Content { reader: Box::new(reader.take(bytes_max + 1)), bytes_max })
}

/// Reads a file from its start, independently of other readers.
pub(super) struct FromStart {
    file: File,
    offset: u64,
}

impl FromStart {
    pub(super) fn of(file: File) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for FromStart {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(to, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[derive(Default)]
struct Listing {
    sizes: BTreeMap<String, u64>,
    left_out: Vec<String>,
    entries: usize,
    bytes: u64,
}

impl Listing {
    /// Adds what is in a directory, under a prefix; what is wrong with it, if something is.
    fn add(&mut self, directory: &Path, prefix: &str) -> io::Result<Result<(), String>> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            self.entries += 1;
            if self.entries > FILES_MAX {
                return Ok(Err(format!("it holds more than {FILES_MAX} files")));
            }
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                if !prefix.is_empty() || !DIRECTORIES.contains(&&name[..]) {
                    return Ok(Err(format!("{name} in it can't be used: {}; take it away", Special::Directory)));
                }
                if let Err(why) = self.add(&directory.join(&name), &format!("{name}/"))? {
                    return Ok(Err(why));
                }
                continue;
            }
            if let Some(special) = Special::of(&metadata) {
                return Ok(Err(format!("{name} in it can't be used: {special}")));
            }
            if metadata.mode() & 0o111 != 0 {
                return Ok(Err(format!(
                    "{name} in it can be executed, and evidence has no programs; chmod a-x takes that away"
                )));
            }
            let Some(form) = form_of(&name) else {
                self.left_out.push(name);
                continue;
            };
            let size = metadata.len();
            self.bytes = self.bytes.saturating_add(size);
            if size > form.stored_max() || self.bytes > STORED_BYTES_MAX {
                return Ok(Err(format!(
                    "{name} in it has {size} bytes, and such a file has no more than {}",
                    form.stored_max()
                )));
            }
            // Holes take no room where they come from.
            let taken = if name.ends_with(ENDING) { size } else { size.min(metadata.blocks().saturating_mul(512)) };
            self.sizes.insert(name, taken);
        }
        Ok(Ok(()))
    }
}
