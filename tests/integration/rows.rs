//! Rows of the node's database that nobody should touch any more: what is changed in them is found, what a node does is not.

use std::fs;

use rusqlite::Connection;
use serde_json::Value;

use crate::bench::{Bench, verdict_of};
use crate::beside::{Daemon, Setup};
use crate::lab::{LiveKernel, lab, real_worker};
use crate::run::{fake_worker, spanwatch, text};
use crate::synthetic::{Keep, Node};

/// What is done to the rows of v1 in a database, and what is told of it: the reason, and where.
type Edit = (&'static str, &'static str, u64);

/// Each edits another span of v1, whose spans are `[0, 6)`, `[6, 11)`, `[11, 16)` and so on.
const EDITS: [Edit; 7] = [
    ("UPDATE transcriptSpans SET hash = replace(hash, 'a', 'b') WHERE vatID = 'v1' AND startPos = 0", "row_changed", 0),
    ("UPDATE transcriptSpans SET endPos = 10 WHERE vatID = 'v1' AND startPos = 6", "row_changed", 6),
    ("UPDATE transcriptSpans SET incarnation = 1 WHERE vatID = 'v1' AND startPos = 16", "row_changed", 16),
    ("UPDATE transcriptSpans SET incarnation = 'x' WHERE vatID = 'v1' AND startPos = 26", "row_changed", 26),
    ("DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 36", "row_gone", 36),
    ("UPDATE snapshots SET hash = replace(hash, 'a', 'b') WHERE vatID = 'v1' AND snapPos = 50", "image_changed", 46),
    ("DELETE FROM snapshots WHERE vatID = 'v1' AND snapPos = 60", "image_gone", 56),
];

fn alarms(daemon: &Daemon) -> Vec<(String, u64)> {
    let listed = daemon.json("/api/v1/alarms");
    let of =
        |row: &Value| (row["reason"].as_str().expect("a reason").to_owned(), row["start"].as_u64().expect("a start"));
    let mut alarms: Vec<_> = listed.as_array().expect("a list").iter().map(of).collect();
    alarms.reverse();
    alarms
}

/// Commits the block as it is: none of the values that tell a node's progress changes.
fn commit_unseen(node: &Node) {
    node.db.execute_batch("COMMIT; BEGIN IMMEDIATE").expect("commit");
}

#[test]
fn an_old_row_that_changes_after_its_verdict_raises_an_alarm() {
    const ROWS_A_POLL: u64 = 3;
    let mut bench = Bench::new(Keep::everything());
    let setup = bench
        .setup("ok")
        .set("watch.poll_interval=100ms")
        .set(&format!("watch.recheck_rows={ROWS_A_POLL}"))
        .set("state.keep_verdicts=365d");
    let daemon = setup.start();
    daemon.wait_for_block(1);
    for _ in 0..14 {
        bench.close("v1");
    }
    daemon.wait_for_spans(14);
    assert_eq!(daemon.spans("verified"), 14, "{}", daemon.said());
    daemon.assert_rows_unsuspected();
    let rows = 14 + 2;
    for (count, (sql, reason, _)) in (1_u64..).zip(EDITS) {
        assert_eq!(bench.node().db.execute(sql, []).expect("write"), 1, "{sql}");
        let read_before = daemon.metric("spanwatch_rechecked_rows_total");
        if count % 2 == 0 {
            bench.node().commit();
        } else {
            commit_unseen(bench.node());
        }
        daemon.wait_for(reason, |daemon| daemon.metric("spanwatch_changed_rows") == count as f64);
        // Within a round and what is left of the one before, and as many polls as that takes.
        let read = daemon.metric("spanwatch_rechecked_rows_total") - read_before;
        assert!(read <= (2 * rows + ROWS_A_POLL) as f64, "{sql}: found after {read} rows");
    }
    let expected: Vec<(String, u64)> = EDITS.iter().map(|(_, reason, start)| ((*reason).to_owned(), *start)).collect();
    assert_eq!(alarms(&daemon), expected, "each once, and nothing else");
    let told = daemon.logged("CHANGED");
    assert!(told.len() == EDITS.len() && told.iter().all(|line| line["level"] == "ERROR"), "{told:?}");
    assert!(
        told[1]["message"].as_str().is_some_and(|text| text.contains("was (end 11,") && text.contains("is (end 10,"))
    );
    assert_eq!(daemon.metric("spanwatch_damaged_spans"), 0.0, "one fault is one alarm");

    // It outlives a kill, is not raised again, and ends with an acknowledgement.
    daemon.kill();
    let state = text(&setup.state).to_owned();
    let list = |more: &[&str]| spanwatch(&[&["verdicts", "--state-dir", &state], more].concat());
    let listed = list(&["--alarms"]);
    assert!(listed.code == 3 && listed.out.contains("CHANGED"), "{}: {}", listed.code, listed.out);
    let daemon = setup.start();
    daemon.wait_for_rechecks();
    assert_eq!(daemon.metric("spanwatch_changed_rows"), EDITS.len() as f64);
    assert_eq!(daemon.logged("CHANGED").len(), EDITS.len(), "told once, not in each round");
    let id = daemon.json("/api/v1/alarms")[0]["id"].as_str().expect("an id").to_owned();
    let one = spanwatch(&["ack", &id, "--note", "a test", "--state-dir", &state]);
    assert!(one.code == 0 && one.out.contains("6 left"), "{}{}", one.out, one.err);
    let all = spanwatch(&["ack", "--all", "changed", "--vat", "one", "--state-dir", &state]);
    assert_eq!((all.code, all.out.trim()), (0, "6 acknowledged; 0 left"), "{}", all.err);
    daemon.wait_for_rechecks();
    assert_eq!((daemon.metric("spanwatch_changed_rows"), list(&[]).code), (0.0, 0));
}

/// A span that was recorded anew from another image fits to itself. The span before it saved another one.
#[test]
fn a_span_must_load_what_the_span_before_it_saved() {
    let mut bench = Bench::new(Keep::everything());
    let daemon = bench.setup("ok").set("watch.recheck_rows=0").start();
    daemon.wait_for_block(1);
    bench.close("v1");
    daemon.wait_for_spans(1);
    bench.node().swap_image("v1");
    bench.node().work("v1");
    bench.node().commit();
    daemon.wait_for_block(3);
    bench.close("v1");
    daemon.wait_for_spans(2);
    let rows = daemon.verdicts();
    let of_span = rows.iter().find(|row| row["start"] == 6 && row["source"] == "live").expect("the span");
    assert_eq!(verdict_of(of_span), "unverifiable/history_broken", "{of_span}");
    let why = of_span["explanation"].as_str().expect("why");
    assert!(why.contains("load-snapshot names"), "{why}");
    assert_eq!(of_span["damage"], true);
    // What follows starts from what that one saved, and fits.
    bench.close("v1");
    daemon.wait_for_spans(3);
    assert_eq!(daemon.spans("verified"), 2, "{}", daemon.said());
}

#[test]
fn a_break_in_a_history_is_damage() {
    let cases: [(&str, &str, u64); 5] = [
        (
            "UPDATE transcriptSpans SET isCurrent = NULL WHERE vatID = 'v1' AND isCurrent = 1",
            "none of its spans is open",
            11,
        ),
        ("DELETE FROM transcriptSpans WHERE vatID = 'v1'", "it has no span at all", 0),
        // Of a span that closes in the same block, so that nobody has seen its row.
        (
            "DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 6",
            "the last span that was seen ended at 6",
            6,
        ),
        (
            "UPDATE transcriptSpans SET endPos = 9 WHERE vatID = 'v1' AND startPos = 6",
            "ends at 9, and the next one starts at 11",
            9,
        ),
        ("UPDATE transcriptSpans SET incarnation = 3 WHERE vatID = 'v1' AND startPos = 6", "is of incarnation 3", 6),
    ];
    for (sql, what, position) in cases {
        let mut bench = Bench::new(Keep::everything());
        let daemon = bench.setup("ok").start();
        daemon.wait_for_block(1);
        bench.close("v1");
        daemon.wait_for_spans(1);
        bench.node().work("v1");
        bench.node().save("v1");
        assert!(bench.node().db.execute(sql, []).expect("write") > 0, "{sql}");
        bench.node().commit();
        daemon.wait_for("the alarm", |daemon| !daemon.logged(what).is_empty());
        let told = daemon.logged(what);
        assert!(told.len() == 1 && told[0]["level"] == "ERROR" && told[0]["start"] == position, "{sql}: {told:?}");
        assert!(daemon.metric("spanwatch_damaged_spans") >= 1.0, "{sql}");
        assert_eq!(daemon.logged("the vat was terminated").len(), 0, "{sql}");
        let state = text(&daemon.state).to_owned();
        let code = spanwatch(&["verdicts", "--state-dir", &state]).code;
        assert!(code == 4 || code == 3, "{sql}: {code}");
    }
}

/// The newest row is the one that a restored database is known by, so it needs a look of its own: an edit while the daemon
/// watches, and one while both it and the node are down.
#[test]
fn the_newest_row_is_not_taken_for_a_restored_database() {
    for is_down in [false, true] {
        let mut bench = Bench::new(Keep::everything());
        let setup = bench.setup("ok");
        let daemon = setup.start();
        daemon.wait_for_block(1);
        bench.close("v1");
        daemon.wait_for_spans(1);
        let sql = "UPDATE transcriptSpans SET hash = replace(hash, 'a', 'b') WHERE vatID = 'v1' AND startPos = 0";
        let daemon = if is_down {
            daemon.kill();
            bench.node().db.execute(sql, []).expect("write");
            commit_unseen(bench.node());
            setup.start()
        } else {
            bench.node().db.execute(sql, []).expect("write");
            bench.close("v1");
            daemon
        };
        daemon.wait_for("the alarm", |daemon| daemon.metric("spanwatch_changed_rows") == 1.0);
        daemon.wait_for_rechecks();
        assert_eq!(alarms(&daemon), [("row_changed".to_owned(), 0)], "{is_down}");
        assert_eq!(daemon.logged("its history is another one").len(), 0);
    }
}

/// A terminated vat's rows go, newest first, a few a block; anything else is none of the node's doing.
#[test]
fn a_clean_up_raises_no_alarm_and_another_order_does() {
    for is_legal in [true, false] {
        let mut bench = Bench::new(Keep::everything());
        let daemon = bench.setup("ok").set("watch.poll_interval=100ms").set("watch.recheck_rows=2").start();
        daemon.wait_for_block(1);
        for _ in 0..4 {
            bench.close("v1");
        }
        bench.close("v2");
        daemon.wait_for_spans(5);
        daemon.assert_rows_unsuspected();
        bench.node().terminate("v1");
        bench.node().commit();
        let order = if is_legal { "DESC" } else { "ASC" };
        bench.node().db.execute("DELETE FROM kvStore WHERE key GLOB 'v1.*'", []).expect("write");
        bench.node().commit();
        for table in ["snapshots", "transcriptSpans"] {
            let column = if table == "snapshots" { "snapPos" } else { "startPos" };
            let rows = if is_legal { 5 } else { 1 };
            for _ in 0..rows {
                let sql = format!(
                    "DELETE FROM {table} WHERE vatID = 'v1' AND {column} = \
                     (SELECT {column} FROM {table} WHERE vatID = 'v1' ORDER BY {column} {order} LIMIT 1)"
                );
                bench.node().db.execute(&sql, []).expect("write");
                bench.node().commit();
                let height = bench.node().height();
                daemon.wait_for_block(height);
            }
        }
        if is_legal {
            daemon.assert_rows_unsuspected();
            let db = Connection::open(daemon.state.join("spanwatch.sqlite")).expect("open");
            let left: i64 = db
                .query_row(
                    "SELECT (SELECT count(*) FROM seen_spans WHERE vat = 'v1') + (SELECT count(*) FROM seen_images WHERE vat = 'v1')",
                    [],
                    |row| row.get(0),
                )
                .expect("a count");
            assert_eq!(left, 0, "what the node deleted is forgotten");
        } else {
            daemon.wait_for("the alarm", |daemon| alarms(daemon).contains(&("row_gone".to_owned(), 0)));
        }
    }
}

/// Rows that had closed before the daemon came are learned as they are read, and watched from then on.
#[test]
fn the_history_of_a_real_node_is_watched_too() {
    let lab = lab("everything");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("agoric/swingstore.sqlite");
    fs::create_dir(dir.path().join("agoric")).expect("a directory");
    fs::copy(&lab.file, &file).expect("copy");
    let worker = fake_worker(dir.path(), "ok");
    let daemon =
        Setup::new(dir.path(), &file, &worker).set("watch.poll_interval=100ms").set("watch.recheck_rows=40").start();
    daemon.assert_rows_unsuspected();
    let rows = lab.count("SELECT count(*) FROM transcriptSpans WHERE isCurrent IS NULL");
    let known = || -> u64 {
        let db = Connection::open(daemon.state.join("spanwatch.sqlite")).expect("open");
        db.query_row("SELECT count(*) FROM seen_spans", [], |row| row.get::<_, i64>(0))
            .expect("a count")
            .cast_unsigned()
    };
    assert_eq!(known(), rows, "every closed span of every vat");
    let edit = |sql: &str| {
        let db = Connection::open(&file).expect("open");
        assert_eq!(db.execute(sql, []).expect("write"), 1, "{sql}");
        db.close().expect("close");
    };
    edit("UPDATE transcriptSpans SET endPos = endPos - 1 WHERE vatID = 'v1' AND startPos = 0");
    daemon.wait_for("the first", |daemon| daemon.metric("spanwatch_changed_rows") == 1.0);
    edit("DELETE FROM snapshots WHERE rowid = (SELECT max(rowid) FROM snapshots WHERE vatID = 'v1' AND inUse IS NULL)");
    daemon.wait_for("the second", |daemon| daemon.metric("spanwatch_changed_rows") == 2.0);
    assert_eq!(daemon.metric("spanwatch_damaged_spans"), 0.0);
}

/// What a real kernel does to its rows: snapshots, upgrades, a termination with its clean-up.
#[test]
fn a_live_kernel_raises_no_alarm() {
    let out = tempfile::tempdir().expect("a directory");
    let state = tempfile::tempdir().expect("a directory");
    let mut kernel = LiveKernel::start_with(out.path(), &["--live", "30", "--live-upgrade", "4"]);
    kernel.keep_reading();
    let daemon = Setup::new(state.path(), &out.path().join("agoric"), &real_worker())
        .set("watch.poll_interval=100ms")
        .set("watch.recheck_rows=50")
        .start();
    daemon.wait_for("spans", |daemon| daemon.spans("verified") > 3);
    kernel.signal("USR2");
    daemon.wait_for("the end of a vat", |daemon| {
        daemon.metric("spanwatch_node_events_total{event=\"vat_terminated\"}") > 0.0
    });
    // All of its rows go, a few in each block, while another vat is upgraded again and again.
    let file = out.path().join("agoric/swingstore.sqlite");
    daemon.wait_for("the clean-up and some upgrades", |_| {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = Connection::open_with_flags(&file, flags).expect("open");
        let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, bool>(0)).is_ok_and(|answer| answer);
        one("SELECT value = '[]' FROM kvStore WHERE key = 'vats.terminated'")
            && one("SELECT max(incarnation) >= 2 FROM transcriptSpans")
    });
    daemon.assert_rows_unsuspected();
    assert_eq!(daemon.spans("unverifiable"), 0, "{}", daemon.said());
    assert_eq!(daemon.stop(), Some(0));
}

/// An edit that comes with a change of the values by which a rollback is known: an old row stays what it was, as newer ones
/// are as they were.
#[test]
fn an_edit_that_looks_like_a_rollback_is_an_alarm_all_the_same() {
    let pretexts = [
        "UPDATE kvStore SET value = replace(value, substr(value, 1, 1), 'z') WHERE key = 'activityhash'",
        "UPDATE kvStore SET value = '1' WHERE key = 'crankNumber'",
        "UPDATE kvStore SET value = 'x' WHERE key = 'crankNumber'",
    ];
    for pretext in pretexts {
        let mut bench = Bench::new(Keep::everything());
        let daemon = bench.setup("ok").set("watch.poll_interval=100ms").start();
        daemon.wait_for_block(1);
        for _ in 0..4 {
            bench.close("v1");
        }
        daemon.wait_for_spans(4);
        daemon.assert_rows_unsuspected();
        let edit = "UPDATE transcriptSpans SET hash = replace(hash, 'a', 'b') WHERE vatID = 'v1' AND startPos = 6";
        for sql in [edit, pretext] {
            assert_eq!(bench.node().db.execute(sql, []).expect("write"), 1, "{sql}");
        }
        commit_unseen(bench.node());
        daemon.wait_for_log("moved backwards");
        daemon.wait_for(pretext, |daemon| daemon.metric("spanwatch_changed_rows") == 1.0);
        assert_eq!(alarms(&daemon), [("row_changed".to_owned(), 6)], "{pretext}");
    }
}
