//! The program that is to be run: a copy that nobody can change or read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};

use crate::regular;
use crate::transcript::Hash256;

/// No worker is larger. Those of `@agoric/xsnap` have some megabytes.
const PROGRAM_BYTES_MAX: u64 = 512 << 20;
/// What a loader says of a program's libraries is no longer than this.
const LIST_BYTES_MAX: u64 = 64 * 1024;
/// `MFD_EXEC`: says outright that this file is to be run, since Linux 6.3.
const MFD_EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);

/// A program in memory.
#[derive(Debug)]
pub(super) struct Program {
    /// Where it came from.
    pub(super) path: PathBuf,
    /// Of the bytes that will be run.
    pub(super) sha256: Hash256,
    /// The bytes. They may be run and not read: a process of a program that it may not read shows its memory and its
    /// environment to nobody but root (`would_dump` in the kernel's `fs/exec.c`).
    pub(super) file: OwnedFd,
    /// What the kernel runs it with (`PT_INTERP`), if it is not complete in itself.
    pub(super) loader: Option<PathBuf>,
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
        let loader = loader_of(&copy);
        // Open for writing, it could not be run; and what is written on cannot be sealed against it.
        let file = rustix::fs::open(
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy)),
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
        fchmod(copy.as_fd(), Mode::from_raw_mode(0o111))?;
        Ok(Self { path: path.to_owned(), sha256: Hash256::from_digest(hasher), file, loader })
    }

    /// The files of its libraries, as its own loader finds them.
    pub(super) fn libraries(&self) -> Vec<PathBuf> {
        let Some(loader) = &self.loader else { return Vec::new() };
        let child = Command::new(loader)
            .arg("--list")
            .arg(&self.path)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else { return Vec::new() };
        let mut text = Vec::new();
        if let Some(out) = child.stdout.take() {
            let _ = out.take(LIST_BYTES_MAX).read_to_end(&mut text);
        }
        let _ = child.kill();
        let _ = child.wait();
        libraries_in(&String::from_utf8_lossy(&text))
    }
}

/// The paths in lines such as `libm.so.6 => /lib/libm.so.6 (0x00007f…)`.
fn libraries_in(list: &str) -> Vec<PathBuf> {
    list.lines()
        .filter_map(|line| {
            let line = line.rsplit_once(" (0x").map_or(line, |(line, _)| line);
            let path = line.rsplit_once("=> ").map_or(line, |(_, path)| path).trim();
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

/// The path in an ELF file's program header of type `PT_INTERP` (elf(5)); `None` for a file that has none.
fn loader_of(file: &File) -> Option<PathBuf> {
    const PT_INTERP: u64 = 3;
    let field = |offset: u64, bytes: usize| {
        let mut field = [0; 8];
        file.read_exact_at(&mut field[..bytes], offset).ok()?;
        Some(u64::from_le_bytes(field))
    };
    let is_elf_of_64_bits = field(0, 5)? == u64::from_le_bytes(*b"\x7fELF\x02\0\0\0");
    if !is_elf_of_64_bits {
        return None;
    }
    let (table, size, count) = (field(0x20, 8)?, field(0x36, 2)?, field(0x38, 2)?);
    (0..count).find_map(|index| {
        let header = table.checked_add(index * size)?;
        if field(header, 4)? != PT_INTERP {
            return None;
        }
        let (offset, bytes) = (field(header.checked_add(0x08)?, 8)?, field(header.checked_add(0x20)?, 8)?);
        let mut path = vec![0; usize::try_from(bytes).ok().filter(|bytes| *bytes <= 4_096)?];
        file.read_exact_at(&mut path, offset).ok()?;
        let path = String::from_utf8(path).ok()?;
        Some(PathBuf::from(path.trim_end_matches('\0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_loader_and_libraries_are_found() {
        let program = Program::load(Path::new("/bin/sh")).expect("a shell");
        let loader = program.loader.clone().expect("a loader");
        assert!(loader.is_absolute() && loader.exists(), "{loader:?}");
        let libraries = program.libraries();
        assert!(libraries.iter().any(|path| path.to_string_lossy().contains("libc")), "{libraries:?}");
        assert!(libraries.iter().all(|path| path.exists()), "{libraries:?}");
    }

    #[test]
    fn the_lists_of_both_loaders_are_read() {
        let glibc =
            "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n\t/lib64/ld.so (0x00007f)\n";
        assert_eq!(libraries_in(glibc), ["/lib/x/libm.so.6", "/lib64/ld.so"].map(PathBuf::from));
        let musl = "\t/lib/ld-musl-x86_64.so.1 (0x7f)\n\tlibc.so => /lib/ld-musl-x86_64.so.1 (0x7f)\n";
        assert_eq!(libraries_in(musl), ["/lib/ld-musl-x86_64.so.1"; 2].map(PathBuf::from));
        assert!(libraries_in("\tlibx.so => not found\n\tstatically linked\n").is_empty());
    }

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

    /// Headers that lie about their own file must not be followed.
    #[test]
    fn a_damaged_header_names_no_loader() {
        let sound = std::fs::read("/bin/sh").expect("a shell");
        for at in 0..64 {
            for value in [0x00, 0x7f, 0xff] {
                let mut damaged = sound[..4_096].to_vec();
                damaged[at] = value;
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(&damaged).expect("write");
                let _ = loader_of(&file);
            }
        }
    }
}
