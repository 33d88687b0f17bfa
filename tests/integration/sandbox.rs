//! What a worker can do in its sandbox, tried by programs that want to; and that a real worker misses nothing there.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde_json::Value;
use spanwatch::replay::{Limits, Named, Stopped, WorkerProgram, run_alone};
use spanwatch::sandbox::{Layer, Mode, POLICY, Sandbox, Settings};

use crate::lab::{lab, real_worker};
use crate::run::{Run, example, run, spanwatch, text};
use crate::skip::is_root;
use crate::synthetic;
use crate::wait::wait_for;

/// A policy that allows everything, to see what the other layers stop by themselves.
const EVERYTHING: &str = r#"{"worker":{"mismatch_action":"allow","match_action":"kill_process","filter":[
    {"syscall":"acct","comment":"one that nobody tries: the form wants a rule"}]}}"#;

/// What is there to be harmed: everything that an attempt asks for is there, and open to anybody but for the sandbox.
struct Victim {
    dir: tempfile::TempDir,
    secret: PathBuf,
    _listeners: (UnixListener, UnixListener, Option<TcpListener>),
}

fn victim() -> Victim {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("secret");
    fs::write(&secret, "the validator's key").expect("write");
    let socket = dir.path().join("socket");
    let address = SocketAddr::from_abstract_name("spanwatch-hostile").expect("a name");
    let listeners = (
        UnixListener::bind(&socket).expect("a socket"),
        UnixListener::bind_addr(&address).expect("a socket"),
        // Who is not root may not have this port; then a connection is refused, which is no harm either.
        TcpListener::bind("127.0.0.1:9").ok(),
    );
    for (path, mode) in [(dir.path(), 0o777), (&secret, 0o666), (&socket, 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    Victim { dir, secret, _listeners: listeners }
}

/// What comes of an attempt.
fn attempt(sandbox: &Sandbox, name: &str, secret: &Path) -> String {
    let limits = Limits {
        stall_max: Duration::from_secs(1),
        delivery_cpu_max: Duration::from_secs(1),
        resident_max: 256 << 20,
        printed_max: 1 << 20,
        ..Limits::default()
    };
    let parent = std::process::id().to_string();
    let end = run_alone(sandbox, &[name, secret.to_str().expect("text"), &parent], &limits).expect("it starts");
    match end.stopped {
        Some(Stopped::Sandbox(rule)) => {
            rule.rsplit_once("system call ").map_or(rule.clone(), |(_, call)| format!("seccomp: {call}"))
        }
        Some(Stopped::Limit(limit)) => format!("limit: {limit}"),
        Some(Stopped::Aborted) => "aborted".to_owned(),
        None => {
            let said = end.said.rsplit_once(": ").map_or(end.said.clone(), |(_, came)| came.to_owned());
            let status = end.status.expect("it ended");
            match (status.code(), status.signal()) {
                (Some(0), _) => said,
                (Some(code), _) => format!("exit {code}"),
                (None, Some(libc::SIGSYS)) => "SIGSYS".to_owned(),
                (None, Some(libc::SIGXFSZ)) => "SIGXFSZ".to_owned(),
                (None, Some(libc::SIGSEGV)) => "SIGSEGV".to_owned(),
                (None, Some(libc::SIGABRT)) => "SIGABRT".to_owned(),
                (None, signal) => format!("signal {signal:?}"),
            }
        }
    }
}

fn sandbox(settings: Settings) -> Sandbox {
    Sandbox::prepare(&example("hostile-worker"), settings).expect("a sandbox")
}

/// An attempt; what stops it in the base; and what the other layers make of it where seccomp allows everything: in the base,
/// and with namespaces. Empty where it does not matter because nobody can be harmed.
const TABLE: &[(&str, &str, [&str; 2])] = &[
    ("read-file", "EACCES", ["EACCES", "ENOENT"]),
    ("write-file", "EACCES", ["EACCES", "ENOENT"]),
    ("create-file", "EACCES", ["EACCES", "ENOENT"]),
    ("create-file-here", "ENOENT", ["ENOENT", "EROFS"]),
    ("create-file-in-tmp", "EACCES", ["EACCES", "ENOENT"]),
    ("list-directory", "EACCES", ["EACCES", "ENOENT"]),
    ("list-this-directory", "EACCES", ["EACCES", "EACCES"]),
    ("leave-directory", "EACCES", ["EACCES", "ENOENT"]),
    // Landlock does not hide that a file is there, nor its size.
    ("ask-for-size", "DONE", ["DONE", "ENOENT"]),
    ("remove-file", "seccomp: unlink", ["EACCES", "ENOENT"]),
    ("rename-file", "seccomp: rename", ["EACCES", "ENOENT"]),
    ("change-mode", "seccomp: chmod", ["", "ENOENT"]),
    ("read-own-environment", "EACCES", ["EACCES", "ENOENT"]),
    ("read-own-memory", "EACCES", ["EACCES", "ENOENT"]),
    ("read-parents-environment", "EACCES", ["EACCES", "ENOENT"]),
    ("read-parents-memory", "EACCES", ["EACCES", "ENOENT"]),
    ("copy-parents-memory", "seccomp: process_vm_readv", ["EPERM", "ESRCH"]),
    ("trace-parent", "seccomp: ptrace", ["EPERM", "ESRCH"]),
    ("signal-parent", "seccomp: kill", ["EPERM", "ESRCH"]),
    ("abort-parent", "seccomp: tgkill", ["EPERM", "ESRCH"]),
    // What `abort` calls for its own process, called for others. Without seccomp this could hit us.
    ("abort-parent-at-once", "seccomp: tgkill", ["", "ESRCH"]),
    ("abort-a-thread-of-others", "seccomp: tgkill", ["", ""]),
    ("signal-everyone", "seccomp: kill", ["", "ESRCH"]),
    ("tcp-socket", "seccomp: socket", ["", ""]),
    ("tcp-connection", "seccomp: socket", ["EACCES", "EACCES"]),
    ("udp-socket", "seccomp: socket", ["", ""]),
    ("raw-socket", "seccomp: socket", ["EPERM", "EPERM"]),
    ("netlink-socket", "seccomp: socket", ["", ""]),
    ("abstract-socket", "seccomp: socket", ["EPERM", "ECONNREFUSED"]),
    ("path-socket", "seccomp: socket", ["", "ENOENT"]),
    ("fork", "seccomp: clone", ["EAGAIN", "EAGAIN"]),
    ("thread", "seccomp: clone3", ["", ""]),
    ("exec", "seccomp: execve", ["EACCES", "ENOENT"]),
    ("exec-loader", "seccomp: execve", ["exit 127", "exit 127"]),
    ("exec-image", "seccomp: execveat", ["EACCES", "EACCES"]),
    // The loader runs, and finds nothing that it may run: only seccomp keeps a worker from being replaced.
    ("exec-again", "seccomp: execveat", ["exit 127", "exit 127"]),
    ("exec-memory-file", "seccomp: memfd_create", ["", ""]),
    ("user-namespace", "seccomp: unshare", ["", ""]),
    ("mount", "seccomp: mount", ["EPERM", "ENOENT"]),
    ("change-root", "seccomp: chroot", ["EPERM", "EPERM"]),
    ("become-root", "seccomp: setuid", ["EPERM", "EINVAL"]),
    ("trace-as-root", "seccomp: prctl", ["", ""]),
    ("load-bpf", "seccomp: bpf", ["EPERM", "EPERM"]),
    ("io-uring", "seccomp: io_uring_setup", ["", ""]),
    ("keyring", "seccomp: keyctl", ["", ""]),
    ("perf-event", "seccomp: perf_event_open", ["", ""]),
    ("page-faults", "seccomp: userfaultfd", ["", ""]),
    ("shared-memory", "seccomp: shmget", ["", ""]),
    ("share-memory", "seccomp: mmap", ["", ""]),
    ("share-memory-validated", "seccomp: mmap", ["", ""]),
    ("share-its-base", "seccomp: mmap", ["", ""]),
    ("share-zero-device", "EACCES", ["EACCES", "ENOENT"]),
    ("share-memory-file", "EACCES", ["EACCES", "ENOENT"]),
    ("take-huge-pages", "seccomp: mmap", ["", ""]),
    ("lock-memory", "seccomp: mmap", ["", ""]),
    ("fill-memory-at-once", "seccomp: mmap", ["", ""]),
    ("map-memory-twice", "seccomp: mremap", ["EINVAL", "EINVAL"]),
    ("raise-a-limit", "seccomp: prlimit64", ["EPERM", "EPERM"]),
    ("tune-descriptors", "seccomp: fcntl", ["", ""]),
    ("write-its-base", "EACCES", ["EACCES", "ENOENT"]),
    ("type-on-terminal", "seccomp: ioctl", ["", ""]),
    ("32-bit-call", "SIGSYS", ["SIGSYS", "SIGSYS"]),
    ("x32-call", "seccomp: number", ["", ""]),
    ("other-descriptors", "EBADF", ["EBADF", "EBADF"]),
    ("exhaust-processes", "seccomp: clone", ["EAGAIN", "EAGAIN"]),
    ("exhaust-memory", "limit: it used more than", ["limit: it used more than", "limit: it used more than"]),
    ("exhaust-page-tables", "limit: it used more than", ["limit: it used more than", "limit: it used more than"]),
    ("exhaust-disk", "limit: it did nothing", ["limit: it did nothing", "limit: it did nothing"]),
    ("exhaust-output", "limit: it printed more than", ["limit: it printed", "limit: it printed"]),
    ("exhaust-processor", "limit: one delivery took more", ["limit: one delivery", "limit: one delivery"]),
    ("exhaust-patience", "limit: it did nothing", ["limit: it did nothing", "limit: it did nothing"]),
    ("sleep", "seccomp: clock_nanosleep", ["", ""]),
    ("crash", "SIGSEGV", ["SIGSEGV", "SIGSEGV"]),
    ("abort", "aborted", ["SIGABRT", "SIGSEGV"]),
];

#[test]
fn nothing_that_is_tried_is_done() {
    let Victim { dir: _dir, secret, _listeners } = victim();
    let settings = |policy: Option<&str>| Settings { policy: policy.map(str::to_owned), ..Settings::default() };
    let base = sandbox(settings(None)).without_namespaces(String::new());
    let with_namespaces = sandbox(settings(None));
    let others =
        [sandbox(settings(Some(EVERYTHING))).without_namespaces(String::new()), sandbox(settings(Some(EVERYTHING)))];
    let mut wrong = Vec::new();
    let mut check = |name: &str, place: &str, came: &str, expected: &str| {
        println!("{name:26} {place:26} {came}");
        if !came.starts_with(expected) {
            wrong.push(format!("{name}, {place}: {came}, not {expected}"));
        }
    };
    for (name, stopped, without_seccomp) in TABLE {
        check(name, "in the base", &attempt(&base, name, &secret), stopped);
        // What seccomp lets pass meets an empty machine instead of rules.
        let is_call =
            stopped.starts_with("seccomp") || without_seccomp[1].is_empty() || without_seccomp[1] == "SIGSEGV";
        let expected = if is_call { stopped } else { &without_seccomp[1] };
        check(name, "with namespaces", &attempt(&with_namespaces, name, &secret), expected);
        for (sandbox, (place, expected)) in
            others.iter().zip(["base without seccomp", "all but seccomp"].into_iter().zip(without_seccomp))
        {
            if !expected.is_empty() {
                check(name, place, &attempt(sandbox, name, &secret), expected);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(fs::read_to_string(&secret).expect("it is still there"), "the validator's key");
    assert!(!Path::new("/tmp/spanwatch-hostile").exists());
    let documented = include_str!("../../docs/sandbox.md");
    for (name, ..) in TABLE {
        assert!(documented.contains(&format!("| `{name}` |")), "docs/sandbox.md does not list {name}");
    }
}

/// Each attempt as the verdict of a span that a hostile worker replays.
#[test]
fn what_the_sandbox_kills_is_never_a_divergence() {
    let synthetic = synthetic::database();
    let mut wrong = Vec::new();
    for (name, stopped, _) in TABLE {
        let (expected, says) = match stopped.split_once(": ") {
            Some(("seccomp", call)) => ("failed/sandbox", format!("does not allow the system call {call}")),
            Some(("limit", limit)) => ("failed/limit", limit.to_owned()),
            _ if *stopped == "SIGSYS" => ("failed/sandbox", "the kernel's log names it".to_owned()),
            // What ends the program or lets it go on is for the replay to judge.
            _ => continue,
        };
        let worker = synthetic.dir.path().join(format!("hostile.{name}"));
        fs::copy(example("hostile-worker"), &worker).expect("copy");
        let run = spanwatch(&[
            "verify",
            text(&synthetic.file),
            "--format",
            "json",
            "--worker",
            text(&worker),
            "--vat",
            "one",
            "--span",
            "0..6",
            "--stall-max",
            "1s",
            "--delivery-cpu-max",
            "1s",
            "--worker-memory-max",
            "128MiB",
        ]);
        // So much as it may print takes a while, and so does much memory.
        if *name != "exhaust-output" && (run.verdicts() != [expected] || run.code != 4 || !run.out.contains(&says)) {
            wrong.push(format!("{name}: {:?}, not {expected} ({says}): {}{}", run.verdicts(), run.out, run.err));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A worker in its sandbox, as the system sees it.
#[test]
fn a_sandboxed_process_has_nothing() {
    for (sandbox, has_namespaces) in
        [(sandbox(Settings::default()), true), (sandbox(Settings::default()).without_namespaces(String::new()), false)]
    {
        let limits = Limits { stall_max: Duration::from_secs(5), ..Limits::default() };
        std::thread::scope(|scope| {
            let running =
                scope.spawn(|| run_alone(&sandbox, &["exhaust-patience", "/", "1"], &limits).expect("it starts"));
            let pid = wait_for_child("exhaust-patience");
            let status = status(pid);
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(status[set], "0000000000000000", "{set}");
            }
            if rustix::process::geteuid().is_root() {
                assert_eq!(status["CapBnd"], "0000000000000000");
                assert_eq!(status["Uid"], "65534\t65534\t65534\t65534");
                assert_eq!(status["Gid"], "65534\t65534\t65534\t65534");
                assert_eq!(status["Groups"], "");
            }
            assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"));
            assert_eq!(status["Umask"], "0077");
            assert_eq!(status["SigIgn"], "0000000000000000");
            assert_eq!(status["SigBlk"], "0000000000000000");
            let numbers = status["NSpid"].split_whitespace().count();
            assert_eq!(numbers, if has_namespaces { 2 } else { 1 }, "{}", status["NSpid"]);
            // Its loader has a library open for a moment; what was left to it stays.
            let only_nine = || (descriptors(pid) == (0..9).collect::<Vec<_>>()).then_some(());
            wait_for(Duration::from_secs(2), only_nine, || format!("{:?}", descriptors(pid)));
            let target = |fd: u32| fs::read_link(format!("/proc/{pid}/fd/{fd}")).expect("a link");
            for fd in [0, 5, 6] {
                assert_eq!(target(fd), Path::new("/dev/null"), "{fd}");
            }
            for fd in [1, 2, 3, 4, 7] {
                assert!(text(&target(fd)).starts_with("pipe:"), "{fd}");
            }
            assert!(text(&target(8)).starts_with("/memfd:spanwatch-image"));
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/8")).expect("read");
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
            let flags = i32::from_str_radix(flags.trim(), 8).expect("a number");
            assert_eq!(flags & libc::O_ACCMODE, libc::O_RDONLY);
            let environment = fs::read_to_string(format!("/proc/{pid}/environ")).expect("read");
            assert!(environment.starts_with("TZ=") && environment.matches('=').count() == 1, "{environment:?}");
            let own = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("a link");
            let ours = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).expect("a link");
            for name in ["user", "mnt", "pid", "net", "ipc"] {
                assert_eq!(own(name) != ours(name), has_namespaces, "{name}");
            }
            // Another process of the same user could not look into it either.
            use std::os::unix::fs::MetadataExt;
            assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).expect("stat").uid(), 0, "it can be dumped");
            assert_eq!(
                running.join().expect("a run").stopped,
                Some(Stopped::Limit("it did nothing for 5s".to_owned()))
            );
        });
    }
}

fn descriptors(pid: u32) -> Vec<u32> {
    let mut fds: Vec<u32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list")
        .map(|fd| fd.expect("an entry").file_name().to_string_lossy().parse().expect("a number"))
        .collect();
    fds.sort_unstable();
    fds
}

fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("read");
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The process of ours that was started with this argument, once it runs.
fn wait_for_child(argument: &str) -> u32 {
    let running = || {
        for entry in fs::read_dir("/proc").expect("list").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let is_ours = || status(pid)["PPid"] == std::process::id().to_string();
            if words.split('\0').nth(1) == Some(argument) && is_ours() {
                return Some(pid);
            }
        }
        None
    };
    wait_for(Duration::from_secs(60), running, || format!("no process {argument}"))
}

/// Each rule is needed by what the probe does, or says that it was not seen and why it is there all the same.
#[test]
fn no_system_call_is_allowed_that_nobody_makes() {
    let policy: Value = serde_json::from_str(POLICY).expect("json");
    let rules = policy["worker"]["filter"].as_array().expect("rules");
    let mut calls: Vec<&str> = rules.iter().map(|rule| rule["syscall"].as_str().expect("a name")).collect();
    calls.dedup();
    // Ours, on the way to the worker: without them there is nobody to tell us, and we would wait.
    calls.retain(|call| !["sendmsg", "execveat"].contains(call));
    let mut wrong = Vec::new();
    for call in calls {
        let mut without = policy.clone();
        let rules = without["worker"]["filter"].as_array_mut().expect("rules");
        let is_unseen = rules
            .iter()
            .any(|rule| rule["syscall"] == call && rule["comment"].as_str().expect("a reason").starts_with("unseen: "));
        rules.retain(|rule| rule["syscall"] != call);
        let settings = Settings { policy: Some(without.to_string()), ..Settings::default() };
        let found = WorkerProgram::find(&Named::by_option(&[real_worker()]), &settings, &Limits::default());
        match (found, is_unseen) {
            (Ok(_), true) => {}
            (Ok(_), false) => wrong.push(format!("{call} is not needed")),
            (Err(error), false) if error.to_string().contains(call) => {}
            (Err(error), _) => wrong.push(format!("without {call}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Time zones and the depth of the stack are what they are outside, in every mode, and what is asked for.
#[test]
fn what_vats_can_see_of_the_machine_is_the_same_in_every_mode() {
    for stack in [1, 8, 64] {
        for (zone, offsets) in [("UTC", [0, 0]), ("America/New_York", [300, 240]), (":Asia/Kolkata", [-330, -330])] {
            let limits = Limits { stack: stack << 20, ..Limits::default() };
            let probes = [Mode::Off, Mode::Default, Mode::Strict].map(|mode| {
                let settings = Settings { mode, time_zone: Some(zone.into()), ..Settings::default() };
                let mut found =
                    WorkerProgram::find(&Named::by_option(&[real_worker()]), &settings, &limits).expect("a worker");
                found.remove(0).protection.probe.expect("an engine")
            });
            for probe in &probes {
                assert_eq!(probe.compare(limits.stack, zone.as_ref()), Ok(None));
                // Never quite the same: the system puts the stack at a place of chance, and the engine counts in pages.
                assert!(probe.nests.abs_diff(probes[0].nests) <= probes[0].nests / 50, "{probes:?}");
            }
            println!("{stack} MiB, {zone}: {probes:?}");
            assert_eq!(probes[0].offsets, offsets, "{zone}");
            // A thousand for each megabyte, and a little more.
            assert!((stack * 900..stack * 1_400).contains(&u64::from(probes[0].nests)), "{stack} MiB: {probes:?}");
        }
    }
}

/// All that is wrong with a run, as one text.
fn faults_of(run: &Run, spans: u64, layers: &[Layer]) -> Option<String> {
    let summary = run.lines("summary");
    let found: Vec<&str> = summary
        .first()
        .and_then(|summary| summary["workers"][0]["sandbox"]["layers"].as_array())
        .map(|layers| layers.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let expected: Vec<&str> = layers.iter().map(|layer| layer.label()).collect();
    let verified = run.verdicts().iter().filter(|verdict| *verdict == "verified").count() as u64;
    let is_good = run.code == 0 && verified == spans && spans > 0 && found == expected;
    (!is_good)
        .then(|| format!("exit {}, {verified} of {spans} verified, layers {found:?}: {}{}", run.code, run.out, run.err))
}

const BASE: [Layer; 7] = [
    Layer::Process,
    Layer::Descriptors,
    Layer::Limits,
    Layer::Privileges,
    Layer::Landlock,
    Layer::Seccomp,
    Layer::Watchdog,
];
const STRICT: [Layer; 8] = [
    Layer::Process,
    Layer::Descriptors,
    Layer::Limits,
    Layer::Privileges,
    Layer::Landlock,
    Layer::Seccomp,
    Layer::Namespaces,
    Layer::Watchdog,
];

/// A run over the lab in a mode, by a user, perhaps where user namespaces are refused.
fn verify_lab(mode: &str, user: Option<u32>, refuses_namespaces: bool) -> Run {
    let lab = lab("everything");
    // Who is not root may not be able to come to where this was built.
    let copy = tempfile::tempdir().expect("a directory");
    let of = |from: &Path, name: &str| {
        let to = copy.path().join(name);
        fs::copy(from, &to).expect("copy");
        to
    };
    let program = of(Path::new(env!("CARGO_BIN_EXE_spanwatch")), "spanwatch");
    let (worker, db) = (of(&real_worker(), "xsnap-worker"), of(&lab.file, "swingstore.sqlite"));
    for path in [copy.path(), &db] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let mut command = Command::new(program);
    command
        .args(["verify", text(&db), "--worker", text(&worker), "--format", "json", "--sandbox", mode])
        .args(["--vat", "bootstrap"])
        .env_clear()
        .current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    if refuses_namespaces {
        let filter = no_user_namespaces();
        // SAFETY: two system calls, and nothing is allocated where they succeed.
        #[expect(unsafe_code, reason = "a filter can only be set between fork and exec")]
        unsafe {
            command.pre_exec(move || {
                seccompiler::apply_filter(&filter).map_err(|_| std::io::ErrorKind::PermissionDenied.into())
            });
        }
    }
    run(command)
}

/// What a container's runtime does to `clone` with a new user namespace: EPERM.
fn no_user_namespaces() -> BpfProgram {
    let flag = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    let has_flag =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag).expect("a condition");
    let rule = SeccompRule::new(vec![has_flag]).expect("a rule");
    let calls = [(libc::SYS_clone, vec![rule.clone()]), (libc::SYS_unshare, vec![rule])];
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    SeccompFilter::new(calls.into(), SeccompAction::Allow, refuse, arch)
        .expect("a filter")
        .try_into()
        .expect("a program")
}

#[test]
fn a_real_worker_misses_nothing_whoever_runs_it() {
    let lab = lab("everything");
    let spans = lab.count(&format!(
        "SELECT count(*) FROM transcriptSpans WHERE isCurrent IS NULL AND vatID = '{}'",
        lab.vat("bootstrap")
    ));
    let mut users = vec![None];
    if is_root() {
        users.push(Some(12_345));
    }
    for user in users {
        for (mode, refuses_namespaces, layers) in
            [("strict", false, &STRICT[..]), ("default", false, &STRICT[..]), ("default", true, &BASE[..])]
        {
            let run = verify_lab(mode, user, refuses_namespaces);
            let faults = faults_of(&run, spans, layers);
            assert_eq!(faults, None, "{mode} as {user:?}, namespaces refused: {refuses_namespaces}");
        }
        let run = verify_lab("strict", user, true);
        assert_eq!(run.code, 1, "{}{}", run.out, run.err);
        assert!(run.err.contains("layer namespaces: ") && run.err.contains("(strict)"), "{}", run.err);
        let run = verify_lab("off", user, true);
        let left = [Layer::Process, Layer::Descriptors, Layer::Limits, Layer::Watchdog];
        assert_eq!(faults_of(&run, spans, &left), None, "off as {user:?}");
        assert!(run.err.contains("the sandbox is off"), "{}", run.err);
    }
}

#[test]
fn all_of_the_lab_is_verified_in_the_strictest_sandbox() {
    let lab = lab("everything");
    let closed = lab.count("SELECT count(*) FROM transcriptSpans WHERE isCurrent IS NULL");
    let worker = real_worker();
    let run =
        spanwatch(&["verify", text(&lab.file), "--worker", text(&worker), "--format", "json", "--sandbox", "strict"]);
    assert_eq!(faults_of(&run, closed, &STRICT), None);
}
