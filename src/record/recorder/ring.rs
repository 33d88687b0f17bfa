//! The ring buffer `flight-recorder.bin`: a header of 32 bytes and an arena of records.
//!
//! | bytes | content |
//! |---|---|
//! | 0–7 | `AG-SLOG!` |
//! | 8–15 | size of the arena in bytes, big-endian as all numbers here |
//! | 16–23 | offset of the oldest record in the arena |
//! | 24–31 | offset one past the newest record |
//! | 32– | records: 8 bytes of length, then so many bytes of text: `\n` and one JSON object; a record may wrap |
//!
//! The writer (`@agoric/telemetry`, `flight-recorder.js`) locks nothing and writes a record first, the header afterwards. So the start in the
//! header is never followed, and its end is only the place where a reading begins: the whole arena is read once around, and a record is
//! whatever has a plausible length, `\n{`, no control character and a `}` at its end. A text of JSON has no control character, and each length
//! begins with a zero byte, so a record that another one was written into is never taken for whole. One that was itself not written to its
//! end begins at the header's end, and the record there is passed over. What is left (a torn header beside a torn record) is for the hash.
//!
//! This module must never believe a length before its bytes have arrived, and never hold more than one record and one piece of the arena.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

/// Bytes before the arena.
const HEADER: u64 = 32;
const MAGIC: &[u8; 8] = b"AG-SLOG!";
/// Bytes of a record's length.
const PREFIX: u64 = 8;
/// No more records past the arena's end are looked for in one file.
const SPILLS_MAX: u32 = 64;
/// Longer records are passed over. The kernel's largest entries hold a bundle of some megabytes.
pub(crate) const RECORD_BYTES_MAX: u64 = 64 << 20;
/// A larger arena is refused. A node's has 100 MiB.
pub(crate) const ARENA_BYTES_MAX: u64 = 1 << 30;
/// Bytes that one read takes.
const PIECE: usize = if cfg!(test) { 64 } else { 1 << 18 };

/// Bytes that can be read at any offset.
pub(crate) trait ReadAt {
    /// Reads up to `into.len()` bytes; 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The number of bytes now.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// Fills `into` from `offset` on, as far as there are bytes; the number of them.
pub(super) fn read_full(source: &impl ReadAt, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match source.read_at(&mut into[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Why a file is not read as a ring.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Fewer bytes than a header has.
    #[error("it has {0} bytes, fewer than the header of a flight recorder")]
    Short(usize),
    /// Another magic number.
    #[error("it does not begin with AG-SLOG!")]
    NotARecorder,
    /// More than a node's arena.
    #[error("its header names an arena of {0} bytes, more than {ARENA_BYTES_MAX}")]
    TooLarge(u64),
}

/// A text in the arena, and a digest by which a second reading tells that it is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    at: u64,
    bytes: u32,
    /// Whether it goes on past the arena's end instead of at its start: the writer does not wrap a record that it writes when start and
    /// end are equal.
    is_spilled: bool,
    digest: u64,
}

impl Place {
    /// A line of a file.
    pub(super) fn of_line(at: u64, line: &[u8]) -> Self {
        Self { at, bytes: u32::try_from(line.len()).unwrap_or(u32::MAX), is_spilled: false, digest: digest(line) }
    }

    /// The length of the text in bytes.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.bytes)
    }

    /// The line, if it is still the one that was read there first.
    pub(super) fn line(&self, file: &impl ReadAt) -> io::Result<Option<Vec<u8>>> {
        let mut line = vec![0; self.bytes as usize];
        let is_read = read_full(file, &mut line, self.at)? == line.len();
        Ok((is_read && digest(&line) == self.digest).then_some(line))
    }
}

/// An opened ring.
#[derive(Debug)]
pub(crate) struct Ring<S> {
    source: S,
    arena: u64,
    end: u64,
    /// The records past the arena's end that may still be looked for: each costs up to the size of a record, and a node writes one at a time.
    spills_left: AtomicU32,
}

/// 64 bits of the sha256 of a text.
fn digest(text: &[u8]) -> u64 {
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl<S: ReadAt> Ring<S> {
    /// Reads the header.
    ///
    /// # Errors
    /// When the file can't be read, or is no flight recorder.
    pub(crate) fn open(source: S) -> Result<Self, RingError> {
        let mut header = [0; 32];
        let read = read_full(&source, &mut header, 0)?;
        if read < header.len() {
            return Err(RingError::Short(read));
        }
        if &header[..8] != MAGIC {
            return Err(RingError::NotARecorder);
        }
        let (arena, end) = (number(&header[8..]), number(&header[24..]));
        if arena > ARENA_BYTES_MAX {
            return Err(RingError::TooLarge(arena));
        }
        Ok(Self { source, arena, end: if end < arena { end } else { 0 }, spills_left: AtomicU32::new(SPILLS_MAX) })
    }

    /// Gives each whole record's text, without its `\n`, once around from the header's end: the oldest first, unless the header is not
    /// the last one.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn for_each(&self, mut take: impl FnMut(&[u8], Place) -> ControlFlow<()>) -> io::Result<()> {
        let held = self.source.size()?.saturating_sub(HEADER);
        let mut window = Window { ring: self, held, start: 0, bytes: Vec::new() };
        // A record that begins before the place where the reading began goes on beyond it.
        let mut first = None;
        let mut at = 0;
        while at < self.arena {
            match window.record(at, self.arena + first.unwrap_or(at))? {
                Found::Record { bytes } => {
                    first = first.or(Some(at));
                    let text = window.text(at, bytes);
                    // The writer may not have finished it; or it has two readings, one of them of stale bytes.
                    if at > 0
                        && self.spilled(at, bytes)?.is_none()
                        && take(text, self.place(at, bytes, text, false)).is_break()
                    {
                        return Ok(());
                    }
                    at += PREFIX + bytes;
                }
                Found::Broken { bytes, next } => match self.spilled(at, bytes)? {
                    Some(text) => {
                        if at > 0 && take(&text[1..], self.place(at, bytes, &text[1..], true)).is_break() {
                            return Ok(());
                        }
                        at += PREFIX + bytes;
                    }
                    None => at = next.max(at + 1),
                },
                Found::Nothing => at = window.next_mark(at + 1)?,
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn spills_left(&self) -> u32 {
        self.spills_left.load(Ordering::Relaxed)
    }

    fn place(&self, at: u64, bytes: u64, text: &[u8], is_spilled: bool) -> Place {
        let at = (self.end + at) % self.arena;
        Place { at, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), is_spilled, digest: digest(text) }
    }

    /// The text at a place, if it is still the one that was read there first, and not one that is being written: while the writer is at a
    /// record, the header's end is where that begins. So both readings of a half-written record are the same only if the header, read
    /// between them, has that end.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn text(&self, place: &Place) -> io::Result<Option<Vec<u8>>> {
        let mut end = [0; 8];
        if read_full(&self.source, &mut end, HEADER - 8)? < end.len() || number(&end) == place.at {
            return Ok(None);
        }
        let bytes = u64::from(place.bytes);
        let mut record = vec![0; place.bytes as usize + 8];
        let count = if place.is_spilled {
            read_full(&self.source, &mut record, HEADER + place.at)?
        } else {
            self.read_wrapped(&mut record, place.at)?
        };
        // Its length may have been another record's, too.
        if count < record.len() || number(&record) != bytes {
            return Ok(None);
        }
        record.drain(..9);
        // It may have been half written at the first reading, and have two readings by now.
        if !place.is_spilled && self.spilled_at(place.at, bytes)?.is_some() {
            return Ok(None);
        }
        Ok((digest(&record) == place.digest).then_some(record))
    }

    /// Reads from an offset of the arena on, at the arena's end on from its start; at most once around.
    fn read_wrapped(&self, into: &mut [u8], from: u64) -> io::Result<usize> {
        let from = from % self.arena;
        let before_end = usize::try_from(self.arena - from).unwrap_or(usize::MAX).min(into.len());
        let (first, second) = into.split_at_mut(before_end);
        let count = read_full(&self.source, first, HEADER + from)?;
        if count < first.len() || second.is_empty() {
            return Ok(count);
        }
        Ok(count + read_full(&self.source, second, HEADER)?)
    }

    /// A record that the writer let go on past the arena's end.
    fn spilled(&self, at: u64, bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let from = (self.end + at) % self.arena;
        if from + PREFIX < self.arena && from + PREFIX + bytes > self.arena {
            let left = self.spills_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_err() {
                return Ok(None);
            }
        }
        self.spilled_at((self.end + at) % self.arena, bytes)
    }

    fn spilled_at(&self, from: u64, bytes: u64) -> io::Result<Option<Vec<u8>>> {
        if from + PREFIX >= self.arena || from + PREFIX + bytes <= self.arena {
            return Ok(None);
        }
        // Nothing is made ready for bytes that a shorter file does not have.
        let last = HEADER + from + PREFIX + bytes - 1;
        if read_full(&self.source, &mut [0], last)? == 0 {
            return Ok(None);
        }
        let mut text = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let count = read_full(&self.source, &mut text, HEADER + from + PREFIX)?;
        Ok((count == text.len() && text.starts_with(b"\n{") && is_whole(&text[1..])).then_some(text))
    }
}

fn is_whole(text: &[u8]) -> bool {
    text.ends_with(b"}") && text.iter().all(|byte| *byte >= b' ')
}

enum Found {
    Record {
        bytes: u64,
    },
    /// A plausible length, and a text that another record was written into; where to look on.
    Broken {
        bytes: u64,
        next: u64,
    },
    Nothing,
}

/// A part of the arena in memory. Offsets count from the ring's end, once around and on.
struct Window<'a, S> {
    ring: &'a Ring<S>,
    /// The bytes of the arena that the file had when the reading began.
    held: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<S: ReadAt> Window<'_, S> {
    /// Forgets what lies before an offset and reads on until `to`, if the file has so much.
    fn reach(&mut self, from: u64, to: u64) -> io::Result<bool> {
        let known_to = self.start + self.bytes.len() as u64;
        if to <= known_to {
            return Ok(true);
        }
        let drop = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..drop);
        self.start += drop as u64;
        if self.bytes.is_empty() {
            self.start = from;
        }
        while self.start + (self.bytes.len() as u64) < to {
            let at = self.bytes.len();
            self.bytes.resize(at + PIECE, 0);
            let piece = usize::try_from(self.ring.arena).unwrap_or(PIECE).min(PIECE);
            let offset = self.ring.end + self.start + at as u64;
            let count = self.ring.read_wrapped(&mut self.bytes[at..at + piece], offset)?;
            self.bytes.truncate(at + count);
            if count == 0 {
                // A file shorter than its arena: the missing bytes are no record.
                self.bytes.resize(at + self.missing(offset).min(PIECE), 0);
            }
        }
        Ok(true)
    }

    /// The number of bytes from an offset to the arena's end, where the file has none of them.
    fn missing(&self, offset: u64) -> usize {
        usize::try_from(self.ring.arena - offset % self.ring.arena).unwrap_or(PIECE).max(1)
    }

    fn at(&self, offset: u64) -> &[u8] {
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        self.bytes.get(from..).unwrap_or_default()
    }

    fn text(&self, at: u64, bytes: u64) -> &[u8] {
        let text = self.at(at + PREFIX + 1);
        &text[..usize::try_from(bytes - 1).unwrap_or(0).min(text.len())]
    }

    fn record(&mut self, at: u64, limit: u64) -> io::Result<Found> {
        if at + PREFIX + 3 > limit {
            return Ok(Found::Nothing);
        }
        self.reach(at, at + PREFIX + 2)?;
        let head = self.at(at);
        let bytes = number(head);
        let is_plausible = (3..=RECORD_BYTES_MAX).contains(&bytes) && at + PREFIX + bytes <= limit;
        if !is_plausible || head.get(8..10) != Some(b"\n{") {
            return Ok(Found::Nothing);
        }
        let (mut clean, end) = (at + PREFIX + 1, at + PREFIX + bytes);
        while clean < end {
            let to = end.min(clean + PIECE as u64);
            self.reach(at, to)?;
            let piece = self.at(clean);
            let piece = &piece[..piece.len().min(usize::try_from(to - clean).unwrap_or(usize::MAX))];
            if let Some(bad) = piece.iter().position(|byte| *byte < b' ') {
                // Where another record begins, its length lies up to 8 bytes before.
                return Ok(Found::Broken { bytes, next: (clean + bad as u64).saturating_sub(PREFIX) });
            }
            clean = to;
        }
        match self.at(end - 1).first() {
            Some(b'}') => Ok(Found::Record { bytes }),
            _ => Ok(Found::Broken { bytes, next: end.saturating_sub(PREFIX) }),
        }
    }

    /// The next offset at which `\n{` follows after a length, or the arena's end.
    fn next_mark(&mut self, from: u64) -> io::Result<u64> {
        let mut at = from;
        let held = self.held;
        while at < self.ring.arena {
            let offset = (self.ring.end + at) % self.ring.arena;
            if offset >= held {
                // The rest of the arena is not in the file.
                at += self.ring.arena - offset;
                continue;
            }
            self.reach(at, at + PREFIX + 2)?;
            let known = self.at(at + PREFIX);
            let mark = known.iter().position(|byte| *byte == b'\n');
            match mark {
                Some(mark) => return Ok(at + mark as u64),
                None => at += known.len().max(1) as u64,
            }
        }
        Ok(at)
    }
}
