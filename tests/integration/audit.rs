//! The kernel's answers and its key-value rows, against the transcripts alone.
//!
//! Goal: show that `audit` finds each wrong answer and each wrong row, and raises no false alarm. Method: the databases that a
//! real kernel wrote are consistent, and every read in them is counted by SQLite too; then one thing is changed in a copy,
//! with the span's hash made to fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::lab::{Lab, delicate, lab};
use crate::mutations::{Record, change, first, record, syscalls};
use crate::run::{Run, spanwatch, text};
use crate::synthetic::{Keep, change_item};

fn audit(file: &Path, more: &[&str]) -> Run {
    spanwatch(&[&["audit", text(file), "--format", "json"], more].concat())
}

fn summary(run: &Run) -> Value {
    run.lines("summary").remove(0)
}

/// The contradictions of all vats: kind, position and key.
fn contradictions(run: &Run) -> Vec<(String, u64, String)> {
    let lines = run.lines("audit");
    let all = lines.iter().flat_map(|line| line["contradictions"].as_array().expect("a list").clone());
    all.map(|one| {
        let kind = one["kind"].as_str().expect("a kind").to_owned();
        (kind, one["position"].as_u64().expect("a position"), one["key"].as_str().unwrap_or("-").to_owned())
    })
    .collect()
}

/// Nothing contradicts, and everything that is there is followed.
fn assert_consistent(run: &Run) -> Value {
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    assert_eq!(contradictions(run), [], "{}", run.out);
    let summary = summary(run);
    for field in ["contradictions", "faults", "ends_skipped"] {
        assert_eq!(summary[field], 0, "{field}: {}", run.out);
    }
    summary
}

/// How many of the items' syscalls have one of these names, and how many rows vatstores have, as SQLite counts them.
fn counted(lab: &Lab) -> (u64, u64) {
    let reads = lab.count(
        "SELECT count(*) FROM transcriptItems AS i, json_each(i.item, '$.sc') AS one \
         WHERE json_extract(one.value, '$.s[0]') IN ('vatstoreGet', 'vatstoreGetNextKey')",
    );
    let rows = lab.count(
        "SELECT count(*) FROM kvStore WHERE key GLOB 'v[0-9]*.vs.*' AND NOT EXISTS \
         (SELECT 1 FROM kvStore AS comms WHERE comms.key = 'vat.name.comms' AND kvStore.key GLOB comms.value || '.vs.*')",
    );
    (reads, rows)
}

#[test]
fn what_real_kernels_wrote_is_consistent() {
    for lab in [lab("everything"), lab("items"), delicate()] {
        let summary = assert_consistent(&audit(&lab.file, &[]));
        let (reads, rows) = counted(&lab);
        assert_eq!((summary["reads_checked"].as_u64(), summary["reads_undetermined"].as_u64()), (Some(reads), Some(0)));
        assert_eq!(summary["keys_checked"].as_u64(), Some(rows));
        assert_eq!(
            (summary["spans_followed"].as_u64(), summary["skipped"].as_u64()),
            (summary["spans"].as_u64(), Some(1))
        );
        println!("{}: {reads} reads, {rows} keys", lab.dir.display());
        assert!(reads > 400 && rows > 400, "the lab is too small to show anything");
    }
}

#[test]
fn pruned_histories_raise_no_false_alarm() {
    let everything = summary(&audit(&lab("everything").file, &[]));
    let archives = lab("archives");
    let archive = archives.dir.join("transcript-archive");
    let whole = assert_consistent(&audit(&archives.file, &["--transcript-archive", text(&archive)]));
    for field in ["reads_checked", "keys_checked", "items", "spans_followed"] {
        assert_eq!(whole[field], everything[field], "{field}");
    }
    for lab in [archives, lab("nothing")] {
        let summary = assert_consistent(&audit(&lab.file, &[]));
        assert!(summary["spans_pruned"].as_u64() > Some(50), "{summary}");
        assert!(summary["reads_undetermined"].as_u64() > Some(100), "{summary}");
        assert!(
            summary["reads_checked"].as_u64() > Some(100) && summary["keys_checked"].as_u64() > Some(100),
            "{summary}"
        );
    }
}

/// Keys with lone surrogates are stored as they are and come back as replacement characters.
#[test]
fn keys_with_lone_surrogates_are_followed() {
    let lab = lab("everything");
    let odd = lab.count(
        "SELECT count(*) FROM transcriptItems AS i, json_each(i.item, '$.sc') AS one \
         WHERE one.value LIKE '%vatstore%' AND json_extract(one.value, '$.s') LIKE '%\\ud83d%'",
    );
    assert!(odd > 0, "no vat of the lab has such a key");
    assert_consistent(&audit(&lab.file, &["--vat", "edges"]));
}

#[test]
fn keys_in_a_file_give_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    for lab in [lab("everything"), lab("nothing")] {
        let told = |run: &Run| {
            run.out.lines().filter(|line| !line.contains(r#""type":"summary""#)).collect::<Vec<_>>().join("\n")
        };
        let in_memory = audit(&lab.file, &[]);
        let in_file = audit(&lab.file, &["--memory-max", "0", "--temp", text(dir.path())]);
        assert_eq!((in_file.code, told(&in_file)), (0, told(&in_memory)), "{}", in_file.err);
    }
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0, "nothing stays behind");
    let nowhere = dir.path().join("nowhere");
    let run = audit(&lab("everything").file, &["--memory-max", "0", "--temp", text(&nowhere)]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("nowhere") && run.err.contains("--temp"), "{}", run.err);
}

/// A copy of the vat `collections` in which something is changed.
struct Tampered {
    record: Record,
}

impl Tampered {
    fn new() -> Self {
        Self { record: record(&lab("everything")) }
    }

    /// The first syscall of any item that fits: position and number.
    fn find(&self, fits: impl Fn(&Value) -> bool) -> (i64, usize) {
        let db = Connection::open_with_flags(&self.record.original, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("open");
        let mut items =
            db.prepare("SELECT position, item FROM transcriptItems WHERE vatID = ? ORDER BY position").expect("sql");
        let mut rows = items.query([&self.record.vat]).expect("items");
        while let Some(row) = rows.next().expect("a row") {
            let item: Value = serde_json::from_str(&row.get::<_, String>(1).expect("text")).expect("json");
            if let Some(at) = item["sc"].as_array().expect("syscalls").iter().position(&fits) {
                return (row.get(0).expect("a position"), at);
            }
        }
        panic!("no such syscall");
    }

    /// With a response changed, and the span's hash made to fit if `fits`.
    fn with_response(&self, (position, at): (i64, usize), response: &Value, fits: bool) -> Run {
        let file = self.record.copy();
        let put = change(move |item| syscalls(item)[at]["r"] = response.clone());
        change_item(&file, &self.record.vat, position, fits, put);
        audit(&file, &["--vat", &self.record.vat])
    }

    fn with_rows(&self, sql: &str) -> Run {
        let file = self.record.copy();
        let db = Connection::open(&file).expect("open");
        db.execute_batch(&sql.replace("{vat}", &self.record.vat)).expect("sql");
        db.close().expect("close");
        audit(&file, &["--vat", &self.record.vat])
    }
}

fn is(name: &'static str, answers: impl Fn(&Value) -> bool) -> impl Fn(&Value) -> bool {
    move |syscall| syscall["s"][0] == name && answers(&syscall["r"][1])
}

#[test]
fn wrong_answers_are_found() {
    let tampered = Tampered::new();
    assert_eq!(assert_consistent(&audit(&tampered.record.copy(), &["--vat", &tampered.record.vat]))["vats"], 1);
    let value = tampered.find(is("vatstoreGet", Value::is_string));
    let nothing = tampered.find(is("vatstoreGet", Value::is_null));
    let next = tampered.find(is("vatstoreGetNextKey", Value::is_string));
    let write = tampered.find(is("vatstoreSet", Value::is_null));
    let delete = tampered.find(is("vatstoreDelete", Value::is_null));
    let resolve = tampered.find(is("resolve", Value::is_null));
    for (what, place, response, kind) in [
        ("another value", value, json!(["ok", "changed"]), "value"),
        ("no value", value, json!(["ok", null]), "value"),
        ("a value of a key that is not there", nothing, json!(["ok", "made up"]), "value"),
        ("a later key", next, json!(["ok", "zzzz"]), "next_key"),
        ("an earlier key", next, json!(["ok", "A"]), "next_key"),
        ("no key", next, json!(["ok", null]), "next_key"),
        ("an empty value", value, json!(["ok", ""]), "form"),
        ("an error to a read", value, json!(["error", "no"]), "form"),
        ("capdata to a read", value, json!(["ok", {"body": "#1", "slots": []}]), "form"),
        ("an unknown tag", value, json!(["fine", "1"]), "form"),
        ("something to a write", write, json!(["ok", true]), "form"),
        ("an error to a deletion", delete, json!(["error", "no"]), "form"),
        ("a text to a resolution", resolve, json!(["ok", "done"]), "form"),
    ] {
        let run = tampered.with_response(place, &response, true);
        let found: Vec<(String, u64)> = contradictions(&run).into_iter().map(|(kind, at, _)| (kind, at)).collect();
        assert_eq!((run.code, found), (3, vec![(kind.to_owned(), place.0.unsigned_abs())]), "{what}: {}", run.out);
        // Items that the hash does not prove are believed in nothing.
        let run = tampered.with_response(place, &response, false);
        assert_eq!((run.code, contradictions(&run)), (4, Vec::new()), "{what}, unproved: {}", run.out);
        assert_eq!(run.lines("audit")[0]["faults"][0]["reason"], "span_hash_mismatch", "{what}");
    }
}

#[test]
fn wrong_rows_are_found() {
    let tampered = Tampered::new();
    let end = "SELECT max(endPos) FROM transcriptSpans WHERE vatID = '{vat}'".replace("{vat}", &tampered.record.vat);
    let db = Connection::open_with_flags(&tampered.record.original, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("open");
    let end: i64 = db.query_row(&end, [], |row| row.get(0)).expect("an end");
    let key: String = db
        .query_row(
            "SELECT key FROM kvStore WHERE key GLOB ? ORDER BY key LIMIT 1 OFFSET 20",
            [format!("{}.vs.*", tampered.record.vat)],
            |row| row.get(0),
        )
        .expect("a key");
    let name = key.split_once(".vs.").expect("a prefix").1.to_owned();
    let quoted = format!("\"{name}\"");
    let (differs, missing, extra) = ("row_differs", "row_missing", "row_extra");
    for (what, sql, found) in [
        (
            "another value",
            format!("UPDATE kvStore SET value = value || ' ' WHERE key = '{key}'"),
            vec![(differs, &quoted)],
        ),
        ("an empty value", format!("UPDATE kvStore SET value = '' WHERE key = '{key}'"), vec![(differs, &quoted)]),
        ("no value", format!("UPDATE kvStore SET value = NULL WHERE key = '{key}'"), vec![(differs, &quoted)]),
        (
            "a blob",
            format!("UPDATE kvStore SET value = CAST(value AS BLOB) WHERE key = '{key}'"),
            vec![(differs, &quoted)],
        ),
        ("a row less", format!("DELETE FROM kvStore WHERE key = '{key}'"), vec![(missing, &quoted)]),
        (
            "a row more",
            "INSERT INTO kvStore VALUES ('{vat}.vs.zzz', '1')".to_owned(),
            vec![(extra, &"\"zzz\"".to_owned())],
        ),
        (
            "another key",
            format!("UPDATE kvStore SET key = key || 'x' WHERE key = '{key}'"),
            vec![(missing, &quoted), (extra, &format!("\"{name}x\""))],
        ),
    ] {
        let run = tampered.with_rows(&sql);
        let told = contradictions(&run);
        let expected: Vec<_> =
            found.iter().map(|(kind, key)| ((*kind).to_owned(), end.unsigned_abs(), (*key).clone())).collect();
        assert_eq!((run.code, told), (3, expected), "{what}: {}", run.out);
    }
    // A database that was put together from two heights: the rows are those of an earlier one.
    let run = tampered.with_rows("DELETE FROM kvStore WHERE key >= '{vat}.vs.' AND key < '{vat}.vs/'");
    let summary = summary(&run);
    assert_eq!((run.code, summary["contradictions"].as_u64()), (3, summary["keys_checked"].as_u64()), "{}", run.out);
}

#[test]
fn a_write_that_was_changed_contradicts_what_comes_of_it() {
    let tampered = Tampered::new();
    let file = tampered.record.copy();
    let write = change(|item| {
        let at = first(item["sc"].as_array().expect("syscalls"), "vatstoreSet");
        syscalls(item)[at]["s"][2] = json!("changed");
    });
    change_item(&file, &tampered.record.vat, tampered.record.target, true, write);
    let run = audit(&file, &["--vat", &tampered.record.vat]);
    assert_eq!(run.code, 3, "{}", run.out);
    assert!(!contradictions(&run).is_empty());
}

/// A row less in the middle is no pruning.
#[test]
fn a_hole_in_the_history_is_told() {
    let tampered = Tampered::new();
    let start = tampered.record.start;
    let run =
        tampered.with_rows(&format!("DELETE FROM transcriptSpans WHERE vatID = '{{vat}}' AND startPos = {start}"));
    let line = run.lines("audit").remove(0);
    assert_eq!((run.code, line["faults"][0]["reason"].as_str()), (4, Some("history_broken")), "{}", run.out);
    assert_eq!(line["faults"][0]["start"].as_i64(), Some(tampered.record.end));
}

/// The options of a vat do not excuse it from having a transcript that is there.
#[test]
fn options_that_deny_a_transcript_hide_nothing() {
    let run = Tampered::new().with_rows(
        "UPDATE kvStore SET value = json_set(value, '$.useTranscript', json('false')) WHERE key = '{vat}.options';
         DELETE FROM kvStore WHERE key = (SELECT max(key) FROM kvStore WHERE key >= '{vat}.vs.' AND key < '{vat}.vs/')",
    );
    assert_eq!((run.code, contradictions(&run).len()), (3, 1), "{}", run.out);
}

#[test]
fn rows_of_a_terminated_vat_may_go_in_their_order_only() {
    let lab = lab("everything");
    let dir = tempfile::tempdir().expect("a directory");
    let kept = lab.vat("kept");
    let of_vat = format!("key >= '{kept}.vs.' AND key < '{kept}.vs/'");
    let first = format!("SELECT key FROM kvStore WHERE {of_vat} ORDER BY key LIMIT 5");
    for (what, sql, code, is_cleaned_up) in [
        ("none", String::new(), 0, false),
        ("the first ones", format!("DELETE FROM kvStore WHERE key IN ({first})"), 0, true),
        ("all", format!("DELETE FROM kvStore WHERE {of_vat}"), 0, true),
        (
            "one behind others",
            format!("DELETE FROM kvStore WHERE key = (SELECT max(key) FROM kvStore WHERE {of_vat})"),
            3,
            true,
        ),
        (
            "none, and one has changed",
            format!("UPDATE kvStore SET value = 'x' WHERE key IN ({first} OFFSET 3)"),
            3,
            false,
        ),
        ("none, and one is new", format!("INSERT INTO kvStore VALUES ('{kept}.vs.zzz', '1')"), 3, false),
    ] {
        let file = dir.path().join("copy.sqlite");
        fs::copy(&lab.file, &file).expect("copy");
        let db = Connection::open(&file).expect("open");
        // A cleanup deletes the options before the vatstore.
        let options = if what == "none" { "" } else { "DELETE FROM kvStore WHERE key = '{vat}.options';" };
        db.execute_batch(&format!("{}{sql}", options.replace("{vat}", kept))).expect("sql");
        db.close().expect("close");
        let run = audit(&file, &["--vat", kept]);
        assert_eq!(
            (run.code, run.lines("audit")[0]["cleaned_up"].as_bool()),
            (code, Some(is_cleaned_up)),
            "{what}: {}",
            run.out
        );
    }
}

/// A node that goes on meanwhile: the items of the open span and the rows are of one moment.
#[test]
fn beside_a_node_at_work_nothing_is_torn() {
    for keep in [Keep::everything(), Keep::default()] {
        let mut bench = Bench::new(keep);
        let file: PathBuf = bench.file();
        let mut checked = 0;
        for _ in 0..4 {
            let mut child = Command::new(env!("CARGO_BIN_EXE_spanwatch"))
                .args(["audit", text(&file), "--format", "json"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("spanwatch");
            while child.try_wait().expect("wait").is_none() {
                bench.node().work("v1");
                bench.node().commit();
                bench.node().work("v2");
                bench.node().save("v2");
                bench.node().commit();
            }
            let output = child.wait_with_output().expect("output");
            let run = Run {
                code: output.status.code().expect("a code"),
                out: String::from_utf8(output.stdout).expect("text"),
                err: String::new(),
            };
            // A vat that goes on each time it is looked at has no comparison, which is said.
            assert!([0, 4].contains(&run.code), "{}", run.out);
            assert_eq!(contradictions(&run), [], "{}", run.out);
            checked += summary(&run)["keys_checked"].as_u64().expect("a number");
        }
        assert!(checked > 0);
    }
}

#[test]
fn a_vat_that_is_not_there_is_an_error() {
    let run = audit(&lab("nothing").file, &["--vat", "nobody"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("nobody"), "{}", run.err);
}

/// A read that the record contradicts is found by `verify` too, whatever the worker does with it.
#[test]
fn verify_says_what_contradicts_beside_what_diverges() {
    let mut bench = Bench::new(Keep::everything());
    bench.close("v1");
    let file = bench.file();
    let worker = crate::run::fake_worker(bench.dir.path(), "ok");
    let lied = crate::run::fake_worker(bench.dir.path(), "computrons");
    let _ = bench.node.take().expect("it runs").stop();
    let verify = |worker: &Path| spanwatch(&["verify", text(&file), "--format", "json", "--worker", text(worker)]);
    assert_eq!(verify(&worker).code, 0);
    change_item(&file, "v1", 2, true, |item| item.replacen(r#""r":["ok","0"]"#, r#""r":["ok","1"]"#, 1));
    let run = verify(&lied);
    let span = &run.lines("span")[0];
    assert_eq!((run.code, span["verdict"].as_str()), (3, Some("diverged")), "{}", run.out);
    let told = &span["contradictions"][0];
    assert_eq!(
        (told["kind"].as_str(), told["position"].as_u64(), told["syscall"].as_u64(), told["key"].as_str()),
        (Some("value"), Some(2), Some(1), Some("\"key-0\""))
    );
    assert_eq!((told["recorded"].as_str(), &span["contradictions_total"]), (Some(r#"["ok","1"]"#), &json!(1)));
    assert!(told["implied"].as_str().expect("text").contains("position 2, syscall 0"), "{told}");
    assert_eq!(run.lines("summary")[0]["contradictions"], 1);
}

/// The worker does all as recorded, so only the record itself can say it.
#[test]
fn a_contradiction_in_the_daemon_alarms_until_it_is_acknowledged() {
    let mut bench = Bench::new(Keep::everything());
    let daemon = bench.setup("ok").start();
    daemon.wait_for_block(1);
    bench.node().answers_wrongly = true;
    bench.close("v1");
    bench.node().answers_wrongly = false;
    bench.close("v2");
    daemon.wait_for_spans(2);
    let rows = daemon.verdicts();
    let of = |vat: &str| rows.iter().find(|row| row["vat"] == vat).expect("a span");
    assert_eq!(of("v2")["verdict"], "verified");
    let row = of("v1");
    assert_eq!((row["verdict"].as_str(), row["acknowledged"].as_bool()), (Some("contradicted"), Some(false)), "{row}");
    assert_eq!(
        (row["report"]["replay"].as_str(), row["report"]["contradictions_total"].as_u64()),
        (Some("verified"), Some(2))
    );
    assert!(row["explanation"].as_str().expect("text").contains("\"key-0\""), "{row}");
    assert_eq!(daemon.metric("spanwatch_spans_total{verdict=\"contradicted\"}"), 1.0);
    assert_eq!(daemon.metric("spanwatch_contradictions_total{kind=\"value\"}"), 2.0);
    assert_eq!(daemon.metric("spanwatch_contradictions_unacknowledged"), 1.0);
    assert_eq!(daemon.metric("spanwatch_divergences_unacknowledged"), 0.0);
    let verdicts = || spanwatch(&["verdicts", "--state-dir", text(&daemon.state)]);
    let listed = verdicts();
    assert_eq!((listed.code, listed.out.contains("CONTRADICTED")), (3, true), "{}", listed.out);
    let id = row["id"].as_str().expect("an ID");
    assert_eq!(spanwatch(&["ack", id, "--state-dir", text(&daemon.state)]).code, 0);
    daemon.wait_for("no alarm", |daemon| daemon.metric("spanwatch_contradictions_unacknowledged") == 0.0);
    assert_eq!(verdicts().code, 0);
    assert_eq!(daemon.stop(), Some(0));
}
