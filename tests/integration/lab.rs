//! Databases that a real kernel wrote, replayed by real workers.
//!
//! `make lab` writes them, one for each kind of node, with the model `lab.json` that says what is in them. Everything
//! that is asserted here about a database is asserted against its model or against the database itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::beside::Setup;
use crate::run::{Run, spanwatch, spanwatch_by, text};
use crate::wait::{try_end, wait_until};

/// A database of the lab.
pub struct Lab {
    pub dir: PathBuf,
    pub file: PathBuf,
    pub model: Value,
}

/// The database of a kind of node: `everything`, `items`, `archives` or `nothing` is kept.
pub fn lab(keep: &str) -> Lab {
    let lab = lab_in(keep);
    assert_eq!(lab.model["options"]["keep"], keep);
    lab
}

/// The database of the vats whose heaps depend on the host.
pub fn delicate() -> Lab {
    let lab = lab_in("delicate");
    assert_eq!(lab.model["options"]["delicate"], true);
    lab
}

/// The database of a node that keeps nothing but has a flight recorder.
pub fn recorder() -> Lab {
    let lab = lab_in("recorder");
    assert_eq!(lab.model["options"]["flightRecorder"], true);
    lab
}

fn lab_in(name: &str) -> Lab {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/data").join(name);
    let model =
        fs::read_to_string(dir.join("lab.json")).expect("the lab's databases are there: `make lab` writes them");
    let model: Value = serde_json::from_str(&model).expect("json");
    Lab { file: dir.join("agoric/swingstore.sqlite"), dir, model }
}

impl Lab {
    pub fn vat(&self, role: &str) -> &str {
        self.model["vats"][role].as_str().expect("a role of the lab")
    }

    /// A number that the database itself gives.
    pub fn count(&self, sql: &str) -> u64 {
        let uri = format!("file:{}?immutable=1", text(&self.file));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let db = Connection::open_with_flags(uri, flags).expect("open");
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number").unsigned_abs()
    }

    fn run(&self, command: &str, more: &[&str]) -> Run {
        spanwatch_by(&real_worker(), &[&[command, text(&self.file), "--format", "json"], more].concat())
    }
}

/// The worker that the lab's package compiles.
pub fn real_worker() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/worker-path.sh");
    let out = Command::new(script).output().expect("the script");
    PathBuf::from(String::from_utf8(out.stdout).expect("text").trim())
}

const CLOSED: &str = "SELECT count(*) FROM transcriptSpans WHERE isCurrent IS NULL";

fn bases(run: &Run) -> BTreeMap<String, u64> {
    let mut bases = BTreeMap::new();
    for span in run.lines("span") {
        *bases.entry(span["base"].as_str().expect("a base").to_owned()).or_default() += 1;
    }
    bases
}

/// The run verified each closed span of the database, and compared all that it has to compare.
fn assert_all_verified(lab: &Lab, run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let closed = lab.count(CLOSED);
    assert_eq!(run.verdicts(), vec!["verified"; usize::try_from(closed).expect("small")], "{}", run.out);
    let summary = &run.lines("summary")[0];
    let sum = |field: &str| run.lines("span").iter().map(|span| span[field].as_u64().expect("a number")).sum::<u64>();
    assert_eq!(
        (summary["deliveries"].as_u64(), summary["syscalls"].as_u64()),
        (Some(sum("deliveries")), Some(sum("syscalls")))
    );
    println!(
        "{} spans, {} deliveries, {} syscalls, {} hashes",
        closed,
        sum("deliveries"),
        sum("syscalls"),
        summary["snapshot_hashes"]
    );
}

#[test]
fn everything_kept_is_verified_from_its_own_images() {
    let lab = lab("everything");
    let run = lab.run("verify", &[]);
    assert_all_verified(&lab, &run);
    let summary = &run.lines("summary")[0];
    // What the database says must have been compared, counted by SQLite instead of by us.
    let in_closed = "FROM transcriptItems AS i JOIN transcriptSpans AS s ON i.vatID = s.vatID AND i.position >= s.startPos \
                     AND i.position < s.endPos WHERE s.isCurrent IS NULL";
    let saves = lab.count(&format!("SELECT count(*) {in_closed} AND i.item LIKE '{{\"d\":[\"save-snapshot\"%'"));
    let pseudo = lab.count(&format!("SELECT count(*) {in_closed} AND i.item NOT LIKE '%\"computrons\":%'"));
    let items = lab.count(&format!("SELECT count(*) {in_closed}"));
    let syscalls = lab.count(&format!("SELECT sum(json_array_length(i.item, '$.sc')) {in_closed}"));
    assert_eq!(summary["snapshot_hashes"], saves);
    assert_eq!(summary["deliveries"], items - pseudo);
    assert_eq!(summary["syscalls"], syscalls);
    assert!(saves > 50 && items > 500, "the lab is too small to show anything");
    assert_eq!(bases(&run).keys().collect::<Vec<_>>(), ["blank", "recorded"]);
    let ends: BTreeMap<String, u64> = run.lines("span").iter().fold(BTreeMap::new(), |mut ends, span| {
        *ends.entry(span["ends"].as_str().expect("an end").to_owned()).or_default() += 1;
        ends
    });
    // One vat is upgraded twice; five ended with a delivery in their last span, and their rows are still there.
    assert_eq!((ends["shutdown-worker"], ends["termination"] >= 5), (2, true), "{ends:?}");
}

#[test]
fn items_alone_are_verified_by_chaining() {
    let lab = lab("items");
    let run = lab.run("verify", &[]);
    assert_all_verified(&lab, &run);
    let bases = bases(&run);
    assert_eq!(bases.keys().collect::<Vec<_>>(), ["blank", "chained"], "{bases:?}");

    // One span in the middle: those before it are replayed on the way to it, and said to be so.
    let spans = run.lines("span");
    let target = spans.iter().filter(|span| span["vat"] == lab.vat("bootstrap")).nth(2).expect("a third span");
    let range = format!("{}..{}", target["start"], target["end"]);
    let run = lab.run("verify", &["--vat", "bootstrap", "--span", &range]);
    let asked: Vec<Value> = run.lines("span").iter().map(|span| span["asked"].clone()).collect();
    assert_eq!(asked, [false, false, true]);
    assert_eq!((run.code, run.lines("summary")[0]["on_the_way"].as_u64()), (0, Some(2)));
}

#[test]
fn an_incarnation_can_be_asked_for() {
    let lab = lab("everything");
    let run = lab.run("verify", &["--vat", lab.vat("upgraded"), "--incarnation", "1"]);
    let spans = run.lines("span");
    assert_eq!((run.code, spans.len()), (0, 2), "{}", run.out);
    assert!(spans.iter().all(|span| span["incarnation"] == 1 && span["name"] == "upgraded"));
    assert_eq!(spans[1]["ends"], "shutdown-worker");
}

#[test]
fn archives_are_verified_and_without_them_nothing_is() {
    let lab = lab("archives");
    let (transcripts, snapshots) = (lab.dir.join("transcript-archive"), lab.dir.join("snapshot-archive"));
    let archives = ["--transcript-archive", text(&transcripts), "--snapshot-archive", text(&snapshots)];
    let run = lab.run("verify", &archives);
    assert_all_verified(&lab, &run);
    assert_eq!(bases(&run).keys().collect::<Vec<_>>(), ["blank", "recorded"]);
    // The crank of the failed upgrade left a file that no row speaks of.
    let files = fs::read_dir(&transcripts).expect("list").count() as u64;
    assert!(files > lab.count(CLOSED), "{files}");
    let run = lab.run("verify", &[]);
    assert_eq!(run.code, 4);
    assert!(run.verdicts().iter().all(|verdict| verdict == "unverifiable/items_pruned"), "{}", run.out);
}

#[test]
fn what_was_pruned_is_said_to_be_so() {
    let lab = lab("nothing");
    let run = lab.run("verify", &[]);
    assert_eq!(run.code, 4);
    assert_eq!(run.verdicts().len() as u64, lab.count(CLOSED));
    assert!(run.verdicts().iter().all(|verdict| verdict == "unverifiable/items_pruned"), "{}", run.out);
}

#[test]
fn the_four_kinds_of_node_are_told_apart() {
    for (keep, with_archives, retention, code, proposals) in [
        ("everything", false, "everything", 0, vec![]),
        ("items", false, "items_only", 0, vec!["vat-snapshot-archive-dir"]),
        ("archives", true, "archives", 0, vec![]),
        ("archives", false, "nothing", 4, vec!["vat-transcript-archive-dir", "vat-snapshot-archive-dir"]),
        ("nothing", false, "nothing", 4, vec!["vat-transcript-archive-dir", "vat-snapshot-archive-dir"]),
    ] {
        let lab = lab(keep);
        let (transcripts, snapshots) = (lab.dir.join("transcript-archive"), lab.dir.join("snapshot-archive"));
        let archives = ["--transcript-archive", text(&transcripts), "--snapshot-archive", text(&snapshots)];
        let archives = if with_archives { &archives[..] } else { &[] };
        let doctor = lab.run("doctor", archives);
        let report = &doctor.lines("doctor")[0];
        assert_eq!((report["retention"].as_str(), doctor.code), (Some(retention), code), "{keep}: {}", doctor.out);
        let lines = report["app_toml"].as_array().expect("lines");
        let keys: Vec<&str> = lines.iter().filter_map(|line| line.as_str()?.split(" = ").next()).collect();
        assert_eq!(keys, proposals, "{keep}");
        assert!(
            report["workers"][0]["version"].as_str().is_some_and(|version| version.starts_with("xsnap 0.15.0 (XS "))
        );
        assert_eq!(report["bundle_faults"].as_array().map(Vec::len), Some(0));
        assert!(report["bundles"].as_u64() > Some(10));

        let spans = lab.run("spans", archives);
        let summary = &spans.lines("summary")[0];
        let verifiable = if code == 0 { lab.count(CLOSED) } else { 0 };
        assert_eq!((summary["verifiable"].as_u64(), spans.code), (Some(verifiable), code), "{keep}: {}", spans.out);
        assert_eq!(summary["by_chaining"].as_u64() > Some(0), retention == "items_only", "{keep}");
        for span in spans.lines("span") {
            let needs_reason = span["verifiable"] == "no" || span["verifiable"] == "open";
            assert_eq!(needs_reason, span["reason"].is_string(), "{span}");
        }
        assert_eq!(spans.lines("span").len() as u64, lab.count("SELECT count(*) FROM transcriptSpans"));
    }
}

/// The history of a database at rest: the daemon comes to what `verify` comes to, whatever the node keeps.
#[test]
fn the_daemon_works_through_the_history_of_a_real_node() {
    for (keep, bases) in
        [("everything", ["blank", "recorded"]), ("items", ["blank", "chained"]), ("archives", ["blank", "recorded"])]
    {
        let lab = lab(keep);
        let dir = lab.file.parent().expect("a directory");
        let before = state_of(dir);
        let state = tempfile::tempdir().expect("a directory");
        let mut setup =
            Setup::new(state.path(), &lab.file, &real_worker()).set("watch.since=genesis").set("schedule.jobs=2");
        if keep == "archives" {
            setup = setup
                .set(&format!("node.transcript_archive={}", text(&lab.dir.join("transcript-archive"))))
                .set(&format!("node.snapshot_archive={}", text(&lab.dir.join("snapshot-archive"))));
        }
        let daemon = setup.start();
        let closed = lab.count(CLOSED);
        daemon.wait_for_spans(closed);
        let rows = daemon.verdicts();
        assert_eq!(rows.len() as u64, closed, "{keep}");
        for row in &rows {
            assert_eq!(
                (row["verdict"].as_str(), row["source"].as_str()),
                (Some("verified"), Some("history")),
                "{keep}: {row}"
            );
            let base = row["base"].as_str().expect("a base");
            // Where a run of spans ends, the next one starts from the image that was kept of it.
            assert!(bases.contains(&base) || (keep == "items" && base == "captured"), "{keep}: {row}");
        }
        assert_eq!(daemon.stop(), Some(0));
        assert!(state_of(dir) == before, "the database's directory was changed");
    }
}

/// A file with all that a reader could have changed of it.
#[derive(Debug, PartialEq)]
struct FileState {
    inode: u64,
    owner: u32,
    mode: u32,
    modified: (i64, i64),
    content: Vec<u8>,
}

/// All files in a directory.
fn state_of(dir: &Path) -> BTreeMap<PathBuf, FileState> {
    let entries = fs::read_dir(dir).expect("list").map(|entry| entry.expect("an entry").path());
    let state = |path: PathBuf| {
        let meta = fs::metadata(&path).expect("a file");
        let content = fs::read(&path).expect("read");
        let modified = (meta.mtime(), meta.mtime_nsec());
        (path, FileState { inode: meta.ino(), owner: meta.uid(), mode: meta.mode(), modified, content })
    };
    entries.map(state).collect()
}

#[test]
fn the_same_again_is_the_same_and_leaves_no_trace() {
    let lab = lab("everything");
    let dir = lab.file.parent().expect("a directory");
    let before = state_of(dir);
    let without_times = |run: &Run| {
        let lines = run.out.lines().map(|line| line.split("\"seconds\":").next().unwrap_or_default().to_owned());
        lines.collect::<Vec<_>>()
    };
    let once = lab.run("verify", &[]);
    let again = lab.run("verify", &["--jobs", "1"]);
    assert_eq!(without_times(&once), without_times(&again));
    assert!(state_of(dir) == before, "the database's directory was changed");
}

/// A kernel that runs on: killed when the test ends, however it ends.
pub struct LiveKernel {
    child: std::process::Child,
    output: Option<BufReader<std::process::ChildStdout>>,
    /// What it has said since somebody else reads it.
    said: Arc<Mutex<String>>,
}

impl LiveKernel {
    fn start(out: &Path) -> Self {
        // Relaxed, so that real workers are told both values of that option.
        Self::start_with(out, &["--live", "200", "--relaxed"])
    }

    pub fn start_with(out: &Path, options: &[&str]) -> Self {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab");
        let mut child = Command::new("node")
            .arg(lab.join("lab.mjs"))
            .args(options)
            .args(["--out", text(out)])
            .stdout(Stdio::piped())
            // Its workers complain when it is killed under them.
            .stderr(Stdio::null())
            .spawn()
            .expect("node");
        let output = Some(BufReader::new(child.stdout.take().expect("its output")));
        let mut kernel = Self { child, output, said: Arc::default() };
        while kernel.line() != "live" {}
        kernel
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.output.as_mut().expect("nobody else reads");
        assert_ne!(output.read_line(&mut line).expect("a line"), 0, "the kernel ended");
        line.trim().to_owned()
    }

    fn blocks(&mut self, count: usize) {
        for _ in 0..count {
            self.line();
        }
    }

    /// From here on it is read as it comes, so that it never waits for us.
    pub fn keep_reading(&mut self) {
        let (mut output, said) = (self.output.take().expect("nobody else reads"), Arc::clone(&self.said));
        std::thread::spawn(move || {
            let mut line = String::new();
            while output.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                said.lock().expect("not poisoned").push_str(&line);
                line.clear();
            }
        });
    }

    /// Waits until it has said something.
    pub fn wait_for(&self, part: &str) {
        let said = || self.said.lock().expect("not poisoned");
        let explain = || format!("the kernel never says {part:?}: {}", said());
        wait_until(Duration::from_secs(120), || said().contains(part), explain);
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    fn wait(&mut self) -> Option<i32> {
        try_end(&mut self.child, Duration::from_secs(60)).expect("the kernel ends").code()
    }
}

impl Drop for LiveKernel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_running_node_is_not_disturbed_and_a_dead_one_is_read_from_a_copy() {
    let worker = real_worker();
    let worker = text(&worker);
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("agoric");
    let file = dir.join("swingstore.sqlite");
    let names = || {
        let entries = fs::read_dir(&dir).expect("list").map(|entry| entry.expect("an entry"));
        let mut names: Vec<_> =
            entries.map(|entry| (entry.file_name(), entry.metadata().expect("meta").ino())).collect();
        names.sort();
        names
    };
    let mut kernel = LiveKernel::start(out.path());
    kernel.blocks(20);
    let before = names();
    let doctor = spanwatch(&["doctor", text(&dir), "--format", "json", "--worker", worker]);
    assert_eq!(doctor.lines("doctor")[0]["node"], "running", "{}", doctor.out);
    let run = spanwatch(&["verify", text(&dir), "--format", "json", "--worker", worker]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert!(run.verdicts().len() > 10, "{}", run.out);
    assert_eq!(names(), before, "files beside the live database");
    kernel.blocks(5);

    // Killed in the middle: its last commits are in the -wal file.
    kernel.signal("STOP");
    kernel.signal("KILL");
    kernel.wait();
    let wal = fs::metadata(dir.join("swingstore.sqlite-wal")).expect("a -wal file");
    assert!(wal.len() > 0);
    let before = state_of(&dir);
    let doctor = spanwatch(&["doctor", text(&file), "--format", "json", "--worker", worker]);
    assert!(
        doctor.lines("doctor")[0]["node"].as_str().is_some_and(|node| node.contains("a copy is read")),
        "{}",
        doctor.out
    );
    let run = spanwatch(&["verify", text(&file), "--format", "json", "--worker", worker]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert!(state_of(&dir) == before, "the database's directory was changed");

    // Stopped as it should be: nothing but the database is left.
    let out = tempfile::tempdir().expect("a directory");
    let mut kernel = LiveKernel::start(out.path());
    kernel.blocks(3);
    kernel.signal("TERM");
    assert_eq!(kernel.wait(), Some(0));
    let dir = out.path().join("agoric");
    let before = state_of(&dir);
    assert_eq!(before.len(), 1, "{:?}", before.keys());
    let run = spanwatch(&["verify", text(&dir), "--worker", worker]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert!(state_of(&dir) == before, "the database's directory was changed");
}
