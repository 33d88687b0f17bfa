//! What a vat or a worker says adds no line and no control to what we print.
//!
//! Goal: whatever a vat is called, prints or asks, each text that a person reads in a terminal has no control character but the ends of our own
//! lines, and none of its lines was written by the vat. Method: a vat whose name and whose worker's words try all of it, through each command
//! that prints, the files that people read, the daemon's log in both forms and what it serves.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use crate::beside::Setup;
use crate::model::WORDS;
use crate::run::{Run, fake_worker, spanwatch, text};
use crate::synthetic::{Keep, Node};
use crate::wait::wait_until;

/// A database with a vat of that name and one more.
fn database(dir: &Path) -> std::path::PathBuf {
    let file = dir.join("swingstore.sqlite");
    let mut node = Node::create(&file, Keep::everything());
    for (vat, name) in [("v1", WORDS), ("v2", "two")] {
        node.start_vat(vat, name);
        for _ in 0..2 {
            node.work(vat);
            node.save(vat);
        }
    }
    node.commit();
    drop(node.stop());
    file
}

/// Nothing in it moves a terminal or hides.
fn assert_visible(what: &str, said: &str) {
    for one in said.chars() {
        let is_hidden = one.is_control() && one != '\n'
            || matches!(one, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        assert!(!is_hidden, "{what}: {one:?} in {said:?}");
    }
}

/// Nor is a line of it forged.
fn assert_plain(what: &str, said: &str) {
    assert_visible(what, said);
    for line in said.lines() {
        let forged = line.trim_start();
        assert!(
            !forged.starts_with("verified       v66") && !forged.starts_with("2026-01-01T00:00:00Z"),
            "{what}: {line}"
        );
    }
}

fn plain(what: &str, run: &Run) {
    assert_plain(what, &run.out);
    assert_plain(what, &run.err);
}

#[test]
fn no_command_repeats_a_vats_words_as_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = database(dir.path());
    let evidence = dir.path().join("evidence");
    let worker = fake_worker(dir.path(), "words");
    let db = text(&file);
    // A fault that quotes a row.
    let connection = Connection::open(&file).expect("open");
    connection.execute("INSERT INTO bundles VALUES (?, X'00')", [format!("b0-{WORDS}")]).expect("write");
    connection.close().expect("close");
    let verify = ["verify", db, "--worker", text(&worker), "--evidence", text(&evidence), "--repeats", "1"];
    let run = spanwatch(&verify);
    plain("verify", &run);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert!(run.out.contains("zoe\\u{1b}[2J"), "the name is shown: {}", run.out);
    for format in ["text", "json"] {
        for command in ["spans", "doctor", "audit"] {
            let run = spanwatch(&[command, db, "--format", format]);
            plain(command, &run);
            assert!(command == "audit" || run.out.contains("zoe") || command == "doctor", "{}", run.out);
            assert_ne!(run.code, 2, "{command}: {}", run.err);
        }
        let run = spanwatch(&["verify", db, "--worker", text(&worker), "--repeats", "1", "--format", format]);
        plain("verify", &run);
    }
    // An argument comes back in the error.
    for arguments in
        [&["verify", db, "--vat", WORDS, "--worker", "/no"][..], &["explain", WORDS], &["snapshot", "info", WORDS]]
    {
        let run = spanwatch(arguments);
        plain("error", &run);
        assert_eq!(run.err.lines().count(), usize::from(!run.err.is_empty()), "{}", run.err);
    }
    let mut folders = 0;
    for folder in fs::read_dir(&evidence).expect("evidence").map(|entry| entry.expect("an entry").path()) {
        if !folder.is_dir() {
            continue;
        }
        folders += 1;
        let mut names = Vec::new();
        let entries = fs::read_dir(&folder).expect("list").map(|entry| entry.expect("an entry"));
        for entry in entries.filter(|entry| entry.path().is_file()) {
            let name = entry.file_name().into_string().expect("text");
            let content = fs::read(entry.path()).expect("read");
            // The record is kept byte by byte, and what is compressed is not read in a terminal.
            if !name.ends_with(".zst") && name != "recorded.jsonl" {
                let content = String::from_utf8(content).expect("text");
                // Each line of what the process printed is the worker's.
                if name == "printed.txt" {
                    assert_visible(&name, &content);
                } else {
                    assert_plain(&name, &content);
                }
                names.push(name);
            }
        }
        for name in ["README.txt", "console.txt", "printed.txt", "manifest.json", "workers.json"] {
            assert!(names.iter().any(|known| known == name), "{name} of {names:?}");
        }
        for arguments in [
            &["explain", text(&folder)][..],
            &["explain", text(&folder), "--all"],
            &["explain", text(&folder), "--format", "json"],
        ] {
            let run = spanwatch(arguments);
            plain("explain", &run);
            assert_eq!(run.code, 0, "{}", run.err);
        }
        let run = spanwatch(&["replay", text(&folder), "--worker", text(&worker)]);
        plain("replay", &run);
        assert_eq!(run.code, 3, "{}", run.err);
    }
    assert_eq!(folders, 2);
}

#[test]
fn no_log_line_is_a_vats() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = database(dir.path());
    let worker = fake_worker(dir.path(), "words");
    for format in ["json", "human"] {
        let at = dir.path().join(format);
        fs::create_dir(&at).expect("a directory");
        let mut setup = Setup::new(&at, &file, &worker).set("watch.since=genesis").set("evidence.repeats=1");
        let daemon = if format == "json" {
            let daemon = setup.start();
            daemon.wait_for_spans(4);
            for path in ["/readyz", "/api/v1/status", "/api/v1/spans", "/api/v1/divergences", "/metrics"] {
                assert_plain(path, &daemon.get(path).1);
            }
            daemon
        } else {
            setup = setup.set("log.format=human");
            let daemon = setup.start_unserved();
            let has_all = || daemon.said().matches("evidence: ").count() >= 4;
            wait_until(Duration::from_secs(120), has_all, || daemon.said());
            daemon
        };
        let said = daemon.said();
        assert_plain(format, &said);
        assert!(said.contains("zoe"), "{said}");
        for line in said.lines() {
            match format {
                "json" => {
                    assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"].is_string()), "{line}");
                }
                _ => assert!(line.starts_with("20") && line[..60].contains('Z'), "a line of its own: {line}"),
            }
        }
        let rows = spanwatch(&["verdicts", "--state-dir", text(&setup.state)]);
        plain("verdicts", &rows);
        assert_eq!(rows.code, 3, "{}", rows.err);
        let row = &crate::beside::verdicts(&setup.state)[0];
        let id = row["id"].as_str().expect("an ID");
        plain("ack", &spanwatch(&["ack", id, "--note", WORDS, "--state-dir", text(&setup.state)]));
        plain("verdicts", &spanwatch(&["verdicts", "--state-dir", text(&setup.state)]));
        assert_eq!(daemon.stop(), Some(0));
    }
}
