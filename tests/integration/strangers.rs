//! Programs that a stranger sends never run.
//!
//! Goal: whatever lies beside a database, in evidence or in a directory that others can write, no program of it is run:
//! not in the sandbox, not outside it, not to be tried. Method: a program that makes a file when it runs is put wherever a
//! worker was once looked for, all commands are run, and the file must stay absent. They are run with the sandbox off
//! too, where any run of the program would leave its mark. That it does leave one when the operator names it is shown at the
//! end of each round. All of it as root, if the tests run as root, and as an ordinary user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::evidence::find;
use crate::run::{Run, example, fake_worker, run, text};
use crate::skip::is_root;
use crate::synthetic;

const IN_PACKAGE: &str = "xsnap-native/xsnap/build/bin/lin/release/xsnap-worker";
/// Where the program is put, below a directory that a stranger has made.
const PACKAGES: [&str; 3] = ["node_modules/@agoric/xsnap", "packages/xsnap", "agoric-sdk/packages/xsnap"];
/// An ordinary user.
const USER: u32 = 12_345;
/// Another one.
const STRANGER: u32 = 12_346;

/// The users to try; `None` is who runs the tests.
fn users() -> Vec<Option<u32>> {
    if is_root() { vec![None, Some(USER)] } else { vec![None] }
}

/// A place that a user can come to, with the program, a copy of the hostile one, and the place for its mark.
struct Stage {
    dir: tempfile::TempDir,
    user: Option<u32>,
}

impl Stage {
    fn new(user: Option<u32>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let stage = Self { dir, user };
        fs::copy(env!("CARGO_BIN_EXE_spanwatch"), stage.path("spanwatch")).expect("copy");
        fs::create_dir(stage.path("marks")).expect("make");
        for (name, mode) in [("", 0o755), ("spanwatch", 0o755), ("marks", 0o777)] {
            fs::set_permissions(stage.path(name), fs::Permissions::from_mode(mode)).expect("chmod");
        }
        fs::write(stage.path("hostile.mark"), marked(&stage.mark())).expect("write");
        fs::set_permissions(stage.path("hostile.mark"), fs::Permissions::from_mode(0o755)).expect("chmod");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.path().to_owned() } else { self.dir.path().join(name) }
    }

    fn mark(&self) -> PathBuf {
        self.path("marks/it-ran")
    }

    /// Puts the hostile program wherever a worker could be looked for below a directory.
    fn plant(&self, directory: &Path) {
        for package in PACKAGES {
            let path = directory.join(package).join(IN_PACKAGE);
            fs::create_dir_all(path.parent().expect("a parent")).expect("make");
            fs::copy(self.path("hostile.mark"), &path).expect("copy");
        }
    }

    /// Gives all of a directory to the user: what somebody unpacks belongs to who unpacks it.
    fn give(&self, directory: &Path) {
        if let Some(user) = self.user {
            give_to(directory, user);
        }
    }

    fn spanwatch(&self, here: &Path, arguments: &[&str]) -> Run {
        let mut command = Command::new(self.path("spanwatch"));
        command.args(arguments).env_clear().env("TMPDIR", self.path("marks")).current_dir(here);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        run(command)
    }

    /// Runs a command in each mode; the hostile program must not have run.
    fn nothing_runs(&self, here: &Path, arguments: &[&str]) -> Vec<Run> {
        let has_sandbox = ["verify", "doctor", "replay", "bisect"].contains(&arguments[0]);
        let modes: &[&[&str]] = if has_sandbox { &[&[], &["--sandbox", "off"]] } else { &[&[]] };
        let runs = modes.iter().map(|mode| {
            let run = self.spanwatch(here, &[arguments, mode].concat());
            let said = format!("{arguments:?} {mode:?} in {here:?} as {:?}: {}{}", self.user, run.out, run.err);
            assert!(!self.mark().exists(), "it ran: {said}");
            run
        });
        runs.collect()
    }

    /// The same for a command that needs a worker: it says that there is none, or why the one there is not run.
    fn no_worker(&self, here: &Path, arguments: &[&str], says: &str) {
        for run in self.nothing_runs(here, arguments) {
            let said = format!("{arguments:?} in {here:?} as {:?}: {}{}", self.user, run.out, run.err);
            assert!(run.out.contains(says) || run.err.contains(says), "not {says:?}: {said}");
            assert_ne!(run.code, 0, "{said}");
        }
    }

    /// The mark is left where the operator names the program: a test that could not fail would show nothing.
    fn a_named_one_runs(&self, db: &Path) {
        let db = ["doctor", text(db), "--worker", text(&self.path("hostile.mark"))].map(str::to_owned);
        let arguments: Vec<&str> = db.iter().map(String::as_str).collect();
        let sandboxed = self.spanwatch(Path::new("/"), &arguments);
        assert!(sandboxed.out.contains("XS hostile"), "{}{}", sandboxed.out, sandboxed.err);
        assert!(!self.mark().exists(), "it made a file from within the sandbox");
        let run = self.spanwatch(Path::new("/"), &[&arguments[..], &["--sandbox", "off"]].concat());
        assert!(self.mark().exists(), "{}{}", run.out, run.err);
        assert!(run.out.contains("named by --worker"), "{}", run.out);
    }
}

/// The hostile program, with the path of its mark written into it.
fn marked(mark: &Path) -> Vec<u8> {
    const MARK: &[u8] = b"spanwatch-marker\0";
    let mut program = fs::read(example("hostile-worker")).expect("read");
    let at =
        program.windows(MARK.len()).position(|window| window == MARK).expect("a place for the path") + MARK.len() - 1;
    let path = text(mark).as_bytes();
    assert!(path.len() < 200, "{mark:?} is too long");
    program[at..at + path.len()].copy_from_slice(path);
    program
}

fn give_to(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).expect("chown");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("list") {
            give_to(&entry.expect("an entry").path(), user);
        }
    }
}

/// A database in a stranger's directory, in the depth that a node has it.
fn database(stage: &Stage, directory: &str) -> PathBuf {
    let at = stage.path(directory).join("data/agoric");
    fs::create_dir_all(&at).expect("make");
    let synthetic = synthetic::database();
    let file = at.join("swingstore.sqlite");
    fs::copy(&synthetic.file, &file).expect("copy");
    file
}

/// A folder of evidence.
fn evidence(stage: &Stage, directory: &str) -> PathBuf {
    let synthetic = synthetic::database();
    let worker = fake_worker(synthetic.dir.path(), "wrong-hash");
    let found = find(&synthetic.file, &worker, &["--vat", "v2", "--sandbox", "off", "--repeats", "1"]);
    let folder = stage.path(directory);
    copy(&found.folder, &folder);
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make");
    for entry in fs::read_dir(from).expect("list") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy");
        }
    }
}

/// Changes what a folder says of its worker.
fn edit(folder: &Path, field: &str, value: Value) {
    let path = folder.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("json");
    manifest["worker"][field] = value;
    fs::write(&path, serde_json::to_vec(&manifest).expect("json")).expect("write");
}

#[test]
fn a_worker_beside_a_database_never_runs() {
    for user in users() {
        let stage = Stage::new(user);
        let db = database(&stage, "sent");
        let sent = stage.path("sent");
        for directory in [&sent, &sent.join("data"), db.parent().expect("a directory")] {
            stage.plant(directory);
        }
        stage.give(&sent);
        let state = stage.path("marks/state");
        for (here, says) in [
            (Path::new("/"), "no xsnap worker found"),
            // The directory of the database is nobody's to be looked in, even where one stands in it.
            (db.parent().expect("a directory"), "it lies in"),
        ] {
            stage.no_worker(here, &["verify", text(&db)], says);
            stage.no_worker(here, &["verify", text(db.parent().expect("a directory"))], says);
            stage.no_worker(here, &["doctor", text(&db)], says);
            stage.no_worker(here, &["verify", text(&db), "--vat", "v1", "--chain"], says);
            for mode in ["worker.sandbox=default", "worker.sandbox=off"] {
                let run = ["run", text(&db), "--state-dir", text(&state), "--listen", "", "--set", mode];
                stage.no_worker(here, &run, says);
            }
        }
        stage.nothing_runs(Path::new("/"), &["spans", text(&db)]);
        stage.a_named_one_runs(&db);
    }
}

#[test]
fn a_worker_that_evidence_names_or_holds_never_runs() {
    for user in users() {
        let stage = Stage::new(user);
        let folder = evidence(&stage, "sent/evidence");
        let sent = stage.path("sent");
        let inside = folder.join("xsnap-worker");
        // With a program in it, it is no evidence at all.
        fs::copy(stage.path("hostile.mark"), &inside).expect("copy");
        stage.plant(&folder);
        stage.give(&sent);
        for command in ["replay", "explain", "bisect"] {
            for run in stage.nothing_runs(&folder, &[command, text(&folder)]) {
                assert!(run.code == 1 && run.err.contains(" in it can"), "{command}: {}{}", run.out, run.err);
            }
        }
        fs::remove_file(&inside).expect("remove");
        for planted in PACKAGES.iter().filter_map(|package| package.split('/').next()) {
            fs::remove_dir_all(folder.join(planted)).expect("remove");
        }
        stage.plant(&sent);
        let manifest = fs::read(folder.join("manifest.json")).expect("read");
        let outside = stage.path("hostile.mark");
        for path in [text(&inside), text(&outside), "xsnap-worker", "./xsnap-worker"] {
            edit(&folder, "path", json!(path));
            stage.give(&sent);
            for (here, says) in [(Path::new("/"), "no xsnap worker found"), (&folder, "refused to run")] {
                stage.no_worker(here, &["replay", text(&folder)], says);
                stage.no_worker(here, &["replay", text(&folder)], "the evidence is of the worker");
                stage.no_worker(here, &["bisect", text(&folder)], says);
                for run in stage.nothing_runs(here, &["explain", text(&folder)]) {
                    assert_eq!(run.code, 0, "{}", run.err);
                    assert!(run.out.contains("with sha256 "), "it does not say which worker: {}", run.out);
                }
            }
            stage.nothing_runs(Path::new("/"), &["export", text(&folder), "--xsnap-trace", "/proc/no"]);
        }
        fs::write(folder.join("manifest.json"), manifest).expect("write");
        let db = database(&stage, "own");
        stage.give(&stage.path("own"));
        stage.a_named_one_runs(&db);
    }
}

/// The archive's own rules are another test's; here only that nothing in it runs, whatever becomes of it.
#[test]
fn a_worker_in_an_archive_never_runs() {
    for user in users() {
        let stage = Stage::new(user);
        let folder = evidence(&stage, "evidence");
        let program = fs::read(stage.path("hostile.mark")).expect("read");
        let to = stage.path("marks/unpacked");
        fs::create_dir(&to).expect("make");
        stage.give(&to);
        // The folder's own place, and a top folder that is found from where it is unpacked.
        for top in ["evidence", "node_modules", ".ssh"] {
            let file = stage.path(&format!("{top}.spanwatch"));
            let encoder = zstd::Encoder::new(fs::File::create(&file).expect("create"), 1).expect("zstd");
            let mut tar = tar::Builder::new(encoder);
            tar.append_dir_all(top, &folder).expect("append");
            for inside in PACKAGES
                .iter()
                .map(|package| format!("{package}/{IN_PACKAGE}"))
                .chain(["xsnap-worker".to_owned(), format!("@agoric/xsnap/{IN_PACKAGE}")])
            {
                let mut header = tar::Header::new_gnu();
                header.set_size(program.len() as u64);
                header.set_mode(0o755);
                tar.append_data(&mut header, Path::new(top).join(&inside), &program[..]).expect("append");
            }
            tar.into_inner().expect("tar").finish().expect("zstd");
            for arguments in [
                ["evidence", "unpack", text(&file), text(&to)],
                ["explain", text(&file), "--format", "json"],
                ["replay", text(&file), "--format", "json"],
            ] {
                stage.nothing_runs(&to, &arguments);
                stage.nothing_runs(Path::new("/"), &arguments);
            }
            // Whatever was unpacked is looked at again from where it lies.
            for entry in fs::read_dir(&to).expect("list") {
                let unpacked = entry.expect("an entry").path();
                stage.nothing_runs(&unpacked, &["replay", text(&unpacked)]);
                stage.nothing_runs(&unpacked, &["explain", text(&unpacked)]);
            }
        }
    }
}

/// Where the working directory has a worker, or a directory above it, everybody who could have put it there counts.
#[test]
fn a_worker_that_others_can_change_never_runs() {
    for user in users() {
        let stage = Stage::new(user);
        let db = database(&stage, "own");
        stage.give(&stage.path("own"));
        for (name, mode) in [("everybody", 0o777), ("everybody-sticky", 0o1777), ("group", 0o775), ("strangers", 0o755)]
        {
            let open = stage.path(name);
            let here = open.join("work/here");
            fs::create_dir_all(&here).expect("make");
            stage.plant(&open);
            stage.give(&open);
            fs::set_permissions(&open, fs::Permissions::from_mode(mode)).expect("chmod");
            let may_chown = rustix::process::geteuid().is_root();
            match name {
                "group" if may_chown => chown(&open, None, Some(STRANGER)).expect("chown"),
                "strangers" if may_chown => give_to(&open, STRANGER),
                "group" | "strangers" => continue,
                _ => {}
            }
            for command in ["verify", "doctor"] {
                // The first directory that others can write, from the root on, is the one that is named: mostly the
                // directory for temporary files.
                stage.no_worker(&here, &[command, text(&db)], "refused to run ");
                stage.no_worker(&here, &[command, text(&db)], "name it with --worker");
            }
        }
        stage.a_named_one_runs(&db);
    }
}

/// The other half: a worker in the working directory is found where only root and the user can have put it there, and what
/// is named comes before it.
#[test]
fn a_worker_of_ones_own_is_found_in_the_working_directory() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let home = tempfile::Builder::new().prefix("home-").tempdir_in(target).expect("a directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let here = home.path().join("work");
    let worker = here.join(PACKAGES[0]).join(IN_PACKAGE);
    fs::create_dir_all(worker.parent().expect("a parent")).expect("make");
    fs::copy(example("fake-worker"), &worker).expect("copy");
    let synthetic = synthetic::database();
    let doctor = |variables: &[(&str, &Path)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spanwatch"));
        command.args(["doctor", text(&synthetic.file), "--format", "json"]).env_clear().current_dir(&here);
        command.envs(variables.iter().map(|(name, path)| (*name, *path)));
        run(command).lines("doctor").remove(0)
    };
    let found_by = |doctor: &Value| doctor["workers"][0]["found_by"].as_str().map(str::to_owned);
    let named = fake_worker(synthetic.dir.path(), "ok");
    let missing = Path::new("/no/such/worker");
    let found = doctor(&[("XSNAP_WORKER", &named)]);
    assert_eq!(found_by(&found).as_deref(), Some("XSNAP_WORKER"), "{found}");
    let found = doctor(&[("SPANWATCH_WORKER", &named), ("XSNAP_WORKER", missing)]);
    assert_eq!(found_by(&found).as_deref(), Some("SPANWATCH_WORKER"), "{found}");

    let is_safe = |path: &Path| {
        let facts = fs::metadata(path).expect("stat");
        let owner = facts.uid();
        facts.mode() & 0o022 == 0 && (owner == 0 || owner == rustix::process::geteuid().as_raw())
    };
    let found = doctor(&[]);
    if home.path().ancestors().all(is_safe) {
        assert_eq!(found_by(&found).as_deref(), Some("working_directory"), "{found}");
        fs::set_permissions(worker.parent().expect("a parent"), fs::Permissions::from_mode(0o777)).expect("chmod");
        let refused = doctor(&[]);
        let fault = refused["worker_fault"].as_str().expect("a fault");
        assert!(fault.contains("release can be written by everybody (mode 0777)"), "{fault}");
    } else {
        // These sources lie in a directory that others can change.
        let fault = found["worker_fault"].as_str().expect("a fault");
        assert!(fault.contains("refused to run "), "{fault}");
    }
}

/// A loader that the worker brings along is refused before it runs.
#[test]
fn a_loader_of_the_workers_own_never_runs() {
    for user in users() {
        let stage = Stage::new(user);
        let db = database(&stage, "own");
        stage.give(&stage.path("own"));
        // Its path must fit in place of the system's.
        let short = tempfile::Builder::new().prefix("l").rand_bytes(6).tempdir_in("/tmp").expect("a directory");
        fs::set_permissions(short.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let loader = short.path().join("l");
        fs::copy(stage.path("hostile.mark"), &loader).expect("copy");
        let mut program = fs::read(example("fake-worker")).expect("read");
        let at =
            program.windows(8).position(|window| window == b"/lib64/l" || window == b"/lib/ld-").expect("a loader");
        let end = at + program[at..].iter().position(|byte| *byte == 0).expect("an end");
        let path = text(&loader).as_bytes();
        assert!(path.len() <= end - at);
        program[at..end].fill(0);
        program[at..at + path.len()].copy_from_slice(path);
        let worker = stage.path("worker");
        fs::write(&worker, program).expect("write");
        fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).expect("chmod");
        for mode in ["default", "strict"] {
            let run =
                stage.spanwatch(Path::new("/"), &["verify", text(&db), "--worker", text(&worker), "--sandbox", mode]);
            assert!(!stage.mark().exists(), "it ran: {}{}", run.out, run.err);
            assert!(run.code == 1 && run.err.contains("which is in none of the system's directories"), "{}", run.err);
        }
        stage.a_named_one_runs(&db);
    }
}

/// What evidence says of its worker is data: never a path, never a limit beyond those that an operator can ask for.
#[test]
fn what_evidence_says_of_its_worker_is_checked() {
    let stage = Stage::new(None);
    let folder = evidence(&stage, "evidence");
    let worker = fake_worker(&stage.path("marks"), "wrong-hash");
    let replay = |more: &[&str]| {
        let arguments = ["replay", text(&folder), "--worker", text(&worker), "--repeats", "1", "--sandbox", "off"];
        stage.spanwatch(Path::new("/"), &[&arguments[..], more].concat())
    };
    let run = replay(&[]);
    assert!(run.code == 3 && run.out.contains(": the worker of the evidence"), "{}{}", run.out, run.err);
    edit(&folder, "sha256", json!("00"));
    let run = replay(&[]);
    assert!(
        run.out.contains(": not the worker of the evidence") && run.out.contains("with sha256 00"),
        "{}{}",
        run.out,
        run.err
    );
    let lines = replay(&["--format", "json"]).lines("worker");
    assert_eq!((&lines[0]["is_the_same"], &lines[0]["found_by"]), (&json!(false), &json!("option")));

    for zone in
        ["/etc/shadow", ":/etc/shadow", "../../../etc/shadow", "America/../../../../etc/shadow", "", "\u{1b}[2J"]
    {
        edit(&folder, "time_zone", json!(zone));
        let run = replay(&[]);
        assert!(
            run.code == 1 && run.err.contains("name the one to replay with by --worker-tz"),
            "{zone:?}: {}",
            run.err
        );
        assert!(!run.err.contains('\u{1b}'), "{:?}", run.err);
        assert_eq!(replay(&["--worker-tz", "UTC"]).code, 3, "{zone:?}");
    }
    edit(&folder, "time_zone", json!("America/New_York"));
    assert_eq!(replay(&[]).code, 3);
    for stack in [0_u64, 1, (1 << 20) - 1, (1 << 30) + 1, u64::MAX] {
        edit(&folder, "stack", json!(stack));
        let run = replay(&[]);
        assert!(run.code == 1 && run.err.contains("by --worker-stack"), "{stack}: {}", run.err);
        assert_eq!(replay(&["--worker-stack", "8MiB"]).code, 3, "{stack}");
    }
}
