//! The node's two archive directories (`vat-transcript-archive-dir`, `vat-snapshot-archive-dir`).
//!
//! Owns their file names and the reading of their files. A file is only a candidate: a crank that was rolled back leaves
//! one behind too. It is believed when its content has the hash of a committed row, which the caller knows.
//!
//! Source: `swing-store/src/archiver.js`; names from `transcriptStore.js` and `snapStore.js`.

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::image::{Image, ImageError};
use super::source::{Miss, image_miss};
use crate::files::bounded;
use crate::files::regular::{self, Special};
use crate::transcript::{Hash256, Items, ItemsError, Position, SpanId, VatId};
use crate::verdict::{Failure, Unverifiable};

/// The two archive directories; each is optional.
#[derive(Debug, Default)]
pub struct Archives {
    transcripts: Option<Directory>,
    snapshots: Option<Directory>,
}

/// A directory.
#[derive(Debug)]
struct Directory {
    kind: ArchiveKind,
    path: PathBuf,
    /// The names in it when it was listed; `None` where each is looked for when it is asked for.
    names: Option<HashSet<String>>,
}

/// One of the two archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// Of items.
    Transcripts,
    /// Of images.
    Snapshots,
}

impl ArchiveKind {
    /// The node's setting.
    fn setting(self) -> &'static str {
        match self {
            Self::Transcripts => "vat-transcript-archive-dir",
            Self::Snapshots => "vat-snapshot-archive-dir",
        }
    }

    /// The beginning of the names of its files.
    fn prefix(self) -> &'static str {
        match self {
            Self::Transcripts => "transcript.",
            Self::Snapshots => "snapshot.",
        }
    }
}

/// Why an archive can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The directory can't be listed.
    #[error(
        "failed to list the archive directory {}: {source}; it must be the directory that {} of app.toml names, readable for this user",
        path.display(),
        kind.setting()
    )]
    Unlisted {
        /// The archive that the directory should be.
        kind: ArchiveKind,
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The directory has files, and none that such an archive has.
    #[error(
        "the archive directory {} has files, but none that begins with {}: is it the directory that {} of app.toml names?",
        path.display(),
        kind.prefix(),
        kind.setting()
    )]
    Another {
        /// The archive that the directory should be.
        kind: ArchiveKind,
        /// The directory.
        path: PathBuf,
    },
}

/// So many names of a directory are looked at, to tell whether it is the archive. With more it is believed to be.
const NAMES_LOOKED_AT: usize = 100_000;

impl Directory {
    fn list(kind: ArchiveKind, path: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Unlisted { kind, path: path.to_owned(), source };
        let mut names = HashSet::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.insert(name);
            }
        }
        Ok(Self { kind, path: path.to_owned(), names: Some(names) })
    }

    fn has(&self, name: &str) -> bool {
        match &self.names {
            Some(names) => names.contains(name),
            None => self.path.join(name).exists(),
        }
    }
}

impl Archives {
    /// Lists the directories that are given.
    ///
    /// # Errors
    /// When one can't be listed.
    pub fn open(transcripts: Option<&Path>, snapshots: Option<&Path>) -> Result<Self, ArchiveError> {
        Ok(Self {
            transcripts: transcripts.map(|path| Directory::list(ArchiveKind::Transcripts, path)).transpose()?,
            snapshots: snapshots.map(|path| Directory::list(ArchiveKind::Snapshots, path)).transpose()?,
        })
    }

    /// Directories that the node goes on writing to: what is in them is looked up as it is asked for.
    #[must_use]
    pub fn growing(transcripts: Option<&Path>, snapshots: Option<&Path>) -> Self {
        let directory = |kind, path: &Path| Directory { kind, path: path.to_owned(), names: None };
        Self {
            transcripts: transcripts.map(|path| directory(ArchiveKind::Transcripts, path)),
            snapshots: snapshots.map(|path| directory(ArchiveKind::Snapshots, path)),
        }
    }

    /// Why a directory can't be used, for each that can't be listed now.
    #[must_use]
    pub fn faults(&self) -> Vec<ArchiveError> {
        // Its first entry is enough to know: there is a file for every span that ever was.
        let fault = |directory: &Directory| {
            let first = fs::read_dir(&directory.path).and_then(|mut entries| entries.next().transpose());
            let of = |source| ArchiveError::Unlisted { kind: directory.kind, path: directory.path.clone(), source };
            first.err().map(of)
        };
        self.directories().filter_map(fault).collect()
    }

    /// What a person should look at: the faults, and each directory whose files are not those of such an archive. An empty one may be
    /// an archive of a node that has closed no span yet.
    #[must_use]
    pub fn doubts(&self) -> Vec<ArchiveError> {
        let doubt = |directory: &Directory| {
            let (mut looked_at, prefix) = (0, directory.kind.prefix());
            for entry in fs::read_dir(&directory.path).ok()?.take(NAMES_LOOKED_AT) {
                if entry.ok()?.file_name().to_string_lossy().starts_with(prefix) {
                    return None;
                }
                looked_at += 1;
            }
            (1..NAMES_LOOKED_AT)
                .contains(&looked_at)
                .then(|| ArchiveError::Another { kind: directory.kind, path: directory.path.clone() })
        };
        let mut doubts = self.faults();
        doubts.extend(self.directories().filter_map(doubt));
        doubts
    }

    fn directories(&self) -> impl Iterator<Item = &Directory> {
        [&self.transcripts, &self.snapshots].into_iter().flatten()
    }

    /// Whether a directory for transcripts is known, and one for snapshots.
    #[must_use]
    pub fn are_given(&self) -> (bool, bool) {
        (self.transcripts.is_some(), self.snapshots.is_some())
    }

    /// Whether there is a file for a span.
    #[must_use]
    pub fn has_items(&self, span: &SpanId) -> bool {
        self.transcripts.as_ref().is_some_and(|directory| directory.has(&transcript_name(span)))
    }

    /// Whether there is a file for the snapshot that a vat saved at a position.
    #[must_use]
    pub fn has_image(&self, vat: &VatId, position: Position) -> bool {
        self.snapshots.as_ref().is_some_and(|directory| directory.has(&snapshot_name(vat, position)))
    }

    /// The items in a span's file, proved.
    pub(super) fn items_of(&self, span: &SpanId, recorded: Hash256) -> Result<Items, Miss> {
        let Some(directory) = self.transcripts.as_ref() else { return Err(Miss::Absent) };
        let path = directory.path.join(transcript_name(span));
        let damaged = |error: String| {
            let file = path.display().to_string();
            Miss::Damaged(Unverifiable::TranscriptArchive { file, error })
        };
        let file = regular::open(&path).map_err(|error| match Special::in_error(&error) {
            Some(special) => damaged(special.to_string()),
            None => cannot_open(&path, &error),
        })?;
        let items = read_items(file, span).map_err(|error| damaged(error.to_string()))?;
        let found = items.hash();
        if found != recorded {
            return Err(damaged(format!("the hash of its items is {found}, recorded is {recorded}")));
        }
        if items.len() as u64 != span.end.saturating_sub(span.start) {
            return Err(damaged(format!("it holds {} items", items.len())));
        }
        Ok(items)
    }

    /// The image in a snapshot's file, proved.
    pub(super) fn image_of(
        &self,
        vat: &VatId,
        position: Position,
        recorded: Hash256,
        bytes: Option<u64>,
    ) -> Result<Image, Miss> {
        let Some(directory) = self.snapshots.as_ref() else { return Err(Miss::Absent) };
        let path = directory.path.join(snapshot_name(vat, position));
        let file = match regular::open(&path) {
            Ok(file) => file,
            Err(error) => {
                return Err(match Special::in_error(&error) {
                    Some(special) => image_miss("in the archive", ImageError::Special { path, special }),
                    None => cannot_open(&path, &error),
                });
            }
        };
        Image::from_gzip(BufReader::new(file), recorded, bytes).map_err(|error| image_miss("in the archive", error))
    }
}

fn cannot_open(path: &Path, error: &io::Error) -> Miss {
    match error.kind() {
        io::ErrorKind::NotFound => Miss::Absent,
        _ => Miss::Trouble(Failure::System(format!("failed to open the archive file {}: {error}", path.display()))),
    }
}

fn transcript_name(span: &SpanId) -> String {
    format!("transcript.{}.{}.{}.gz", span.vat, span.start, span.end)
}

fn snapshot_name(vat: &VatId, position: Position) -> String {
    format!("snapshot.{vat}.{position}.gz")
}

/// One item a line. Never more of them, or more text, than a span may have.
pub(crate) fn read_items(file: impl Read, span: &SpanId) -> io::Result<Items> {
    let decoder = flate2::read::GzDecoder::new(BufReader::new(file));
    let mut text = Vec::new();
    bounded::read_up_to(Items::BYTES_MAX + 1, decoder, &mut text)?;
    if text.len() as u64 > Items::BYTES_MAX {
        return Err(io::Error::other(ItemsError::TooLarge));
    }
    let items = Items::from_lines(text).map_err(io::Error::other)?;
    if items.len() as u64 > span.end.saturating_sub(span.start) {
        return Err(io::Error::other("it holds more items than the span has"));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    fn span() -> SpanId {
        SpanId { vat: VatId::new("v7"), start: 3, end: 5 }
    }

    fn archive_with(text: &[u8]) -> (tempfile::TempDir, Archives) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("in memory");
        fs::write(dir.path().join("transcript.v7.3.5.gz"), encoder.finish().expect("in memory")).expect("write");
        let archives = Archives::open(Some(dir.path()), None).expect("listed");
        (dir, archives)
    }

    /// The reason why a file is not believed.
    fn refusal(archives: &Archives) -> String {
        match archives.items_of(&span(), Items::default().hash()) {
            Err(Miss::Damaged(reason)) => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn items_are_lines() {
        let (_dir, archives) = archive_with(b"one\ntwo\n");
        assert!(archives.has_items(&span()) && !archives.has_image(&VatId::new("v7"), 4));
        let mut recorded = Items::default();
        ["one", "two"].iter().for_each(|item| recorded.push(item.as_bytes()));
        let items = archives.items_of(&span(), recorded.hash()).expect("items");
        assert_eq!(items.iter().collect::<Vec<_>>(), [b"one", b"two"]);
    }

    #[test]
    fn files_that_are_not_what_the_node_writes() {
        for (text, says) in
            [(&b"one\ntwo\nthree\n"[..], "more items than the span has"), (b"one\ntwo", "last line is cut")]
        {
            let (_dir, archives) = archive_with(text);
            let error = refusal(&archives);
            assert!(error.contains(says) && error.contains("transcript.v7.3.5.gz"), "{error}");
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let zeros = vec![0; 64 << 20];
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("transcript.v7.3.5.gz");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&path).expect("create"), flate2::Compression::fast());
        for _ in 0..9 {
            encoder.write_all(&zeros).expect("write");
        }
        encoder.finish().expect("write");
        let archives = Archives::open(Some(dir.path()), None).expect("listed");
        let error = refusal(&archives);
        assert!(error.contains("more than 536870912 bytes"), "{error}");
    }

    #[test]
    fn a_directory_of_other_files_is_doubted() {
        let (dir, _) = archive_with(b"one\n");
        let doubts = |transcripts, snapshots| {
            let doubts = Archives::growing(transcripts, snapshots).doubts();
            doubts.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(doubts(Some(dir.path()), None), "");
        assert!(doubts(None, Some(dir.path())).contains("none that begins with snapshot."));
        let empty = tempfile::tempdir().expect("a directory");
        assert_eq!(doubts(Some(empty.path()), Some(empty.path())), "");
        assert!(doubts(Some(Path::new("/no/such")), None).contains("vat-transcript-archive-dir"));
    }

    #[test]
    fn a_directory_that_is_not_there() {
        let error = Archives::open(None, Some(Path::new("/no/such"))).expect_err("missing");
        assert!(error.to_string().contains("/no/such"), "{error}");
    }
}
