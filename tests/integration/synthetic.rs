//! A kernel's database as the fake worker would have written it, in the real schema.

use std::collections::BTreeMap;
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
/// `[0, 6)`; v3 is local and was upgraded: a closed span and an open one. All images are kept.
pub fn database() -> Synthetic {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("swingstore.sqlite");
    let mut node = Node::create(&file, Keep::everything());
    for (vat, name, spans) in [("v1", "one", 3), ("v2", "two", 1)] {
        node.start_vat(vat, name);
        for _ in 0..spans {
            node.work(vat);
            node.save(vat);
        }
    }
    node.start_local_vat("v3", "local");
    node.commit();
    node.stop();
    Synthetic { dir, file }
}

/// What a node keeps of closed spans.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    pub items: bool,
    pub images: bool,
    /// Where `transcript.*.gz` and `snapshot.*.gz` are written, if they are.
    pub archive: Option<PathBuf>,
}

impl Keep {
    pub fn everything() -> Self {
        Self { items: true, images: true, archive: None }
    }

    pub fn items() -> Self {
        Self { items: true, ..Self::default() }
    }
}

/// A node at work: what its vats do is what the fake worker would. It writes as the swing-store does, a commit a block, and
/// it has the database open until it is stopped.
pub struct Node {
    pub db: Connection,
    keep: Keep,
    bundles: Bundles,
    vats: BTreeMap<String, Vat>,
    height: u64,
    /// Whether reads are answered with something else than what was written.
    pub answers_wrongly: bool,
}

/// A vat whose current span is growing.
#[derive(Debug, Clone)]
struct Vat {
    heap: Heap,
    start: i64,
    items: Vec<String>,
    spans: u32,
    incarnation: u32,
    /// What it wrote, as the kernel keeps it under `<vatID>.vs.`.
    vatstore: BTreeMap<String, String>,
}

impl Node {
    /// With an empty database.
    pub fn create(file: &Path, keep: Keep) -> Self {
        let db = Connection::open(file).expect("create");
        db.execute_batch(SCHEMA).expect("schema");
        if let Some(archive) = &keep.archive {
            std::fs::create_dir_all(archive).expect("a directory");
        }
        let bundles = write_bundles(&db);
        for list in ["vat.names", "vat.dynamicIDs", "vats.terminated"] {
            put(&db, list, "[]");
        }
        let node = Self { db, keep, bundles, vats: BTreeMap::new(), height: 0, answers_wrongly: false };
        node.begin();
        node
    }

    /// Starts again with the database that it had when it stopped.
    pub fn restart(mut self, file: &Path) -> Self {
        self.db = Connection::open(file).expect("open");
        self.begin();
        self
    }

    /// Changes one of the kernel's lists of vats.
    fn list(&self, key: &str, change: impl FnOnce(&mut Vec<String>)) {
        let read = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        let text = self.db.query_row("SELECT value FROM kvStore WHERE key = ?", [key], read).expect("a list");
        let mut list = serde_json::from_str(&text).expect("JSON");
        change(&mut list);
        put(&self.db, key, &json!(list).to_string());
    }

    /// A vat in a local worker, with a transcript, that was upgraded once.
    fn start_local_vat(&self, vat: &str, name: &str) {
        put(&self.db, &format!("vat.name.{name}"), vat);
        self.list("vat.names", |names| names.push(name.to_owned()));
        put(
            &self.db,
            &format!("{vat}.options"),
            &json!({"workerOptions": {"type": "local"}, "name": name}).to_string(),
        );
        let initialize =
            r#"{"d":["initialize-worker",{"source":{},"workerOptions":{"type":"local"}}],"sc":[],"r":{"status":"ok"}}"#;
        let start = r##"{"d":["startVat",{"body":"#{}","slots":[]}],"sc":[],"r":{"status":"ok"}}"##;
        let shutdown = r#"{"d":["shutdown-worker"],"sc":[],"r":{"status":"ok"}}"#;
        let spans = [(0, &[initialize, start, shutdown][..], None), (3, &[initialize, start][..], Some(1))];
        for (incarnation, (from, items, is_current)) in (0..).zip(spans) {
            for (position, item) in (from..).zip(items) {
                self.db
                    .execute(
                        "INSERT INTO transcriptItems VALUES (?, ?, ?, ?)",
                        params![vat, position, item, incarnation],
                    )
                    .expect("write");
            }
            let (end, hash) = (from + items.len() as i64, span_hash(items.iter().map(|item| (*item).to_owned())));
            self.db
                .execute(
                    "INSERT INTO transcriptSpans VALUES (?, ?, ?, ?, ?, ?)",
                    params![vat, from, end, hash, is_current, incarnation],
                )
                .expect("write");
        }
    }

    fn begin(&self) {
        // The first read makes -wal and -shm, as a node's start does.
        self.db.execute_batch("BEGIN IMMEDIATE").expect("a block begins");
    }

    /// The height of the last block.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The end of a block.
    pub fn commit(&mut self) {
        self.height += 1;
        for (key, value) in [
            ("crankNumber", (self.height * 7).to_string()),
            ("activityhash", hex(self.height.to_string().as_bytes())),
            ("host.height", self.height.to_string()),
        ] {
            self.db.execute("INSERT OR REPLACE INTO kvStore VALUES (?, ?)", [key, &value]).expect("write");
        }
        self.db.execute_batch("COMMIT").expect("commit");
        self.begin();
    }

    /// Leaves, and sees to it that all is in the main file. If somebody reads just as the last connection goes, its -wal
    /// stays, and the next one folds it in.
    pub fn stop(self) -> Stopped {
        let file = self.db.path().expect("a file").to_owned();
        let stopped = self.leave();
        while Path::new(&format!("{file}-wal")).exists() {
            let next = Connection::open(&file).expect("open");
            let _ = next.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            let _ = next.close();
        }
        stopped
    }

    /// Leaves, as a node that is told to.
    pub fn leave(self) -> Stopped {
        self.db.execute_batch("ROLLBACK").expect("nothing is left of an unfinished block");
        let Self { db, keep, bundles, vats, height, answers_wrongly } = self;
        db.close().expect("close");
        let nowhere = Connection::open_in_memory().expect("memory");
        Stopped(Self { db: nowhere, keep, bundles, vats, height, answers_wrongly })
    }

    pub fn start_vat(&mut self, vat: &str, name: &str) {
        put(&self.db, &format!("vat.name.{name}"), vat);
        self.list("vat.names", |names| names.push(name.to_owned()));
        let options = json!({"workerOptions": {"type": "xsnap", "bundleIDs": self.bundles.worker}, "name": name});
        put(&self.db, &format!("{vat}.options"), &options.to_string());
        let (heap, item) = initialize(vat, &self.bundles);
        self.vats.insert(
            vat.to_owned(),
            Vat { heap, start: 0, items: Vec::new(), spans: 0, incarnation: 0, vatstore: BTreeMap::new() },
        );
        self.record(vat, item);
        self.deliver(vat, &json!(["startVat", {"body": "#{}", "slots": []}]));
    }

    /// Two messages.
    pub fn work(&mut self, vat: &str) {
        for message in 0..2 {
            self.message(vat, message);
        }
    }

    pub fn message(&mut self, vat: &str, message: u32) {
        let span = self.vats[vat].spans;
        let syscalls = json!([
            ["vatstoreSet", format!("key-{span}"), format!("{message}")],
            ["vatstoreGet", format!("key-{span}")],
            ["send", "o-50", {"methargs": {"body": "#[\"é\\ud83d\"]", "slots": []}}],
        ]);
        self.deliver(vat, &json!(["message", "o+0", {"methargs": {"body": syscalls.to_string(), "slots": []}}]));
    }

    fn deliver(&mut self, vat: &str, delivery: &serde_json::Value) {
        let of = self.vats.get_mut(vat).expect("a vat");
        let delivery = delivery.to_string();
        of.heap.take(format!(r#"?["deliver",{delivery}]"#).as_bytes());
        let syscalls = syscalls_of(&serde_json::from_str(&delivery).expect("json"));
        let mut recorded = Vec::new();
        // A vat reads what it wrote.
        for syscall in &syscalls {
            let asked: Vec<serde_json::Value> = serde_json::from_str(syscall).expect("json");
            let argument = |at: usize| asked[at].as_str().expect("text");
            let response = match argument(0) {
                "vatstoreSet" => {
                    put(&self.db, &format!("{vat}.vs.{}", argument(1)), argument(2));
                    of.vatstore.insert(argument(1).to_owned(), argument(2).to_owned());
                    json!(["ok", null])
                }
                "vatstoreGet" if self.answers_wrongly => json!(["ok", "made up"]),
                "vatstoreGet" => json!(["ok", of.vatstore.get(argument(1))]),
                _ => json!(["ok", null]),
            };
            let response = response.to_string();
            of.heap.take(format!("/{response}").as_bytes());
            recorded.push(format!(r#"{{"s":{syscall},"r":{response}}}"#));
        }
        let item = format!(
            r#"{{"d":{delivery},"sc":[{}],"r":{{"status":"ok","metering":{{"computrons":{}}}}}}}"#,
            recorded.join(","),
            computrons(syscalls.len())
        );
        self.record(vat, item);
    }

    /// Adds an item to the vat's current span.
    fn record(&mut self, vat: &str, item: String) {
        let of = self.vats.get_mut(vat).expect("a vat");
        let position = of.start + of.items.len() as i64;
        self.db
            .execute("INSERT INTO transcriptItems VALUES (?, ?, ?, ?)", params![vat, position, item, of.incarnation])
            .expect("write");
        of.items.push(item);
        let hash = span_hash(of.items.iter().cloned());
        self.db
            .execute(
                "INSERT OR REPLACE INTO transcriptSpans VALUES (?, ?, ?, ?, 1, ?)",
                params![vat, of.start, position + 1, hash, of.incarnation],
            )
            .expect("write");
    }

    /// Takes a snapshot: closes the span, deletes what the node does not keep, and begins the next one.
    pub fn save(&mut self, vat: &str) {
        self.deliver(vat, &json!(["bringOutYourDead"]));
        let image = self.vats[vat].heap.image();
        let hash = hex(image.as_bytes());
        self.record(vat, format!(r#"{{"d":["save-snapshot"],"sc":[],"r":{{"status":"ok","snapshotID":"{hash}"}}}}"#));
        let position = self.close_span(vat) - 1;
        if !self.keep.images {
            let of_vat = "UPDATE snapshots SET compressedSnapshot = NULL, inUse = NULL WHERE vatID = ?";
            self.db.execute(of_vat, [vat]).expect("write");
        }
        self.db.execute("UPDATE snapshots SET inUse = NULL WHERE vatID = ?", [vat]).expect("write");
        let compressed = gzip(image.as_bytes());
        self.write_archive(&format!("snapshot.{vat}.{position}.gz"), &compressed);
        self.db
            .execute(
                "INSERT INTO snapshots VALUES (?, ?, 1, ?, ?, ?, ?)",
                params![vat, position, hash, image.len() as i64, compressed.len() as i64, compressed],
            )
            .expect("write");
        self.record(
            vat,
            format!(r#"{{"d":["load-snapshot",{{"snapshotID":"{hash}"}}],"sc":[],"r":{{"status":"ok"}}}}"#),
        );
    }

    /// Ends the incarnation, with nothing delivered before, and begins the next one.
    pub fn upgrade(&mut self, vat: &str) {
        self.record(vat, r#"{"d":["shutdown-worker"],"sc":[],"r":{"status":"ok"}}"#.to_owned());
        self.close_span(vat);
        self.db.execute("UPDATE snapshots SET inUse = NULL WHERE vatID = ?", [vat]).expect("write");
        let (heap, item) = initialize(vat, &self.bundles);
        let of = self.vats.get_mut(vat).expect("a vat");
        (of.heap, of.incarnation) = (heap, of.incarnation + 1);
        self.record(vat, item);
        self.deliver(vat, &json!(["startVat", {"body": "#{}", "slots": []}]));
    }

    /// One past its end.
    fn close_span(&mut self, vat: &str) -> i64 {
        let of = self.vats.get_mut(vat).expect("a vat");
        let end = of.start + of.items.len() as i64;
        self.db.execute("UPDATE transcriptSpans SET isCurrent = NULL WHERE vatID = ?", [vat]).expect("write");
        if !self.keep.items {
            self.db.execute("DELETE FROM transcriptItems WHERE vatID = ?", [vat]).expect("write");
        }
        let lines: String = of.items.drain(..).map(|item| item + "\n").collect();
        let name = format!("transcript.{vat}.{}.{end}.gz", of.start);
        (of.start, of.spans) = (end, of.spans + 1);
        self.write_archive(&name, &gzip(lines.as_bytes()));
        end
    }

    fn write_archive(&self, name: &str, bytes: &[u8]) {
        if let Some(archive) = &self.keep.archive {
            std::fs::write(archive.join(name), bytes).expect("write");
        }
    }

    /// Where the vats are now, for a return to it.
    pub fn snapshot_of_vats(&self) -> Vats {
        Vats(self.vats.clone())
    }

    /// Goes on from where the vats were, in a database that was restored to what it was then.
    pub fn back_to(&mut self, vats: Vats, height: u64) {
        (self.vats, self.height) = (vats.0, height);
    }

    /// Ends a vat. Its rows stay until they are cleaned up.
    pub fn terminate(&mut self, vat: &str) {
        self.close_span(vat);
        self.db.execute("UPDATE snapshots SET inUse = NULL WHERE vatID = ?", [vat]).expect("write");
        // It leaves the kernel's lists at once.
        let name = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        let key: String = self
            .db
            .query_row("SELECT key FROM kvStore WHERE key GLOB 'vat.name.*' AND value = ?", [vat], name)
            .expect("a static vat");
        self.db.execute("DELETE FROM kvStore WHERE key = ?", [&key]).expect("write");
        self.list("vat.names", |names| names.retain(|name| key != format!("vat.name.{name}")));
        self.list("vats.terminated", |vats| vats.push(vat.to_owned()));
        self.vats.remove(vat);
    }

    /// Puts another image in the place of the one that the vat's open span starts from, with all hashes that speak of it, and
    /// goes on from there: only what somebody remembers of the span before can tell.
    pub fn swap_image(&mut self, vat: &str) {
        let of = self.vats.get_mut(vat).expect("a vat");
        assert_eq!(of.items.len(), 1, "the span has gone on already");
        let before = hex(of.heap.image().as_bytes());
        of.heap.take(b"another past");
        let (image, position) = (of.heap.image(), of.start - 1);
        let hash = hex(image.as_bytes());
        of.items[0] = of.items[0].replace(&before, &hash);
        let (item, start, span) = (of.items[0].clone(), of.start, span_hash(of.items.iter().cloned()));
        let compressed = gzip(image.as_bytes());
        for (sql, values) in [
            ("UPDATE transcriptItems SET item = ?1 WHERE vatID = ?2 AND position = ?3", params![item, vat, start]),
            ("UPDATE transcriptSpans SET hash = ?1 WHERE vatID = ?2 AND startPos = ?3", params![span, vat, start]),
            (
                "UPDATE snapshots SET hash = ?1, compressedSnapshot = ?4 WHERE vatID = ?2 AND snapPos = ?3",
                params![hash, vat, position, compressed],
            ),
        ] {
            assert_eq!(self.db.execute(sql, values).expect("write"), 1, "{sql}");
        }
    }

    /// Deletes the rows of a vat that was terminated.
    pub fn clean_up(&self, vat: &str) {
        for table in ["snapshots", "transcriptItems", "transcriptSpans"] {
            self.db.execute(&format!("DELETE FROM {table} WHERE vatID = ?"), [vat]).expect("write");
        }
        let of_vat = "DELETE FROM kvStore WHERE key >= ? AND key < ?";
        self.db.execute(of_vat, [format!("{vat}."), format!("{vat}/")]).expect("write");
        self.list("vats.terminated", |vats| vats.retain(|other| other != vat));
    }
}

/// Where the vats of a node were.
pub struct Vats(BTreeMap<String, Vat>);

/// A node that does not run.
pub struct Stopped(Node);

impl Stopped {
    pub fn restart(self, file: &Path) -> Node {
        self.0.restart(file)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).expect("in memory");
    gzip.finish().expect("in memory")
}

#[derive(Debug)]
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
    db.execute("INSERT OR REPLACE INTO kvStore VALUES (?, ?)", [key, value]).expect("write");
}

/// The heap of a vat whose worker was just initialized, and the item that says so.
fn initialize(vat: &str, bundles: &Bundles) -> (Heap, String) {
    let mut heap = Heap::blank();
    let source = &bundles.source;
    let worker_options = json!({"type": "xsnap", "bundleIDs": bundles.worker});
    let item = format!(
        r#"{{"d":["initialize-worker",{{"source":{{"bundleID":"{source}"}},"workerOptions":{worker_options}}}],"sc":[],"r":{{"status":"ok"}}}}"#
    );
    for program in &bundles.programs {
        heap.take(format!("e{program}").as_bytes());
    }
    let bundle = format!(
        r#"{{"moduleFormat":"endoZipBase64","endoZipBase64Sha512":"{}","endoZipBase64":"{}"}}"#,
        &source[3..],
        bundles.zip_base64
    );
    let options = r#"{"enableDisavow":false,"relaxDurabilityRules":false}"#;
    heap.take(format!(r#"?["setBundle","{vat}",{bundle},{options}]"#).as_bytes());
    (heap, item)
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
