//! The documentation keeps its word: a test that `docs/threats.md` names is there, under that name, in that file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// All files of Rust below the directories that hold tests, by their names.
fn sources() -> BTreeMap<String, Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut left = vec![root.join("src"), root.join("tests/integration")];
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).expect("list") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                found.entry(name).or_default().push(path);
            }
        }
    }
    found
}

/// Whether a file with this name, or this end of a path, has a test function of this name.
fn is_there(sources: &BTreeMap<String, Vec<PathBuf>>, file: &str, test: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let paths = sources.get(name).into_iter().flatten().filter(|path| path.ends_with(file));
    let mut texts = paths.map(|path| fs::read_to_string(path).expect("text"));
    texts.any(|text| text.contains(&format!("fn {test}(")))
}

/// The words in backticks of a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_threats_names_is_there() {
    let sources = sources();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/threats.md")).expect("the page");
    let (mut rows, mut tests, mut missing) = (0, 0, Vec::new());
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| tried ")) {
        let Some(named) = line.trim_end_matches(" |").rsplit(" | ").next() else { continue };
        let mut file = "";
        for word in quoted(named) {
            if word.ends_with(".rs") {
                file = word;
            } else if !file.is_empty() && word.contains('_') && !word.contains(['-', '…']) {
                tests += 1;
                if !is_there(&sources, file, word) {
                    missing.push(format!("{file}: {word}"));
                }
            }
        }
        rows += usize::from(!file.is_empty());
    }
    assert!(missing.is_empty(), "docs/threats.md names tests that are not there: {missing:#?}");
    assert!(rows >= 40 && tests >= 40, "{rows} rows, {tests} tests");
    assert!(!is_there(&sources, "tidy.rs", "no_such_test"), "a test that could not fail would show nothing");
}
