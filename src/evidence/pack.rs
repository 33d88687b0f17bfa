//! One file of a folder, to be sent, and back. The file is a tar in zstd; what is in the folder is compressed already.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use super::EvidenceError;
use crate::regular;

/// A packed folder unpacks to no more than this.
const UNPACKED_BYTES_MAX: u64 = 16 << 30;
/// The level hardly matters: what is big is compressed already.
const LEVEL: i32 = 1;

/// Packs a folder into a file.
///
/// # Errors
/// When it is no evidence, or can't be read or written.
pub fn pack(folder: &Path, to: &Path) -> Result<(), EvidenceError> {
    super::Case::open(folder)?;
    let canonical = fs::canonicalize(folder).map_err(EvidenceError::io("open", folder))?;
    let name = canonical.file_name().unwrap_or_default();
    let pack = || -> std::io::Result<()> {
        let file = File::create_new(to)?;
        let mut tar = tar::Builder::new(zstd::Encoder::new(file, LEVEL)?);
        tar.mode(tar::HeaderMode::Deterministic);
        tar.append_dir_all(name, &canonical)?;
        tar.into_inner()?.finish()?.sync_all()
    };
    pack().map_err(EvidenceError::io("pack into", to))
}

/// Unpacks a file into a new folder below a directory, and gives the folder.
///
/// # Errors
/// When it is no packed evidence, or the folder is there already.
pub fn unpack(file: &Path, to: &Path) -> Result<PathBuf, EvidenceError> {
    let not = |why: String| EvidenceError::NotEvidence { path: file.to_owned(), why };
    let opened = regular::open_named(file).map_err(EvidenceError::io("open", file))?;
    let decoder = zstd::Decoder::new(opened).map_err(EvidenceError::io("read", file))?;
    let mut tar = tar::Archive::new(decoder);
    tar.set_preserve_permissions(false);
    let entries = tar.entries().map_err(|error| not(error.to_string()))?;
    let mut folder: Option<PathBuf> = None;
    let mut left = UNPACKED_BYTES_MAX;
    for entry in entries {
        let mut entry = entry.map_err(|error| not(error.to_string()))?;
        let path = entry.path().map_err(|error| not(error.to_string()))?.into_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let kind = entry.header().entry_type();
        if !plain || !(kind.is_file() || kind.is_dir()) {
            return Err(not(format!("it holds {}, which is no plain file", path.display())));
        }
        let Some(Component::Normal(first)) = path.components().next() else {
            return Err(not("it holds a file without a name".to_owned()));
        };
        let top = to.join(first);
        match &folder {
            None if fs::symlink_metadata(&top).is_ok() => {
                let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
                return Err(EvidenceError::io("unpack to", top)(source));
            }
            None => folder = Some(top),
            Some(folder) if *folder == top => {}
            Some(_) => return Err(not("it holds several folders".to_owned())),
        }
        let size = entry.header().size().map_err(|error| not(error.to_string()))?;
        left = left.checked_sub(size).ok_or_else(|| not(format!("it holds more than {UNPACKED_BYTES_MAX} bytes")))?;
        entry.unpack_in(to).map_err(EvidenceError::io("unpack to", to.join(&path)))?;
    }
    folder.ok_or_else(|| not("it is empty".to_owned()))
}
