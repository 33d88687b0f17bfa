//! A function fits on a screen, and a comment is as wide as code.

use proc_macro2::{Delimiter, TokenTree};

use super::tokens::{ident, is_punct, of};
use super::{Source, assert_none, files, rust};

const FUNCTION_LINES_MAX: usize = 70;

/// Longer functions, each with its reason.
const LONG: &[(&str, &str, &str)] = &[
    ("src/daemon/config/mod.rs", "read", "not divided yet"),
    ("src/daemon/metrics.rs", "new", "the table of all series"),
    ("src/daemon/mod.rs", "serve", "not divided yet"),
    ("src/heap/diff/compare.rs", "slot", "one match over all kinds of slots"),
    ("src/heap/fingerprint.rs", "value", "one match over all kinds of slots"),
];

const COMMENT_WIDTH_MAX: usize = 160;

/// Each function with a body: its name, its first line, and how many lines it has.
fn functions(tokens: &[TokenTree], found: &mut Vec<(String, usize, usize)>) {
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            functions(&group.stream().into_iter().collect::<Vec<_>>(), found);
        }
        let (Some(keyword), Some(name)) = (ident(Some(token)), ident(tokens.get(at + 1))) else { continue };
        if keyword != "fn" {
            continue;
        }
        let mut rest = tokens[at..].iter().take_while(|token| !is_punct(Some(token), ';'));
        let body = rest.find_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
            _ => None,
        });
        if let Some(body) = body {
            let (first, last) = (token.span().start().line, body.span_close().end().line);
            found.push((name, first, last - first + 1));
        }
    }
}

fn long_functions(sources: &[Source], excepted: &[(&str, &str, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = vec![false; excepted.len()];
    for source in sources {
        let mut found = Vec::new();
        functions(&of(&source.path, &source.text), &mut found);
        for (name, line, lines) in found.into_iter().filter(|(.., lines)| *lines > FUNCTION_LINES_MAX) {
            match excepted.iter().position(|(path, function, _)| *path == source.path && *function == name) {
                Some(at) => used[at] = true,
                None => faults.push(format!("{}:{line}: {name} has {lines} lines", source.path)),
            }
        }
    }
    let unused = excepted.iter().zip(used).filter(|(_, used)| !used);
    faults.extend(unused.map(|((path, function, _), _)| format!("{path}: {function} is excepted and need not be")));
    faults
}

/// A comment, but for the rows of a table, which cannot be wrapped.
fn is_prose(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && !line.trim_start_matches(['/', '!', ' ']).starts_with('|')
}

fn wide_comments(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate().filter(|(_, line)| is_prose(line)) {
            let width = line.chars().count();
            if width > COMMENT_WIDTH_MAX {
                faults.push(format!("{}:{}: {width} characters", source.path, number + 1));
            }
        }
    }
    faults
}

#[test]
fn functions_are_short() {
    let rule = format!("Split it, or give a reason in LONG: a function has at most {FUNCTION_LINES_MAX} lines.");
    assert_none(&long_functions(&files("src", "rs"), LONG), &rule);
}

#[test]
fn comments_are_as_wide_as_code() {
    let rule = format!("Wrap it: a comment has at most {COMMENT_WIDTH_MAX} characters a line.");
    assert_none(&wide_comments(&rust()), &rule);
}

#[test]
fn a_long_function_is_found_also_in_an_impl() {
    let long =
        |name: &str, lines: usize| format!("impl A {{\nfn {name}(f: fn(u8)) {{\n{}}}\n}}\n", "f();\n".repeat(lines));
    let sources = [Source::example("src/a.rs", &(long("fits", 68) + &long("does_not", 69) + &long("excepted", 100)))];
    let excepted = [("src/a.rs", "excepted", "a table"), ("src/a.rs", "gone", "it was long")];
    let expected = ["src/a.rs:74: does_not has 71 lines", "src/a.rs: gone is excepted and need not be"];
    assert_eq!(long_functions(&sources, &excepted), expected);
}

#[test]
fn a_wide_comment_is_found() {
    let text = format!(
        "fn f() {{}}\n    /// {}\n// {}\n",
        "ä".repeat(COMMENT_WIDTH_MAX - 7),
        "ä".repeat(COMMENT_WIDTH_MAX - 8)
    );
    assert_eq!(
        wide_comments(&[Source::example("a.rs", &text)]),
        [format!("a.rs:2: {} characters", COMMENT_WIDTH_MAX + 1)]
    );
}
