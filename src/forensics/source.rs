//! Sources of heap images: a file, plain or compressed, a row of a kernel's database, or a folder of evidence.
//!
//! Owns what may be unpacked: the head of an image says how large it is, and no more than that is read. An image of a
//! database or a folder is proved by its recorded hash. It must never look further into an image than its head.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::evidence::{Case, EvidenceError};
use crate::files::bounded;
use crate::files::regular;
use crate::kernel_db::{DbError, KernelDb};
use crate::record::image::IMAGE_BYTES_MAX;
use crate::transcript::{Hash256, Position, VatId, sha256};

/// Why an image could not be read, with its name.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file.
    #[error(
        "no image at {0}: give a file (plain, gzip or zstd), DB:VAT@POSITION for one of a kernel's database, or \
         FOLDER:recorded, FOLDER:replayed or FOLDER:base for one of a folder of evidence"
    )]
    NotFound(PathBuf),
    /// The file can't be read.
    #[error("failed to read the image {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The image is compressed, and damaged.
    #[error("failed to unpack the image {name}: {source}")]
    Unpack {
        /// As it was asked for.
        name: String,
        /// The decoder's error.
        source: io::Error,
    },
    /// The content can't be an image.
    #[error("failed to read the image {name}: {what}")]
    NoImage {
        /// As it was asked for.
        name: String,
        /// The content that was found.
        what: String,
    },
    /// The database can't be read.
    #[error("{0}")]
    Database(#[from] DbError),
    /// The folder of evidence can't be read.
    #[error("{0}")]
    Evidence(#[from] EvidenceError),
    /// The folder of evidence has no such image.
    #[error("no {side} image in {}: {why}", folder.display())]
    NotInFolder {
        /// The folder.
        folder: PathBuf,
        /// The image that was asked for.
        side: Side,
        /// Why it is not there.
        why: &'static str,
    },
    /// The database has no such image.
    #[error("no image of {vat} at position {position} in {}: {why}", db.display())]
    NotInDatabase {
        /// The database.
        db: PathBuf,
        /// The vat, by ID.
        vat: String,
        /// The position of its `save-snapshot`.
        position: Position,
        /// The images that are there, and the remedy.
        why: String,
    },
}

/// An image and where it is from.
#[derive(Debug)]
pub struct Source {
    /// As it was asked for.
    pub name: String,
    /// Its bytes, not yet looked into.
    pub bytes: Vec<u8>,
    /// Their sha256.
    pub sha256: Hash256,
}

/// An image of a folder of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The image that the kernel recorded at the end of the span.
    Recorded,
    /// The image that the replay ended with.
    Replayed,
    /// The image that the span starts from.
    Base,
}

impl Side {
    const ALL: [Self; 3] = [Self::Recorded, Self::Replayed, Self::Base];

    /// Its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Replayed => "replayed",
            Self::Base => "base",
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(self.label())
    }
}

impl Source {
    /// Reads an image.
    ///
    /// # Errors
    /// When no image is there, or it can't be read.
    pub fn open(name: &str) -> Result<Self, SourceError> {
        let path = Path::new(name);
        // A file may be called anything.
        let is_file = path.exists();
        let bytes = match (in_database(name), in_folder(name)) {
            (Some((db, vat, position)), _) if !is_file => from_database(name, db, vat, position)?,
            (_, Some((folder, side))) if !is_file => from_folder(Path::new(folder), side)?,
            _ => from_file(name, path)?,
        };
        let sha256 = sha256(&bytes);
        Ok(Self { name: name.to_owned(), bytes, sha256 })
    }
}

/// The side of a folder that a name stands for, if it stands for one.
#[must_use]
pub fn side_of(name: &str) -> Option<Side> {
    in_folder(name).filter(|_| !Path::new(name).exists()).map(|(_, side)| side)
}

/// Takes `DB:VAT@POSITION` apart.
fn in_database(name: &str) -> Option<(&str, &str, Position)> {
    let (rest, position) = name.rsplit_once('@')?;
    let (db, vat) = rest.rsplit_once(':')?;
    Some((db, vat, position.parse().ok()?))
}

/// Takes `FOLDER:recorded` apart.
fn in_folder(name: &str) -> Option<(&str, Side)> {
    let (folder, side) = name.rsplit_once(':')?;
    Some((folder, Side::ALL.into_iter().find(|known| known.label() == side)?))
}

fn from_folder(folder: &Path, side: Side) -> Result<Vec<u8>, SourceError> {
    let case = Case::open(folder)?;
    let image = match side {
        Side::Recorded => case.recorded_end()?,
        Side::Replayed => case.replayed_end()?,
        Side::Base => case.base()?,
    };
    let span = &case.manifest.span;
    let mut ends = case.manifest.outcomes.iter().map(|outcome| outcome.image.map(|image| image.sha256));
    let why = match side {
        Side::Recorded | Side::Replayed if span.saves.is_none() => "the span does not end with a snapshot",
        Side::Recorded if ends.clone().all(|end| end.is_none()) => {
            "no replay came to the end of the span, so there was no heap to compare with"
        }
        Side::Recorded if ends.all(|end| end.is_none() || end == span.saves) => {
            "the replay ended with the recorded heap, and a heap is kept only where two differ"
        }
        Side::Recorded => "the node had deleted it when the divergence was found",
        Side::Replayed if ends.next().flatten().is_some_and(|end| Some(end) == span.saves) => {
            "the replay ended with the recorded heap, and a heap is kept only where two differ"
        }
        Side::Replayed => "the replay did not come to the end of the span",
        Side::Base if case.manifest.start.image.is_none() => "the span starts without one",
        Side::Base => "it was removed",
    };
    let image = image.ok_or_else(|| SourceError::NotInFolder { folder: folder.to_owned(), side, why })?;
    let mut bytes = Vec::new();
    image.copy_to(&mut bytes).map_err(|source| SourceError::Io { path: folder.to_owned(), source })?;
    Ok(bytes)
}

fn from_file(name: &str, path: &Path) -> Result<Vec<u8>, SourceError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SourceError::NotFound(path.to_owned()),
        _ => SourceError::Io { path: path.to_owned(), source },
    };
    if path.is_dir() {
        let what =
            "it is a folder; of one with evidence, name an image as FOLDER:recorded, FOLDER:replayed or FOLDER:base";
        return Err(SourceError::NoImage { name: name.to_owned(), what: what.to_owned() });
    }
    read_file(name, regular::open_named(path).map_err(io)?)
}

/// Reads an image file, whichever its form.
pub(crate) fn read_file(name: &str, mut file: impl Read) -> Result<Vec<u8>, SourceError> {
    let io = |source: io::Error| SourceError::Io { path: PathBuf::from(name), source };
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(io)?;
    let file = BufReader::new(io::Cursor::new(magic.clone()).chain(file));
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => unpacked(name, flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = bounded::zstd_of_buffer(file).map_err(|error| SourceError::Unpack {
                name: name.to_owned(),
                source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
            })?;
            unpacked(name, decoder)
        }
        _ => read_image(file).map_err(|fault| fault.of(io, name)),
    }
}

fn unpacked(name: &str, from: impl Read) -> Result<Vec<u8>, SourceError> {
    read_image(from).map_err(|fault| fault.of(|source| SourceError::Unpack { name: name.to_owned(), source }, name))
}

enum Fault {
    Io(io::Error),
    NoImage(String),
}

impl Fault {
    fn of(self, io: impl FnOnce(io::Error) -> SourceError, name: &str) -> SourceError {
        match self {
            Self::Io(source) => io(source),
            Self::NoImage(what) => SourceError::NoImage { name: name.to_owned(), what },
        }
    }
}

/// Reads as much as the head of an image says there is.
fn read_image(mut from: impl Read) -> Result<Vec<u8>, Fault> {
    let mut head = Vec::new();
    from.by_ref().take(8).read_to_end(&mut head).map_err(Fault::Io)?;
    let Some((size, b"XS_M")) = head.split_first_chunk::<4>() else {
        let what = if head.starts_with(b"SQLite f") {
            "it is an SQLite database; name one of its images as DB:VAT@POSITION"
        } else {
            "it is no XS heap snapshot: it does not begin with an atom XS_M"
        };
        return Err(Fault::NoImage(what.to_owned()));
    };
    // The writer forgets eight bytes when it adds up the whole.
    let bytes = u64::from(u32::from_be_bytes(*size)) + 8;
    if bytes > IMAGE_BYTES_MAX {
        return Err(Fault::NoImage(format!(
            "its head speaks of {bytes} bytes, and no image has more than {IMAGE_BYTES_MAX}"
        )));
    }
    let mut image = head;
    // One more, to see whether there is more.
    bounded::read_up_to(bytes - 8 + 1, from, &mut image).map_err(Fault::Io)?;
    Ok(image)
}

fn from_database(name: &str, db: &str, vat: &str, position: Position) -> Result<Vec<u8>, SourceError> {
    let db = KernelDb::locate(Path::new(db))?;
    let missing = |why: &str| SourceError::NotInDatabase {
        db: db.path().to_owned(),
        vat: vat.to_owned(),
        position,
        why: why.to_owned(),
    };
    let Some(id) = VatId::parse(vat) else {
        return Err(missing("a vat's ID is like v12; `spanwatch spans` lists them"));
    };
    let (row, compressed) =
        db.read(|reader| Ok((reader.snapshot(&id, position)?, reader.compressed_image(&id, position)?)))?;
    let Some(row) = row else {
        return Err(missing("a snapshot lies at the end of a span less one; `spanwatch spans` lists the spans"));
    };
    let Some(compressed) = compressed else {
        return Err(missing(
            "the node deleted it and kept its hash; the daemon's copies and the node's snapshot archive may have it",
        ));
    };
    let image = unpacked(name, flate2::read::GzDecoder::new(compressed.as_slice()))?;
    let found = sha256(&image);
    match row.hash {
        Some(recorded) if recorded == found => Ok(image),
        recorded => Err(SourceError::NoImage {
            name: name.to_owned(),
            what: match recorded {
                Some(recorded) => format!("its sha256 is {found}, recorded is {recorded}: the row is damaged"),
                None => "its row has no hash to prove it by".to_owned(),
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(file: &[u8]) -> String {
        read_file("image.xss", file).expect_err("no image").to_string()
    }

    #[test]
    fn a_head_is_whole_and_promises_nothing() {
        // The tag alone was once taken for a size and the tag.
        assert!(refusal(b"XS_M").contains("it does not begin with an atom XS_M"));
        assert!(refusal(b"\xff\xff\xff\xffXS_M").contains("no image has more than"));
        let cut =
            read_file("image.xss", &b"\x7f\xff\xff\xf0XS_M and a little"[..]).expect("cut, which its reader finds");
        assert_eq!(cut, b"\x7f\xff\xff\xf0XS_M and a little");
        assert!(cut.capacity() < 64 << 10, "{} bytes for a promise of 2 GiB", cut.capacity());
    }

    /// A decoder allocates the window before anything of the content arrives.
    #[test]
    fn a_window_that_a_frame_of_zstd_asks_for_has_a_limit() {
        let frame =
            |window_log: u8| [&b"\x28\xb5\x2f\xfd\x00"[..], &[(window_log - 10) << 3], b"\x03\x00\x00x"].concat();
        assert!(refusal(&frame(24)).contains("requires too much memory"), "{}", refusal(&frame(24)));
        assert!(refusal(&frame(27)).contains("requires too much memory"), "{}", refusal(&frame(27)));
        assert!(refusal(&frame(23)).contains("it does not begin with an atom XS_M"), "{}", refusal(&frame(23)));
    }
}
