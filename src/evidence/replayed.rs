//! `replayed.jsonl`: what a worker did, in the shape of the record, an item a line.
//!
//! After the first mismatch a syscall carries `"answer"`, which says where its response is from; a delivery that did not
//! end has the status `none`. What the vat printed, which no record has, is in `"printed"`: each time after how many of the
//! delivery's syscalls, and what the worker asked. The first line says with `"cut"` where not all is here.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::record::SpanText;
use crate::replay::{Answer, Aside, Replay, TracedDelivery, TracedSyscall};
use crate::span::Span;
use crate::transcript::{Hash256, Position};

/// A delivery as it was replayed.
#[derive(Debug, Clone)]
pub struct ReplayedDelivery {
    /// Its position.
    pub position: Position,
    /// Its syscalls.
    pub syscalls: Vec<ReplayedSyscall>,
    /// `ok`, `error`, or `none` where it did not end.
    pub status: String,
    /// What it cost.
    pub computrons: Option<u64>,
    /// What the vat printed meanwhile.
    pub printed: Vec<Aside>,
}

/// How the worker's start was replayed.
#[derive(Debug, Clone, Default)]
pub struct ReplayedStart {
    /// What the vat printed, each time after how many of the worker's first commands.
    pub printed: Vec<Aside>,
    /// Whether not all that the worker did is known, because it was too much.
    pub is_cut: bool,
}

/// A syscall as it was replayed.
#[derive(Debug, Clone)]
pub struct ReplayedSyscall {
    /// Its JSON text.
    pub request: String,
    /// The response's; `null` where there was none.
    pub response: String,
    /// Where the response is from, if not from the record in its place.
    pub answer: Option<Answer>,
}

/// Writes what a replay did.
pub(super) fn write(to: &mut dyn Write, text: &SpanText, span: &Span<'_>, replay: &Replay) -> io::Result<()> {
    if let Some(first) = text.items().iter().next() {
        let first = String::from_utf8_lossy(first);
        let cut = if replay.trace.is_cut { r#","cut":true"# } else { "" };
        let more = format!("{}{cut}", printed(&replay.trace.at_start));
        match first.trim_end().strip_suffix('}') {
            Some(begin) if !more.is_empty() => line(to, &format!("{begin}{more}}}"))?,
            _ => line(to, &first)?,
        }
    }
    let mut deliveries = span.deliveries.iter();
    for traced in &replay.trace.deliveries {
        let Some((_, item)) = deliveries.find(|(position, _)| *position == traced.position) else { continue };
        let mut syscalls: Vec<String> = item.syscalls[..traced.agreed]
            .iter()
            .map(|syscall| format!(r#"{{"s":{},"r":{}}}"#, syscall.request(), syscall.response()))
            .collect();
        syscalls.extend(traced.after.iter().map(|TracedSyscall { request, response, answer }| {
            let response = response.as_deref().unwrap_or("null");
            format!(r#"{{"s":{request},"r":{response},"answer":"{}"}}"#, answer.label())
        }));
        let (syscalls, result, printed) = (syscalls.join(","), result(traced), printed(&traced.asides));
        line(to, &format!(r#"{{"d":{},"sc":[{syscalls}],"r":{result}{printed}}}"#, item.delivery))?;
    }
    if let Some(hash) = end_of(replay, span) {
        line(to, &format!(r#"{{"d":["save-snapshot"],"sc":[],"r":{{"status":"ok","snapshotID":"{hash}"}}}}"#))?;
    }
    Ok(())
}

fn printed(asides: &[Aside]) -> String {
    if asides.is_empty() {
        return String::new();
    }
    let asides: Vec<String> = asides.iter().map(|Aside { after, query }| format!("[{after},{query}]")).collect();
    format!(r#","printed":[{}]"#, asides.join(","))
}

fn result(traced: &TracedDelivery) -> String {
    let mut result = format!(r#"{{"status":"{}""#, traced.status.as_deref().unwrap_or("none"));
    if let Some(computrons) = traced.computrons {
        let _ = write!(result, r#","metering":{{"computrons":{computrons}}}"#);
    }
    result + "}"
}

/// The hash of the image that a replay ended with.
pub(super) fn end_of(replay: &Replay, span: &Span<'_>) -> Option<Hash256> {
    if replay.is_image_recorded {
        return span.saves;
    }
    replay.image_hash.filter(|_| replay.is_hash_compared)
}

/// The record's texts may have line breaks between their tokens, where no JSON text needs one.
fn line(to: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(to, "{}", text.replace(['\n', '\r'], " "))
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    d: &'a RawValue,
    #[serde(borrow)]
    sc: Vec<SyscallOf<'a>>,
    r: ResultOf,
    #[serde(borrow, default)]
    printed: Vec<(usize, &'a RawValue)>,
}

#[derive(Deserialize)]
struct FirstLine<'a> {
    #[serde(borrow, default)]
    printed: Vec<(usize, &'a RawValue)>,
    #[serde(default)]
    cut: bool,
}

#[derive(Deserialize)]
struct SyscallOf<'a> {
    #[serde(borrow)]
    s: &'a RawValue,
    #[serde(borrow)]
    r: &'a RawValue,
    answer: Option<Answer>,
}

#[derive(Deserialize)]
struct ResultOf {
    status: String,
    metering: Option<Metering>,
}

#[derive(Deserialize)]
struct Metering {
    computrons: Option<u64>,
}

/// Reads what a replay did; `start` is the span's first position.
pub(crate) fn read(text: &str, start: Position) -> Result<Vec<ReplayedDelivery>, serde_json::Error> {
    let mut deliveries = Vec::new();
    // The first line is how the worker was started.
    for (line, after) in text.lines().skip(1).zip(1..) {
        let line: Line<'_> = serde_json::from_str(line)?;
        if line.d.get() == "[\"save-snapshot\"]" {
            continue;
        }
        let syscalls = line.sc.into_iter().map(|SyscallOf { s, r, answer }| ReplayedSyscall {
            request: s.get().to_owned(),
            response: r.get().to_owned(),
            answer,
        });
        deliveries.push(ReplayedDelivery {
            position: start.saturating_add(after),
            syscalls: syscalls.collect(),
            status: line.r.status,
            computrons: line.r.metering.and_then(|metering| metering.computrons),
            printed: asides(line.printed),
        });
    }
    Ok(deliveries)
}

/// Reads how the worker's start was replayed.
pub(crate) fn read_start(text: &str) -> Result<ReplayedStart, serde_json::Error> {
    let Some(line) = text.lines().next() else { return Ok(ReplayedStart::default()) };
    let FirstLine { printed, cut } = serde_json::from_str(line)?;
    Ok(ReplayedStart { printed: asides(printed), is_cut: cut })
}

fn asides(printed: Vec<(usize, &RawValue)>) -> Vec<Aside> {
    printed.into_iter().map(|(after, query)| Aside { after, query: query.get().to_owned() }).collect()
}
