//! Memory for data from outside: it grows with what has arrived, never with what a header says will come.
//!
//! Owns how buffers grow: at most `AHEAD_MAX` ahead of the bytes that arrived (a vector that grows by itself would double), with an error
//! where the system has no memory left. It must never take memory because outside data says so.

use std::io::{self, BufRead, BufReader, Read};

/// The most bytes that are allocated ahead of those that have arrived.
const AHEAD_MAX: usize = 32 << 20;
/// The first allocation; most inputs fit.
const FIRST: usize = 8 << 10;
/// The largest window of a zstd frame, as a power of two: 8 MiB, as levels up to 19 need. The frame names the window, which the decoder
/// allocates before a byte of content arrives; a header could ask for 2 GiB.
const WINDOW_LOG_MAX: u32 = 23;
/// The bytes that a decoder reads at a time: a block of zstd.
const BLOCK: usize = 128 << 10;

/// A decoder of zstd that allocates a window of 8 MiB at most.
///
/// # Errors
/// When the system has no memory left. A frame with a larger window is an error of the first read.
pub fn zstd<R: Read>(from: R) -> io::Result<zstd::Decoder<'static, BufReader<R>>> {
    zstd_of_buffer(BufReader::with_capacity(BLOCK, from))
}

/// The same decoder for input that has a buffer.
///
/// # Errors
/// As those of [`zstd`].
pub fn zstd_of_buffer<R: BufRead>(from: R) -> io::Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(from)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Makes room for some bytes more, and ahead for as many as there are already, up to 32 MiB.
///
/// # Errors
/// When the system has no memory left.
pub fn make_room(vec: &mut Vec<u8>, bytes: usize) -> io::Result<()> {
    if vec.capacity() - vec.len() >= bytes {
        return Ok(());
    }
    let ahead = vec.len().clamp(FIRST, AHEAD_MAX).max(bytes);
    vec.try_reserve_exact(ahead).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

/// Appends the bytes of a reader, `limit` at most; the rest is not read.
///
/// # Errors
/// When the reader fails or the system has no memory left.
pub fn read_up_to(limit: u64, mut from: impl Read, to: &mut Vec<u8>) -> io::Result<()> {
    let mut left = limit;
    while left > 0 {
        make_room(to, 1)?;
        let room = (to.capacity() - to.len()) as u64;
        // No more than the room there is, so that the vector does not grow by itself.
        let read = from.by_ref().take(room.min(left)).read_to_end(to)? as u64;
        if read < room {
            return Ok(());
        }
        left -= read;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_just_ahead_of_what_arrives() {
        for bytes in [0, 1, FIRST - 1, FIRST, FIRST + 1, 3 * AHEAD_MAX + 7] {
            let (mut all, mut some) = (Vec::new(), Vec::new());
            read_up_to(u64::MAX, io::repeat(7).take(bytes as u64), &mut all).expect("memory");
            assert_eq!((all.len(), all.iter().all(|byte| *byte == 7)), (bytes, true));
            assert!(all.capacity() <= bytes + bytes.clamp(FIRST, AHEAD_MAX), "{} for {bytes}", all.capacity());
            read_up_to(bytes as u64, io::repeat(7), &mut some).expect("memory");
            assert_eq!(some.len(), bytes, "no more than the limit");
        }
    }

    #[test]
    fn what_was_there_stays_and_a_failure_is_told() {
        let mut text = b"head".to_vec();
        read_up_to(3, &b"abcdef"[..], &mut text).expect("memory");
        assert_eq!(text, b"headabc");
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        read_up_to(10, Broken, &mut text).expect_err("it fails");
        let error = make_room(&mut text, usize::MAX / 2).expect_err("nobody has so much");
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}
