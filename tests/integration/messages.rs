//! What a message says is what was found: of evidence without an image, databases that this user may not read, directories that are
//! not there, and nodes that keep some of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;

use crate::bench::as_nobody;
use crate::run::{Run, fake_worker, run, spanwatch, text};
use crate::synthetic::{self, Keep, Node, Synthetic};

fn evidence_of(synthetic: &Synthetic, directive: &str) -> PathBuf {
    let worker = fake_worker(synthetic.dir.path(), directive);
    let evidence = synthetic.dir.path().join(format!("evidence-{directive}"));
    let arguments = ["verify", text(&synthetic.file), "--worker", text(&worker), "--sandbox", "off", "--repeats", "1"];
    let more = ["--vat", "one", "--span", "0..6", "--evidence", text(&evidence)];
    let run = spanwatch(&[&arguments[..], &more].concat());
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    let mut entries = fs::read_dir(&evidence).expect("evidence").map(|entry| entry.expect("an entry").path());
    entries.find(|path| path.join("manifest.json").is_file()).expect("a folder")
}

#[test]
fn a_folder_says_why_it_has_no_image() {
    let synthetic = synthetic::database();
    let says = |directive: &str, side: &str| {
        let run = spanwatch(&["snapshot", "info", &format!("{}:{side}", text(&evidence_of(&synthetic, directive)))]);
        assert_eq!(run.code, 1, "{directive}: {}", run.err);
        run.err
    };
    for side in ["recorded", "replayed"] {
        let said = says("computrons", side);
        assert!(said.contains("ended with the recorded heap"), "{side}: {said}");
        let said = says("unanswerable", side);
        assert!(
            said.contains("come to the end of the span") || said.contains("came to the end of the span"),
            "{side}: {said}"
        );
    }
    assert!(says("computrons", "base").contains("the span starts without one"));
}

/// The main file is what may not be read, not those beside it.
#[test]
fn a_database_of_another_user_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("permissions");
    let program = dir.path().join("spanwatch");
    fs::copy(env!("CARGO_BIN_EXE_spanwatch"), &program).expect("copy");
    let file = dir.path().join("swingstore.sqlite");
    fs::copy(&synthetic::database().file, &file).expect("copy");
    let spans = || {
        let words = as_nobody(&program);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args([text(&program), "spans", text(&file)]);
        run(command)
    };
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("permissions");
    let run = spans();
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(run.err.contains("this user may not read the file itself") && !run.err.contains("-wal"), "{}", run.err);
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("permissions");
    assert_eq!(spans().code, 0);
}

#[test]
fn a_directory_to_unpack_into_must_be_there() {
    let synthetic = synthetic::database();
    let folder = evidence_of(&synthetic, "computrons");
    let file = synthetic.dir.path().join("one.spanwatch");
    assert_eq!(spanwatch(&["evidence", "pack", text(&folder), text(&file)]).code, 0);
    let missing = synthetic.dir.path().join("no/such");
    let run = spanwatch(&["evidence", "unpack", text(&file), text(&missing)]);
    assert!(run.code == 1 && run.err.contains("it is no directory; make it first"), "{}", run.err);
    assert!(run.err.contains(text(&missing)) && !missing.exists(), "{}", run.err);
    fs::create_dir_all(&missing).expect("a directory");
    assert_eq!(spanwatch(&["evidence", "unpack", text(&file), text(&missing)]).code, 0);
}

#[test]
fn an_export_asks_for_either_form() {
    let run = spanwatch(&["export", "folder"]);
    assert!(run.code == 2 && run.err.contains("--sst <FILE>|--xsnap-trace <DIR>"), "{}", run.err);
}

fn doctor(file: &Path, more: &[&str]) -> Run {
    let worker = fake_worker(file.parent().expect("a directory"), "ok");
    spanwatch(&[&["doctor", text(file), "--worker", text(&worker), "--sandbox", "off"], more].concat())
}

#[test]
fn doctor_says_what_can_be_verified() {
    // Images of some spans are gone, and each can be made by a replay.
    let synthetic = synthetic::database();
    let db = Connection::open(&synthetic.file).expect("open");
    let gone = "UPDATE snapshots SET compressedSnapshot = NULL WHERE vatID = 'v1' AND snapPos = 5";
    assert_eq!(db.execute(gone, []).expect("write"), 1);
    drop(db);
    let run = doctor(&synthetic.file, &[]);
    assert!(run.code == 0 && run.out.contains("every closed span can be verified"), "{}{}", run.out, run.err);
    assert!(!run.out.contains("mixed"), "{}", run.out);
    assert!(doctor(&synthetic.file, &["--format", "json"]).out.contains(r#""retention":"mixed""#));

    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("swingstore.sqlite");
    let mut node = Node::create(&file, Keep::default());
    node.start_vat("v1", "one");
    node.work("v1");
    node.save("v1");
    node.commit();
    drop(node.stop());
    let run = doctor(&file, &[]);
    assert!(run.code == 4 && run.out.contains("`spanwatch run` beside the node"), "{}{}", run.out, run.err);
    assert!(run.out.contains("the verdict partial"), "{}", run.out);
}

#[test]
fn doctor_goes_on_without_an_archive_and_says_so() {
    let synthetic = synthetic::database();
    let run = doctor(&synthetic.file, &["--transcript-archive", "/no/such/archive"]);
    assert_eq!(run.code, 4, "{}", run.err);
    assert!(run.out.contains("archives   FAULT failed to list the archive directory /no/such/archive"), "{}", run.out);
    assert!(run.out.contains("vat-transcript-archive-dir") && run.out.contains("bundles "), "{}", run.out);
    // Another directory than the archive.
    let other = tempfile::tempdir().expect("a directory");
    fs::write(other.path().join("snapshot.v1.5.gz"), b"").expect("write");
    let run = doctor(&synthetic.file, &["--transcript-archive", text(other.path())]);
    assert!(run.code == 4 && run.out.contains("none that begins with transcript."), "{}{}", run.out, run.err);
    let run = doctor(&synthetic.file, &["--snapshot-archive", text(other.path())]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
}
