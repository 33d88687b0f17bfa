//! Netstrings, `<length>:<bytes>,`: the frames of messages on the worker's pipes (`@endo/netstring`).
//!
//! Owns the framing and the limit on a message. It must never believe a length: more than the kernel itself would take is refused before
//! anything is allocated, and memory grows with the bytes that arrived.

use std::io::{self, IoSlice, Read, Write};

/// The kernel takes no longer message from a worker (`NETSTRING_MAX_CHUNK_SIZE` in `startXSnap.js`).
pub const MESSAGE_BYTES_MAX: usize = 12_000_000;

const DIGITS_MAX: usize = 9;
const READ_BYTES: usize = 64 * 1024;

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum NetstringError {
    /// The other side closed the pipe between two messages.
    #[error("the pipe was closed")]
    Closed,
    /// The other side closed the pipe inside a message.
    #[error("the pipe was closed in the middle of a message")]
    Cut,
    /// Not a netstring.
    #[error("not a netstring: {0}")]
    Malformed(String),
    /// Longer than the kernel would take.
    #[error("a message of {0} bytes, more than the {MESSAGE_BYTES_MAX} that the kernel takes")]
    TooLong(usize),
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads netstrings from a pipe.
#[derive(Debug)]
pub struct NetstringReader<R> {
    from: R,
    buffer: Vec<u8>,
    /// The range of bytes that are not used yet.
    start: usize,
    end: usize,
}

impl<R: Read> NetstringReader<R> {
    /// A reader with nothing read yet.
    pub fn new(from: R) -> Self {
        Self { from, buffer: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    /// Whether all that was read was given as messages.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The pipe that it reads from.
    pub fn source(&self) -> &R {
        &self.from
    }

    /// The next message; blocks until it is there.
    ///
    /// # Errors
    /// When the pipe ends or what comes is no netstring.
    pub fn next_message(&mut self) -> Result<&[u8], NetstringError> {
        let (header, length) = loop {
            if let Some(header) = parse_header(&self.buffer[self.start..self.end])? {
                break header;
            }
            self.fill()?;
        };
        if length > MESSAGE_BYTES_MAX {
            return Err(NetstringError::TooLong(length));
        }
        while self.end - self.start < header + length + 1 {
            self.fill()?;
        }
        let begin = self.start + header;
        let end = begin + length;
        if self.buffer[end] != b',' {
            return Err(malformed("no comma at the end of", &self.buffer[self.start..self.end]));
        }
        self.start = end + 1;
        Ok(&self.buffer[begin..end])
    }

    /// Reads what is there, at least a byte. The buffer grows only when it is full of one message.
    fn fill(&mut self) -> Result<(), NetstringError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        let read = loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.end += read;
        match (read, self.end) {
            (0, 0) => Err(NetstringError::Closed),
            (0, _) => Err(NetstringError::Cut),
            _ => Ok(()),
        }
    }
}

/// The header's size and the length that it states; `None` if more bytes are needed to tell.
fn parse_header(bytes: &[u8]) -> Result<Option<(usize, usize)>, NetstringError> {
    let digits = bytes.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    match bytes.get(digits) {
        None if digits <= DIGITS_MAX => Ok(None),
        Some(b':') if (1..=DIGITS_MAX).contains(&digits) => {
            let length = bytes[..digits].iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
            Ok(Some((digits + 1, length)))
        }
        _ => Err(malformed("no length before", bytes)),
    }
}

fn malformed(what: &str, bytes: &[u8]) -> NetstringError {
    let shown = &bytes[..bytes.len().min(40)];
    NetstringError::Malformed(format!("{what} {:?}", String::from_utf8_lossy(shown)))
}

/// Writes one message made of several parts, without copying the parts together.
///
/// # Errors
/// When the pipe is closed.
pub fn write_netstring(mut to: impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let header = format!("{length}:");
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(parts.len() + 2);
    slices.push(IoSlice::new(header.as_bytes()));
    slices.extend(parts.iter().map(|part| IoSlice::new(part)));
    slices.push(IoSlice::new(b","));
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match to.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes in pieces of the given sizes.
    struct Pieces {
        bytes: Vec<u8>,
        sizes: Vec<usize>,
    }

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes.pop().unwrap_or(usize::MAX).min(self.bytes.len()).min(buffer.len());
            buffer[..size].copy_from_slice(&self.bytes[..size]);
            self.bytes.drain(..size);
            Ok(size)
        }
    }

    fn reader(bytes: &[u8]) -> NetstringReader<&[u8]> {
        NetstringReader::new(bytes)
    }

    #[test]
    fn messages_end_with_the_pipe() {
        let mut reader = reader(b"3:abc,0:,");
        assert_eq!(reader.next_message().expect("a message"), b"abc");
        assert_eq!(reader.next_message().expect("a message"), b"");
        assert!(matches!(reader.next_message(), Err(NetstringError::Closed)));
    }

    #[test]
    fn bad_bytes() {
        for bytes in ["x", ":", "1a", "-1:a,", "1:ab", "1234567890:", "99999999999999999999"] {
            assert!(matches!(reader(bytes.as_bytes()).next_message(), Err(NetstringError::Malformed(_))), "{bytes}");
        }
        for bytes in ["1", "5:abc", "3:abc"] {
            assert!(matches!(reader(bytes.as_bytes()).next_message(), Err(NetstringError::Cut)), "{bytes}");
        }
    }

    #[test]
    fn a_promise_of_900_mb_allocates_nothing() {
        let mut reader = reader(b"900000000:abc");
        assert!(matches!(reader.next_message(), Err(NetstringError::TooLong(900_000_000))));
        assert_eq!(reader.buffer.capacity(), READ_BYTES);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_split(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            sizes in prop::collection::vec(1..40_usize, 0..200),
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                let half = message.len() / 2;
                write_netstring(&mut bytes, &[&message[..half], &message[half..]]).expect("in memory");
            }
            let mut reader = NetstringReader::new(Pieces { bytes, sizes });
            for message in &messages {
                prop_assert_eq!(reader.next_message().expect("a message"), &message[..]);
            }
            prop_assert!(matches!(reader.next_message(), Err(NetstringError::Closed)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        #[test]
        fn cuts_and_flips_end_in_a_message_or_an_error(
            flip in any::<prop::sample::Index>(),
            bit in 0..8u8,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = b"12:.{}\x01[\"ok\"]xx,3:abc,27:?[\"syscall\",[\"send\",\"o+0\"]],".to_vec();
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes.truncate(cut.index(bytes.len() + 1));
            let mut reader = reader(&bytes);
            let mut messages = 0;
            while reader.next_message().is_ok() {
                messages += 1;
                prop_assert!(messages < 100, "it never ends");
            }
        }
    }
}
