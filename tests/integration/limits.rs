//! What others can take from the daemon and the commands: connections, time, and files that are none.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::beside::{Daemon, Setup};
use crate::run::{fake_worker, spanwatch, text};
use crate::synthetic::{self, Keep};

/// As many as were found to use up all descriptors of a daemon that may have 1,024.
const CONNECTIONS: usize = 1_126;
/// A polite client has its answer within this, however many others are connected.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The usual limit of a service or a shell.
fn with_1024_descriptors(mut setup: Setup) -> Setup {
    let script = "ulimit -n 1024; exec \"$@\"";
    setup.wrapper = ["sh", "-c", script, "sh"].map(str::to_owned).into();
    setup
}

/// A connection that sends this and then nothing more.
fn connect(daemon: &Daemon, send: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&daemon.address(), Duration::from_secs(2)).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
    // One that was closed already is one less to be answered.
    let _ = stream.write_all(send);
    Some(stream)
}

/// How long a polite client waits for its answer; `None` if it gives up.
fn ask(daemon: &Daemon, path: &str) -> Option<Duration> {
    let began = Instant::now();
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let mut stream = connect(daemon, request.as_bytes())?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.0 200").then(|| began.elapsed())
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("list").count()
}

/// The test itself holds as many.
fn raise_own_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("as many as the system lets us");
}

/// Looks and replays go on while others hold as many connections as they like, and a polite client is answered.
#[test]
fn half_open_connections_stop_nothing() {
    raise_own_limit();
    let mut bench = Bench::new(Keep::everything());
    let daemon = with_1024_descriptors(bench.setup("ok")).start();
    daemon.wait_for_block(1);
    let mut height = 1;
    // A head that never ends; nothing at all; an answer that nobody reads; answers one after the other, and then silence.
    let endless = b"GET /metrics HTTP/1.1\r\nHost: lo".to_vec();
    let unread = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    for (what, send, count) in [
        ("half open", endless, CONNECTIONS),
        ("silent", Vec::new(), 300),
        ("unread", unread, 300),
        ("kept open", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 300),
    ] {
        let held: Vec<_> = (0..count).filter_map(|_| connect(&daemon, &send)).collect();
        assert_eq!(held.len(), count, "{what}");
        let answers: Vec<Duration> =
            (0..3).map(|_| ask(&daemon, "/metrics").unwrap_or_else(|| panic!("{what}: no answer"))).collect();
        let began = Instant::now();
        bench.close("v1");
        height += 1;
        daemon.wait_for_spans(height - 1);
        let open = descriptors(&daemon);
        println!(
            "{count} {what}: answers after {answers:?}, a verdict after {:?}, {open} descriptors",
            began.elapsed()
        );
        assert!(open < 200, "{what}: {open} descriptors");
    }
    assert_eq!(daemon.spans("verified"), 4, "{}", daemon.said());
    assert!(daemon.metric("spanwatch_http_connections_dropped_total") > 1_000.0);
    assert!(!daemon.said().contains("Too many open files"), "{}", daemon.said());
    assert_eq!(daemon.stop(), Some(0));
}

/// A request whose head is not what anybody sends is refused, and one that takes its time is ended.
#[test]
fn requests_have_limits() {
    let bench = Bench::new(Keep::everything());
    let daemon = bench.setup("ok").start();
    let answer = |request: &[u8]| {
        let mut stream = connect(&daemon, request).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut answer = Vec::new();
        // What is refused before it was all read may end with a reset.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let long = |what: &str| format!("GET /{what} HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(1_000));
    for (what, request) in [("a long header", long("metrics")), ("many headers", many)] {
        let said = answer(request.as_bytes());
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{what}: {said}");
    }
    let said = answer(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 405"), "{said}");
    assert!(answer(b"\0\x16\x03\x01 no HTTP at all\r\n\r\n").starts_with("HTTP/1.1 400"));
    // One byte a second never makes a head.
    let mut slow = connect(&daemon, b"GET /metrics HTTP/1.1\r\n").expect("a connection");
    slow.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let began = Instant::now();
    loop {
        let mut byte = [0];
        match slow.read(&mut byte) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            // Ended, with or without a word.
            _ => break,
        }
        assert!(began.elapsed() < Duration::from_secs(90), "it is still open");
        let _ = slow.write_all(b"x");
    }
    assert!(began.elapsed() > Duration::from_secs(10), "a slow client has its time: {:?}", began.elapsed());
}

/// A worker that keeps the driver busy, and uses little of a processor itself, is stopped by the clock. It says nothing of the record.
#[test]
fn a_worker_that_floods_the_console_is_stopped_by_the_clock() {
    let synthetic = synthetic::database();
    let worker = fake_worker(synthetic.dir.path(), "flood-console");
    for (limit, says) in [
        ("--delivery-wall-max", "one delivery took more than 2s by the clock"),
        ("--span-wall-max", "the span took more than 2s by the clock"),
    ] {
        let began = Instant::now();
        let mut arguments = vec!["verify", text(&synthetic.file), "--worker", text(&worker), "--format", "json"];
        arguments.extend(["--vat", "one", "--span", "0..6", limit, "2s"]);
        let run = spanwatch(&arguments);
        assert_eq!((run.verdicts(), run.code), (vec!["failed/limit".to_owned()], 4), "{limit}: {}{}", run.out, run.err);
        assert!(run.out.contains(says), "{limit}: {}", run.out);
        assert!(began.elapsed() < Duration::from_secs(60), "{limit}: {:?}", began.elapsed());
    }
    let bench = Bench::new(Keep::everything());
    let daemon = bench
        .setup("flood-console")
        .set("worker.delivery_wall_max=2s")
        .set("schedule.attempts_max=1")
        .set("watch.since=genesis")
        .start();
    let mut bench = bench;
    bench.close("v1");
    daemon.wait_for("a failure", |daemon| daemon.spans("failed") == 1);
    assert_eq!(daemon.spans("diverged"), 0);
    assert_eq!(daemon.metric("spanwatch_failures_total{reason=\"limit\"}"), 1.0);
}
