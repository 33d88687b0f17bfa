//! The first difference between two values: the path to it, through JSON and through the JSON in its strings.
//!
//! Owns that path and its words. It must never print a whole value, which can have megabytes.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Deeper than this two values are compared as texts.
const DEPTH_MAX: usize = 64;
/// The characters that are shown of a value at the difference.
const SHOWN: usize = 200;
/// The characters that are shown before the difference in a long text.
const BEFORE: usize = 40;

/// The first difference between two values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The way to it, as in `[2].body#[1][0].amount`.
    pub path: String,
    /// The recorded value there; `nothing` if it is absent.
    pub recorded: String,
    /// The replayed one.
    pub replayed: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: recorded {}, replayed {}", self.path, self.recorded, self.replayed)
    }
}

/// The first difference of two JSON texts; `None` if they say the same.
#[must_use]
pub fn first_difference(recorded: &str, replayed: &str) -> Option<Difference> {
    match (serde_json::from_str(recorded), serde_json::from_str(replayed)) {
        (Ok(one), Ok(other)) => values(&one, &other, String::new(), 0),
        _ => (recorded != replayed).then(|| texts(recorded, replayed, String::new())),
    }
}

fn values(one: &Value, other: &Value, path: String, depth: usize) -> Option<Difference> {
    if one == other {
        return None;
    }
    if depth > DEPTH_MAX {
        return Some(texts(&one.to_string(), &other.to_string(), path));
    }
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            let longer = one.len().max(other.len());
            (0..longer).find_map(|at| pair(one.get(at), other.get(at), format!("{path}[{at}]"), depth))
        }
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            names.into_iter().find_map(|name| pair(one.get(name), other.get(name), format!("{path}.{name}"), depth))
        }
        (Value::String(one), Value::String(other)) => match (inner(one), inner(other)) {
            (Some((sign, one)), Some((same_sign, other))) if sign == same_sign => {
                values(&one, &other, format!("{path}{sign}"), depth + 1)
            }
            _ => Some(texts(one, other, path)),
        },
        _ => Some(Difference { path, recorded: shown(one), replayed: shown(other) }),
    }
}

fn pair(one: Option<&Value>, other: Option<&Value>, path: String, depth: usize) -> Option<Difference> {
    match (one, other) {
        (Some(one), Some(other)) => values(one, other, path, depth + 1),
        (one, other) => {
            let side = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), shown);
            Some(Difference { path, recorded: side(one), replayed: side(other) })
        }
    }
}

/// The JSON that a string holds: state in the vatstore, or capdata's body.
fn inner(text: &str) -> Option<(&'static str, Value)> {
    let (sign, text) = text.strip_prefix('#').map_or((">", text), |body| ("#", body));
    let value: Value = serde_json::from_str(text).ok()?;
    (value.is_object() || value.is_array() || sign == "#").then_some((sign, value))
}

fn texts(one: &str, other: &str, path: String) -> Difference {
    let at = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    let path = if one.len().max(other.len()) > SHOWN { format!("{path} from byte {at} on") } else { path };
    let part = |text: &str| {
        if text.len() <= SHOWN {
            return quoted(text);
        }
        let begin = text.floor_char_boundary(at.min(text.len()).saturating_sub(BEFORE));
        let end = text.floor_char_boundary((begin + SHOWN).min(text.len()));
        let (before, after) = (if begin > 0 { "…" } else { "" }, if end < text.len() { "…" } else { "" });
        format!("{before}{}{after}", quoted(&text[begin..end]))
    };
    Difference { path, recorded: part(one), replayed: part(other) }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= SHOWN {
        return text;
    }
    let end = text.floor_char_boundary(SHOWN);
    format!("{}… ({} bytes)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_difference() {
        for (one, other, says) in [
            (r#"["a",1]"#, r#"["a",2]"#, "[1]: recorded 1, replayed 2"),
            (r#"["a"]"#, r#"["a",2]"#, "[1]: recorded nothing, replayed 2"),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"c":1}}"#, ".a.b: recorded 1, replayed nothing"),
            (r#"["x"]"#, r#"["y"]"#, r#"[0]: recorded "x", replayed "y""#),
            (r#"["1"]"#, r#"[1]"#, r#"[0]: recorded "1", replayed 1"#),
            (
                r##"["vatstoreSet","k","{\"balance\":{\"body\":\"#\\\"+101\\\"\",\"slots\":[]}}"]"##,
                r##"["vatstoreSet","k","{\"balance\":{\"body\":\"#\\\"+102\\\"\",\"slots\":[]}}"]"##,
                r##"[2]>.balance.body#: recorded "+101", replayed "+102""##,
            ),
            ("no json", "no JSON", r#": recorded "no json", replayed "no JSON""#),
        ] {
            assert_eq!(first_difference(one, other).map(|found| found.to_string()).as_deref(), Some(says));
        }
        assert_eq!(first_difference("[1, 2]", "[1,2]"), None);
    }

    #[test]
    fn long_texts_are_shown_where_they_part() {
        let one = format!("[\"{}\"]", "é".repeat(1_000));
        let other = one.replacen("éé\"", "éx\"", 1);
        let found = first_difference(&one, &other).expect("a difference");
        assert_eq!(found.path, "[0] from byte 1998 on");
        assert!(found.recorded.starts_with('…') && found.recorded.len() < 300, "{found}");
        assert!(found.replayed.ends_with("éx\""), "{found}");
    }
}
