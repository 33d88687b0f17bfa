//! Conventions of the source that a machine can hold: structure, width, words, waits, and tests that a page names.
//!
//! Each check is a function from files to faults. A unit test feeds it a bad example, so that no check can rot into one that never
//! fails; the test beside it feeds it the tree.

mod imports;
mod lengths;
mod named_tests;
mod tokens;
mod waits;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the tree, or an example.
struct Source {
    /// The path from the root of the repository, with slashes.
    path: String,
    text: String,
}

impl Source {
    #[cfg(test)]
    fn example(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a directory of the repository whose names end so, by path. Directories of what is installed or generated are left out.
fn files(directory: &str, extension: &str) -> Vec<Source> {
    let mut left = vec![root().join(directory)];
    let mut found = Vec::new();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("list") {
            let path: PathBuf = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                if !["node_modules", "data", "bench-data", ".cache", "target"].contains(&name.as_str()) {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(file(path.strip_prefix(root()).expect("below the root").to_str().expect("plain")));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "{directory} has no *.{extension}");
    found
}

fn file(path: &str) -> Source {
    Source { path: path.to_owned(), text: fs::read_to_string(root().join(path)).expect(path) }
}

/// All Rust of the repository: the program, tests, benches, examples, fuzz targets and the build script.
fn rust() -> Vec<Source> {
    let mut found = vec![file("build.rs")];
    for directory in ["src", "tests", "benches", "examples", "fuzz/src"] {
        found.extend(files(directory, "rs"));
    }
    found
}

fn assert_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}\n{}", faults.join("\n"));
}

/// Each module says at its top which part of the program it is.
fn without_module_doc(sources: &[Source]) -> Vec<String> {
    let without = sources.iter().filter(|source| !source.text.starts_with("//!"));
    without.map(|source| format!("{}: begins without `//!`", source.path)).collect()
}

#[test]
fn every_module_says_at_its_top_what_it_is() {
    let bad = [Source::example("src/a.rs", "//! A.\n"), Source::example("src/b.rs", "use a;\n//! B.\n")];
    assert_eq!(without_module_doc(&bad), ["src/b.rs: begins without `//!`"]);
    assert_none(&without_module_doc(&rust()), "A module begins with its purpose, in `//!` lines.");
}
