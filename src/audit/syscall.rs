//! A recorded syscall and the kernel's answer, as far as they concern the vatstore.
//!
//! Strings are kept as SQLite gets them: UTF-8, and for a lone surrogate the three bytes that it would have if it were a character (which
//! V8 hands to SQLite). Owns the shapes of these syscalls. It must never judge an answer.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::transcript::canonical;
use crate::transcript::{RealDelivery, Syscall};

/// A string of the record.
pub(super) type Text<'a> = Cow<'a, [u8]>;

/// The request of the vat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// The value of a key.
    Get(Text<'a>),
    /// A key is given a value.
    Set(Text<'a>, Text<'a>),
    /// A key is removed.
    Delete(Text<'a>),
    /// The first key after this one.
    NextKey(Text<'a>),
    /// A device is called.
    CallNow,
    /// Any of those to which the kernel answers nothing.
    Nothing,
    /// One that is not known here: nothing is said of its response.
    Unknown,
    /// A vatstore syscall that the kernel kills a vat for.
    Malformed,
}

/// The answer of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response<'a> {
    /// `["ok", null]`.
    Null,
    /// `["ok", string]`.
    Text(Text<'a>),
    /// `["ok", capdata]`.
    CapData,
    /// `["error", string]`.
    Error,
    /// Anything else.
    Other,
}

/// The syscalls to which the kernel answers `["ok", null]` (`kernelSyscall.js`).
const NOTHING: [&str; 8] =
    ["send", "subscribe", "resolve", "exit", "dropImports", "retireImports", "retireExports", "abandonExports"];

impl<'a> Request<'a> {
    pub(super) fn of(syscall: &Syscall<'a>) -> Self {
        let text = syscall.request();
        // The arguments of all others may be long, and do not matter.
        if let Some(name) = plain_name(text) {
            if NOTHING.contains(&name) {
                return Self::Nothing;
            }
            if name == "callNow" {
                return Self::CallNow;
            }
            if !name.starts_with("vatstore") {
                return Self::Unknown;
            }
        }
        let Ok(elements) = serde_json::from_str::<Vec<&'a RawValue>>(text) else { return Self::Unknown };
        let string = |at: usize| elements.get(at).and_then(|element| canonical::string(element.get()));
        let Some(name) = string(0) else { return Self::Unknown };
        let parsed = match &*name {
            b"vatstoreGet" => string(1).map(Self::Get),
            b"vatstoreSet" => string(1).zip(string(2)).map(|(key, value)| Self::Set(key, value)),
            b"vatstoreDelete" => string(1).map(Self::Delete),
            b"vatstoreGetNextKey" => string(1).map(Self::NextKey),
            b"callNow" => Some(Self::CallNow),
            other if NOTHING.iter().any(|known| known.as_bytes() == other) => Some(Self::Nothing),
            _ => Some(Self::Unknown),
        };
        parsed.unwrap_or(Self::Malformed)
    }

    /// Whether the kernel can have answered this with an error and kept the item: a device that fails; and a syscall that
    /// the kernel can't translate in the forced collection before a snapshot, whose end it does not look at.
    pub(super) fn may_fail(&self, delivery: Option<RealDelivery>) -> bool {
        match self {
            Self::CallNow => true,
            Self::Nothing => delivery == Some(RealDelivery::BringOutYourDead),
            _ => false,
        }
    }
}

impl<'a> Response<'a> {
    pub(super) fn of(syscall: &Syscall<'a>) -> Self {
        let text = syscall.response();
        if text == r#"["ok",null]"# {
            return Self::Null;
        }
        let Ok(elements) = serde_json::from_str::<Vec<&'a RawValue>>(text) else { return Self::Other };
        let [tag, value] = &elements[..] else { return Self::Other };
        match (canonical::string(tag.get()).as_deref(), canonical::string(value.get())) {
            (Some(b"ok"), Some(text)) => Self::Text(text),
            (Some(b"ok"), None) if value.get() == "null" => Self::Null,
            (Some(b"ok"), None) if is_capdata(value) => Self::CapData,
            (Some(b"error"), Some(_)) => Self::Error,
            _ => Self::Other,
        }
    }
}

/// The name in `["name",…`, where it is written plainly.
fn plain_name(request: &str) -> Option<&str> {
    let (name, _) = request.strip_prefix("[\"")?.split_once('"')?;
    (!name.contains('\\')).then_some(name)
}

/// `insistCapData`: a body that is a string, and slots that are strings; more fields do no harm.
fn is_capdata(value: &RawValue) -> bool {
    let Some(body) = canonical::field(value.get(), b"body") else { return false };
    let Some(slots) = canonical::field(value.get(), b"slots") else { return false };
    let Ok(slots) = serde_json::from_str::<Vec<&RawValue>>(slots.get()) else { return false };
    canonical::string(body.get()).is_some() && slots.iter().all(|slot| canonical::string(slot.get()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Syscall<'_> {
        serde_json::from_str(text).expect("a syscall")
    }

    fn text(text: &'static str) -> Text<'static> {
        Cow::Borrowed(text.as_bytes())
    }

    #[test]
    fn requests() {
        for (request, is) in [
            (r#"["vatstoreGet","k"]"#, Request::Get(text("k"))),
            (r#" [ "vatstoreGet" , "k" ] "#, Request::Get(text("k"))),
            (r#"["vatstore\u0047et","k"]"#, Request::Get(text("k"))),
            (r#"["vatstoreSet","k","\"v\""]"#, Request::Set(text("k"), text("\"v\""))),
            (r#"["vatstoreDelete","\ud83d\ude00"]"#, Request::Delete(text("😀"))),
            (r#"["vatstoreGetNextKey","\ud83d"]"#, Request::NextKey(Cow::Borrowed(b"\xed\xa0\xbd"))),
            (r#"["callNow","d-70",{}]"#, Request::CallNow),
            (r#"["resolve",[]]"#, Request::Nothing),
            (r#"["r\u0065solve",[]]"#, Request::Nothing),
            (r#"["vatstoreGetAfter","","k"]"#, Request::Unknown),
            (r#"["noise"]"#, Request::Unknown),
            ("[]", Request::Unknown),
            ("{}", Request::Unknown),
            (r#"["vatstoreGet"]"#, Request::Malformed),
            (r#"["vatstoreSet","k",null]"#, Request::Malformed),
        ] {
            let syscall = format!(r#"{{"s":{request},"r":["ok",null]}}"#);
            assert_eq!(Request::of(&parse(&syscall)), is, "{request}");
        }
    }

    #[test]
    fn responses() {
        for (response, is) in [
            (r#"["ok",null]"#, Response::Null),
            (r#"["ok", null]"#, Response::Null),
            (r#"["ok","v"]"#, Response::Text(text("v"))),
            (r##"["ok",{"body":"#1","slots":["o-1"]}]"##, Response::CapData),
            (r#"["ok",{"slots":[],"body":"","more":1}]"#, Response::CapData),
            (r#"["error","device.invoke failed, see logs for details"]"#, Response::Error),
            (r#"["ok"]"#, Response::Other),
            (r#"["ok",null,null]"#, Response::Other),
            (r#"["ok",1]"#, Response::Other),
            (r##"["ok",{"body":"#1"}]"##, Response::Other),
            (r##"["ok",{"body":"#1","slots":[1]}]"##, Response::Other),
            (r#"["error",null]"#, Response::Other),
            (r#"["fine",null]"#, Response::Other),
            (r#""ok""#, Response::Other),
        ] {
            let syscall = format!(r#"{{"s":["vatstoreGet","k"],"r":{response}}}"#);
            assert_eq!(Response::of(&parse(&syscall)), is, "{response}");
        }
    }
}
