//! The program that is run: a copy in memory that can be neither changed nor read.
//!
//! Owns the copy and its sha256. It must never run a file by its path, which could change after it was checked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, memfd_create};
use sha2::{Digest, Sha256};

use super::elf::{self, Needs};
use crate::files::regular;
use crate::files::seal::seal;
use crate::transcript::Hash256;

/// No worker is larger. Those of `@agoric/xsnap` have some megabytes.
const PROGRAM_BYTES_MAX: u64 = 512 << 20;
/// `MFD_EXEC`: says outright that this file is to be run, since Linux 6.3.
const MFD_EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);

/// A program in memory.
#[derive(Debug)]
pub(super) struct Program {
    /// The path that it was copied from.
    pub(super) path: PathBuf,
    /// The sha256 of the bytes that are run.
    pub(super) sha256: Hash256,
    /// The bytes. They may be run and not read: a process of a program that it may not read shows its memory and its
    /// environment to root only (`would_dump` in the kernel's `fs/exec.c`).
    pub(super) file: OwnedFd,
    /// The loader and libraries that its headers name; none if it is complete in itself.
    needs: Needs,
}

impl Program {
    /// Takes a copy of a program, which from then on does not change even if its file does.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let source = regular::open_named(path)?;
        if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not executable"));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Older kernels do not know the flag, and make every memory file executable.
        let copy = memfd_create("xsnap-worker", flags | MFD_EXEC).or_else(|_| memfd_create("xsnap-worker", flags))?;
        let mut copy = File::from(copy);
        let mut hasher = Sha256::new();
        let mut chunk = vec![0; 256 * 1024];
        let mut source = source.take(PROGRAM_BYTES_MAX + 1);
        let mut bytes = 0;
        loop {
            match source.read(&mut chunk)? {
                0 => break,
                read => {
                    bytes += read as u64;
                    hasher.update(&chunk[..read]);
                    copy.write_all(&chunk[..read])?;
                }
            }
        }
        if bytes > PROGRAM_BYTES_MAX {
            let what = format!("it is larger than {PROGRAM_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut start = [0; 2];
        if copy.read_at(&mut start, 0)? == 2 && start == *b"#!" {
            let what = "it is a script: name the program that it starts";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let needs = Needs::of(&copy).unwrap_or_default();
        // Open for writing, it could not be run; and what is written on cannot be sealed against it.
        let file = rustix::fs::open(
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy)),
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        seal(&copy, SealFlags::empty())?;
        fchmod(copy.as_fd(), Mode::from_raw_mode(0o111))?;
        Ok(Self { path: path.to_owned(), sha256: Hash256::from_digest(hasher), file, needs })
    }

    /// The loader with which the kernel runs it (`PT_INTERP`), if it is not complete in itself.
    ///
    /// # Errors
    /// When that is no loader of the system's.
    pub(super) fn loader(&self) -> io::Result<Option<&Path>> {
        let loader = self.needs.loader.as_deref();
        loader.map_or(Ok(()), elf::is_of_the_system)?;
        Ok(loader)
    }

    /// The files that its loader may take for its libraries.
    pub(super) fn libraries(&self) -> BTreeSet<PathBuf> {
        elf::libraries(self.needs.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn the_copy_can_be_neither_changed_nor_read() {
        let program = Program::load(Path::new("/bin/sh")).expect("a shell");
        assert_eq!(rustix::io::write(&program.file, b"x"), Err(Errno::BADF));
        assert_eq!(rustix::fs::fstat(&program.file).expect("stat").st_mode & 0o777, 0o111);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").expect("write");
        for (path, mode, says) in [
            (Path::new("/dev/zero"), None, "not a regular file"),
            (dir.path(), None, "not a regular file"),
            (Path::new("/no/such"), None, "No such file"),
            (&script, Some(0o644), "not executable"),
            (&script, Some(0o755), "it is a script"),
        ] {
            if let Some(mode) = mode {
                rustix::fs::chmod(path, Mode::from_raw_mode(mode)).expect("chmod");
            }
            let error = Program::load(path).expect_err(says).to_string();
            assert!(error.contains(says), "{path:?}: {error}");
        }
    }
}
