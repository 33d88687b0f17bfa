//! A divergence can be replayed and explained from its folder alone.
//!
//! Goal: for each way of going wrong that can be made here, show that the folder holds what is needed, and that what is said
//! of it names the right kind, the right place, whether it is always the same, and a cause that fits. Method: copies of
//! real records with one thing changed, a worker that was compiled otherwise, another time zone, a vat whose heap
//! differs each time, and a fake worker that crashes. What `explain` says of each is in the golden files
//! `snapshots/integration__evidence__*.snap` (`INSTA_UPDATE=always make test` writes them anew).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bench::Bench;
use crate::lab::{delicate, lab, real_worker};
use crate::model::hex;
use crate::mutations::{Record, change, first, reads_a_balance, record, syscalls};
use crate::run::{Run, fake_worker, spanwatch, text};
use crate::synthetic::{self, Keep, change_item, rehash};
use crate::wait::wait_for;

/// The only folder in a directory of evidence.
fn only_folder(dir: &Path) -> PathBuf {
    let mut folders = folders(dir);
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("list").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Without what differs from machine to machine or from run to run.
fn masked(said: &str, worker: &Path, folder: &Path) -> String {
    let said = said.replace(text(worker), "WORKER").replace(text(folder), "FOLDER");
    let mut masked = String::new();
    let mut run = String::new();
    for character in said.chars().chain(['\0']) {
        if matches!(character, '0'..='9' | 'a'..='f') {
            run.push(character);
            continue;
        }
        let is_hash = run.len() >= 8 && run.contains(|one: char| one.is_ascii_alphabetic());
        masked.push_str(if is_hash { "<hash>" } else { &run });
        run.clear();
        if character != '\0' {
            masked.push(character);
        }
    }
    masked
}

/// Evidence of the one divergence in a database.
pub struct Found {
    _dir: tempfile::TempDir,
    pub folder: PathBuf,
    worker: PathBuf,
    line: Value,
}

pub fn find(file: &Path, worker: &Path, more: &[&str]) -> Found {
    let dir = tempfile::tempdir().expect("a directory");
    let arguments =
        ["verify", text(file), "--format", "json", "--worker", text(worker), "--evidence", text(dir.path())];
    let run = spanwatch(&[&arguments[..], more].concat());
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    let line = run.lines("span").into_iter().find(|line| line["verdict"] == "diverged").expect("a divergence");
    let folder = only_folder(dir.path());
    assert_eq!(folder.file_name().expect("a name").to_str(), line["evidence"].as_str());
    Found { _dir: dir, folder, worker: worker.to_owned(), line }
}

impl Found {
    fn explained(&self) -> String {
        let run = spanwatch(&["explain", text(&self.folder)]);
        assert_eq!(run.code, 0, "{}", run.err);
        masked(&run.out, &self.worker, &self.folder)
    }

    fn account(&self) -> Value {
        spanwatch(&["explain", text(&self.folder), "--format", "json"]).lines("account").remove(0)
    }

    /// The causes that fit, with how sure they are.
    fn causes(&self) -> Vec<String> {
        let account = self.account();
        let causes = account["causes"].as_array().expect("causes").iter();
        causes.map(|cause| format!("{} {}", cause["name"], cause["confidence"]).replace('"', "")).collect()
    }

    /// Replayed by the worker that diverged, unless others are named.
    fn replay(&self, more: &[&str]) -> Run {
        let same = ["--worker", text(&self.worker)];
        let worker = if more.contains(&"--worker") { &[][..] } else { &same[..] };
        spanwatch(&[&["replay", text(&self.folder), "--format", "json"], worker, more].concat())
    }
}

/// What a span's line says, but for what is of the run alone, and for what contradicts itself in the record: that is told of
/// databases, and evidence is replayed without it.
fn verdict_of(line: &Value) -> Value {
    let mut line = line.clone();
    for field in
        ["seconds", "base", "base_from", "items_from", "evidence", "worker", "contradictions", "contradictions_total"]
    {
        line.as_object_mut().expect("an object").remove(field);
    }
    line
}

/// Changes the delivery that all changes are made to, verifies, and tells.
fn changed(record: &Record, apply: impl Fn(&mut Value)) -> Found {
    let file = record.copy();
    change_item(&file, &record.vat, record.target, true, change(apply));
    let range = format!("{}..{}", record.start, record.end);
    find(&file, Path::new(&record.worker), &["--span", &range])
}

#[test]
fn what_was_changed_in_a_record_is_explained() {
    let record = record(&lab("everything"));
    let schemata = || json!({"s": ["vatstoreGet", "vc.1.|schemata"], "r": ["ok", "{}"]});

    let found = changed(&record, |item| {
        let computrons = item["r"]["metering"]["computrons"].as_u64().expect("a number");
        item["r"]["metering"]["computrons"] = json!(computrons + 1);
    });
    assert!(found.causes().contains(&"metering possible".to_owned()), "{:?}", found.causes());
    insta::assert_snapshot!("computrons", found.explained());
    let manifest = fs::read(found.folder.join("manifest.json")).expect("read");
    let manifest: Value = serde_json::from_slice(&manifest).expect("json");
    assert!(manifest["engine"]["atoms"]["HEAP"].as_u64().is_some_and(|bytes| bytes > 0), "{}", manifest["engine"]);
    // The folder, elsewhere and packed, gives the same verdict.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let file = elsewhere.path().join("one.spanwatch");
    assert_eq!(spanwatch(&["evidence", "pack", text(&found.folder), text(&file)]).code, 0);
    let unpacked = spanwatch(&["evidence", "unpack", text(&file), text(elsewhere.path())]);
    assert_eq!(unpacked.code, 0, "{}", unpacked.err);
    fs::remove_dir_all(&found.folder).expect("remove");
    for evidence in [text(&file), unpacked.out.trim()] {
        let again = spanwatch(&["replay", evidence, "--format", "json", "--worker", &record.worker]);
        assert_eq!(again.code, 3, "{}", again.err);
        assert_eq!(verdict_of(&again.lines("span")[0]), verdict_of(&found.line));
    }

    let found = changed(&record, |item| {
        syscalls(item).pop();
    });
    assert_eq!(found.causes(), ["record_changed likely", "record_cut possible"]);
    insta::assert_snapshot!("last_syscall_missing", found.explained());

    let found = changed(&record, |item| {
        let at = first(item["sc"].as_array().expect("syscalls"), "vatstoreSet");
        syscalls(item).swap(at, at + 1);
    });
    assert_eq!(found.causes(), ["record_changed likely", "order likely"]);
    insta::assert_snapshot!("syscalls_swapped", found.explained());

    let found = changed(&record, |item| syscalls(item).insert(2, schemata()));
    assert_eq!(found.causes(), ["garbage_collection likely", "record_changed likely"]);
    insta::assert_snapshot!("gc_sensitive_read", found.explained());

    // The replay makes a read that the record lost: what the span's record tells of its key answers it.
    let found = changed(&record, |item| {
        let syscalls = syscalls(item);
        let is_read = |syscall: &Value| syscall["s"][1].as_str().is_some_and(|key| key.ends_with(".|schemata"));
        let at = syscalls.iter().position(is_read).expect("a read of a schema");
        syscalls.remove(at);
    });
    let rows = found.account()["deliveries"][0]["syscalls"].as_array().expect("syscalls").clone();
    let extra = rows.iter().find(|row| row["mark"] == "extra").expect("an extra one");
    assert_eq!((&extra["answer"], &extra["class"]), (&json!("inferred"), &json!("gc_sensitive_read")));
    assert!(found.causes().contains(&"garbage_collection likely".to_owned()), "{:?}", found.causes());
    insta::assert_snapshot!("read_inferred", found.explained());

    let found = changed(&record, |item| {
        let syscalls = syscalls(item);
        let at = syscalls.iter().position(reads_a_balance).expect("a read");
        let state = syscalls[at]["r"][1].as_str().expect("text").replacen("+1", "+2", 1);
        syscalls[at]["r"][1] = json!(state);
    });
    insta::assert_snapshot!("response", found.explained());
    assert_eq!(verdict_of(&found.replay(&[]).lines("span")[0]), verdict_of(&found.line));
}

/// A supervisor that does the same and is not the same.
fn other_supervisor(file: &Path, vat: &str) -> (String, String) {
    let db = Connection::open(file).expect("open");
    let item: String = db
        .query_row("SELECT item FROM transcriptItems WHERE vatID = ? AND position = 0", [vat], |row| row.get(0))
        .expect("an item");
    let parsed: Value = serde_json::from_str(&item).expect("json");
    let old = parsed["d"][1]["workerOptions"]["bundleIDs"][1].as_str().expect("a supervisor").to_owned();
    let text: String =
        db.query_row("SELECT bundle FROM bundles WHERE bundleID = ?", [&old], |row| row.get(0)).expect("a bundle");
    let changed = text.replacen("\"source\":\"", "\"source\":\"/* other */ ", 1);
    assert_ne!(text, changed);
    let new = format!(
        "b0-{}",
        Sha256::digest(changed.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    db.execute("INSERT INTO bundles VALUES (?, ?)", params![new, changed]).expect("write");
    db.execute(
        "UPDATE transcriptItems SET item = ? WHERE vatID = ? AND position = 0",
        params![item.replace(&old, &new), vat],
    )
    .expect("write");
    rehash(&db, vat, 0);
    (new, text)
}

#[test]
fn another_bundle_is_found_and_can_be_tried() {
    let record = record(&lab("everything"));
    let file = record.copy();
    let (new, right) = other_supervisor(&file, &record.vat);
    let found = find(&file, Path::new(&record.worker), &["--span", "0..1"]);
    assert!(found.causes().iter().any(|cause| cause.starts_with("bundle ")), "{:?}", found.causes());
    insta::assert_snapshot!("bundle", found.explained());
    let right_file = record.dir.path().join("right.json");
    fs::write(&right_file, right).expect("write");
    let run = found.replay(&["--with-bundle", &format!("{new}={}", text(&right_file))]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let what_if = &run.lines("what_if")[0];
    assert_eq!(what_if["reproduced"], what_if["deliveries"], "{what_if}");
    assert_eq!(what_if["first_difference"], Value::Null);
    // Without it, the difference is where it was.
    let run = found.replay(&["--repeats", "1"]);
    assert_eq!(verdict_of(&run.lines("span")[0])["findings"], found.line["findings"]);
    // A bundle that the span does not start with.
    let run = found.replay(&["--with-bundle", &format!("b0-00={}", text(&right_file))]);
    assert!(run.code == 1 && run.err.contains("cannot replace bundle b0-00"), "{}", run.err);
}

/// Compiled without `__has_builtin`, by `scripts/odd-worker.sh`.
pub fn odd_worker() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/odd-xsnap-worker");
    assert!(path.exists(), "`make test` compiles it: scripts/odd-worker.sh");
    path
}

#[test]
fn the_compilers_fault_is_narrowed_down_to_its_delivery() {
    let (good, odd) = (real_worker(), odd_worker());
    let lab = delicate();
    let found = find(&lab.file, &odd, &["--vat", "products"]);
    assert_eq!(found.causes(), ["compiler likely"]);
    assert_eq!(found.line["heap"]["answer"], "isomorphic");
    insta::assert_snapshot!("compiler", found.explained());

    let run = found.replay(&["--worker", text(&good), "--worker", text(&odd), "--repeats", "1"]);
    assert_eq!(run.verdicts(), ["verified", &format!("diverged/snapshot_hash@{}", position_of(&found.line))]);
    assert_eq!(found.causes()[0], "worker certain");

    let bisect = |more: &[&str]| {
        let workers = ["--worker", text(&good), "--worker", text(&odd), "--format", "json"];
        let run = spanwatch(&[&["bisect", text(&found.folder)], &workers[..], more].concat());
        assert_eq!(run.code, 3, "{}", run.err);
        run.lines("bisection").remove(0)
    };
    let (quick, thorough) = (bisect(&[]), bisect(&["--linear"]));
    // The one delivery that multiplies.
    let db = Connection::open_with_flags(&lab.file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).expect("open");
    let multiplies: u64 = db
        .query_row(
            "SELECT position FROM transcriptItems WHERE vatID = ? AND instr(item, 'multiply') > 0",
            [lab.vat("products")],
            |row| row.get::<_, i64>(0).map(i64::unsigned_abs),
        )
        .expect("such a delivery");
    assert_eq!((quick["first"].as_u64(), thorough["first"].as_u64()), (Some(multiplies), Some(multiplies)));
    assert_eq!(quick["is_deterministic"], true);
    let (deliveries, replays) = (quick["deliveries"].as_f64().expect("a number"), quick["replays"].as_f64());
    let most = 2.0 * (2.0 + deliveries.log2().ceil()) + 1.0;
    assert!(replays.expect("a number") <= most, "{quick}: more than {most}");
    let thrice = bisect(&["--repeats", "3"]);
    assert_eq!(thrice["replays"].as_f64(), replays.map(|replays| replays + 2.0), "{thrice}");
    assert_eq!(thrice["is_deterministic"], true);
    // Looked at after each delivery: the same before it, and not the same from it on.
    for probe in thorough["probes"].as_array().expect("probes") {
        assert_eq!(probe["is_same"], probe["position"].as_u64().expect("a position") < multiplies, "{probe}");
    }
    for image in quick["images"].as_array().expect("images") {
        assert!(fs::metadata(image.as_str().expect("a path")).expect("it is kept").len() > 100_000);
    }
    let same = spanwatch(&["bisect", text(&found.folder), "--worker", text(&good), "--worker", text(&good)]);
    assert_eq!(same.code, 0, "{}{}", same.out, same.err);

    // Against the record: the first span of a chain that differs.
    let chain = ["verify", text(&lab.file), "--chain", "--vat", "products", "--worker", text(&odd), "--format", "json"];
    let run = spanwatch(&[&chain[..], &["--repeats", "1"]].concat());
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert_eq!(run.lines("chain")[0]["first"], json!([found.line["start"], found.line["end"]]));
}

fn position_of(line: &Value) -> u64 {
    line["findings"][0]["position"].as_u64().expect("a position")
}

#[test]
fn what_the_host_leaves_in_a_heap_is_told() {
    let worker = real_worker();
    let lab = delicate();
    let found = find(&lab.file, &worker, &["--vat", "patterns"]);
    assert_eq!(found.line["repeat"], "flaky");
    assert_eq!(found.causes(), ["host_in_heap certain"]);
    insta::assert_snapshot!("host_in_heap", found.explained());

    let found = find(&lab.file, &worker, &["--vat", "zones", "--worker-tz", "Asia/Kolkata", "--span", "5..6"]);
    assert_eq!(found.line["repeat"], "deterministic");
    assert_eq!(found.causes()[0], "time_zone likely");
    insta::assert_snapshot!("time_zone", found.explained());
    // The folder knows the zone in which that was, and the right one settles it.
    assert_eq!(found.replay(&[]).code, 3);
    assert_eq!(found.replay(&["--worker-tz", "UTC"]).code, 0);
    assert_eq!(found.causes()[0], "worker likely");
}

#[test]
fn workers_that_end_are_explained() {
    let synthetic = synthetic::database();
    let find = |directive: &str| {
        let worker = fake_worker(synthetic.dir.path(), directive);
        find(&synthetic.file, &worker, &["--vat", "v2", "--sandbox", "off"])
    };
    for (directive, causes) in [
        ("exit-12", &["limits likely"][..]),
        ("signal-11", &["crash likely"]),
        ("exit-15", &["crash likely"]),
        ("wrong-hash", &["bundle possible", "compiler possible", "time_zone possible", "gc_schedule possible"]),
        ("flaky", &["host_in_heap likely"]),
    ] {
        let found = find(directive);
        assert_eq!(found.causes(), causes, "{directive}");
        let again = found.replay(&["--sandbox", "off"]);
        assert_eq!(again.code, 3, "{directive}: {}", again.err);
        if directive != "flaky" {
            assert_eq!(verdict_of(&again.lines("span")[0]), verdict_of(&found.line), "{directive}");
        }
    }
    insta::assert_snapshot!("crash", find("signal-11").explained());
}

/// The most memory that a run had resident, in bytes, with what it said.
fn run_measured(arguments: &[&str]) -> (Run, u64) {
    let out = tempfile::NamedTempFile::new().expect("a file");
    let err = tempfile::NamedTempFile::new().expect("a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_spanwatch"))
        .args(arguments)
        .stdout(out.reopen().expect("open"))
        .stderr(err.reopen().expect("open"))
        .spawn()
        .expect("spanwatch");
    let mut most = 0;
    let look = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        most = most.max(kib << 10);
        child.try_wait().expect("wait")
    };
    let status = wait_for(Duration::from_secs(300), look, || format!("{arguments:?} hangs"));
    let text = |file: &tempfile::NamedTempFile| fs::read_to_string(file.path()).expect("text");
    (Run { code: status.code().unwrap_or(-1), out: text(&out), err: text(&err) }, most)
}

#[test]
fn a_thousand_of_the_same_are_one_folder_with_a_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("swingstore.sqlite");
    let mut node = synthetic::Node::create(&file, Keep::everything());
    node.start_vat("v1", "one");
    for _ in 0..1_000 {
        node.work("v1");
        node.save("v1");
    }
    node.commit();
    drop(node.stop());
    let worker = fake_worker(dir.path(), "computrons");
    let evidence = dir.path().join("evidence");
    let arguments = ["verify", text(&file), "--format", "json", "--worker", text(&worker), "--repeats", "1"];
    let (run, memory) = run_measured(&[&arguments[..], &["--evidence", text(&evidence)]].concat());
    assert_eq!(run.code, 3, "{}", run.err);
    let diverged = run.verdicts().iter().filter(|verdict| verdict.starts_with("diverged/computrons")).count();
    assert_eq!(diverged, 1_000);
    let folder = only_folder(&evidence);
    let seen: Value = serde_json::from_slice(&fs::read(folder.join("seen.json")).expect("read")).expect("json");
    assert_eq!(seen["times"], 1_000);
    let bytes: u64 =
        fs::read_dir(&folder).expect("list").map(|entry| entry.expect("entry").metadata().expect("meta").len()).sum();
    assert!(bytes < 64 << 10, "{bytes} bytes of evidence");
    assert!(memory < 96 << 20, "{memory} bytes of memory");
    println!("1,000 divergences: {bytes} bytes of evidence, {memory} bytes of memory");
    let explained = spanwatch(&["explain", text(&folder)]);
    assert!(explained.out.contains("met 1000 times"), "{}", explained.out);
}

#[test]
fn evidence_stays_within_its_limit_and_never_costs_a_verdict() {
    let record = record(&lab("everything"));
    let file = record.copy();
    change_item(&file, &record.vat, record.target, true, change(|item| item["r"]["metering"]["computrons"] = json!(1)));
    let dir = tempfile::tempdir().expect("a directory");
    // What a process that was killed has left.
    fs::create_dir_all(dir.path().join(".unfinished-1/bundles")).expect("a directory");
    let arguments = ["verify", text(&file), "--worker", &record.worker, "--evidence", text(dir.path())];
    let run = spanwatch(&[&arguments[..], &["--evidence-max", "1MiB"]].concat());
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains("no evidence could be kept: ") && run.out.contains("evidence.max_bytes"), "{}", run.out);
    assert_eq!(folders(dir.path()), Vec::<PathBuf>::new());
    let not_there = ["verify", text(&file), "--worker", &record.worker, "--evidence", "/dev/null/no"];
    let run = spanwatch(&not_there);
    assert!(run.code == 1 && run.err.contains("failed to make /dev/null/no"), "{}", run.err);
}

#[test]
fn damaged_evidence_is_told_from_a_divergence() {
    let synthetic = synthetic::database();
    let worker = fake_worker(synthetic.dir.path(), "computrons");
    let found = find(&synthetic.file, &worker, &["--vat", "v1", "--span", "6..7"]);
    let manifest = fs::read_to_string(found.folder.join("manifest.json")).expect("read");
    let says = |expected: &str| {
        let run = found.replay(&[]);
        assert!(run.code == 1 && run.err.contains(expected), "{expected}: {} {}", run.code, run.err);
        assert_eq!(spanwatch(&["evidence", "pack", text(&found.folder), "/dev/null/x"]).code, 1);
    };
    let with = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, expected: &str| {
        let path = found.folder.join(name);
        let before = fs::read(&path).expect("read");
        fs::write(&path, change(before.clone())).expect("write");
        says(expected);
        fs::write(&path, before).expect("write");
    };
    let flip = |mut bytes: Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    };
    with("recorded.jsonl", &flip, "was changed or damaged");
    with("recorded.jsonl", &|bytes| bytes[..10].to_vec(), "was changed or damaged");
    with("base.xss.zst", &flip, "was changed or damaged");
    with("base.xss.zst", &|bytes| bytes[..10].to_vec(), "was changed or damaged");
    with("manifest.json", &|bytes| bytes[..10].to_vec(), "is no evidence");
    with(
        "manifest.json",
        &|_| manifest.replace("\"schema\": 1", "\"schema\": 99").into_bytes(),
        "use a newer spanwatch",
    );
    let hash = found.line["findings"][0]["position"].to_string();
    assert!(!hash.is_empty());
    let other_hash = |_| {
        let mut value: Value = serde_json::from_str(&manifest).expect("json");
        value["span"]["hash"] = json!(hex(b"other"));
        value.to_string().into_bytes()
    };
    with("manifest.json", &other_hash, "can't be replayed");
    fs::remove_file(found.folder.join("base.xss.zst")).expect("remove");
    says("the image that the span starts from is gone");
    for nothing in ["/no/such/folder", "/etc/passwd", "/tmp"] {
        let run = spanwatch(&["explain", nothing]);
        assert!(run.code == 1 && run.err.starts_with("spanwatch: "), "{}", run.err);
    }
}

#[test]
fn the_daemon_keeps_evidence_until_it_is_acknowledged_and_room_is_needed() {
    let mut bench = Bench::new(Keep::everything());
    let setup = bench.setup("computrons").set("evidence.repeats=1");
    let daemon = setup.start();
    daemon.wait_for_block(1);
    for _ in 0..3 {
        bench.close("v1");
    }
    daemon.wait_for_spans(3);
    assert_eq!(daemon.metric("spanwatch_evidence_folders"), 1.0);
    assert!(daemon.metric("spanwatch_evidence_bytes") > 0.0);
    let dir = setup.state.join("evidence");
    let one = only_folder(&dir);
    let row = &daemon.json("/api/v1/divergences")[0];
    assert_eq!(row["report"]["evidence"].as_str(), one.file_name().expect("a name").to_str());
    assert_eq!(daemon.logged("evidence: ").len(), 3);
    // Acknowledged, all of them: the next one is news.
    for row in daemon.verdicts() {
        let id = row["id"].as_str().expect("an id");
        assert_eq!(spanwatch(&["ack", id, "--state-dir", text(&setup.state)]).code, 0);
    }
    bench.close("v1");
    daemon.wait_for_spans(4);
    assert_eq!(folders(&dir).len(), 2);
    let size = daemon.metric("spanwatch_evidence_bytes");
    assert_eq!(daemon.stop(), Some(0));
    // With room for two and a half, the acknowledged one makes way, and the other one does not.
    let limit = format!("evidence.max_bytes={:.0}KiB", size * 0.75 / 1024.0);
    let setup = bench.setup("wrong-syscall").set("evidence.repeats=1").set(&limit);
    let daemon = setup.start();
    bench.close("v1");
    daemon.wait_for_spans(5);
    let left = folders(&dir);
    assert!(!left.contains(&one), "{left:?}");
    assert_eq!(daemon.spans("diverged"), 5);
    bench.close("v2");
    bench.close("v2");
    daemon.wait_for_spans(7);
    assert_eq!(daemon.spans("diverged"), 7);
    let failures = daemon.metric("spanwatch_evidence_failures_total{reason=\"full\"}");
    assert!(failures >= 1.0, "{failures}");
    assert!(daemon.said().contains("could be kept"));
}
