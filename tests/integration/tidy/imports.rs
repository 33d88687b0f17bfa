//! The top-level modules of `src/` import one another without a cycle: data goes one way, and a reader can, too.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenTree};

use super::tokens::{ident, is_punct, of, of_program};
use super::{Source, assert_none, files};

/// One path in one file that begins at `crate`, `self` or `super`.
struct Import {
    line: usize,
    /// From the crate's root.
    path: Vec<String>,
}

/// The module that a file is, from the crate's root.
fn module(path: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs").trim_end_matches("/mod");
    inside.split('/').filter(|part| !["lib", "main"].contains(part)).map(str::to_owned).collect()
}

/// Collects the paths in some tokens of a module, also those in macros and in `use` groups.
fn collect(tokens: &[TokenTree], module: &[String], imports: &mut Vec<Import>) {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            // An inline module is one level deeper for `super`.
            TokenTree::Ident(word) if word == "mod" => {
                if let (Some(name), Some(TokenTree::Group(body))) = (ident(tokens.get(at + 1)), tokens.get(at + 2)) {
                    let inner: Vec<TokenTree> = of_program(body.stream().into_iter().collect());
                    collect(&inner, &[module, &[name]].concat(), imports);
                    at += 2;
                }
            }
            TokenTree::Ident(word) if ["crate", "self", "super"].iter().any(|start| word == start) => {
                let continues = at >= 2 && is_punct(tokens.get(at - 1), ':') && is_punct(tokens.get(at - 2), ':');
                if !continues && is_punct(tokens.get(at + 1), ':') && is_punct(tokens.get(at + 2), ':') {
                    let line = word.span().start().line;
                    follow(&tokens[at..], Vec::new(), module, line, imports);
                }
            }
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = of_program(group.stream().into_iter().collect());
                collect(&inner, module, imports);
            }
            _ => {}
        }
        at += 1;
    }
}

/// Follows one path from its beginning, into the groups of a `use`.
fn follow(tokens: &[TokenTree], mut path: Vec<String>, module: &[String], line: usize, imports: &mut Vec<Import>) {
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => path.push(word.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for part in inner.split(|token| is_punct(Some(token), ',')).filter(|part| !part.is_empty()) {
                    follow(part, path.clone(), module, line, imports);
                }
                return;
            }
            _ => break,
        }
        if !(is_punct(tokens.get(at + 1), ':') && is_punct(tokens.get(at + 2), ':')) {
            break;
        }
        at += 3;
    }
    imports.push(Import { line, path: from_root(&path, module) });
}

fn from_root(path: &[String], module: &[String]) -> Vec<String> {
    let mut base: Vec<String> = module.to_vec();
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            _ => break,
        }
        rest = after;
    }
    base.extend_from_slice(rest);
    base
}

/// The places where one top-level module names another: `(from, to)`, with the files and the paths.
fn edges(sources: &[Source]) -> BTreeMap<(String, String), Vec<String>> {
    let tops: BTreeSet<String> = sources.iter().filter_map(|source| module(&source.path).into_iter().next()).collect();
    let mut edges: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for source in sources {
        let module = module(&source.path);
        let Some(from) = module.first() else { continue };
        let mut imports = Vec::new();
        collect(&of_program(of(&source.path, &source.text)), &module, &mut imports);
        for Import { line, path } in imports {
            if let Some(to) = path.first().filter(|to| *to != from && tops.contains(*to)) {
                let place = format!("{}:{line}: {}", source.path, path.join("::"));
                edges.entry((from.clone(), to.clone())).or_default().push(place);
            }
        }
    }
    edges
}

/// All that can be reached from a module, itself only by a cycle.
fn reached(from: &str, edges: &BTreeMap<(String, String), Vec<String>>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from.to_owned()];
    while let Some(here) = left.pop() {
        for (_, to) in edges.keys().filter(|(from, _)| *from == here) {
            if reached.insert(to.clone()) {
                left.push(to.clone());
            }
        }
    }
    reached
}

/// Each import that is part of a cycle, with the modules at both ends.
fn cycles(sources: &[Source]) -> Vec<String> {
    let edges = edges(sources);
    let mut faults = Vec::new();
    for ((from, to), places) in &edges {
        if reached(to, &edges).contains(from) {
            faults.push(format!("{from} -> {to}, and {to} leads back to {from}:"));
            faults.extend(places.iter().map(|place| format!("    {place}")));
        }
    }
    faults
}

/// The program's modules: tests and the properties of the fuzz targets may name anything.
fn program() -> Vec<Source> {
    files("src", "rs").into_iter().filter(|source| !source.path.starts_with("src/fuzz/")).collect()
}

#[test]
fn top_level_modules_import_one_another_without_a_cycle() {
    let sources = program();
    assert!(edges(&sources).len() > 40, "the imports are found: {}", edges(&sources).len());
    assert_none(&cycles(&sources), "Move the thing that both need into a module that imports neither.");
}

#[test]
fn a_cycle_is_named_with_its_files_and_paths() {
    let sources = [
        Source::example("src/lib.rs", "mod a; mod b; mod c; use crate::{a, b};"),
        Source::example("src/a/mod.rs", "use crate::{b::Thing, c}; // use crate::d;\nmod inner;"),
        Source::example("src/a/inner.rs", "fn f() -> &'static str { \"crate::c\" }"),
        Source::example(
            "src/b.rs",
            "mod deep { fn g() { super::super::a::f(); } }\n#[cfg(test)] mod tests { use crate::c; }",
        ),
        Source::example("src/c.rs", "#[cfg(test)] use crate::a; pub(crate) struct S; fn h() { self::S; }"),
    ];
    let expected = [
        "a -> b, and b leads back to a:",
        "    src/a/mod.rs:1: b::Thing",
        "b -> a, and a leads back to b:",
        "    src/b.rs:1: a::f",
    ];
    assert_eq!(cycles(&sources), expected);
}

#[test]
fn paths_are_found_in_groups_and_macros() {
    let text = "use crate::{x::{self, Y}, z as w}; fn f() { vec![crate::m::N]; matches!(a, super::top::P { .. }) }";
    let mut imports = Vec::new();
    collect(&of("example", text), &["here".to_owned(), "below".to_owned()], &mut imports);
    let paths: Vec<String> = imports.iter().map(|import| import.path.join("::")).collect();
    assert_eq!(paths, ["x::self", "x::Y", "z", "m::N", "here::top::P"]);
}
