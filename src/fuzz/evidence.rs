//! Evidence that a stranger made: the packed file, and a whole case with all that is told of it.

use std::fs::File;
use std::io::Write;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::evidence::{Case, archive};
use crate::forensics::explain::explain;
use crate::forensics::{Account, html};
use crate::transcript::{Items, sha256};

const BLOCK: usize = 512;
const ID: &str = "v1.6.11-be2d8c99";

/// What an archive gives are files with known names, no longer together than what was packed. The input's first byte says whether the rest
/// is a tar, to be packed here, with the sums of its headers made right or not.
pub(super) fn tar(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let packed = match choice % 3 {
        0 => pack(&with_right_sums(rest)),
        1 => pack(rest),
        _ => rest.to_vec(),
    };
    let unpacked = match archive::read(&packed[..]) {
        Ok(unpacked) => unpacked,
        Err(why) => return assert!(!why.is_empty()),
    };
    let size = |file: &File| file.metadata().expect("an open file").len();
    let bytes: u64 = unpacked.files.values().map(size).sum();
    assert!(!unpacked.files.is_empty());
    assert!(choice % 3 == 2 || bytes <= rest.len() as u64, "{bytes} bytes");
    for name in unpacked.files.keys().chain([&unpacked.id]) {
        assert!(!name.starts_with('/') && name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{name:?}");
        assert!(!name.contains(crate::visible::is_hidden), "{name:?}");
    }
}

fn pack(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).expect("in memory")
}

/// A tar in which each header that is found by the sizes of those before it has the sum that it should have.
fn with_right_sums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + BLOCK) {
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let size = usize::try_from(header.entry_size().unwrap_or(0)).unwrap_or(usize::MAX);
        at = at.saturating_add(BLOCK).saturating_add(size.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX));
        if at > tar.len() {
            break;
        }
    }
    tar
}

/// Whatever is opened as a case can be explained and shown. The input is a manifest and files, each after a line `== NAME`. Its first byte
/// says whether the hashes, sizes and bounds in the manifest are made right for the files.
pub(super) fn evidence(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let mut sections = sections(rest);
    let (_, mut manifest) = sections.remove(0);
    if choice % 2 == 0 {
        manifest = repaired(&manifest, &sections, choice % 4 == 0).unwrap_or(manifest);
    }
    sections.insert(0, ("manifest.json", manifest));
    let Some(tar) = tar_of(&sections) else { return };
    let path = SCRATCH.path().join("packed");
    let mut file = File::create(&path).expect("a directory of our own");
    file.write_all(&pack(&tar)).expect("room");
    match Case::open(&path) {
        Ok(case) => tell(&case),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// One file, written again for each input.
static SCRATCH: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::Builder::new().prefix("spanwatch-fuzz-").tempdir().expect("a temporary directory"));

/// What stands before the first line `== NAME`, and after each.
fn sections(input: &[u8]) -> Vec<(&str, Vec<u8>)> {
    let mut sections: Vec<(&str, Vec<u8>)> = vec![("", Vec::new())];
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let name = line.strip_prefix(b"== ").and_then(|name| std::str::from_utf8(name).ok());
        match (name, sections.last_mut()) {
            (Some(name), _) => sections.push((name.trim_end(), Vec::new())),
            (None, Some((_, content))) => content.extend_from_slice(line),
            (None, None) => {}
        }
    }
    sections
}

/// The manifest with what the files' contents imply.
fn repaired(manifest: &[u8], files: &[(&str, Vec<u8>)], with_bounds: bool) -> Option<Vec<u8>> {
    let mut manifest: Value = serde_json::from_slice(manifest).ok()?;
    let facts = manifest.as_object_mut()?;
    let mut entries = serde_json::Map::new();
    for (name, content) in files {
        let hash = sha256(content);
        if !matches!(*name, "seen.json" | "workers.json") {
            entries.insert((*name).to_owned(), json!({ "bytes": content.len(), "sha256": hash }));
        }
        if *name == "base.xss" {
            let image = facts.get_mut("start").and_then(|start| start.get_mut("image"))?;
            *image = json!({ "sha256": hash, "bytes": content.len() });
        }
        if *name == "recorded.jsonl" {
            let mut items = Items::default();
            for line in content.split_inclusive(|byte| *byte == b'\n') {
                items.push(line.strip_suffix(b"\n").unwrap_or(line));
            }
            let span = facts.get_mut("span")?.as_object_mut()?;
            span.insert("items".to_owned(), items.iter().map(<[u8]>::len).collect());
            span.insert("hash".to_owned(), json!(items.hash()));
            if with_bounds {
                let start = span.get("start").and_then(Value::as_u64).unwrap_or_default();
                let end = start.saturating_add(items.len() as u64);
                span.insert("seen_to".to_owned(), end.into());
                span.insert("end".to_owned(), end.into());
            }
        }
    }
    facts.insert("files".to_owned(), Value::Object(entries));
    serde_json::to_vec(&manifest).ok()
}

/// A folder as it is packed; `None` where a tar cannot have such a name.
fn tar_of(files: &[(&str, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{ID}/{name}"), &content[..]).ok()?;
    }
    tar.into_inner().ok()
}

/// Everything that is told of a case: no panic, and no tag in the page that a vat wrote.
fn tell(case: &Case) {
    let _ = (case.seen(), case.workers(), case.base(), case.recorded_end(), case.replayed_end());
    for name in ["README.txt", "console.txt", "printed.txt"] {
        let _ = case.text_of(name);
    }
    for outcome in 0..case.manifest.outcomes.len().min(4) {
        let _ = (case.replayed(outcome), case.replayed_start(outcome));
    }
    let Ok(items) = case.items() else { return };
    if let Ok(span) = case.span(&items) {
        let _ = case.beginning(&span, None, &[]);
    }
    let Ok(account) = Account::of(case) else { return };
    let told = [explain(&account, false), explain(&account, true)];
    assert!(told.iter().all(|text| !text.is_empty()));
    serde_json::to_string(&account).expect("it is printed as JSON");
    let page = html::page(&account, &case.manifest);
    for tag in ["<script", "<img", "<iframe"] {
        assert!(!page.contains(tag), "the page has {tag}");
    }
}
