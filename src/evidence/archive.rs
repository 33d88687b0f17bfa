//! Reading packed evidence that anybody may have made.
//!
//! What [`super::pack`] writes is a tar of plain files in one frame of zstd, and nothing else is taken: each entry is checked against
//! the table of names before a byte of it is kept, and bytes are counted as they arrive, whatever a header says. Extensions that could
//! say otherwise (pax, sparse files, links, devices) are refused; of the long names of GNU tar, which bundles need, only short ones are
//! taken. Files are kept without a name, so that nothing stays behind however this ends. It must never write to a path.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::rc::Rc;

use tar::EntryType;

use super::names::{DIRECTORIES, FILES_MAX, Form, NAME_BYTES_MAX, STORED_BYTES_MAX, form_of, is_id};
use crate::files::bounded;
use crate::visible::of_bytes;

const BLOCK: usize = 512;
/// How much an archive gives for each byte of its own: what is big in it is compressed already.
const RATIO_MAX: u64 = 8;
/// And this much in any case, for the small files.
const SLACK_BYTES: u64 = 128 << 20;
/// Other packers fill the last record up with zeros.
const PADDING_BYTES_MAX: usize = 1 << 20;
const CHUNK: usize = 64 * 1024;

/// What was in it.
#[derive(Debug)]
pub struct Unpacked {
    /// The folder's name.
    pub id: String,
    /// Its files, by the names under which they are stored.
    pub files: BTreeMap<String, File>,
}

/// Reads an archive to its end. An error says what is wrong with it.
///
/// # Errors
/// When it is not what [`super::pack`] writes, or too large, or the system fails.
pub fn read(archive: impl Read) -> Result<Unpacked, String> {
    let arrived = Rc::new(Cell::new(0));
    let counted = Counted { from: archive, arrived: Rc::clone(&arrived) };
    let no_frame = |error: io::Error| format!("it is no packed evidence: {error}");
    let decoder = bounded::zstd_of_buffer(BufReader::new(counted)).map_err(no_frame)?.single_frame();
    let mut reader = Reader { from: decoder, arrived, given: 0, chunk: vec![0; CHUNK] };
    let unpacked = entries(&mut reader)?;
    let rest = reader.from.finish().bytes().next();
    match rest {
        None => Ok(unpacked),
        Some(Ok(_)) => Err("something follows the packed evidence in the file".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
    }
}

struct Counted<R> {
    from: R,
    arrived: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        self.arrived.set(self.arrived.get() + read as u64);
        Ok(read)
    }
}

/// Gives what is in the frame, as long as that stands in proportion to what has arrived.
struct Reader<R> {
    from: R,
    arrived: Rc<Cell<u64>>,
    given: u64,
    chunk: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Fills the beginning of a buffer, as far as there is something; how far.
    fn fill(&mut self, to: &mut [u8]) -> Result<usize, String> {
        let mut filled = 0;
        while filled < to.len() {
            match self.from.read(&mut to[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("it is damaged: {error}")),
            }
        }
        self.given += filled as u64;
        let max = STORED_BYTES_MAX.min(SLACK_BYTES + self.arrived.get().saturating_mul(RATIO_MAX));
        if self.given > max {
            return Err(format!("it unpacks to more than {max} bytes, which no packed evidence of its size does"));
        }
        Ok(filled)
    }

    fn block(&mut self) -> Result<[u8; BLOCK], String> {
        let mut block = [0; BLOCK];
        if self.fill(&mut block)? < BLOCK {
            return Err("it is cut".to_owned());
        }
        Ok(block)
    }

    /// Takes so many bytes, and what fills their last block up.
    fn take(&mut self, bytes: u64, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), String> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let mut left = bytes;
        let result = loop {
            if left == 0 {
                break Ok(());
            }
            let wanted = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            match self.fill(&mut chunk[..wanted]) {
                Ok(filled) if filled < wanted => break Err("it is cut".to_owned()),
                Ok(filled) => left -= filled as u64,
                Err(error) => break Err(error),
            }
            if let Err(error) = to(&chunk[..wanted]) {
                break Err(format!("failed to keep what is in it: {error}"));
            }
        };
        self.chunk = chunk;
        result?;
        let over = usize::try_from(bytes % BLOCK as u64).unwrap_or_default();
        let mut padding = [0; BLOCK];
        let padding = &mut padding[..(BLOCK - over) % BLOCK];
        if self.fill(padding)? < padding.len() {
            return Err("it is cut".to_owned());
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err("it is damaged: a file in it is longer than its header says".to_owned());
        }
        Ok(())
    }

    /// Whether only zeros are left, and not too many of them.
    fn ends(&mut self) -> Result<(), String> {
        let mut left = PADDING_BYTES_MAX;
        let mut block = [0; BLOCK];
        loop {
            let filled = self.fill(&mut block)?;
            if block[..filled].iter().any(|byte| *byte != 0) || filled > left {
                return Err("something follows the last file in it".to_owned());
            }
            if filled == 0 {
                return Ok(());
            }
            left -= filled;
        }
    }
}

fn entries(reader: &mut Reader<impl Read>) -> Result<Unpacked, String> {
    let mut id: Option<String> = None;
    let mut files = BTreeMap::new();
    let mut long_name: Option<Vec<u8>> = None;
    let mut headers = 0;
    loop {
        let block = reader.block()?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        headers += 1;
        if headers > 3 * FILES_MAX {
            return Err(format!("it holds more than {FILES_MAX} files"));
        }
        let header = tar::Header::from_byte_slice(&block);
        let size = checked_size(header, &block)?;
        let kind = header.entry_type();
        if kind == EntryType::GNULongName {
            if long_name.is_some() {
                return Err("it holds two names for one file".to_owned());
            }
            if size > NAME_BYTES_MAX as u64 {
                return Err(format!("it holds a name of {size} bytes, and none has more than {NAME_BYTES_MAX}"));
            }
            let mut name = Vec::new();
            reader.take(size, |bytes| name.write_all(bytes))?;
            if name.last() == Some(&0) {
                name.pop();
            }
            long_name = Some(name);
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let Some(name) = name_of(&name, kind, header, size)? else { return Err(unknown(&name)) };
        match &id {
            None => id = Some(name.id.to_owned()),
            Some(id) if id == name.id => {}
            Some(_) => return Err("it holds several folders".to_owned()),
        }
        let Some(stored) = name.stored else { continue };
        if files.contains_key(stored) || files.len() >= FILES_MAX {
            return Err(format!("it holds {stored} twice, or more than {FILES_MAX} files"));
        }
        let mut file = tempfile::tempfile().map_err(|error| format!("failed to make room for it: {error}"))?;
        reader.take(size, |bytes| file.write_all(bytes))?;
        files.insert(stored.to_owned(), file);
    }
    if long_name.is_some() {
        return Err("it is cut".to_owned());
    }
    reader.ends()?;
    match id {
        Some(id) if !files.is_empty() => Ok(Unpacked { id, files }),
        _ => Err("it is empty".to_owned()),
    }
}

/// The size of an entry, if its header is whole.
fn checked_size(header: &tar::Header, block: &[u8; BLOCK]) -> Result<u64, String> {
    let damaged = |error: io::Error| format!("it is damaged: {error}");
    // The sum counts its own field as blanks.
    let field = 148..156;
    let sum: u32 =
        block.iter().enumerate().map(|(at, byte)| if field.contains(&at) { 32 } else { u32::from(*byte) }).sum();
    if header.cksum().map_err(damaged)? != sum {
        return Err("it is damaged: the checksum of a header is wrong".to_owned());
    }
    header.entry_size().map_err(damaged)
}

struct Name<'a> {
    id: &'a str,
    /// `None` for a directory.
    stored: Option<&'a str>,
}

/// The name of an entry, if evidence has such a one.
fn name_of<'a>(bytes: &'a [u8], kind: EntryType, header: &tar::Header, size: u64) -> Result<Option<Name<'a>>, String> {
    let Ok(name) = std::str::from_utf8(bytes) else { return Ok(None) };
    if name.len() > NAME_BYTES_MAX {
        return Ok(None);
    }
    let (id, rest) = name.split_once('/').unwrap_or((name, ""));
    if !is_id(id) {
        return Err(format!(
            "its folder is called {}, and evidence is called as its span: v1.6.11-be2d8c99",
            of_bytes(id.as_bytes())
        ));
    }
    let holds = |what: &str| Err(format!("it holds {}, which is {what}", of_bytes(bytes)));
    match kind {
        EntryType::Directory => {
            let directory = rest.strip_suffix('/').unwrap_or(rest);
            let is_known = directory.is_empty() || DIRECTORIES.contains(&directory);
            Ok((is_known && size == 0).then_some(Name { id, stored: None }))
        }
        EntryType::Regular => {
            let Some(form) = form_of(rest) else { return Ok(None) };
            if header.mode().map_or(true, |mode| mode & 0o7111 != 0) {
                return holds("a program: evidence has none");
            }
            if size > form.stored_max() {
                return too_large(rest, form, size);
            }
            Ok(Some(Name { id, stored: Some(rest) }))
        }
        EntryType::Link | EntryType::Symlink => holds("a link"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => holds("a device or a pipe"),
        other => holds(&format!("an extension of tar ({:?}): pack it with spanwatch", char::from(other.as_byte()))),
    }
}

fn too_large<T>(name: &str, form: &Form, size: u64) -> Result<T, String> {
    Err(format!("it holds {name} with {size} bytes, and such a file has no more than {}", form.stored_max()))
}

fn unknown(name: &[u8]) -> String {
    let shown = of_bytes(&name[..name.len().min(NAME_BYTES_MAX)]);
    format!("it holds {shown}, and evidence has no file of that name")
}
