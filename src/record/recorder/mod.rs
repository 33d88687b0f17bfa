//! The node's flight recorder (and its slog files) as a source of items that the node has deleted.
//!
//! By default a node writes each delivery, syscall, response and result to `flight-recorder.bin` beside its database, a ring that keeps the
//! last minutes to hours; with `SLOGFILE` it writes them to a file, one entry a line. An item is put together from them byte for byte.
//!
//! | module | owns |
//! |---|---|
//! | `ring` | the file's layout; each whole record once, whatever a writer or a crash left |
//! | `entries` | from entries to items: the index of attempts |
//! | `initialize` | the item `initialize-worker`, which no entry is about |
//! | `join` | the choice among candidates by the span's hash |
//!
//! The index holds places, so memory does not grow with the texts: at most 2²⁰ entries of some 100 bytes each, one record of at most 64 MiB, and
//! the items of the span that is asked for. A text is read a second time when its span is asked for: one that has changed since (the node
//! writes on) is dropped. This module must never give an item that the span's hash does not prove.

pub(crate) mod entries;
mod initialize;
mod join;
pub(crate) mod ring;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::source::Miss;
use crate::files::regular;
use crate::transcript::{Hash256, Items, Position, SpanId, VatId};
use crate::verdict::Failure;
use entries::{At, Index, Reading};
pub(super) use initialize::initialize_worker;
pub(super) use join::Hints;
use ring::{Place, RECORD_BYTES_MAX, Ring, RingError};

/// The file's name beside the database.
const FILE_NAME: &str = "flight-recorder.bin";
/// Bytes of entries that are kept of a gzip file; they are copied to a temporary file.
const SPOOL_BYTES_MAX: u64 = 8 << 30;
/// No more is read of a slog file, after unpacking.
const SLOG_BYTES_MAX: u64 = 64 << 30;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a flight recorder or slog file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {}: {source}", path.display())]
pub struct RecorderError {
    path: PathBuf,
    source: RingError,
}

/// The files to read.
#[derive(Debug, Default, Clone)]
pub struct RecorderFiles {
    /// The flight recorder that the operator names.
    pub named: Option<PathBuf>,
    /// Whether `flight-recorder.bin` beside the database is left alone.
    pub is_off: bool,
    /// Slog files, plain or gzip, oldest first.
    pub slogs: Vec<PathBuf>,
}

#[derive(Debug)]
enum Texts {
    Ring(Ring<File>),
    /// Each entry is a line, or a copy of one.
    Lines(File),
}

/// What the node's flight recorder and slog files have of the spans that lack items.
#[derive(Debug, Default)]
pub struct Recorder {
    files: Vec<Texts>,
    index: Index,
    /// The entries that the index had no room for.
    passed_over: u64,
}

impl Recorder {
    /// Reads the files once and notes the deliveries of the positions that are wanted.
    ///
    /// # Errors
    /// When a file that the operator names can't be read. The one beside the database may be missing, and is passed over with a warning if
    /// it is damaged.
    pub fn open(
        db: &Path,
        files: &RecorderFiles,
        is_wanted: impl Fn(&VatId, Position) -> bool,
    ) -> Result<Self, RecorderError> {
        let mut recorder = Self::default();
        for path in &files.slogs {
            recorder.add_slog(path, &is_wanted).map_err(|source| failed(path, source.into()))?;
        }
        if let Some(path) = &files.named {
            let file = regular::open_named(path).map_err(|source| failed(path, source.into()))?;
            recorder.add_ring(file, &is_wanted).map_err(|source| failed(path, source))?;
        } else if !files.is_off {
            let path = db.with_file_name(FILE_NAME);
            match regular::open(&path).map_err(RingError::from) {
                Err(RingError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                opened => {
                    if let Err(source) = opened.and_then(|file| recorder.add_ring(file, &is_wanted)) {
                        tracing::warn!("{}; its spans are judged without it", failed(&path, source));
                    }
                }
            }
        }
        if recorder.passed_over > 0 {
            tracing::warn!(
                "the flight recorder and the slog files have {} more entries than are indexed; verify fewer vats at once (--vat)",
                recorder.passed_over
            );
        }
        Ok(recorder)
    }

    fn add_ring(&mut self, file: File, is_wanted: impl Fn(&VatId, Position) -> bool) -> Result<(), RingError> {
        let ring = Ring::open(file)?;
        let mut reading = Reading::new(self.files.len());
        ring.for_each(|text, place| {
            self.index.note(&mut reading, text, place, &is_wanted);
            ControlFlow::Continue(())
        })?;
        reading.rotate();
        self.finish(reading, Texts::Ring(ring));
        Ok(())
    }

    fn add_slog(&mut self, path: &Path, is_wanted: impl Fn(&VatId, Position) -> bool) -> io::Result<()> {
        let mut file = regular::open_named(path)?;
        let mut magic = [0; 2];
        let is_gzip = ring::read_full(&file, &mut magic, 0)? == 2 && magic == GZIP_MAGIC;
        let mut reading = Reading::new(self.files.len());
        let texts = if is_gzip {
            let decoder = flate2::read::MultiGzDecoder::new(BufReader::new(file)).take(SLOG_BYTES_MAX);
            let mut spool = tempfile::tempfile()?;
            let mut at = 0;
            for_each_line(BufReader::new(decoder), |line, _| {
                let before = reading.len();
                self.index.note(&mut reading, line, Place::of_line(at, line), &is_wanted);
                if reading.len() > before {
                    if at + line.len() as u64 > SPOOL_BYTES_MAX {
                        return Err(io::Error::other(format!("it has more than {SPOOL_BYTES_MAX} bytes of entries")));
                    }
                    spool.write_all(line)?;
                    at += line.len() as u64;
                }
                Ok(())
            })?;
            spool
        } else {
            file.seek(SeekFrom::Start(0))?;
            // A node may go on writing: the lines that were there at the start.
            let size = file.metadata()?.len().min(SLOG_BYTES_MAX);
            for_each_line(BufReader::new((&file).take(size)), |line, at| {
                self.index.note(&mut reading, line, Place::of_line(at, line), &is_wanted);
                Ok(())
            })?;
            file
        };
        self.finish(reading, Texts::Lines(texts));
        Ok(())
    }

    fn finish(&mut self, reading: Reading, texts: Texts) {
        self.passed_over += reading.passed_over;
        self.files.push(texts);
        self.index.add(reading);
    }

    /// How many deliveries are known.
    #[must_use]
    pub fn deliveries(&self) -> usize {
        self.index.len()
    }

    /// Whether a delivery to a vat is known.
    pub(super) fn knows(&self, vat: &VatId) -> bool {
        self.index.knows(vat)
    }

    /// Whether it may have the items of a span of which other sources have `present`. No item is read. A span's first and last item can be
    /// ones that no entry is about.
    #[must_use]
    pub fn may_have(&self, span: &SpanId, present: u64) -> bool {
        let known = self.index.count(span);
        known > 0 && known + present + 2 >= span.end.saturating_sub(span.start)
    }

    /// The items of a span, proved; with what else is known of them.
    pub(super) fn items(&self, span: &SpanId, recorded: Hash256, hints: Hints) -> Result<Items, Miss> {
        let read = |at: &At| self.text(at);
        join::items(&self.index, span, recorded, hints, read)
            .map_err(|error| Miss::Trouble(Failure::System(format!("failed to read the flight recorder: {error}"))))?
            .ok_or(Miss::Absent)
    }

    fn text(&self, at: &At) -> io::Result<Option<Vec<u8>>> {
        match self.files.get(at.file) {
            Some(Texts::Ring(ring)) => ring.text(&at.place),
            Some(Texts::Lines(file)) => at.place.line(file),
            None => Ok(None),
        }
    }
}

fn failed(path: &Path, source: RingError) -> RecorderError {
    RecorderError { path: path.to_owned(), source }
}

/// Gives each line without its end, and its offset. Lines longer than a record may be are passed over, also one that does not end.
fn for_each_line(mut from: impl BufRead, mut take: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let (mut line, mut at, mut is_long) = (Vec::new(), 0, false);
    loop {
        let count = (&mut from).take(RECORD_BYTES_MAX).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(());
        }
        let is_end = line.last() == Some(&b'\n');
        if is_end && !is_long {
            take(line.strip_suffix(b"\n").unwrap_or(&line), at)?;
        }
        is_long = !is_end;
        at += count as u64;
        line.clear();
    }
}
