//! A history that was edited is never `verified`, and an honest one is never called broken.
//!
//! Goal: each edit of the rows that a kernel does not make is found by `spans` alone, without a replay, and by `verify`
//! and `doctor`; and no history that a kernel, its clean-up or swing-store's importer leaves is called broken. Method: a
//! table of edits on a synthetic database whose hashes all fit; the lab's databases, and imports of one of them.

use std::path::Path;
use std::process::Command;

use rusqlite::{Connection, params};
use serde_json::Value;

use crate::lab::lab;
use crate::run::{Run, fake_worker, spanwatch, text};
use crate::synthetic::{self, Keep, Node, Synthetic, change_item, rehash};

fn sql(synthetic: &Synthetic, statement: &str) {
    let db = Connection::open(&synthetic.file).expect("open");
    db.execute_batch(statement).expect("sql");
    db.close().expect("close");
}

fn run(command: &str, file: &Path, more: &[&str]) -> Run {
    spanwatch(&[&[command, text(file), "--format", "json"], more].concat())
}

fn verify(synthetic: &Synthetic, more: &[&str]) -> Run {
    let worker = fake_worker(synthetic.dir.path(), "ok");
    run("verify", &synthetic.file, &[&["--worker", text(&worker)], more].concat())
}

type Edit = Box<dyn Fn(&Synthetic)>;

fn by_sql(statement: &'static str) -> Edit {
    Box::new(move |synthetic| sql(synthetic, statement))
}

fn in_item(vat: &'static str, position: i64, from: &'static str, to: &'static str) -> Edit {
    Box::new(move |synthetic| {
        change_item(&synthetic.file, vat, position, true, |item| item.replacen(from, to, 1));
    })
}

/// A statement, after which the hash of the span with a position of v1 is made to fit.
fn fitted(statement: &'static str, position: i64) -> Edit {
    Box::new(move |synthetic| {
        let db = Connection::open(&synthetic.file).expect("open");
        db.execute_batch(statement).expect("sql");
        rehash(&db, "v1", position);
        db.close().expect("close");
    })
}

/// Everything of v1 behind its first span comes from another life of the vat: its images, its items and all hashes fit.
fn recorded_again(synthetic: &Synthetic) {
    let other = synthetic.dir.path().join("other.sqlite");
    let mut node = Node::create(&other, Keep::everything());
    node.start_vat("v1", "one");
    for message in [7, 0, 0] {
        node.message("v1", message);
        node.message("v1", 1);
        node.save("v1");
    }
    node.commit();
    node.stop();
    let db = Connection::open(&synthetic.file).expect("open");
    db.execute("ATTACH ? AS other", [text(&other)]).expect("attach");
    for (table, from) in
        [("transcriptItems", "position >= 6"), ("transcriptSpans", "startPos >= 6"), ("snapshots", "snapPos >= 5")]
    {
        db.execute(&format!("DELETE FROM {table} WHERE vatID = 'v1' AND {from}"), []).expect("delete");
        let taken = format!("INSERT INTO {table} SELECT * FROM other.{table} WHERE vatID = 'v1' AND {from}");
        assert!(db.execute(&taken, []).expect("insert") > 1);
    }
    db.close().expect("close");
}

/// The `save-snapshot` of `[6, 11)` is dropped, and everything behind it moves up by one.
fn save_dropped(synthetic: &Synthetic) {
    let db = Connection::open(&synthetic.file).expect("open");
    db.execute_batch("DELETE FROM transcriptItems WHERE vatID = 'v1' AND position = 10").expect("sql");
    for (table, column, from) in
        [("transcriptItems", "position", 11), ("transcriptSpans", "startPos", 11), ("snapshots", "snapPos", 10)]
    {
        let of_vat = format!("vatID = 'v1' AND {column}");
        db.execute_batch(&format!(
            "UPDATE {table} SET {column} = 1 - {column} WHERE {of_vat} >= {from}; UPDATE {table} SET {column} = -{column} WHERE {of_vat} < 0"
        ))
        .expect("sql");
    }
    db.execute_batch("UPDATE transcriptSpans SET endPos = endPos - 1 WHERE vatID = 'v1' AND endPos >= 11")
        .expect("sql");
    rehash(&db, "v1", 6);
    db.close().expect("close");
}

/// What is done, and the verdicts of the closed spans of v1, by start. B is `unverifiable/history_broken`.
fn edits() -> Vec<(&'static str, Edit, Vec<&'static str>)> {
    const B: &str = "unverifiable/history_broken";
    const V: &str = "verified";
    vec![
        (
            "a span's row is deleted",
            by_sql("DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 6"),
            vec![B, B],
        ),
        (
            "the first span's row is deleted",
            by_sql("DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 0"),
            vec![B, V],
        ),
        (
            "the last closed span's row is deleted",
            by_sql("DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 11"),
            vec![V, B],
        ),
        (
            "the open span's row is deleted",
            by_sql("DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 16"),
            vec![V, V, B],
        ),
        (
            "the open span is marked as closed",
            by_sql("UPDATE transcriptSpans SET isCurrent = NULL WHERE vatID = 'v1'"),
            vec![V, V, V, B],
        ),
        (
            "a span in the middle is marked as open instead",
            by_sql(
                "UPDATE transcriptSpans SET isCurrent = NULL WHERE vatID = 'v1'; \
                 UPDATE transcriptSpans SET isCurrent = 1 WHERE vatID = 'v1' AND startPos = 6",
            ),
            vec![V, B, B],
        ),
        (
            "endPos is shortened",
            fitted("UPDATE transcriptSpans SET endPos = 10 WHERE vatID = 'v1' AND startPos = 6", 6),
            vec![V, B, B],
        ),
        (
            "endPos is lengthened",
            fitted("UPDATE transcriptSpans SET endPos = 12 WHERE vatID = 'v1' AND startPos = 6", 6),
            vec![V, B, B],
        ),
        (
            "the last item goes with it",
            fitted(
                "UPDATE transcriptSpans SET endPos = 10 WHERE vatID = 'v1' AND startPos = 6; \
                 DELETE FROM transcriptItems WHERE vatID = 'v1' AND position = 10",
                6,
            ),
            vec![V, B, B],
        ),
        ("a save-snapshot is dropped and all behind it moves up", Box::new(save_dropped), vec![V, B, B]),
        (
            "the open span's endPos is shortened, and its hash fitted",
            by_sql(
                "UPDATE transcriptSpans SET endPos = 16, hash = '43e6be43a3a34d60c0ebeb8498b5849b094fc20fc68483a7aeb3624fa10f79f6' \
                 WHERE vatID = 'v1' AND startPos = 16",
            ),
            vec![V, V, V],
        ),
        (
            "the options say local",
            by_sql("UPDATE kvStore SET value = replace(value, 'xsnap', 'local') WHERE key = 'v1.options'"),
            vec![B; 3],
        ),
        ("the items say local", in_item("v1", 0, "\"type\":\"xsnap\"", "\"type\":\"local\""), vec![B; 3]),
        ("the options are deleted", by_sql("DELETE FROM kvStore WHERE key = 'v1.options'"), vec![B; 3]),
        (
            "all rows of a vat are deleted",
            by_sql(
                "DELETE FROM transcriptSpans WHERE vatID = 'v1'; DELETE FROM transcriptItems WHERE vatID = 'v1'; \
                 DELETE FROM snapshots WHERE vatID = 'v1'; DELETE FROM kvStore WHERE key = 'v1.options'",
            ),
            vec![],
        ),
        (
            "all rows of a vat but its items are deleted, also from the kernel's lists",
            by_sql(
                "DELETE FROM transcriptSpans WHERE vatID = 'v1'; DELETE FROM snapshots WHERE vatID = 'v1'; \
                 DELETE FROM kvStore WHERE key IN ('v1.options', 'vat.name.one'); \
                 UPDATE kvStore SET value = '[\"two\",\"local\"]' WHERE key = 'vat.names'",
            ),
            vec![],
        ),
        ("another life behind the first span, all hashes fitted", Box::new(recorded_again), vec![V, B, V]),
        (
            "a snapshot's row is deleted",
            by_sql("DELETE FROM snapshots WHERE vatID = 'v1' AND snapPos = 10"),
            vec![V, V, B],
        ),
        (
            "a snapshot's row moves",
            by_sql("UPDATE snapshots SET snapPos = 8 WHERE vatID = 'v1' AND snapPos = 10"),
            vec![V, B, B],
        ),
        (
            "two snapshots' hashes are swapped",
            by_sql(
                "CREATE TEMP TABLE h AS SELECT snapPos, hash FROM snapshots WHERE vatID = 'v1'; \
                 UPDATE snapshots SET hash = (SELECT hash FROM h WHERE h.snapPos = 15 - snapshots.snapPos) \
                 WHERE vatID = 'v1' AND snapPos < 15",
            ),
            vec![V, "unverifiable/base_damaged", "unverifiable/base_damaged"],
        ),
        (
            "a snapshot is added",
            by_sql(
                "INSERT INTO snapshots SELECT vatID, 2, NULL, hash, 1, 1, NULL FROM snapshots WHERE vatID = 'v1' AND snapPos = 5",
            ),
            vec![B, V, V],
        ),
        ("no snapshot is in use", by_sql("UPDATE snapshots SET inUse = NULL WHERE vatID = 'v1'"), vec![V; 3]),
        (
            "an old snapshot is in use",
            by_sql(
                "UPDATE snapshots SET inUse = NULL WHERE vatID = 'v1'; UPDATE snapshots SET inUse = 1 WHERE vatID = 'v1' AND snapPos = 5",
            ),
            vec![V; 3],
        ),
        (
            "the image in use is gone",
            by_sql("UPDATE snapshots SET compressedSnapshot = NULL WHERE vatID = 'v1' AND inUse = 1"),
            vec![V; 3],
        ),
        (
            "an incarnation goes up",
            by_sql("UPDATE transcriptSpans SET incarnation = 1 WHERE vatID = 'v1' AND startPos >= 11"),
            vec![V, B, B],
        ),
        (
            "an incarnation skips one",
            by_sql("UPDATE transcriptSpans SET incarnation = 2 WHERE vatID = 'v1' AND startPos >= 11"),
            vec![V, B, B],
        ),
        (
            "the first incarnation is 1",
            by_sql("UPDATE transcriptSpans SET incarnation = 1 WHERE vatID = 'v1'"),
            vec![B, V, V],
        ),
        ("a span begins as another kind", in_item("v1", 11, "[\"load-snapshot\",", "[\"stopVat\","), vec![V, V, B]),
        (
            "the first span loads a snapshot",
            Box::new(|synthetic| {
                let hash = "0".repeat(64);
                change_item(&synthetic.file, "v1", 0, true, |_| {
                    format!(r#"{{"d":["load-snapshot",{{"snapshotID":"{hash}"}}],"sc":[],"r":{{"status":"ok"}}}}"#)
                });
            }),
            vec![B, V, V],
        ),
        (
            "the kernel's list does not have the vat",
            by_sql(
                "DELETE FROM kvStore WHERE key = 'vat.name.one'; UPDATE kvStore SET value = '[\"two\",\"local\"]' WHERE key = 'vat.names'",
            ),
            vec![V; 3],
        ),
        ("a static vat's ID is gone", by_sql("DELETE FROM kvStore WHERE key = 'vat.name.one'"), vec![V; 3]),
        ("the kernel has no list", by_sql("DELETE FROM kvStore WHERE key = 'vat.dynamicIDs'"), vec![V; 3]),
        (
            "an item of the open span is deleted",
            by_sql("DELETE FROM transcriptItems WHERE vatID = 'v1' AND position = 16"),
            vec![V; 3],
        ),
        (
            "an item of the open span is changed",
            by_sql(
                "UPDATE transcriptItems SET item = replace(item, '\"ok\"', '\"ok\" ') WHERE vatID = 'v1' AND position = 16",
            ),
            vec![V; 3],
        ),
        (
            "a span's hash is none",
            by_sql("UPDATE transcriptSpans SET hash = NULL WHERE vatID = 'v1' AND startPos = 6"),
            vec![V, "unverifiable/span_row_damaged", V],
        ),
    ]
}

fn verdicts_of(run: &Run, vat: &str) -> Vec<String> {
    run.lines("span").iter().filter(|span| span["vat"] == vat).map(crate::run::verdict_of).collect()
}

fn breaks(run: &Run) -> Vec<Value> {
    run.lines("history").into_iter().filter(|line| line["state"] == "broken").collect()
}

/// `spans` finds each edit without a replay, and `verify` never ends with 0.
#[test]
fn no_edit_of_the_rows_ends_in_verified() {
    let honest = synthetic::database();
    let (spans, run) = (run("spans", &honest.file, &[]), verify(&honest, &[]));
    assert_eq!(
        (spans.code, run.code, breaks(&spans).len() + breaks(&run).len()),
        (0, 0, 0),
        "{}{}",
        spans.out,
        run.out
    );
    for (what, edit, verdicts) in edits() {
        let synthetic = synthetic::database();
        edit(&synthetic);
        let spans = spanwatch(&["spans", text(&synthetic.file), "--format", "json"]);
        let found = breaks(&spans);
        assert_eq!((spans.code, found.is_empty()), (4, false), "{what}: {}{}", spans.out, spans.err);
        let is_told =
            |line: &Value| line["damage"] == true && line["explanation"].as_str().is_some_and(|text| text.len() > 20);
        assert!(found.iter().all(is_told), "{what}: {found:?}");
        let run = verify(&synthetic, &[]);
        assert_eq!(
            (verdicts_of(&run, "v1"), run.code),
            (verdicts.iter().map(|word| (*word).to_owned()).collect(), 4),
            "{what}: {}{}",
            run.out,
            run.err
        );
        assert_eq!(breaks(&run), found, "{what}: the same in both");
        assert_eq!(verdicts_of(&run, "v2"), ["verified"], "{what}: it stays where it is");
        for span in run.lines("span").iter().filter(|span| span["reason"] == "history_broken") {
            assert_eq!(span["damage"], true, "{what}: {span}");
        }
    }
}

#[test]
fn doctor_tells_where_a_history_breaks() {
    for index in [0, 4, 14, 16] {
        let synthetic = synthetic::database();
        let (what, edit, _) = edits().swap_remove(index);
        edit(&synthetic);
        let worker = fake_worker(synthetic.dir.path(), "ok");
        let doctor = spanwatch(&["doctor", text(&synthetic.file), "--worker", text(&worker)]);
        assert_eq!(doctor.code, 4, "{what}: {}{}", doctor.out, doctor.err);
        assert!(doctor.out.contains("history    HISTORY BROKEN v1 at position "), "{what}: {}", doctor.out);
    }
}

/// Rows that were edited do not hide what a replay finds.
#[test]
fn a_divergence_is_not_hidden_by_a_broken_history() {
    let synthetic = synthetic::database();
    sql(&synthetic, "DELETE FROM snapshots WHERE vatID = 'v1' AND snapPos = 10");
    let lies = fake_worker(synthetic.dir.path(), "wrong-hash");
    let run = run("verify", &synthetic.file, &["--vat", "v1", "--span", "0..11", "--worker", text(&lies)]);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert_eq!(run.verdicts()[0], "diverged/snapshot_hash@5", "{}", run.out);
}

/// `--span` chooses what is replayed; what is left out of a vat's history still counts.
#[test]
fn a_break_counts_wherever_it_is_in_a_vat_that_was_asked_for() {
    let synthetic = synthetic::database();
    sql(&synthetic, "DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 11");
    let run = verify(&synthetic, &["--vat", "v1", "--span", "0..6"]);
    assert_eq!((run.verdicts(), run.code), (vec!["verified".to_owned()], 4), "{}{}", run.out, run.err);
    let run = verify(&synthetic, &["--vat", "v2"]);
    assert_eq!((run.verdicts(), run.code), (vec!["verified".to_owned()], 0), "{}{}", run.out, run.err);
}

/// The span before the one that was asked for is damaged, and so nothing proves the image.
#[test]
fn an_image_is_proved_by_the_span_before_also_where_that_was_not_asked_for() {
    let synthetic = synthetic::database();
    recorded_again(&synthetic);
    // Its last item now names the other image, but no hash was made to fit.
    let db = Connection::open(&synthetic.file).expect("open");
    let hash = |table: &str| -> String {
        db.query_row(&format!("SELECT hash FROM {table} WHERE vatID = 'v1' AND snapPos = 5"), [], |row| row.get(0))
            .expect("a row")
    };
    let item =
        format!(r#"{{"d":["save-snapshot"],"sc":[],"r":{{"status":"ok","snapshotID":"{}"}}}}"#, hash("snapshots"));
    db.execute("UPDATE transcriptItems SET item = ? WHERE vatID = 'v1' AND position = 5", params![item])
        .expect("write");
    db.close().expect("close");
    let run = verify(&synthetic, &["--vat", "v1", "--span", "6..11"]);
    assert_eq!(
        (run.verdicts(), run.code),
        (vec!["unverifiable/history_broken".to_owned()], 4),
        "{}{}",
        run.out,
        run.err
    );
    let run = verify(&synthetic, &["--vat", "v1"]);
    assert_eq!(run.verdicts(), ["unverifiable/span_hash_mismatch", "verified", "verified"], "{}", run.out);
}

/// Each step of the clean-up of a terminated vat: its keys, its snapshots newest first, its spans newest first.
#[test]
fn the_clean_up_of_a_terminated_vat_is_no_break() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("swingstore.sqlite");
    let mut node = Node::create(&file, Keep::everything());
    for (vat, name) in [("v1", "one"), ("v2", "two")] {
        node.start_vat(vat, name);
        for _ in 0..3 {
            node.work(vat);
            node.save(vat);
        }
    }
    node.terminate("v1");
    node.commit();
    node.stop();
    let db = Connection::open(&file).expect("open");
    let whole = |step: &str| {
        let spans = spanwatch(&["spans", text(&file), "--format", "json"]);
        assert_eq!((spans.code, spans.lines("history").len()), (0, 0), "{step}: {}{}", spans.out, spans.err);
    };
    whole("terminated");
    db.execute("DELETE FROM kvStore WHERE key = 'v1.options'", []).expect("delete");
    whole("without its keys");
    for position in [15, 10, 5] {
        db.execute("DELETE FROM snapshots WHERE vatID = 'v1' AND snapPos = ?", [position]).expect("delete");
        whole("a snapshot less");
    }
    for start in [16, 11, 6, 0] {
        db.execute("DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = ?", [start]).expect("delete");
        db.execute("DELETE FROM transcriptItems WHERE vatID = 'v1' AND position >= ?", [start]).expect("delete");
        whole("a span less");
    }
    db.execute("UPDATE kvStore SET value = '[]' WHERE key = 'vats.terminated'", []).expect("update");
    whole("forgotten");
}

#[test]
fn the_clean_up_of_a_terminated_vat_has_an_order() {
    for (what, statement) in [
        ("an old snapshot goes first", "DELETE FROM snapshots WHERE vatID = 'v1' AND snapPos = 5"),
        (
            "the last span goes before the snapshots",
            "DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 16; DELETE FROM transcriptItems WHERE vatID = 'v1' AND position >= 16",
        ),
        ("it is not among the terminated", "UPDATE kvStore SET value = '[]' WHERE key = 'vats.terminated'"),
        ("its span is open again", "UPDATE transcriptSpans SET isCurrent = 1 WHERE vatID = 'v1' AND startPos = 16"),
        ("its snapshot is in use again", "UPDATE snapshots SET inUse = 1 WHERE vatID = 'v1' AND snapPos = 15"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("swingstore.sqlite");
        let mut node = Node::create(&file, Keep::everything());
        node.start_vat("v1", "one");
        for _ in 0..3 {
            node.work("v1");
            node.save("v1");
        }
        node.terminate("v1");
        node.commit();
        node.stop();
        Connection::open(&file).expect("open").execute_batch(statement).expect("sql");
        let spans = spanwatch(&["spans", text(&file), "--format", "json"]);
        assert_eq!((spans.code, breaks(&spans).is_empty()), (4, false), "{what}: {}{}", spans.out, spans.err);
    }
}

/// Nothing proves that rows are missing if everything of them is: an import can look so. It is told, and it is no damage.
#[test]
fn a_history_that_begins_late_is_told_and_is_no_damage() {
    let synthetic = synthetic::database();
    sql(
        &synthetic,
        "DELETE FROM transcriptSpans WHERE vatID = 'v1' AND startPos = 0; DELETE FROM transcriptItems WHERE vatID = 'v1' AND position < 6",
    );
    for run in [run("spans", &synthetic.file, &[]), verify(&synthetic, &[])] {
        let lines = run.lines("history");
        assert_eq!((run.code, lines.len()), (4, 1), "{}{}", run.out, run.err);
        assert_eq!(
            (&lines[0]["state"], &lines[0]["damage"], &lines[0]["position"]),
            (&"begins_late".into(), &false.into(), &6.into())
        );
    }
    assert_eq!(verdicts_of(&verify(&synthetic, &[]), "v1"), ["verified"; 2]);
}

/// What a real kernel leaves: upgrades, failed upgrades, local vats, terminated ones in all stages, pruned or not.
#[test]
fn no_history_of_the_lab_is_broken() {
    for keep in ["everything", "items", "archives", "nothing"] {
        let spans = run("spans", &lab(keep).file, &[]);
        assert!(
            spans.lines("history").is_empty() && spans.lines("span").len() > 50,
            "{keep}: {}{}",
            spans.out,
            spans.err
        );
    }
    assert!(run("spans", &crate::lab::delicate().file, &[]).lines("history").is_empty());
}

/// What swing-store's own importer leaves, and what an old one left that lost the rows of the history.
#[test]
fn no_import_is_a_broken_history() {
    let out = tempfile::tempdir().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/import.mjs");
    let from = lab("everything").file;
    let from = from.parent().expect("a directory");
    let modes = ["archival", "without-history"];
    let import = Command::new("node").arg(script).args([from, out.path()]).args(modes).output().expect("node");
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    for mode in modes {
        let spans = run("spans", &out.path().join(mode), &[]);
        assert!(breaks(&spans).is_empty() && spans.lines("span").len() > 15, "{mode}: {}{}", spans.out, spans.err);
        let late = spans.lines("history").len();
        assert_eq!((late > 5, late == 0), (mode == "without-history", mode == "archival"), "{}", spans.out);
        // An import writes keys with lone surrogates in another form.
        let audit = run("audit", &out.path().join(mode), &[]);
        assert_eq!(audit.lines("summary")[0]["contradictions"], 0, "{mode}: {}", audit.out);
        assert_ne!(audit.code, 3, "{mode}: {}", audit.out);
    }
}
