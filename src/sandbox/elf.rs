//! The loader and the libraries that a program asks for: read from its headers, with nothing run.
//!
//! A loader that is told to list the libraries maps the program, whose own code that can run. So its rules are followed here instead (ld.so(8)),
//! with one difference: every file that a rule could lead to is named, not only the one that the loader would take. The worker's own loader
//! then chooses among them, inside the sandbox. Owns those rules. It must never run a program, or name a file that others than root and this
//! user can change.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use object::Endianness;
use object::elf::{self, DynamicTag, FileHeader64, Machine, ProgramType};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, StringTable};

use crate::files::process;

/// Loaders lie below these, and nowhere else.
const LOADER_DIRECTORIES: [&str; 8] =
    ["/lib", "/lib64", "/lib32", "/libx32", "/usr/lib", "/usr/lib64", "/nix/store", "/gnu/store"];
/// Where loaders look if nothing names another place: both C libraries, with and without Debian's directory for the
/// architecture.
const LIBRARY_DIRECTORIES: [&str; 5] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"];
/// Below each of them: variants for newer processors, which the loader prefers.
const VARIANTS: [&str; 4] = ["", "glibc-hwcaps/x86-64-v4", "glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v2"];
/// The list of the system's libraries that ldconfig(8) writes.
pub(super) const LOADER_CACHE: &str = "/etc/ld.so.cache";
/// The list is read up to here; a system with thousands of libraries has less than 1 MiB.
const CACHE_BYTES_MAX: u64 = 16 << 20;
/// Sections of an ELF file that are larger are not read. A path has at most 4096 bytes, a table of 16 bytes an entry some tens of
/// entries, a table of names some hundred KiB.
const PATH_BYTES_MAX: u64 = 4_096;
const TABLE_BYTES_MAX: u64 = 64 * 1024;
const NAMES_BYTES_MAX: u64 = 16 << 20;
/// No worker needs so many libraries.
const LIBRARIES_MAX: usize = 64;

/// The loader and libraries that a file's headers ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct Needs {
    /// `PT_INTERP`.
    pub(super) loader: Option<PathBuf>,
    machine: Machine,
    /// `DT_NEEDED`.
    names: Vec<String>,
    /// `DT_RPATH` and `DT_RUNPATH`: where to look first.
    directories: Vec<PathBuf>,
}

impl Needs {
    /// The needs of an ELF file of 64 bits; `None` for any other file, and for headers that lie about their file.
    pub(super) fn of(file: &File) -> Option<Self> {
        let data = ReadCache::new(file);
        let header = FileHeader64::<Endianness>::parse(&data).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, &data).ok()?;
        let mut needs = Self { machine: header.e_machine(endian), ..Self::default() };
        let of_type = |kind: ProgramType, bytes_max: u64| {
            segments
                .iter()
                .find(|segment| segment.p_type(endian) == kind)
                .filter(move |segment| segment.p_filesz(endian) <= bytes_max)
        };
        if let Some(segment) = of_type(elf::PT_INTERP, PATH_BYTES_MAX)
            && let Ok(Some(path)) = segment.interpreter(endian, &data)
        {
            needs.loader = Some(PathBuf::from(std::str::from_utf8(path).ok()?));
        }
        let Some(table) = of_type(elf::PT_DYNAMIC, TABLE_BYTES_MAX) else { return Some(needs) };
        let table = table.dynamic(endian, &data).ok()??;
        let value =
            |tag: DynamicTag| table.iter().find(|entry| entry.d_tag(endian) == tag).map(|entry| entry.d_val(endian));
        let (Some(address), Some(bytes)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else { return Some(needs) };
        if bytes > NAMES_BYTES_MAX {
            return None;
        }
        let at = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr(endian))?;
            (within < segment.p_filesz(endian)).then(|| segment.p_offset(endian).checked_add(within))?
        })?;
        let names = StringTable::new(&data, at, at.checked_add(bytes)?);
        let name =
            |offset: u64| -> Option<&str> { std::str::from_utf8(names.get(u32::try_from(offset).ok()?).ok()?).ok() };
        for entry in table {
            match entry.d_tag(endian) {
                elf::DT_NEEDED => needs.names.extend(name(entry.d_val(endian)).map(str::to_owned)),
                elf::DT_RPATH | elf::DT_RUNPATH => {
                    // A worker is run from memory, so `$ORIGIN`, the directory that a program lies in, names nothing.
                    let directories = name(entry.d_val(endian)).unwrap_or_default().split(':').map(PathBuf::from);
                    needs.directories.extend(directories.filter(|directory| is_plain(directory)));
                }
                _ => {}
            }
        }
        Some(needs)
    }
}

/// Whether a loader is one of the system's: below a directory for libraries, and only the system's administrator
/// and this user can change it. The error says which path is in the way, and why.
pub(super) fn is_of_the_system(loader: &Path) -> io::Result<()> {
    let refused = |why: String| {
        let what = format!("it is to be loaded by {}, {why}", loader.display());
        io::Error::new(io::ErrorKind::PermissionDenied, what)
    };
    let is_below = |path: &Path| LOADER_DIRECTORIES.iter().any(|directory| path.starts_with(directory));
    if !is_plain(loader) || !is_below(loader) {
        return Err(refused("which is in none of the system's directories for libraries".to_owned()));
    }
    let real = loader.canonicalize().map_err(|error| refused(format!("which can't be opened: {error}")))?;
    if !is_below(&real) {
        return Err(refused(format!("a link to {}, which is in none of the system's directories", real.display())));
    }
    for path in real.ancestors() {
        let facts = fs::metadata(path).map_err(|error| refused(format!("and {}: {error}", path.display())))?;
        let is_sticky = facts.mode() & 0o1000 != 0;
        let is_open = facts.mode() & 0o002 != 0 || facts.mode() & 0o020 != 0 && facts.gid() != 0 && !is_sticky;
        if !is_administrators(facts.uid()) || is_open {
            return Err(refused(format!("and others than root can change {}", path.display())));
        }
    }
    Ok(())
}

/// Root, this user, or the stand-in for root where root has no number: in a user namespace without root, all users that it does not
/// have look the same (user_namespaces(7)).
fn is_administrators(user: u32) -> bool {
    const NOT_MAPPED: u32 = 65_534;
    let has_root = || process::user_ranges().iter().any(|range| range.outside == 0);
    user == 0 || user == rustix::process::geteuid().as_raw() || user == NOT_MAPPED && !has_root()
}

/// The files that the loader of a program may take for its libraries, and for theirs.
pub(super) fn libraries(needs: Needs) -> BTreeSet<PathBuf> {
    let cache = Cache::read(Path::new(LOADER_CACHE));
    let machine = needs.machine;
    let mut found = BTreeSet::new();
    let mut asked = BTreeSet::new();
    let beside_the_loader = needs.loader.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let mut open = vec![needs];
    while let Some(needs) = open.pop() {
        for name in needs.names {
            if !asked.insert((name.clone(), needs.directories.clone())) {
                continue;
            }
            let directories = needs.directories.iter().chain(&beside_the_loader);
            for path in candidates(&name, directories, &cache) {
                if found.len() == LIBRARIES_MAX || found.contains(&path) {
                    continue;
                }
                if let Some(needs) = library(&path).filter(|needs| needs.machine == machine) {
                    found.insert(path);
                    open.push(needs);
                }
            }
        }
    }
    found
}

/// A library's own needs, if it is one and belongs to the system.
fn library(path: &Path) -> Option<Needs> {
    let facts = fs::metadata(path).ok()?;
    if !facts.is_file() || !is_administrators(facts.uid()) || facts.mode() & 0o002 != 0 {
        return None;
    }
    Needs::of(&File::open(path).ok()?)
}

fn candidates<'a>(name: &str, directories: impl Iterator<Item = &'a PathBuf>, cache: &Cache) -> Vec<PathBuf> {
    let plain = |path: PathBuf| is_plain(&path).then_some(path);
    if name.contains('/') {
        return plain(PathBuf::from(name)).into_iter().collect();
    }
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let built_in = LIBRARY_DIRECTORIES.iter().flat_map(|directory| {
        let directory = Path::new(directory);
        [directory.join(&triple), directory.to_owned()]
    });
    let mut paths: Vec<PathBuf> = directories.cloned().chain(built_in).collect();
    paths = paths.iter().flat_map(|directory| VARIANTS.map(|variant| directory.join(variant).join(name))).collect();
    paths.extend(cache.paths(name));
    paths.into_iter().filter_map(plain).collect()
}

/// Absolute, and without `.` and `..`: what it says is where it leads.
fn is_plain(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    path.is_absolute()
        && !text.contains(&b'\0')
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// The list of ldconfig(8) on this system: names of libraries, each with a file. The form is that of glibc's
/// `sysdeps/generic/dl-cache.h`: a head of 48 bytes, entries of 24 bytes, texts.
#[derive(Debug, Default)]
struct Cache {
    bytes: Vec<u8>,
}

impl Cache {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const HEAD: usize = 48;
    const ENTRY: usize = 24;

    fn read(path: &Path) -> Self {
        use std::io::Read;
        let mut bytes = Vec::new();
        // A system without one (musl's) has no such file.
        let read = File::open(path).and_then(|file| file.take(CACHE_BYTES_MAX).read_to_end(&mut bytes));
        if read.is_err() { Self::default() } else { Self::of(&bytes) }
    }

    /// Older systems have a list in another form before it.
    fn of(bytes: &[u8]) -> Self {
        let at = bytes.windows(Self::MAGIC.len()).position(|window| window == Self::MAGIC);
        Self { bytes: at.map(|at| bytes[at..].to_vec()).unwrap_or_default() }
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()
    }

    fn text(&self, at: usize) -> Option<&str> {
        let rest = self.bytes.get(at..)?;
        std::str::from_utf8(&rest[..rest.iter().position(|byte| *byte == 0)?]).ok()
    }

    /// The files of a name.
    fn paths(&self, name: &str) -> Vec<PathBuf> {
        let fits = self.bytes.len().saturating_sub(Self::HEAD) / Self::ENTRY;
        let count = self.number(Self::MAGIC.len()).unwrap_or_default().min(fits);
        let entries = (0..count).map(|index| Self::HEAD + index * Self::ENTRY);
        entries
            .filter(|at| self.number(at + 4).and_then(|at| self.text(at)) == Some(name))
            .filter_map(|at| self.text(self.number(at + 8)?).map(PathBuf::from))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn needs(path: &str) -> Needs {
        Needs::of(&File::open(path).expect("a file")).expect("an ELF file")
    }

    #[test]
    fn a_loader_and_libraries_are_found() {
        let needs = needs("/bin/sh");
        let loader = needs.loader.clone().expect("a loader");
        is_of_the_system(&loader).expect("the system's");
        let libraries = libraries(needs);
        assert!(libraries.iter().any(|path| path.to_string_lossy().contains("libc")), "{libraries:?}");
        assert!(libraries.iter().all(|path| path.is_file()), "{libraries:?}");
    }

    /// Where this system's loader can be asked, it names no file that is not found here: for the programs of the system,
    /// which depend on no other directory.
    #[test]
    fn what_the_systems_loader_would_take_is_among_them() {
        for program in ["/bin/sh", "/bin/ls", "/usr/bin/env", "/usr/bin/openssl", "/usr/bin/gdb", "/usr/bin/git"] {
            if !Path::new(program).exists() {
                continue;
            }
            let needs = needs(program);
            let loader = needs.loader.clone().expect("a loader");
            let out = std::process::Command::new(&loader).arg("--list").arg(program).output().expect("a list");
            let list = String::from_utf8_lossy(&out.stdout).into_owned();
            let found = libraries(needs);
            for line in list.lines().filter(|line| line.contains("=> /")) {
                let path = line.split_once("=> ").expect("a path").1.split(" (0x").next().expect("a path");
                assert!(found.contains(Path::new(path)) || found.len() == LIBRARIES_MAX, "{program}: {path} {found:?}");
            }
        }
    }

    #[test]
    fn a_loader_from_elsewhere_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join("ld.so");
        fs::copy("/bin/sh", &own).expect("copy");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).expect("chmod");
        let own = own.to_str().expect("text");
        for (loader, says) in [
            (own, "in none of the system's directories"),
            ("ld.so", "in none of the system's directories"),
            ("", "in none of the system's directories"),
            ("/lib/../tmp/ld.so", "in none of the system's directories"),
            ("/lib/no-such-loader.so", "can't be opened"),
        ] {
            let error = is_of_the_system(Path::new(loader)).expect_err(loader).to_string();
            assert!(error.contains(says), "{loader}: {error}");
        }
    }

    #[test]
    fn the_list_of_ldconfig_is_read() {
        let mut bytes = b"ld.so-1.7.0\0 and what an older loader reads\0".to_vec();
        let mut list = Cache::MAGIC.to_vec();
        list.extend(2_u32.to_ne_bytes());
        list.resize(Cache::HEAD, 0);
        let texts = Cache::HEAD + 2 * Cache::ENTRY;
        for (key, value) in [(0_u32, 5_u32), (0, 12)] {
            let place = |at: u32| (u32::try_from(texts).expect("small") + at).to_ne_bytes();
            list.extend([[0; 4], place(key), place(value)].concat());
            list.resize(list.len() + 12, 0);
        }
        list.extend(b"libm\0/lib/m\0/opt/m\0");
        bytes.extend(&list);
        let cache = Cache::of(&bytes);
        assert_eq!(cache.paths("libm"), ["/lib/m", "/opt/m"].map(PathBuf::from));
        assert_eq!(cache.paths("libc"), Vec::<PathBuf>::new());
        for length in 0..list.len() {
            let _ = Cache::of(&list[..length]).paths("libm");
        }
        for at in 0..list.len() {
            let mut damaged = list.clone();
            damaged[at] = 0xff;
            let _ = Cache::of(&damaged).paths("libm");
        }
    }

    /// Headers that lie about their own file must not be followed.
    #[test]
    fn damaged_headers_are_no_trouble() {
        let sound = fs::read("/bin/sh").expect("a shell");
        for at in 0..1_024 {
            for value in [0x00, 0x7f, 0xff] {
                let mut damaged = sound[..sound.len().min(64 << 10)].to_vec();
                damaged[at] = value;
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(&damaged).expect("write");
                let _ = Needs::of(&file);
            }
        }
    }
}
