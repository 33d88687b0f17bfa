//! Heap snapshot images in memory: read from a gzip or written by a worker, and proved by their sha256.
//!
//! An image is an anonymous memory file: a worker writes one and another reads it without a copy on disk. It is sealed
//! before it is hashed, so that the bytes that were proved are the bytes that the next worker gets.
//!
//! Owns the limits on an image's size. It must never trust a size that it was told.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, Mode, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};

use crate::transcript::{Hash256, sha256};

/// No image is larger. The engine's heap ends at 2 GiB; the largest images seen on a chain are some 100 MB.
pub const IMAGE_BYTES_MAX: u64 = 2 << 30;

const CHUNK: usize = 256 * 1024;

/// A larger image is inflated bit by bit, not in one go, so that the driver's memory stays bounded.
const AT_ONCE_BYTES_MAX: u64 = 256 << 20;
/// No deflate stream gives more bytes for each of its own (RFC 1951: 258 bytes for two bits).
const INFLATION_MAX: u64 = 1032;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The gzip is cut or damaged.
    #[error("its compressed form is damaged after {bytes} bytes of image: {source}")]
    Gzip {
        /// How much came out before.
        bytes: u64,
        /// What the decoder said.
        source: io::Error,
    },
    /// It is not the image that the record speaks of.
    #[error("its sha256 is {found}, recorded is {recorded}")]
    Hash {
        /// What it should be.
        recorded: Hash256,
        /// What it is.
        found: Hash256,
    },
    /// It goes on and on.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The system gave no memory, or not the file.
    #[error("failed to read or hold it: {0}")]
    Io(#[from] io::Error),
}

/// An image whose sha256 is known and whose bytes can no longer change.
#[derive(Debug)]
pub struct Image {
    file: File,
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
    fn inflate_at_once(gzip: &[u8], recorded: Hash256, recorded_bytes: Option<u64>) -> io::Result<Option<Self>> {
        // A gzip ends with its size, modulo 2^32.
        let stated = gzip.last_chunk().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
        let bytes = recorded_bytes.unwrap_or(stated);
        // Nobody's word makes us take more memory than the gzip can fill.
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
        let mut file = memory_file()?;
        file.write_all(&image)?;
        seal(&file)?;
        Ok(Some(Self { file, hash: recorded, bytes }))
    }

    /// Reads from a decoder, and proves that what comes is the image that is wanted.
    ///
    /// # Errors
    /// When the decoder finds damage, or it is too large or another image.
    pub fn read(mut decoder: impl Read, recorded: Hash256, recorded_bytes: Option<u64>) -> Result<Self, ImageError> {
        let bytes_max = recorded_bytes.unwrap_or(IMAGE_BYTES_MAX).min(IMAGE_BYTES_MAX);
        let mut file = memory_file()?;
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut bytes = 0;
        loop {
            let read = match decoder.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ImageError::Gzip { bytes, source }),
            };
            bytes += read as u64;
            if bytes > bytes_max {
                return Err(ImageError::TooLarge(bytes_max));
            }
            hasher.update(&chunk[..read]);
            file.write_all(&chunk[..read])?;
        }
        let found = Hash256::from_digest(hasher);
        if found != recorded {
            return Err(ImageError::Hash { recorded, found });
        }
        seal(&file)?;
        Ok(Self { file, hash: found, bytes })
    }

    /// The sha256 of the image.
    #[must_use]
    pub fn hash(&self) -> Hash256 {
        self.hash
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the image somewhere. The offset that workers read at is not touched.
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

    /// The file for a worker to read, at its start.
    ///
    /// The offset is shared with every process that has the file, so one worker at a time may read it.
    ///
    /// # Errors
    /// When the system refuses to seek.
    pub fn rewound(&self) -> io::Result<BorrowedFd<'_>> {
        (&self.file).seek(SeekFrom::Start(0))?;
        Ok(self.file.as_fd())
    }
}

/// An empty memory file for a worker to write its snapshot into.
#[derive(Debug)]
pub struct BlankImage(File);

impl BlankImage {
    /// Makes one.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn new() -> io::Result<Self> {
        memory_file().map(Self)
    }

    /// The descriptor that the worker gets.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Ends the writing, whoever still has the file open, and hashes what was written.
    ///
    /// # Errors
    /// When the system fails, or the file is larger than an image can be.
    pub fn finish(self) -> Result<Image, ImageError> {
        seal(&self.0)?;
        let bytes = self.0.metadata()?.len();
        if bytes > IMAGE_BYTES_MAX {
            return Err(ImageError::TooLarge(IMAGE_BYTES_MAX));
        }
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut offset = 0;
        while offset < bytes {
            let read = self.0.read_at(&mut chunk, offset)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            hasher.update(&chunk[..read]);
            offset += read as u64;
        }
        Ok(Image { file: self.0, hash: Hash256::from_digest(hasher), bytes })
    }
}

/// A memory file that cannot be run: a worker writes what it likes into one.
fn memory_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux before 6.3 does not know the flag; there the mode can be changed back, by its owner.
    let file = memfd_create("spanwatch-image", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create("spanwatch-image", flags))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600))?;
    Ok(File::from(file))
}

fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    Ok(fcntl_add_seals(file, seals)?)
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
        image.rewound().expect("seek");
        let mut bytes = Vec::new();
        (&image.file).read_to_end(&mut bytes).expect("read");
        bytes
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
        let cases: [(&[u8], Option<u64>); 7] = [
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
    fn what_a_worker_wrote_is_sealed_before_it_is_hashed() {
        let blank = BlankImage::new().expect("memory");
        let mut worker_side = File::from(blank.as_fd().try_clone_to_owned().expect("dup"));
        worker_side.write_all(b"heap").expect("write");
        let image = blank.finish().expect("an image");
        assert_eq!(image.hash(), sha256(b"heap"));
        worker_side.write_all(b"more").expect_err("sealed");
        assert_eq!(content(&image), b"heap");
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
