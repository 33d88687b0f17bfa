//! Exports run by what they are for.
//!
//! Goal: show that an exported trace makes `replay.js` of the real `@agoric/xsnap` send its worker what ours was sent, down to
//! the hash of the heap; that it notices an answer that is wrong or missing; and that an exported transcript has the form that the
//! SDK's tool reads. Method: evidence of real spans, of a vat that prints in the middle of deliveries, with one computron
//! changed in the record, so that the heap at the end is the recorded one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::report::{cost_more, evidence};
use crate::run::{spanwatch, text};
use crate::wait::{try_end, wait_until};

/// Where npm put the package.
fn xsnap() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/node_modules/@agoric/xsnap");
    fs::canonicalize(package).expect("`make lab` installs it")
}

struct Node {
    child: Child,
    out: PathBuf,
}

/// Runs something with Node, in a directory.
fn node(dir: &Path, arguments: &[&str]) -> Node {
    let out = dir.join("node.txt");
    let file = fs::File::create(&out).expect("a file");
    let child = Command::new("node")
        .args(arguments)
        .current_dir(dir)
        .env_remove("TZ")
        .stdin(Stdio::null())
        .stderr(file.try_clone().expect("a file"))
        .stdout(file)
        .spawn()
        .expect("node");
    Node { child, out }
}

impl Node {
    fn said(&self) -> String {
        fs::read_to_string(&self.out).expect("text")
    }

    /// Its exit code; `None` if it has not ended after a while.
    fn end(&mut self, patience: Duration) -> Option<i32> {
        try_end(&mut self.child, patience)?.code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its worker goes with it: its pipe ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exports a trace and gives its directory.
fn trace(dir: &Path, folder: &Path) -> PathBuf {
    let to = dir.join("trace");
    let run = spanwatch(&["export", text(folder), "--xsnap-trace", text(&to)]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert!(
        run.out.contains(&format!("next: node {} DIR_OF_@agoric/xsnap", text(&to.join("replay.mjs")))),
        "{}",
        run.out
    );
    to
}

/// The names of a trace's steps.
fn steps(trace: &Path) -> Vec<String> {
    let entries = fs::read_dir(trace.join("trace")).expect("steps");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("plain")).collect();
    names.sort();
    names
}

fn runs_as_recorded(trace: &Path) {
    let mut run = node(trace.parent().expect("a directory"), &[text(&trace.join("replay.mjs")), text(&xsnap())]);
    assert_eq!(run.end(Duration::from_secs(120)), Some(0), "{}", run.said());
    let steps = steps(trace).len() - 1;
    for says in [format!("ran {steps} of {steps} steps"), ", as recorded".to_owned()] {
        assert!(run.said().contains(&says), "{says} in {}", run.said());
    }
}

#[test]
fn xsnap_runs_the_trace_of_a_span_that_starts_blank() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = evidence(dir.path(), "upgraded", 0, 2, cost_more);
    let trace = trace(dir.path(), &folder);
    let steps = steps(&trace);
    let kinds: Vec<&str> = steps.iter().map(|name| name.split(['-', '.']).nth(1).expect("a kind")).collect();
    assert_eq!(kinds[..5], ["options", "evaluate", "evaluate", "issueCommand", "issueCommand"]);
    assert_eq!(kinds.last(), Some(&"snapshot"));
    let options: Value =
        serde_json::from_slice(&fs::read(trace.join("trace").join(&steps[0])).expect("options")).expect("json");
    assert_eq!(options, json!({"os": "Linux", "name": "v15:upgraded", "debug": false, "meteringLimit": 0}));
    // The vat prints twice in its second delivery and writes to the test log: each is asked and answered.
    let content = |name: &String| fs::read_to_string(trace.join("trace").join(name)).expect("text");
    let printed: Vec<usize> = (0..steps.len())
        .filter(|at| kinds[*at] == "command" && !content(&steps[*at]).starts_with("[\"syscall\","))
        .collect();
    let answers: Vec<String> = printed.iter().map(|at| content(&steps[at + 1])).collect();
    assert_eq!(answers, ["[\"ok\"]", "[\"ok\"]", "[\"OK\"]"]);
    assert!(content(&steps[printed[0]]).contains("before the store"));

    runs_as_recorded(&trace);
    // Its own command line does too, as this one needs no image.
    let mut run = node(
        dir.path(),
        &[
            "--import",
            text(&xsnap().join("../../@endo/init/index.js")),
            text(&xsnap().join("src/replay.js")),
            &format!("{}/", text(&trace.join("trace"))),
        ],
    );
    assert_eq!(run.end(Duration::from_secs(120)), Some(0), "{}", run.said());
    assert!(run.said().contains(&format!("{} snapshot", steps.len() - 1)), "{}", run.said());

    // A wrong answer: the vat counts on from it, and its heap is another one.
    let steps_dir = trace.join("trace");
    let reply = steps_dir.join(&steps[6]);
    let right = fs::read_to_string(&reply).expect("text");
    assert_eq!(
        (&content(&steps[5])[..], &right[..]),
        (r#"["syscall",["vatstoreGet","idCounters"]]"#, r#"["ok",null]"#)
    );
    fs::write(&reply, r#"["ok","{\"exportID\":100,\"collectionID\":1,\"promiseID\":5}"]"#).expect("write");
    let mut wrong = node(dir.path(), &[text(&trace.join("replay.mjs")), text(&xsnap())]);
    assert_eq!(wrong.end(Duration::from_secs(120)), Some(1), "{}", wrong.said());
    assert!(wrong.said().contains("neither as recorded nor"), "{}", wrong.said());
    fs::write(&reply, right).expect("write");

    // A missing one: the worker waits for it, and replay.js, which has come to the step before the snapshot, with it.
    let last = steps.iter().rfind(|name| name.ends_with("-reply.dat")).expect("a reply");
    fs::remove_file(steps_dir.join(last)).expect("remove");
    let mut missing = node(dir.path(), &[text(&trace.join("replay.mjs")), text(&xsnap())]);
    let last_step = format!("/ {} command", steps.len() - 4);
    wait_until(Duration::from_secs(60), || missing.said().contains(&last_step), || missing.said());
    assert_eq!(missing.end(Duration::from_secs(3)), None, "{}", missing.said());
    assert!(!missing.said().contains("sha256 of"), "{}", missing.said());
}

#[test]
fn xsnap_runs_the_trace_of_a_span_that_loads_an_image() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = evidence(dir.path(), "collections", 5, 8, cost_more);
    let trace = trace(dir.path(), &folder);
    let steps = steps(&trace);
    assert_eq!(steps[1], "00001-isReady.dat");
    runs_as_recorded(&trace);

    // With another program in place of the package's own, which is our way to run the one that diverged.
    let mut other = node(dir.path(), &[text(&trace.join("replay.mjs")), text(&xsnap()), "/bin/false"]);
    assert!(other.end(Duration::from_secs(60)).is_some_and(|code| code != 0), "{}", other.said());
}

/// What `replay-transcript.js` makes of a file, by its own rules: the first line says how the worker starts, each other one
/// is an item, or has a type.
fn read_sst(content: &str) -> (Value, Vec<Value>, Vec<Value>) {
    let mut lines = content.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    let first = lines.next().expect("a first line");
    assert!(["create-vat", "heap-snapshot-load"].contains(&first["type"].as_str().expect("a type")), "{first}");
    let (saves, items): (Vec<Value>, Vec<Value>) = lines.partition(|line| line["type"] == "heap-snapshot-save");
    for item in &items {
        assert_eq!(item["type"], Value::Null, "{item}");
        assert!(item["transcriptNum"].is_u64() && item["d"][0].is_string() && item["sc"].is_array(), "{item}");
    }
    (first, items, saves)
}

#[test]
fn a_transcript_is_as_the_sdk_reads_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = evidence(dir.path(), "upgraded", 0, 2, cost_more);
    let to = tempfile::tempdir().expect("a directory");
    let file = to.path().join("blank.sst");
    let run = spanwatch(&["export", text(&folder), "--sst", text(&file), "--format", "json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let (first, items, saves) = read_sst(&fs::read_to_string(&file).expect("a file"));
    let recorded = fs::read_to_string(folder.join("recorded.jsonl")).expect("the record");
    let recorded: Vec<Value> = recorded.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    let options = &recorded[0]["d"][1];
    assert_eq!(
        first,
        json!({
            "type": "create-vat", "transcriptNum": 0, "vatID": "v15", "vatName": "upgraded",
            "bundleIDs": options["workerOptions"]["bundleIDs"], "vatSourceBundleID": options["source"]["bundleID"],
        })
    );
    let expected: Vec<Value> = (1..4)
        .map(|at| {
            let mut item = recorded[at].clone();
            item["transcriptNum"] = json!(at);
            item
        })
        .collect();
    assert_eq!(items, expected);
    let image = &recorded[4]["r"]["snapshotID"];
    assert_eq!(saves, [json!({"type": "heap-snapshot-save", "transcriptNum": 4, "vatID": "v15", "snapshotID": image})]);
    // The tool reads what the worker starts with as JSON, from files with these names.
    let ids = first["bundleIDs"].as_array().expect("IDs").iter().chain([&first["vatSourceBundleID"]]);
    let formats: Vec<String> = ids
        .map(|id| {
            let bundle = fs::read(to.path().join(id.as_str().expect("an ID"))).expect("a bundle");
            let bundle: Value = serde_json::from_slice(&bundle).expect("json");
            bundle["moduleFormat"].as_str().expect("a format").to_owned()
        })
        .collect();
    assert_eq!(formats, ["nestedEvaluate", "nestedEvaluate", "endoZipBase64"]);

    // What is there is not overwritten.
    let again = spanwatch(&["export", text(&folder), "--sst", text(&file)]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("is there already"), "{}", again.err);
    let none = spanwatch(&["export", text(&folder)]);
    assert_eq!(none.code, 2, "{}", none.err);
}

/// The kernel's own modules run the transcript, put together as the tool does it.
#[test]
fn the_kernels_own_modules_run_the_transcript() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = evidence(dir.path(), "collections", 5, 8, cost_more);
    let to = tempfile::tempdir().expect("a directory");
    let file = to.path().join("load.sst.gz");
    assert_eq!(spanwatch(&["export", text(&folder), "--sst", text(&file)]).code, 0);
    let mut content = String::new();
    GzDecoder::new(fs::File::open(&file).expect("a file")).read_to_string(&mut content).expect("a gzip");
    let (first, items, saves) = read_sst(&content);
    assert_eq!((&first["type"], items.len(), saves.len()), (&json!("heap-snapshot-load"), 12, 1));
    let image = to.path().join(format!("v6-{}.xss", first["snapshotID"].as_str().expect("a hash")));
    assert!(fs::metadata(&image).expect("the image").len() > 1 << 20);

    let plain = to.path().join("load.sst");
    fs::write(&plain, &content).expect("write");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/run-sst.mjs");
    let mut run = node(dir.path(), &[text(&script), text(&plain)]);
    assert_eq!(run.end(Duration::from_secs(120)), Some(0), "{}", run.said());
    let saved = format!("12 deliveries, saved {}", saves[0]["snapshotID"].as_str().expect("a hash"));
    assert!(run.said().contains(&saved), "{saved} in {}", run.said());

    // Without its image there is nothing to export.
    fs::remove_file(folder.join("base.xss.zst")).expect("remove");
    for (form, to) in [("--sst", to.path().join("x.sst")), ("--xsnap-trace", to.path().join("x"))] {
        let run = spanwatch(&["export", text(&folder), form, text(&to)]);
        assert_eq!(run.code, 1);
        assert!(run.err.contains("the image that the span starts from is gone") && !to.exists(), "{}", run.err);
    }

    // A syscall that was never made is noticed by them.
    let changed = content.replacen("\"vatstoreSet\",\"", "\"vatstoreSet\",\"x", 1);
    assert_ne!(changed, content);
    fs::write(&plain, changed).expect("write");
    let mut run = node(dir.path(), &[text(&script), text(&plain)]);
    assert_ne!(run.end(Duration::from_secs(120)), Some(0), "{}", run.said());
    assert!(run.said().contains("wrong syscall"), "{}", run.said());
}

/// The replay stops at a question that the record does not answer; the trace ends with it.
#[test]
fn a_trace_ends_where_the_replay_stopped() {
    let dir = tempfile::tempdir().expect("a directory");
    // The vat reads a key of which the record says nothing any more.
    let folder = evidence(dir.path(), "collections", 5, 6, |item| {
        let mut parsed: Value = serde_json::from_str(item).expect("json");
        let syscalls = parsed["sc"].as_array_mut().expect("syscalls");
        let is_state = |syscall: &Value| syscall["s"][1].as_str().is_some_and(|key| key.starts_with("vom."));
        let key = syscalls.iter().find(|syscall| is_state(syscall)).expect("a read")["s"].clone();
        syscalls.retain(|syscall| syscall["s"] != key);
        let delivery = &item[..item.find(",\"sc\":").expect("syscalls")];
        format!(r#"{delivery},"sc":{},"r":{}}}"#, parsed["sc"], parsed["r"])
    });
    let to = dir.path().join("trace");
    let run = spanwatch(&["export", text(&folder), "--xsnap-trace", text(&to), "--format", "json"]);
    assert_eq!((run.code, &run.lines("export")[0]["xsnap_trace"]["waits_at"]), (0, &json!(6)), "{}", run.err);
    let steps = steps(&to);
    let last = steps.last().expect("a step");
    assert!(last.ends_with("-command.dat"), "{last}");
    assert!(fs::read_to_string(to.join("trace").join(last)).expect("text").contains("vom."), "{last}");

    // The page says that the rest was not replayed, and marks only what differs.
    let page = dir.path().join("report.html");
    assert_eq!(spanwatch(&["report", text(&folder), "-o", text(&page)]).code, 0);
    let page = fs::read_to_string(&page).expect("the page");
    assert!(page.contains("Computrons of 12 deliveries, 0 not the same, 12 not replayed"));
    assert_eq!(page.matches("text-anchor=\"middle\">≠ ").count(), 1);
}
