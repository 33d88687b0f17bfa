//! A node and what stands beside it, for a test to play with.
//!
//! The node is a stand-in that writes as the swing-store does, a commit a block, with what the fake worker would do; so a
//! test decides when what is committed. A real kernel and a real worker are in `lab` and `alarm`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::beside::{Daemon, Setup};
use crate::run::{example, fake_worker, run, text};
use crate::synthetic::{Keep, Node};

/// A directory with a node, two vats at work in it.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub node: Option<Node>,
}

pub const BOUNDS: [(u64, u64); 4] = [(0, 6), (6, 11), (11, 16), (16, 21)];

impl Bench {
    pub fn new(keep: Keep) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("agoric")).expect("a directory");
        let mut bench = Self { dir, node: None };
        let mut node = Node::create(&bench.file(), keep);
        node.start_vat("v1", "one");
        node.start_vat("v2", "two");
        node.commit();
        bench.node = Some(node);
        bench
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("agoric/swingstore.sqlite")
    }

    pub fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("it runs")
    }

    pub fn setup(&self, directive: &str) -> Setup {
        Setup::new(self.dir.path(), &self.file(), &fake_worker(self.dir.path(), directive))
    }

    /// A block in which a span of a vat closes.
    pub fn close(&mut self, vat: &str) {
        self.node().work(vat);
        self.node().save(vat);
        self.node().commit();
    }

    /// A span of a vat, its end in a block of its own.
    pub fn span(&mut self, daemon: &Daemon, vat: &str, height: &mut u64) {
        self.node().work(vat);
        self.node().commit();
        *height += 1;
        daemon.wait_for_block(*height);
        self.node().save(vat);
        self.node().commit();
        *height += 1;
        daemon.wait_for_block(*height);
    }

    pub fn names(&self) -> Vec<(std::ffi::OsString, u64, u32)> {
        let entries = fs::read_dir(self.dir.path().join("agoric")).expect("list").map(|entry| entry.expect("an entry"));
        let mut names: Vec<_> = entries
            .map(|entry| {
                let meta = entry.metadata().expect("meta");
                (entry.file_name(), meta.ino(), meta.uid())
            })
            .collect();
        names.sort();
        names
    }
}

pub fn bounds(row: &Value) -> (u64, u64) {
    (row["start"].as_u64().expect("a number"), row["end"].as_u64().expect("a number"))
}

pub fn verdict_of(row: &Value) -> String {
    let verdict = row["verdict"].as_str().expect("a verdict");
    row["reason"].as_str().map_or_else(|| verdict.to_owned(), |reason| format!("{verdict}/{reason}"))
}

/// Runs the daemon as another user, who may not read where the program was built: a copy of it runs.
pub fn as_nobody(program: &Path) -> Vec<String> {
    let script = format!("shift; exec {} \"$@\"", text(program));
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script, "sh"].map(str::to_owned).into()
}

#[test]
fn the_example_of_the_library_verifies_a_database() {
    let mut bench = Bench::new(Keep::everything());
    for vat in ["v1", "v2", "v1"] {
        bench.close(vat);
    }
    let mut command = std::process::Command::new(example("verify"));
    command.arg(bench.file()).arg(fake_worker(bench.dir.path(), "ok"));
    let run = run(command);
    let verified = run.out.lines().filter(|line| line.contains("verified")).count();
    assert_eq!((run.code, verified, run.out.lines().count()), (0, 3, 3), "{}{}", run.out, run.err);
}
