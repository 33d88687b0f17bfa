//! Heap snapshot images in memory: read from a gzip or written by a worker, and proved by their sha256.
//!
//! An image is an anonymous memory file. Only we write it: what a worker saves comes through a pipe, is hashed and put there,
//! and the next worker gets it to read. So the bytes that were proved are the bytes that the next worker gets.
//!
//! Owns the limits on an image's size, and the memory of images that are no longer needed ([`keep_memory`]). It must never trust a
//! size that it was told.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, Mode, SealFlags, memfd_create};
use sha2::{Digest, Sha256};

use crate::files::regular::Special;
use crate::transcript::{Hash256, sha256};

/// No image is larger. The engine's heap ends at 2 GiB; the largest images seen on a chain are some 100 MB.
pub const IMAGE_BYTES_MAX: u64 = 2 << 30;

/// Small enough to stay in the cache between being read and being hashed.
const CHUNK: usize = 64 * 1024;

/// A larger image is inflated bit by bit, not in one go, so that the driver's memory stays bounded.
const AT_ONCE_BYTES_MAX: u64 = 256 << 20;
/// No deflate stream gives more bytes for each of its own (RFC 1951: 258 bytes for two bits).
const INFLATION_MAX: u64 = 1032;
/// A flag of a gzip's header (RFC 1952: FHCRC).
const HAS_HEADER_CHECKSUM: u8 = 2;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The gzip is cut or damaged.
    #[error("its compressed form is damaged after {bytes} bytes of image: {source}")]
    Gzip {
        /// Bytes of image before the damage.
        bytes: u64,
        /// The decoder's error.
        source: io::Error,
    },
    /// The image is not the recorded one.
    #[error("its sha256 is {found}, recorded is {recorded}")]
    Hash {
        /// The recorded hash.
        recorded: Hash256,
        /// The image's hash.
        found: Hash256,
    },
    /// The image is larger than an image can be.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// A FIFO, a device, a link or the like stands in the place of the file.
    #[error("{} is not read: {special}", path.display())]
    Special {
        /// The path.
        path: PathBuf,
        /// The kind of file.
        special: Special,
    },
    /// The system gave no memory, or not the file.
    #[error("failed to read or hold it: {0}")]
    Io(#[from] io::Error),
}

/// An image whose sha256 is known and whose bytes do not change.
#[derive(Debug)]
pub struct Image {
    file: Arc<File>,
    hash: Hash256,
    bytes: u64,
}

impl Image {
    /// Inflates a gzip and proves that it holds the image that is wanted. Where its size is recorded, no more than that is
    /// inflated.
    ///
    /// # Errors
    /// When the gzip is damaged, too large, or holds another image.
    pub fn from_gzip(gzip: impl Read, recorded: Hash256, recorded_bytes: Option<u64>) -> Result<Self, ImageError> {
        Self::read(flate2::read::GzDecoder::new(gzip), recorded, recorded_bytes)
    }

    /// Likewise for a gzip that is in memory, which takes less than half the time.
    ///
    /// # Errors
    /// As [`Self::from_gzip`].
    pub fn from_gzip_in_memory(
        gzip: &[u8],
        recorded: Hash256,
        recorded_bytes: Option<u64>,
    ) -> Result<Self, ImageError> {
        if let Some(image) = Self::inflate_at_once(gzip, recorded, recorded_bytes)? {
            return Ok(image);
        }
        // Whatever is wrong with it, this says what.
        Self::from_gzip(gzip, recorded, recorded_bytes)
    }

    /// The image, if the gzip holds the one that is wanted and is not too large for this.
    fn inflate_at_once(
        gzip: &[u8],
        recorded: Hash256,
        recorded_bytes: Option<u64>,
    ) -> Result<Option<Self>, ImageError> {
        // The checksum of a gzip's header, which no kernel writes, is looked at by the other decoder alone.
        if gzip.get(3).is_some_and(|flags| flags & HAS_HEADER_CHECKSUM != 0) {
            return Ok(None);
        }
        // A gzip ends with its size, modulo 2^32.
        let stated = gzip.last_chunk().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
        let bytes = recorded_bytes.unwrap_or(stated);
        // No stated size takes more memory than the gzip can fill.
        if bytes > AT_ONCE_BYTES_MAX || bytes / INFLATION_MAX > gzip.len() as u64 {
            return Ok(None);
        }
        let Ok(size) = usize::try_from(bytes) else { return Ok(None) };
        let mut image = vec![0; size];
        if libdeflater::Decompressor::new().gzip_decompress(gzip, &mut image).ok() != Some(size)
            || sha256(&image) != recorded
        {
            return Ok(None);
        }
        let mut intake = Intake::new()?;
        intake.put(&image)?;
        Ok(Some(intake.finish_as(recorded)?))
    }

    /// Reads from a decoder, and proves that what comes is the image that is wanted.
    ///
    /// # Errors
    /// When the decoder finds damage, or it is too large or another image.
    pub fn read(mut decoder: impl Read, recorded: Hash256, recorded_bytes: Option<u64>) -> Result<Self, ImageError> {
        let bytes_max = recorded_bytes.unwrap_or(IMAGE_BYTES_MAX).min(IMAGE_BYTES_MAX);
        let mut intake = Intake::new()?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match decoder.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ImageError::Gzip { bytes: intake.bytes, source }),
            };
            if intake.bytes + read as u64 > bytes_max {
                return Err(ImageError::TooLarge(bytes_max));
            }
            intake.add(&chunk[..read])?;
        }
        let image = intake.finish()?;
        if image.hash != recorded {
            return Err(ImageError::Hash { recorded, found: image.hash });
        }
        Ok(image)
    }

    /// The sha256 of the image.
    #[must_use]
    pub fn hash(&self) -> Hash256 {
        self.hash
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the image somewhere.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn copy_to(&self, to: &mut impl Write) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut offset = 0;
        while offset < self.bytes {
            let read = self.file.read_at(&mut chunk, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all(&chunk[..read])?;
            offset += read as u64;
        }
        Ok(())
    }

    /// A file for a worker to read, from its start, and not to write.
    ///
    /// # Errors
    /// When the system has no descriptor left, or no `/proc`.
    pub fn to_read(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // At the end of the thread there is nothing left to keep it for.
        let _ = KEPT.try_with(|kept| {
            if let Some(spare) = kept.borrow_mut().as_mut() {
                spare.get_or_insert_with(|| Arc::clone(&self.file));
            }
        });
    }
}

/// An image that is coming: hashed and kept as it comes.
#[derive(Debug)]
pub struct Intake {
    file: Arc<File>,
    hasher: Sha256,
    bytes: u64,
    chunk: Vec<u8>,
}

impl Intake {
    /// Makes room for one.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn new() -> io::Result<Self> {
        let spare = KEPT.with(|kept| kept.borrow_mut().as_mut().and_then(Option::take));
        let file = match spare.and_then(Arc::into_inner) {
            Some(spare) => spare,
            None => memory_file()?,
        };
        Ok(Self { file: Arc::new(file), hasher: Sha256::new(), bytes: 0, chunk: Vec::new() })
    }

    /// Takes what a pipe has to give, once; how many bytes that was.
    ///
    /// # Errors
    /// When the pipe or the system fails, or the image is larger than one can be.
    pub fn take(&mut self, mut from: impl Read) -> Result<usize, ImageError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(CHUNK, 0);
        let read = from.read(&mut chunk)?;
        self.add(&chunk[..read])?;
        self.chunk = chunk;
        Ok(read)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.hasher.update(bytes);
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        if self.bytes + bytes.len() as u64 > IMAGE_BYTES_MAX {
            return Err(ImageError::TooLarge(IMAGE_BYTES_MAX));
        }
        self.file.write_all_at(bytes, self.bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The image, now that there is no more of it.
    ///
    /// # Errors
    /// When the system fails.
    pub fn finish(mut self) -> Result<Image, ImageError> {
        let hash = Hash256::from_digest(std::mem::take(&mut self.hasher));
        self.finish_as(hash)
    }

    fn finish_as(self, hash: Hash256) -> Result<Image, ImageError> {
        // The previous content of the file may have been longer.
        self.file.set_len(self.bytes)?;
        if !is_memory_kept() {
            seal(&self.file)?;
        }
        Ok(Image { file: self.file, hash, bytes: self.bytes })
    }
}

thread_local! {
    /// `Some` where memory is kept; in it the memory of an image that is no longer needed.
    static KEPT: RefCell<Option<Option<Arc<File>>>> = const { RefCell::new(None) };
}

/// As long as this is there, the memory of an image that this thread no longer needs is kept for its next one: to be given
/// memory by the system and to give it back costs more than to write it.
///
/// Images are not sealed meanwhile. A worker that could open its image for writing could then change it: it needs a sandbox.
#[derive(Debug)]
pub struct KeptMemory(PhantomData<*const ()>);

/// Begins to keep memory, of one image at most.
#[must_use]
pub fn keep_memory() -> KeptMemory {
    KEPT.set(Some(None));
    KeptMemory(PhantomData)
}

impl Drop for KeptMemory {
    fn drop(&mut self) {
        let _ = KEPT.try_with(RefCell::take);
    }
}

fn is_memory_kept() -> bool {
    KEPT.with(|kept| kept.borrow().is_some())
}

/// A memory file that nobody else can open for writing, and that cannot be run.
fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux before 6.3 does not know the flag; there the mode can be changed back, by its owner.
    let file = memfd_create("spanwatch-image", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create("spanwatch-image", flags))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o400))?;
    Ok(File::from(file))
}

fn seal(file: &File) -> io::Result<()> {
    crate::files::seal::seal(file, SealFlags::SEAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn content(image: &Image) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.to_read().expect("a file").read_to_end(&mut bytes).expect("read");
        bytes
    }

    fn intake(bytes: &[u8]) -> Image {
        let mut intake = Intake::new().expect("memory");
        let mut from = bytes;
        while intake.take(&mut from).expect("memory") > 0 {}
        intake.finish().expect("an image")
    }

    #[test]
    fn an_image_is_proved_and_can_be_read_twice() {
        let bytes = vec![7; 3 * CHUNK + 1];
        let image = Image::from_gzip(&gzip(&bytes)[..], sha256(&bytes), None).expect("an image");
        assert_eq!(image.bytes(), bytes.len() as u64);
        assert_eq!(content(&image), bytes);
        assert_eq!(content(&image), bytes);
        assert!(matches!(Image::from_gzip(&gzip(&bytes)[..], sha256(b"other"), None), Err(ImageError::Hash { .. })));
    }

    #[test]
    fn at_once_is_as_bit_by_bit() {
        let bytes = vec![7; 3 * CHUNK + 1];
        let (good, hash, size) = (gzip(&bytes), sha256(&bytes), bytes.len() as u64);
        for stated in [None, Some(size)] {
            let image = Image::inflate_at_once(&good, hash, stated).expect("memory").expect("an image");
            assert_eq!((image.hash(), image.bytes(), content(&image) == bytes), (hash, size, true));
        }
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        let longer = [&good[..], b"and more"].concat();
        let mut summed = [&good[..10], b"no", &good[10..]].concat();
        summed[3] |= HAS_HEADER_CHECKSUM;
        let cases: [(&[u8], Option<u64>); 8] = [
            (&summed, Some(size)),
            (&good, Some(size + 1)),
            (&good, Some(size - 1)),
            (&good, Some(u64::MAX)),
            (&good[..good.len() - 1], Some(size)),
            (&flipped, Some(size)),
            (&longer, None),
            (b"", None),
        ];
        for (gzip, stated) in cases {
            let one = Image::from_gzip(gzip, hash, stated).map(|image| image.hash()).map_err(|error| error.to_string());
            let other = Image::from_gzip_in_memory(gzip, hash, stated).map(|image| image.hash());
            assert_eq!(one, other.map_err(|error| error.to_string()));
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        let refused = Image::from_gzip(&bomb[..], sha256(b"small"), Some(5));
        assert!(matches!(refused, Err(ImageError::TooLarge(5))));
    }

    #[test]
    fn what_comes_is_hashed_and_can_only_be_read() {
        for bytes in [&b"heap"[..], &vec![7; 2 * CHUNK + 1]] {
            let image = intake(bytes);
            assert_eq!((image.hash(), image.bytes()), (sha256(bytes), bytes.len() as u64));
            assert_eq!(content(&image), bytes);
            image.to_read().expect("a file").write_all(b"more").expect_err("not for writing");
            image.file.write_all_at(b"more", 0).expect_err("sealed");
        }
    }

    #[test]
    fn what_never_ends_is_refused() {
        let mut intake = Intake::new().expect("memory");
        // A hole, so that the test needs no memory.
        intake.bytes = IMAGE_BYTES_MAX - 3;
        assert_eq!(intake.take(&b"123"[..]).expect("just as large"), 3);
        assert!(matches!(intake.take(&b"4"[..]), Err(ImageError::TooLarge(IMAGE_BYTES_MAX))));
    }

    #[test]
    fn memory_is_used_again_and_nothing_of_it_is_left() {
        let number = |image: &Image| image.file.as_raw_fd();
        let kept = keep_memory();
        let long = intake(&[7; 100]);
        let first = number(&long);
        let beside = intake(b"another");
        assert_ne!(number(&beside), first);
        drop(long);
        let short = intake(b"short");
        assert_eq!((number(&short), content(&short)), (first, b"short".to_vec()));
        assert_eq!(short.hash(), sha256(b"short"));
        short.to_read().expect("a file").write_all(b"more").expect_err("not for writing");
        let longer = vec![8; CHUNK];
        drop(short);
        drop(beside);
        let longer_image = intake(&longer);
        assert_eq!((number(&longer_image), content(&longer_image)), (first, longer));
        drop(kept);
        let after = intake(b"after");
        after.file.write_all_at(b"x", 0).expect_err("sealed");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        /// Whatever happens to the gzip, what comes out is the recorded image or an error.
        #[test]
        fn a_damaged_gzip_never_passes_for_another_image(
            flip in any::<proptest::sample::Index>(),
            bit in 0..8u8,
            cut in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            let bytes: Vec<u8> = (0..4096_u32).flat_map(|n| (n / 7 * 0x9E37).to_le_bytes()).collect();
            let mut gzip = gzip(&bytes);
            let at = flip.index(gzip.len());
            gzip[at] ^= 1 << bit;
            if let Some(cut) = cut {
                gzip.truncate(cut.index(gzip.len()));
            }
            if let Ok(image) = Image::from_gzip_in_memory(&gzip, sha256(&bytes), Some(bytes.len() as u64)) {
                prop_assert_eq!(content(&image), bytes);
            }
        }
    }
}
