//! No edit of a database's rows passes for an honest record.
//!
//! Goal: after an edit, `spans`, `audit` and `verify` together never exit 0. Method: a generator of random edits (rows deleted,
//! shortened, marked anew; hashes swapped; types changed; responses and `kvStore` rows changed, with the span's hash made to fit or
//! not) on copies of three databases: one that the fake worker would have written, the same with a span that diverges, and one
//! of a real kernel, cut down to a few vats. `spans` and `audit` replay nothing; `verify` is asked where both say nothing, and for
//! some of the others, to see that it never says less than `spans` does. Edits that nothing can detect (`docs/threats.md`) are not
//! made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use crate::lab::{lab, real_worker};
use crate::run::{fake_worker, spanwatch, text};
use crate::synthetic::{Keep, Node, change_item, rehash, span_hash};

/// The same numbers for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).expect("31 bits") % bound
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// A database to edit copies of.
struct Original {
    dir: tempfile::TempDir,
    file: PathBuf,
    worker: PathBuf,
    /// Its vats that run in a worker and are alive.
    vats: Vec<String>,
}

impl Original {
    fn copy(&self) -> PathBuf {
        let copy = self.dir.path().join("copy.sqlite");
        fs::copy(&self.file, &copy).expect("copy");
        copy
    }
}

/// A row of `transcriptSpans`.
#[derive(Debug, Clone)]
struct Row {
    vat: String,
    start: i64,
    end: i64,
    is_current: bool,
}

fn rows(db: &Connection, of_vats: &[String]) -> Vec<Row> {
    let mut statement = db
        .prepare("SELECT vatID, startPos, endPos, isCurrent FROM transcriptSpans ORDER BY vatID, startPos")
        .expect("sql");
    let rows = statement.query_map([], |row| {
        Ok(Row {
            vat: row.get(0)?,
            start: row.get(1)?,
            end: row.get(2)?,
            is_current: row.get::<_, Option<i64>>(3)?.is_some(),
        })
    });
    rows.expect("rows").map(|row| row.expect("a row")).filter(|row| of_vats.contains(&row.vat)).collect()
}

/// What the fake worker would have written: two vats with a history, of which one reads what it wrote.
fn synthetic() -> Original {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("original.sqlite");
    let mut node = Node::create(&file, Keep::everything());
    for (vat, name) in [("v1", "one"), ("v2", "two")] {
        node.start_vat(vat, name);
        for _ in 0..4 {
            node.work(vat);
            node.save(vat);
        }
        node.work(vat);
    }
    node.commit();
    node.stop();
    let worker = fake_worker(dir.path(), "ok");
    Original { dir, file, worker, vats: vec!["v1".to_owned(), "v2".to_owned()] }
}

/// The same, but the last closed span of v1 diverges: an item says one computron more than the worker uses.
fn diverging() -> Original {
    let original = synthetic();
    let db = Connection::open(&original.file).expect("open");
    let last = rows(&db, &["v1".to_owned()]).into_iter().rfind(|row| !row.is_current).expect("a closed span");
    db.close().expect("close");
    change_item(&original.file, "v1", last.start + 1, true, more_computrons);
    original
}

fn more_computrons(item: &str) -> String {
    let (before, after) = item.split_once("\"computrons\":").expect("computrons");
    let digits = after.find('}').expect("the end");
    let number: u64 = after[..digits].parse().expect("a number");
    format!("{before}\"computrons\":{}{}", number + 1, &after[digits..])
}

/// A real kernel's, cut down: a vat with upgrades, two with plain histories, a terminated one, and the comms vat, which has no
/// transcript.
fn real() -> Original {
    let lab = lab("everything");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("original.sqlite");
    fs::copy(&lab.file, &file).expect("copy");
    let db = Connection::open(&file).expect("open");
    let alive: Vec<String> = ["messenger", "upgraded", "hoard"].iter().map(|name| lab.vat(name).to_owned()).collect();
    let names: Vec<(String, String)> = {
        let mut statement =
            db.prepare("SELECT substr(key, 10), value FROM kvStore WHERE key LIKE 'vat.name.%'").expect("sql");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("names");
        rows.map(|row| row.expect("a row")).collect()
    };
    let list = |key: &str| -> Vec<String> {
        let json: String = db.query_row("SELECT value FROM kvStore WHERE key = ?", [key], |row| row.get(0)).expect(key);
        serde_json::from_str(&json).expect("a list")
    };
    let comms = names.iter().find(|(name, _)| name == "comms").expect("comms").1.clone();
    let terminated = list("vats.terminated");
    let kept: Vec<&String> = alive.iter().chain([&comms, &terminated[0]]).collect();
    let all: Vec<String> = {
        let mut statement = db.prepare("SELECT DISTINCT vatID FROM transcriptSpans").expect("sql");
        statement.query_map([], |row| row.get(0)).expect("vats").map(|row| row.expect("a row")).collect()
    };
    for vat in all.iter().filter(|vat| !kept.contains(vat)) {
        for table in ["transcriptItems", "transcriptSpans", "snapshots"] {
            db.execute(&format!("DELETE FROM {table} WHERE vatID = ?"), [vat]).expect("delete");
        }
        db.execute("DELETE FROM kvStore WHERE key >= ?1 || '.' AND key < ?1 || '/'", [vat]).expect("delete");
        db.execute("DELETE FROM kvStore WHERE key LIKE 'vat.name.%' AND value = ?", [vat]).expect("delete");
    }
    let put = |key: &str, list: Vec<&String>| {
        db.execute("UPDATE kvStore SET value = ? WHERE key = ?", params![json!(list).to_string(), key]).expect("write");
    };
    put("vat.names", names.iter().filter(|(_, vat)| kept.contains(&vat)).map(|(name, _)| name).collect());
    let dynamic = list("vat.dynamicIDs");
    put("vat.dynamicIDs", dynamic.iter().filter(|vat| kept.contains(vat)).collect());
    put("vats.terminated", vec![&terminated[0]]);
    db.execute("UPDATE snapshots SET compressedSnapshot = NULL WHERE inUse IS NULL", []).expect("prune");
    db.execute_batch("VACUUM").expect("vacuum");
    db.close().expect("close");
    Original { dir, file, worker: real_worker(), vats: alive }
}

/// An edit: what was done, in words.
type Edit = fn(&Connection, &Original, &mut Random) -> Option<String>;

fn a_closed_row(db: &Connection, original: &Original, random: &mut Random) -> Row {
    let closed: Vec<Row> = rows(db, &original.vats).into_iter().filter(|row| !row.is_current).collect();
    random.one_of(&closed).clone()
}

fn a_current_row(db: &Connection, original: &Original, random: &mut Random) -> Row {
    let current: Vec<Row> = rows(db, &original.vats).into_iter().filter(|row| row.is_current).collect();
    random.one_of(&current).clone()
}

fn set(db: &Connection, row: &Row, column: &str, value: impl rusqlite::ToSql) {
    let sql = format!("UPDATE transcriptSpans SET {column} = ? WHERE vatID = ? AND startPos = ?");
    assert_eq!(db.execute(&sql, params![value, row.vat, row.start]).expect("write"), 1, "{row:?}");
}

fn get<T: rusqlite::types::FromSql>(db: &Connection, row: &Row, column: &str) -> T {
    let sql = format!("SELECT {column} FROM transcriptSpans WHERE vatID = ? AND startPos = ?");
    db.query_row(&sql, params![row.vat, row.start], |row| row.get(0)).expect("a value")
}

fn item(db: &Connection, vat: &str, position: i64) -> Option<String> {
    db.query_row("SELECT item FROM transcriptItems WHERE vatID = ? AND position = ?", params![vat, position], |row| {
        row.get(0)
    })
    .optional()
    .expect("read")
}

fn set_item(db: &Connection, vat: &str, position: i64, item: &str) {
    let sql = "UPDATE transcriptItems SET item = ? WHERE vatID = ? AND position = ?";
    assert_eq!(db.execute(sql, params![item, vat, position]).expect("write"), 1);
}

/// The vatstore reads in a span: position and number of the syscall.
fn reads(db: &Connection, row: &Row) -> Vec<(i64, usize)> {
    let mut found = Vec::new();
    for position in row.start..row.end {
        let Some(item) = item(db, &row.vat, position) else { continue };
        let item: Value = serde_json::from_str(&item).expect("json");
        for (number, syscall) in item["sc"].as_array().expect("syscalls").iter().enumerate() {
            if syscall["s"][0] == "vatstoreGet" {
                found.push((position, number));
            }
        }
    }
    found
}

/// An item with another `sc` or `r`; the delivery keeps its text.
fn with(text: &str, apply: impl FnOnce(&mut Value)) -> String {
    let mut item: Value = serde_json::from_str(text).expect("json");
    apply(&mut item);
    let delivery = &text[..text.find(",\"sc\":").expect("syscalls after the delivery")];
    format!(r#"{delivery},"sc":{},"r":{}}}"#, item["sc"], item["r"])
}

/// A delivery in a closed span that was given syscalls to make.
fn a_delivery(db: &Connection, row: &Row, random: &mut Random) -> Option<i64> {
    let busy: Vec<i64> = (row.start..row.end)
        .filter(|position| item(db, &row.vat, *position).is_some_and(|item| !item.contains("\"sc\":[]")))
        .collect();
    if busy.is_empty() { None } else { Some(*random.one_of(&busy)) }
}

fn vatstore_rows(db: &Connection, vat: &str) -> Vec<(String, String)> {
    let mut statement = db
        .prepare("SELECT key, value FROM kvStore WHERE key >= ?1 || '.vs.' AND key < ?1 || '.vs/' ORDER BY key")
        .expect("sql");
    statement
        .query_map([vat], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("rows")
        .map(|row| row.expect("a row"))
        .collect()
}

const EDITS: &[(&str, Edit)] = &[
    ("delete a span's row", |db, original, random| {
        let row = a_closed_row(db, original, random);
        db.execute("DELETE FROM transcriptSpans WHERE vatID = ? AND startPos = ?", params![row.vat, row.start])
            .expect("write");
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("delete a span's row and its items", |db, original, random| {
        let row = a_closed_row(db, original, random);
        db.execute("DELETE FROM transcriptSpans WHERE vatID = ? AND startPos = ?", params![row.vat, row.start])
            .expect("write");
        let sql = "DELETE FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ?";
        db.execute(sql, params![row.vat, row.start, row.end]).expect("write");
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("delete the rows of the first spans", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let sql = "DELETE FROM transcriptSpans WHERE vatID = ? AND startPos <= ?";
        db.execute(sql, params![row.vat, row.start]).expect("write");
        Some(format!("{} up to {}", row.vat, row.start))
    }),
    ("shorten a span", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let by = i64::try_from(1 + random.below(2)).expect("small");
        set(db, &row, "endPos", row.end - by);
        Some(format!("{} {} by {by}", row.vat, row.start))
    }),
    ("shorten a span, its last items deleted, its hash made to fit", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let by = i64::try_from(1 + random.below(2)).expect("small");
        set(db, &row, "endPos", row.end - by);
        let sql = "DELETE FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ?";
        db.execute(sql, params![row.vat, row.end - by, row.end]).expect("write");
        rehash(db, &row.vat, row.start);
        Some(format!("{} {} by {by}", row.vat, row.start))
    }),
    ("lengthen a span", |db, original, random| {
        let row = a_closed_row(db, original, random);
        set(db, &row, "endPos", row.end + 1);
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("move a span's start", |db, original, random| {
        let row = a_closed_row(db, original, random);
        set(db, &row, "startPos", row.start + 1);
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("mark a closed span as the open one", |db, original, random| {
        let row = a_closed_row(db, original, random);
        db.execute("UPDATE transcriptSpans SET isCurrent = NULL WHERE vatID = ?", [&row.vat]).expect("write");
        set(db, &row, "isCurrent", 1);
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("mark the open span as closed", |db, original, random| {
        let row = a_current_row(db, original, random);
        set(db, &row, "isCurrent", Cell::Null);
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("delete the open span's row", |db, original, random| {
        let row = a_current_row(db, original, random);
        db.execute("DELETE FROM transcriptSpans WHERE vatID = ? AND startPos = ?", params![row.vat, row.start])
            .expect("write");
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("delete all rows of a vat", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        for table in ["transcriptItems", "transcriptSpans", "snapshots"] {
            db.execute(&format!("DELETE FROM {table} WHERE vatID = ?"), [&vat]).expect("write");
        }
        Some(vat)
    }),
    ("swap the hashes of two spans", |db, original, random| {
        let (one, other) = (a_closed_row(db, original, random), a_closed_row(db, original, random));
        let (hash, other_hash): (String, String) = (get(db, &one, "hash"), get(db, &other, "hash"));
        if hash == other_hash {
            return None;
        }
        set(db, &one, "hash", other_hash);
        set(db, &other, "hash", hash);
        Some(format!("{} {} and {} {}", one.vat, one.start, other.vat, other.start))
    }),
    ("change a span's hash to another type or none", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let hash: String = get(db, &row, "hash");
        let cells = [
            Cell::Null,
            Cell::Integer(7),
            Cell::Blob(hash.clone().into_bytes()),
            Cell::Text(hash.to_uppercase()),
            Cell::Text(String::new()),
        ];
        let cell = random.one_of(&cells).clone();
        set(db, &row, "hash", &cell);
        Some(format!("{} {} {cell:?}", row.vat, row.start))
    }),
    ("change a bound's type", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let column = *random.one_of(&["startPos", "endPos", "incarnation"]);
        let cell = random
            .one_of(&[Cell::Text("many".to_owned()), Cell::Blob(vec![7]), Cell::Real(0.5), Cell::Integer(-1)])
            .clone();
        set(db, &row, column, &cell);
        Some(format!("{} {} {column} {cell:?}", row.vat, row.start))
    }),
    ("change an incarnation", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let incarnation: i64 = get(db, &row, "incarnation");
        set(db, &row, "incarnation", incarnation + 1);
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("change the incarnation of a span and all after it", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let sql = "UPDATE transcriptSpans SET incarnation = incarnation + 1 WHERE vatID = ? AND startPos >= ?";
        db.execute(sql, params![row.vat, row.start]).expect("write");
        Some(format!("{} {}", row.vat, row.start))
    }),
    ("delete an item", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let position = row.start
            + i64::try_from(random.below(usize::try_from(row.end - row.start).expect("small"))).expect("small");
        let sql = "DELETE FROM transcriptItems WHERE vatID = ? AND position = ?";
        if db.execute(sql, params![row.vat, position]).expect("write") == 0 {
            return None;
        }
        Some(format!("{}:{position}", row.vat))
    }),
    ("change an item, the hash left", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let position = a_delivery(db, &row, random)?;
        set_item(db, &row.vat, position, &more_computrons(&item(db, &row.vat, position)?));
        Some(format!("{}:{position}", row.vat))
    }),
    ("change an item's type", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let position = a_delivery(db, &row, random)?;
        let cell = random.one_of(&[Cell::Null, Cell::Integer(7), Cell::Blob(b"{}".to_vec())]).clone();
        let sql = "UPDATE transcriptItems SET item = ? WHERE vatID = ? AND position = ?";
        db.execute(sql, params![cell, row.vat, position]).expect("write");
        Some(format!("{}:{position} {cell:?}", row.vat))
    }),
    ("change computrons, the hash made to fit", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let position = a_delivery(db, &row, random)?;
        set_item(db, &row.vat, position, &more_computrons(&item(db, &row.vat, position)?));
        rehash(db, &row.vat, row.start);
        Some(format!("{}:{position}", row.vat))
    }),
    ("drop a syscall, the hash made to fit", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let position = a_delivery(db, &row, random)?;
        let changed =
            with(&item(db, &row.vat, position)?, |item| drop(item["sc"].as_array_mut().expect("syscalls").pop()));
        set_item(db, &row.vat, position, &changed);
        rehash(db, &row.vat, row.start);
        Some(format!("{}:{position}", row.vat))
    }),
    ("change a read's response, the hash made to fit", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let all = reads(db, &row);
        if all.is_empty() {
            return None;
        }
        let (position, number) = *random.one_of(&all);
        let changed = with(&item(db, &row.vat, position)?, |item| item["sc"][number]["r"] = json!(["ok", "other"]));
        set_item(db, &row.vat, position, &changed);
        rehash(db, &row.vat, row.start);
        Some(format!("{}:{position}/{number}", row.vat))
    }),
    ("change the response of a syscall that returns nothing, the hash made to fit", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let position = a_delivery(db, &row, random)?;
        let text = item(db, &row.vat, position)?;
        let parsed: Value = serde_json::from_str(&text).expect("json");
        let syscalls = parsed["sc"].as_array().expect("syscalls");
        let number =
            syscalls.iter().position(|syscall| syscall["s"][0] == "vatstoreSet" || syscall["s"][0] == "send")?;
        let response = random.one_of(&[json!(["ok", true]), json!(["error", "no"]), json!(["fine", null])]).clone();
        set_item(db, &row.vat, position, &with(&text, |item| item["sc"][number]["r"] = response.clone()));
        rehash(db, &row.vat, row.start);
        Some(format!("{}:{position}/{number} {response}", row.vat))
    }),
    ("change the snapshot ID in an item, the hash made to fit", |db, original, random| {
        let row = a_closed_row(db, original, random);
        let position = *random.one_of(&[row.start, row.end - 1]);
        let text = item(db, &row.vat, position).filter(|item| item.contains("-snapshot"))?;
        let at = text.find("snapshotID\":\"").expect("an ID") + "snapshotID\":\"".len();
        let other = if text[at..].starts_with('0') { "1" } else { "0" };
        set_item(db, &row.vat, position, &format!("{}{other}{}", &text[..at], &text[at + 1..]));
        rehash(db, &row.vat, row.start);
        Some(format!("{}:{position}", row.vat))
    }),
    ("change the hash in a row of snapshots", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let sql = "SELECT snapPos, hash FROM snapshots WHERE vatID = ? ORDER BY random() LIMIT 1";
        let (position, hash): (i64, String) =
            db.query_row(sql, [&vat], |row| Ok((row.get(0)?, row.get(1)?))).optional().expect("read")?;
        let other = if hash.starts_with('0') { "1" } else { "0" };
        let sql = "UPDATE snapshots SET hash = ? WHERE vatID = ? AND snapPos = ?";
        db.execute(sql, params![format!("{other}{}", &hash[1..]), vat, position]).expect("write");
        Some(format!("{vat}@{position}"))
    }),
    ("delete a row of snapshots", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let sql = "DELETE FROM snapshots WHERE vatID = ?1 AND snapPos = (SELECT min(snapPos) FROM snapshots WHERE vatID = ?1)";
        if db.execute(sql, [&vat]).expect("write") == 0 {
            return None;
        }
        Some(vat)
    }),
    ("move a row of snapshots", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let sql = "UPDATE snapshots SET snapPos = snapPos + 1 WHERE vatID = ?1 AND snapPos = (SELECT max(snapPos) FROM snapshots WHERE vatID = ?1)";
        if db.execute(sql, [&vat]).expect("write") == 0 {
            return None;
        }
        Some(vat)
    }),
    ("damage the image in use", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let cells = [Cell::Blob(vec![0]), Cell::Blob(Vec::new()), Cell::Text("image".to_owned()), Cell::Null];
        let cell = random.one_of(&cells).clone();
        let sql = "UPDATE snapshots SET compressedSnapshot = ? WHERE vatID = ? AND inUse = 1";
        if db.execute(sql, params![cell, vat]).expect("write") == 0 {
            return None;
        }
        Some(format!("{vat} {cell:?}"))
    }),
    ("disguise a vat as one without a transcript", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        for table in ["transcriptItems", "transcriptSpans", "snapshots"] {
            db.execute(&format!("DELETE FROM {table} WHERE vatID = ?"), [&vat]).expect("write");
        }
        let nothing = span_hash(std::iter::empty());
        db.execute("INSERT INTO transcriptSpans VALUES (?, 0, 0, ?, 1, 0)", [&vat, &nothing]).expect("write");
        let key = format!("{vat}.options");
        let options: String =
            db.query_row("SELECT value FROM kvStore WHERE key = ?", [&key], |row| row.get(0)).expect("options");
        let mut options: Value = serde_json::from_str(&options).expect("json");
        options["useTranscript"] = json!(false);
        db.execute("UPDATE kvStore SET value = ? WHERE key = ?", [&options.to_string(), &key]).expect("write");
        Some(vat)
    }),
    ("add an item at a position that is no whole number", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let cells = [Cell::Integer(-1), Cell::Blob(vec![0]), Cell::Text("one".to_owned())];
        let cell = random.one_of(&cells).clone();
        db.execute("INSERT INTO transcriptItems VALUES (?, ?, '{}', 0)", params![vat, cell]).expect("write");
        Some(format!("{vat}:{cell:?}"))
    }),
    ("add an item whose vat ID is not one", |db, _, _| {
        db.execute("INSERT INTO transcriptItems VALUES ('v1x', 0, '{}', 0)", []).expect("write");
        Some("v1x".to_owned())
    }),
    ("add a key of a vat without spans", |db, _, _| {
        db.execute("INSERT INTO kvStore VALUES ('v99.vs.x', 'x')", []).expect("write");
        Some("v99.vs.x".to_owned())
    }),
    ("clear the mark of the image in use", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        if db.execute("UPDATE snapshots SET inUse = NULL WHERE vatID = ? AND inUse = 1", [&vat]).expect("write") == 0 {
            return None;
        }
        Some(vat)
    }),
    ("say that a vat is local", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let key = format!("{vat}.options");
        let options: String =
            db.query_row("SELECT value FROM kvStore WHERE key = ?", [&key], |row| row.get(0)).expect("options");
        let mut options: Value = serde_json::from_str(&options).expect("json");
        options["workerOptions"] = json!({"type": "local"});
        db.execute("UPDATE kvStore SET value = ? WHERE key = ?", [&options.to_string(), &key]).expect("write");
        Some(vat)
    }),
    ("change a value of the vatstore", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let all = vatstore_rows(db, &vat);
        if all.is_empty() {
            return None;
        }
        let (key, value) = random.one_of(&all).clone();
        db.execute("UPDATE kvStore SET value = ? WHERE key = ?", [&format!("{value}0"), &key]).expect("write");
        Some(key)
    }),
    ("delete a key of the vatstore", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let all = vatstore_rows(db, &vat);
        if all.is_empty() {
            return None;
        }
        let (key, _) = random.one_of(&all).clone();
        db.execute("DELETE FROM kvStore WHERE key = ?", [&key]).expect("write");
        Some(key)
    }),
    ("add a key to the vatstore", |db, original, random| {
        let vat = random.one_of(&original.vats).clone();
        let key = format!("{vat}.vs.added.{}", random.below(1000));
        db.execute("INSERT INTO kvStore VALUES (?, 'x')", [&key]).expect("write");
        Some(key)
    }),
];

/// What the edits of a database came to.
#[derive(Default)]
struct Tally {
    edits: usize,
    /// Kinds of edits, by the command that told first.
    told_by: BTreeMap<&'static str, usize>,
    /// Edits that nobody told.
    silent: String,
}

/// Makes so many edits, each of a copy, and asks the commands. `verify` is asked at most `replays` times where it need not be.
fn try_edits(original: &Original, seed: u64, edits: usize, replays: usize, is_known_bad: bool) -> Tally {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let worker = text(&original.worker);
    let mut cross_checks = replays;
    let mut kind = 0;
    while tally.edits < edits {
        let (name, edit) = EDITS[kind % EDITS.len()];
        kind += 1;
        assert!(kind < 20 * edits, "too few edits are possible here");
        let file = original.copy();
        let db = Connection::open(&file).expect("open");
        let done = edit(&db, original, &mut random);
        db.close().map_err(|(_, error)| error).expect("close");
        let Some(done) = done else { continue };
        tally.edits += 1;
        let run = |command: &str, more: &[&str]| {
            let run = spanwatch(&[&[command, text(&file)], more].concat());
            assert!([0, 3, 4].contains(&run.code), "{command} after: {name}: {done}: {}{}", run.out, run.err);
            run.code
        };
        let (spans, audit) = (run("spans", &[]), run("audit", &[]));
        // With a divergence in it, only a replay can say that it is still seen.
        let must_replay = (spans, audit) == (0, 0) || is_known_bad;
        let replayed = if must_replay || (spans != 0 && cross_checks > 0) {
            cross_checks = cross_checks.saturating_sub(usize::from(!must_replay));
            Some(run("verify", &["--worker", worker]))
        } else {
            None
        };
        let teller = match (spans, audit, replayed) {
            (_, _, Some(0)) if spans != 0 => {
                let _ = writeln!(tally.silent, "{name}: {done}: `spans` exits {spans}, and `verify` exits 0");
                continue;
            }
            (0, 0, Some(0) | None) => {
                let _ = writeln!(tally.silent, "{name}: {done}: no command tells it");
                continue;
            }
            (0, 0, Some(_)) => "verify",
            (0, _, _) => "audit",
            _ => "spans",
        };
        *tally.told_by.entry(teller).or_default() += 1;
    }
    tally
}

/// Nothing is told of the database before it is edited.
fn assert_honest(original: &Original, code: i32) {
    for (command, more) in [("spans", &[][..]), ("audit", &[]), ("verify", &["--worker", text(&original.worker)])] {
        let run = spanwatch(&[&[command, text(&original.file)], more].concat());
        let expected = if command == "verify" { code } else { 0 };
        assert_eq!(run.code, expected, "{command}: {}{}", run.out, run.err);
    }
}

fn assert_all_told(what: &str, tally: &Tally) {
    println!("{what}: {} edits, told by {:?}", tally.edits, tally.told_by);
    assert!(tally.silent.is_empty(), "{what}:\n{}", tally.silent);
}

#[test]
fn no_edit_of_an_honest_database_goes_unnoticed() {
    let original = synthetic();
    assert_honest(&original, 0);
    assert_all_told("honest", &try_edits(&original, 0x5EED, 120, 12, false));
}

#[test]
fn no_edit_hides_a_divergence() {
    let original = diverging();
    assert_honest(&original, 3);
    assert_all_told("diverging", &try_edits(&original, 0xD1FF, 40, 0, true));
}

#[test]
fn no_edit_of_a_real_kernels_database_goes_unnoticed() {
    let original = real();
    assert_honest(&original, 0);
    assert_all_told("real", &try_edits(&original, 0x0EA1, 60, 2, false));
}

mod long {
    use super::*;

    #[test]
    fn a_thousand_edits() {
        let (honest, diverging) = (synthetic(), diverging());
        for seed in 1..=4 {
            assert_all_told("honest", &try_edits(&honest, seed << 20, 200, 20, false));
            assert_all_told("diverging", &try_edits(&diverging, seed << 21, 50, 0, true));
        }
    }
}
