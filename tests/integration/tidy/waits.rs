//! No test waits for a length of time in the hope that something has happened by then.

use proc_macro2::TokenTree;

use super::tokens::{ident, is_punct, of};
use super::{Source, assert_none, files};

/// Files that may sleep, each with its reason.
const SLEEPERS: &[(&str, &str)] = &[
    ("tests/integration/wait.rs", "the waits with a deadline themselves"),
    ("tests/integration/fates.rs", "kills at a moment that differs from round to round"),
    ("tests/fake_worker/main.rs", "a worker that is slow, idle or hung on purpose"),
];

/// Calls of a function `sleep`, of whichever crate, and the word as a value, as in `map(sleep)`.
fn sleeps(tokens: &[TokenTree], lines: &mut Vec<usize>) {
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => sleeps(&group.stream().into_iter().collect::<Vec<_>>(), lines),
            TokenTree::Ident(word) if word == "sleep" => {
                let is_of_thread = at >= 3 && is_punct(tokens.get(at - 1), ':') && ident(tokens.get(at - 3)).is_some();
                if is_of_thread || matches!(tokens.get(at + 1), Some(TokenTree::Group(_))) {
                    lines.push(word.span().start().line);
                }
            }
            _ => {}
        }
    }
}

fn sleeping(sources: &[Source], excepted: &[(&str, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut unused: Vec<&str> = excepted.iter().map(|(path, _)| *path).collect();
    for source in sources {
        let mut lines = Vec::new();
        sleeps(&of(&source.path, &source.text), &mut lines);
        if excepted.iter().any(|(path, _)| *path == source.path) {
            unused.retain(|path| *path != source.path || lines.is_empty());
        } else {
            faults.extend(lines.into_iter().map(|line| format!("{}:{line}: sleep", source.path)));
        }
    }
    faults.extend(unused.iter().map(|path| format!("{path} is excepted and does not sleep")));
    faults
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    assert_none(&sleeping(&files("tests", "rs"), SLEEPERS), "Wait for the condition with a helper of wait.rs.");
}

#[test]
fn a_sleep_is_found() {
    let text =
        "fn f() { std::thread::sleep(MOMENT); }\n// sleep(1)\nconst S: &str = \"sleep(1)\";\nuse tokio::time::sleep;";
    let sources = [Source::example("tests/a.rs", text), Source::example("tests/b.rs", "fn g() { sleep(MOMENT); }")];
    let excepted = [("tests/b.rs", "slow"), ("tests/c.rs", "gone")];
    let expected = ["tests/a.rs:1: sleep", "tests/a.rs:4: sleep", "tests/c.rs is excepted and does not sleep"];
    assert_eq!(sleeping(&sources, &excepted), expected);
}
