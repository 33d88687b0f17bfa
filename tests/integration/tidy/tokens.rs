//! Reads Rust as the compiler's tokens: comments and strings cannot be taken for code, nor code for them.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The tokens of a file.
pub fn of(path: &str, text: &str) -> Vec<TokenTree> {
    let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    stream.into_iter().collect()
}

/// The tokens without each item that only tests have: `#[cfg(test)]`, `#[test]`, and what is for the fuzz targets.
pub fn of_program(tokens: Vec<TokenTree>) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        let is_for_tests = match (&token, rest.peek()) {
            (TokenTree::Punct(punct), Some(TokenTree::Group(group))) if punct.as_char() == '#' => is_test_mark(group),
            _ => false,
        };
        if !is_for_tests {
            kept.push(token);
            continue;
        }
        // Other attributes may follow; the item goes on to its braces or its semicolon.
        for token in rest.by_ref() {
            match token {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                TokenTree::Punct(punct) if punct.as_char() == ';' => break,
                _ => {}
            }
        }
    }
    kept
}

/// `[test]`, `[cfg(test)]`, `[cfg(any(test, …))]`.
fn is_test_mark(group: &Group) -> bool {
    let text: String = group.stream().to_string().split_whitespace().collect();
    text == "test" || text == "cfg(test)" || text.starts_with("cfg(any(test,") || text.starts_with("cfg(all(test,")
}

pub fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

pub fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

#[test]
fn items_of_tests_are_left_out() {
    let text = "use a; #[cfg(test)] mod tests { use b; } #[cfg(any(test, feature = \"fuzzing\"))] pub mod c; #[test] fn d() {} fn e() {}";
    let left: TokenStream = of_program(of("example", text)).into_iter().collect();
    assert_eq!(left.to_string(), "use a ; fn e () { }");
}
