//! A kernel's database as the fake worker would have written it, in the real schema.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rusqlite::{Connection, params};
use serde_json::json;
use sha2::{Digest, Sha512};

use crate::model::{Heap, computrons, hex, syscalls_of};

/// The schema of `@agoric/swing-store` 0.10.0.
const SCHEMA: &str = "
    PRAGMA journal_mode=WAL;
    CREATE TABLE kvStore (key TEXT, value TEXT, PRIMARY KEY (key));
    CREATE TABLE transcriptItems (
      vatID TEXT, position INTEGER, item TEXT, incarnation INTEGER, PRIMARY KEY (vatID, position));
    CREATE TABLE transcriptSpans (
      vatID TEXT, startPos INTEGER, endPos INTEGER, hash TEXT, isCurrent INTEGER CHECK (isCurrent = 1),
      incarnation INTEGER, PRIMARY KEY (vatID, startPos), UNIQUE (vatID, isCurrent));
    CREATE INDEX currentTranscriptIndex ON transcriptSpans (vatID, isCurrent);
    CREATE TABLE snapshots (
      vatID TEXT, snapPos INTEGER, inUse INTEGER CHECK(inUse = 1), hash TEXT, uncompressedSize INTEGER,
      compressedSize INTEGER, compressedSnapshot BLOB, PRIMARY KEY (vatID, snapPos), UNIQUE (vatID, inUse));
    CREATE TABLE bundles (bundleID TEXT, bundle BLOB, PRIMARY KEY (bundleID));
";

/// A database in a directory of its own.
pub struct Synthetic {
    pub dir: tempfile::TempDir,
    pub file: PathBuf,
}

/// Vat v1 with three closed spans, `[0, 6)`, `[6, 11)` and `[11, 16)`, and an open one; v2 with one closed span,
/// `[0, 6)`; v3 is local. All images are kept.
pub fn database() -> Synthetic {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("swingstore.sqlite");
    let db = Connection::open(&file).expect("create");
    db.execute_batch(SCHEMA).expect("schema");
    let bundles = write_bundles(&db);
    for (vat, name, spans) in [("v1", "one", 3), ("v2", "two", 1)] {
        put(&db, &format!("vat.name.{name}"), vat);
        let options = json!({"workerOptions": {"type": "xsnap", "bundleIDs": bundles.worker}, "name": name});
        put(&db, &format!("{vat}.options"), &options.to_string());
        Vat { db: &db, id: vat, heap: Heap::blank(), position: 0, items: Vec::new() }.write(spans, &bundles);
    }
    put(&db, "v3.options", r#"{"workerOptions":{"type":"local"},"name":"local"}"#);
    for (end, hash, is_current) in [(0, "", None), (1, "", Some(1))] {
        let start = if is_current.is_some() { 1 } else { 0 };
        db.execute(
            "INSERT OR REPLACE INTO transcriptSpans VALUES ('v3', ?, ?, ?, ?, 0)",
            params![start, end, hash, is_current],
        )
        .expect("write");
    }
    put(&db, "crankNumber", "17");
    db.close().expect("close");
    Synthetic { dir, file }
}

struct Bundles {
    worker: Vec<String>,
    programs: Vec<String>,
    source: String,
    zip_base64: String,
}

fn write_bundles(db: &Connection) -> Bundles {
    let put = |id: &str, bytes: &[u8]| {
        db.execute("INSERT INTO bundles VALUES (?, ?)", params![id, bytes]).expect("write");
    };
    let (mut worker, mut programs) = (Vec::new(), Vec::new());
    for source in ["lockdown", "supervisor"] {
        let text = format!(r#"{{"moduleFormat":"nestedEvaluate","source":"{source}","sourceMap":""}}"#);
        let id = format!("b0-{}", hex(text.as_bytes()));
        put(&id, text.as_bytes());
        worker.push(id);
        programs.push(format!("({source}\n)()"));
    }
    let module = b"export const x = 1;";
    let sha512 = |bytes: &[u8]| Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let map = json!({"compartments": {"c": {"location": "c", "modules": {"m": {"location": "m.js", "sha512": sha512(module)}}}}});
    let map = map.to_string();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("compartment-map.json", map.as_bytes()), ("c/m.js", module)] {
        zip.start_file(name, stored).expect("in memory");
        zip.write_all(bytes).expect("in memory");
    }
    let zip = zip.finish().expect("in memory").into_inner();
    let source = format!("b1-{}", sha512(map.as_bytes()));
    put(&source, &zip);
    let zip_base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, zip);
    Bundles { worker, programs, source, zip_base64 }
}

fn put(db: &Connection, key: &str, value: &str) {
    db.execute("INSERT INTO kvStore VALUES (?, ?)", [key, value]).expect("write");
}

struct Vat<'a> {
    db: &'a Connection,
    id: &'a str,
    heap: Heap,
    position: i64,
    items: Vec<String>,
}

impl Vat<'_> {
    fn write(mut self, spans: usize, bundles: &Bundles) {
        let source = &bundles.source;
        let worker_options = json!({"type": "xsnap", "bundleIDs": bundles.worker});
        self.items.push(format!(
            r#"{{"d":["initialize-worker",{{"source":{{"bundleID":"{source}"}},"workerOptions":{worker_options}}}],"sc":[],"r":{{"status":"ok"}}}}"#
        ));
        for program in &bundles.programs {
            self.heap.take(format!("e{program}").as_bytes());
        }
        let bundle = format!(
            r#"{{"moduleFormat":"endoZipBase64","endoZipBase64Sha512":"{}","endoZipBase64":"{}"}}"#,
            &source[3..],
            bundles.zip_base64
        );
        let options = r#"{"enableDisavow":false,"relaxDurabilityRules":false}"#;
        self.heap.take(format!(r#"?["setBundle","{}",{bundle},{options}]"#, self.id).as_bytes());
        self.deliver(&json!(["startVat", {"body": "#{}", "slots": []}]));
        for span in 0..spans {
            for message in 0..2 {
                let syscalls = json!([
                    ["vatstoreSet", format!("key-{span}"), format!("{message}")],
                    ["vatstoreGet", format!("key-{span}")],
                    ["send", "o-50", {"methargs": {"body": "#[\"é\\ud83d\"]", "slots": []}}],
                ]);
                self.deliver(&json!(["message", "o+0", {"methargs": {"body": syscalls.to_string(), "slots": []}}]));
            }
            self.deliver(&json!(["bringOutYourDead"]));
            self.save();
        }
        self.end_span(true);
    }

    fn deliver(&mut self, delivery: &serde_json::Value) {
        let delivery = delivery.to_string();
        self.heap.take(format!(r#"?["deliver",{delivery}]"#).as_bytes());
        let syscalls = syscalls_of(&serde_json::from_str(&delivery).expect("json"));
        let mut recorded = Vec::new();
        for syscall in &syscalls {
            let response = if syscall.contains("vatstoreGet") { r#"["ok","value"]"# } else { r#"["ok",null]"# };
            self.heap.take(format!("/{response}").as_bytes());
            recorded.push(format!(r#"{{"s":{syscall},"r":{response}}}"#));
        }
        self.items.push(format!(
            r#"{{"d":{delivery},"sc":[{}],"r":{{"status":"ok","metering":{{"computrons":{}}}}}}}"#,
            recorded.join(","),
            computrons(syscalls.len())
        ));
    }

    fn save(&mut self) {
        let image = self.heap.image();
        let hash = hex(image.as_bytes());
        self.items.push(format!(r#"{{"d":["save-snapshot"],"sc":[],"r":{{"status":"ok","snapshotID":"{hash}"}}}}"#));
        self.end_span(false);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(image.as_bytes()).expect("in memory");
        let gzip = gzip.finish().expect("in memory");
        self.db
            .execute(
                "INSERT INTO snapshots VALUES (?, ?, NULL, ?, ?, ?, ?)",
                params![self.id, self.position - 1, hash, image.len() as i64, gzip.len() as i64, gzip],
            )
            .expect("write");
        self.items
            .push(format!(r#"{{"d":["load-snapshot",{{"snapshotID":"{hash}"}}],"sc":[],"r":{{"status":"ok"}}}}"#));
    }

    fn end_span(&mut self, is_current: bool) {
        let start = self.position;
        for item in &self.items {
            self.db
                .execute("INSERT INTO transcriptItems VALUES (?, ?, ?, 0)", params![self.id, self.position, item])
                .expect("write");
            self.position += 1;
        }
        let hash = span_hash(self.items.drain(..));
        self.db
            .execute(
                "INSERT INTO transcriptSpans VALUES (?, ?, ?, ?, ?, 0)",
                params![self.id, start, self.position, hash, is_current.then_some(1)],
            )
            .expect("write");
    }
}

/// The hash of a span's items, written down once more so that the program's own can be wrong.
pub fn span_hash(items: impl Iterator<Item = String>) -> String {
    items.fold(hex(b"start of transcript span"), |hash, item| hex((hash + &hex(item.as_bytes())).as_bytes()))
}

/// Changes the text of an item, and the span's hash with it unless that is the point.
pub fn change_item(file: &Path, vat: &str, position: i64, with_hash: bool, change: impl FnOnce(&str) -> String) {
    let db = Connection::open(file).expect("open");
    let item: String = db
        .query_row("SELECT item FROM transcriptItems WHERE vatID = ? AND position = ?", params![vat, position], |row| {
            row.get(0)
        })
        .expect("the item");
    let changed = change(&item);
    assert_ne!(item, changed, "nothing was changed in {vat}:{position}: {item}");
    db.execute("UPDATE transcriptItems SET item = ? WHERE vatID = ? AND position = ?", params![changed, vat, position])
        .expect("write");
    if with_hash {
        rehash(&db, vat, position);
    }
    db.close().expect("close");
}

/// Sets the hash of the span with this position to what its items have now.
pub fn rehash(db: &Connection, vat: &str, position: i64) {
    let (start, end): (i64, i64) = db
        .query_row(
            "SELECT startPos, endPos FROM transcriptSpans WHERE vatID = ?1 AND startPos <= ?2 AND ?2 < endPos",
            params![vat, position],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("its span");
    let mut statement = db
        .prepare(
            "SELECT item FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ? ORDER BY position",
        )
        .expect("sql");
    let items = statement.query_map(params![vat, start, end], |row| row.get(0)).expect("items");
    let hash = span_hash(items.map(|item| item.expect("text")));
    db.execute("UPDATE transcriptSpans SET hash = ? WHERE vatID = ? AND startPos = ?", params![hash, vat, start])
        .expect("write");
}
