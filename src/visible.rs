//! Text from outside, made visible: what a vat, a worker, a row, an archive or a file name says can neither move the terminal nor
//! add a line.
//!
//! Owns which characters are hidden, how they are shown (`\n`, `\t`, `\u{1b}`), and the way to a terminal: [`stdout`], [`stderr`] and
//! [`Lines`] make one line of each call, so a text inside of it adds none. Nothing else may open the standard output or error
//! (`clippy.toml`). It must never change what goes into a store, a hash or a worker.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// Whether a character would not be seen, or would change how others are seen: controls of both sets, line separators, what turns
/// the direction of text, and what has no width. One that has none stays: Endo puts U+034F into the names of its own variables, and such
/// names are given back to us.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
                | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// A text as one line: each hidden character as an escape, all others as they are.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |character, to| match character {
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        '\t' => to.push_str("\\t"),
        hidden => {
            let _ = write!(to, "\\u{{{:x}}}", u32::from(hidden));
        }
    })
}

/// As [`visible`], cut after a number of characters, with `…` where something was left out.
#[must_use]
pub fn short(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        None => visible(text),
        Some((end, _)) => Cow::Owned(format!("{}…", visible(&text[..end]))),
    }
}

/// As [`visible`], of bytes that need not be text: each byte that is not UTF-8 as `\x9b`.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&visible(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The text of JSON, with the hidden characters that JSON leaves as they are in the escapes that JSON has for them. It stands for the
/// same value.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // Control characters below U+0020 can only stand between tokens: a string has them as escapes already.
    let is_hidden = |character: char| character > ' ' && is_hidden(character);
    escaped(text, is_hidden, |character, to| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(to, "\\u{unit:04x}");
        }
    })
}

/// Several lines, each made visible on its own.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| character != '\n' && is_hidden(character),
        |character, to| {
            to.push_str(&visible(character.encode_utf8(&mut [0; 4])));
        },
    )
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let Some(first) = text.find(&is_hidden) else { return Cow::Borrowed(text) };
    let mut to = String::with_capacity(text.len() + 16);
    to.push_str(&text[..first]);
    for character in text[first..].chars() {
        if is_hidden(character) {
            escape(character, &mut to);
        } else {
            to.push(character);
        }
    }
    Cow::Owned(to)
}

/// The line that a `write!` or a `writeln!` makes, without its end.
fn line_of(arguments: fmt::Arguments<'_>) -> String {
    let mut text = String::new();
    // What cannot be formatted is shown up to there.
    let _ = text.write_fmt(arguments);
    if text.ends_with('\n') {
        text.pop();
    }
    match visible(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(visible) => visible,
    }
}

/// A text of lines: each `writeln!` is one, whatever is formatted in it.
#[derive(Debug, Default)]
pub struct Lines(String);

impl Lines {
    /// Adds a line; `writeln!` calls it.
    pub fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) {
        self.0.push_str(&line_of(arguments));
        self.0.push('\n');
    }

    /// The text, with an end after each line.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }

    /// The text, without the last line's end.
    #[must_use]
    pub fn into_text_without_end(mut self) -> String {
        self.0.pop();
        self.0
    }
}

/// A way to a terminal: each `writeln!` is one line, whatever is formatted in it.
#[derive(Debug)]
pub struct Out<W: Write>(W);

/// The standard output, a line at a time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that opens it")]
pub fn stdout() -> Out<io::StdoutLock<'static>> {
    Out(io::stdout().lock())
}

/// The standard output for many lines; it needs to be flushed.
#[must_use]
pub fn buffered_stdout() -> Out<io::BufWriter<io::StdoutLock<'static>>> {
    Out(io::BufWriter::new(stdout().0))
}

/// The standard error, a line at a time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that opens it")]
pub fn stderr() -> Out<io::StderrLock<'static>> {
    Out(io::stderr().lock())
}

/// Whether somebody looks at the standard error.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub fn is_stderr_a_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

impl<W: Write> Out<W> {
    /// Writes a line; `writeln!` calls it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
        let mut line = line_of(arguments);
        line.push('\n');
        self.0.write_all(line.as_bytes())
    }

    /// Writes a text of lines as it is, as [`Lines`] or we ourselves made it, with an end after the last one. What else is hidden in it
    /// is made visible.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_lines(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(lines(text).as_bytes())?;
        if text.ends_with('\n') { Ok(()) } else { self.0.write_all(b"\n") }
    }

    /// Gives on what is kept back.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_hidden_is_shown() {
        for (text, shown) in [
            ("zoe", "zoe"),
            ("grün ✓ 漢字 😀 e\u{301} $h\u{34f}_imports", "grün ✓ 漢字 😀 e\u{301} $h\u{34f}_imports"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\n  verified  v1\r\t\0", "a\\n  verified  v1\\r\\t\\u{0}"),
            ("\u{7f}\u{9b}31m\u{85}", "\\u{7f}\\u{9b}31m\\u{85}"),
            ("\u{202e}dor\u{2066}\u{2069}\u{200f}", "\\u{202e}dor\\u{2066}\\u{2069}\\u{200f}"),
            (
                "\u{200b}\u{200d}\u{feff}\u{ad}\u{2028}\u{e0041}",
                "\\u{200b}\\u{200d}\\u{feff}\\u{ad}\\u{2028}\\u{e0041}",
            ),
        ] {
            assert_eq!(visible(text), shown);
            assert_eq!(visible(shown), shown, "twice is once");
        }
        assert_eq!(of_bytes(b"a\xffb\x9b\x1b\xed\xa0\x80"), "a\\xffb\\x9b\\u{1b}\\xed\\xa0\\x80");
        assert_eq!((&*short("abc", 3), &*short("ab\ncd", 3)), ("abc", "ab\\n…"));
        assert_eq!(lines("a\nb\rc\n"), "a\nb\\rc\n");
    }

    #[test]
    fn a_call_is_a_line() {
        let name = "x\nverified v1";
        let mut text = Lines::default();
        writeln!(text, "{name}: {}", 1);
        writeln!(text);
        writeln!(text, "end");
        assert_eq!(text.into_text(), "x\\nverified v1: 1\n\nend\n");
        let mut out = Out(Vec::new());
        writeln!(out, "{name}\n").expect("in memory");
        out.write_lines("a\n\u{1b}b").expect("in memory");
        assert_eq!(String::from_utf8(out.0).expect("text"), "x\\nverified v1\\n\na\n\\u{1b}b\n");
    }

    proptest! {
        #[test]
        fn json_stays_the_same_value(text in any::<String>()) {
            let one = serde_json::to_string(&text).expect("a string");
            let other = json(&one);
            prop_assert!(!other.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&other).expect("JSON"), text);
        }

        #[test]
        fn nothing_stays_hidden(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(!visible(&text).contains(is_hidden));
            prop_assert!(!of_bytes(&bytes).contains(is_hidden));
            prop_assert!(!lines(&text).replace('\n', "").contains(is_hidden));
        }
    }
}
