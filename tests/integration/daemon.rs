//! The daemon beside a node: nothing that closes goes without a verdict, and nothing that happens to either ends it.
//!
//! The node is a stand-in that writes as the swing-store does, a commit a block, with what the fake worker would do; so a
//! test decides when what is committed. A real kernel and a real worker are in `lab` and `alarm`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::beside::{Daemon, Setup, verdicts};
use crate::run::{fake_worker, spanwatch, text};
use crate::synthetic::{Keep, Node, change_item};

/// A directory with a node, two vats at work in it.
struct Bench {
    dir: tempfile::TempDir,
    node: Option<Node>,
}

const BOUNDS: [(u64, u64); 4] = [(0, 6), (6, 11), (11, 16), (16, 21)];

impl Bench {
    fn new(keep: Keep) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("agoric")).expect("a directory");
        let mut bench = Self { dir, node: None };
        let mut node = Node::create(&bench.file(), keep);
        node.start_vat("v1", "one");
        node.start_vat("v2", "two");
        node.commit();
        bench.node = Some(node);
        bench
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("agoric/swingstore.sqlite")
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("it runs")
    }

    fn setup(&self, directive: &str) -> Setup {
        Setup::new(self.dir.path(), &self.file(), &fake_worker(self.dir.path(), directive))
    }

    /// A span of a vat, its end in a block of its own.
    fn span(&mut self, daemon: &Daemon, vat: &str, height: &mut u64) {
        self.node().work(vat);
        self.node().commit();
        *height += 1;
        daemon.wait_for_block(*height);
        self.node().save(vat);
        self.node().commit();
        *height += 1;
        daemon.wait_for_block(*height);
    }

    fn names(&self) -> Vec<(std::ffi::OsString, u64, u32)> {
        let entries = fs::read_dir(self.dir.path().join("agoric")).expect("list").map(|entry| entry.expect("an entry"));
        let mut names: Vec<_> = entries
            .map(|entry| {
                let meta = entry.metadata().expect("meta");
                (entry.file_name(), meta.ino(), meta.uid())
            })
            .collect();
        names.sort();
        names
    }
}

fn bounds(row: &Value) -> (u64, u64) {
    (row["start"].as_u64().expect("a number"), row["end"].as_u64().expect("a number"))
}

fn verdict_of(row: &Value) -> String {
    let verdict = row["verdict"].as_str().expect("a verdict");
    row["reason"].as_str().map_or_else(|| verdict.to_owned(), |reason| format!("{verdict}/{reason}"))
}

/// Of each kind of node every span is verified, from where its items and its image are.
#[test]
fn whatever_a_node_keeps_every_span_gets_its_verdict() {
    let archive = tempfile::tempdir().expect("a directory");
    let archived = Keep { archive: Some(archive.path().to_owned()), ..Keep::default() };
    for (keep, verdict, base) in [
        (Keep::everything(), "verified", "recorded"),
        (Keep::items(), "verified", "captured"),
        (archived, "verified", "recorded"),
        (Keep::default(), "partial", "captured"),
    ] {
        let mut bench = Bench::new(keep.clone());
        let mut setup = bench.setup("ok");
        if let Some(archive) = &keep.archive {
            setup = setup
                .set(&format!("node.transcript_archive={}", text(archive)))
                .set(&format!("node.snapshot_archive={}", text(archive)));
        }
        let daemon = setup.start();
        let mut height = 1;
        daemon.wait_for_block(height);
        for vat in ["v1", "v2", "v1", "v1", "v1"] {
            bench.span(&daemon, vat, &mut height);
        }
        daemon.wait_for_spans(5);
        let rows = daemon.verdicts();
        let of_v1: Vec<&Value> = rows.iter().filter(|row| row["vat"] == "v1").collect();
        assert_eq!(of_v1.iter().map(|row| bounds(row)).collect::<Vec<_>>(), BOUNDS, "{keep:?}");
        for row in &rows {
            assert_eq!(verdict_of(row), verdict, "{keep:?} {row}\n{}", daemon.said());
            let expected = if row["start"] == 0 { "blank" } else { base };
            assert_eq!(row["base"], expected, "{keep:?} {row}");
            // Of those whose end is deleted with them, all was seen but what the closing block brought.
            let seen_to =
                if verdict == "partial" { (row["end"].as_u64().expect("end") - 2).into() } else { Value::Null };
            assert_eq!(row["seen_to"], seen_to, "{keep:?} {row}");
        }
        let metrics = daemon.metrics();
        assert_eq!(metrics["spanwatch_missed_spans_total"], 0.0);
        let unseen = if verdict == "partial" { 10.0 } else { 0.0 };
        assert_eq!(metrics["spanwatch_unseen_items_total"], unseen);
        assert_eq!(metrics["spanwatch_deliveries_total"], if verdict == "partial" { 12.0 } else { 17.0 });
        assert_eq!(metrics["spanwatch_backlog_spans{source=\"live\"}"], 0.0);
        let copies = metrics["spanwatch_capture_bytes"];
        let retention = daemon.json("/api/v1/status")["node"]["retention"].clone();
        let keepers = match (keep.items, keep.images, keep.archive.is_some()) {
            (true, true, _) => ("node", "node"),
            (true, false, _) => ("node", "nobody"),
            (_, _, true) => ("archive", "archive"),
            _ => ("nobody", "nobody"),
        };
        assert_eq!((retention["items"].as_str(), retention["images"].as_str()), (Some(keepers.0), Some(keepers.1)));
        assert!(copies > 0.0 || keep.images, "{copies}");
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn a_divergence_alarms_until_somebody_takes_note_of_it() {
    let mut bench = Bench::new(Keep::everything());
    let setup = bench.setup("computrons");
    let daemon = setup.start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(1);
    let metrics = daemon.metrics();
    assert_eq!(metrics["spanwatch_divergences_total{kind=\"computrons\"}"], 1.0);
    assert_eq!(metrics["spanwatch_divergences_unacknowledged"], 1.0);
    assert_eq!(metrics["spanwatch_last_verified_timestamp_seconds"], 0.0);
    let lines = daemon.logged("DIVERGED");
    assert_eq!(lines.len(), 1, "{}", daemon.said());
    assert_eq!(lines[0]["level"], "ERROR");
    for (field, value) in [("vat", "v1"), ("name", "one"), ("recorded", "1030"), ("replayed", "1031")] {
        assert_eq!(lines[0][field], value, "{}", lines[0]);
    }
    // It is alive and at work all the same.
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(daemon.get("/readyz").0, 200, "{}", daemon.get("/readyz").1);
    let divergences = daemon.json("/api/v1/divergences");
    let id = divergences[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(divergences[0]["report"]["findings"][0]["recorded"], "1030");
    assert!(id.starts_with("v1.0.6-"), "{id}");

    // What follows is good, and does not clear it; nor does a new start.
    let state = text(&setup.state).to_owned();
    assert_eq!(daemon.stop(), Some(0));
    let good = bench.setup("ok");
    let daemon = good.start();
    bench.span(&daemon, "v2", &mut height);
    daemon.wait_for("a good one", |daemon| daemon.spans("verified") == 1);
    assert_eq!(daemon.metric("spanwatch_divergences_unacknowledged"), 1.0);
    assert_eq!(daemon.spans("diverged"), 1, "counted before the start");
    assert_eq!(daemon.logged("DIVERGED").len(), 1, "told once, not at each start");

    let list = |more: &[&str]| spanwatch(&[&["verdicts", "--state-dir", &state], more].concat());
    let listed = list(&["--diverged"]);
    assert_eq!(listed.code, 3);
    assert!(
        listed.out.contains(&id) && listed.out.contains("computrons: recorded 1030, replayed 1031"),
        "{}",
        listed.out
    );
    assert_eq!(list(&["--vat", "two"]).code, 0);
    let unknown = spanwatch(&["ack", "v9.0.6-00000000", "--state-dir", &state]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("no divergence v9.0.6-00000000"), "{}", unknown.err);
    let noted = spanwatch(&["ack", &id, "--note", "an old worker", "--state-dir", &state]);
    assert_eq!((noted.code, noted.out.trim()), (0, &*format!("{id} is acknowledged; 0 left")));
    assert_eq!(daemon.metric("spanwatch_divergences_unacknowledged"), 0.0);
    assert!(spanwatch(&["ack", &id, "--state-dir", &state]).out.contains("before"));
    let listed = list(&["--diverged"]);
    assert!(listed.code == 0 && listed.out.contains("acknowledged: an old worker"), "{}", listed.out);
}

/// A divergence in the part of a span that could be seen alarms like any other.
#[test]
fn a_divergence_in_a_part_is_one() {
    let mut bench = Bench::new(Keep::default());
    let daemon = bench.setup("wrong-syscall").start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(1);
    let row = &daemon.verdicts()[0];
    assert_eq!((row["verdict"].as_str(), row["seen_to"].as_u64()), (Some("diverged"), Some(4)), "{row}");
    assert_eq!(row["kinds"], serde_json::json!(["syscall"]));
}

#[test]
fn a_node_that_stops_and_starts_finds_nothing_of_ours() {
    let mut bench = Bench::new(Keep::items());
    let daemon = bench.setup("ok").start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    for round in 0..3 {
        // Whoever reads just as a node leaves keeps its -wal from being folded in.
        daemon.wait_for_spans(round + 1);
        std::thread::sleep(Duration::from_millis(300));
        let stopped = bench.node.take().expect("it runs").leave();
        daemon.wait_for_node("stopped");
        // Many polls later.
        std::thread::sleep(Duration::from_millis(2_500));
        let names: Vec<String> = bench.names().iter().map(|(name, ..)| name.to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["swingstore.sqlite"], "round {round}");
        bench.node = Some(stopped.restart(&bench.file()));
        daemon.wait_for_node("running");
        bench.span(&daemon, "v2", &mut height);
    }
    daemon.wait_for_spans(4);
    assert_eq!(daemon.spans("verified"), 4);
    let metrics = daemon.metrics();
    assert_eq!(metrics["spanwatch_node_events_total{event=\"stopped\"}"], 3.0);
    assert_eq!(metrics["spanwatch_node_events_total{event=\"started\"}"], 3.0);
    assert_eq!(daemon.logged("the node does not run").len(), 3);
}

/// Run as another user than the node's, who may write to its directory nevertheless: the worst that can be.
#[test]
fn a_node_of_another_user_can_go_on_writing() {
    if !rustix::process::geteuid().is_root() {
        println!("only root can be somebody else: not tried");
        return;
    }
    let mut bench = Bench::new(Keep::everything());
    let dir = bench.dir.path();
    for path in [dir.to_owned(), dir.join("agoric")] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    }
    for entry in fs::read_dir(dir.join("agoric")).expect("list") {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(entry.expect("an entry").path(), mode).expect("chmod");
    }
    let program = dir.join("spanwatch");
    fs::copy(env!("CARGO_BIN_EXE_spanwatch"), &program).expect("copy");
    let mut setup = bench.setup("ok").set("watch.poll_interval=100ms");
    fs::create_dir(&setup.state).expect("a directory");
    std::os::unix::fs::chown(&setup.state, Some(65_534), Some(65_534)).expect("chown");
    setup.wrapper = as_nobody(&program);
    let daemon = setup.start();
    let uid = fs::metadata(format!("/proc/{}", daemon.pid())).expect("it runs").uid();
    assert_eq!(uid, 65_534);
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    for _ in 0..5 {
        // At whatever moment: what may be left is the node's own.
        let stopped = bench.node.take().expect("it runs").leave();
        std::thread::sleep(Duration::from_millis(300));
        assert!(bench.names().iter().all(|(_, _, uid)| *uid == 0), "{:?}", bench.names());
        bench.node = Some(stopped.restart(&bench.file()));
        bench.span(&daemon, "v1", &mut height);
    }
    daemon.wait_for_spans(6);
    assert_eq!(daemon.spans("verified"), 6);
}

#[test]
fn a_node_that_comes_only_later_is_awaited() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("agoric/swingstore.sqlite");
    let worker = fake_worker(dir.path(), "ok");
    let daemon = Setup::new(dir.path(), &file, &worker).set("watch.poll_interval=100ms").start();
    daemon.wait_for_log("no kernel database at");
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(daemon.get("/healthz").0, 200);
    fs::create_dir(dir.path().join("agoric")).expect("a directory");
    let mut node = Node::create(&file, Keep::everything());
    node.start_vat("v1", "one");
    node.commit();
    daemon.wait_for_block(1);
    for _ in 0..2 {
        node.work("v1");
        node.save("v1");
        node.commit();
    }
    daemon.wait_for_spans(2);
    assert_eq!((daemon.spans("verified"), daemon.get("/readyz").0), (2, 200));
}

/// A node that is set up from a state of another's: its database is empty at first, then it has a past of which it has only
/// the rows.
#[test]
fn a_past_that_comes_later_is_no_miss() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("agoric")).expect("a directory");
    let file = dir.path().join("agoric/swingstore.sqlite");
    let mut node = Node::create(&file, Keep::default());
    node.commit();
    let daemon = Setup::new(dir.path(), &file, &fake_worker(dir.path(), "ok")).start();
    daemon.wait_for_block(1);
    for vat in ["v1", "v2"] {
        node.start_vat(vat, vat);
        for _ in 0..5 {
            node.work(vat);
            node.save(vat);
        }
    }
    node.commit();
    daemon.wait_for_block(2);
    node.work("v1");
    node.commit();
    daemon.wait_for_block(3);
    node.save("v1");
    node.commit();
    daemon.wait_for_spans(1);
    let rows = daemon.verdicts();
    assert_eq!(rows.iter().map(verdict_of).collect::<Vec<_>>(), ["partial"], "{rows:?}");
    assert_eq!(daemon.metric("spanwatch_missed_spans_total"), 0.0);
}

/// A row that no kernel writes costs its own verdict and no other's.
#[test]
fn a_row_that_is_no_span_takes_no_other_with_it() {
    for since in ["genesis", "now"] {
        let mut bench = Bench::new(Keep::everything());
        let mut spans = 0;
        let grow = |bench: &mut Bench, spans: &mut u64| {
            for _ in 0..60 {
                bench.node().work("v1");
                bench.node().save("v1");
                *spans += 1;
            }
            bench.node().commit();
        };
        let setup = bench.setup("ok").set(&format!("watch.since={since}"));
        if since == "now" {
            let daemon = setup.start();
            daemon.wait_for_block(1);
            daemon.kill();
        }
        grow(&mut bench, &mut spans);
        bench
            .node()
            .db
            .execute("UPDATE transcriptSpans SET incarnation = 'x' WHERE startPos = 106", [])
            .expect("write");
        bench.node().commit();
        let daemon = setup.start();
        daemon.wait_for_spans(spans - 1);
        assert_eq!(daemon.spans("verified"), spans - 1, "{since}");
        daemon.wait_for_log("1 rows of transcriptSpans of v1 are unreadable as spans");
    }
}

#[test]
fn a_database_that_moves_backwards_is_noticed_and_verified_anew_where_it_differs() {
    for keep in [Keep::everything(), Keep::items()] {
        let mut bench = Bench::new(keep);
        let daemon = bench.setup("ok").set("watch.poll_interval=100ms").start();
        let mut height = 1;
        daemon.wait_for_block(height);
        bench.span(&daemon, "v1", &mut height);
        daemon.wait_for_spans(1);
        let early = bench.node.take().expect("it runs").stop();
        let backup = bench.dir.path().join("backup");
        fs::copy(bench.file(), &backup).expect("copy");
        bench.node = Some(early.restart(&bench.file()));
        let (restored_at, vats_then) = (height, bench.node().snapshot_of_vats());
        bench.span(&daemon, "v1", &mut height);
        bench.span(&daemon, "v2", &mut height);
        daemon.wait_for_spans(3);

        // The node stops, somebody puts the backup in its place, and the node does the first span over, the second otherwise.
        let stopped = bench.node.take().expect("it runs").stop();
        fs::copy(&backup, bench.file()).expect("copy");
        let mut node = stopped.restart(&bench.file());
        node.back_to(vats_then, restored_at);
        height = restored_at;
        bench.node = Some(node);
        bench.node().commit();
        height += 1;
        daemon.wait_for_log("moved backwards");
        assert_eq!(daemon.metric("spanwatch_node_events_total{event=\"moved_backwards\"}"), 1.0);
        bench.span(&daemon, "v1", &mut height);
        // One message more than before.
        bench.node().message("v2", 7);
        bench.span(&daemon, "v2", &mut height);
        daemon.wait_for_spans(4);
        let rows = daemon.verdicts();
        assert!(rows.iter().all(|row| row["verdict"] == "verified"), "{rows:?}\n{}", daemon.said());
        // v1's second span came out the same, so its verdict stands; v2's did not.
        let of = |vat: &str| rows.iter().filter(|row| row["vat"] == vat).map(bounds).collect::<Vec<_>>();
        assert_eq!((of("v1"), of("v2")), (vec![(0, 6), (6, 11)], vec![(0, 6), (0, 7)]));
        assert_eq!(daemon.metric("spanwatch_missed_spans_total"), 0.0);
    }
}

/// While nobody looks, the database is restored, and the node comes further than it had been, by another way.
#[test]
fn another_history_behind_the_cursor_is_noticed() {
    let mut bench = Bench::new(Keep::everything());
    let setup = bench.setup("ok");
    let daemon = setup.start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    let stopped = bench.node.take().expect("it runs").stop();
    let backup = bench.dir.path().join("backup");
    fs::copy(bench.file(), &backup).expect("copy");
    bench.node = Some(stopped.restart(&bench.file()));
    let (restored_at, vats_then) = (height, bench.node().snapshot_of_vats());
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(2);
    daemon.kill();

    let stopped = bench.node.take().expect("it runs").stop();
    fs::copy(&backup, bench.file()).expect("copy");
    let mut node = stopped.restart(&bench.file());
    node.back_to(vats_then, restored_at);
    // One message more than before, and one span more.
    node.message("v1", 7);
    for _ in 0..2 {
        node.work("v1");
        node.save("v1");
        node.commit();
        node.commit();
    }
    bench.node = Some(node);
    let daemon = setup.start();
    daemon.wait_for_spans(4);
    let rows = daemon.verdicts();
    assert_eq!(rows.iter().map(bounds).collect::<Vec<_>>(), [(0, 6), (6, 11), (6, 12), (12, 17)], "{}", daemon.said());
    assert!(rows.iter().all(|row| row["verdict"] == "verified"), "{rows:?}");
    assert_eq!(daemon.logged("its history is another one").len(), 1);
}

#[test]
fn another_file_in_the_place_of_the_database_is_noticed() {
    let mut bench = Bench::new(Keep::everything());
    let daemon = bench.setup("ok").set("watch.poll_interval=100ms").start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(1);
    let stopped = bench.node.take().expect("it runs").stop();
    let copy = bench.dir.path().join("agoric/copy.sqlite");
    fs::copy(bench.file(), &copy).expect("copy");
    fs::rename(&copy, bench.file()).expect("rename");
    daemon.wait_for_log("was replaced by another file");
    assert_eq!(daemon.metric("spanwatch_node_events_total{event=\"replaced\"}"), 1.0);
    bench.node = Some(stopped.restart(&bench.file()));
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(2);
    assert_eq!(daemon.spans("verified"), 2);

    // Rubbish in its place is no database; the true one put back is.
    let stopped = bench.node.take().expect("it runs").stop();
    let (file, aside) = (bench.file(), bench.dir.path().join("aside"));
    fs::rename(&file, &aside).expect("rename");
    daemon.wait_for_node("missing");
    fs::write(&file, "not a database at all, but long enough to be asked. ".repeat(100)).expect("write");
    daemon.wait_for_node("unreadable");
    daemon.wait_for_log("the file is not an SQLite database");
    fs::rename(&aside, &file).expect("rename");
    bench.node = Some(stopped.restart(&bench.file()));
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(3);
    assert_eq!(daemon.spans("verified"), 3);
}

#[test]
fn an_archive_is_believed_only_as_far_as_rows_prove_it() {
    let archive = tempfile::tempdir().expect("a directory");
    let keep = Keep { archive: Some(archive.path().to_owned()), ..Keep::default() };
    let mut bench = Bench::new(keep);
    // Of a crank that was rolled back: no row will ever speak of it.
    fs::write(archive.path().join("transcript.v1.0.5.gz"), b"whatever").expect("write");
    let daemon = bench
        .setup("ok")
        .set(&format!("node.transcript_archive={}", text(archive.path())))
        .set(&format!("node.snapshot_archive={}", text(archive.path())))
        .set("capture.items=never")
        .start();
    daemon.wait_for_block(1);
    // A file that is damaged before the commit that it belongs to.
    bench.node().work("v2");
    bench.node().save("v2");
    let damaged = archive.path().join("transcript.v2.0.6.gz");
    let bytes = fs::read(&damaged).expect("the archive has it");
    fs::write(&damaged, &bytes[..bytes.len() / 2]).expect("write");
    bench.node().work("v1");
    bench.node().save("v1");
    bench.node().commit();
    daemon.wait_for_spans(2);
    let rows = daemon.verdicts();
    let of = |vat: &str| rows.iter().filter(|row| row["vat"] == vat).map(verdict_of).collect::<Vec<_>>();
    assert_eq!(of("v1"), ["verified"], "{}", daemon.said());
    assert_eq!(of("v2"), ["unverifiable/transcript_archive_damaged"]);
    let told = daemon.logged("copy the file from another node");
    assert!(told.len() == 1 && told[0]["message"].as_str().is_some_and(|text| text.contains("transcript.v2.0.6.gz")));
    assert_eq!(daemon.spans("diverged"), 0);
}

#[test]
fn an_archive_that_cannot_be_read_is_no_missing_item() {
    let mut bench = Bench::new(Keep::default());
    let daemon = bench.setup("ok").set("node.transcript_archive=/no/such/archive").set("capture.items=never").start();
    daemon.wait_for_block(1);
    daemon.wait_for_log("failed to list the archive directory /no/such/archive");
    bench.node().work("v1");
    bench.node().save("v1");
    bench.node().commit();
    daemon.wait_for("a failure", |daemon| daemon.metric("spanwatch_failures_total{reason=\"system\"}") > 1.0);
    assert_eq!(daemon.verdicts()[0]["verdict"], "pending");
    assert_eq!(daemon.metric("spanwatch_missed_spans_total"), 0.0);
}

#[test]
fn captures_stay_within_their_limit() {
    // What is verified gives its copies free.
    let mut bench = Bench::new(Keep::default());
    let daemon = bench.setup("ok").start();
    let mut height = 1;
    daemon.wait_for_block(height);
    for _ in 0..12 {
        bench.span(&daemon, "v1", &mut height);
        daemon.wait_for_spans(height / 2);
        assert!(daemon.metric("spanwatch_capture_bytes") <= 4096.0);
    }
    assert_eq!(daemon.spans("partial"), 12, "{}", daemon.said());
    drop(daemon);

    // Those of divergences stay while there is room, and go oldest first when there is none.
    let mut bench = Bench::new(Keep::default());
    let daemon = bench.setup("wrong-syscall").set("capture.max_bytes=8KiB").start();
    let mut height = 1;
    daemon.wait_for_block(height);
    for _ in 0..12 {
        bench.span(&daemon, "v1", &mut height);
        daemon.wait_for_spans(height / 2);
        assert!(daemon.metric("spanwatch_capture_bytes") <= 8192.0);
    }
    assert_eq!(daemon.spans("diverged"), 12, "{}", daemon.said());
    assert!(daemon.metric("spanwatch_capture_bytes") > 4096.0);
    assert!(daemon.metric("spanwatch_captures_evicted_total") > 0.0);
    assert_eq!(daemon.metric("spanwatch_capture_failures_total"), 0.0);
    drop(daemon);

    // No room for even one: said once, counted, and the span is missed.
    let mut bench = Bench::new(Keep::default());
    let daemon = bench.setup("ok").set("capture.max_bytes=1KiB").start();
    daemon.wait_for_block(1);
    let mut height = 1;
    for _ in 0..3 {
        bench.span(&daemon, "v1", &mut height);
    }
    daemon.wait_for_spans(3);
    let metrics = daemon.metrics();
    assert!(metrics["spanwatch_capture_failures_total"] > 0.0);
    assert!(metrics["spanwatch_missed_spans_total"] >= 1.0);
    assert_eq!(daemon.logged("capture.max_bytes is reached").len(), 1);
    assert_eq!(daemon.logged("missed span").len() as f64, metrics["spanwatch_missed_spans_total"]);
}

/// On a disk of its own that is really full.
#[test]
fn a_full_disk_holds_verdicts_back_and_loses_none() {
    let mut bench = Bench::new(Keep::everything());
    let mut setup = bench.setup("ok");
    let wrapper = "mount -t tmpfs -o size=4m tmpfs \"$0\" && exec \"$@\"";
    setup.wrapper = ["unshare", "-Urm", "sh", "-c", wrapper, text(&setup.state)].map(str::to_owned).into();
    let can_mount = Command::new("unshare").args(["-Urm", "true"]).status().is_ok_and(|status| status.success());
    if !can_mount {
        println!("no user namespaces here: not tried");
        return;
    }
    let daemon = setup.start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(1);
    // Inside its mount namespace, by way of its root.
    let ballast = PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), text(&setup.state))).join("ballast");
    let fill = fs::write(&ballast, vec![0; 8 << 20]);
    assert_eq!(fill.expect_err("full").raw_os_error(), Some(libc::ENOSPC));
    bench.node().work("v1");
    bench.node().save("v1");
    bench.node().commit();
    daemon.wait_for_log("the disk of state.dir is full");
    assert!(daemon.metric("spanwatch_state_errors_total") > 0.0);
    assert_eq!(daemon.spans("verified"), 1);
    fs::remove_file(&ballast).expect("remove");
    daemon.wait_for_spans(2);
    assert_eq!(daemon.spans("verified"), 2);
    let spans = daemon.json("/api/v1/spans");
    assert_eq!(spans.as_array().map(Vec::len), Some(2), "{spans}");
}

#[test]
fn nothing_is_begun_while_the_machine_is_short_of_something() {
    for (setting, reason) in [("state.min_free=900TiB", "disk"), ("neighbour.min_available_memory=900TiB", "memory")] {
        let mut bench = Bench::new(Keep::everything());
        let setup = bench.setup("ok").set(setting);
        let daemon = setup.start();
        daemon.wait_for_block(1);
        daemon.wait_for_log(&format!("paused, as {reason} is short"));
        bench.node().work("v1");
        bench.node().save("v1");
        bench.node().commit();
        daemon.wait_for("a span that waits", |daemon| daemon.metric("spanwatch_backlog_spans{source=\"live\"}") == 1.0);
        assert_eq!(daemon.metric(&format!("spanwatch_paused{{reason=\"{reason}\"}}")), 1.0);
        let (status, body) = daemon.get("/readyz");
        assert!(status == 503 && body.contains(&format!("paused for want of {reason}")), "{body}");
        assert_eq!(daemon.stop(), Some(0));
        // With enough of it, what was noted is done.
        let daemon = bench.setup("ok").start();
        daemon.wait_for_spans(1);
        assert_eq!(daemon.spans("verified"), 1);
    }
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let bench = Bench::new(Keep::everything());
    let first = bench.setup("ok").start();
    let second = bench.setup("ok").fail();
    assert_eq!(second.code, 1);
    assert!(second.err.contains("another spanwatch daemon uses the state directory"), "{}", second.err);

    let mut elsewhere = bench.setup("ok").set(&format!("http.listen={}", first.address()));
    elsewhere.state = bench.dir.path().join("other");
    let taken = elsewhere.fail();
    assert_eq!(taken.code, 1);
    assert!(taken.err.contains("failed to listen on") && taken.err.contains("http.listen"), "{}", taken.err);

    let mut unwritable = bench.setup("ok");
    unwritable.state = PathBuf::from("/proc/spanwatch");
    let run = unwritable.fail();
    assert!(run.code == 1 && run.err.contains("failed to make /proc/spanwatch"), "{}", run.err);

    let faulty = bench.setup("ok").set("watch.poll_interval=soon").set("capture.itms=never").fail();
    assert_eq!(faulty.code, 1);
    assert!(
        faulty.err.contains("2 faults")
            && faulty.err.contains("expected a duration")
            && faulty.err.contains("did you mean"),
        "{}",
        faulty.err
    );
    let run = bench.setup("ok").set("worker.path=/no/such/worker").fail();
    assert!(run.code == 1 && run.err.contains("/no/such/worker"), "{}", run.err);
}

#[test]
fn a_directory_that_may_not_be_read_is_said_to_be_so() {
    if !rustix::process::geteuid().is_root() {
        println!("only root can be somebody else: not tried");
        return;
    }
    let bench = Bench::new(Keep::everything());
    let dir = bench.dir.path();
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    fs::set_permissions(dir.join("agoric"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let program = dir.join("spanwatch");
    fs::copy(env!("CARGO_BIN_EXE_spanwatch"), &program).expect("copy");
    let mut setup = bench.setup("ok").set("watch.poll_interval=100ms");
    fs::create_dir(&setup.state).expect("a directory");
    std::os::unix::fs::chown(&setup.state, Some(65_534), Some(65_534)).expect("chown");
    setup.wrapper = as_nobody(&program);
    let daemon = setup.start();
    daemon.wait_for_node("unreadable");
    daemon.wait_for_log("may this user read the directory?");
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(daemon.logged("may this user").iter().filter(|line| line["level"] == "ERROR").count(), 1);
}

/// Runs the daemon as another user, who may not read where the program was built: a copy of it runs.
fn as_nobody(program: &Path) -> Vec<String> {
    let script = format!("shift; exec {} \"$@\"", text(program));
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script, "sh"].map(str::to_owned).into()
}

#[test]
fn a_vat_that_is_cleaned_up_under_a_replay_is_no_divergence() {
    let mut bench = Bench::new(Keep::everything());
    let daemon = bench.setup("slow").set("schedule.jobs=1").set("capture.items=never").start();
    let mut height = 1;
    daemon.wait_for_block(height);
    // While the first one is replayed, the vat ends and its rows go.
    for _ in 0..2 {
        bench.node().work("v1");
        bench.node().save("v1");
    }
    bench.node().terminate("v1");
    bench.node().commit();
    daemon.wait_for("a replay", |daemon| daemon.metric("spanwatch_workers_running") == 1.0);
    bench.node().clean_up("v1");
    bench.node().commit();
    height += 2;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v2", &mut height);
    daemon.wait_for_spans(4);
    let rows = daemon.verdicts();
    let found: Vec<String> = rows.iter().map(verdict_of).collect();
    for (row, verdict) in rows.iter().zip(&found) {
        let expected: &[&str] = match row["vat"].as_str() {
            Some("v1") => &["verified", "unverifiable/row_gone", "not_applicable/empty"],
            _ => &["verified"],
        };
        assert!(expected.contains(&verdict.as_str()), "{found:?}\n{}", daemon.said());
    }
    assert!(found.iter().any(|verdict| verdict == "unverifiable/row_gone"), "{found:?}\n{}", daemon.said());
    assert_eq!(daemon.metric("spanwatch_node_events_total{event=\"vat_terminated\"}"), 1.0);
}

#[test]
fn trouble_of_ours_is_tried_again_and_given_up_in_the_end() {
    let mut bench = Bench::new(Keep::everything());
    let daemon = bench.setup("exit-2").set("schedule.attempts_max=2").start();
    daemon.wait_for_block(1);
    bench.node().work("v1");
    bench.node().save("v1");
    bench.node().commit();
    daemon.wait_for_spans(1);
    let row = &daemon.verdicts()[0];
    assert_eq!((verdict_of(row).as_str(), row["attempts"].as_u64()), ("failed/worker_io", Some(1)), "{row}");
    assert_eq!(daemon.metric("spanwatch_failures_total{reason=\"worker_io\"}"), 2.0);
    assert_eq!((daemon.spans("diverged"), daemon.logged("gave up on").len()), (0, 1));
}

/// The history behind the live spans: all of it, or from a position on.
#[test]
fn history_is_worked_through_behind_what_is_live() {
    for (keep, since, expected) in [
        (Keep::everything(), "genesis", 40),
        (Keep::items(), "genesis", 40),
        (Keep::everything(), "12", 36),
        (Keep::everything(), "now", 0),
    ] {
        let mut bench = Bench::new(keep.clone());
        for vat in ["v1", "v2"] {
            // More than are noted at once.
            for _ in 0..20 {
                bench.node().work(vat);
                bench.node().save(vat);
                bench.node().commit();
            }
        }
        let daemon = bench.setup("ok").set(&format!("watch.since={since}")).start();
        daemon.wait_for_block(41);
        bench.node().work("v1");
        bench.node().save("v1");
        bench.node().commit();
        daemon.wait_for_spans(expected + 1);
        let rows = daemon.verdicts();
        assert_eq!(rows.len() as u64, expected + 1, "{keep:?} {since}");
        assert!(rows.iter().all(|row| row["verdict"] == "verified"), "{keep:?} {since} {rows:?}\n{}", daemon.said());
        let history = rows.iter().filter(|row| row["source"] == "history").count() as u64;
        assert_eq!(history, expected);
        assert_eq!(daemon.metric("spanwatch_backlog_spans{source=\"history\"}"), 0.0);
    }
}

/// Spans that close while nobody looks are found afterwards; a chain leads to images that nobody copied.
#[test]
fn what_closes_while_the_daemon_is_down_is_found_when_it_comes_back() {
    let mut bench = Bench::new(Keep::items());
    let setup = bench.setup("ok");
    let daemon = setup.start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(1);
    daemon.kill();
    for _ in 0..3 {
        bench.node().work("v1");
        bench.node().save("v1");
        bench.node().commit();
    }
    let daemon = setup.start();
    daemon.wait_for_spans(4);
    let rows = daemon.verdicts();
    assert_eq!(rows.iter().map(bounds).collect::<Vec<_>>(), BOUNDS);
    assert!(rows.iter().all(|row| row["verdict"] == "verified"), "{rows:?}\n{}", daemon.said());
}

#[test]
fn killed_again_and_again_it_gives_every_span_one_verdict() {
    for keep in [Keep::everything(), Keep::items()] {
        let mut bench = Bench::new(keep);
        let setup = bench.setup("ok").set("capture.max_bytes=64KiB");
        let mut spans = 0;
        for round in 0..25_u64 {
            let daemon = setup.start();
            if round == 0 {
                // Before its first look it is in charge of nothing.
                daemon.wait_for_block(1);
            }
            for _ in 0..3 {
                let vat = if spans % 3 == 0 { "v2" } else { "v1" };
                bench.node().work(vat);
                bench.node().commit();
                bench.node().save(vat);
                bench.node().commit();
                spans += 1;
            }
            // Not at once, or it never gets anywhere; and not always at the same point.
            std::thread::sleep(Duration::from_millis(round * 37 % 120));
            daemon.kill();
        }
        let daemon = setup.start();
        daemon.wait_for_spans(spans);
        let rows = daemon.verdicts();
        assert_eq!(rows.len() as u64, spans);
        assert!(rows.iter().all(|row| row["verdict"] == "verified"), "{rows:?}");
        let mut names: Vec<(String, (u64, u64))> =
            rows.iter().map(|row| (row["vat"].to_string(), bounds(row))).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len() as u64, spans);
        assert_eq!(daemon.spans("verified"), spans);
        assert_eq!(daemon.stop(), Some(0));
        let db = Connection::open(setup.state.join("spanwatch.sqlite")).expect("open");
        let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
        assert_eq!(verdict, "ok");
    }
}

#[test]
fn told_to_stop_it_finishes_what_it_has_begun_or_leaves_it_for_later() {
    let mut bench = Bench::new(Keep::everything());
    let setup = bench.setup("slow");
    for (grace, verdict) in [("20s", "verified"), ("0s", "pending")] {
        let daemon = setup_with_grace(&setup, grace).start();
        daemon.wait_for("the node", |daemon| daemon.metric("spanwatch_node_block_height") > 0.0);
        bench.node().work("v1");
        bench.node().save("v1");
        bench.node().commit();
        daemon.wait_for("a replay", |daemon| daemon.metric("spanwatch_workers_running") == 1.0);
        let began = Instant::now();
        assert_eq!(daemon.stop(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(15));
        let rows = verdicts(&setup.state);
        assert_eq!(rows.last().expect("a span")["verdict"], verdict, "{grace}");
    }
    // What was left is done at the next start.
    let daemon = bench.setup("ok").start();
    daemon.wait_for_spans(2);
    assert_eq!(daemon.spans("verified"), 2);
}

/// What systemd is told: that it serves, that it is alive, that it stops.
#[test]
fn the_service_manager_is_kept_informed() {
    let bench = Bench::new(Keep::everything());
    let path = bench.dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut setup = bench.setup("ok");
    setup.wrapper = vec!["env".to_owned(), format!("NOTIFY_SOCKET={}", text(&path))];
    let daemon = setup.start();
    let told = || {
        let mut message = [0; 4096];
        let bytes = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..bytes]).into_owned()
    };
    assert_eq!(told().trim(), "READY=1");
    assert_eq!(told().trim(), "WATCHDOG=1");
    assert_eq!(daemon.stop(), Some(0));
    while told().trim() != "STOPPING=1" {}
}

fn setup_with_grace(setup: &Setup, grace: &str) -> Setup {
    let mut settings = setup.settings.clone();
    settings.push(format!("neighbour.shutdown_grace={grace}"));
    Setup { wrapper: setup.wrapper.clone(), settings, state: setup.state.clone() }
}

/// A changed record in a live database is found, as it is in one at rest.
#[test]
fn a_record_that_was_changed_under_its_hash_cannot_be_verified() {
    let mut bench = Bench::new(Keep::everything());
    let daemon = bench.setup("ok").set("capture.items=never").start();
    daemon.wait_for_block(1);
    bench.node().work("v1");
    bench.node().save("v1");
    bench.node().work("v1");
    bench.node().commit();
    let stopped = bench.node.take().expect("it runs").stop();
    daemon.wait_for_spans(1);
    change_item(&bench.file(), "v1", 7, false, |item| item.replace("1030", "1031"));
    bench.node = Some(stopped.restart(&bench.file()));
    bench.node().save("v1");
    bench.node().commit();
    daemon.wait_for_spans(2);
    let rows = daemon.verdicts();
    assert_eq!(rows.iter().map(verdict_of).collect::<Vec<_>>(), ["verified", "unverifiable/span_hash_mismatch"]);
}
