//! The unit of systemd, and what of it can be tried without systemd.
//!
//! Goal: the unit's filter lets through all that the daemon and its workers need, with the systemd of Debian 12 and with a current one.
//! Method: the groups of both, as `systemd-analyze syscall-filter` prints them (`tests/systemd`), against the calls that were seen and those
//! of the workers' own policy; and the daemon with real workers under the filter that comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::beside::verdicts;
use crate::lab::{lab, real_worker};
use crate::run::{run, text};
use crate::skip::{Needs, skip};
use crate::wait::{wait_for, wait_until};

const UNIT: &str = include_str!("../../config/spanwatch.service");
const SYSTEMD_252: &str = include_str!("../systemd/calls-252.txt");
const SYSTEMD_262: &str = include_str!("../systemd/calls-262.txt");
const SEEN: &str = include_str!("../systemd/daemon-calls.txt");
/// What the unit had before, which did not start on Debian 12.
const EARLIER: &str = "@system-service @sandbox @mount";

/// Each group with its members, some of which are groups.
fn groups(printed: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in printed.lines().filter(|line| !line.trim_start().starts_with('#')) {
        if line.starts_with('@') {
            name = line;
            groups.entry(name).or_default();
        } else if !line.trim().is_empty() {
            groups.get_mut(name).expect("a group comes first").push(line.trim());
        }
    }
    groups
}

/// What a filter allows: a group that this systemd does not know adds nothing. `@default` is always allowed (systemd.exec(5)).
fn allowed(filter: &str, printed: &str) -> BTreeSet<String> {
    let groups = groups(printed);
    let mut allowed = BTreeSet::new();
    let mut left: Vec<&str> = filter.split_whitespace().chain(["@default"]).collect();
    let mut seen = BTreeSet::new();
    while let Some(word) = left.pop() {
        if !seen.insert(word) {
            continue;
        }
        if word.starts_with('@') {
            left.extend(groups.get(word).into_iter().flatten());
        } else {
            allowed.insert(word.to_owned());
        }
    }
    allowed
}

fn filter() -> &'static str {
    UNIT.lines().find_map(|line| line.strip_prefix("SystemCallFilter=")).expect("a filter")
}

/// What was seen, and what workers are allowed: the unit's filter holds for them too.
fn needed() -> BTreeSet<String> {
    let seen = SEEN.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned);
    let policy: serde_json::Value = serde_json::from_str(spanwatch::sandbox::POLICY).expect("a policy");
    let mut names: BTreeSet<String> = seen.collect();
    let mut left = vec![&policy];
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Object(map) => {
                names.extend(map.get("syscall").and_then(|name| name.as_str()).map(str::to_owned));
                left.extend(map.values());
            }
            serde_json::Value::Array(all) => left.extend(all),
            _ => {}
        }
    }
    names
}

#[test]
fn the_units_filter_allows_what_is_needed_with_each_systemd() {
    let needed = needed();
    assert!(needed.len() > 90 && needed.contains("execveat") && needed.contains("seccomp"), "{needed:?}");
    for (version, printed) in [("252", SYSTEMD_252), ("262", SYSTEMD_262)] {
        let groups = groups(printed);
        assert!(groups.len() > 25 && printed.contains(&format!("# systemd {version} ")), "{}", groups.len());
        let missing: Vec<_> = needed.difference(&allowed(filter(), printed)).cloned().collect();
        assert_eq!(missing, [""; 0], "systemd {version}");
        for group in filter().split_whitespace().filter(|word| word.starts_with('@')) {
            assert!(groups.contains_key(group), "systemd {version} does not know {group}");
        }
    }
    // The check sees what was wrong.
    let missing: Vec<_> = needed.difference(&allowed(EARLIER, SYSTEMD_252)).cloned().collect();
    assert_eq!(missing, ["landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"]);
}

/// No engine and no registry is at hand here, so the image's description is read.
#[test]
fn the_image_is_built_from_what_can_be_pinned() {
    let dockerfile = include_str!("../../Dockerfile");
    let images: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(images, ["${NODE_IMAGE} AS worker", "${RUST_IMAGE} AS spanwatch", "${DEBIAN_IMAGE}"]);
    for image in images {
        let name = image.trim_start_matches("${").split('}').next().expect("a name");
        assert!(dockerfile.contains(&format!("\nARG {name}=docker.io/library/")), "{name} has a default");
        assert!(dockerfile.contains(&format!("--build-arg {name}=\"$(pin ")), "{name} can be pinned");
    }
    assert!(dockerfile.contains("\nRUN npm ci ") && !dockerfile.contains("RUN npm install"));
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("json");
    let wanted = parse(include_str!("../../config/worker/package.json"));
    let lock = parse(include_str!("../../config/worker/package-lock.json"));
    let packages = lock["packages"].as_object().expect("packages");
    let of = |name: &str| packages[&format!("node_modules/{name}")]["version"].as_str();
    for (name, version) in wanted["dependencies"].as_object().expect("dependencies") {
        assert_eq!(of(name), version.as_str(), "{name}");
    }
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        assert!(package["integrity"].as_str().is_some_and(|hash| hash.starts_with("sha512-")), "{name}");
    }
}

/// Cargo reads the manifests of all members and looks for their files, whichever program is built.
#[test]
fn the_image_is_built_from_all_that_cargo_needs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let context = tempfile::tempdir().expect("a directory");
    for path in include_str!("../../.dockerignore").lines().filter_map(|line| line.strip_prefix('!')) {
        let mut copy = Command::new("cp");
        copy.current_dir(root).args(["-r", "--parents", path]).arg(context.path());
        assert!(copy.status().expect("cp").success(), "{path}");
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(context.path()).args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]);
    let read = run(cargo);
    assert_eq!(read.code, 0, "{}", read.err);
    let metadata: serde_json::Value = serde_json::from_str(&read.out).expect("json");
    let packages = metadata["packages"].as_array().expect("packages");
    let mut targets = packages.iter().flat_map(|package| package["targets"].as_array().expect("targets"));
    let program = targets.find(|target| target["kind"][0] == "bin" && target["name"] == "spanwatch");
    let source = program.expect("the program")["src_path"].as_str().expect("a path");
    assert!(Path::new(source).starts_with(context.path()) && Path::new(source).exists(), "{source}");
}

/// As systemd does it: what is not allowed fails, with EPERM (`SystemCallErrorNumber=`) or as the kernel would without the call.
fn under(command: &mut Command, allowed: &BTreeSet<String>, error: i32) {
    let rules = allowed.iter().filter_map(|name| name.parse::<syscalls::Sysno>().ok());
    let rules = rules.map(|call| (i64::from(call.id()), Vec::new())).collect();
    let arch: TargetArch = std::env::consts::ARCH.try_into().expect("an architecture");
    let error = SeccompAction::Errno(error.cast_unsigned());
    let filter = SeccompFilter::new(rules, error, SeccompAction::Allow, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    #[expect(unsafe_code, reason = "what runs between fork and exec has no safe form")]
    // SAFETY: two system calls and nothing else.
    unsafe {
        command.pre_exec(move || {
            rustix::thread::set_no_new_privs(true)?;
            seccompiler::apply_filter(&program).map_err(|_| std::io::ErrorKind::PermissionDenied.into())
        });
    }
}

fn daemon(state: &Path, log: &Path) -> Command {
    let lab = lab("everything");
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanwatch"));
    command
        .args(["run", "--db", text(&lab.file), "--worker", text(&real_worker()), "--state-dir", text(state)])
        .args(["--since", "genesis", "--set", "http.listen=127.0.0.1:0", "--log-format", "json"])
        .args(["--set", "neighbour.min_available_memory=0", "--set", "state.min_free=0"])
        .env_remove("SPANWATCH_WORKER")
        .env_remove("TZ")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log).expect("a log"));
    command
}

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The group of the service lets no packet through, as with `IPAddressDeny=any`.
#[test]
fn an_address_that_the_service_denies_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let (state, log) = (dir.path().join("state"), dir.path().join("log"));
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/deny-network.py");
    let inner = daemon(&state, &log);
    let mut command = Command::new("python3");
    command.arg(wrapper).arg(inner.get_program()).args(inner.get_args()).args(["--set", "http.listen=0.0.0.0:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).expect("a log"));
    let mut child = Ends(command.spawn().expect("python3"));
    let said = || fs::read_to_string(&log).expect("the log");
    let has_ended = || {
        let has_ended = child.0.try_wait().expect("wait").is_some();
        (has_ended || said().contains("watches")).then_some(has_ended)
    };
    if wait_for(Duration::from_secs(60), has_ended, said) {
        assert!(said().contains("cannot deny:"), "{}", said());
        return skip(Needs::NetworkFilter);
    }
    let told = said().contains("as IPAddressDeny= of the service does");
    let status = Command::new("kill").arg(child.0.id().to_string()).status();
    assert!(status.expect("kill").success());
    child.0.wait().expect("wait");
    assert!(told, "{}", said());
}

#[test]
fn the_daemon_verifies_under_the_units_filter() {
    let dir = tempfile::tempdir().expect("a directory");
    let (state, log) = (dir.path().join("state"), dir.path().join("log"));
    let mut command = daemon(&state, &log);
    under(&mut command, &allowed(filter(), SYSTEMD_252), libc::EPERM);
    let mut child = Ends(command.spawn().expect("the daemon"));
    let said = || fs::read_to_string(&log).expect("the log");
    let verified = || verdicts(&state).iter().filter(|row| row["verdict"] == "verified").count();
    let is_done = || {
        assert!(child.0.try_wait().expect("wait").is_none(), "{}", said());
        said().contains("serving") && verified() >= 3
    };
    wait_until(Duration::from_secs(120), is_done, said);
    let watches = said().lines().find(|line| line.contains("watches")).expect("a line").to_owned();
    let layers = "process,descriptors,limits,privileges,landlock,seccomp,";
    assert!(watches.contains(layers), "{watches}");
    assert!(verdicts(&state).iter().all(|row| row["attempts"].as_u64().unwrap_or(0) == 0), "{}", said());
}

/// A filter is named as such, a kernel without the call too, and neither points to `--sandbox off` first.
#[test]
fn a_filter_is_told_from_a_kernel_without_landlock() {
    let dir = tempfile::tempdir().expect("a directory");
    for (without, error, says, not) in [
        ("landlock_create_ruleset", libc::EPERM, "SystemCallFilter= must name landlock_create_ruleset", "5.13"),
        ("landlock_create_ruleset", libc::ENOSYS, "has no Landlock: it needs Linux 5.13", "SystemCallFilter="),
        ("landlock_restrict_self", libc::EPERM, "layer landlock: failed to apply the rules", "5.13"),
        ("seccomp", libc::EPERM, "layer seccomp: failed to apply the filter", "5.13"),
    ] {
        let mut allowed = allowed(filter(), SYSTEMD_252);
        assert!(allowed.remove(without));
        let mut command = daemon(&dir.path().join("state"), &dir.path().join("log"));
        under(&mut command, &allowed, error);
        let refused = run(command);
        assert_eq!(refused.code, 1, "{without}: {}", refused.err);
        assert!(refused.err.contains(says) && !refused.err.contains(not), "{without}: {}", refused.err);
        if error == libc::EPERM {
            assert!(refused.err.contains("SystemCallFilter="), "{without}: {}", refused.err);
        }
    }
}
