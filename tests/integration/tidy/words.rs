//! Plain English: a concrete subject, one clause, the field's own term. This holds the phrases that readers stumbled over.

use proc_macro2::TokenTree;

use super::tokens::{ident, is_punct, of, of_program};
use super::{Source, assert_none, file, files, rust};
use crate::run::spanwatch;

/// Phrases that are found as whole words, in whatever case, across the ends of lines.
const BANNED: &[(&str, &str)] = &[
    ("to be had", "is available"),
    ("for want of", "because … is missing"),
    ("in vain", "failed"),
    ("comes to its end", "ends"),
    ("whoever", "name the person or the program"),
    ("nobody's", "of no owner"),
    ("owed to", "because of"),
    ("is none", "there is no …"),
    ("stand back", "pause"),
    ("stands back", "pauses"),
    ("looker", "watcher"),
    ("newborn", "new process"),
    ("cage", "sandbox"),
    ("caged", "sandboxed"),
];

const PLAINLY: &str = "Name the thing, then say what it does: a concrete subject, one clause, the field's own term.";

/// Words that begin no sentence, but for a question.
const NO_BEGINNING: &[&str] = &["What", "Whoever"];

/// Places that are not rewritten yet, each as the beginning of a fault. A place that has become plain must go from this list.
const NOT_YET: &[&str] = &[];

/// Faults in comments of the whole tree: a number that only falls. Messages, help and pages came first.
const COMMENT_FAULTS_MAX: usize = 297;

/// A text that a person reads, with the place where it begins.
struct Text {
    place: String,
    words: String,
}

impl Text {
    fn new(place: impl Into<String>, text: &str) -> Self {
        Self { place: place.into(), words: text.split_whitespace().collect::<Vec<_>>().join(" ") }
    }
}

/// The phrase as whole words: `cage` is not found in `package`.
fn has_words(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(at, found)| {
        let (before, after) = (&text[..at], &text[at + found.len()..]);
        let is_letter = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !is_letter(before.chars().next_back()) && !is_letter(after.chars().next())
    })
}

/// The sentences of a text, list items and cells of tables among them, without their marks.
fn sentences(words: &str) -> impl Iterator<Item = &str> {
    let ends = [". ", "! ", "? ", ": ", "; ", " | ", " * ", " - ", " # ", " ## "];
    let mut starts: Vec<usize> =
        ends.iter().flat_map(|end| words.match_indices(end).map(|(at, _)| at + end.len())).collect();
    starts.push(0);
    starts.into_iter().map(|start| words[start..].trim_start_matches(['*', '#', '|', '-', '"', '`', ' ']))
}

fn faults(texts: &[Text]) -> Vec<String> {
    let mut faults = Vec::new();
    for Text { place, words } in texts {
        let small = words.to_lowercase();
        for (phrase, instead) in BANNED.iter().filter(|(phrase, _)| has_words(&small, phrase)) {
            faults.push(format!("{place}: \"{phrase}\" (say: {instead})"));
        }
        for sentence in sentences(words) {
            let begins = NO_BEGINNING.iter().find(|word| sentence.starts_with(&format!("{word} ")));
            let is_question = || sentence.find(['.', '?']).is_some_and(|end| sentence[end..].starts_with('?'));
            if let Some(word) = begins.filter(|_| !is_question()) {
                let head: String = sentence.chars().take(50).collect();
                faults.push(format!("{place}: a sentence that begins with {word}: {head}"));
            }
        }
    }
    faults
}

/// The faults that `not_yet` does not excuse, and the excuses below `kinds` that nothing needs.
fn left(faults: Vec<String>, not_yet: &[&str], kinds: &[&str]) -> Vec<String> {
    let is_of_kind = |place: &&&str| kinds.iter().any(|kind| place.starts_with(kind));
    let needless =
        not_yet.iter().filter(is_of_kind).filter(|place| !faults.iter().any(|fault| fault.starts_with(**place)));
    let mut left: Vec<String> = needless.map(|place| format!("{place} is plain and still in NOT_YET")).collect();
    left.extend(faults.into_iter().filter(|fault| !not_yet.iter().any(|place| fault.starts_with(place))));
    left
}

/// The help of every command.
fn help() -> Vec<Text> {
    let directory = tempfile::tempdir().expect("a directory");
    let pages = directory.path().to_str().expect("plain");
    assert_eq!(spanwatch(&["man", pages]).code, 0);
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(directory.path()).expect("list") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let mut command: Vec<&str> = name.trim_end_matches(".1").split('-').skip(1).collect();
        command.push("--help");
        let run = spanwatch(&command);
        assert_eq!(run.code, 0, "{command:?}: {}", run.err);
        texts.push(Text::new(command.join(" "), &run.out));
    }
    assert!(texts.len() > 15, "{}", texts.len());
    texts
}

/// The string literals of a program, outside its tests: messages, help, labels, and SQL, which holds no such words either.
fn literals(sources: &[Source]) -> Vec<Text> {
    fn collect(tokens: Vec<TokenTree>, path: &str, texts: &mut Vec<Text>) {
        let tokens = of_program(tokens);
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    let is_doc = ident(inner.first()).is_some_and(|word| word == "doc") && is_punct(inner.get(1), '=');
                    if !is_doc || at == 0 {
                        collect(inner, path, texts);
                    }
                }
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    if text.contains('"') {
                        let text =
                            text.trim_start_matches(['r', 'b', 'c', '#']).trim_matches(['"', '#']).replace("\\\n", " ");
                        texts.push(Text::new(format!("{path}:{}", literal.span().start().line), &text));
                    }
                }
                _ => {}
            }
        }
    }
    let mut texts = Vec::new();
    for source in sources {
        collect(of(&source.path, &source.text), &source.path, &mut texts);
    }
    texts
}

/// The paragraphs of a page.
fn paragraphs(source: &Source) -> Vec<Text> {
    let mut texts = Vec::new();
    let (mut first, mut lines) = (1, Vec::new());
    for (number, line) in source.text.lines().chain([""]).enumerate() {
        let ends = line.trim().is_empty() || line.starts_with(['#', '|', '*']);
        if ends && !lines.is_empty() {
            texts.push(Text::new(format!("{}:{first}", source.path), &lines.join(" ")));
            lines.clear();
        }
        if lines.is_empty() {
            first = number + 1;
        }
        lines.push(line);
    }
    texts
}

/// The comments of a file, each run of lines as one text.
fn comments(source: &Source, mark: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    let mut last = 0;
    for (number, line) in source.text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix(mark) else { continue };
        let comment = comment.trim_start_matches(['/', '!', '#', ' ']);
        match texts.last_mut().filter(|_| last == number && !comment.starts_with(['|', '*', '-'])) {
            Some(text) => text.words = format!("{} {comment}", text.words),
            None => texts.push(Text::new(format!("{}:{}", source.path, number + 1), comment)),
        }
        last = number + 1;
    }
    texts
}

/// The pages for people.
fn pages() -> Vec<Source> {
    let mut pages: Vec<Source> = files("docs", "md");
    let single = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "grafana/README.md",
        "tests/lab/README.md",
    ];
    pages.extend(single.map(file));
    pages
}

/// Files with settings and rules, whose comments operators read.
const SETTINGS: &[&str] =
    &["config/spanwatch.toml", "config/alerts.yml", "config/spanwatch.service", "Makefile", "deny.toml", "clippy.toml"];

#[test]
fn the_help_is_plain() {
    assert_none(&faults(&help()), PLAINLY);
}

#[test]
fn messages_are_plain() {
    let sources: Vec<Source> =
        files("src", "rs").into_iter().filter(|source| !source.path.starts_with("src/fuzz/")).collect();
    let literals = literals(&sources);
    assert!(literals.len() > 1_000, "{}", literals.len());
    assert_none(&left(faults(&literals), NOT_YET, &["src/"]), PLAINLY);
}

#[test]
fn pages_are_plain() {
    let texts: Vec<Text> = pages().iter().flat_map(paragraphs).collect();
    assert_none(&left(faults(&texts), NOT_YET, &["docs/", "grafana/"]), PLAINLY);
}

#[test]
fn settings_are_plain() {
    let texts: Vec<Text> = SETTINGS.iter().flat_map(|path| comments(&file(path), "#")).collect();
    assert_none(&left(faults(&texts), NOT_YET, &["config/"]), PLAINLY);
}

#[test]
fn comments_are_plain() {
    let texts: Vec<Text> = rust().iter().flat_map(|source| comments(source, "//")).collect();
    let faults = faults(&texts);
    let number = faults.len();
    if number > COMMENT_FAULTS_MAX {
        assert_none(
            &faults,
            &format!("{number} comments, and there were {COMMENT_FAULTS_MAX}: a new one is not plain."),
        );
    }
}

#[test]
fn a_banned_phrase_is_found_across_lines_and_not_inside_words() {
    let page = Source::example(
        "a.md",
        "# A package\n\nThere is memory to\nbe had. What is left goes. What is left?\n\n* Whoever reads\n",
    );
    let expected = [
        "a.md:2: \"to be had\" (say: is available)",
        "a.md:2: a sentence that begins with What: What is left goes. What is left?",
        "a.md:6: \"whoever\" (say: name the person or the program)",
        "a.md:6: a sentence that begins with Whoever: Whoever reads",
    ];
    assert_eq!(faults(&paragraphs(&page)), expected);
    let program = Source::example(
        "a.rs",
        "/// in vain\nfn f() { warn!(\"gone \\\n  in vain\"); }\n#[cfg(test)] mod t { const A: &str = \"in vain\"; }",
    );
    assert_eq!(faults(&literals(&[program])), ["a.rs:2: \"in vain\" (say: failed)"]);
    let program = Source::example("a.rs", "fn f() {\n    // All that was tried in\n    // vain.\n}\n");
    assert_eq!(faults(&comments(&program, "//")), ["a.rs:2: \"in vain\" (say: failed)"]);
}

#[test]
fn an_excuse_that_nothing_needs_is_a_fault() {
    let faults = vec!["docs/a.md:1: x".to_owned(), "docs/b.md:2: y".to_owned()];
    let expected = ["docs/c.md is plain and still in NOT_YET", "docs/b.md:2: y"];
    assert_eq!(left(faults, &["docs/a.md", "docs/c.md", "src/d.rs"], &["docs/"]), expected);
}
