//! The messages of the worker's protocol.
//!
//! Source: `runToIdle` in `@agoric/xsnap/src/xsnap.js`, and `handleUpstream` in
//! `swingset-vat/src/kernel/vat-loader/manager-subprocess-xsnap.js`. Owns their forms. It must never read or write a pipe.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A message of a worker.
#[derive(Debug, PartialEq, Eq)]
pub enum FromWorker<'a> {
    /// A command is done.
    Done {
        /// The cost in computrons; `None` where the worker states none.
        computrons: Option<u64>,
        /// The command's reply.
        reply: &'a [u8],
    },
    /// A command threw.
    Uncaught(&'a [u8]),
    /// The vat wants a syscall: its JSON text.
    Syscall(Cow<'a, str>),
    /// The vat printed something, or wrote to the test log. Neither is in the transcript.
    Console {
        /// The printed arguments, as JSON texts.
        text: String,
        /// The kind of output.
        tag: &'static str,
        /// All of what it said, as JSON text.
        query: String,
    },
}

/// A message that is not of the protocol.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {shown:?}")]
pub struct MessageError {
    what: &'static str,
    shown: String,
}

fn error(what: &'static str, bytes: &[u8]) -> MessageError {
    MessageError { what, shown: String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned() }
}

#[derive(Deserialize)]
struct Meter {
    compute: Option<u64>,
}

/// Reads a message.
///
/// # Errors
/// When the protocol has no such message.
pub fn parse(message: &[u8]) -> Result<FromWorker<'_>, MessageError> {
    match message.split_first() {
        None => Err(error("an empty message", message)),
        Some((b'.', rest)) => {
            let Some(separator) = rest.iter().position(|byte| *byte == 1) else {
                return Ok(FromWorker::Done { computrons: None, reply: rest });
            };
            let meter: Meter = serde_json::from_slice(&rest[..separator])
                .map_err(|_| error("a reply without a readable meter", message))?;
            Ok(FromWorker::Done { computrons: meter.compute, reply: &rest[separator + 1..] })
        }
        Some((b'!', rest)) => Ok(FromWorker::Uncaught(rest)),
        Some((b'?', rest)) => parse_query(rest).ok_or_else(|| error("an unknown query", message)),
        Some(_) => Err(error("an unknown message", message)),
    }
}

fn parse_query(query: &[u8]) -> Option<FromWorker<'_>> {
    const SYSCALL: &[u8] = b"[\"syscall\",";
    // The engine prints JSON without spaces, so this is what each syscall looks like. The kernel decodes it leniently.
    if let Some(rest) = query.strip_prefix(SYSCALL) {
        return Some(FromWorker::Syscall(String::from_utf8_lossy(rest.strip_suffix(b"]")?)));
    }
    let query = String::from_utf8_lossy(query);
    let elements: Vec<&RawValue> = serde_json::from_str(&query).ok()?;
    let is = elements.first()?.get();
    let (tag, _) = ASIDES.iter().find(|(tag, _)| is.get(1..is.len() - 1) == Some(tag))?;
    let text = elements[1..].iter().map(|argument| argument.get()).collect::<Vec<_>>().join(" ");
    Some(FromWorker::Console { text, tag, query: query.into_owned() })
}

/// The requests of a worker that are no syscalls, by their first word, and the kernel's answers.
const ASIDES: [(&str, &str); 2] = [("sourcedConsole", "[\"ok\"]"), ("testLog", "[\"OK\"]")];

/// The kernel's answer to a query that is no syscall.
#[must_use]
pub fn aside_answer(query: &str) -> Option<&'static str> {
    let tag = tag_of(query.as_bytes())?;
    ASIDES.iter().find(|(known, _)| *known == tag).map(|(_, answer)| *answer)
}

/// The first element of a reply, which says how it went: `ok`, `error`, `dispatchReady`, …
#[must_use]
pub fn tag_of(reply: &[u8]) -> Option<String> {
    let reply = String::from_utf8_lossy(reply);
    let elements: Vec<&RawValue> = serde_json::from_str(&reply).ok()?;
    serde_json::from_str(elements.first()?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_say() {
        assert_eq!(
            parse(b".{\"compute\":12,\"allocate\":3}\x01[\"ok\",null]").expect("known"),
            FromWorker::Done { computrons: Some(12), reply: b"[\"ok\",null]" }
        );
        assert_eq!(parse(b".").expect("known"), FromWorker::Done { computrons: None, reply: b"" });
        assert_eq!(parse(b"!oops").expect("known"), FromWorker::Uncaught(b"oops"));
        assert_eq!(
            parse(b"?[\"syscall\",[\"vatstoreGet\",\"k]\"]]").expect("known"),
            FromWorker::Syscall("[\"vatstoreGet\",\"k]\"]".into())
        );
        assert_eq!(
            parse(b"?[\"sourcedConsole\",\"ls\",\"log\",\"x\"]").expect("known"),
            FromWorker::Console {
                text: "\"ls\" \"log\" \"x\"".to_owned(),
                tag: "sourcedConsole",
                query: "[\"sourcedConsole\",\"ls\",\"log\",\"x\"]".to_owned()
            }
        );
        assert_eq!(
            parse(b"?[\"testLog\",\"x\"]").expect("known"),
            FromWorker::Console { text: "\"x\"".to_owned(), tag: "testLog", query: "[\"testLog\",\"x\"]".to_owned() }
        );
        assert_eq!(aside_answer("[\"sourcedConsole\",1]"), Some("[\"ok\"]"));
        assert_eq!(aside_answer("[\"testLog\"]"), Some("[\"OK\"]"));
        assert_eq!(aside_answer("[\"syscall\"]"), None);
    }

    #[test]
    fn what_no_worker_says() {
        for message in [&b""[..], b"x", b"?", b"?{}", b"?[]", b"?[\"noise\"]", b"?[\"syscall\",", b".no meter\x01[]"] {
            parse(message).expect_err("unknown");
        }
    }

    #[test]
    fn tags() {
        assert_eq!(tag_of(b"[\"dispatchReady\"]").as_deref(), Some("dispatchReady"));
        assert_eq!(tag_of(b"[1]"), None);
        assert_eq!(tag_of(b"ok"), None);
    }
}
