//! How events become lines on the standard error: for people, or as JSON.
//!
//! Owns the form of the log. Events tell of vats, workers and files in their own words, so every message and field is made visible on
//! its way: an event is one line, and none of its words reaches the terminal as a control. It must never decide what a module logs.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, FormatFields};

use crate::visible::{is_stderr_a_terminal, json, visible};

/// The variable that has the filter, in the form of `EnvFilter`.
const VARIABLE: &str = "SPANWATCH_LOG";
/// The levels, each louder than the one before it.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The wishes of the command line: `-q`, `-v` and `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Levels that the log is louder than it would be; negative for quieter.
    pub(crate) louder: i16,
    /// Whether there is color; `None` to decide by the terminal.
    pub(crate) color: Option<bool>,
}

impl Wishes {
    /// The filter of `-q` and `-v`, else of `SPANWATCH_LOG`, else the one that is given.
    fn filter(self, otherwise: &str) -> EnvFilter {
        if self.louder != 0 {
            return EnvFilter::new(shifted(otherwise, self.louder));
        }
        EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(otherwise))
    }

    /// Whether the log has color: as `--color` says, else on a terminal that has color, unless `NO_COLOR` is set (no-color.org).
    fn has_color(self) -> bool {
        let is_set = |variable: &str| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        self.color.unwrap_or_else(|| is_stderr_a_terminal() && !is_set("NO_COLOR") && !is_dumb)
    }
}

fn level_of(word: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.eq_ignore_ascii_case(word))
}

/// Whether a text is a level, or a list of levels and `target=level`: less than `EnvFilter` takes, in which a typo of a level is the
/// name of a target.
pub(crate) fn is_filter(text: &str) -> bool {
    let is_target = |target: &str| {
        !target.is_empty()
            && target.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':' | '-'))
    };
    text.split(',').all(|directive| match directive.trim().split_once('=') {
        Some((target, level)) => is_target(target) && level_of(level).is_some(),
        None => level_of(directive.trim()).is_some(),
    })
}

/// A filter whose level without a target is some levels louder. Levels of targets stay.
fn shifted(filter: &str, louder: i16) -> String {
    let (targets, levels): (Vec<&str>, Vec<&str>) =
        filter.split(',').map(str::trim).partition(|directive| directive.contains('='));
    let level = levels.last().and_then(|level| level_of(level)).unwrap_or(1);
    let level = level.saturating_add_signed(louder.into()).min(LEVELS.len() - 1);
    let mut shifted = vec![LEVELS[level]];
    shifted.extend(targets);
    shifted.join(",")
}

/// The log of a command: warnings, without the time.
pub(crate) fn of_command(wishes: Wishes) {
    tracing_subscriber::fmt()
        .with_env_filter(wishes.filter("warn"))
        .with_writer(to)
        .with_ansi(wishes.has_color())
        .with_target(false)
        .fmt_fields(Fields)
        .without_time()
        .init();
}

/// The log of the daemon, for people.
pub(crate) fn for_people(level: &str, wishes: Wishes) {
    tracing_subscriber::fmt()
        .with_env_filter(wishes.filter(level))
        .with_writer(to)
        .with_ansi(wishes.has_color())
        .with_target(false)
        .fmt_fields(Fields)
        .init();
}

/// The log of the daemon, an object a line.
pub(crate) fn as_json(level: &str, wishes: Wishes) {
    tracing_subscriber::fmt()
        .with_env_filter(wishes.filter(level))
        .with_writer(Json)
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .init();
}

#[expect(clippy::disallowed_methods, reason = "what comes here was made visible field by field")]
fn to() -> io::Stderr {
    io::stderr()
}

/// Fields as `name=value`, the message without its name, each made visible.
#[derive(Debug, Clone, Copy)]
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        writer: format::Writer<'writer>,
        fields: R,
    ) -> std::fmt::Result {
        let mut visitor = Visitor { writer, is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'writer> {
    writer: format::Writer<'writer>,
    is_first: bool,
    result: std::fmt::Result,
}

impl tracing::field::Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if self.result.is_err() {
            return;
        }
        let text = format!("{value:?}");
        let gap = if std::mem::take(&mut self.is_first) { "" } else { " " };
        self.result = match field.name() {
            "message" => write!(self.writer, "{gap}{}", visible(&text)),
            name => write!(self.writer, "{gap}{name}={}", visible(&text)),
        };
    }
}

/// Lines of JSON, in which the hidden characters that JSON leaves as they are become escapes.
#[derive(Debug, Clone, Copy)]
struct Json;

impl<'a> MakeWriter<'a> for Json {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Json {
    /// The subscriber gives a line at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        to().write_all(json(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_and_targets_with_levels() {
        for text in ["info", "WARN", "off", "info,spanwatch::replay=debug", "spanwatch=trace, hyper=off", "a-b=error"] {
            assert!(is_filter(text), "{text}");
        }
        for text in ["", "inof", "5", "spanwatch", "a=b=c", "=info", "info,", "[span]=info", "spanwatch[{vat=1}]=debug"]
        {
            assert!(!is_filter(text), "{text}");
        }
    }

    #[test]
    fn louder_and_quieter() {
        for (filter, louder, shown) in [
            ("info", 1, "debug"),
            ("info", 9, "trace"),
            ("warn", -1, "error"),
            ("warn", -2, "off"),
            ("warn", -9, "off"),
            ("info,spanwatch::replay=trace", -1, "warn,spanwatch::replay=trace"),
            ("hyper=off", 1, "warn,hyper=off"),
        ] {
            assert_eq!(shifted(filter, louder), shown, "{filter} {louder}");
        }
    }

    #[test]
    fn a_wish_for_color_comes_before_the_terminal() {
        assert!(Wishes { color: Some(true), ..Wishes::default() }.has_color());
        assert!(!Wishes { color: Some(false), ..Wishes::default() }.has_color());
    }
}
