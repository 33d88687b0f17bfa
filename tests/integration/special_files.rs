//! FIFOs, sockets, devices, directories and links in the place of every file that the program reads: an error that names the file and what
//! it is, and never a wait for somebody who writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::bad_input::make_archives;
use crate::bench::Bench;
use crate::run::{Run, fake_worker, spanwatch, text};
use crate::synthetic::{self, Keep};

/// No command takes longer over any of these, however busy the machine is.
const TIME_MAX: Duration = Duration::from_secs(60);

/// What can lie at a path in place of a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fifo,
    Socket,
    Directory,
    Link,
    LinkToFifo,
    LinkToZero,
}

const KINDS: [Kind; 6] = [Kind::Fifo, Kind::Socket, Kind::Directory, Kind::Link, Kind::LinkToFifo, Kind::LinkToZero];

impl Kind {
    /// Puts one where a regular file was or could be. A link leads to what was there.
    fn put(self, path: &Path) {
        let aside = path.with_extension("aside");
        let _ = fs::remove_file(&aside);
        if fs::rename(path, &aside).is_err() {
            fs::write(&aside, "").expect("write");
        }
        let fifo = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
        match self {
            Self::Fifo => fifo(path),
            Self::Socket => drop(UnixListener::bind(path).expect("a socket")),
            Self::Directory => fs::create_dir(path).expect("a directory"),
            Self::Link => symlink(&aside, path).expect("a link"),
            Self::LinkToFifo => {
                let other = path.with_extension("fifo");
                let _ = fs::remove_file(&other);
                fifo(&other);
                symlink(other, path).expect("a link");
            }
            Self::LinkToZero => symlink("/dev/zero", path).expect("a link"),
        }
    }

    /// Takes it away again; what was there comes back.
    fn take(self, path: &Path) {
        if self == Self::Directory {
            fs::remove_dir(path).expect("remove");
        } else {
            fs::remove_file(path).expect("remove");
        }
        if self == Self::LinkToFifo {
            fs::remove_file(path.with_extension("fifo")).expect("remove");
        }
        let aside = path.with_extension("aside");
        if fs::metadata(&aside).expect("what was there").len() > 0 {
            fs::rename(aside, path).expect("move back");
        } else {
            fs::remove_file(aside).expect("remove");
        }
    }

    /// What an error says of it, where no link is followed.
    fn says(self) -> &'static str {
        match self {
            Self::Fifo => "it is a FIFO",
            Self::Socket => "it is a socket",
            Self::Directory => "it is a directory",
            Self::Link | Self::LinkToFifo | Self::LinkToZero => "it is a symbolic link",
        }
    }

    /// What an error says of it where links are followed; `None` where it is as good as the file.
    fn says_behind_links(self) -> Option<&'static str> {
        match self {
            Self::Link => None,
            Self::LinkToFifo => Some("it is a FIFO"),
            Self::LinkToZero => Some("it is a character device"),
            _ => Some(self.says()),
        }
    }
}

/// What went wrong with the cases of a test, each with the name of its case.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    /// A run that must end in time with this exit code, and say this and the name of the file.
    fn check(&mut self, case: &str, arguments: &[&str], code: i32, says: &str, name: &str) {
        let began = Instant::now();
        let run = spanwatch(arguments);
        let told = format!("{}{}", run.out, run.err);
        if run.code != code || !told.contains(says) || !told.contains(name) || began.elapsed() > TIME_MAX {
            self.0.push(format!("{case}: exit {} after {:?}, {told}", run.code, began.elapsed()));
        }
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{}", self.0.join("\n"));
        }
    }
}

#[test]
fn in_place_of_the_database() {
    let dir = tempfile::tempdir().expect("a directory");
    let synthetic = synthetic::database();
    let worker = fake_worker(dir.path(), "ok");
    let mut wrong = Wrong::default();
    // A directory is one that the database is looked for in.
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Directory) {
        let file = dir.path().join("swingstore.sqlite");
        fs::copy(&synthetic.file, &file).expect("copy");
        kind.put(&file);
        for command in [&["verify", "--worker", text(&worker)][..], &["spans"], &["doctor", "--worker", text(&worker)]]
        {
            let arguments = [command, &[text(&file)]].concat();
            let says = kind.says_behind_links();
            let code = if says.is_some() { 1 } else { spanwatch(&[command, &[text(&synthetic.file)]].concat()).code };
            wrong.check(&format!("{command:?} {kind:?}"), &arguments, code, says.unwrap_or_default(), "");
        }
        kind.take(&file);
    }
}

#[test]
fn beside_the_database() {
    let synthetic = synthetic::database();
    let mut wrong = Wrong::default();
    for suffix in ["-wal", "-shm", "-journal"] {
        let file = PathBuf::from(format!("{}{suffix}", text(&synthetic.file)));
        for kind in KINDS {
            kind.put(&file);
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            wrong.check(&format!("{suffix} {kind:?}"), &["spans", text(&synthetic.file)], 1, kind.says(), &name);
            kind.take(&file);
        }
    }
    assert_eq!(spanwatch(&["spans", text(&synthetic.file), "--vat", "v1"]).code, 0, "all is as it was");
}

#[test]
fn in_an_archive() {
    let synthetic = synthetic::database();
    let worker = fake_worker(synthetic.dir.path(), "ok");
    let (transcripts, snapshots) = (synthetic.dir.path().join("transcripts"), synthetic.dir.path().join("snapshots"));
    make_archives(&synthetic, &transcripts, &snapshots);
    let db = rusqlite::Connection::open(&synthetic.file).expect("open");
    db.execute_batch(
        "DELETE FROM transcriptItems WHERE vatID = 'v1' AND position < 16; UPDATE snapshots SET compressedSnapshot = NULL WHERE inUse IS NULL",
    )
    .expect("sql");
    db.close().expect("close");
    let mut arguments =
        vec!["verify", text(&synthetic.file), "--worker", text(&worker), "--vat", "v1", "--span", "6..11"];
    arguments.extend(["--transcript-archive", text(&transcripts), "--snapshot-archive", text(&snapshots)]);
    assert_eq!(spanwatch(&arguments).code, 0);
    let mut wrong = Wrong::default();
    for file in [transcripts.join("transcript.v1.6.11.gz"), snapshots.join("snapshot.v1.5.gz")] {
        for kind in KINDS {
            kind.put(&file);
            wrong.check(&format!("{} {kind:?}", file.display()), &arguments, 4, kind.says(), text(&file));
            kind.take(&file);
        }
    }
}

#[test]
fn in_evidence() {
    let synthetic = synthetic::database();
    let worker = fake_worker(synthetic.dir.path(), "wrong-hash");
    let evidence = synthetic.dir.path().join("evidence");
    let mut arguments =
        vec!["verify", text(&synthetic.file), "--worker", text(&worker), "--vat", "v1", "--span", "6..11"];
    arguments.extend(["--evidence", text(&evidence)]);
    assert_eq!(spanwatch(&arguments).code, 3);
    let folder = fs::read_dir(&evidence).expect("list").flatten().map(|entry| entry.path()).find(|path| path.is_dir());
    let folder = folder.expect("a folder");
    let commands: [&[&str]; 2] = [&["explain"], &["replay", "--worker", text(&worker)]];
    let run = |command: &[&str]| -> Run { spanwatch(&[command, &[text(&folder)]].concat()) };
    let codes = commands.map(|command| run(command).code);
    let mut wrong = Wrong::default();
    let names: Vec<PathBuf> = fs::read_dir(&folder).expect("list").flatten().map(|entry| entry.path()).collect();
    assert!(names.len() >= 5, "{names:?}");
    for file in names.iter().filter(|path| path.is_file()) {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        for kind in KINDS {
            kind.put(file);
            for (command, code) in commands.iter().zip(codes) {
                let began = Instant::now();
                let run = run(command);
                let told = format!("{}{}", run.out, run.err);
                // A file that only adds something is done without; nothing is ever read from one of these.
                // The FIFO that a link leads to lies in the folder too, and either may be met first.
                let says = [kind.says(), kind.says_behind_links().unwrap_or_default()];
                let is_met_first = kind == Kind::LinkToFifo && told.contains(says[1]);
                let is_refused = run.code == 1 && (told.contains(says[0]) || is_met_first);
                let is_needed = name == "manifest.json" || name.starts_with("recorded.jsonl");
                if (is_needed || run.code != code) && !is_refused || began.elapsed() > TIME_MAX {
                    wrong.0.push(format!("{command:?} {name} {kind:?}: exit {}, {told}", run.code));
                }
            }
            kind.take(file);
        }
    }
}

#[test]
fn in_place_of_what_the_operator_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let synthetic = synthetic::database();
    let file = dir.path().join("file");
    let mut wrong = Wrong::default();
    let bundle = format!("b1-x={}", text(&file));
    let cases: [(&str, Vec<&str>, i32); 6] = [
        ("the configuration", vec!["config", "--config", text(&file)], 2),
        ("a bundle", vec!["replay", "/nowhere", "--with-bundle", &bundle], 2),
        ("an image", vec!["snapshot", "info", text(&file)], 1),
        ("packed evidence", vec!["explain", text(&file)], 1),
        ("packed evidence to unpack", vec!["evidence", "unpack", text(&file), text(dir.path())], 1),
        ("a worker", vec!["verify", text(&synthetic.file), "--worker", text(&file)], 1),
    ];
    for kind in KINDS {
        kind.put(&file);
        for (what, arguments, code) in &cases {
            // A folder may be evidence, and is told to be none.
            let is_folder = kind == Kind::Directory && (what.contains("evidence") || *what == "an image");
            // Of evidence not even a link to a regular file is taken.
            let says = if what.contains("evidence") { Some(kind.says()) } else { kind.says_behind_links() };
            if let Some(says) = says.filter(|_| !is_folder) {
                wrong.check(&format!("{what} {kind:?}"), arguments, *code, says, text(&file));
            }
        }
        kind.take(&file);
    }
}

#[test]
fn in_the_state_directory() {
    let bench = Bench::new(Keep::everything());
    let mut wrong = Wrong::default();
    let setup = bench.setup("ok");
    fs::create_dir_all(&setup.state).expect("a directory");
    for name in ["lock", "spanwatch.sqlite", "spanwatch.sqlite-wal", "spanwatch.sqlite-shm", "spanwatch.sqlite-journal"]
    {
        let file = setup.state.join(name);
        for kind in KINDS {
            kind.put(&file);
            let (began, run) = (Instant::now(), setup.fail());
            if run.code == 0 || !run.err.contains(kind.says()) || !run.err.contains(name) || began.elapsed() > TIME_MAX
            {
                wrong.0.push(format!("{name} {kind:?}: exit {} after {:?}, {}", run.code, began.elapsed(), run.err));
            }
            if name != "lock" {
                let store = setup.state.join("spanwatch.sqlite");
                let is_there = store.symlink_metadata().is_ok();
                let says = if is_there { kind.says() } else { "there is no store" };
                wrong.check(
                    &format!("verdicts, {name} {kind:?}"),
                    &["verdicts", "--state-dir", text(&setup.state)],
                    1,
                    says,
                    "",
                );
            }
            kind.take(&file);
        }
    }
}

/// Operators move the data to another volume and leave a link: it is followed, and the log has the real file.
#[test]
fn a_link_to_the_database_is_followed_and_reported() {
    let mut bench = Bench::new(Keep::everything());
    let link = bench.dir.path().join("link");
    symlink("agoric", &link).expect("a link");
    let setup = bench.setup("ok").set(&format!("node.database={}", text(&link.join("swingstore.sqlite"))));
    let daemon = setup.start();
    daemon.wait_for_block(1);
    bench.close("v1");
    daemon.wait_for_spans(1);
    assert_eq!(daemon.spans("verified"), 1, "{}", daemon.said());
    let real = fs::canonicalize(bench.file()).expect("the file");
    let told = daemon.logged(&format!("leads to the database {}", text(&real)));
    assert_eq!(told.len(), 1, "{}", daemon.said());
}

/// The daemon says what is wrong, goes on, and reads again once it is right.
#[test]
fn beside_the_database_of_a_running_node() {
    let mut bench = Bench::new(Keep::everything());
    let daemon = bench.setup("ok").set("watch.poll_interval=100ms").start();
    daemon.wait_for_block(1);
    let journal = PathBuf::from(format!("{}-journal", text(&bench.file())));
    for kind in [Kind::Fifo, Kind::LinkToZero] {
        kind.put(&journal);
        daemon.wait_for_node("unreadable");
        assert!(!daemon.logged(kind.says()).is_empty(), "{}", daemon.said());
        kind.take(&journal);
        daemon.wait_for_node("running");
    }
    bench.close("v1");
    daemon.wait_for_spans(1);
    assert_eq!(daemon.spans("verified"), 1, "{}", daemon.said());
}
