//! A real headless browser, led through its DevTools protocol.
//!
//! `scripts/browser.sh` gets it. It is talked to over a pair of pipes (`--remote-debugging-pipe`): JSON messages, a zero byte
//! after each. Source: the protocol's domains `Page`, `Network`, `Runtime`, `Log` and `Emulation`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wait::try_end;

/// Whatever is asked of the browser takes less than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// A page may ask for more a while after it is loaded.
const SETTLED: Duration = Duration::from_millis(300);

/// The file in its profile with what it said on its own error.
const SAID: &str = "said";

/// A browser with one page in it.
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    next: u64,
    session: String,
    events: Vec<Value>,
    /// With what it said on its own error.
    profile: tempfile::TempDir,
}

/// What happened while a page was loaded and shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The addresses that it asked for, its own first.
    pub requests: Vec<String>,
    /// What came on the console as an error or a warning, exceptions and broken policies among it.
    pub complaints: Vec<String>,
}

impl Browser {
    pub fn start() -> Self {
        Self::start_program(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/browser/run"))
    }

    /// Another program in its place.
    pub fn start_program(program: &Path) -> Self {
        assert!(program.exists(), "{} is missing: `scripts/browser.sh` gets it", program.display());
        let profile = tempfile::tempdir().expect("a directory");
        // Its ends of the pipes are the descriptors 3 and 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null", "sh"])
            .arg(program)
            .stderr(File::create(profile.path().join(SAID)).expect("a file"))
            .args(["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--force-color-profile=srgb"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the browser");
        let commands = process.stdin.take().expect("a pipe");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let (to, messages) = sync_channel(1024);
        std::thread::spawn(move || {
            for message in output.split(0) {
                let Ok(message) = message else { return };
                let message = serde_json::from_slice(&message).expect("JSON");
                if to.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser =
            Self { process, commands, messages, next: 0, session: String::new(), events: Vec::new(), profile };
        let target = browser.ask("Target.createTarget", &json!({"url": "about:blank", "width": 1280, "height": 900}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.ask("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Opens a page, in light or dark, and says what happened.
    pub fn open(&mut self, url: &str, is_dark: bool) -> Seen {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", &json!({"media": "", "features": features}));
        self.events.clear();
        let page = self.ask("Page.navigate", &json!({"url": url}));
        assert_eq!(page["errorText"], Value::Null, "{url}");
        let deadline = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            self.receive(deadline).expect("the page is loaded");
        }
        let settled = Instant::now() + SETTLED;
        while self.receive(settled).is_some() {}
        self.seen()
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for event in &self.events {
            let of = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => {
                    seen.requests.push(of["request"]["url"].as_str().expect("an address").to_owned());
                }
                "Network.webSocketCreated" => seen.requests.push(of["url"].to_string()),
                "Runtime.exceptionThrown" => seen.complaints.push(of["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" if of["type"] != "log" => seen.complaints.push(of["args"].to_string()),
                "Log.entryAdded" if of["entry"]["level"] != "verbose" => {
                    seen.complaints.push(of["entry"]["text"].to_string());
                }
                _ => {}
            }
        }
        seen
    }

    /// What an expression is worth in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let result = self.ask("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}));
        assert_eq!(result["exceptionDetails"], Value::Null, "{expression}");
        result["result"]["value"].clone()
    }

    /// Writes a picture of the whole page.
    pub fn picture(&mut self, to: &Path) -> PathBuf {
        let height = self.evaluate("document.documentElement.scrollHeight");
        let size = json!({"width": 1280, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", &size);
        let picture = self.ask("Page.captureScreenshot", &json!({"format": "png"}));
        let png = STANDARD.decode(picture["data"].as_str().expect("data")).expect("base64");
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
        std::fs::write(to, png).expect("write");
        to.to_owned()
    }

    /// The page as it would be printed, as PDF.
    pub fn print(&mut self) -> Vec<u8> {
        let printed = self.ask("Page.printToPDF", &json!({"printBackground": false}));
        STANDARD.decode(printed["data"].as_str().expect("data")).expect("base64")
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        if let Err(error) = self.commands.write_all(&bytes) {
            panic!("the browser does not listen: {error}; {}", self.end());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.receive(deadline).unwrap_or_else(|| panic!("no answer to {method}; {}", self.end()));
            if answer["id"] == id {
                assert_eq!(answer["error"], Value::Null, "{method}");
                return answer["result"].clone();
            }
        }
    }

    /// The next message, unless none comes in time; those that are no answers are kept.
    fn receive(&mut self, deadline: Instant) -> Option<Value> {
        match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(message) => {
                if message["id"].is_null() {
                    self.events.push(message.clone());
                }
                Some(message)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("{}", self.end()),
        }
    }

    /// How it ended, and what it said.
    fn end(&mut self) -> String {
        let how = match try_end(&mut self.process, SETTLED) {
            Some(status) => format!("ended ({status})"),
            None => "still runs".to_owned(),
        };
        let said = std::fs::read(self.profile.path().join(SAID)).unwrap_or_default();
        format!("the browser {how} and said:\n{}", String::from_utf8_lossy(&said))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a browser that can't start says is in the failure of the test.
#[test]
fn a_browser_that_cannot_start_is_heard() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("run");
    std::fs::write(&program, "#!/bin/sh\necho 'icudtl.dat not found in bundle' >&2\nkill -TRAP $$\n").expect("write");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let failure = std::panic::catch_unwind(|| drop(Browser::start_program(&program))).expect_err("it ends at once");
    let text = failure.downcast_ref::<String>().expect("a text");
    assert!(text.contains("icudtl.dat not found in bundle") && text.contains("signal: 5"), "{text}");
}
