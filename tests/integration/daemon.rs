//! What the daemon does with spans that close: each gets its verdict, whatever the node keeps, and whatever the machine lacks.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench::{BOUNDS, Bench, bounds, verdict_of};
use crate::beside::{Setup, verdicts};
use crate::run::{spanwatch, text};
use crate::skip::{Needs, skip};
use crate::synthetic::Keep;

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
            // Images are copied until the daemon has seen that the node archives them; copies are asked before archives.
            let is_copy = keep.archive.is_some() && row["base"] == "captured";
            assert!(row["base"] == expected || is_copy, "{keep:?} {row}");
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
        // What is verified in part counts: a node that deletes all gives nothing else.
        assert!(metrics["spanwatch_last_verified_timestamp_seconds"] > 1e9, "{keep:?}");
        let last = daemon.json("/readyz")["last_verified"]["v1"]["position"].clone();
        let seen_to = rows.iter().rfind(|row| row["vat"] == "v1").map(|row| row["seen_to"].clone());
        let seen_to = seen_to.expect("a row").as_u64().unwrap_or(21);
        assert_eq!(last, seen_to - 1, "{keep:?}");
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
    assert_eq!(metrics["spanwatch_divergences_total{heap=\"\",kind=\"computrons\"}"], 1.0);
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
    assert!(spanwatch(&["ack", &id, "--state-dir", &state]).out.contains("before; no change"));
    let listed = list(&["--diverged"]);
    assert!(listed.code == 0 && listed.out.contains("acknowledged: an old worker\n"), "{}", listed.out);
    // Notes can be added later, and all are shown.
    let noted = spanwatch(&["ack", &id, "--note", "it was 4.6.0", "--state-dir", &state]);
    assert!(noted.code == 0 && noted.out.contains("the note is added"), "{}{}", noted.out, noted.err);
    let listed = list(&["--diverged"]);
    assert!(listed.out.contains("acknowledged: an old worker\n    acknowledged: it was 4.6.0\n"), "{}", listed.out);
    assert_eq!(list(&["--format", "json", "--diverged"]).lines("verdict")[0]["note"], "an old worker\nit was 4.6.0");
    // A vat that was never seen is an error, as in `verify`.
    for arguments in [&["verdicts", "--vat", "nobody"][..], &["ack", "--all", "changed", "--vat", "nobody"]] {
        let run = spanwatch(&[arguments, &["--state-dir", &state]].concat());
        assert!(run.code == 1 && run.err.contains("no vat nobody"), "{arguments:?}: {}", run.err);
    }
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
    bench.close("v1");
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
    // Said at once, with the key and the node's setting.
    let lines = daemon.logged("failed to list the archive directory /no/such/archive");
    let said = lines[0]["message"].as_str().expect("a message");
    assert!(lines[0]["level"] == "ERROR" && said.contains("node.transcript_archive"), "{said}");
    assert!(said.contains("vat-transcript-archive-dir"), "{said}");
    bench.close("v1");
    daemon.wait_for("a failure", |daemon| daemon.metric("spanwatch_failures_total{reason=\"system\"}") > 1.0);
    assert_eq!(daemon.verdicts()[0]["verdict"], "pending");
    assert_eq!(daemon.metric("spanwatch_missed_spans_total"), 0.0);
}

/// A snapshot and an upgrade in one block leave a span that holds no delivery, of which a node that deletes all leaves nothing to see.
#[test]
fn a_span_without_a_delivery_is_not_missed() {
    let mut bench = Bench::new(Keep::default());
    let daemon = bench.setup("ok").start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    daemon.wait_for_spans(1);
    bench.node().work("v1");
    bench.node().commit();
    daemon.wait_for_block(height + 1);
    bench.node().save("v1");
    bench.node().upgrade("v1");
    bench.node().commit();
    daemon.wait_for_spans(3);
    let rows = daemon.verdicts();
    let empty = rows.iter().find(|row| bounds(row) == (11, 13)).expect("the span of the upgrade");
    assert_eq!(verdict_of(empty), "unverifiable/items_pruned", "{}", daemon.said());
    assert_eq!(daemon.metric("spanwatch_missed_spans_total"), 0.0, "{}", daemon.said());
    assert_eq!(daemon.metric("spanwatch_damaged_spans"), 0.0, "{}", daemon.said());
    assert!(daemon.logged("missed span").is_empty(), "{}", daemon.said());
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
    let wrapper = "mount -t tmpfs -o size=4m,mode=0750 tmpfs \"$0\" && exec \"$@\"";
    setup.wrapper = ["unshare", "-Urm", "sh", "-c", wrapper, text(&setup.state)].map(str::to_owned).into();
    let can_mount = Command::new("unshare")
        .args(["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .status()
        .is_ok_and(|status| status.success());
    if !can_mount {
        return skip(Needs::Mounts);
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
    bench.close("v1");
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
        daemon.wait_for_log(&format!("replays paused: {reason} low"));
        bench.close("v1");
        daemon.wait_for("a span that waits", |daemon| daemon.metric("spanwatch_backlog_spans{source=\"live\"}") == 1.0);
        assert_eq!(daemon.metric(&format!("spanwatch_paused{{reason=\"{reason}\"}}")), 1.0);
        let (status, body) = daemon.get("/readyz");
        assert!(status == 503 && body.contains(&format!("replays paused: {reason} low")), "{body}");
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
    assert_eq!(faulty.code, 2);
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
fn trouble_of_ours_is_tried_again_and_given_up_in_the_end() {
    let mut bench = Bench::new(Keep::everything());
    let daemon = bench.setup("exit-2").set("schedule.attempts_max=2").start();
    daemon.wait_for_block(1);
    bench.close("v1");
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
                bench.close(vat);
            }
        }
        let daemon = bench.setup("ok").set(&format!("watch.since={since}")).start();
        daemon.wait_for_block(41);
        bench.close("v1");
        daemon.wait_for_spans(expected + 1);
        let rows = daemon.verdicts();
        assert_eq!(rows.len() as u64, expected + 1, "{keep:?} {since}");
        assert!(rows.iter().all(|row| row["verdict"] == "verified"), "{keep:?} {since} {rows:?}\n{}", daemon.said());
        let history = rows.iter().filter(|row| row["source"] == "history").count() as u64;
        assert_eq!(history, expected);
        assert_eq!(daemon.metric("spanwatch_backlog_spans{source=\"history\"}"), 0.0);
    }
}

#[test]
fn told_to_stop_it_finishes_what_it_has_begun_or_leaves_it_for_later() {
    let mut bench = Bench::new(Keep::everything());
    let setup = bench.setup("slow");
    for (grace, verdict) in [("20s", "verified"), ("0s", "pending")] {
        let daemon = setup_with_grace(&setup, grace).start();
        daemon.wait_for("the node", |daemon| daemon.metric("spanwatch_node_block_height") > 0.0);
        bench.close("v1");
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

/// Each kind of damage to a closed span that nobody has judged yet: told as an error, counted, alarmed, and no exit code 0.
#[test]
fn damage_is_loud_until_somebody_takes_note_of_it() {
    type Harm = fn(&rusqlite::Connection);
    let cases: [(&str, Harm); 4] = [
        ("span_hash_mismatch", |db| {
            db.execute("UPDATE transcriptItems SET item = replace(item, '1030', '1031') WHERE position = 7", [])
                .expect("write");
        }),
        ("items_missing", |db| {
            db.execute("DELETE FROM transcriptItems WHERE vatID = 'v1' AND position = 7", []).expect("write");
        }),
        ("span_row_damaged", |db| {
            db.execute("UPDATE transcriptSpans SET hash = 'none' WHERE vatID = 'v1' AND startPos = 6", [])
                .expect("write");
        }),
        ("base_damaged", |db| {
            db.execute("UPDATE snapshots SET compressedSnapshot = x'00' WHERE vatID = 'v1' AND snapPos = 5", [])
                .expect("write");
        }),
    ];
    for (reason, harm) in cases {
        let mut bench = Bench::new(Keep::everything());
        let setup = bench.setup("ok").set("capture.items=never").set("capture.images=never");
        let daemon = setup.start();
        daemon.wait_for_block(1);
        bench.close("v1");
        daemon.wait_for_spans(1);
        // In the block that closes the span: nobody sees it whole.
        bench.node().work("v1");
        bench.node().save("v1");
        harm(&bench.node().db);
        bench.node().commit();
        daemon.wait_for_spans(2);
        let row = daemon.verdicts().into_iter().find(|row| row["start"] == 6).expect("the span");
        assert_eq!(verdict_of(&row), format!("unverifiable/{reason}"), "{}", daemon.said());
        assert_eq!((&row["damage"], &row["acknowledged"]), (&true.into(), &false.into()), "{row}");
        let told = daemon.logged("DAMAGED");
        assert!(told.len() == 1 && told[0]["level"] == "ERROR" && told[0]["reason"] == reason, "{reason}: {told:?}");
        let message = told[0]["message"].as_str().expect("text");
        assert!(message.contains("restore the node from a backup") && message.contains("another node"), "{message}");
        assert_eq!(daemon.metric("spanwatch_damaged_spans"), 1.0, "{reason}");
        let ready = daemon.json("/readyz");
        assert_eq!((&ready["ready"], &ready["unacknowledged"]["damaged"]), (&true.into(), &1.into()), "{ready}");
        assert_eq!(daemon.json("/api/v1/status")["damaged_spans"], 1);
        let alarms = daemon.json("/api/v1/alarms");
        assert_eq!((alarms.as_array().map(Vec::len), &alarms[0]["id"]), (Some(1), &row["id"]), "{alarms}");

        // It outlives the process, until somebody takes note of it.
        let state = text(&setup.state).to_owned();
        assert_eq!(daemon.stop(), Some(0));
        let list = |more: &[&str]| spanwatch(&[&["verdicts", "--state-dir", &state], more].concat());
        let listed = list(&["--alarms"]);
        assert!(listed.code == 4 && listed.out.contains("DAMAGED"), "{}: {}", listed.code, listed.out);
        assert_eq!((list(&[]).code, list(&["--diverged"]).code), (4, 0));
        let daemon = setup.start();
        assert_eq!(daemon.metric("spanwatch_damaged_spans"), 1.0, "{reason}");
        let noted = spanwatch(&["ack", row["id"].as_str().expect("an id"), "--state-dir", &state]);
        assert_eq!((noted.code, noted.out.contains("0 left")), (0, true), "{}{}", noted.out, noted.err);
        assert_eq!(daemon.metric("spanwatch_damaged_spans"), 0.0, "{reason}");
        assert_eq!(list(&[]).code, 0);
    }
}
