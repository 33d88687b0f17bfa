//! Equality of JSON values, as the kernel means it.
//!
//! The kernel compares syscalls as JSON with sorted keys (`swingset-vat/src/lib/djson.js`), after both went through JavaScript. So numbers are
//! IEEE doubles, strings are UTF-16 (an escape and the character itself are the same, and a surrogate may stand alone), and the order of keys
//! means nothing. Owns [`canonical`], which turns a text into bytes that are equal exactly when the values are. They are for comparing only:
//! they are no JSON, and must never be sent or stored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper nesting than this is refused. Syscalls nest less than ten deep: what a vat sends is a string in them.
const DEPTH_MAX: usize = 64;

/// Why a text has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Nested too deeply.
    #[error("nested more than {DEPTH_MAX} deep")]
    TooDeep,
}

/// The canonical form of a JSON text.
///
/// # Errors
/// When the text is not JSON or nests too deeply.
pub fn canonical(text: &str) -> Result<Vec<u8>, CanonicalError> {
    let raw: &RawValue = serde_json::from_str(text)?;
    let mut out = Vec::with_capacity(text.len());
    write(raw, DEPTH_MAX, &mut out)?;
    Ok(out)
}

fn write(raw: &RawValue, depth: usize, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    let depth = depth.checked_sub(1).ok_or(CanonicalError::TooDeep)?;
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push(b'[');
            for element in elements {
                write(element, depth, out)?;
                out.push(b',');
            }
            out.push(b']');
        }
        Some(b'{') => {
            let fields: Fields<'_> = serde_json::from_str(text)?;
            out.push(b'{');
            for (key, value) in fields.0 {
                write_string(&key, out);
                write(value, depth, out)?;
                out.push(b',');
            }
            out.push(b'}');
        }
        Some(b'"') => write_string(&serde_json::from_str::<Text>(text)?.0, out),
        Some(b'-' | b'0'..=b'9') => {
            // Already known to be a JSON number, which is a number to Rust as well, and read exactly. Adding zero makes
            // -0 and 0 one value, as `JSON.stringify` does.
            let number = text.parse::<f64>().unwrap_or(f64::NAN) + 0.0;
            out.push(b'#');
            out.extend_from_slice(&number.to_bits().to_be_bytes());
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

/// The string that a JSON text is, as WTF-8: UTF-8, in which a lone surrogate may stand too. `None` if it is no string.
#[must_use]
pub fn string(text: &str) -> Option<Cow<'_, [u8]>> {
    let inside = text.strip_prefix('"')?;
    match inside.strip_suffix('"') {
        Some(inside) if !inside.bytes().any(|byte| byte == b'\\' || byte == b'"') => {
            Some(Cow::Borrowed(inside.as_bytes()))
        }
        _ => serde_json::from_str::<Text>(text).ok().map(|text| Cow::Owned(text.0)),
    }
}

/// The value of a field of the object that a JSON text is; of two the last counts, as in JavaScript.
#[must_use]
pub fn field<'a>(text: &'a str, name: &[u8]) -> Option<&'a RawValue> {
    serde_json::from_str::<Fields<'a>>(text).ok()?.0.get(name).copied()
}

/// A length before the bytes, so that no content can be taken for structure.
fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A JSON string as WTF-8: UTF-8, in which a lone surrogate may stand too.
///
/// `serde_json` refuses lone surrogates in a `str` and passes them on in bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Text(Vec<u8>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// An object's fields, sorted; of two with the same key the last counts, as in JavaScript.
struct Fields<'a>(BTreeMap<Vec<u8>, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<Text, &'de RawValue>()? {
                    fields.insert(key.0, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether two texts are the same value; what is not JSON equals nothing.
    fn same(one: &str, other: &str) -> bool {
        matches!((canonical(one), canonical(other)), (Ok(one), Ok(other)) if one == other)
    }

    #[test]
    fn the_same_value_in_other_words() {
        for (one, other) in [
            ("[1,2]", " [ 1 , 2.0 ] "),
            (r#"{"a":1,"b":[true]}"#, r#"{"b":[true],"a":1}"#),
            (r#""\u00e9\n""#, "\"é\\u000a\""),
            (r#""\ud83d\ude00""#, "\"😀\""),
            (r#""\ud83d""#, r#""\uD83D""#),
            ("1e21", "1000000000000000000000"),
            ("-0", "0"),
            ("9007199254740993", "9007199254740992"),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        ] {
            assert!(same(one, other), "{one} and {other}");
        }
    }

    #[test]
    fn other_values() {
        for (one, other) in [
            ("[1,2]", "[2,1]"),
            ("null", "false"),
            ("\"1\"", "1"),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\ude00\ud83d""#, r#""\ud83d\ude00""#),
            ("[[],[]]", "[[[]]]"),
            (r#"["a,b"]"#, r#"["a","b"]"#),
            (r#"{"a":null}"#, "{}"),
            ("[1", "[1,"),
        ] {
            assert!(!same(one, other), "{one} and {other}");
        }
    }

    #[test]
    fn depth_is_limited() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(canonical(&deep(DEPTH_MAX)).is_ok());
        assert!(matches!(canonical(&deep(DEPTH_MAX + 1)), Err(CanonicalError::TooDeep)));
        assert!(matches!(canonical(&deep(1_000_000)), Err(CanonicalError::TooDeep)));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn equal_exactly_when_the_values_are(one in json(), other in json()) {
            let (one_text, other_text) = (one.to_string(), other.to_string());
            prop_assert!(same(&one_text, &[" ", &one_text, " "].concat()));
            prop_assert_eq!(same(&one_text, &other_text), one == other);
        }

        #[test]
        fn any_text_is_taken_without_a_panic(text in any::<String>()) {
            let _ = canonical(&text);
        }
    }
}
