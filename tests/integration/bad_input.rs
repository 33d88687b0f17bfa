//! A damaged database or archive: a clear error or the right verdict, and the other spans go on.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::run::{Run, fake_worker, spanwatch, text};
use crate::synthetic::{self, Synthetic, change_item, rehash};

/// Verifies v1 and v2 with a worker that does as recorded.
fn verify(synthetic: &Synthetic, more: &[&str]) -> Run {
    let worker = fake_worker(synthetic.dir.path(), "ok");
    let arguments =
        ["verify", text(&synthetic.file), "--format", "json", "--vat", "v1", "--vat", "v2", "--worker", text(&worker)];
    spanwatch(&[&arguments[..], more].concat())
}

fn sql(synthetic: &Synthetic, statement: &str) {
    let db = Connection::open(&synthetic.file).expect("open");
    db.execute_batch(statement).expect("sql");
    db.close().expect("close");
}

/// What is done to the database, and the verdicts of `[0, 6)`, `[6, 11)` and `[11, 16)` of v1; v2 is always verified.
#[test]
fn damage_is_told_apart_and_stays_where_it_is() {
    let by_sql = |statement: &'static str| move |synthetic: &Synthetic| sql(synthetic, statement);
    let by_text = |position, from: &'static str, to: &'static str| {
        move |synthetic: &Synthetic| {
            change_item(&synthetic.file, "v1", position, true, |item| item.replacen(from, to, 1));
        }
    };
    type Damage = Box<dyn Fn(&Synthetic)>;
    let table: Vec<(&str, Damage, [&str; 3])> = vec![
        ("nothing", Box::new(|_| {}), ["verified"; 3]),
        (
            "an item is gone",
            Box::new(by_sql("DELETE FROM transcriptItems WHERE vatID = 'v1' AND position = 8")),
            ["verified", "unverifiable/items_missing", "verified"],
        ),
        (
            "all items of a span are gone",
            Box::new(by_sql("DELETE FROM transcriptItems WHERE vatID = 'v1' AND position < 6")),
            ["unverifiable/items_pruned", "verified", "verified"],
        ),
        (
            "an item is NULL",
            Box::new(by_sql("UPDATE transcriptItems SET item = NULL WHERE vatID = 'v1' AND position = 8")),
            ["verified", "unverifiable/items_missing", "verified"],
        ),
        (
            "an item is not JSON",
            Box::new(by_text(8, "{\"d\"", "{d")),
            ["verified", "unverifiable/item_unreadable", "verified"],
        ),
        (
            "an item is not text",
            Box::new(|synthetic: &Synthetic| {
                let db = Connection::open(&synthetic.file).expect("open");
                db.execute_batch("UPDATE transcriptItems SET item = x'ff00' WHERE vatID = 'v1' AND position = 8")
                    .expect("sql");
                let hash = {
                    use crate::model::hex;
                    let mut hash = hex(b"start of transcript span");
                    for position in 6..11 {
                        let item: Vec<u8> = db
                            .query_row(
                                "SELECT CAST(item AS BLOB) FROM transcriptItems WHERE vatID = 'v1' AND position = ?",
                                [position],
                                |row| row.get(0),
                            )
                            .expect("an item");
                        hash = hex((hash + &hex(&item)).as_bytes());
                    }
                    hash
                };
                db.execute("UPDATE transcriptSpans SET hash = ? WHERE vatID = 'v1' AND startPos = 6", [hash])
                    .expect("sql");
            }),
            ["verified", "unverifiable/item_unreadable", "verified"],
        ),
        (
            "a delivery of a kind that no kernel makes",
            Box::new(by_text(8, "[\"message\"", "[\"massage\"")),
            ["verified", "unverifiable/item_unreadable", "verified"],
        ),
        (
            "a save-snapshot in the middle",
            Box::new(|synthetic: &Synthetic| {
                let hash = "0".repeat(64);
                change_item(&synthetic.file, "v1", 8, true, |_| {
                    format!(r#"{{"d":["save-snapshot"],"sc":[],"r":{{"status":"ok","snapshotID":"{hash}"}}}}"#)
                });
            }),
            ["verified", "unverifiable/item_out_of_place", "verified"],
        ),
        (
            "a span that begins with a message",
            Box::new(|synthetic: &Synthetic| {
                change_item(&synthetic.file, "v1", 6, true, |_| {
                    r#"{"d":["bringOutYourDead"],"sc":[],"r":{"status":"ok"}}"#.to_owned()
                });
            }),
            ["verified", "unverifiable/history_broken", "verified"],
        ),
        (
            "the span's hash is another one",
            Box::new(by_sql(
                "UPDATE transcriptSpans SET hash = replace(hash, substr(hash, 1, 4), 'abcd') WHERE vatID = 'v1' AND startPos = 6",
            )),
            ["verified", "unverifiable/span_hash_mismatch", "verified"],
        ),
        (
            "the span's hash is no hash",
            Box::new(by_sql("UPDATE transcriptSpans SET hash = 'x' WHERE vatID = 'v1' AND startPos = 6")),
            ["verified", "unverifiable/span_row_damaged", "verified"],
        ),
        (
            "the image is cut",
            Box::new(by_sql(
                "UPDATE snapshots SET compressedSnapshot = substr(compressedSnapshot, 1, 40) WHERE vatID = 'v1' AND snapPos = 5",
            )),
            ["verified"; 3],
        ),
        (
            "the image is another one",
            Box::new(by_sql(
                "UPDATE snapshots SET compressedSnapshot = (SELECT compressedSnapshot FROM snapshots WHERE vatID = 'v2') \
                 WHERE vatID = 'v1' AND snapPos = 5",
            )),
            ["verified"; 3],
        ),
        (
            "the image's row has another hash",
            Box::new(by_sql(
                "UPDATE snapshots SET hash = (SELECT hash FROM snapshots WHERE vatID = 'v2') WHERE vatID = 'v1' AND snapPos = 5",
            )),
            ["verified", "unverifiable/base_damaged", "verified"],
        ),
        (
            "the image's row is gone",
            Box::new(by_sql("DELETE FROM snapshots WHERE vatID = 'v1' AND snapPos = 5")),
            ["verified", "unverifiable/history_broken", "verified"],
        ),
        (
            "the vat's options are not JSON",
            Box::new(by_sql("UPDATE kvStore SET value = '{' WHERE key = 'v1.options'")),
            ["unverifiable/options_unreadable"; 3],
        ),
        (
            "the vat runs in a worker that nobody knows",
            Box::new(|synthetic: &Synthetic| {
                change_item(&synthetic.file, "v1", 0, true, |item| {
                    item.replacen("\"type\":\"xsnap\"", "\"type\":\"other\"", 1)
                });
                let options = "UPDATE kvStore SET value = replace(value, '\"type\":\"xsnap\"', '\"type\":\"other\"') WHERE key = 'v1.options'";
                sql(synthetic, options);
            }),
            ["unverifiable/worker_type_unknown", "verified", "verified"],
        ),
        (
            "the vat's code is not named",
            Box::new(by_text(0, "\"bundleID\"", "\"bungleID\"")),
            ["unverifiable/source_unknown", "verified", "verified"],
        ),
    ];
    for (what, damage, verdicts) in table {
        let synthetic = synthetic::database();
        damage(&synthetic);
        let run = verify(&synthetic, &[]);
        let expected = [&verdicts[..], &["verified"]].concat();
        assert_eq!(run.verdicts(), expected, "{what}: {}{}", run.out, run.err);
        assert_eq!(run.code, if verdicts == ["verified"; 3] { 0 } else { 4 }, "{what}");
        if what.starts_with("the image is ") {
            // Together the span before it gives the image; alone it has to be read.
            let alone = verify(&synthetic, &["--vat", "v1", "--span", "6..11"]);
            assert_eq!(alone.verdicts(), ["unverifiable/base_damaged"], "{what}: {}{}", alone.out, alone.err);
        }
        let spans = run.lines("span");
        for span in spans.iter().filter(|span| span["verdict"] == "unverifiable") {
            assert!(span["explanation"].as_str().is_some_and(|text| text.len() > 10), "{what}: {span}");
        }
    }
}

/// How many threads and workers there are says where the history is cut, and so which images are read; not what comes of it.
#[test]
fn a_verdict_does_not_depend_on_the_number_of_threads() {
    let synthetic = synthetic::database();
    sql(&synthetic, "UPDATE snapshots SET compressedSnapshot = x'00' WHERE vatID = 'v1' AND inUse IS NULL");
    let lies = fake_worker(synthetic.dir.path(), "wrong-hash");
    for jobs in ["1", "2", "3", "9"] {
        let run = verify(&synthetic, &["--jobs", jobs]);
        assert_eq!((run.verdicts(), run.code), (vec!["verified".to_owned(); 4], 0), "{jobs}: {}{}", run.out, run.err);
    }
    // A span that gives no image leaves the next without, and what was made again for that is not told twice.
    let evidence = synthetic.dir.path().join("evidence");
    for jobs in ["1", "2", "3", "9"] {
        let arguments = ["verify", text(&synthetic.file), "--format", "json", "--vat", "v1", "--worker", text(&lies)];
        let run = spanwatch(&[&arguments[..], &["--jobs", jobs, "--evidence", text(&evidence)]].concat());
        let damaged = "unverifiable/base_damaged";
        let diverged = "diverged/snapshot_hash@5";
        assert_eq!(run.verdicts(), [diverged, damaged, damaged], "{jobs}: {}{}", run.out, run.err);
        let entries = fs::read_dir(&evidence).expect("list").map(|entry| entry.expect("an entry").path());
        let folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
        let seen = fs::read(folders[0].join("seen.json")).expect("how often it was seen");
        let seen: serde_json::Value = serde_json::from_slice(&seen).expect("JSON");
        assert_eq!((folders.len(), seen["times"].as_u64()), (1, Some(1)), "{jobs}");
        fs::remove_dir_all(&evidence).expect("remove");
    }
}

#[test]
fn bundles_are_proved() {
    for (statement, reason, vats) in [
        ("UPDATE bundles SET bundle = NULL WHERE bundleID LIKE 'b1-%'", "bundle_missing", 2),
        ("DELETE FROM bundles WHERE bundleID LIKE 'b1-%'", "bundle_missing", 2),
        ("UPDATE bundles SET bundle = replace(bundle, 'supervisor', 'superviser')", "bundle_damaged", 2),
        ("UPDATE bundles SET bundle = substr(bundle, 1, 90) WHERE bundleID LIKE 'b1-%'", "bundle_damaged", 2),
        ("UPDATE bundles SET bundle = 'no zip at all' WHERE bundleID LIKE 'b1-%'", "bundle_damaged", 2),
    ] {
        let synthetic = synthetic::database();
        sql(&synthetic, statement);
        let run = verify(&synthetic, &[]);
        let damaged = run.verdicts().iter().filter(|verdict| **verdict == format!("unverifiable/{reason}")).count();
        assert_eq!((damaged, run.code), (vats, 4), "{statement}: {}{}", run.out, run.err);
        assert_eq!(
            run.verdicts().iter().filter(|verdict| *verdict == "verified").count(),
            2,
            "{statement}: {}",
            run.out
        );
        let doctor =
            spanwatch(&["doctor", text(&synthetic.file), "--worker", text(&fake_worker(synthetic.dir.path(), "ok"))]);
        assert!(doctor.out.contains("FAULT bundle b") || statement.starts_with("DELETE"), "{}", doctor.out);
    }
}

#[test]
fn files_that_are_no_kernel_database() {
    let dir = tempfile::tempdir().expect("a directory");
    let worker = fake_worker(dir.path(), "ok");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("empty"), "").expect("write");
    fs::write(path("noise"), "this is not a database ".repeat(1_000)).expect("write");
    Connection::open(path("other")).expect("open").execute_batch("CREATE TABLE t (x)").expect("sql");
    let whole = synthetic::database();
    let bytes = fs::read(&whole.file).expect("read");
    fs::write(path("half"), &bytes[..bytes.len() / 2]).expect("write");
    fs::copy(&whole.file, path("column")).expect("copy");
    Connection::open(path("column"))
        .expect("open")
        .execute_batch("ALTER TABLE snapshots RENAME hash TO hush")
        .expect("sql");
    fs::create_dir(path("directory")).expect("make");
    for (name, says) in [
        ("missing", "no kernel database at"),
        ("directory", "no kernel database at"),
        ("empty", "it has no table transcriptSpans"),
        ("noise", "is not an SQLite database"),
        ("other", "it has no table transcriptSpans"),
        ("half", "the file is damaged"),
        ("column", "its table snapshots has no column hash"),
    ] {
        for command in ["verify", "spans", "doctor"] {
            let mut arguments = vec![command, text(dir.path()), "--format", "json"];
            let file = path(name);
            arguments[1] = text(&file);
            if command != "spans" {
                arguments.extend(["--worker", text(&worker)]);
            }
            let run = spanwatch(&arguments);
            assert!(run.err.contains(says), "{command} {name}: {}{}", run.out, run.err);
            assert_eq!((run.code, run.err.lines().count()), (1, 1), "{command} {name}: {}", run.err);
        }
    }
    assert!(!path("missing").exists() && !path("empty-wal").exists() && !path("noise-wal").exists());
}

#[test]
fn a_locked_database_is_waited_for_and_then_named() {
    let synthetic = synthetic::database();
    let db = Connection::open(&synthetic.file).expect("open");
    db.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; INSERT INTO kvStore VALUES ('x', 'y');")
        .expect("sql");
    let run = verify(&synthetic, &[]);
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(run.err.contains("locks the whole file"), "{}", run.err);
}

#[test]
fn rows_that_are_no_spans_do_not_pass_unnoticed() {
    let synthetic = synthetic::database();
    sql(&synthetic, "INSERT INTO transcriptSpans VALUES ('v9', 'x', 5, 'h', NULL, 0)");
    let run = verify(&synthetic, &[]);
    assert_eq!((run.verdicts(), run.code), (vec!["verified".to_owned(); 4], 4), "{}", run.err);
    assert!(run.err.contains("a row of transcriptSpans is unreadable"), "{}", run.err);
}

#[test]
fn archives_stand_in_for_what_was_pruned() {
    let synthetic = synthetic::database();
    let (transcripts, snapshots) = (synthetic.dir.path().join("transcripts"), synthetic.dir.path().join("snapshots"));
    make_archives(&synthetic, &transcripts, &snapshots);
    sql(
        &synthetic,
        "DELETE FROM transcriptItems WHERE vatID = 'v1' AND position < 16; \
         UPDATE snapshots SET compressedSnapshot = NULL WHERE inUse IS NULL",
    );
    let archives = ["--transcript-archive", text(&transcripts), "--snapshot-archive", text(&snapshots)];
    assert_eq!(verify(&synthetic, &archives).verdicts(), ["verified"; 4]);
    assert_eq!(verify(&synthetic, &archives[..2]).verdicts(), ["verified"; 4], "by chaining from the items alone");
    let pruned = "unverifiable/items_pruned";
    assert_eq!(verify(&synthetic, &[]).verdicts(), [pruned, pruned, pruned, "verified"]);

    // A file left by a crank that was rolled back has other bounds, and is never looked at.
    fs::write(transcripts.join("transcript.v1.6.9.gz"), "noise").expect("write");
    // Files with the right names and other content are not believed.
    let file = transcripts.join("transcript.v1.6.11.gz");
    let whole = fs::read(&file).expect("read");
    for (what, bytes) in [
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("noise", b"noise".to_vec()),
        ("of another span", fs::read(transcripts.join("transcript.v1.0.6.gz")).expect("read")),
    ] {
        fs::write(&file, bytes).expect("write");
        let run = verify(&synthetic, &archives);
        let damaged = "unverifiable/transcript_archive_damaged";
        assert_eq!(run.verdicts(), ["verified", damaged, "verified", "verified"], "{what}: {}", run.out);
        assert!(run.out.contains("transcript.v1.6.11.gz"), "{what}: {}", run.out);
    }
    fs::write(&file, whole).expect("write");
    fs::write(snapshots.join("snapshot.v1.5.gz"), "noise").expect("write");
    assert_eq!(verify(&synthetic, &archives).verdicts(), ["verified"; 4], "the span before it gives the image");
    let alone = verify(&synthetic, &[&archives[..], &["--vat", "v1", "--span", "6..11"]].concat());
    assert_eq!(alone.verdicts(), ["unverifiable/base_damaged"]);

    let run = verify(&synthetic, &["--snapshot-archive", "/no/such/directory"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("/no/such/directory"), "{}", run.err);
}

pub fn make_archives(synthetic: &Synthetic, transcripts: &Path, snapshots: &Path) {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;
    fs::create_dir(transcripts).expect("make");
    fs::create_dir(snapshots).expect("make");
    let db = Connection::open(&synthetic.file).expect("open");
    for (start, end) in [(0, 6), (6, 11), (11, 16)] {
        let file = fs::File::create(transcripts.join(format!("transcript.v1.{start}.{end}.gz"))).expect("create");
        let mut gzip = GzEncoder::new(file, Compression::default());
        for position in start..end {
            let item: String = db
                .query_row("SELECT item FROM transcriptItems WHERE vatID = 'v1' AND position = ?", [position], |row| {
                    row.get(0)
                })
                .expect("an item");
            gzip.write_all(item.as_bytes()).expect("write");
            gzip.write_all(b"\n").expect("write");
        }
        gzip.finish().expect("write");
        let image: Vec<u8> = db
            .query_row(
                "SELECT compressedSnapshot FROM snapshots WHERE vatID = 'v1' AND snapPos = ?",
                [end - 1],
                |row| row.get(0),
            )
            .expect("an image");
        fs::write(snapshots.join(format!("snapshot.v1.{}.gz", end - 1)), image).expect("write");
    }
}

#[test]
fn bad_usage_is_told_by_its_code() {
    let synthetic = synthetic::database();
    let file = text(&synthetic.file);
    for arguments in
        [&["verify"][..], &["verify", file, "--span", "5..3"], &["verify", file, "--jobs", "0"], &["noise"]]
    {
        assert_eq!(spanwatch(arguments).code, 2, "{arguments:?}");
    }
    let worker = fake_worker(synthetic.dir.path(), "ok");
    let run = spanwatch(&["verify", file, "--vat", "nobody", "--worker", text(&worker)]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("no vat nobody in this database"), "{}", run.err);
    for (worker, says) in
        [("/bin/true", "is not an xsnap worker"), ("/no/such/worker", "failed to use /no/such/worker")]
    {
        let run = spanwatch(&["verify", file, "--worker", worker]);
        assert_eq!(run.code, 1);
        assert!(run.err.contains(says), "{}", run.err);
    }
    let run = spanwatch(&["verify", file]);
    assert!(run.code == 1 && run.err.contains("npm install @agoric/xsnap"), "{}", run.err);
    let run = spanwatch(&["verify", file, "--format", "json", "--vat", "v3", "--worker", text(&worker)]);
    assert_eq!((run.code, run.verdicts()), (4, vec!["not_applicable/local_worker".to_owned()]), "nothing to verify");
}

/// A few hundred random changes to items, each with the span's hash made to fit, so that they get as far as the
/// worker: whatever comes, it is a verdict.
#[test]
fn random_damage_always_ends_in_a_verdict() {
    // A fixed sequence (Knuth's MMIX constants), so that what fails once fails again.
    let mut state: u64 = 20_261_123;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    let original = synthetic::database();
    let worker = fake_worker(original.dir.path(), "ok");
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..200 {
        let file = original.dir.path().join("damaged.sqlite");
        fs::copy(&original.file, &file).expect("copy");
        let db = Connection::open(&file).expect("open");
        let position = i64::try_from(random(16)).expect("small");
        let item: Vec<u8> = db
            .query_row(
                "SELECT CAST(item AS BLOB) FROM transcriptItems WHERE vatID = 'v1' AND position = ?",
                [position],
                |row| row.get(0),
            )
            .expect("an item");
        let mut changed = item.clone();
        if random(4) == 0 {
            changed.truncate(random(item.len()));
        } else {
            changed[random(item.len())] ^= 1 << random(7);
        }
        let Ok(changed) = String::from_utf8(changed) else { continue };
        db.execute(
            "UPDATE transcriptItems SET item = ? WHERE vatID = 'v1' AND position = ?",
            rusqlite::params![changed, position],
        )
        .expect("write");
        rehash(&db, "v1", position);
        db.close().expect("close");
        let run = spanwatch(&[
            "verify",
            text(&file),
            "--format",
            "json",
            "--vat",
            "v1",
            "--worker",
            text(&worker),
            "--stall-max",
            "5s",
        ]);
        assert!(matches!(run.code, 0 | 3 | 4), "round {round}: {changed}\n{}{}", run.out, run.err);
        assert_eq!(run.lines("span").len(), 3, "round {round}: {changed}\n{}", run.out);
        seen.extend(run.lines("span").iter().map(|span| span["verdict"].to_string()));
    }
    assert!(seen.len() >= 3, "the damage was too uniform to show anything: {seen:?}");
}
