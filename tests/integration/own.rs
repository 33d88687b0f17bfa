//! What spanwatch writes is its own.
//!
//! Goal: nobody but the service can change what the daemon keeps, nobody outside its group can read it, and temporary
//! directories go whatever ends the program. Method: the daemon and the commands as root, as the service's user, as a member of its
//! group and as a stranger; each way in which a directory or a file can be another's.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bench::Bench;
use crate::beside::Setup;
use crate::run::{Run, fake_worker, run, spanwatch, text};
use crate::skip::is_root;
use crate::synthetic::Keep;
use crate::wait::wait_until;

/// The service's user and group, a member of the group, and a stranger.
const SERVICE: (u32, u32) = (12_345, 12_346);
const MEMBER: (u32, u32) = (12_347, 12_346);
const STRANGER: (u32, u32) = (12_348, 12_348);

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// Mode and owner of all that is in a directory, and of itself.
fn found(directory: &Path) -> BTreeMap<PathBuf, (u32, u32, u32)> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        // SQLite's own files come and go.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).expect("list").map(|entry| entry.expect("an entry").path()));
        }
        found.insert(path, (meta.mode() & 0o7777, meta.uid(), meta.gid()));
    }
    found
}

/// Directories have mode 0750, files 0640, and all one owner.
fn assert_closed(state: &Path, owner: (u32, u32)) {
    let found = found(state);
    assert!(found.keys().any(|path| path.ends_with("spanwatch.sqlite")), "{found:?}");
    for (path, (mode, uid, gid)) in found {
        let expected = if path.is_dir() { 0o750 } else { 0o640 };
        assert_eq!((format!("{mode:o}"), uid, gid), (format!("{expected:o}"), owner.0, owner.1), "{}", path.display());
    }
}

/// A copy of the program that every user can run.
fn program_for_all(dir: &Path) -> PathBuf {
    let program = dir.join("spanwatch");
    fs::copy(env!("CARGO_BIN_EXE_spanwatch"), &program).expect("copy");
    chmod(&program, 0o755);
    chmod(dir, 0o755);
    program
}

fn words_as(user: (u32, u32), program: &Path) -> Vec<String> {
    let script = format!("shift; exec {} \"$@\"", text(program));
    let (uid, gid) = (format!("--reuid={}", user.0), format!("--regid={}", user.1));
    ["setpriv", &uid, &gid, "--clear-groups", "sh", "-c", &script, "sh"].map(str::to_owned).into()
}

fn run_as(user: (u32, u32), program: &Path, arguments: &[&str]) -> Run {
    let words = words_as(user, program);
    let mut command = Command::new(&words[0]);
    // The program's own name is dropped by the script.
    command.args(&words[1..]).arg("").args(arguments).env_remove("SPANWATCH_CONFIG");
    run(command)
}

/// A bench whose daemon finds a divergence, as root or as the service's user.
fn diverging(bench: &Bench, directive: &str) -> Setup {
    bench.setup(directive).set("evidence.repeats=1")
}

#[test]
fn nothing_is_readable_by_the_world_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let mut bench = Bench::new(Keep::everything());
        let mut setup = diverging(&bench, "wrong-syscall");
        setup.state = bench.dir.path().join("new/state");
        fs::create_dir(bench.dir.path().join("new")).expect("make");
        let before = format!("umask {umask}; rmdir \"$0\"; exec \"$@\"");
        setup.wrapper = ["sh", "-c", &before, text(&setup.state)].map(str::to_owned).into();
        let daemon = setup.start();
        daemon.wait_for_block(1);
        bench.close("v1");
        daemon.wait_for_spans(1);
        daemon.wait_for("evidence", |daemon| daemon.metric("spanwatch_evidence_folders") > 0.0);
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        assert_closed(&setup.state, owner);
        let names: Vec<PathBuf> = found(&setup.state).into_keys().collect();
        for name in ["spanwatch.sqlite-wal", "spanwatch.sqlite-shm", "lock", "manifest.json", ".lock"] {
            assert!(names.iter().any(|path| path.ends_with(name)), "{umask} {name} {names:?}");
        }
    }
}

/// The daemon as its own user, `ack` and `verdicts` as root, at each moment at which SQLite makes files.
#[test]
fn root_makes_nothing_that_the_service_cannot_write() {
    if !is_root() {
        return;
    }
    let mut bench = Bench::new(Keep::everything());
    let program = program_for_all(bench.dir.path());
    for (path, mode) in [("agoric", 0o755), ("agoric/swingstore.sqlite", 0o644)] {
        chmod(&bench.dir.path().join(path), mode);
    }
    for name in ["-wal", "-shm"] {
        chmod(&bench.dir.path().join(format!("agoric/swingstore.sqlite{name}")), 0o644);
    }
    let mut setup = diverging(&bench, "wrong-syscall");
    fs::create_dir(&setup.state).expect("make");
    chown(&setup.state, Some(SERVICE.0), Some(SERVICE.1)).expect("chown");
    setup.wrapper = words_as(SERVICE, &program);
    let state = setup.state.clone();
    let daemon = setup.start();
    daemon.wait_for_block(1);
    bench.close("v1");
    daemon.wait_for_spans(1);
    let id = daemon.verdicts()[0]["id"].as_str().expect("an id").to_owned();
    assert_closed(&state, SERVICE);
    let ack = |note: &str| spanwatch(&["ack", &id, "--note", note, "--state-dir", text(&state)]);
    assert_eq!(ack("beside the daemon").code, 0);
    assert_closed(&state, SERVICE);
    // Killed, it leaves -wal and -shm; stopped, it takes them with it, and `ack` makes them anew.
    daemon.kill();
    assert_eq!(ack("after a kill").code, 0);
    assert_eq!(spanwatch(&["verdicts", "--state-dir", text(&state)]).code, 0);
    assert_closed(&state, SERVICE);
    let daemon = setup.start();
    bench.close("v1");
    daemon.wait_for_spans(2);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(ack("after a stop").code, 0);
    assert_closed(&state, SERVICE);

    // The daemon itself as root writes what the service can go on with; files of root's from before are given back.
    for name in ["spanwatch.sqlite", "lock"] {
        chown(state.join(name), Some(0), Some(0)).expect("chown");
    }
    let mut as_root = diverging(&bench, "wrong-syscall");
    as_root.state = state.clone();
    let daemon = as_root.start();
    bench.close("v2");
    daemon.wait_for_spans(3);
    daemon.wait_for("evidence", |daemon| daemon.metric("spanwatch_evidence_folders") > 1.0);
    assert_closed(&state, SERVICE);
    daemon.kill();
    let daemon = setup.start();
    bench.close("v1");
    daemon.wait_for_spans(4);
    assert_closed(&state, SERVICE);
}

#[test]
fn what_an_earlier_version_left_open_is_closed_at_the_start() {
    let mut bench = Bench::new(Keep::everything());
    let setup = diverging(&bench, "wrong-syscall");
    let daemon = setup.start();
    daemon.wait_for_block(1);
    bench.close("v1");
    daemon.wait_for_spans(1);
    daemon.wait_for("evidence", |daemon| daemon.metric("spanwatch_evidence_folders") > 0.0);
    daemon.kill();
    for (path, _) in found(&setup.state) {
        chmod(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    let daemon = setup.start();
    let told = daemon.logged("closed to other users");
    assert!(told.len() == 2 && told[1]["level"] == "WARN", "{told:?}");
    assert!(told[1]["message"].as_str().is_some_and(|text| text.contains("(0755, now 0750) and ")), "{told:?}");
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_closed(&setup.state, owner);
    bench.close("v1");
    daemon.wait_for_spans(2);
    assert_eq!(daemon.verdicts().len(), 2, "the verdicts are still there");
    daemon.kill();
    let daemon = setup.start();
    assert_eq!(daemon.logged("closed to other users").len(), 2, "nothing was left to be closed");
    // A stricter mode is the operator's choice.
    daemon.kill();
    chmod(&setup.state, 0o700);
    let _daemon = setup.start();
    assert_eq!(fs::metadata(&setup.state).expect("the state").mode() & 0o7777, 0o700);
}

/// Each way in which a state directory, or what is in it, could be another's.
#[test]
fn a_state_directory_that_others_can_change_is_refused() {
    type Change = fn(&Path, &Path);
    let cases: [(&str, &str, Change); 16] = [
        ("0777", "can write to it (mode 0777)", |state, _| chmod(state, 0o777)),
        ("0775", "can write to it (mode 0775)", |state, _| chmod(state, 0o775)),
        ("0757", "can write to it (mode 0757)", |state, _| chmod(state, 0o757)),
        ("sticky", "can write to it (mode 1777)", |state, _| chmod(state, 0o1777)),
        ("the one above", "every user can write to", |state, _| chmod(state.parent().expect("a parent"), 0o777)),
        ("a link", "it is a symbolic link; name the directory itself", |state, elsewhere| {
            fs::remove_dir_all(state).expect("remove");
            symlink(elsewhere, state).expect("link");
        }),
        ("a link to nowhere", "it is a symbolic link", |state, elsewhere| {
            fs::remove_dir_all(state).expect("remove");
            symlink(elsewhere.join("nothing"), state).expect("link");
        }),
        ("a file", "it is not a directory", |state, _| {
            fs::remove_dir_all(state).expect("remove");
            fs::write(state, "").expect("write");
        }),
        ("linked lock", "lock is not safe to use: it is a symbolic link", |state, elsewhere| {
            replace_by_link(&state.join("lock"), elsewhere);
        }),
        ("linked store", "spanwatch.sqlite is not safe to use: it is a symbolic link", |state, elsewhere| {
            replace_by_link(&state.join("spanwatch.sqlite"), elsewhere);
        }),
        ("linked -wal", "spanwatch.sqlite-wal is not safe to use: it is a symbolic link", |state, elsewhere| {
            replace_by_link(&state.join("spanwatch.sqlite-wal"), elsewhere);
        }),
        ("linked -shm", "spanwatch.sqlite-shm is not safe to use: it is a symbolic link", |state, elsewhere| {
            replace_by_link(&state.join("spanwatch.sqlite-shm"), elsewhere);
        }),
        ("a FIFO as lock", "lock is not safe to use: it is a FIFO", |state, _| fifo(&state.join("lock"))),
        ("a FIFO as -wal", "spanwatch.sqlite-wal is not safe to use: it is a FIFO", |state, _| {
            fifo(&state.join("spanwatch.sqlite-wal"));
        }),
        ("linked evidence", "evidence is not safe to use: it is a symbolic link", |state, elsewhere| {
            symlink(elsewhere, state.join("evidence")).expect("link");
        }),
        ("linked evidence lock", ".lock: it is a symbolic link", |state, elsewhere| {
            fs::create_dir(state.join("evidence")).expect("make");
            symlink(elsewhere.join("file"), state.join("evidence/.lock")).expect("link");
        }),
    ];
    let bench = Bench::new(Keep::everything());
    for (name, says, change) in cases {
        let dir = tempfile::tempdir().expect("a directory");
        let mut setup = bench.setup("ok");
        setup.state = dir.path().join("above/state");
        fs::create_dir_all(&setup.state).expect("make");
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("make");
        fs::write(elsewhere.join("file"), "of somebody else").expect("write");
        change(&setup.state, &elsewhere);
        let before = found(&elsewhere);
        let refused = setup.fail();
        assert_eq!(refused.code, 1, "{name}: {}", refused.err);
        assert!(refused.err.contains(says), "{name}: {}", refused.err);
        assert_eq!(found(&elsewhere), before, "{name}");
        assert_eq!(fs::read_to_string(elsewhere.join("file")).expect("a file"), "of somebody else", "{name}");
    }
}

fn replace_by_link(path: &Path, elsewhere: &Path) {
    let _ = fs::remove_file(path);
    symlink(elsewhere.join("file"), path).expect("link");
}

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .expect("a FIFO");
}

#[test]
fn a_state_directory_of_another_user_is_refused() {
    if !is_root() {
        return;
    }
    let bench = Bench::new(Keep::everything());
    let program = program_for_all(bench.dir.path());
    for (owner, file_owner, says) in [
        (STRANGER, STRANGER, "it belongs to user 12348, and spanwatch runs as user 12345"),
        ((0, 0), (0, 0), "it belongs to user 0, and spanwatch runs as user 12345"),
        (SERVICE, (0, 0), "spanwatch.sqlite is not safe to use: it belongs to user 0"),
    ] {
        let state = bench.dir.path().join("state");
        let _ = fs::remove_dir_all(&state);
        fs::create_dir(&state).expect("make");
        fs::write(state.join("spanwatch.sqlite"), "").expect("write");
        chown(&state, Some(owner.0), Some(owner.1)).expect("chown");
        chown(state.join("spanwatch.sqlite"), Some(file_owner.0), Some(file_owner.1)).expect("chown");
        let worker = fake_worker(bench.dir.path(), "ok");
        let database = bench.file();
        let arguments =
            ["run", "--state-dir", text(&state), "--db", text(&database), "--worker", text(&worker), "--listen", ""];
        let refused = run_as(SERVICE, &program, &arguments);
        assert!(refused.code == 1 && refused.err.contains(says), "{says}: {}", refused.err);
    }
}

/// Members of the directory's group list verdicts while the daemon runs, after it was killed and after it has stopped, and
/// leave no trace; others are told why not.
#[test]
fn readers_need_the_group_and_nothing_else() {
    if !is_root() {
        return;
    }
    let mut bench = Bench::new(Keep::everything());
    let program = program_for_all(bench.dir.path());
    let setup = diverging(&bench, "wrong-syscall");
    let state = setup.state.clone();
    fs::create_dir(&state).expect("make");
    chown(&state, Some(SERVICE.0), Some(SERVICE.1)).expect("chown");
    let check = |when: &str, spans: usize, id: &str| {
        let before = found(&state);
        let list = ["verdicts", "--state-dir", text(&state), "--format", "json"];
        let member = run_as(MEMBER, &program, &list);
        assert_eq!((member.code, member.lines("verdict").len()), (3, spans), "{when}: {}", member.err);
        let stranger = run_as(STRANGER, &program, &list);
        assert!(stranger.code == 1 && stranger.err.contains("the members of its group"), "{when}: {}", stranger.err);
        let ack = run_as(MEMBER, &program, &["ack", id, "--state-dir", text(&state)]);
        assert!(ack.code == 1 && ack.err.contains("it belongs to user 12345"), "{when}: {}", ack.err);
        assert_eq!(found(&state), before, "{when}");
    };
    let daemon = setup.start();
    daemon.wait_for_block(1);
    bench.close("v1");
    daemon.wait_for_spans(1);
    let id = daemon.verdicts()[0]["id"].as_str().expect("an id").to_owned();
    check("while it runs", 1, &id);
    daemon.kill();
    check("after a kill", 1, &id);
    let daemon = setup.start();
    bench.close("v1");
    daemon.wait_for_spans(2);
    check("while it runs again", 2, &id);
    assert_eq!(daemon.stop(), Some(0));
    check("after a stop", 2, &id);
}

/// A command that has made a temporary directory and goes on for long.
fn waiting(arguments: &[&str], temporary: &Path) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_spanwatch"))
        .args(arguments)
        .env_remove("SPANWATCH_WORKER")
        .env("TMPDIR", temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spanwatch");
    let is_made = || names(temporary).iter().any(|name| name.starts_with("spanwatch-copy-"));
    wait_until(Duration::from_secs(60), is_made, || format!("no temporary directory: {:?}", names(temporary)));
    child
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("list");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn temporary_directories_go_with_a_signal_and_after_a_kill() {
    // A database whose writer died, of which a copy is read.
    let crashed = tempfile::tempdir().expect("a directory");
    let mut bench = Bench::new(Keep::everything());
    bench.close("v1");
    let database = crashed.path().join("swingstore.sqlite");
    for suffix in ["", "-wal"] {
        let (from, to) = (format!("{}{suffix}", text(&bench.file())), format!("{}{suffix}", text(&database)));
        fs::copy(from, to).expect("copy");
    }
    let hangs = fake_worker(crashed.path(), "hang");
    let verify = ["verify", text(&database), "--worker", text(&hangs)];
    let temporary = tempfile::tempdir().expect("a directory");
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let mut child = waiting(&verify, temporary.path());
        let status = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(status.expect("kill").success());
        let status = child.wait().expect("wait");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(number), "{signal}");
        assert_eq!(names(temporary.path()), [""; 0], "{signal}");
    }
    let mut child = waiting(&verify, temporary.path());
    for path in found(temporary.path()).into_keys().filter(|path| path != temporary.path() && path.is_dir()) {
        let is_top = path.parent() == Some(temporary.path());
        assert!(!is_top || fs::metadata(&path).expect("meta").mode() & 0o7777 == 0o700, "{}", path.display());
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(names(temporary.path()).len(), 1, "a kill leaves it");
    let mut next = waiting(&verify, temporary.path());
    let left = || names(temporary.path()).into_iter().filter(|name| !name.starts_with("spanwatch-empty"));
    let explain = || format!("the next run removes it: {:?}", names(temporary.path()));
    wait_until(Duration::from_secs(60), || left().count() <= 1, explain);
    next.kill().expect("kill");
    next.wait().expect("wait");
    for name in names(temporary.path()) {
        fs::remove_dir_all(temporary.path().join(name)).expect("remove");
    }
}

#[test]
fn a_wrong_configuration_exits_with_2_and_the_service_stays_down() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("spanwatch.toml");
    let state = text(dir.path());
    for (content, says) in [
        ("[watch]\npoll_interval = \"soon\"\n", "poll_interval"),
        ("[watch\n", "not TOML"),
        ("nonsense = 1\n", "no such key"),
    ] {
        fs::write(&file, content).expect("write");
        let config = ["--config", text(&file)];
        let id = ["v1.0.5-00000000"];
        for (command, more) in [("run", &[][..]), ("config", &[]), ("verdicts", &[]), ("ack", &id)] {
            let run = spanwatch(&[&[command], more, &config, &["--state-dir", state]].concat());
            assert_eq!(run.code, 2, "{command}: {}", run.err);
            assert!(run.err.contains(says), "{command}: {}", run.err);
        }
    }
    let missing = spanwatch(&["config", "--config", "/no/such/file"]);
    assert_eq!(missing.code, 2, "{}", missing.err);
    let nowhere = spanwatch(&["run", "--state-dir", state]);
    assert!(nowhere.code == 2 && nowhere.err.contains("node.database"), "{}", nowhere.err);
    let unit = include_str!("../../config/spanwatch.service");
    let prevented = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    assert_eq!(prevented, Some("2"), "only what would fail again in the same way");
}
