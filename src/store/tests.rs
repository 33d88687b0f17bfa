//! The store as its callers use it: each test has a store of its own.

use super::alarms::Unacknowledged;
use super::*;
use crate::kernel_db::{Identity, Pulse, SpanRow, VatOptions};
use crate::span::BaseKind;
use crate::tally::{Counter, Tally};
use crate::verdict::{Failure, FindingKind, VerdictKind};
use std::collections::HashSet;

#[test]
fn a_store_is_one_daemons() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Store::open(dir.path()).expect("a new store");
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked(_))));
    Store::open_beside_the_daemon(dir.path()).expect("for a look");
    drop(first);
    Store::open(dir.path()).expect("the same store");
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(Store::open_beside_the_daemon(dir.path()), Err(StoreError::Missing(_))));
    fs::write(dir.path().join(FILE_NAME), "plain text, and more of it than a header has. ".repeat(10)).expect("write");
    let error = Store::open(dir.path()).expect_err("no database").to_string();
    assert!(error.contains("move it away"), "{error}");
}

#[test]
fn a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("a new store");
    store.write("pretend", |db| db.pragma_update(None, "user_version", 99)).expect("written");
    drop(store);
    assert!(matches!(Store::open(dir.path()), Err(StoreError::TooNew { found: 99, .. })));
    assert!(matches!(Store::open_beside_the_daemon(dir.path()), Err(StoreError::TooNew { found: 99, .. })));
}

/// What the first version wrote is there after a migration: what is due, captures, acknowledgements. Damage that was found
/// then and told to nobody alarms now.
#[test]
fn a_store_of_the_first_version_is_migrated() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(FILE_NAME);
    #[expect(clippy::disallowed_methods, reason = "the store is one of the test's own")]
    let db = Connection::open(&path).expect("create");
    db.execute_batch(MIGRATIONS[0]).expect("the first schema");
    db.execute_batch(
        "PRAGMA user_version = 1;
         INSERT INTO vats VALUES ('v1', 30, 0, 'one', 'xsnap', 0, 0, 0, 0);
         INSERT INTO spans (vat, start, end, hash, incarnation, source, noticed_at) VALUES ('v1', 0, 10, 'aa', 0, 'live', 1);
         INSERT INTO spans (vat, start, end, hash, incarnation, source, noticed_at, verdict, finished_at, acknowledged_at, note)
           VALUES ('v1', 10, 20, 'bb', 0, 'live', 1, 'diverged', 2, 3, 'known');
         INSERT INTO spans (vat, start, end, hash, incarnation, source, noticed_at, verdict, reason, finished_at)
           VALUES ('v1', 20, 30, 'cc', 0, 'live', 1, 'unverifiable', 'span_hash_mismatch', 2),
                  ('v1', 30, 40, 'dd', 0, 'live', 1, 'unverifiable', 'items_pruned', 2);
         INSERT INTO captures VALUES ('v1', 0, 1, 'ee', 3, 1, 0);
         INSERT INTO captured_items VALUES ('v1', 0, 0, x'616263');",
    )
    .expect("rows of then");
    db.close().expect("close");
    // Also by a command that finds no daemon running.
    let store = Store::open_beside_the_daemon(dir.path()).expect("migrated");
    let left = store.unacknowledged().expect("read");
    assert_eq!(left, Unacknowledged { damaged: 1, ..Unacknowledged::default() });
    assert_eq!(
        (store.backlog().expect("read").live, store.captured_to(&VatId::new("v1"), 0).expect("read")),
        (1, Some(1))
    );
    let mut rows = Vec::new();
    store.verdicts(&VerdictFilter { is_alarm: true, ..VerdictFilter::default() }, |row| rows.push(row)).expect("read");
    let told: Vec<_> = rows.iter().map(|row| (row.start, row.damage, row.acknowledged, row.note.as_deref())).collect();
    assert_eq!(told, [(20, true, Some(false), None), (10, false, Some(true), Some("known"))]);
    assert!(store.seen_last().expect("read").is_empty(), "rows of then may be of a history that was rolled back");
    drop(store);
    Store::open(dir.path()).expect("once is enough");
}

#[test]
fn a_store_that_an_older_daemon_uses_is_left_to_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("a new store");
    store.write("pretend", |db| db.pragma_update(None, "user_version", 1)).expect("written");
    let refused = Store::open_beside_the_daemon(dir.path());
    assert!(matches!(refused, Err(StoreError::OlderDaemon { found: 1, .. })), "{refused:?}");
}

#[test]
fn an_alarm_is_raised_once_and_there_are_not_too_many() {
    let (_dir, store) = store();
    let alarm = |number: u64| Alarm {
        kind: AlarmKind::Changed,
        id: SpanId { vat: VatId::new("v1"), start: number, end: number + 1 },
        incarnation: 0,
        reason: "row_changed",
        explanation: "it changed".to_owned(),
    };
    assert_eq!(store.raise(&[alarm(1), alarm(2)]).expect("written").len(), 2);
    assert_eq!(store.raise(&[alarm(1), alarm(3)]).expect("written").len(), 1, "the first is known");
    let id = &store.raise(&[alarm(4)]).expect("written")[0].0;
    assert_eq!(store.acknowledge(id, None).expect("written"), Acknowledged::Now);
    assert_eq!(store.acknowledge(id, None).expect("written"), Acknowledged::Before);
    assert_eq!(store.acknowledge("v1.4-changed-9", None).expect("read"), Acknowledged::Unknown);
    assert!(store.raise(&[alarm(4)]).expect("written").is_empty(), "neither is one that was acknowledged");
    let many: Vec<Alarm> = (100..20_000).map(alarm).collect();
    store.raise(&many).expect("written");
    assert_eq!(store.unacknowledged().expect("read").changed, 10_000);
    assert_eq!(store.acknowledge_all(AlarmKind::Changed, Some("v1"), None).expect("written"), 10_000);
    assert_eq!(store.unacknowledged().expect("read").total(), 0);
}

/// What is remembered of rows is a fraction of what is remembered of verdicts.
#[test]
fn a_row_that_is_remembered_takes_less_than_200_bytes() {
    const ROWS: u64 = 20_000;
    let (_dir, store) = store();
    let size = |store: &Store| {
        let count = |pragma: &str| store.with("measure", |db| db.query_row(pragma, [], |row| unsigned(row, 0)));
        count("PRAGMA page_count").expect("pages") * count("PRAGMA page_size").expect("a size")
    };
    let before = size(&store);
    let learned = (0..ROWS).map(|n| {
        let id = SpanId { vat: VatId::new("v1234"), start: 21_000_000 + n * 200, end: 21_000_200 + n * 200 };
        let image = Some(SeenImage { hash: crate::transcript::sha256(&n.to_le_bytes()), in_row: true });
        SeenSpan { row: row(&id), image }
    });
    let done = Rechecked { learned: learned.collect(), ..Rechecked::default() };
    store.recheck(&done, 1.0).expect("written");
    let bytes = (size(&store) - before) / ROWS;
    println!("{bytes} bytes a row");
    assert!((60..200).contains(&bytes), "{bytes} bytes");
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("a new store");
    (dir, store)
}

/// A vat with spans of ten positions, all noted.
fn with_spans(store: &Store, vat: &str, count: u64) -> Vec<SpanId> {
    let ids: Vec<SpanId> =
        (0..count).map(|n| SpanId { vat: VatId::new(vat), start: n * 10, end: n * 10 + 10 }).collect();
    let closed = ids.iter().map(|id| NotedSpan { row: row(id), source: SpanSource::Live, image: None }).collect();
    let vat = KnownVat {
        vat: VatId::new(vat),
        cursor: count * 10,
        is_terminated: false,
        options: VatOptions::default(),
        history: (0, 0),
    };
    let node = NodeSeen {
        path: String::new(),
        identity: Identity { device: 1, inode: 2 },
        pulse: Pulse { crank: Some(3), activity_hash: Some("a".to_owned()), height: None },
    };
    let noted = Noted {
        node: node.clone(),
        vats: vec![NotedVat { vat, closed, forget_from: None }],
        missed: 0,
        alarms: Vec::new(),
        is_replaced: false,
    };
    assert_eq!(store.note(&noted).expect("noted").spans, count);
    assert_eq!(store.note(&noted).expect("noted again").spans, 0, "what is there already stays as it is");
    assert_eq!(store.node().expect("read"), Some(node));
    ids
}

fn row(id: &SpanId) -> SpanRow {
    let hash = Some(crate::transcript::sha256(id.to_string().as_bytes()));
    SpanRow { id: id.clone(), hash, is_current: false, incarnation: 0 }
}

fn finished(verdict: VerdictKind) -> FinishedSpan {
    let mut tally = Tally::default();
    tally.add(Counter::Spans(verdict), 1);
    FinishedSpan {
        verdict,
        reason: None,
        explanation: None,
        kinds: Vec::new(),
        seen_to: None,
        is_damage: false,
        base: BaseKind::Blank,
        detail: String::new(),
        replay_seconds: 0.0,
        worker_sha256: String::new(),
        tally,
    }
}

/// A later version may have written labels that this one does not know; reading them back must neither fail nor lose them.
#[test]
fn labels_of_a_later_version_are_listed_as_they_are() {
    let (_dir, store) = store();
    let ids = with_spans(&store, "v1", 1);
    let job = store.due(&row(&ids[0])).expect("read").expect("due");
    store.finish(job.id, &ids[0], &finished(VerdictKind::Verified)).expect("written");
    let later = "UPDATE spans SET verdict = 'doubted', kinds = 'mood,status', base = 'dream';
                 INSERT INTO totals VALUES ('spans', 'doubted', 1), ('rings', '', 2)";
    store.write("pretend", |db| db.execute_batch(later)).expect("written");
    let mut rows = Vec::new();
    store.verdicts(&VerdictFilter::default(), |row| rows.push(row)).expect("read");
    let told = serde_json::to_value(&rows[0]).expect("JSON");
    assert_eq!((&told["verdict"], &told["base"]), (&"doubted".into(), &"dream".into()));
    assert_eq!(told["kinds"], serde_json::json!(["mood", "status"]));
    let tally = store.tally().expect("read");
    assert_eq!(tally.iter().collect::<Vec<_>>(), [(Counter::Spans(VerdictKind::Verified), 1)]);
    assert_eq!(store.totals().expect("read").len(), 3);
    // A span whose source is unknown can't be replayed: that is an error in words.
    store
        .write("pretend", |db| {
            db.execute_batch("PRAGMA ignore_check_constraints = 1; UPDATE spans SET verdict = NULL, source = 'tape'")
        })
        .expect("written");
    let error = store.due(&row(&ids[0])).expect_err("unknown").to_string();
    assert!(error.contains("\"tape\""), "{error}");
}

#[test]
fn a_verdict_is_written_once() {
    let (_dir, store) = store();
    let ids = with_spans(&store, "v1", 3);
    let first = store.next_job(&HashSet::new(), &HashSet::new()).expect("read").expect("a job");
    assert_eq!(first.row.id, ids[2], "the newest first");
    let mut outcome = finished(VerdictKind::Verified);
    outcome.tally.add(Counter::Deliveries, 4);
    assert!(store.finish(first.id, &ids[2], &outcome).expect("written"));
    let other = FinishedSpan { kinds: vec![FindingKind::Status], ..finished(VerdictKind::Diverged) };
    assert!(!store.finish(first.id, &ids[2], &other).expect("read"), "the first one stands");
    let mut totals = store.totals().expect("read");
    totals.sort();
    let told: Vec<(&str, &str, u64)> = totals.iter().map(|(name, label, value)| (&**name, &**label, *value)).collect();
    assert_eq!(told, [("deliveries", "", 4), ("spans", "verified", 1)]);
    assert_eq!((store.unacknowledged().expect("read").total(), store.backlog().expect("read").live), (0, 2));
    let taken = HashSet::from([store.due(&row(&ids[1])).expect("read").expect("due").id]);
    let next = store.next_job(&taken, &HashSet::new()).expect("read").expect("a job");
    assert_eq!(next.row.id, ids[0]);
    store.postpone(next.id, 60.0, &Failure::WorkerStart(String::new()), true).expect("written");
    assert!(store.next_job(&taken, &HashSet::new()).expect("read").is_none(), "not before a minute");
}

#[test]
fn a_divergence_outlives_what_is_forgotten_until_it_is_acknowledged() {
    let (_dir, store) = store();
    let ids = with_spans(&store, "v1", 2);
    for (id, verdict) in ids.iter().zip([VerdictKind::Verified, VerdictKind::Diverged]) {
        let job = store.due(&row(id)).expect("read").expect("due");
        assert!(store.finish(job.id, id, &finished(verdict)).expect("written"));
    }
    assert_eq!(store.forget_older_than(-1.0).expect("written"), 1);
    let mut rows = Vec::new();
    store.verdicts(&VerdictFilter::default(), |row| rows.push(row)).expect("read");
    assert_eq!((rows.len(), rows[0].verdict.label()), (1, "diverged"));
    assert_eq!(store.acknowledge(&rows[0].id, None).expect("written"), Acknowledged::Now);
    assert_eq!(store.forget_older_than(-1.0).expect("written"), 1);
    assert_eq!(store.totals().expect("read").len(), 2, "the counts stay");
}

#[test]
fn room_is_made_only_of_what_is_done_with() {
    let (_dir, store) = store();
    let ids = with_spans(&store, "v1", 2);
    let images = [b"one", b"two"].map(|text| crate::transcript::sha256(text));
    let gzip = vec![0; 1_000];
    let user = |id: &SpanId| (id.vat.clone(), id.start);
    // Both spans start from the first image.
    for id in &ids {
        let (vat, start) = user(id);
        assert_eq!(store.keep_image(images[0], &gzip, (&vat, start), 1_500).expect("room"), 0);
    }
    assert_eq!(store.capture_bytes().expect("read"), 1_000, "one image once");
    let vat = VatId::new("v2");
    let finish = |id: &SpanId, verdict| {
        let job = store.due(&row(id)).expect("read").expect("due");
        assert!(store.finish(job.id, id, &finished(verdict)).expect("written"));
    };
    finish(&ids[0], VerdictKind::Verified);
    let full = store.keep_image(images[1], &gzip, (&vat, 5), 1_500);
    assert!(matches!(full, Err(StoreError::CaptureFull { needed: 1_000 })), "the second span still needs it");
    assert!(store.has_image(images[0]).expect("read"));
    // That of a divergence is kept as long as there is room, that of any other verdict is not.
    finish(&ids[1], VerdictKind::Diverged);
    assert_eq!(store.capture_bytes().expect("read"), 1_000);
    assert_eq!(store.keep_image(images[1], &gzip, (&vat, 5), 1_500).expect("room"), 1);
    assert!(!store.has_image(images[0]).expect("read") && store.has_image(images[1]).expect("read"));
}

#[test]
fn items_are_captured_piece_by_piece() {
    let (_dir, store) = store();
    let vat = VatId::new("v1");
    let mut hasher = crate::transcript::SpanHasher::default();
    let mut next = 10;
    for texts in [vec![b"one".to_vec()], vec![b"two".to_vec(), b"three".to_vec()]] {
        texts.iter().for_each(|text| hasher.add(text));
        next += texts.len() as u64;
        let capture = CaptureRow { vat: vat.clone(), start: 10, next, hash: hasher.finish() };
        store.capture_items(&capture, &texts, 1_000).expect("room");
    }
    let items = store.captured_items(&vat, 10).expect("read").items;
    assert_eq!(items.iter().collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
    assert_eq!((items.hash(), store.captured_to(&vat, 10).expect("read")), (hasher.finish(), Some(13)));
    let known = store.captures().expect("read");
    assert_eq!((known.len(), known[0].next, known[0].hash), (1, 13, hasher.finish()));
    // From the start again: what was there goes.
    let capture = CaptureRow { vat: vat.clone(), start: 10, next: 11, hash: hasher.finish() };
    store.capture_items(&capture, &[b"other".to_vec()], 1_000).expect("room");
    assert_eq!(store.captured_items(&vat, 10).expect("read").items.len(), 1);
    assert_eq!(store.capture_bytes().expect("read"), 5);
}
