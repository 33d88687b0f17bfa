//! The daemon as a process, and what it says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::run::{Run, spanwatch, text};
use crate::wait::{try_end, wait_for, wait_until};

/// Nothing that is waited for takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running daemon; killed when the test ends, however it ends.
pub struct Daemon {
    child: Child,
    pub state: PathBuf,
    log: PathBuf,
    /// How long the log was when it was started.
    said_before: usize,
    address: SocketAddr,
}

/// How to start one.
pub struct Setup {
    /// What runs the program, if it is not run directly.
    pub wrapper: Vec<String>,
    pub settings: Vec<String>,
    pub state: PathBuf,
}

impl Setup {
    /// Beside the database at `db`, with its state in `dir`.
    pub fn new(dir: &Path, db: &Path, worker: &Path) -> Self {
        let settings = [
            format!("node.database={}", text(db)),
            format!("worker.path={}", text(worker)),
            "http.listen=127.0.0.1:0".to_owned(),
            "log.format=json".to_owned(),
            "log.level=debug".to_owned(),
            // Tests run on small machines, several at once.
            "neighbour.nice=0".to_owned(),
            "neighbour.min_available_memory=0".to_owned(),
            "state.min_free=0".to_owned(),
        ];
        Self { wrapper: Vec::new(), settings: settings.into(), state: dir.join("state") }
    }

    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["run".to_owned(), "--state-dir".to_owned(), text(&self.state).to_owned()];
        for setting in &self.settings {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        arguments
    }

    /// Runs it in the expectation that it ends by itself.
    pub fn fail(&self) -> Run {
        let arguments = self.arguments();
        spanwatch(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts it and waits until it serves.
    pub fn start(&self) -> Daemon {
        let mut daemon = self.start_unserved();
        let (log, said_before) = (daemon.log.clone(), daemon.said_before);
        let said = || fs::read_to_string(&log).expect("the log").split_off(said_before);
        let serves = || {
            let new = said();
            let address = lines_of(&new).iter().find_map(|line| line["address"].as_str()?.parse().ok());
            let has_ended = address.is_none() && daemon.child.try_wait().expect("wait").is_some();
            assert!(!has_ended, "the daemon ended: {new}");
            address
        };
        daemon.address = wait_for(PATIENCE, serves, || format!("the daemon does not serve: {}", said()));
        daemon
    }

    /// Starts it and waits for nothing: nobody knows where it serves.
    pub fn start_unserved(&self) -> Daemon {
        fs::create_dir_all(&self.state).expect("a directory");
        let log = self.state.with_extension("log");
        let file = File::options().append(true).create(true).open(&log).expect("a log");
        let said_before = fs::metadata(&log).expect("the log").len();
        let program = env!("CARGO_BIN_EXE_spanwatch").to_owned();
        let words: Vec<String> = self.wrapper.iter().cloned().chain([program]).chain(self.arguments()).collect();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env_remove("SPANWATCH_WORKER")
            .env_remove("XSNAP_WORKER")
            .env_remove("SPANWATCH_LOG")
            .env_remove("TZ")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the daemon");
        let address = ([127, 0, 0, 1], 0).into();
        let said_before = usize::try_from(said_before).expect("small");
        Daemon { child, state: self.state.clone(), log, said_before, address }
    }
}

/// Status and body; `None` if nobody answers.
pub fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    // As HTTP/1.0, which has no chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

fn lines_of(log: &str) -> Vec<Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

impl Daemon {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has logged, over all of its lives with this state.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    /// The logged lines whose message has a certain text in it.
    pub fn logged(&self, part: &str) -> Vec<Value> {
        let has = |line: &Value| line["message"].as_str().is_some_and(|message| message.contains(part));
        lines_of(&self.said()).into_iter().filter(has).collect()
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(self.address, path).expect("it answers")
    }

    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("json")
    }

    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "{body}");
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        body.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
    }

    pub fn metric(&self, series: &str) -> f64 {
        *self.metrics().get(series).unwrap_or_else(|| panic!("no series {series}"))
    }

    pub fn spans(&self, verdict: &str) -> u64 {
        let series = format!("spanwatch_spans_total{{verdict=\"{verdict}\"}}");
        format!("{}", self.metric(&series)).parse().expect("a whole number")
    }

    /// Waits until something holds, and says what was there if it never does.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let explain = || {
            let (_, metrics) = self.get("/metrics");
            let metrics: Vec<&str> = metrics.lines().filter(|line| !line.ends_with(" 0")).collect();
            format!("never came: {what}\n{}\n{}", self.said(), metrics.join("\n"))
        };
        wait_until(PATIENCE, || holds(self), explain);
    }

    /// Waits until all old rows have been read again twice, so that each was read at least once since now.
    pub fn wait_for_rechecks(&self) {
        let finished = |daemon: &Self| daemon.metric("spanwatch_recheck_finished_timestamp_seconds");
        for _ in 0..2 {
            let before = finished(self);
            self.wait_for("old rows to be read again", |daemon| finished(daemon) > before);
        }
    }

    /// Asserts that nothing alarms about the node's rows, now that all of them have been read again.
    pub fn assert_rows_unsuspected(&self) {
        self.wait_for_rechecks();
        let metrics = self.metrics();
        let found = (metrics["spanwatch_changed_rows"], metrics["spanwatch_damaged_spans"]);
        assert_eq!(found, (0.0, 0.0), "{}", self.get("/api/v1/alarms").1);
    }

    /// Waits until all of so many spans have a verdict.
    pub fn wait_for_spans(&self, count: u64) {
        self.wait_for(&format!("{count} verdicts"), |daemon| {
            let metrics = daemon.metrics();
            let verdicts: f64 =
                metrics.iter().filter(|(name, _)| name.starts_with("spanwatch_spans_total")).map(|(_, n)| n).sum();
            verdicts >= count as f64
        });
    }

    /// Waits until it has read the database at a block or later.
    pub fn wait_for_block(&self, height: u64) {
        self.wait_for(&format!("block {height}"), |daemon| {
            daemon.metric("spanwatch_node_block_height") >= height as f64
        });
    }

    /// Waits until the daemon has looked at the database so many times more because its poll was due.
    pub fn wait_for_polls(&self, count: u64) {
        let polls = |daemon: &Self| -> f64 {
            let metrics = daemon.metrics();
            let looks = metrics.iter().filter(|(name, _)| name.starts_with("spanwatch_looks_total{"));
            looks.filter(|(name, _)| name.contains("source=\"poll\"")).map(|(_, looks)| looks).sum()
        };
        let before = polls(self);
        self.wait_for("more polls", |daemon| polls(daemon) >= before + count as f64);
    }

    pub fn wait_for_log(&self, part: &str) {
        self.wait_for(&format!("{part:?} in the log"), |daemon| daemon.said().contains(part));
    }

    pub fn wait_for_node(&self, state: &str) {
        let series = format!("spanwatch_node_state{{state=\"{state}\"}}");
        self.wait_for(state, |daemon| daemon.metric(&series) > 0.0);
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Told to stop: its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    pub fn wait(&mut self) -> Option<i32> {
        let status = try_end(&mut self.child, PATIENCE);
        status.unwrap_or_else(|| panic!("the daemon does not end: {}", self.said())).code()
    }

    /// What `spanwatch verdicts` lists, oldest first.
    pub fn verdicts(&self) -> Vec<Value> {
        verdicts(&self.state)
    }
}

/// What `spanwatch verdicts` lists of a state directory, oldest first.
pub fn verdicts(state: &Path) -> Vec<Value> {
    let run = spanwatch(&["verdicts", "--state-dir", text(state), "--format", "json"]);
    assert!(matches!(run.code, 0 | 3 | 4), "{}", run.err);
    let mut rows = run.lines("verdict");
    rows.reverse();
    rows
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
