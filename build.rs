//! Finds the commit that the program is built from, for `--version` and `spanwatch_build_info`.
//!
//! `$SPANWATCH_COMMIT` wins, so that a build without git can say (`Dockerfile`). A release build asks git, and is asked again when the
//! commit or a source changes. Other builds say `dev`: each commit would have all of the program compiled anew. Never fails a build.

use std::path::Path;
use std::process::Command;

/// What the program is built from. Each rebuild follows one of them, so that `-dirty` is true.
const SOURCES: [&str; 5] = ["build.rs", "Cargo.toml", "Cargo.lock", "src", "config"];

fn main() {
    println!("cargo:rerun-if-env-changed=SPANWATCH_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let given = std::env::var("SPANWATCH_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match given {
        Some(commit) => commit,
        None if !is_release => "dev".to_owned(),
        None => of_git().unwrap_or_else(|| "unknown".to_owned()),
    };
    println!("cargo:rustc-env=BUILT_FROM_COMMIT={}", commit.replace(char::is_whitespace, ""));
}

/// The short hash of the checkout that this directory is the top of, with `-dirty` if a file of it was changed.
fn of_git() -> Option<String> {
    let here = std::env::current_dir().ok()?;
    // Sources that were unpacked into another repository are not of its commit.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    // Git writes one of them with each commit and each change of branch.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for source in SOURCES {
        if Path::new(source).exists() {
            println!("cargo:rerun-if-changed={source}");
        }
    }
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { hash } else { format!("{hash}-dirty") })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
