//! Parsers of text: items, syscalls, vats' options, messages of workers, replayed items.

use std::io::{self, Read};

use serde_json::Value;

use super::choices::Choices;
use crate::evidence::replayed::{read, read_start};
use crate::kernel_db::{VatOptions, WorkerType};
use crate::replay::message::{self, FromWorker};
use crate::replay::{MESSAGE_BYTES_MAX, NetstringError, NetstringReader, aside_answer, write_netstring};
use crate::transcript::canonical::{CanonicalError, canonical as canonical_form};
use crate::transcript::{DeliveryKind, Item};

/// What is sliced from an item is in its text, in order, and makes the same item again.
pub(super) fn item(text: &[u8]) {
    let item = match Item::parse(text) {
        Ok(item) => item,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let place = |slice: &str| {
        let start = (slice.as_ptr() as usize).checked_sub(text.as_ptr() as usize).expect("it is within the text");
        assert_eq!(text.get(start..start + slice.len()), Some(slice.as_bytes()), "it is a slice of the text");
        start..start + slice.len()
    };
    place(item.delivery);
    let mut end = 0;
    for syscall in &item.syscalls {
        let (request, response) = (place(syscall.request()), place(syscall.response()));
        assert!(end <= request.start.min(response.start), "syscalls keep their order");
        assert!(request.end < response.start || response.end < request.start, "request and response are apart");
        end = request.end.max(response.end);
        for text in [syscall.request(), syscall.response()] {
            let form = canonical_form(text);
            assert!(matches!(form, Ok(_) | Err(CanonicalError::TooDeep)), "{form:?}");
        }
    }
    let again = assembled(&item);
    let again = Item::parse(again.as_bytes()).expect("a kernel would write it so");
    assert_eq!((&again.kind, again.delivery, &again.result), (&item.kind, item.delivery, &item.result));
    let slices = |item: &Item<'_>| -> Vec<(String, String)> {
        let syscalls = item.syscalls.iter();
        syscalls.map(|syscall| (syscall.request().to_owned(), syscall.response().to_owned())).collect()
    };
    assert_eq!(slices(&again), slices(&item));
}

/// An item as a kernel writes it.
fn assembled(item: &Item<'_>) -> String {
    let syscalls: Vec<String> = item
        .syscalls
        .iter()
        .map(|syscall| format!(r#"{{"s":{},"r":{}}}"#, syscall.request(), syscall.response()))
        .collect();
    let mut result = format!(r#""status":"{}""#, item.result.status);
    if let Some(computrons) = item.result.computrons {
        result += &format!(r#","metering":{{"computrons":{computrons}}}"#);
    }
    if let DeliveryKind::SaveSnapshot { image } = &item.kind {
        result += &format!(r#","snapshotID":"{image}""#);
    }
    format!(r#"{{"d":{},"sc":[{}],"r":{{{result}}}}}"#, item.delivery, syscalls.join(","))
}

/// Two texts, a zero byte between them, have the same canonical form exactly when another parser finds the same values in them.
pub(super) fn canonical(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (one, other) = input.split_once('\0').unwrap_or((input, input));
    let (form, other_form) = (canonical_form(one), canonical_form(other));
    let spaced = canonical_form(&[" ", one, "\n"].concat());
    assert_eq!(form.as_ref().ok(), spaced.as_ref().ok(), "space around a value means nothing");
    let (Some(value), Some(other_value)) = (value_of(one), value_of(other)) else { return };
    match (&form, &other_form) {
        (Ok(form), Ok(other_form)) => {
            assert_eq!(form == other_form, is_same(&value, &other_value), "two parsers agree");
            let printed = canonical_form(&value.to_string()).expect("it was printed from a value");
            assert_eq!(*form, printed, "printing a value again changes nothing");
        }
        _ => assert!(
            [&form, &other_form].iter().all(|form| matches!(form, Ok(_) | Err(CanonicalError::TooDeep))),
            "the other parser takes it: {form:?}, {other_form:?}"
        ),
    }
}

/// The value that `serde_json` finds. It rounds numbers with many digits or an exponent otherwise than JavaScript, so texts that have
/// such a number, or what could be one, are left out.
fn value_of(text: &str) -> Option<Value> {
    let is_inexact = |number: &str| number.len() > 15 || number.contains(['e', 'E']);
    let mut numbers = text.split(|letter: char| !matches!(letter, '0'..='9' | '.' | 'e' | 'E'));
    if numbers.any(|number| number.starts_with(|first: char| first.is_ascii_digit()) && is_inexact(number)) {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_in_other = |(key, value): (&String, &Value)| other.get(key).is_some_and(|it| is_same(value, it));
            one.len() == other.len() && one.iter().all(is_in_other)
        }
        _ => one == other,
    }
}

/// A vat's options say the same in words.
pub(super) fn options(json: &[u8]) {
    let Ok(json) = std::str::from_utf8(json) else { return };
    match VatOptions::parse(json) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(VatOptions { worker_type: Some(worker_type), .. }) => {
            assert_eq!(WorkerType::of(worker_type.label()), worker_type);
        }
        Ok(_) => {}
    }
}

/// However a stream is split, it has the same messages and the same end; and each message is one of the protocol's or an error.
pub(super) fn netstring(input: &[u8]) {
    let mut choices = Choices::new(input);
    let count = choices.below(64);
    let sizes: Vec<usize> = choices.take(count).iter().map(|size| usize::from(*size) + 1).collect();
    let stream = choices.rest();
    let (messages, end) = messages_of(stream);
    let (split, split_end) = messages_of(Pieces { bytes: stream, sizes: sizes.iter().cycle() });
    assert_eq!(messages, split);
    assert_eq!(std::mem::discriminant(&end), std::mem::discriminant(&split_end), "{end} or {split_end}");
    let mut written = Vec::new();
    for message in &messages {
        let half = message.len() / 2;
        write_netstring(&mut written, &[&message[..half], &message[half..]]).expect("in memory");
        self::message(message);
    }
    assert!(written.len() <= stream.len(), "no header is longer than it must be");
    let (again, end) = messages_of(&written[..]);
    assert_eq!((again, matches!(end, NetstringError::Closed)), (messages, true));
}

fn messages_of(from: impl Read) -> (Vec<Vec<u8>>, NetstringError) {
    let mut reader = NetstringReader::new(from);
    let mut messages = Vec::new();
    loop {
        match reader.next_message() {
            Ok(message) => messages.push(message.to_vec()),
            Err(error) => return (messages, error),
        }
        assert!(messages.last().is_none_or(|message| message.len() <= MESSAGE_BYTES_MAX));
    }
}

/// Gives its bytes in pieces of the given sizes.
struct Pieces<'a, S> {
    bytes: &'a [u8],
    sizes: S,
}

impl<'a, S: Iterator<Item = &'a usize>> Read for Pieces<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes.next().copied().unwrap_or(1).min(self.bytes.len()).min(buffer.len());
        let (piece, rest) = self.bytes.split_at(size);
        buffer[..size].copy_from_slice(piece);
        self.bytes = rest;
        Ok(size)
    }
}

/// What is read from a message is a part of it, and the answer to what is no syscall is known.
pub(super) fn message(message: &[u8]) {
    let tag = message::tag_of(message);
    if let Some(tag) = &tag {
        let answer = aside_answer(&String::from_utf8_lossy(message));
        assert_eq!(answer.is_some(), matches!(tag.as_str(), "sourcedConsole" | "testLog"), "{tag}");
    }
    match message::parse(message) {
        Ok(FromWorker::Done { reply, computrons }) => {
            assert!(message.starts_with(b".") && message.ends_with(reply));
            let meter = &message[1..message.len() - reply.len()];
            assert!(computrons.is_none() || meter.ends_with(&[1]), "a cost stands before a separator");
        }
        Ok(FromWorker::Uncaught(text)) => assert_eq!(message.strip_prefix(b"!"), Some(text)),
        Ok(FromWorker::Syscall(text)) => {
            let query = ["?[\"syscall\",", &text, "]"].concat();
            assert_eq!(query, String::from_utf8_lossy(message));
        }
        Ok(FromWorker::Console { text, tag, query }) => {
            assert!(["sourcedConsole", "testLog"].contains(&tag) && text.len() <= query.len());
            assert!(aside_answer(&query).is_some(), "{query}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Replayed items come in order, each with a text that can be shown.
pub(super) fn replayed(input: &[u8]) {
    let mut choices = Choices::new(input);
    // Positions come from a database, whose integers are signed.
    let start = choices.edge(100) >> 1;
    let text = String::from_utf8_lossy(choices.rest());
    if let Ok(began) = read_start(&text) {
        assert!(began.printed.len() <= text.len());
    }
    let Ok(deliveries) = read(&text, start) else { return };
    assert!(deliveries.is_sorted_by(|one, next| one.position < next.position));
    assert!(deliveries.iter().all(|delivery| delivery.position > start), "the first line is no delivery");
    let texts = deliveries.iter().flat_map(|delivery| &delivery.syscalls);
    let bytes: usize = texts.map(|syscall| syscall.request.len() + syscall.response.len()).sum();
    assert!(bytes <= text.len(), "texts are parts of the input");
}
