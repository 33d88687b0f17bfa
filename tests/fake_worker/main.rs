//! A stand-in for a worker that does what its file name says after the dot: `fake.ok` works, `fake.hang` hangs.
//!
//! For faults that a real worker cannot be brought to. A directive takes effect in the second message of a span, or
//! where its name says. With `-printing` behind it (`fake.hang-printing`) it prints before each syscall.
//!
//! It has no Rust runtime, as that makes system calls at its start which no worker makes, and for which the sandbox would kill
//! it. Some directives need more than the sandbox allows: they are for runs without one.

#![no_main]
#![expect(clippy::expect_used, reason = "whatever goes wrong here ends the worker, as it should")]
#![expect(clippy::disallowed_methods, reason = "a worker prints what it likes, and that is not our terminal")]
#![expect(unsafe_code, reason = "takes the descriptors that it is given by number, and misbehaves on purpose")]

mod model;

use std::fs::File;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{Heap, computrons, syscalls_of};

/// Nothing is closed in it, as its files ask first whether they are open, which no worker does.
struct Worker {
    directive: String,
    is_printing: bool,
    commands: File,
    replies: File,
    heap: Heap,
    messages: u32,
}

/// The arguments come to us by way of libc all the same.
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    run();
    0
}

/// Whether no worker of this name has asked before.
fn is_first(what: &str) -> bool {
    let mark = format!("{}.{what}", std::env::args().next().expect("a program"));
    let is_first = !Path::new(&mark).exists();
    File::create(mark).expect("create");
    is_first
}

fn run() {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    if arguments == ["-v"] {
        println!("xsnap 0.0.0 (XS fake)");
        return;
    }
    let name = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let directive = name.split_once('.').map_or("ok", |(_, directive)| directive);
    let is_printing = directive.ends_with("-printing");
    let directive = directive.trim_end_matches("-printing").to_owned();
    // SAFETY: the driver opens these two for us, and nothing else here uses them.
    let (commands, replies) = unsafe { (File::from_raw_fd(3), File::from_raw_fd(4)) };
    let mut heap = Heap::blank();
    if arguments.iter().any(|argument| argument == "-r") {
        // SAFETY: the driver opens this one when it says -r.
        let image = text_of(unsafe { File::from_raw_fd(8) });
        if directive == "cannot-load" {
            eprintln!("cannot read snapshot");
            std::process::exit(2);
        }
        heap = Heap::from_image(&image).expect("an image of ours");
    }
    Worker { directive, is_printing, commands, replies, heap, messages: 0 }.run();
}

/// All of a file, without a question after its size.
fn text_of(file: File) -> String {
    let mut file = ManuallyDrop::new(file);
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match file.read(&mut chunk).expect("an image") {
            0 => return String::from_utf8(bytes).expect("an image of text"),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

impl Worker {
    fn run(mut self) {
        while let Some(command) = self.receive() {
            match command.first() {
                Some(b'R') => self.send(b"."),
                Some(b'w') => self.save(),
                Some(b'e') => {
                    self.heap.take(&command);
                    self.reply(0, "");
                }
                Some(b'?') => {
                    self.heap.take(&command);
                    let tagged: serde_json::Value = serde_json::from_slice(&command[1..]).expect("json");
                    if tagged[0] == "setBundle" {
                        if self.is("bad-set-bundle") {
                            self.reply(0, "[garbage");
                            continue;
                        }
                        let ready =
                            if self.is("not-ready") { r#"["error","TypeError","no"]"# } else { r#"["dispatchReady"]"# };
                        self.reply(0, ready);
                    } else {
                        self.deliver(&tagged[1]);
                    }
                }
                _ => std::process::exit(2),
            }
        }
    }

    fn is(&self, directive: &str) -> bool {
        self.directive == directive
    }

    fn deliver(&mut self, delivery: &serde_json::Value) {
        let mut syscalls = syscalls_of(delivery);
        self.messages += u32::from(delivery[0] == "message");
        let is_now = self.messages == 2 && delivery[0] == "message";
        let mut cost = computrons(syscalls.len());
        let mut status = "ok";
        if is_now {
            match self.directive.as_str() {
                "wrong-syscall-once" => {
                    if is_first("was-wrong") {
                        syscalls[1] = r#"["vatstoreSet","changed","1"]"#.to_owned();
                    }
                }
                "wrong-syscall" => syscalls[1] = r#"["vatstoreSet","changed","1"]"#.to_owned(),
                "words" => {
                    syscalls[1] = serde_json::json!(["vatstoreSet", model::WORDS, model::WORDS]).to_string();
                    self.say(model::WORDS);
                }
                "extra-syscall" => syscalls.insert(1, r#"["vatstoreDelete","extra"]"#.to_owned()),
                "missing-syscall" => drop(syscalls.remove(1)),
                "swapped-syscalls" => syscalls.swap(0, 2),
                "unanswerable" => syscalls[0] = r#"["vatstoreGet","unknown"]"#.to_owned(),
                "computrons" => cost += 1,
                "error-status" => status = "error",
                "slow" => {
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(1_500) {
                        std::hint::spin_loop();
                    }
                }
                "wrong-hash" => self.heap.take(b"something else"),
                "flaky" => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_nanos();
                    self.heap.take(&now.to_le_bytes());
                }
                _ => self.misbehave(),
            }
        }
        for syscall in syscalls {
            if self.is_printing {
                self.send(b"?[\"sourcedConsole\",\"ls\",\"log\",\"about to make a syscall\"]");
                self.receive();
            }
            self.send(format!("?[\"syscall\",{syscall}]").as_bytes());
            let Some(response) = self.receive() else { std::process::exit(0) };
            self.heap.take(&response);
        }
        self.reply(cost, &format!("[\"{status}\",null]"));
    }

    /// Says something by all ways that it has: its output, its error and the vat's console.
    fn say(&mut self, words: &str) {
        let _ = std::io::stdout().write_all(words.as_bytes());
        let _ = std::io::stderr().write_all(words.as_bytes());
        let console = serde_json::json!(["sourcedConsole", "ls", "log", words]);
        self.send(format!("?{console}").as_bytes());
        self.receive();
    }

    /// What no worker does.
    fn misbehave(&mut self) {
        if let Some(code) = self.directive.strip_prefix("exit-") {
            std::process::exit(code.parse().expect("a code"));
        }
        if let Some(signal) = self.directive.strip_prefix("signal-") {
            let signal = signal.parse().expect("a number");
            // SAFETY: sends a signal to this process, which ends it, as its handler is taken away.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
        match self.directive.as_str() {
            // For a command that nobody sends before there is an answer.
            "hang" => while self.receive().is_some() {},
            "spin" => loop {
                std::hint::spin_loop();
            },
            "drip" => {
                self.raw(b"1000:");
                loop {
                    self.raw(b"x");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            "flood-output" => {
                let text = [b'x'; 1 << 16];
                while std::io::stdout().write_all(&text).is_ok() {}
            }
            "flood-console" => loop {
                self.send(b"?[\"sourcedConsole\",\"ls\",\"log\",\"again\"]");
                if self.receive().is_none() {
                    std::process::exit(0);
                }
            },
            "flood-replies" => while self.replies.write_all(b"9:?[\"noise\"").is_ok() {},
            "promise-900-mb" => self.raw(b"900000000:x"),
            "garbage" => self.raw(b"hello, I am not a worker"),
            "cut-message" => {
                self.raw(b"100:.{}");
                std::process::exit(0);
            }
            "empty-message" => self.send(b""),
            "unknown-message" => self.send(b"xyz"),
            "unknown-query" => self.send(b"?[\"noise\"]"),
            "bad-meter" => self.send(b".noise\x01[\"ok\"]"),
            "short-of-memory-once" if is_first("was-short") => std::process::exit(11),
            "bad-reply" => self.reply(1, "42"),
            "no-meter" => self.send(b".[\"ok\",null]"),
            "bad-syscall" => self.send(b"?[\"syscall\",%%%%]"),
            "uncaught" => self.send(b"!TypeError: no"),
            "close-pipes" => {
                // SAFETY: closes a descriptor that this process does not use again.
                unsafe { libc::close(4) };
                std::thread::sleep(Duration::from_secs(1_000));
            }
            "grow" => {
                let mut memory = Vec::new();
                loop {
                    memory.push(vec![1_u8; 1 << 20]);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            "leave-a-stray" => {
                // In a session of its own, with all descriptors that it can get.
                let script = "exec /bin/sleep 20 <&3 >&4";
                std::process::Command::new("/usr/bin/setsid").args(["/bin/sh", "-c", script]).spawn().expect("a child");
                std::thread::sleep(Duration::from_millis(200));
                std::process::exit(3);
            }
            "leave-a-child" => {
                std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("a child");
                std::process::exit(0);
            }
            _ => {}
        }
    }

    fn save(&mut self) {
        let image = self.heap.image();
        // SAFETY: the driver opens this one for us; it is used once.
        let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(7) });
        if self.is("huge-image") {
            let zeros = vec![0; 1 << 20];
            for _ in 0..3 << 10 {
                if file.write_all(&zeros).is_err() {
                    std::process::exit(2);
                }
            }
        }
        if file.write_all(image.as_bytes()).is_err() {
            std::process::exit(2);
        }
        let stated = if self.is("wrong-size") { 7 } else { image.len() };
        self.reply(0, &stated.to_string());
    }

    fn reply(&mut self, cost: u64, body: &str) {
        let meter = format!(r#".{{"compute":{cost},"allocate":1,"currentHeapCount":1,"timestamps":[1]}}"#);
        self.send(format!("{meter}\u{1}{body}").as_bytes());
    }

    fn send(&mut self, message: &[u8]) {
        let netstring = [format!("{}:", message.len()).as_bytes(), message, b","].concat();
        self.raw(&netstring);
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.replies.write_all(bytes).is_err() {
            std::process::exit(2);
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = 0;
        loop {
            let mut byte = [0];
            if self.commands.read(&mut byte).ok()? == 0 {
                return None;
            }
            match byte[0] {
                b':' => break,
                digit => length = length * 10 + usize::from(digit - b'0'),
            }
        }
        let mut message = vec![0; length + 1];
        self.commands.read_exact(&mut message).ok()?;
        message.pop();
        Some(message)
    }
}
