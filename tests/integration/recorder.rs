//! The node's flight recorder gives the items that a pruning node deleted, and no damage of it gives a wrong verdict.
//!
//! The database is one of the lab's, whose kernel wrote its recorder with the real `@agoric/telemetry`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Lab, real_worker, recorder};
use crate::run::{Run, spanwatch_by, text};

fn verify(lab: &Lab, more: &[&str]) -> Run {
    spanwatch_by(&real_worker(), &[&["verify", text(&lab.file), "--format", "json"], more].concat())
}

fn verdicts(run: &Run) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    run.lines("span").iter().map(|span| (word(&span["verdict"]), word(&span["items_from"]))).collect()
}

/// The bytes of the recorder that hold records: the lab's ring has not come around.
fn bytes(lab: &Lab) -> Vec<u8> {
    let mut bytes = fs::read(lab.dir.join("agoric/flight-recorder.bin")).expect("the recorder");
    let end = u64::from_be_bytes(bytes[24..32].try_into().expect("8 bytes"));
    bytes.truncate(32 + usize::try_from(end).expect("small"));
    bytes
}

/// The entries of a ring that has not come around.
fn entries(mut ring: &[u8]) -> Vec<&[u8]> {
    ring = &ring[32..];
    let mut entries = Vec::new();
    while let Some((length, rest)) = ring.split_first_chunk::<8>() {
        let (record, rest) = rest.split_at(usize::try_from(u64::from_be_bytes(*length)).expect("small"));
        entries.push(&record[1..]);
        ring = rest;
    }
    entries
}

fn file(dir: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).expect("write");
    path
}

#[test]
fn a_pruned_database_verifies_from_its_recorder() {
    let lab = recorder();
    let closed = lab.count("SELECT count(*) FROM transcriptSpans WHERE isCurrent IS NULL");
    let left = "SELECT count(*) FROM transcriptItems JOIN transcriptSpans USING (vatID) \
                WHERE isCurrent IS NULL AND position >= startPos AND position < endPos";
    assert_eq!(lab.count(left), 0, "the node has pruned");
    let run = verify(&lab, &[]);
    assert_eq!(run.code, 0, "{}", run.err);
    let verdicts = verdicts(&run);
    assert_eq!(verdicts.len() as u64, closed);
    assert!(verdicts.iter().all(|(verdict, from)| verdict == "verified" && from == "recorder"), "{verdicts:?}");
    // Spans of each incarnation, whose `initialize-worker` was rebuilt, and of vats that are gone.
    let is_upgraded = |span: &Value| span["vat"] == lab.vat("upgraded") && span["incarnation"] != 0;
    assert!(run.lines("span").iter().any(|span| is_upgraded(span) && span["base"] == "blank"));

    let doctor = spanwatch_by(&real_worker(), &["doctor", text(&lab.file), "--format", "json"]);
    let doctor = &doctor.lines("doctor")[0];
    assert_eq!((&doctor["kept"]["items_in_recorder"], &doctor["kept"]["verifiable"]), (&closed.into(), &closed.into()));
    assert!(doctor["meaning"].as_str().is_some_and(|meaning| meaning.contains("flight recorder")), "{doctor}");

    let without = verify(&lab, &["--no-flight-recorder", "--vat", lab.vat("upgraded")]);
    assert_eq!(without.code, 4, "{}", without.err);
    assert!(without.lines("span").iter().all(|span| span["reason"] == "items_pruned"), "{}", without.out);
}

#[test]
fn a_slog_file_does_as_well() {
    let (lab, dir) = (recorder(), tempfile::tempdir().expect("a directory"));
    let ring = bytes(&lab);
    let lines = entries(&ring).join(&b'\n');
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&lines).and_then(|()| gzip.write_all(b"\n")).expect("in memory");
    let cut = lines.len() / 2;
    let (plain, gzip) =
        (file(&dir, "a.slog", &[&lines[..], b"\n"].concat()), file(&dir, "a.gz", &gzip.finish().expect("in memory")));
    let (first, second) = (file(&dir, "1.slog", &lines[..cut]), file(&dir, "2.slog", &lines[cut..]));
    let vat = lab.vat("upgraded");
    for slogs in [&["--slog", text(&plain)][..], &["--slog", text(&gzip)]] {
        let run = verify(&lab, &[&["--no-flight-recorder", "--vat", vat], slogs].concat());
        assert_eq!(run.code, 0, "{slogs:?}: {}", run.err);
        assert!(verdicts(&run).iter().all(|(_, from)| from == "recorder"));
    }
    // The line that is cut belongs to one delivery, which may be of another vat.
    let run = verify(&lab, &["--no-flight-recorder", "--vat", vat, "--slog", text(&first), "--slog", text(&second)]);
    assert!(matches!(run.code, 0 | 4), "{}", run.err);
}

/// What a recorder of `vat` may lead to: a verdict that the whole one has, or none.
fn is_harmless(lab: &Lab, path: &Path, vat: &str) -> Run {
    let run = verify(lab, &["--flight-recorder", text(path), "--vat", vat]);
    for span in run.lines("span") {
        assert!(
            span["verdict"] == "verified" || span["verdict"] == "unverifiable" && span["damage"] != true,
            "{span} with {}",
            path.display()
        );
    }
    assert!(matches!(run.code, 0 | 4), "{}", run.err);
    run
}

fn count(run: &Run, verdict: &str) -> usize {
    verdicts(run).iter().filter(|(found, _)| found == verdict).count()
}

#[test]
fn a_damaged_recorder_never_gives_a_wrong_verdict() {
    let (lab, dir) = (recorder(), tempfile::tempdir().expect("a directory"));
    let (ring, vat) = (bytes(&lab), lab.vat("upgraded").to_owned());
    let find = |what: &str, from: usize| {
        let at = ring[from..].windows(what.len()).position(|window| window == what.as_bytes());
        from + at.unwrap_or_else(|| panic!("{what} in the ring"))
    };
    let flipped = |at: usize| {
        let mut ring = ring.clone();
        ring[at] ^= 1;
        ring
    };
    // A digit of the computrons, a letter of a message, the length of a record, the vat that an entry is of.
    let deliver = find(r#"{"type":"deliver","crankNum":"#, 0);
    let of_vat = entries(&ring)
        .iter()
        .find(|entry| {
            entry.starts_with(br#"{"type":"deliver-result""#)
                && entry.windows(vat.len() + 11).any(|window| window == format!(r#""vatID":"{vat}","#).as_bytes())
        })
        .map(|entry| entry.as_ptr() as usize - ring.as_ptr() as usize)
        .expect("a delivery of the vat");
    let computrons = find(r#""compute":"#, of_vat) + r#""compute":"#.len();
    for (name, damaged, is_lost) in [
        ("computrons", flipped(computrons), true),
        ("vat", flipped(find(&format!(r#""vatID":"{vat}""#), of_vat) + 10), true),
        ("length", flipped(of_vat - 2), true),
        ("other", flipped(deliver + 3), false),
        ("half", ring[..ring.len() / 2].to_vec(), true),
        ("header", ring[..32].to_vec(), true),
        ("stale", [&ring[..24], &[0; 8], &ring[32..]].concat(), false),
    ] {
        let run = is_harmless(&lab, &file(&dir, name, &damaged), &vat);
        assert_eq!(count(&run, "unverifiable") > 0, is_lost, "{name}: {:?}", verdicts(&run));
    }
    // Another node's: each delivery cost something else.
    let mut another = ring.clone();
    let what = br#""compute":"#;
    for at in 0..another.len() - what.len() {
        if another[at..].starts_with(what) {
            another[at + what.len()] ^= 1;
        }
    }
    let run = is_harmless(&lab, &file(&dir, "another", &another), &vat);
    assert_eq!(count(&run, "verified"), 0, "{:?}", verdicts(&run));
}

#[test]
fn a_file_that_is_no_recorder_is_told() {
    let (lab, dir) = (recorder(), tempfile::tempdir().expect("a directory"));
    for (name, content, says) in
        [("empty", &b""[..], "fewer than the header"), ("text", &[b'x'; 100], "does not begin with AG-SLOG!")]
    {
        let path = file(&dir, name, content);
        let run = verify(&lab, &["--flight-recorder", text(&path)]);
        assert_eq!(run.code, 1, "{}", run.out);
        assert!(run.err.contains(says) && run.err.contains(name), "{}", run.err);
    }
    // Beside the database it is passed over with a warning.
    fs::copy(&lab.file, dir.path().join("swingstore.sqlite")).expect("copy");
    file(&dir, "flight-recorder.bin", b"");
    let run = spanwatch_by(&real_worker(), &["spans", text(dir.path())]);
    assert_eq!(run.code, 4, "{}", run.err);
    assert!(run.err.contains("flight-recorder.bin") && run.err.contains("fewer than the header"), "{}", run.err);
}
