//! Deliveries and syscalls in a person's words: `o-54.meet(⟨o-53 root⟩) → p+6`.
//!
//! Sources: the shapes of vat deliveries and syscalls in `swingset-vat/src/types-external.js`; capdata in the form that `@endo/marshal` calls
//! smallcaps (a body that begins with `#`) and in the older one with `@qclass`. Owns those words. It must never fail: a shape that it does
//! not know is shown as it is, cut.

use std::fmt::Write;

use serde_json::Value;

/// Texts inside are cut to this many characters.
const TEXT_MAX: usize = 60;
/// Deeper than this nothing is shown.
const DEPTH_MAX: usize = 12;

/// A delivery or a syscall, from its JSON text. What has another shape than is known comes back as it is.
#[must_use]
pub fn readable(json: &str) -> String {
    let Ok(Value::Array(elements)) = serde_json::from_str::<Value>(json) else { return cut(json) };
    let Some(name) = elements.first().and_then(Value::as_str) else { return cut(json) };
    shown(name, &elements[1..]).unwrap_or_else(|| cut(json))
}

fn shown(name: &str, arguments: &[Value]) -> Option<String> {
    let text = |at: usize| arguments.get(at).and_then(Value::as_str);
    Some(match name {
        "message" | "send" => {
            let message = arguments.get(1)?;
            let call = method(message.get("methargs")?)?;
            let result = message.get("result").and_then(Value::as_str);
            format!("{}.{call}{}", text(0)?, result.map(|result| format!(" → {result}")).unwrap_or_default())
        }
        "notify" | "resolve" => {
            let resolutions = arguments.first()?.as_array()?.iter().map(|resolution| {
                let (promise, is_rejected) = (resolution.get(0)?.as_str()?, resolution.get(1)?.as_bool()?);
                let how = if is_rejected { "rejected with" } else { "=" };
                Some(format!("{promise} {how} {}", capdata(resolution.get(2)?)?))
            });
            format!("{name} {}", resolutions.collect::<Option<Vec<_>>>()?.join(", "))
        }
        "startVat" | "stopVat" => format!("{name}({})", capdata(arguments.first()?)?),
        "callNow" => {
            let (device, call) = (text(0)?, text(1)?);
            let arguments = values(arguments.get(2)?)?;
            format!("{device}.{call}({}) at once", arguments.join(", "))
        }
        "exit" => {
            let how = if arguments.first()?.as_bool()? { "exit, failing with" } else { "exit with" };
            format!("{how} {}", capdata(arguments.get(1)?)?)
        }
        "vatstoreSet" => format!("vatstoreSet {} = {}", text(0)?, cut(text(1)?)),
        "vatstoreGet" | "vatstoreDelete" | "vatstoreGetNextKey" | "subscribe" => format!("{name} {}", text(0)?),
        "dropExports" | "retireExports" | "retireImports" | "dropImports" | "abandonExports" => {
            let names = arguments.first()?.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            format!("{name} {}", names.join(", "))
        }
        "bringOutYourDead" | "shutdown-worker" | "save-snapshot" => name.to_owned(),
        "load-snapshot" => format!("load-snapshot {}", arguments.first()?.get("snapshotID")?.as_str()?.get(..8)?),
        "initialize-worker" => "initialize-worker".to_owned(),
        _ => return None,
    })
}

/// `method(arguments)` of `methargs`.
fn method(methargs: &Value) -> Option<String> {
    let (body, slots) = body_of(methargs)?;
    let Value::Array(arguments) = body.get(1)? else { return None };
    let is_small = is_smallcaps(methargs);
    let name = match body.get(0)? {
        Value::String(name) => unescaped(name).to_owned(),
        // A function is called without a method.
        other => value(other, &slots, is_small, 0),
    };
    let arguments: Vec<String> = arguments.iter().map(|argument| value(argument, &slots, is_small, 0)).collect();
    Some(format!("{name}({})", arguments.join(", ")))
}

/// The elements of capdata that is an array.
fn values(data: &Value) -> Option<Vec<String>> {
    let (body, slots) = body_of(data)?;
    let is_small = is_smallcaps(data);
    Some(body.as_array()?.iter().map(|element| value(element, &slots, is_small, 0)).collect())
}

/// The value of capdata, in words.
fn capdata(data: &Value) -> Option<String> {
    let (body, slots) = body_of(data)?;
    Some(value(&body, &slots, is_smallcaps(data), 0))
}

fn is_smallcaps(data: &Value) -> bool {
    data.get("body").and_then(Value::as_str).is_some_and(|body| body.starts_with('#'))
}

fn body_of(data: &Value) -> Option<(Value, Vec<String>)> {
    let body = data.get("body")?.as_str()?;
    let body = serde_json::from_str(body.strip_prefix('#').unwrap_or(body)).ok()?;
    let slots = data.get("slots")?.as_array()?.iter().map(|slot| slot.as_str().map(str::to_owned));
    Some((body, slots.collect::<Option<_>>()?))
}

fn value(of: &Value, slots: &[String], is_small: bool, depth: usize) -> String {
    if depth > DEPTH_MAX {
        return "…".to_owned();
    }
    let inner = |of: &Value| value(of, slots, is_small, depth + 1);
    match of {
        Value::Null | Value::Bool(_) | Value::Number(_) => of.to_string(),
        Value::String(text) if is_small => small(text, slots),
        Value::String(text) => quoted(text),
        Value::Array(elements) => format!("[{}]", elements.iter().map(inner).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let string = |name: &str| fields.get(name).and_then(Value::as_str);
            if let Some(message) = string("#error") {
                return format!("{}({})", string("name").unwrap_or("Error"), quoted(unescaped(message)));
            }
            match string("@qclass") {
                Some("slot") => {
                    let index = fields.get("index").and_then(Value::as_u64);
                    return slot(index, string("iface"), slots);
                }
                Some("bigint") => return format!("{}n", string("digits").unwrap_or("?")),
                Some("error") => {
                    let message = string("message").unwrap_or_default();
                    return format!("{}({})", string("name").unwrap_or("Error"), quoted(message));
                }
                Some(plain @ ("undefined" | "NaN" | "Infinity" | "-Infinity" | "-0")) => return plain.to_owned(),
                _ => {}
            }
            let mut text = String::from("{");
            for (name, field) in fields {
                let separator = if text.len() > 1 { ", " } else { "" };
                let _ = write!(text, "{separator}{}: {}", unescaped(name), inner(field));
            }
            text + "}"
        }
    }
}

/// A string in smallcaps: its first character says what it is.
fn small(text: &str, slots: &[String]) -> String {
    let Some(first) = text.chars().next() else { return quoted(text) };
    let rest = &text[first.len_utf8()..];
    match first {
        '!' => quoted(rest),
        '+' | '-' if rest.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{}n", if first == '+' { rest } else { text })
        }
        '#' => rest.to_owned(),
        '%' => format!("Symbol({rest})"),
        '$' | '&' => {
            let (index, name) = rest.split_once('.').map_or((rest, None), |(index, name)| (index, Some(name)));
            slot(index.parse().ok(), name, slots)
        }
        _ => quoted(text),
    }
}

fn slot(index: Option<u64>, name: Option<&str>, slots: &[String]) -> String {
    let of = index.and_then(|index| slots.get(usize::try_from(index).ok()?)).map_or("?", String::as_str);
    match name.map(|name| name.trim_start_matches("Alleged: ")) {
        Some(name) if !name.is_empty() => format!("⟨{of} {name}⟩"),
        _ => format!("⟨{of}⟩"),
    }
}

fn unescaped(text: &str) -> &str {
    text.strip_prefix('!').unwrap_or(text)
}

fn quoted(text: &str) -> String {
    serde_json::to_string(&cut(text)).unwrap_or_default()
}

/// Cuts a long text.
fn cut(text: &str) -> String {
    let mut characters = text.chars();
    let begin: String = characters.by_ref().take(TEXT_MAX).collect();
    let rest = characters.count();
    if rest == 0 { begin } else { format!("{begin}… (+{rest} characters)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kernels_write_reads_well() {
        for (json, says) in [
            (
                r##"["message","o+0",{"methargs":{"body":"#[\"introduce\",[\"edges\",\"+12\",\"!+x\",\"$0.Alleged: root\"]]","slots":["o-3"]},"result":"p-61"}]"##,
                r#"o+0.introduce("edges", 12n, "+x", ⟨o-3 root⟩) → p-61"#,
            ),
            (
                r##"["send","o-54",{"methargs":{"body":"#[\"meet\",[\"#undefined\",{\"a\":\"%x\",\"b\":null}]]","slots":[]}}]"##,
                "o-54.meet(undefined, {a: Symbol(x), b: null})",
            ),
            (
                r##"["notify",[["p+5",false,{"body":"#\"$0.Alleged: vatAdminService\"","slots":["o-63"]}],["p+6",true,{"body":"#{\"#error\":\"no\",\"name\":\"TypeError\"}","slots":[]}]]]"##,
                r#"notify p+5 = ⟨o-63 vatAdminService⟩, p+6 rejected with TypeError("no")"#,
            ),
            (
                r#"["message","o+0",{"methargs":{"body":"[\"old\",[{\"@qclass\":\"slot\",\"iface\":\"Alleged: x\",\"index\":0},{\"@qclass\":\"bigint\",\"digits\":\"7\"}]]","slots":["o-9"]},"result":null}]"#,
                "o+0.old(⟨o-9 x⟩, 7n)",
            ),
            (r#"["vatstoreSet","vc.1.sx","{}"]"#, "vatstoreSet vc.1.sx = {}"),
            (r#"["retireImports",["o-50","o-51"]]"#, "retireImports o-50, o-51"),
            (r#"["bringOutYourDead"]"#, "bringOutYourDead"),
            (r##"["callNow","d-70","get",{"body":"#[\"x\"]","slots":[]}]"##, r#"d-70.get("x") at once"#),
            (r##"["exit",true,{"body":"#\"why\"","slots":[]}]"##, r#"exit, failing with "why""#),
            (r#"["unknown",1]"#, r#"["unknown",1]"#),
            ("no json", "no json"),
            (r#"["message","o+0",{}]"#, r#"["message","o+0",{}]"#),
        ] {
            assert_eq!(readable(json), says);
        }
    }

    #[test]
    fn long_and_deep_things_are_cut() {
        let long = format!(r#"["vatstoreSet","k","{}"]"#, "é".repeat(100));
        assert_eq!(readable(&long), format!("vatstoreSet k = {}… (+40 characters)", "é".repeat(60)));
        let deep = format!(r##"["startVat",{{"body":"#{}{}","slots":[]}}]"##, "[".repeat(100), "]".repeat(100));
        assert!(readable(&deep).contains('…'));
    }
}
