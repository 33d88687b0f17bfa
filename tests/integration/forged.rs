//! Evidence that a stranger made does no harm.
//!
//! Goal: whatever is in an archive or a folder, each command that opens it ends with an error, within its memory, and leaves no file behind
//! nor changes one outside. Method: tables of archives and folders, made from one that version 0.1.0 wrote, each with one thing wrong, and
//! all commands run on each under a limit of memory and of the size of files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::run::{Run, fake_worker, run, spanwatch, text};

const ID: &str = "v1.6.11-be2d8c99";
/// Each process may have so much address space, in KiB. The program alone takes a tenth of it.
const MEMORY_KIB: u64 = 1 << 20;
/// And so much in any file, in KiB: what an archive unpacks to is kept in files.
const FILE_KIB: u64 = 192 << 10;

fn honest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/0.1.0/state/evidence").join(ID)
}

/// The files of honest evidence.
fn files() -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(honest()).expect("the fixture").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| (entry.file_name().into_string().expect("text"), fs::read(entry.path()).expect("read")))
        .collect()
}

fn manifest() -> Value {
    serde_json::from_slice(&files()["manifest.json"]).expect("JSON")
}

/// Where commands run, and where they may leave something.
struct Place {
    dir: tempfile::TempDir,
    worker: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["here", "tmp"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let worker = fake_worker(dir.path(), "ok");
        fs::write(dir.path().join("precious"), "precious").expect("write");
        Self { dir, worker }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let script = format!("ulimit -v {MEMORY_KIB}; ulimit -f {FILE_KIB}; exec \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_spanwatch")]).args(arguments);
        command.current_dir(self.path("here")).env("TMPDIR", self.path("tmp"));
        command.env_remove("SPANWATCH_WORKER").env_remove("RUST_BACKTRACE").env_remove("TZ");
        run(command)
    }

    /// Everything that is there: kind, mode and content of each file, and where links lead.
    fn state(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut state = BTreeMap::new();
        let mut left = vec![self.dir.path().to_owned()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).expect("list") {
                let path = entry.expect("an entry").path();
                let meta = fs::symlink_metadata(&path).expect("meta");
                let content = match meta.file_type() {
                    kind if kind.is_dir() => {
                        left.push(path.clone());
                        Vec::new()
                    }
                    kind if kind.is_file() && meta.len() < 1 << 20 => fs::read(&path).expect("read"),
                    _ => Vec::new(),
                };
                state.insert(path, (meta.mode(), content));
            }
        }
        state
    }

    /// Each command that opens evidence.
    fn commands(&self, evidence: &str, is_archive: bool) -> Vec<Vec<String>> {
        let worker = text(&self.worker);
        let images = [format!("{evidence}:base"), format!("{evidence}:recorded")];
        let mut commands: Vec<Vec<&str>> = vec![
            vec!["explain", evidence],
            vec!["replay", evidence, "--worker", worker, "--repeats", "1", "--sandbox", "off"],
            vec!["bisect", evidence, "--worker", worker, "--worker", worker, "--sandbox", "off"],
            vec!["report", evidence],
            vec!["export", evidence, "--sst", "transcript.sst"],
            vec!["export", evidence, "--xsnap-trace", "trace"],
            vec!["evidence", "pack", evidence, "packed"],
            vec!["snapshot", "diff", &images[0], &images[1]],
        ];
        if is_archive {
            commands.push(vec!["evidence", "unpack", evidence]);
        }
        commands.into_iter().map(|command| command.into_iter().map(str::to_owned).collect()).collect()
    }

    /// All of them, or those with one of these beginnings, refuse it and leave nothing.
    fn refuse(&self, what: &str, evidence: &str, is_archive: bool, only: &[&str], says: &str) {
        let before = self.state();
        for command in self.commands(evidence, is_archive) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            if !only.is_empty() && !only.iter().any(|only| words.join(" ").starts_with(only)) {
                continue;
            }
            let run = self.run(&words);
            assert_eq!(run.code, 1, "{what}, {words:?}: {}{}", run.out, run.err);
            assert!(run.err.contains(says), "{what}, {words:?}: {says:?} is not in {}", run.err);
            assert!(!run.err.contains(|one: char| one != '\n' && one.is_control()), "{what}, {words:?}: {:?}", run.err);
            let after = self.state();
            assert!(
                after == before,
                "{what}, {words:?} left {:?}",
                after.keys().filter(|path| !before.contains_key(*path)).collect::<Vec<_>>()
            );
        }
    }
}

/// An archive that is being forged.
#[derive(Default)]
struct Forged(Vec<u8>);

impl Forged {
    /// All files of honest evidence, with some of them replaced, or taken away if there is nothing in their place.
    fn honest(replaced: &[(&str, Option<&[u8]>)]) -> Self {
        let mut files = files();
        for (name, content) in replaced {
            match content {
                Some(content) => drop(files.insert((*name).to_owned(), content.to_vec())),
                None => drop(files.remove(*name)),
            }
        }
        let mut forged = Self::default();
        for (name, content) in files {
            forged.file(&format!("{ID}/{name}"), &content);
        }
        forged
    }

    fn file(&mut self, name: &str, content: &[u8]) -> &mut Self {
        self.entry(name.as_bytes(), b'0', 0o644, content.len() as u64, content)
    }

    /// An entry whose header says what it likes.
    fn entry(&mut self, name: &[u8], kind: u8, mode: u32, size: u64, content: &[u8]) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_mode(mode);
        header.set_size(size);
        header.set_entry_type(tar::EntryType::new(kind));
        if matches!(kind, b'1' | b'2') {
            header.set_link_name("/etc/passwd").expect("a short name");
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = self.0.clone();
        tar.resize(tar.len() + 1024, 0);
        tar
    }

    fn packed(&self) -> Vec<u8> {
        packed(&self.tar())
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("in memory")
}

/// So many zeros, compressed.
fn zeros(mib: usize) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("in memory");
    for _ in 0..mib {
        encoder.write_all(&[0; 1 << 20]).expect("in memory");
    }
    encoder.finish().expect("in memory")
}

/// Of a manifest with one thing changed.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest = manifest();
    change(&mut manifest);
    manifest.to_string().into_bytes()
}

/// Archives that are not what the packer writes, with what is said of each.
fn forged_archives() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |add: &dyn Fn(&mut Forged) -> &mut Forged| {
        let mut forged = Forged::honest(&[]);
        add(&mut forged);
        forged.packed()
    };
    let entry = |name: &'static str, kind: u8, mode: u32| {
        with(&move |forged| forged.entry(format!("{ID}/{name}").as_bytes(), kind, mode, 0, b""))
    };
    let at = |name: &'static [u8]| with(&move |forged| forged.entry(name, b'0', 0o644, 1, b"x"));
    let honest = Forged::honest(&[]);
    let mut windowed = zstd::Encoder::new(Vec::new(), 1).expect("in memory");
    windowed.window_log(27).expect("a window");
    windowed.write_all(&honest.tar()).expect("in memory");
    let mut broken = honest.tar();
    broken[0] ^= 1;
    let mut sparse = tar::Header::new_gnu();
    sparse.set_entry_type(tar::EntryType::GNUSparse);
    let pax = |kind: u8| with(&move |forged| forged.entry(b"PaxHeader", kind, 0o644, 20, b"20 size=10737418240\n"));
    let unknown = "evidence has no file of that name";
    vec![
        (
            "a long name of 64 MiB",
            with(&|forged| forged.entry(b"././@LongLink", b'L', 0o644, 64 << 20, &vec![b'x'; 64 << 20])),
            "none has more than 256",
        ),
        (
            "a long name that claims 5 GiB",
            with(&|forged| forged.entry(b"././@LongLink", b'L', 0o644, 5 << 30, b"")),
            "none has more than 256",
        ),
        (
            "a long name after a long name",
            with(&|forged| {
                forged.entry(b"././@LongLink", b'L', 0o644, 1, b"x").entry(b"././@LongLink", b'L', 0o644, 1, b"x")
            }),
            "two names for one file",
        ),
        ("a long name and no file", with(&|forged| forged.entry(b"././@LongLink", b'L', 0o644, 1, b"x")), "it is cut"),
        ("a long link", entry("x", b'K', 0o644), "an extension of tar"),
        ("pax", pax(b'x'), "its folder is called PaxHeader"),
        ("pax below the folder", entry("x", b'x', 0o644), "an extension of tar"),
        ("pax for all", pax(b'g'), "its folder is called PaxHeader"),
        ("a sparse file", entry("base.xss", b'S', 0o644), "an extension of tar"),
        ("a file in the old form of many volumes", entry("base.xss", b'M', 0o644), "an extension of tar"),
        (
            "200,000 directories",
            with(&|forged| {
                for _ in 0..200_000 {
                    forged.entry(format!("{ID}/").as_bytes(), b'5', 0o755, 0, b"");
                }
                forged
            }),
            "it holds more than 1024 files",
        ),
        (
            "2,000 bundles",
            with(&|forged| {
                for at in 0..2_000 {
                    forged.file(&format!("{ID}/bundles/b0-{at:064x}"), b"x");
                }
                forged
            }),
            "more than 1024 files",
        ),
        (
            "256 MiB of zeros in 10 KB",
            with(&|forged| {
                forged.entry(format!("{ID}/recorded.xss").as_bytes(), b'0', 0o644, 256 << 20, &vec![0; 256 << 20])
            }),
            "which no packed evidence of its size does",
        ),
        (
            "a file of more bytes than are in it",
            with(&|forged| forged.entry(format!("{ID}/recorded.xss").as_bytes(), b'0', 0o644, 1 << 30, b"")),
            "it is cut",
        ),
        (
            "a file larger than any",
            with(&|forged| forged.entry(format!("{ID}/recorded.xss").as_bytes(), b'0', 0o644, 5 << 30, b"")),
            "such a file has no more than",
        ),
        (
            "a size beyond all numbers",
            with(&|forged| forged.entry(format!("{ID}/recorded.xss").as_bytes(), b'0', 0o644, u64::MAX, b"")),
            "such a file has no more than",
        ),
        ("a window of 128 MiB", windowed.finish().expect("in memory"), "it is damaged"),
        ("a window of 3.75 TiB", [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xFF][..], &[0; 32]].concat(), "it is damaged"),
        ("a hard link", entry("base.xss", b'1', 0o644), "which is a link"),
        ("a symbolic link", entry("base.xss", b'2', 0o644), "which is a link"),
        ("a device", entry("base.xss", b'3', 0o644), "a device or a pipe"),
        ("a disk", entry("base.xss", b'4', 0o644), "a device or a pipe"),
        ("a FIFO", entry("base.xss", b'6', 0o644), "a device or a pipe"),
        ("a program", entry("recorded.xss", b'0', 0o755), "which is a program"),
        ("a program for its group", entry("recorded.xss", b'0', 0o654), "which is a program"),
        ("a program with another's rights", entry("recorded.xss", b'0', 0o4644), "which is a program"),
        ("an absolute name", at(b"/etc/cron.d/x"), "its folder is called ,"),
        ("a name that leads up", at(b"../x"), "its folder is called ..,"),
        ("a name that leads up from the folder", at(b"v1.6.11-be2d8c99/../../x"), unknown),
        ("a name from here", at(b"./v1.6.11-be2d8c99/recorded.xss"), "its folder is called .,"),
        ("a name with an escape", at(b"\x1b[2J\nx/y"), "its folder is called \\u{1b}[2J\\nx,"),
        ("a name that is no text", at(b"v1.6.11-be2d8c99/\xff\xfe"), "\\xff\\xfe, and evidence has no file"),
        ("an xsnap worker", at(b"v1.6.11-be2d8c99/node_modules/@agoric/xsnap/xsnap-worker"), unknown),
        ("a file of a shell", at(b"v1.6.11-be2d8c99/.bashrc"), unknown),
        ("a directory of another name", entry("node_modules/", b'5', 0o755), unknown),
        ("a folder called node_modules", at(b"node_modules/manifest.json"), "its folder is called node_modules,"),
        ("a folder called .ssh", at(b".ssh/authorized_keys"), "its folder is called .ssh,"),
        ("a second folder", at(b"v1.6.11-be2d8c98/recorded.xss"), "several folders"),
        ("a file twice", with(&|forged| forged.file(&format!("{ID}/README.txt"), b"x")), "README.txt twice"),
        ("nothing", Forged::default().packed(), "it is empty"),
        ("not a byte", Vec::new(), "it is"),
        ("no zstd", b"hello, I am not packed evidence".to_vec(), "it is"),
        ("a wrong checksum", packed(&broken), "the checksum of a header is wrong"),
        ("cut", honest.packed()[..honest.packed().len() / 2].to_vec(), "it is"),
        ("cut at the end", honest.packed()[..honest.packed().len() - 1].to_vec(), "it is damaged"),
        ("a tar that is cut", packed(&honest.0), "it is cut"),
        ("a tail in the tar", packed(&[honest.tar(), b"x".to_vec()].concat()), "something follows the last file"),
        (
            "a tail of zeros without end",
            packed(&[honest.tar(), vec![0; 64 << 20]].concat()),
            "something follows the last file",
        ),
        ("a tail", [honest.packed(), b"x".to_vec()].concat(), "something follows the packed evidence"),
        ("a second frame", [honest.packed(), zeros(1)].concat(), "something follows the packed evidence"),
        (
            "a frame to be skipped before it",
            [&[0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &honest.packed()].concat(),
            "it is",
        ),
        (
            "something between a file and the next",
            with(&|forged| forged.entry(format!("{ID}/recorded.xss").as_bytes(), b'0', 0o644, 1, b"xyz")),
            "longer than its header says",
        ),
        ("no manifest", Forged::honest(&[("manifest.json", None)]).packed(), "it has no manifest.json"),
    ]
}

#[test]
fn no_forged_archive_is_opened() {
    let place = Place::new();
    let archive = place.path("archive");
    let mut count = 0;
    for (what, bytes, says) in forged_archives() {
        fs::write(&archive, bytes).expect("write");
        place.refuse(what, text(&archive), true, &[], says);
        count += 1;
    }
    println!("{count} archives refused by 9 commands each");
}

/// Manifests that name what evidence does not have.
fn forged_manifests() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut cases: Vec<(&'static str, Vec<u8>, &'static str)> = Vec::new();
    for file in [
        "/dev/zero",
        "../x",
        "/etc/passwd",
        "manifest.json",
        "seen.json",
        "replayed-1.jsonl",
        "base.xss",
        "recorded.jsonl",
        "",
    ] {
        cases.push((
            "another file for the replay",
            changed(|manifest| manifest["outcomes"][0]["file"] = json!(file)),
            "its manifest names the replay",
        ));
    }
    let entry = manifest()["files"]["README.txt"].clone();
    for file in
        ["../../etc/passwd", "/dev/zero", "manifest.json", "seen.json", "x", "bundles/../x", "bisect/1-first.xss.zst"]
    {
        let entry = entry.clone();
        cases.push((
            "another file",
            changed(|manifest| manifest["files"][file] = entry),
            "its manifest names the file",
        ));
    }
    for id in ["../x", "/tmp/x", "node_modules", "", "v1.6.11-be2d8c99/.."] {
        cases.push(("another ID", changed(|manifest| manifest["id"] = json!(id)), "its manifest names itself"));
    }
    for id in ["../x", "Makefile", "b0-00", "/etc/passwd"] {
        cases.push((
            "another bundle",
            changed(|manifest| manifest["start"]["bundles"] = json!([id])),
            "its manifest names the bundle",
        ));
    }
    let finding = manifest()["outcomes"][0]["findings"][0].clone();
    let outcome = manifest()["outcomes"][0].clone();
    cases.extend([
        (
            "a file twice",
            changed(|manifest| manifest["files"]["README.txt.zst"] = manifest["files"]["README.txt"].clone()),
            "twice, once compressed",
        ),
        (
            "more bytes than such a file has",
            changed(|manifest| manifest["files"]["recorded.jsonl"]["bytes"] = json!(1_u64 << 60)),
            "such a file has no more than",
        ),
        (
            "a million findings",
            changed(|manifest| manifest["outcomes"][0]["findings"] = json!(vec![finding; 20_000])),
            "findings of one replay",
        ),
        (
            "a thousand outcomes",
            changed(|manifest| manifest["outcomes"] = json!(vec![outcome; 1_000])),
            "more than evidence has",
        ),
        ("another vat", changed(|manifest| manifest["span"]["vat"] = json!("../x")), "its vat is"),
        ("no JSON", b"{\"schema\": 1".to_vec(), "is no evidence"),
    ]);
    cases
}

#[test]
fn no_manifest_names_what_evidence_has_not() {
    let place = Place::new();
    let (archive, folder) = (place.path("archive"), place.path(ID));
    for (what, manifest, says) in forged_manifests() {
        fs::write(&archive, Forged::honest(&[("manifest.json", Some(&manifest))]).packed()).expect("write");
        // Each command reads a manifest in the same way; two of them must do, or it would take minutes.
        place.refuse(what, text(&archive), true, &["explain", "evidence unpack"], says);
        copy_of_honest(&folder);
        fs::write(folder.join("manifest.json"), &manifest).expect("write");
        place.refuse(what, text(&folder), false, &["export", "evidence pack"], says);
        fs::remove_dir_all(&folder).expect("remove");
    }
}

fn copy_of_honest(folder: &Path) {
    fs::create_dir(folder).expect("a directory");
    for (name, content) in files() {
        fs::write(folder.join(name), content).expect("write");
    }
}

/// A file that does not agree with the manifest: whoever reads it says so, and nobody packs or unpacks it.
#[test]
fn what_is_not_as_listed_is_neither_packed_nor_unpacked() {
    let place = Place::new();
    let (archive, folder) = (place.path("archive"), place.path(ID));
    let bomb = zeros(512);
    let bomb_manifest = changed(|manifest| manifest["files"]["base.xss.zst"]["bytes"] = json!(512 << 20));
    let many = "console.txt";
    for (what, replaced, says, readers) in [
        ("a file that is gone", vec![("README.txt", None)], "it is gone", &[][..]),
        ("a file that is changed", vec![("README.txt", Some(&b"read me"[..]))], "has not the", &[]),
        ("a file that is not listed", vec![(many, Some(&b"x"[..]))], "the manifest does not list it", &["only unpack"]),
        ("a count that is none", vec![("seen.json", Some(&b"root:x:0"[..]))], "it is not what its name says", &[]),
        ("workers that are none", vec![("workers.json", Some(&b"root:x:0"[..]))], "it is not what its name says", &[]),
        (
            "an image of 512 MiB in 20 KB",
            vec![("base.xss.zst", Some(&bomb[..]))],
            "has not the",
            &["replay", "bisect", "export", "snapshot"],
        ),
        (
            "an image of 512 MiB in 20 KB that is listed",
            vec![("base.xss.zst", Some(&bomb[..])), ("manifest.json", Some(&bomb_manifest[..]))],
            "a file of its name and size has no more than",
            &["replay", "bisect", "export", "snapshot"],
        ),
    ] {
        fs::write(&archive, Forged::honest(&replaced).packed()).expect("write");
        place.refuse(what, text(&archive), true, &["evidence unpack"], says);
        if !readers.contains(&"only unpack") {
            place.refuse(what, text(&archive), true, &["evidence pack"], says);
        }
        copy_of_honest(&folder);
        for (name, content) in &replaced {
            match content {
                Some(content) => fs::write(folder.join(name), content).expect("write"),
                None => fs::remove_file(folder.join(name)).expect("remove"),
            }
        }
        for only in readers.iter().filter(|only| **only != "only unpack") {
            place.refuse(what, text(&folder), false, &[only], "was changed or damaged");
        }
        fs::remove_dir_all(&folder).expect("remove");
    }
}

/// What a folder must not have in it, with what is said of it.
type Trap = (&'static str, fn(&Path), &'static str);

const TRAPS: [Trap; 17] = [
    ("a link for the manifest", |folder| link(folder, "manifest.json"), "a symbolic link"),
    ("a link for the items", |folder| link(folder, "recorded.jsonl"), "a symbolic link"),
    ("a link for the replay", |folder| link(folder, "replayed.jsonl.zst"), "a symbolic link"),
    ("a link for an image", |folder| link(folder, "base.xss.zst"), "a symbolic link"),
    ("a link for the workers", |folder| link(folder, "workers.json"), "a symbolic link"),
    ("a link for the count", |folder| link(folder, "seen.json"), "a symbolic link"),
    ("a link for the text", |folder| link(folder, "README.txt"), "a symbolic link"),
    ("a link of another name", |folder| link(folder, "workers.new"), "a symbolic link"),
    ("a link for the bundles", |folder| symlink("/etc", folder.join("bundles")).expect("a link"), "a symbolic link"),
    ("a link for the heaps", |folder| symlink("../here", folder.join("bisect")).expect("a link"), "a symbolic link"),
    ("a FIFO", |folder| fifo(folder, "replayed.jsonl.zst"), "a FIFO"),
    ("a FIFO for the manifest", |folder| fifo(folder, "manifest.json"), "a FIFO"),
    (
        "a socket",
        |folder| {
            fs::remove_file(folder.join("seen.json")).expect("remove");
            drop(UnixListener::bind(folder.join("seen.json")).expect("a socket"));
        },
        "a socket",
    ),
    (
        "a program",
        |folder| fs::set_permissions(folder.join("README.txt"), fs::Permissions::from_mode(0o755)).expect("a mode"),
        "can be executed",
    ),
    (
        "a tree of modules",
        |folder| fs::create_dir(folder.join("node_modules")).expect("a directory"),
        "node_modules in it can't be used: it is a directory",
    ),
    (
        "2,000 files",
        |folder| (0..2_000).for_each(|at| fs::write(folder.join(format!("{at}")), "").expect("write")),
        "more than 1024 files",
    ),
    (
        "a manifest of 1 TiB",
        |folder| fs::File::create(folder.join("manifest.json")).and_then(|file| file.set_len(1 << 40)).expect("a hole"),
        "such a file has no more than",
    ),
];

fn link(folder: &Path, name: &str) {
    let _ = fs::remove_file(folder.join(name));
    symlink("../precious", folder.join(name)).expect("a link");
}

fn fifo(folder: &Path, name: &str) {
    fs::remove_file(folder.join(name)).expect("remove");
    assert!(Command::new("mkfifo").arg(folder.join(name)).status().expect("mkfifo").success());
}

#[test]
fn no_folder_with_a_trap_in_it_is_opened() {
    let place = Place::new();
    let folder = place.path(ID);
    for (what, set, says) in TRAPS {
        copy_of_honest(&folder);
        set(&folder);
        place.refuse(what, text(&folder), false, &[], says);
        fs::remove_dir_all(&folder).expect("remove");
    }
    // The evidence itself.
    copy_of_honest(&folder);
    let link = place.path("link");
    symlink(&folder, &link).expect("a link");
    place.refuse("a link to a folder", text(&link), false, &[], "a symbolic link");
    fs::remove_file(&link).expect("remove");
    symlink("/dev/zero", &link).expect("a link");
    place.refuse("a link to a device", text(&link), true, &[], "a symbolic link");
    place.refuse("a device", "/dev/zero", true, &[], "a character device");
}

/// Where a command writes, there may be something already: nothing is overwritten that was not asked for, and no link is followed.
#[test]
fn nothing_is_written_through_a_link() {
    let place = Place::new();
    let folder = place.path(ID);
    copy_of_honest(&folder);
    let (evidence, here) = (text(&folder), place.path("here"));
    let odd = fake_worker(place.dir.path(), "wrong-hash");
    let bisect = ["bisect", evidence, "--worker", text(&place.worker), "--worker", text(&odd), "--sandbox", "off"];
    let bisect: Vec<&str> = bisect.into_iter().chain(["--out", "heaps"]).collect();
    let found = place.run(&bisect);
    assert_eq!(found.code, 3, "{}{}", found.out, found.err);
    let heaps: Vec<String> = fs::read_dir(here.join("heaps"))
        .expect("heaps")
        .map(|entry| format!("heaps/{}", entry.expect("an entry").file_name().into_string().expect("text")))
        .collect();
    assert_eq!(heaps.len(), 2);
    let again = place.run(&bisect);
    assert_eq!(again.code, 3, "its own heaps are written anew: {}", again.err);
    let commands: [(&[&str], &str, bool); 5] = [
        (&["report", evidence, "-o", "page"], "page", true),
        (&["evidence", "pack", evidence, "packed"], "packed", false),
        (&["export", evidence, "--sst", "sst"], "sst", false),
        (&["export", evidence, "--xsnap-trace", "trace"], "trace", false),
        (&bisect, &heaps[0], true),
    ];
    for (command, name, replaces) in commands {
        let path = here.join(name);
        for target in ["../precious", "../../precious", "nowhere", "/dev/full"] {
            let _ = fs::remove_file(&path);
            symlink(target, &path).expect("a link");
            let before = place.state();
            let run = place.run(command);
            assert_eq!(run.code, 1, "{command:?} {target}: {}{}", run.out, run.err);
            // What stands beside a transcript has its hash for a name, and goes again if the transcript is not written.
            assert!(place.state() == before, "{command:?} {target}");
        }
        fs::remove_file(&path).expect("remove");
        fs::write(&path, "old").expect("write");
        let run = place.run(command);
        assert_eq!(run.code == 1, !replaces, "{command:?}: {}{}", run.out, run.err);
        assert_eq!(fs::read(&path).expect("read") == b"old", !replaces, "{command:?}");
        fs::remove_file(&path).expect("remove");
    }
    assert_eq!(fs::read(place.path("precious")).expect("read"), b"precious");
    let page = place.run(&["report", evidence, "-o", "-"]);
    assert!(page.code == 0 && page.out.starts_with("<!DOCTYPE html>"), "{}", page.err);
}

/// The other way round: what is honest passes each command, as a folder and as an archive, of this version and of the one before.
#[test]
fn honest_evidence_goes_there_and_back() {
    let place = Place::new();
    let folder = place.path(ID);
    copy_of_honest(&folder);
    fs::write(folder.join("notes.txt"), "my own").expect("write");
    // What a command that was killed left.
    fs::create_dir_all(place.path("here/.spanwatch-unfinished-1/folder")).expect("a directory");
    let packed = place.path("packed");
    let run = place.run(&["evidence", "pack", text(&folder), text(&packed)]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("notes.txt is not packed"), "{}", run.err);
    let earlier = honest().ancestors().nth(3).expect("the fixture").join(format!("{ID}.tar.zst"));
    for archive in [&packed, &earlier] {
        let before = files();
        let run = place.run(&["evidence", "unpack", text(archive)]);
        assert_eq!(run.code, 0, "{}", run.err);
        let unpacked = place.path("here").join(ID);
        let after: BTreeMap<String, Vec<u8>> = fs::read_dir(&unpacked)
            .expect("list")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| (entry.file_name().into_string().expect("text"), fs::read(entry.path()).expect("read")))
            .collect();
        assert!(after == before, "{:?}", after.keys());
        assert!(fs::read_dir(place.path("here")).expect("list").count() == 1, "something else is there");
        let again = place.run(&["evidence", "unpack", text(archive)]);
        assert!(again.code == 1 && again.err.contains("exists"), "{}", again.err);
        fs::remove_dir_all(&unpacked).expect("remove");
        for command in place.commands(text(archive), true) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let run = place.run(&words);
            // The images of a stand-in for a worker are no heaps.
            let code = i32::from(words[0] == "snapshot");
            assert_eq!(run.code, code, "{words:?}: {}{}", run.out, run.err);
        }
        assert_eq!(fs::read_dir(place.path("tmp")).expect("list").count(), 0);
        fs::remove_dir_all(place.path("here")).expect("remove");
        fs::create_dir(place.path("here")).expect("a directory");
    }
    // Two sessions may have written to it: what `replay` notes is in the folder, and not in an archive.
    let run = spanwatch(&["replay", text(&folder), "--worker", text(&place.worker), "--sandbox", "off"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let workers: Value = serde_json::from_slice(&fs::read(folder.join("workers.json")).expect("read")).expect("JSON");
    assert_eq!(workers.as_array().map(Vec::len), Some(2), "{workers}");
}
