//! What happens to a node, its database and the daemon itself: each is noticed, told once, and survived.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rusqlite::Connection;

use crate::bench::{BOUNDS, Bench, as_nobody, bounds, verdict_of};
use crate::beside::Setup;
use crate::run::fake_worker;
use crate::skip::is_root;
use crate::synthetic::{Keep, Node, change_item};

#[test]
fn a_node_that_stops_and_starts_finds_nothing_of_ours() {
    let mut bench = Bench::new(Keep::items());
    let daemon = bench.setup("ok").set("watch.poll_interval=100ms").start();
    let mut height = 1;
    daemon.wait_for_block(height);
    bench.span(&daemon, "v1", &mut height);
    for round in 0..3 {
        daemon.wait_for_spans(round + 1);
        let stopped = bench.node.take().expect("it runs").stop();
        daemon.wait_for_node("stopped");
        daemon.wait_for_polls(10);
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
    assert_eq!(daemon.logged("the node is stopped").len(), 3);
}

/// Run as another user than the node's, who may write to its directory nevertheless: the worst that can be.
#[test]
fn a_node_of_another_user_can_go_on_writing() {
    if !is_root() {
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
    let mut setup = bench.setup("ok").set("watch.poll_interval=100ms").set("watch.poll_interval=100ms");
    // Not below a directory that everybody can write to: that is refused.
    let state = tempfile::tempdir().expect("a directory");
    fs::set_permissions(state.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    setup.state = state.path().join("state");
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
        // At any moment, also while the daemon reads: a file that is left is the node's own.
        let stopped = bench.node.take().expect("it runs").leave();
        daemon.wait_for_polls(3);
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
        daemon.wait_for_log("the row of transcriptSpans of v1 that starts at 106 can't be read as a span");
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
        daemon.assert_rows_unsuspected();
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
    daemon.assert_rows_unsuspected();
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
    daemon.assert_rows_unsuspected();
}

#[test]
fn a_directory_that_may_not_be_read_is_said_to_be_so() {
    if !is_root() {
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
        bench.close("v1");
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
        daemon.assert_rows_unsuspected();
        assert_eq!(daemon.stop(), Some(0));
        let db = Connection::open(setup.state.join("spanwatch.sqlite")).expect("open");
        let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
        assert_eq!(verdict, "ok");
    }
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
