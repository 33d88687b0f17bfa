//! Leaving out a test for a thing that the machine does not have: it is said, counted, and an error where the environment
//! variable `CI` is `true`.
//!
//! `scripts/test.sh` names a file in `$TESTS_SKIPPED_FILE` and prints it at its end. Prometheus, the browser and the lab are
//! never left out: `make test` sets them up, and without them the tests fail.

use std::fs::File;
use std::io::Write;

/// A thing that a test needs and a machine may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The user root: only root can give files to others and run programs as others.
    Root,
    /// A file system mounted in a user namespace, for a disk that is full.
    Mounts,
    /// A program of the kernel's that denies a network, as systemd's `IPAddressDeny=` has one.
    NetworkFilter,
    /// The shell that completions are parsed with.
    Bash,
}

impl Needs {
    fn reason(self) -> &'static str {
        match self {
            Self::Root => "the tests do not run as root",
            Self::Mounts => "a user namespace may not mount here",
            Self::NetworkFilter => "the kernel takes no network filter from here",
            Self::Bash => "there is no bash",
        }
    }

    /// Why a machine of continuous integration may be without it; `None` if it must have it.
    fn impossible_in_ci(self) -> Option<&'static str> {
        match self {
            Self::Root => Some("many run everything as an ordinary user"),
            Self::Mounts => Some("many are containers whose policy forbids mounts"),
            Self::NetworkFilter => Some("it needs BPF in the machine's own cgroup, which containers rarely have"),
            Self::Bash => None,
        }
    }
}

/// Says that the present test, or a part of it, is left out. Panics where it must not be.
#[track_caller]
pub fn skip(needs: Needs) {
    let place = std::panic::Location::caller();
    let line = line(std::thread::current().name().unwrap_or(place.file()), needs);
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(may_skip(needs, is_ci), "{line}, and CI is true");
    // Not with `println!`, which shows only when the test fails.
    let _ = writeln!(std::io::stderr(), "{line}");
    if let Some(path) = std::env::var_os("TESTS_SKIPPED_FILE") {
        let mut file = File::options().append(true).create(true).open(path).expect("the list of what is left out");
        writeln!(file, "{line}").expect("write");
    }
}

fn line(test: &str, needs: Needs) -> String {
    format!("skipped: {test}: {}", needs.reason())
}

fn may_skip(needs: Needs, is_ci: bool) -> bool {
    !is_ci || needs.impossible_in_ci().is_some()
}

/// Whether the tests run as root; says so if not, as a part of the test is then left out.
#[track_caller]
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip(Needs::Root);
    }
    is_root
}

#[test]
fn ci_leaves_out_only_what_it_cannot_have() {
    assert!(may_skip(Needs::Bash, false) && !may_skip(Needs::Bash, true));
    for needs in [Needs::Root, Needs::Mounts, Needs::NetworkFilter] {
        assert!(may_skip(needs, true), "{needs:?}: {:?}", needs.impossible_in_ci());
    }
    assert_eq!(line("own::a_test", Needs::Root), "skipped: own::a_test: the tests do not run as root");
}
