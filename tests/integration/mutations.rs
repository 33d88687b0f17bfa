//! No change to a real record goes unnoticed.
//!
//! Goal: show that a replay notices each single change to a record, where the span's hash was made to fit the change,
//! and that the hash notices each where it was not. Method: a real span of the vat `collections` (it loads a snapshot,
//! reads and writes the vatstore, and saves a snapshot), copied out of the lab's database; in each copy one thing is
//! changed. The table of all changes and their verdicts is the snapshot file beside this one
//! (`snapshots/integration__mutations__every_change_gets_its_verdict.snap`; `INSTA_UPDATE=always make test` writes it
//! anew).

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use crate::lab::{Lab, lab, real_worker};
use crate::run::{spanwatch, text};
use crate::synthetic::change_item;

/// A small copy of the lab's database with one vat in it.
pub struct Record {
    pub dir: tempfile::TempDir,
    pub original: PathBuf,
    pub vat: String,
    pub worker: String,
    /// Bounds of the span that is changed.
    pub start: i64,
    pub end: i64,
    /// A delivery in it that writes, reads and uses what it reads.
    pub target: i64,
}

pub fn record(lab: &Lab) -> Record {
    let dir = tempfile::tempdir().expect("a directory");
    let original = dir.path().join("original.sqlite");
    fs::copy(&lab.file, &original).expect("copy");
    let vat = lab.vat("collections").to_owned();
    let db = Connection::open(&original).expect("open");
    for table in ["transcriptItems", "transcriptSpans", "snapshots"] {
        db.execute(&format!("DELETE FROM {table} WHERE vatID != ?"), [&vat]).expect("delete");
    }
    // The kernel's own lists have no other vat either.
    db.execute("DELETE FROM kvStore WHERE key GLOB 'vat.name.*' AND value != ?", [&vat]).expect("delete");
    db.execute_batch(
        r#"UPDATE kvStore SET value = '[]' WHERE key IN ('vat.dynamicIDs', 'vats.terminated');
        UPDATE kvStore SET value = '["collections"]' WHERE key = 'vat.names'; VACUUM"#,
    )
    .expect("sql");
    let (start, end) = db
        .query_row(
            "SELECT startPos, endPos FROM transcriptSpans WHERE vatID = ? AND isCurrent IS NULL AND startPos > 0 ORDER BY startPos",
            [&vat],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("a span");
    let target = (start..end)
        .find(|position| {
            let item: Value = serde_json::from_str(&item(&db, &vat, *position)).expect("json");
            let syscalls = item["sc"].as_array().expect("syscalls");
            let has = |name: &str| syscalls.iter().any(|syscall| syscall["s"][0] == name);
            item["d"][0] == "message" && has("vatstoreSet") && syscalls.iter().any(reads_a_balance) && has("resolve")
        })
        .expect("a delivery that writes, reads and answers");
    db.close().expect("close");
    let worker = text(&real_worker()).to_owned();
    Record { dir, original, vat, worker, start, end, target }
}

fn item(db: &Connection, vat: &str, position: i64) -> String {
    db.query_row("SELECT item FROM transcriptItems WHERE vatID = ? AND position = ?", params![vat, position], |row| {
        row.get(0)
    })
    .expect("an item")
}

/// A read of the state of an account, which the vat goes on to use.
pub fn reads_a_balance(syscall: &Value) -> bool {
    syscall["s"][0] == "vatstoreGet" && syscall["r"][1].as_str().is_some_and(|state| state.contains("balance"))
}

impl Record {
    pub fn copy(&self) -> PathBuf {
        let path = self.dir.path().join("copy.sqlite");
        fs::copy(&self.original, &path).expect("copy");
        path
    }

    /// The verdict of the span `[start, end)`, with positions relative to the delivery that was changed.
    fn verdict(&self, file: &Path, more: &[&str]) -> String {
        let range = format!("{}..{}", self.start, self.end);
        let arguments = ["verify", text(file), "--format", "json", "--worker", &self.worker, "--span", &range];
        let run = spanwatch(&[&arguments[..], more].concat());
        let span = &run.lines("span")[0];
        let verdict = span["verdict"].as_str().expect("a verdict");
        let code = match verdict {
            "verified" => 0,
            "diverged" | "contradicted" => 3,
            _ => 4,
        };
        assert_eq!(run.code, code, "{}{}", run.out, run.err);
        let contradicts = span["contradictions"].as_array().map_or_else(String::new, |all| {
            let kinds: Vec<&str> = all.iter().map(|one| one["kind"].as_str().expect("a kind")).collect();
            format!("; contradicts: {}", kinds.join(", "))
        });
        let told = self.told(span, verdict);
        format!("{told}{contradicts}")
    }

    fn told(&self, span: &Value, verdict: &str) -> String {
        match (span["reason"].as_str(), span["findings"].as_array()) {
            (Some(reason), _) => format!("{verdict}: {reason}"),
            (None, Some(findings)) => {
                assert_eq!(span["repeat"], "deterministic", "{span}");
                let mut kinds: Vec<String> = Vec::new();
                for finding in findings {
                    let kind = finding["kind"].as_str().expect("a kind");
                    let place = match finding["position"].as_i64().expect("a position") {
                        position if position == self.target => "the delivery",
                        position if position == self.end - 1 => "the snapshot",
                        position if position > self.target => "later",
                        _ => "EARLIER",
                    };
                    kinds.push(format!("{kind} at {place}"));
                }
                kinds.dedup();
                format!("{verdict}: {}", kinds.join(", "))
            }
            (None, None) => verdict.to_owned(),
        }
    }
}

/// The first syscall of a kind.
pub fn first(syscalls: &[Value], name: &str) -> usize {
    syscalls.iter().position(|syscall| syscall["s"][0] == name).expect("such a syscall")
}

/// A change to the syscalls or the result of an item. The delivery keeps its text: it is sent to the vat as it stands,
/// and `serde_json` would sort its keys.
pub fn change(apply: impl Fn(&mut Value)) -> impl Fn(&str) -> String {
    move |text| {
        let mut item: Value = serde_json::from_str(text).expect("json");
        apply(&mut item);
        let delivery = &text[..text.find(",\"sc\":").expect("syscalls after the delivery")];
        format!(r#"{delivery},"sc":{},"r":{}}}"#, item["sc"], item["r"])
    }
}

pub fn syscalls(item: &mut Value) -> &mut Vec<Value> {
    item["sc"].as_array_mut().expect("syscalls")
}

#[test]
fn every_change_gets_its_verdict() {
    let lab = lab("everything");
    let record = record(&lab);
    let mut table = format!("{:<58} {:<70} {}\n", "what was changed", "with the span's hash made to fit", "without");
    let mut row = |what: &str, fitting: &str, plain: &str| {
        let _ = writeln!(table, "{what:<58} {fitting:<70} {plain}");
    };
    row("nothing", &record.verdict(&record.copy(), &[]), "");

    type Change = Box<dyn Fn(&str) -> String>;
    let set = |item: &Value| first(item["sc"].as_array().expect("syscalls"), "vatstoreSet");
    let changes: Vec<(&str, i64, Change)> = vec![
        (
            "an argument of a syscall",
            record.target,
            Box::new(change(move |item| {
                let at = set(item);
                item["sc"][at]["s"][2] = json!("changed");
            })),
        ),
        (
            "a syscall is removed",
            record.target,
            Box::new(change(move |item| {
                let at = set(item);
                syscalls(item).remove(at);
            })),
        ),
        (
            "a syscall is added",
            record.target,
            Box::new(change(move |item| {
                let at = set(item);
                syscalls(item).insert(at, json!({"s": ["vatstoreSet", "added", "1"], "r": ["ok", null]}));
            })),
        ),
        (
            "the last syscall is removed",
            record.target,
            Box::new(change(|item| {
                syscalls(item).pop();
            })),
        ),
        (
            "two syscalls are swapped",
            record.target,
            Box::new(change(move |item| {
                let at = set(item);
                syscalls(item).swap(at, at + 1);
            })),
        ),
        (
            "a response that the vat uses",
            record.target,
            Box::new(change(|item| {
                let syscalls = syscalls(item);
                let at = syscalls.iter().position(reads_a_balance).expect("a read");
                let state = syscalls[at]["r"][1].as_str().expect("text").replacen("+1", "+2", 1);
                assert_ne!(syscalls[at]["r"][1], state.as_str(), "a balance of 100…");
                syscalls[at]["r"][1] = json!(state);
            })),
        ),
        (
            "a response that the vat does not use, of the same length",
            record.target,
            Box::new(change(move |item| {
                let at = set(item);
                item["sc"][at]["r"] = json!(["ok", true]);
            })),
        ),
        ("a status", record.target, Box::new(change(|item| item["r"]["status"] = json!("error")))),
        (
            "computrons, one more",
            record.target,
            Box::new(change(|item| {
                let computrons = item["r"]["metering"]["computrons"].as_u64().expect("a number");
                item["r"]["metering"]["computrons"] = json!(computrons + 1);
            })),
        ),
        (
            "computrons, one less",
            record.target,
            Box::new(change(|item| {
                let computrons = item["r"]["metering"]["computrons"].as_u64().expect("a number");
                item["r"]["metering"]["computrons"] = json!(computrons - 1);
            })),
        ),
        (
            "an argument of the delivery",
            record.target,
            Box::new(|text: &str| {
                let at = text.find("owner ").expect("an owner") + "owner ".len();
                format!("{}x{}", &text[..at], &text[at..])
            }),
        ),
        (
            "the snapshot's hash at the end",
            record.end - 1,
            Box::new(change(|item| {
                let hash = item["r"]["snapshotID"].as_str().expect("a hash");
                let other = if hash.starts_with('0') { "1" } else { "0" };
                item["r"]["snapshotID"] = json!(format!("{other}{}", &hash[1..]));
            })),
        ),
    ];
    for (what, position, change) in &changes {
        let verdicts = [true, false].map(|fits| {
            let file = record.copy();
            change_item(&file, &record.vat, *position, fits, change);
            record.verdict(&file, &[])
        });
        row(what, &verdicts[0], &verdicts[1]);
    }

    // What is not in an item has a hash of its own, so there is no fitting it.
    let base = params![record.vat, record.start - 1];
    let gzip = |db: &Connection| -> Vec<u8> {
        db.query_row("SELECT compressedSnapshot FROM snapshots WHERE vatID = ? AND snapPos = ?", base, |row| row.get(0))
            .expect("an image")
    };
    let put = |db: &Connection, gzip: &[u8]| {
        db.execute(
            "UPDATE snapshots SET compressedSnapshot = ?3 WHERE vatID = ?1 AND snapPos = ?2",
            params![record.vat, record.start - 1, gzip],
        )
        .expect("write");
    };
    let with_db = |apply: &dyn Fn(&Connection)| {
        let file = record.copy();
        let db = Connection::open(&file).expect("open");
        apply(&db);
        db.close().expect("close");
        file
    };
    let file = with_db(&|db| {
        let mut image = Vec::new();
        GzDecoder::new(&gzip(db)[..]).read_to_end(&mut image).expect("a gzip");
        let middle = image.len() / 2;
        image[middle] ^= 1;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&image).expect("in memory");
        put(db, &encoder.finish().expect("in memory"));
    });
    row("a byte of the base image", "", &record.verdict(&file, &[]));
    let file = with_db(&|db| {
        let mut bytes = gzip(db);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        put(db, &bytes);
    });
    row("a byte of the base image's gzip", "", &record.verdict(&file, &[]));
    for (what, like) in
        [("a byte of the vat's bundle", "b1-%"), ("a byte of lockdown's or the supervisor's bundle", "b0-%")]
    {
        let file = with_db(&|db| {
            let mut statement = db.prepare("SELECT bundleID, bundle FROM bundles WHERE bundleID LIKE ?").expect("sql");
            let bundles =
                statement.query_map([like], |row| Ok((row.get::<_, String>(0)?, row.get_ref(1)?.as_bytes()?.to_vec())));
            for bundle in bundles.expect("bundles") {
                let (id, mut bytes) = bundle.expect("a bundle");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                db.execute("UPDATE bundles SET bundle = ? WHERE bundleID = ?", params![bytes, id]).expect("write");
            }
        });
        let initial = Record { start: 0, end: record.start, ..clone(&record) };
        row(what, "", &initial.verdict(&file, &[]));
    }
    row("a byte of an archived transcript's gzip", "", &archived(&record, 1));
    row("no byte of an archived transcript's gzip", "", &archived(&record, 0));

    insta::assert_snapshot!(table);
}

/// The same record for another of its spans. The directory goes with the original.
fn clone(record: &Record) -> Record {
    Record {
        dir: tempfile::tempdir_in(record.dir.path()).expect("a directory"),
        original: record.original.clone(),
        vat: record.vat.clone(),
        worker: record.worker.clone(),
        ..*record
    }
}

/// The span's items pruned and an archive file in their place, whose middle byte is changed by `change`.
fn archived(record: &Record, change: u8) -> String {
    let file = record.copy();
    let db = Connection::open(&file).expect("open");
    let items: Vec<String> = (record.start..record.end).map(|position| item(&db, &record.vat, position)).collect();
    db.execute(
        "DELETE FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ?",
        params![record.vat, record.start, record.end],
    )
    .expect("delete");
    db.close().expect("close");
    let archive = tempfile::tempdir_in(record.dir.path()).expect("a directory");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all((items.join("\n") + "\n").as_bytes()).expect("in memory");
    let mut bytes = encoder.finish().expect("in memory");
    let middle = bytes.len() / 2;
    bytes[middle] ^= change;
    fs::write(archive.path().join(format!("transcript.{}.{}.{}.gz", record.vat, record.start, record.end)), bytes)
        .expect("write");
    record.verdict(&file, &["--transcript-archive", text(archive.path())])
}
