//! What evidence holds, in forms that tools of others read.
//!
//! [`xsnap_trace`] is for `src/replay.js` of `@agoric/xsnap`, [`sst`] for `replay-transcript.js` of the SDK. Both write what
//! is in the folder and run nothing.

pub mod sst;
pub mod xsnap_trace;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::evidence::EvidenceError;
use crate::files::{publish, regular};
use crate::record::image::Image;

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The evidence is damaged.
    #[error("{0}")]
    Evidence(#[from] EvidenceError),
    /// The system refused.
    #[error("failed to write {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something is there already.
    #[error("{} is there already: give a name that is not, or remove it", .0.display())]
    InTheWay(PathBuf),
    /// Not all that the worker did was kept.
    #[error("the worker did so much else than the record has that not all of it was kept, and a trace needs all")]
    Cut,
    /// A bundle that the span starts with is not in the folder, or not what its ID says.
    #[error("bundle {id}: {why}")]
    Bundle {
        /// Which one.
        id: String,
        /// What is wrong.
        why: String,
    },
}

impl ExportError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::AlreadyExists => Self::InTheWay(path),
            _ => Self::Io { path, source },
        }
    }
}

/// Writes a new file into a directory of ours.
fn write(path: &Path, content: &[u8]) -> Result<(), ExportError> {
    File::create_new(path).and_then(|mut file| file.write_all(content)).map_err(ExportError::io(path))
}

/// Writes a file whose name says what is in it, unless it is there. Whether it was written.
fn write_once(path: &Path, content: &[u8]) -> Result<bool, ExportError> {
    let there = regular::open(path).and_then(|file| regular::read_to_end(file, content.len() as u64));
    match there {
        Ok(there) if there == content => Ok(false),
        _ => {
            let written = publish::create(path, |file| file.write_all(content));
            written.map(|()| true).map_err(ExportError::io(path))
        }
    }
}

fn write_image(path: &Path, image: &Image) -> Result<(), ExportError> {
    publish::create(path, |mut file| image.copy_to(&mut file)).map_err(ExportError::io(path))
}

/// Whether a regular file is there that has the image in it.
fn has_image(path: &Path, image: &Image) -> bool {
    let there = regular::open(path).map(|file| Image::read(file, image.hash(), Some(image.bytes())));
    matches!(there, Ok(Ok(_)))
}
