//! A state directory that an earlier version wrote goes on with the present one.
//!
//! Goal: pending spans get their verdicts from their captures, acknowledgements and divergences stay, evidence replays. Method: the
//! files under `tests/fixtures`, which are never written anew.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::{Connection, params};

use crate::bench::{bounds, verdict_of};
use crate::beside::Setup;
use crate::run::{fake_worker, spanwatch, text};

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version)
}

/// A copy of a version's fixture, whose database the store takes for the one that it knew.
fn copy_of(version: &str, to: &Path) -> PathBuf {
    let fixture = fixture(version);
    let copied =
        Command::new("cp").args(["-r", text(&fixture.join("state")), text(&fixture.join("agoric")), text(to)]).status();
    assert!(copied.expect("cp").success());
    let file = to.join("agoric/swingstore.sqlite");
    let meta = fs::metadata(&file).expect("the database");
    let store = Connection::open(to.join("state/spanwatch.sqlite")).expect("open");
    let changed = store.execute(
        "UPDATE node SET path = ?, device = ?, inode = ?",
        params![text(&file), meta.dev().cast_signed(), meta.ino().cast_signed()],
    );
    assert_eq!(changed.expect("write"), 1);
    store.close().expect("close");
    file
}

#[test]
fn a_store_of_an_earlier_version_is_taken_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = copy_of("0.1.0", dir.path());
    let daemon = Setup::new(dir.path(), &file, &fake_worker(dir.path(), "ok")).start();
    daemon.wait_for_spans(6);
    let rows = daemon.verdicts();
    let mut told: Vec<_> =
        rows.iter().map(|row| (row["vat"].as_str().expect("a vat"), bounds(row), verdict_of(row))).collect();
    told.sort();
    let told: Vec<String> =
        told.iter().map(|(vat, (start, end), verdict)| format!("{vat} {start}..{end} {verdict}")).collect();
    assert_eq!(
        told,
        [
            "v1 0..6 verified",
            "v1 6..11 diverged",
            "v1 11..16 partial",
            "v2 0..6 verified",
            "v2 6..11 diverged",
            "v2 11..16 partial"
        ]
    );
    let notes: Vec<_> = rows.iter().filter_map(|row| row["note"].as_str()).collect();
    assert_eq!(notes, ["the worker was told to lie"]);
    assert_eq!(daemon.metric("spanwatch_divergences_unacknowledged"), 1.0);
    assert_eq!(daemon.metric("spanwatch_divergences_total{heap=\"\",kind=\"computrons\"}"), 2.0, "the totals go on");
    let open: Vec<_> = rows.iter().filter(|row| row["acknowledged"] == false).collect();
    assert_eq!(open.len(), 1, "{open:?}");
    let id = open[0]["id"].as_str().expect("an ID");
    let run = spanwatch(&["ack", id, "--state-dir", text(&daemon.state)]);
    assert_eq!(run.code, 0, "{}", run.err);
    daemon.wait_for("no alarm", |daemon| daemon.metric("spanwatch_divergences_unacknowledged") == 0.0);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn evidence_of_an_earlier_version_is_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    copy_of("0.1.0", dir.path());
    let folder = dir.path().join("state/evidence/v1.6.11-be2d8c99");
    let explained = spanwatch(&["explain", text(&folder)]);
    assert_eq!(explained.code, 0, "{}", explained.err);
    assert!(explained.out.contains("computrons"), "{}", explained.out);
    let packed = fixture("0.1.0").join("v1.6.11-be2d8c99.tar.zst");
    for (directive, code) in [("ok", 0), ("computrons", 3)] {
        let worker = fake_worker(dir.path(), directive);
        for source in [&folder, &packed] {
            let run = spanwatch(&["replay", text(source), "--worker", text(&worker)]);
            assert_eq!(run.code, code, "{directive} {}: {}{}", source.display(), run.out, run.err);
        }
    }
}
