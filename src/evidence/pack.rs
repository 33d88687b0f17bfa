//! One file of a folder, to be sent, and back. The file is a tar in zstd; what is in the folder is compressed already.
//!
//! Owns what is put into such a file and what is made of one. All of it is proved before anything has its name; what does not pass leaves
//! nothing behind. [`super::archive`] reads such files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::files::{prove, read_unlisted};
use super::folder::{Content, FromStart};
use super::manifest::{Seen, WorkerColumn};
use super::names::{ENDING, form_of};
use super::{Case, EvidenceError};
use crate::files::publish::{self, Staged};

/// The level hardly matters: what is big is compressed already. Its window is far smaller than what is refused.
const LEVEL: i32 = 1;
/// How an image begins, after the four bytes of its size.
const IMAGE_MAGIC: &[u8] = b"XS_M";

/// Packs a folder into a new file. Gives the files of the folder that evidence does not have: they are not packed.
///
/// # Errors
/// When it is no evidence, or can't be read or written, or the file is there already.
pub fn pack(folder: &Path, to: &Path) -> Result<Vec<String>, EvidenceError> {
    let case = Case::open(folder)?;
    prove_all(&case, false)?;
    let id = &case.manifest.id;
    publish::create(to, |file| {
        let mut tar = tar::Builder::new(zstd::Encoder::new(file, LEVEL)?);
        let mut directory = header(0);
        directory.set_entry_type(tar::EntryType::Directory);
        directory.set_mode(0o755);
        tar.append_data(&mut directory, format!("{id}/"), io::empty())?;
        for name in names(&case) {
            let Some(stored) = case.folder().stored(name)? else { continue };
            // Should it grow meanwhile, the rest is not taken.
            let size = stored.metadata()?.len();
            tar.append_data(&mut header(size), format!("{id}/{name}"), FromStart::of(stored).take(size))?;
        }
        tar.into_inner()?.finish()?;
        Ok(())
    })
    .map_err(EvidenceError::io("pack into", to))?;
    Ok(case.folder().left_out.clone())
}

/// Of a file, the same for the same content.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Unpacks a file into a new folder below a directory, and gives the folder.
///
/// # Errors
/// When it is no packed evidence or was changed, or the folder is there already.
pub fn unpack(file: &Path, to: &Path) -> Result<PathBuf, EvidenceError> {
    if !to.is_dir() {
        let source = io::Error::new(io::ErrorKind::NotFound, "it is no directory; make it first");
        return Err(EvidenceError::io("unpack into", to)(source));
    }
    let case = Case::open(file)?;
    prove_all(&case, true)?;
    let target = to.join(&case.manifest.id);
    let unpack = || -> io::Result<()> {
        let staged = Staged::new(&target)?;
        for name in names(&case) {
            let Some(stored) = case.folder().stored(name)? else { continue };
            let path = staged.path().join(name);
            if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
                fs::create_dir(parent)?;
            }
            let mut file = File::create_new(&path)?;
            io::copy(&mut FromStart::of(stored), &mut file)?;
            file.sync_all()?;
        }
        staged.publish()
    };
    unpack().map_err(EvidenceError::io("unpack to", &target))?;
    Ok(target)
}

/// The files that are packed and unpacked: those that were proved.
fn names(case: &Case) -> impl Iterator<Item = &String> {
    let is_unlisted = |name: &str| form_of(name).is_some_and(|form| !form.is_listed);
    case.folder().sizes.keys().filter(move |name| case.manifest.files.contains_key(*name) || is_unlisted(name))
}

/// Proves each file that the manifest lists, and looks at each of the others. `is_strict`: there must be no others than the format has.
fn prove_all(case: &Case, is_strict: bool) -> Result<(), EvidenceError> {
    let (folder, manifest) = (case.folder(), &case.manifest);
    let damaged =
        |name: &str, why: &str| EvidenceError::Damaged { path: folder.path().join(name), why: why.to_owned() };
    for (stored, entry) in &manifest.files {
        if !folder.sizes.contains_key(stored) {
            return Err(damaged(stored, "it is gone, and the manifest lists it"));
        }
        let name = stored.strip_suffix(ENDING).unwrap_or(stored);
        prove(folder, entry, name, &folder.path().join(stored), |_| ())?;
    }
    for stored in folder.sizes.keys().filter(|stored| !manifest.files.contains_key(*stored)) {
        let Some(form) = form_of(stored) else { continue };
        if form.is_listed {
            // A folder may have more than is read; nobody packs by accident what is not listed.
            if is_strict {
                return Err(damaged(stored, "the manifest does not list it"));
            }
            continue;
        }
        let is_right = if form.is_probe() {
            begins_as_an_image(case, stored)
        } else {
            let text = read_unlisted(folder, stored).map_err(EvidenceError::io("read", folder.path().join(stored)))?;
            let text = text.unwrap_or_default();
            match &stored[..] {
                "seen.json" => serde_json::from_slice::<Seen>(&text).is_ok(),
                "workers.json" => serde_json::from_slice::<Vec<WorkerColumn>>(&text).is_ok(),
                _ => true,
            }
        };
        if !is_right {
            return Err(damaged(stored, "it is not what its name says"));
        }
    }
    Ok(())
}

/// Whether a heap that `bisect` left looks like one. No hash of it is known.
fn begins_as_an_image(case: &Case, stored: &str) -> bool {
    let name = stored.strip_suffix(ENDING).unwrap_or(stored);
    let Ok(Some(Content { mut reader, .. })) = case.folder().content(name) else { return false };
    let mut begin = [0; 8];
    reader.read_exact(&mut begin).is_ok() && begin.ends_with(IMAGE_MAGIC)
}
