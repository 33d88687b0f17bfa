//! The command line's habits: units, aliases, exit codes, variables, the log's level and color.
//!
//! Goal: flags do what the same flags of other programs do, old spellings go on working, and each wrong value is refused by name.
//! Method: the program is run with each of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::Bench;
use crate::run::{Run, fake_worker, run, spanwatch, text};
use crate::synthetic::{self, Keep, Synthetic};

/// Runs the program with some variables.
fn with_variables(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanwatch"));
    command.args(arguments).env_remove("SPANWATCH_WORKER").env_remove("XSNAP_WORKER").env_remove("SPANWATCH_LOG");
    command.envs(variables.iter().copied());
    run(command)
}

fn verify(synthetic: &Synthetic, directive: &str, more: &[&str]) -> Run {
    let worker = fake_worker(synthetic.dir.path(), directive);
    let first = ["verify", text(&synthetic.file), "--worker", text(&worker), "--vat", "one", "--sandbox", "off"];
    spanwatch(&[&first[..], more].concat())
}

#[test]
fn units_are_those_of_the_configuration() {
    let synthetic = synthetic::database();
    let with_units = ["--stall-max", "90s", "--delivery-cpu-max", "10m", "--span-cpu-max", "1h 30m"];
    let sizes = ["--worker-memory-max", "2GiB", "--worker-stack", "8MiB"];
    let run = verify(&synthetic, "ok", &[&with_units[..], &sizes].concat());
    assert!(run.code == 0 && !run.err.contains("deprecated"), "{}", run.err);
    // Numbers alone mean what they always meant, and say how they are written now.
    let run = verify(&synthetic, "ok", &["--stall-max", "90", "--worker-memory-max", "2048", "--worker-stack", "8"]);
    assert_eq!(run.code, 0, "{}", run.err);
    for written in ["--stall-max 90s", "--worker-memory-max 2048MiB", "--worker-stack 8MiB"] {
        assert!(run.err.contains(&format!("deprecated; write {written}")), "{written}: {}", run.err);
    }
    assert_eq!(run.err.lines().filter(|line| line.contains("deprecated")).count(), 3, "{}", run.err);
    let hanging = verify(&synthetic, "hang", &["--span", "0..6", "--stall-max", "1"]);
    assert!(hanging.out.contains("it did nothing for 1s"), "{}", hanging.out);
    for (flag, wrong, says) in [
        ("--stall-max", "soon", "a duration such as 60s or 10m"),
        ("--stall-max", "0", "from 1s to"),
        ("--worker-memory-max", "6GB", "a size such as 64MiB or 6GiB"),
        ("--worker-stack", "2GiB", "from 1MiB to 1GiB"),
    ] {
        let run = verify(&synthetic, "ok", &[flag, wrong]);
        assert!(run.code == 2 && run.err.contains(says), "{flag} {wrong}: {}", run.err);
    }
    let help = spanwatch(&["verify", "--help"]).out;
    assert!(help.contains("a number without a unit is deprecated and means seconds, or MiB"), "{help}");
}

#[test]
fn repeats_is_the_same_flag_everywhere() {
    for command in ["verify", "replay", "bisect"] {
        let help = spanwatch(&[command, "--help"]).out;
        assert!(help.contains("--repeats <N>"), "{command}: {help}");
    }
    let synthetic = synthetic::database();
    let evidence = synthetic.dir.path().join("evidence");
    let run = verify(&synthetic, "computrons", &["--span", "0..6", "--repeats", "1", "--evidence", text(&evidence)]);
    assert_eq!(run.code, 3, "{}", run.err);
    let mut folders = std::fs::read_dir(&evidence).expect("evidence").map(|entry| entry.expect("an entry").path());
    let folder = folders.find(|path| path.is_dir()).expect("a folder");
    let worker = fake_worker(synthetic.dir.path(), "computrons");
    for repeats in ["--repeats", "--repeat"] {
        let run = spanwatch(&["replay", text(&folder), "--worker", text(&worker), "--sandbox", "off", repeats, "2"]);
        assert_eq!(run.code, 3, "{repeats}: {}", run.err);
    }
}

#[test]
fn a_wrong_configuration_is_exit_code_2_everywhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = text(dir.path());
    for command in [&["run"][..], &["config"], &["config", "--check"], &["verdicts"], &["ack", "v1.0.6-00000000"]] {
        for wrong in ["log.level=inof", "log.level=spanwatch", "no.such=1", "watch.poll_interval=5"] {
            let run = spanwatch(&[command, &["--state-dir", state, "--set", wrong]].concat());
            let (key, _) = wrong.split_once('=').expect("a key");
            assert!(run.code == 2 && run.err.contains(key), "{command:?} {wrong}: {} {}", run.code, run.err);
        }
        let run = spanwatch(&[command, &["--state-dir", state, "--config", "/no/such.toml"]].concat());
        assert!(run.code == 2 && run.err.contains("/no/such.toml"), "{command:?}: {} {}", run.code, run.err);
    }
    let check = |more: &[&str]| spanwatch(&[&["config", "--check", "--state-dir", state], more].concat());
    let run = check(&[]);
    assert!(run.code == 2 && run.err.contains("node.database"), "{}", run.err);
    let run = check(&["/data/agoric", "--sandbox", "strict"]);
    assert_eq!((run.code, run.out.trim(), &*run.err), (0, "the configuration is valid", ""));
    let run = check(&["/data/agoric", "--sandbox", "some"]);
    assert!(run.code == 2 && run.err.contains("worker.sandbox (flag)"), "{}", run.err);
    let run = check(&["/data/agoric", "--transcript-archive", "/no/such"]);
    assert!(run.code == 0 && run.err.contains("/no/such"), "{}", run.err);
}

#[test]
fn the_database_is_an_argument_and_db_an_alias() {
    for arguments in [&["config", "/data/agoric"][..], &["config", "--db", "/data/agoric"]] {
        let run = spanwatch(arguments);
        assert!(run.out.contains("database = \"/data/agoric\" # flag"), "{arguments:?}: {}{}", run.out, run.err);
    }
    assert_eq!(spanwatch(&["config", "/data/agoric", "--db", "/data/agoric"]).code, 2);
    let help = spanwatch(&["run", "--help"]).out;
    assert!(help.contains("[DB]") && !help.contains("--db"), "{help}");
}

#[test]
fn unknown_variables_are_one_warning() {
    let kubernetes = [("SPANWATCH_PORT", "tcp://10.0.0.1:9488"), ("SPANWATCH_SERVICE_HOST", "10.0.0.1")];
    let run = with_variables(&["config"], &kubernetes);
    assert_eq!((run.code, run.err.lines().count()), (0, 1), "{}", run.err);
    assert!(run.err.contains("SPANWATCH_PORT, SPANWATCH_SERVICE_HOST"), "{}", run.err);
    assert_eq!(with_variables(&["config"], &[("SPANWATCH_LOG", "info"), ("SPANWATCH_WATCH_SINCE", "genesis")]).err, "");
}

#[test]
fn quiet_and_verbose_and_color() {
    let warned = [("SPANWATCH_PORT", "1")];
    assert!(with_variables(&["config"], &warned).err.contains("WARN"));
    for quiet in [&["-q", "config"][..], &["config", "-qq"], &["config", "--quiet"]] {
        assert_eq!(with_variables(quiet, &warned).err, "", "{quiet:?}");
    }
    // What is asked for on the command line comes before the variable.
    let with_log = [("SPANWATCH_PORT", "1"), ("SPANWATCH_LOG", "error")];
    assert_eq!(with_variables(&["config"], &with_log).err, "");
    assert!(with_variables(&["config", "-v"], &with_log).err.contains("SPANWATCH_PORT"));
    // The standard error is a file here: color only if it is asked for.
    assert!(!with_variables(&["config"], &warned).err.contains('\u{1b}'));
    assert!(with_variables(&["config", "--color", "always"], &warned).err.contains('\u{1b}'));
    assert!(with_variables(&["--color=always", "--help"], &[]).out.contains('\u{1b}'));
    assert!(!with_variables(&["--color", "never", "--help"], &[]).out.contains('\u{1b}'));
}

/// On a terminal there is color, unless `NO_COLOR` or `--color never` is there, and progress, whatever is written elsewhere.
#[test]
fn a_terminal_gets_color_and_progress() {
    let synthetic = synthetic::database();
    let worker = fake_worker(synthetic.dir.path(), "ok");
    let json = synthetic.dir.path().join("lines.json");
    let on_a_terminal = |variables: &str, arguments: &str| {
        let program = env!("CARGO_BIN_EXE_spanwatch");
        let line = format!("TERM=xterm {variables} {program} {arguments} >{}", text(&json));
        // `script` gives the command a terminal.
        let output = Command::new("script").args(["-qec", &line, "/dev/null"]).output().expect("script, of util-linux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let warned = "SPANWATCH_PORT=1";
    assert!(on_a_terminal(warned, "config").contains("\u{1b}[33m"), "{}", on_a_terminal(warned, "config"));
    assert!(!on_a_terminal(&format!("{warned} NO_COLOR=1"), "config").contains('\u{1b}'));
    assert!(!on_a_terminal(warned, "config --color never").contains('\u{1b}'));
    let verify = format!("verify {} --worker {} --sandbox off --format json", text(&synthetic.file), text(&worker));
    let shown = on_a_terminal("", &verify);
    assert!(shown.contains(" spans, "), "{shown}");
    assert!(std::fs::read_to_string(&json).expect("lines").lines().all(|line| line.starts_with('{')));
    assert!(!on_a_terminal("", &format!("-q {verify}")).contains(" spans, "));
}

/// A terminal that goes away ends the daemon as SIGTERM does; under nohup it goes on.
#[test]
fn a_hangup_ends_the_daemon_unless_it_is_ignored() {
    let bench = Bench::new(Keep::everything());
    let mut daemon = bench.setup("ok").start();
    daemon.signal("HUP");
    assert_eq!(daemon.wait(), Some(0), "{}", daemon.said());
    assert_eq!(daemon.logged("stopping").len(), 1, "{}", daemon.said());
    let bench = Bench::new(Keep::everything());
    let mut setup = bench.setup("ok");
    setup.wrapper = vec!["nohup".to_owned()];
    let daemon = setup.start();
    daemon.signal("HUP");
    let looked = |daemon: &crate::beside::Daemon| daemon.metric("spanwatch_last_look_timestamp_seconds");
    let before = looked(&daemon);
    daemon.wait_for("two looks after the signal", |daemon| looked(daemon) > before + 1.0);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn the_version_has_the_commit() {
    let run = spanwatch(&["--version"]);
    let expected = concat!("spanwatch ", env!("CARGO_PKG_VERSION"), " (");
    assert!(run.code == 0 && run.out.starts_with(expected) && run.out.trim_end().ends_with(')'), "{}", run.out);
}

/// The build script alone: what it says in a repository, outside of one, below one, and of a release or another build.
#[test]
fn the_build_script_finds_the_commit() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("script");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiled = Command::new(rustc).args(["--edition", "2024", "-o"]).arg(&script).arg(&source).status();
    assert!(compiled.expect("rustc").success());
    let checkout = dir.path().join("checkout");
    std::fs::create_dir(&checkout).expect("a directory");
    let says = |at: &Path, profile: &str, commit: Option<&str>| -> String {
        let mut command = Command::new(&script);
        command.current_dir(at).env("PROFILE", profile).env_remove("SPANWATCH_COMMIT");
        command.env("GIT_CEILING_DIRECTORIES", dir.path());
        command.envs(commit.map(|commit| ("SPANWATCH_COMMIT", commit)));
        let output = command.output().expect("the script");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().find_map(|line| line.strip_prefix("cargo:rustc-env=BUILT_FROM_COMMIT=")).expect("it").to_owned()
    };
    assert_eq!(says(&checkout, "release", None), "unknown");
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
        let done = Command::new("git").args(identity).args(arguments).current_dir(&checkout).output().expect("git");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).expect("text").trim().to_owned()
    };
    git(&["init", "-q"]);
    std::fs::write(checkout.join("Cargo.toml"), "one").expect("write");
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    let hash = git(&["rev-parse", "--short=12", "HEAD"]);
    assert_eq!(says(&checkout, "release", None), hash);
    assert_eq!(says(&checkout, "debug", None), "dev");
    assert_eq!(says(&checkout, "release", Some("abc")), "abc");
    assert_eq!(says(&checkout, "release", Some("")), hash);
    std::fs::write(checkout.join("Cargo.toml"), "two").expect("write");
    assert_eq!(says(&checkout, "release", None), format!("{hash}-dirty"));
    let unpacked: PathBuf = checkout.join("unpacked");
    std::fs::create_dir(&unpacked).expect("a directory");
    assert_eq!(says(&unpacked, "release", None), "unknown");
}
