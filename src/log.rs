//! How events become lines on the standard error: for people, or as JSON.
//!
//! Owns the form of the log. Events tell of vats, workers and files in their own words, so every message and field is made visible on
//! its way: an event is one line, and none of its words reaches the terminal as a control. It must never decide what is logged.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, FormatFields};

use crate::visible::{is_stderr_a_terminal, json, visible};

/// The variable that has the filter, in the form of `EnvFilter`.
const VARIABLE: &str = "SPANWATCH_LOG";

/// The filter of `SPANWATCH_LOG`, else the one that is given.
fn filter(otherwise: &str) -> EnvFilter {
    EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(otherwise))
}

/// The log of a command: warnings, without the time.
pub(crate) fn of_command() {
    tracing_subscriber::fmt()
        .with_env_filter(filter("warn"))
        .with_writer(to)
        .with_ansi(is_stderr_a_terminal())
        .with_target(false)
        .fmt_fields(Fields)
        .without_time()
        .init();
}

/// The log of the daemon, for people.
pub(crate) fn for_people(level: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(to)
        .with_ansi(is_stderr_a_terminal())
        .with_target(false)
        .fmt_fields(Fields)
        .init();
}

/// The log of the daemon, an object a line.
pub(crate) fn as_json(level: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(filter(level))
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
