//! The copy that a record takes, and its answer without one.

use std::sync::Arc;

use super::*;
use crate::transcript::{Items, sha256};

/// Captures that are what a test wants.
#[derive(Debug, Default)]
struct Copies {
    items: Items,
    image: Option<(Hash256, Vec<u8>)>,
    is_unreadable: bool,
}

impl Copies {
    fn read<T>(&self, value: T) -> Result<T, CaptureError> {
        if self.is_unreadable { Err(CaptureError("the disk is away".to_owned())) } else { Ok(value) }
    }
}

impl Captured for Copies {
    fn has_image(&self, hash: Hash256) -> Result<bool, CaptureError> {
        self.read(self.image.as_ref().is_some_and(|(known, _)| *known == hash))
    }

    fn image_of(&self, _: &SpanId) -> Result<Option<Hash256>, CaptureError> {
        self.read(self.image.as_ref().map(|(hash, _)| *hash))
    }

    fn captured_to(&self, span: &SpanId) -> Result<Option<Position>, CaptureError> {
        self.read(Some(span.start + self.items.len() as u64))
    }

    fn items(&self, _: &SpanId) -> Result<Items, CaptureError> {
        self.read(self.items.clone())
    }

    fn image(&self, hash: Hash256) -> Result<Option<Vec<u8>>, CaptureError> {
        self.read(self.image.as_ref().filter(|(known, _)| *known == hash).map(|(_, gzip)| gzip.clone()))
    }
}

fn items(texts: &[&str]) -> Items {
    let mut items = Items::default();
    texts.iter().for_each(|text| items.push(text.as_bytes()));
    items
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, content).expect("in memory");
    encoder.finish().expect("in memory")
}

const TEXTS: [&str; 3] = ["one", "two", "three"];

/// A span of v7 with three items, and an image before it, in each of the three sources as a case wants it.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let db = rusqlite::Connection::open_in_memory().expect("in memory");
        drop(db);
        let case = Self { dir };
        case.sql(
            "CREATE TABLE kvStore (key TEXT PRIMARY KEY, value TEXT);
             CREATE TABLE bundles (bundleID TEXT PRIMARY KEY, bundle BLOB);
             CREATE TABLE transcriptItems (vatID TEXT, position INTEGER, item TEXT, incarnation INTEGER, PRIMARY KEY (vatID, position));
             CREATE TABLE transcriptSpans (vatID TEXT, startPos INTEGER, endPos INTEGER, hash TEXT, isCurrent INTEGER, incarnation INTEGER, PRIMARY KEY (vatID, startPos));
             CREATE TABLE snapshots (vatID TEXT, snapPos INTEGER, inUse INTEGER, hash TEXT, uncompressedSize INTEGER, compressedSize INTEGER, compressedSnapshot BLOB, PRIMARY KEY (vatID, snapPos));",
        );
        std::fs::create_dir(case.dir.path().join("archive")).expect("a directory");
        case
    }

    #[expect(clippy::disallowed_methods, reason = "no node has this database")]
    fn sql(&self, text: &str) {
        let db = rusqlite::Connection::open(self.dir.path().join("swingstore.sqlite")).expect("a database");
        db.execute_batch(text).expect("SQL");
    }

    fn in_database(&self, texts: &[&str]) {
        for (position, text) in (5..).zip(texts) {
            self.sql(&format!("INSERT INTO transcriptItems VALUES ('v7', {position}, '{text}', 0)"));
        }
    }

    fn in_archive(&self, texts: &[&str]) {
        let lines: String = texts.iter().map(|text| format!("{text}\n")).collect();
        std::fs::write(self.dir.path().join("archive/transcript.v7.5.8.gz"), gzip(lines.as_bytes())).expect("write");
    }

    fn image_in_database(&self, content: &[u8], hash: Hash256) {
        let hex: String = gzip(content).iter().map(|byte| format!("{byte:02x}")).collect();
        self.sql(&format!("INSERT INTO snapshots VALUES ('v7', 4, 1, '{hash}', {}, 0, x'{hex}')", content.len()));
    }

    fn image_in_archive(&self, content: &[u8]) {
        std::fs::write(self.dir.path().join("archive/snapshot.v7.4.gz"), gzip(content)).expect("write");
    }

    fn record(&self, copies: Copies) -> Record {
        let archive = self.dir.path().join("archive");
        let archives = Archives::open(Some(&archive), Some(&archive)).expect("listed");
        let db = KernelDb::locate(self.dir.path()).expect("a database");
        Record::new(db, archives).with_captures(Captures::of(Arc::new(copies)))
    }
}

fn row() -> SpanRow {
    let id = SpanId { vat: VatId::new("v7"), start: 5, end: 8 };
    SpanRow { id, hash: Some(items(&TEXTS).hash()), is_current: false, incarnation: 0 }
}

/// The answer of a record for the span's items: their source and number, or the label of the reason.
fn told(record: &Record) -> String {
    match record.items(&row()) {
        Ok((text, origin)) => {
            let lacks = text.lacks().map_or(String::new(), |reason| format!(", lacks the rest: {}", reason.label()));
            format!("{} items from {}{lacks}", text.items().len(), origin.label())
        }
        Err(Verdict::Unverifiable(reason)) => reason.label().to_owned(),
        Err(Verdict::Failed(failure)) => format!("failed: {}", failure.label()),
        Err(other) => other.label().to_owned(),
    }
}

#[test]
fn items_come_from_the_first_source_whose_copy_is_proved() {
    let (good, bad, some): (&[&str], &[&str], &[&str]) = (&TEXTS, &["one", "two", "four"], &["one", "two"]);
    let none: &[&str] = &[];
    for (database, captured, archived, expected) in [
        (good, good, good, "3 items from database"),
        (none, good, good, "3 items from captures"),
        (none, none, good, "3 items from archive"),
        (none, some, good, "3 items from archive"),
        (none, some, none, "2 items from captures, lacks the rest: items_pruned"),
        (none, none, none, "items_pruned"),
        (bad, good, none, "3 items from captures"),
        (bad, bad, good, "3 items from archive"),
        (bad, none, none, "span_hash_mismatch"),
        (some, none, good, "3 items from archive"),
        (some, none, none, "items_missing"),
        (some, some, none, "2 items from captures, lacks the rest: items_missing"),
        (none, none, bad, "transcript_archive_damaged"),
        (bad, none, bad, "transcript_archive_damaged"),
        (none, some, bad, "2 items from captures, lacks the rest: transcript_archive_damaged"),
    ] {
        let case = Case::new();
        case.in_database(database);
        if !archived.is_empty() {
            case.in_archive(archived);
        }
        let record = case.record(Copies { items: items(captured), ..Copies::default() });
        assert_eq!(told(&record), expected, "database {database:?}, captures {captured:?}, archive {archived:?}");
    }
}

#[test]
fn a_source_that_cannot_be_read_is_no_source_without_the_span() {
    let unreadable = || Copies { is_unreadable: true, ..Copies::default() };
    let case = Case::new();
    assert_eq!(told(&case.record(unreadable())), "failed: system");
    case.in_archive(&TEXTS);
    assert_eq!(told(&case.record(unreadable())), "3 items from archive");
}

#[test]
fn images_come_from_the_first_source_whose_copy_is_proved() {
    let (good, bad) = (&b"the image"[..], &b"another"[..]);
    let recorded = sha256(good);
    for (database, captured, archived, expected) in [
        (Some(good), Some(good), Some(good), "database"),
        (Some(bad), Some(good), Some(good), "captures"),
        (Some(bad), Some(bad), Some(good), "archive"),
        (None, None, Some(good), "archive"),
        (Some(bad), None, None, "base_damaged"),
        (None, None, Some(bad), "base_damaged"),
        (None, None, None, "failed: system"),
    ] {
        let case = Case::new();
        if let Some(content) = database {
            case.image_in_database(content, recorded);
        }
        if let Some(content) = archived {
            case.image_in_archive(content);
        }
        let image = captured.map(|content| (recorded, gzip(content)));
        let record = case.record(Copies { image, ..Copies::default() });
        let told = match record.image(&VatId::new("v7"), 4, recorded, None) {
            Ok((image, origin)) => {
                assert_eq!(image.hash(), recorded);
                origin.label().to_owned()
            }
            Err(Verdict::Unverifiable(reason)) => reason.label().to_owned(),
            Err(Verdict::Failed(failure)) => format!("failed: {}", failure.label()),
            Err(other) => other.label().to_owned(),
        };
        assert_eq!(told, expected);
    }
}

#[test]
fn a_row_with_another_hash_is_passed_over() {
    let case = Case::new();
    case.image_in_database(b"the image", sha256(b"an edited hash"));
    case.image_in_archive(b"the image");
    let record = case.record(Copies::default());
    let (_, origin) = record.image(&VatId::new("v7"), 4, sha256(b"the image"), None).expect("the archive's copy");
    assert_eq!(origin, Origin::Archive);
}
