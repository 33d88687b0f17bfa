//! The files that a worker needs: Landlock allows them, and the root of its mount namespace holds them.
//!
//! Owns the list. It must never name a file that the program, its time zone or its memory allocator does not need.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::elf::LOADER_CACHE;
use super::program::Program;

/// The directory in which libc looks for time zones (tzset(3)). Without them, every zone is silently UTC.
pub(crate) const ZONES: &str = "/usr/share/zoneinfo";
const LOCAL_ZONE: &str = "/etc/localtime";
/// The file from which libc learns the limits of the stack. Without it, code that recurses too deep is a crash and not an error that
/// code can catch.
pub(super) const MAPS: &str = "/proc/self/maps";

/// The files from which libc learns whether the system has huge pages on request, and their size.
const HUGE_PAGES: [&str; 2] =
    ["/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"];

/// Paths, each of a file that exists.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// To read and to run: the loader and the libraries.
    pub(super) code: BTreeSet<PathBuf>,
    /// To read: files, and directories with all below them.
    pub(super) data: BTreeSet<PathBuf>,
}

impl Files {
    /// The files that a program needs in a time zone, and to ask for huge pages.
    ///
    /// # Errors
    /// When the program's loader is not one of the system's.
    pub(super) fn of(program: &Program, zone: &OsStr, huge_pages: bool) -> io::Result<Self> {
        let loader = program.loader()?.map(Path::to_path_buf);
        let code = loader.into_iter().chain(program.libraries()).collect();
        let data = [LOADER_CACHE, LOCAL_ZONE, ZONES].into_iter().chain(HUGE_PAGES.into_iter().filter(|_| huge_pages));
        let data = data.map(PathBuf::from).chain(zone_file(zone)).filter(|path| path.exists()).collect();
        Ok(Self { code, data })
    }
}

/// The file that a value of `TZ` names by its path, if it does (`:` may stand before it).
fn zone_file(zone: &OsStr) -> Option<PathBuf> {
    let bytes = zone.as_bytes();
    let path = Path::new(OsStr::from_bytes(bytes.strip_prefix(b":").unwrap_or(bytes)));
    (path.is_absolute() && path.is_file()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_may_be_a_file() {
        assert_eq!(zone_file(OsStr::new("UTC")), None);
        assert_eq!(zone_file(OsStr::new("/no/such/file")), None);
        assert_eq!(zone_file(OsStr::new(":/etc/passwd")), Some(PathBuf::from("/etc/passwd")));
    }

    #[test]
    fn only_what_is_there_is_named() {
        let program = Program::load(Path::new("/bin/sh")).expect("a shell");
        let files = Files::of(&program, OsStr::new("UTC"), true).expect("files");
        assert!(files.code.len() >= 2 && files.code.iter().all(|path| path.is_file()), "{files:?}");
        assert!(files.data.iter().all(|path| path.exists()), "{files:?}");
    }
}
