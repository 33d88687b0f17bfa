//! Heap images are read whole, and what differs between two is named.
//!
//! Goal: show that every image that an engine writes is understood, that the answer to "is it the same heap" is right, and
//! that the place where it is not is named. Method: all images of the lab's databases; images that are made here with a
//! real worker from `tests/heap/program.js`, which has one of everything, and each of the single changes to it in
//! `tests/heap/mutations.json`; workers and vats whose heaps are known to differ without a meaning; damage. Answers are
//! checked against a second judge, the fingerprint, which is made from one image alone.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use sha2::{Digest, Sha256};
use spanwatch::heap::census::Census;
use spanwatch::heap::diff::{Likeness, Told, compare, tell};
use spanwatch::heap::fingerprint::fingerprint;
use spanwatch::heap::naming::Names;
use spanwatch::heap::{ChunkUse, Heap, HeapError, Kind, Slot};

use crate::evidence::{find, odd_worker};
use crate::lab::{Lab, delicate, lab, real_worker};
use crate::run::{Run, spanwatch, text};

/// Has a worker evaluate some scripts, from an image or from nothing, and gives the image that it then writes.
fn image_after(worker: &Path, base: Option<&Path>, scripts: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let mut commands = File::create(path("commands")).expect("create");
    for message in scripts.iter().map(|script| format!("e{script}")).chain(["w@7".to_owned()]) {
        write!(commands, "{}:{message},", message.len()).expect("write");
    }
    // All commands are known beforehand and no script asks anything, so files do in place of pipes.
    let program = "exec \"$0\" spanwatch ${BASE:+-r @8:spanwatch} 3<commands 4>replies 5</dev/null 6</dev/null 7>image \
                   8<\"${BASE:-/dev/null}\"";
    let mut command = Command::new("sh");
    command.args(["-c", program]).arg(worker).current_dir(dir.path()).env_remove("BASE").stdin(Stdio::null());
    if let Some(base) = base {
        command.env("BASE", base);
    }
    let out = command.output().expect("a worker");
    assert!(out.status.success(), "{:?}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    let replies = fs::read(path("replies")).expect("read");
    let mut rest = replies.as_slice();
    for _ in 0..=scripts.len() {
        let colon = rest.iter().position(|byte| *byte == b':').expect("a netstring");
        let length: usize = std::str::from_utf8(&rest[..colon]).expect("digits").parse().expect("a length");
        let message = &rest[colon + 1..][..length];
        assert_eq!(message.first(), Some(&b'.'), "{}", String::from_utf8_lossy(message));
        rest = &rest[colon + length + 2..];
    }
    assert!(rest.is_empty());
    fs::read(path("image")).expect("an image")
}

fn program() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/heap/program.js")).expect("the program")
}

/// What a kernel has each worker evaluate first, from a database of the lab.
fn lockdown() -> String {
    let lab = lab("everything");
    let text_of = |sql: &str, parameter: &str| -> String {
        database(&lab).query_row(sql, [parameter], |row| row.get(0)).expect("a row")
    };
    let item = text_of("SELECT item FROM transcriptItems WHERE vatID = ? AND position = 0", lab.vat("bootstrap"));
    let item: Value = serde_json::from_str(&item).expect("json");
    let id = item["d"][1]["workerOptions"]["bundleIDs"][0].as_str().expect("a bundle");
    let bundle: Value =
        serde_json::from_str(&text_of("SELECT bundle FROM bundles WHERE bundleID = ?", id)).expect("json");
    format!("({}\n)()", bundle["source"].as_str().expect("a source")).trim().to_owned()
}

fn database(lab: &Lab) -> Connection {
    let uri = format!("file:{}?immutable=1", text(&lab.file));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).expect("open")
}

/// Does something with each of many things, on as many threads as there are cores.
fn on_all_cores<T: Sync, R: Send>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(thing);
                    done.lock().expect("no panic").push(result);
                }
            });
        }
    });
    done.into_inner().expect("no panic")
}

/// Reads an image, and checks by other means what the reader says of it.
fn read_whole(name: &str, image: Vec<u8>) -> Heap {
    let bytes = image.len();
    let heap = Heap::read(image).unwrap_or_else(|error| panic!("{name}: {error}"));
    let atoms: usize = heap.atoms().iter().map(|atom| atom.bytes + 8).sum();
    assert_eq!(atoms + 8, bytes, "{name}");
    let size = |tag: &str| heap.atoms().iter().find(|atom| atom.tag == tag).expect("an atom").bytes;
    assert_eq!(size("HEAP"), heap.slot_count() as usize * 32, "{name}");
    assert_eq!(size("STAC"), heap.root_count() * 32, "{name}");
    let chunks: u64 = ChunkUse::ALL.into_iter().map(|used| heap.chunks(used).1).sum();
    assert_eq!(chunks, size("BLOC") as u64, "{name}");
    assert!(heap.keys().count() > 460 && heap.root_count() == 156, "{name}");
    heap
}

fn gunzip(gzip: &[u8]) -> Vec<u8> {
    let mut image = Vec::new();
    GzDecoder::new(gzip).read_to_end(&mut image).expect("a gzip");
    image
}

#[test]
fn every_image_of_every_lab_is_read() {
    let mut compressed: BTreeMap<String, (String, Vec<u8>)> = BTreeMap::new();
    let (mut in_databases, mut in_archives) = (0, 0);
    for kind in ["everything", "items", "archives", "nothing", "delicate"] {
        let lab = if kind == "delicate" { delicate() } else { lab(kind) };
        let kept = lab.count("SELECT count(*) FROM snapshots WHERE compressedSnapshot IS NOT NULL");
        let db = database(&lab);
        let mut rows = db.prepare("SELECT vatID, snapPos, hash, compressedSnapshot FROM snapshots").expect("sql");
        let mut rows = rows.query([]).expect("rows");
        let mut hashes = HashMap::new();
        let mut found = 0;
        while let Some(row) = rows.next().expect("a row") {
            let (vat, position): (String, i64) = (row.get(0).expect("a vat"), row.get(1).expect("a position"));
            let hash: String = row.get(2).expect("a hash");
            hashes.insert(format!("snapshot.{vat}.{position}.gz"), hash.clone());
            if let Some(gzip) = row.get::<_, Option<Vec<u8>>>(3).expect("an image") {
                found += 1;
                compressed.insert(hash, (format!("{kind} {vat} at {position}"), gzip));
            }
        }
        assert_eq!(found, kept, "{kind}");
        in_databases += found;
        let archive = lab.dir.join("snapshot-archive");
        let mut archived = 0;
        for entry in fs::read_dir(&archive).into_iter().flatten().map(|entry| entry.expect("an entry")) {
            let name = entry.file_name().into_string().expect("text");
            let hash = hashes.get(&name).unwrap_or_else(|| panic!("{name} is of no row")).clone();
            archived += 1;
            compressed.insert(hash, (name, fs::read(entry.path()).expect("read")));
        }
        if kind == "archives" {
            assert_eq!(archived, lab.count("SELECT count(*) FROM snapshots"));
        }
        in_archives += archived;
    }
    let images: Vec<(String, (String, Vec<u8>))> = compressed.into_iter().collect();
    let read = on_all_cores(&images, |(hash, (name, gzip))| {
        let image = gunzip(gzip);
        let found: String = Sha256::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, *hash, "{name}");
        let heap = read_whole(name, image);
        // Every vat of the lab runs liveslots, which registers at least the vat's root.
        assert!(!heap.registered().is_empty(), "{name}");
        heap.slot_count()
    });
    assert_eq!(read.len(), images.len());
    let slots: u64 = read.iter().map(|slots| u64::from(*slots)).sum();
    println!("{in_databases} images in databases and {in_archives} in archives: {} of them, {slots} slots", read.len());
    assert!(in_databases > 100 && in_archives > 50 && read.len() > 70, "the labs are too small to show anything");
}

#[test]
fn images_made_on_purpose_are_read() {
    let worker = real_worker();
    let many =
        "globalThis.all = []; for (let i = 0; i < 260000; i += 1) all.push({ number: i, text: `x${i}`, half: i / 2 });";
    let cases = [("blank", vec![]), ("lockdown", vec![lockdown()]), ("many", vec![many.to_owned()])];
    let counts = on_all_cores(&cases, |(name, scripts)| {
        let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
        let heap = read_whole(name, image_after(&worker, None, &scripts));
        assert!(heap.registered().is_empty(), "{name}: no liveslots runs there");
        (*name, heap.slot_count())
    });
    let counts: HashMap<&str, u32> = counts.into_iter().collect();
    println!("{counts:?}");
    assert!(counts["many"] >= 1_000_000 && counts["blank"] < counts["lockdown"], "{counts:?}");
}

/// The heap of the program, alone and after what a kernel evaluates first; its file for workers to start from.
struct Base {
    name: &'static str,
    dir: tempfile::TempDir,
    heap: Heap,
    scripts: Vec<String>,
}

impl Base {
    fn both() -> Vec<Self> {
        let worker = real_worker();
        let bases = [("bare", vec![program()]), ("after lockdown", vec![lockdown(), program()])];
        bases
            .into_iter()
            .map(|(name, scripts)| {
                let texts: Vec<&str> = scripts.iter().map(String::as_str).collect();
                let image = image_after(&worker, None, &texts);
                let dir = tempfile::tempdir().expect("a directory");
                fs::write(dir.path().join("base.xss"), &image).expect("write");
                Self { name, dir, heap: read_whole(name, image), scripts }
            })
            .collect()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("base.xss")
    }

    /// The heap after one more script.
    fn after(&self, script: &str) -> Heap {
        read_whole(self.name, image_after(&real_worker(), Some(&self.file()), &[script]))
    }

    /// The heap of a worker that evaluates other scripts first.
    fn with_before(&self, before: &str) -> Heap {
        let all: Vec<&str> = std::iter::once(before).chain(self.scripts.iter().map(String::as_str)).collect();
        read_whole(self.name, image_after(&real_worker(), None, &all))
    }
}

fn paths(told: &Told) -> Vec<String> {
    told.differences.iter().map(|place| place.path.clone()).collect()
}

#[test]
fn every_single_change_is_found_and_named() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/heap/mutations.json");
    let mutations: Vec<[String; 3]> =
        serde_json::from_str(&fs::read_to_string(file).expect("the table")).expect("json");
    assert!(mutations.len() >= 45);
    let bases = Base::both();
    let cases: Vec<(&Base, &[String; 3])> =
        bases.iter().flat_map(|base| mutations.iter().map(move |mutation| (base, mutation))).collect();
    let prints: HashMap<&str, _> = bases.iter().map(|base| (base.name, fingerprint(&base.heap))).collect();
    let faults = on_all_cores(&cases, |(base, [name, script, place])| {
        let heap = base.after(script);
        let mut faults = String::new();
        let mut fault = |what: String| writeln!(faults, "{}, {name}: {what}", base.name).expect("memory");
        let comparison = compare(&base.heap, &heap);
        let told = tell(&comparison, 4);
        if comparison.likeness != Likeness::Different {
            fault(format!("{:?}", comparison.likeness));
        } else if !told.differences.iter().take(2).any(|found| found.path.contains(place)) {
            fault(format!("{place} is not among the first two of {:?}", paths(&told)));
        }
        if fingerprint(&heap) == prints[base.name] {
            fault("it has the same fingerprint".to_owned());
        }
        // Once is enough of what takes long.
        if base.name == "bare" {
            let reverse = compare(&heap, &base.heap);
            if reverse.likeness != comparison.likeness {
                fault(format!("the other way round it is {:?}", reverse.likeness));
            }
        }
        faults
    });
    let faults: String = faults.concat();
    assert!(faults.is_empty(), "{faults}");
    println!("{} changes, {} cases", mutations.len(), cases.len());
}

/// Changes that no program can see, made by a script that runs afterwards.
const WITHOUT_MEANING: [(&str, &str); 9] = [
    ("an equal object in its place", "lab.twins.two = {}; lab.plain.third.deep = [true, null, undefined]"),
    ("a regular expression that was used", "lab.plainRegexp.test('xaab')"),
    ("a script more", "0"),
    ("an empty script", ""),
    ("a garbage collection", "gc()"),
    ("the order of weak entries", "lab.weakMap.delete(lab.base); lab.weakMap.set(lab.base, 'base')"),
    (
        "a map that was larger once",
        "for (let i = 0; i < 500; i += 1) lab.map.set(i + 'x', i); for (let i = 0; i < 500; i += 1) lab.map.delete(i + 'x')",
    ),
    ("bytes that were others once", "lab.bytes.fill(7); lab.bytes.set([1, 2, 3, 4, 5])"),
    ("a property that came and went", "lab.twins.one.gone = 1; delete lab.twins.one.gone"),
];

/// The same, made by a script that runs before all others.
const WITHOUT_MEANING_BEFORE: [(&str, &str); 3] = [
    ("names that shift all others", "(function unrelatedName(someArgument) { return someArgument; })(1)"),
    ("keys that shift all others", "({ anotherKey: 1, yetAnother: 2 })"),
    ("symbols that shift all others", "Symbol('own'); Symbol('lab'); Symbol.for('shifted'); 0"),
];

#[test]
fn what_has_no_meaning_is_told_apart() {
    let bases = Base::both();
    let mut cases: Vec<(&Base, &str, &str, bool)> = Vec::new();
    for base in &bases {
        cases.extend(WITHOUT_MEANING.iter().map(|(name, script)| (base, *name, *script, false)));
        cases.extend(WITHOUT_MEANING_BEFORE.iter().map(|(name, script)| (base, *name, *script, true)));
    }
    let faults = on_all_cores(&cases, |(base, name, script, is_before)| {
        let heap = if *is_before { base.with_before(script) } else { base.after(script) };
        let (comparison, reverse) = (compare(&base.heap, &heap), compare(&heap, &base.heap));
        let is_right = comparison.likeness == Likeness::Isomorphic
            && reverse.likeness == Likeness::Isomorphic
            && comparison.unpaired == (0, 0)
            && fingerprint(&base.heap) == fingerprint(&heap);
        let likeness = comparison.likeness;
        let places = paths(&tell(&comparison, 3));
        (!is_right).then(|| format!("{}, {name}: {likeness:?}, {:?}, {places:?}", base.name, comparison.unpaired))
    });
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));

    for base in &bases {
        let texts: Vec<&str> = base.scripts.iter().map(String::as_str).collect();
        let again = read_whole(base.name, image_after(&real_worker(), None, &texts));
        assert_eq!(compare(&base.heap, &again).likeness, Likeness::Identical, "{}", base.name);
        let (one, other) = (base.after("lab.plain.first = 2"), base.after("lab.plain.first = 2"));
        assert_eq!(compare(&one, &other).likeness, Likeness::Identical, "{}", base.name);
    }
}

/// Places where only symbols of the same name differ, or only the names of things.
#[test]
fn symbols_of_the_same_name_are_not_the_same() {
    let base = Base::both().remove(0);
    let by_symbol =
        |key: &str| format!("lab.bySymbol = {{ [{key}]: 1, [lab.symbols.registered]: 2, [Symbol.iterator]: null }}");
    let cases = [
        ("its own", by_symbol("lab.symbols.own"), None),
        ("another of the same name", by_symbol("lab.symbols.other"), Some("lab.bySymbol[Symbol(own)]")),
        ("a new one of the same name", by_symbol("Symbol('own')"), Some("lab.bySymbol[Symbol(own)]")),
        (
            "a false Symbol.iterator",
            "lab.bySymbol = { [lab.symbols.own]: 1, [lab.symbols.registered]: 2, [Symbol('Symbol.iterator')]: null }"
                .to_owned(),
            Some("lab.bySymbol[Symbol.iterator]"),
        ),
        (
            "two that changed places",
            "[lab.symbols.own, lab.symbols.other] = [lab.symbols.other, lab.symbols.own]".to_owned(),
            Some("lab.symbols.own"),
        ),
    ];
    for (name, script, place) in cases {
        let heap = base.after(&script);
        let comparison = compare(&base.heap, &heap);
        let told = tell(&comparison, 2);
        match place {
            None => assert_eq!(comparison.likeness, Likeness::Isomorphic, "{name}"),
            Some(place) => {
                assert_eq!(comparison.likeness, Likeness::Different, "{name}");
                assert!(told.differences[0].path.ends_with(place), "{name}: {:?}", told.differences);
                assert_ne!(fingerprint(&base.heap), fingerprint(&heap), "{name}");
            }
        }
    }
}

#[test]
fn a_heap_that_grew_collects_at_another_time() {
    let base = Base::both().remove(0);
    // More slots than an engine starts with, and none of them is left.
    let grown = base.after("{ const all = []; for (let i = 0; i < 300000; i += 1) all.push({ i }); }");
    let comparison = compare(&base.heap, &grown);
    let places = paths(&tell(&comparison, 3));
    assert_eq!(comparison.likeness, Likeness::GcScheduleDiffers, "{places:?}");
    assert_eq!(fingerprint(&base.heap), fingerprint(&grown));
    let (before, after) = (base.heap.creation(), grown.creation());
    assert!(after.initial_heap_count > before.initial_heap_count, "{before:?} {after:?}");
}

fn diffed(recorded: &str, replayed: &str) -> (Run, Value) {
    let run = spanwatch(&["snapshot", "diff", recorded, replayed, "--format", "json"]);
    let line = run.lines("snapshot_diff").into_iter().next().unwrap_or_else(|| panic!("{}", run.err));
    (run, line)
}

#[test]
fn an_address_that_a_regular_expression_left_is_named() {
    let lab = delicate();
    let found = find(&lab.file, &real_worker(), &["--vat", "patterns"]);
    let side = |side: &str| format!("{}:{side}", text(&found.folder));
    let (run, line) = diffed(&side("recorded"), &side("replayed"));
    assert_ne!(line["recorded_sha256"], line["replayed_sha256"]);
    assert_eq!((run.code, line["likeness"].as_str()), (0, Some("isomorphic")), "{line}");
    assert_eq!(line["trace_counts"]["host_pointer"], 1, "{line}");
    let place = &line["traces"][0];
    assert_eq!(place["what"], "host_pointer");
    let path = place["path"].as_str().expect("a path");
    assert!(path.contains("::PATTERN"), "{path}");
    assert_eq!(place["recorded"], r"the regular expression /^[a-z]+(?=\d)/");
    let said = spanwatch(&["snapshot", "diff", &side("recorded"), &side("replayed")]).out;
    assert!(said.starts_with("isomorphic") && said.contains("an address of the worker's memory"), "{said}");

    // The base is the same vat some deliveries earlier: the first path leads into the same object of it.
    let look = spanwatch(&["snapshot", "query", &side("base"), path, "--format", "json"]);
    assert_eq!(look.code, 0, "{}", look.err);
    assert!(look.lines("object")[0]["what"].as_str().expect("text").starts_with("RegExp"), "{}", look.out);
}

#[test]
fn the_compilers_fault_is_named() {
    let lab = delicate();
    let found = find(&lab.file, &odd_worker(), &["--vat", "products"]);
    let side = |side: &str| format!("{}:{side}", text(&found.folder));
    let (run, line) = diffed(&side("recorded"), &side("replayed"));
    assert_eq!((run.code, line["likeness"].as_str()), (0, Some("isomorphic")), "{line}");
    let places: Vec<&Value> = line["traces"].as_array().expect("traces").iter().collect();
    let place = places.iter().find(|place| place["path"].as_str().expect("a path").contains("::products["));
    let place = place.unwrap_or_else(|| panic!("{line}"));
    assert_eq!(place["what"], "number_representation");
    let side_of = |name: &str| place[name].as_str().expect("a value").to_owned();
    assert!(side_of("recorded").ends_with("(INTEGER)") && side_of("replayed").ends_with("(NUMBER)"), "{place}");
    assert_eq!(place["function"], "multiply");
    assert!(place["file"].as_str().expect("a file").ends_with("vats/products.js"), "{place}");
    assert!(place["line"].as_u64().is_some_and(|line| line > 1), "{place}");

    // The sides have the names that they were asked for by; files have none.
    let said = spanwatch(&["snapshot", "diff", &side("base"), &side("recorded")]).out;
    assert!(said.contains(": base ") && said.contains(", recorded ") && !said.contains("replayed"), "{said}");
    let file = found.folder.join("base.xss.zst");
    let said = spanwatch(&["snapshot", "diff", text(&file), &side("recorded")]).out;
    assert!(said.contains(": first ") && said.contains(", second ") && !said.contains("recorded"), "{said}");

    // What a folder does not have is said.
    let missing = spanwatch(&["snapshot", "info", &format!("{}:recorded", text(lab.dir.as_path()))]);
    assert!(missing.code == 1 && missing.err.contains("manifest.json"), "{}", missing.err);
    fs::remove_file(found.folder.join("recorded.xss.zst")).expect("it was there");
    let missing = spanwatch(&["snapshot", "info", &side("recorded")]);
    assert!(missing.code == 1 && missing.err.contains("no recorded image in"), "{}", missing.err);
}

#[test]
fn an_image_is_the_same_wherever_it_comes_from() {
    let lab = lab("everything");
    let (vat, position, gzip): (String, i64, Vec<u8>) = database(&lab)
        .query_row(
            "SELECT vatID, snapPos, compressedSnapshot FROM snapshots WHERE inUse = 1 AND vatID = ?",
            [lab.vat("collections")],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .expect("an image");
    let image = gunzip(&gzip);
    let dir = tempfile::tempdir().expect("a directory");
    let named = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("write");
        text(&path).to_owned()
    };
    let mut again = GzEncoder::new(Vec::new(), Compression::fast());
    again.write_all(&image).expect("memory");
    let zstd = zstd::encode_all(image.as_slice(), 1).expect("memory");
    let sources = [
        named("plain:v1@3", &image),
        named("image.gz", &again.finish().expect("memory")),
        named("image.zst", &zstd),
        format!("{}:{vat}@{position}", text(&lab.file)),
    ];
    let infos: Vec<Value> = sources
        .iter()
        .map(|source| {
            let run = spanwatch(&["snapshot", "info", source, "--format", "json"]);
            assert_eq!(run.code, 0, "{}", run.err);
            let mut info = run.lines("snapshot").remove(0);
            assert_eq!(info["image"], Value::from(source.clone()));
            info.as_object_mut().expect("an object").remove("image");
            info
        })
        .collect();
    assert!(infos.iter().all(|info| *info == infos[0]));
    let heap = read_whole("collections", image.clone());
    assert_eq!(infos[0]["fingerprint"], fingerprint(&heap).to_string());
    let census = Census::of(&heap, &Names::of(&heap), 10);
    assert_eq!(infos[0]["keys"], census.keys);
    let (run, line) = diffed(&sources[0], &sources[3]);
    assert_eq!((run.code, line["likeness"].as_str()), (0, Some("identical")));

    // What people do wrong.
    let cut = named("cut.xss", &image[..image.len() / 2]);
    let bomb = named("bomb.gz", &{
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&[0xff, 0xff, 0xff, 0xff]).expect("memory");
        bomb.write_all(b"XS_M").expect("memory");
        bomb.finish().expect("memory")
    });
    let other = named("other", b"not an image at all");
    let nowhere = text(&dir.path().join("nowhere")).to_owned();
    let cases = [
        (nowhere, "no image at"),
        (text(&lab.file).to_owned(), "it is an SQLite database"),
        (format!("{}:{vat}@1", text(&lab.file)), "a snapshot lies at the end of a span"),
        (format!("{}:v9999@{position}", text(&lab.file)), "no image of v9999"),
        (cut, "it was cut"),
        (bomb, "no image has more than"),
        (text(dir.path()).to_owned(), "it is a folder"),
        (other, "does not begin with an atom XS_M"),
        (named("empty", b""), "does not begin with an atom XS_M"),
    ];
    for (source, said) in cases {
        let run = spanwatch(&["snapshot", "info", &source]);
        assert!(run.code == 1 && run.err.contains(said), "{source}: {}{}", run.out, run.err);
    }
}

#[test]
fn objects_and_who_keeps_them_can_be_looked_at() {
    let base = Base::both().remove(0);
    let file = base.file();
    let ask = |command: &str, path: &str| {
        let run = spanwatch(&["snapshot", command, text(&file), path, "--format", "json"]);
        assert_eq!(run.code, 0, "{path}: {}", run.err);
        serde_json::from_str::<Value>(&run.out).expect("json")
    };
    let field = |object: &Value, name: &str| {
        let fields = object["fields"].as_array().expect("fields").iter();
        fields.clone().find(|field| field["name"] == name).unwrap_or_else(|| panic!("{object}"))["value"].clone()
    };
    let plain = ask("query", "globalThis.lab.plain");
    assert_eq!((field(&plain, ".first"), field(&plain, ".second")), (Value::from("1"), Value::from("\"two\"")));
    let balance = ask("query", "globalThis.lab.account.deposit[[scope]]::balance");
    assert_eq!(field(&balance, "value"), "105");
    // What every path of a report says can be asked for.
    let heap = base.after("lab.account.deposit(1); lab.objects[7].label = 'x'; lab.weakMap.get(lab.plain).hidden = 2");
    for place in tell(&compare(&base.heap, &heap), 100).differences {
        let object = place.path.trim_end_matches(|last: char| last != '.' && last != '[' && last != ':');
        let object = object.trim_end_matches(['.', '[', ':']);
        ask("query", object);
    }
    let kept = ask("retainers", "globalThis.lab.weakMap");
    assert_eq!(kept["retainers_total"], 1, "{kept}");
    let steps: Vec<&str> =
        kept["from_root"].as_array().expect("steps").iter().map(|step| step["by"].as_str().expect("text")).collect();
    assert_eq!(steps, ["globalThis", ".lab", ".weakMap"]);
    // The weak map keeps its value, and the weak reference does not keep its target.
    let held = ask("retainers", "globalThis.lab.account");
    let keeps: Vec<bool> = held["retainers"]
        .as_array()
        .expect("retainers")
        .iter()
        .map(|one| one["keeps"].as_bool().expect("bool"))
        .collect();
    assert!(keeps.contains(&true) && keeps.contains(&false), "{held}");
    let nothing = spanwatch(&["snapshot", "query", text(&file), "globalThis.lab.plain.nothing"]);
    assert!(nothing.code == 1 && nothing.err.contains("globalThis.lab.plain is there"), "{}", nothing.err);
}

/// What fuzzing has found.
#[test]
fn what_forged_images_showed_stays_so() {
    let base = Base::both().remove(0);
    // The name of a symbol of the engine's own, which keeps its number: it was taken for the same.
    let mut image = base.heap.bytes().to_vec();
    let name = b"Symbol.iterator\0";
    let at = image.windows(name.len()).position(|window| window == name).expect("its text");
    image[at] = b'C';
    assert_is_different(&base.heap, image);
    // The number of a map's entries, which `size` gives: it was left to the entries to be different.
    let is_size = |slot: Slot| slot.kind == Kind::List && base.heap.slot(slot.next).kind == Kind::Integer;
    let list = slots(&base.heap).find(|(_, slot)| is_size(*slot)).expect("a map").1;
    assert_is_different(&base.heap, forged(&base.heap, list.next, LOW));
    // The position of a list that has none of its own.
    let list = slots(&base.heap).find(|(_, slot)| slot.kind == Kind::List && slot.first() != 0).expect("a list").1;
    let mut image = base.heap.bytes().to_vec();
    let stack = base.heap.atoms().iter().find(|atom| atom.tag == "STAC").expect("its roots").range.clone();
    let roots = image[stack].as_chunks_mut::<SLOT>().0;
    let root = roots.iter_mut().find(|root| root[8] == Kind::List as u8 && root[LOW..] == [0; 16]).expect("a root");
    root[LOW..LOW + 4].copy_from_slice(&list.first().to_le_bytes());
    assert_is_different(&base.heap, image);
    // What a weak collection has for an object stands twice, and the two were not held against each other.
    let is_weak = |slot: Slot| slot.kind == Kind::WeakEntry;
    let entry = slots(&base.heap).find(|(_, slot)| is_weak(*slot)).expect("an entry").0;
    for at in [LOW, HIGH] {
        let error = Heap::read(forged(&base.heap, entry, at)).expect_err("it contradicts itself").to_string();
        assert!(error.contains("do not say the same"), "{error}");
    }
}

/// The size of a slot, and where its value's halves are in it.
const SLOT: usize = 32;
const LOW: usize = 16;
const HIGH: usize = 24;

fn slots(heap: &Heap) -> impl Iterator<Item = (u32, Slot)> + '_ {
    (1..=heap.slot_count()).map(|index| (index, heap.slot(index)))
}

/// The image with one half of a slot's value one less than it was.
fn forged(heap: &Heap, slot: u32, half: usize) -> Vec<u8> {
    let mut image = heap.bytes().to_vec();
    let range = heap.atoms().iter().find(|atom| atom.tag == "HEAP").expect("its slots").range.clone();
    let bytes = &mut image[range.start + (slot as usize - 1) * SLOT + half];
    *bytes = bytes.wrapping_sub(1);
    image
}

fn assert_is_different(heap: &Heap, image: Vec<u8>) {
    let forged = read_whole("forged", image);
    assert_eq!(compare(heap, &forged).likeness, Likeness::Different);
    assert_ne!(fingerprint(heap), fingerprint(&forged));
}

/// The next number of a row that looks random and is always the same.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).expect("31 bits")
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let base = Base::both().remove(0);
    let image = base.heap.bytes().to_vec();
    let print = fingerprint(&base.heap);
    let mut seeds: Vec<u64> = (0..600).collect();
    // Cuts at the places where something begins.
    let edges: Vec<usize> =
        base.heap.atoms().iter().flat_map(|atom| [atom.range.start - 8, atom.range.start]).collect();
    for at in edges.iter().flat_map(|at| at.saturating_sub(1)..=at + 1).chain(0..64) {
        let error = Heap::read(image[..at.min(image.len() - 1)].to_vec()).expect_err("it is cut");
        assert!(!error.to_string().is_empty());
    }
    seeds.reverse();
    let outcomes = on_all_cores(&seeds, |seed| {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut damaged = image.clone();
        let at = match seed % 4 {
            // The first hundreds of bytes decide most.
            0 => next(&mut state) % 200,
            _ => next(&mut state) % damaged.len(),
        };
        if seed % 8 == 7 {
            // A cut that the head agrees with.
            damaged.truncate(at.max(8));
            let told = u32::try_from(damaged.len() - 8).expect("small").to_be_bytes();
            damaged[..4].copy_from_slice(&told);
        } else {
            damaged[at] ^= 1 << (next(&mut state) % 8);
        }
        match Heap::read(damaged) {
            Ok(heap) => {
                let comparison = compare(&base.heap, &heap);
                assert_ne!(comparison.likeness, Likeness::Identical, "byte {at}");
                assert!(tell(&comparison, 3).differences.len() <= 3);
                assert_eq!(fingerprint(&heap) == print, comparison.likeness != Likeness::Different, "byte {at}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    });
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    println!("{refused} of {} refused", outcomes.len());
    assert!(refused > outcomes.len() / 2, "only {refused} of {} refused", outcomes.len());

    let mut other = image.clone();
    let version = base.heap.atoms()[0].range.start;
    other[version] = 14;
    let error = Heap::read(other).expect_err("another engine's");
    assert!(matches!(error, HeapError::Version { .. }) && error.to_string().contains("XS 14."), "{error}");
    assert!(matches!(Heap::read(Vec::new()), Err(HeapError::NotASnapshot(_))));
}
