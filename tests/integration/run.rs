//! Running the program and reading what it says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::wait::try_end;

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `spanwatch` with some arguments; a run that takes minutes hangs.
pub fn spanwatch(arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanwatch"));
    command
        .args(arguments)
        .env_remove("SPANWATCH_WORKER")
        .env_remove("XSNAP_WORKER")
        .env_remove("RUST_BACKTRACE")
        .env_remove("TZ");
    run(command)
}

/// The same with a worker that the environment names.
pub fn spanwatch_by(worker: &Path, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanwatch"));
    command.args(arguments).env("SPANWATCH_WORKER", worker).env_remove("RUST_BACKTRACE").env_remove("TZ");
    run(command)
}

pub fn run(mut command: Command) -> Run {
    let out = tempfile::NamedTempFile::new().expect("a file");
    let err = tempfile::NamedTempFile::new().expect("a file");
    let mut child =
        command.stdout(out.reopen().expect("open")).stderr(err.reopen().expect("open")).spawn().expect("spanwatch");
    let status = try_end(&mut child, Duration::from_secs(300)).unwrap_or_else(|| panic!("{command:?} hangs"));
    let text = |file: tempfile::NamedTempFile| std::fs::read_to_string(file.path()).expect("text");
    let run = Run { code: status.code().unwrap_or(-1), out: text(out), err: text(err) };
    assert!(!run.err.contains("panicked"), "{command:?}: {}", run.err);
    run
}

impl Run {
    /// The objects of a certain type in JSON output.
    pub fn lines(&self, of_type: &str) -> Vec<Value> {
        let lines = self.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
        lines.filter(|line| line["type"] == of_type).collect()
    }

    /// `verdict` or `verdict/reason` of each span, by its start.
    pub fn verdicts(&self) -> Vec<String> {
        let spans = self.lines("span");
        spans.iter().map(verdict_of).collect()
    }
}

/// `verified`, `failed/limit`, or `diverged/computrons@7`.
pub fn verdict_of(span: &Value) -> String {
    let verdict = span["verdict"].as_str().expect("a verdict");
    match (span["reason"].as_str(), span["findings"].as_array()) {
        (Some(reason), _) => format!("{verdict}/{reason}"),
        (None, Some(findings)) => {
            let findings: Vec<String> = findings
                .iter()
                .map(|finding| format!("{}@{}", finding["kind"].as_str().expect("a kind"), finding["position"]))
                .collect();
            format!("{verdict}/{}", findings.join("+"))
        }
        (None, None) => verdict.to_owned(),
    }
}

/// The fake worker under the name of a directive, made in `dir`.
pub fn fake_worker(dir: &Path, directive: &str) -> PathBuf {
    let path = dir.join(format!("fake.{directive}"));
    if !path.exists() {
        std::fs::copy(example("fake-worker"), &path).expect("copy");
    }
    path
}

/// A program that is built with the tests.
pub fn example(name: &str) -> PathBuf {
    let deps = std::env::current_exe().expect("this program");
    let built = deps.ancestors().nth(2).expect("the target directory").join("examples").join(name);
    assert!(built.exists(), "`cargo build --examples` builds {name}, and so does `cargo test`");
    built
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of plain characters")
}
