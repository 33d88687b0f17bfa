//! Small pieces of text that several modules print: counts, vat names, excerpts of long texts.
//!
//! Pure functions without I/O. This module must never import another module but [`crate::visible`], so that all may import it.

use std::borrow::Cow;

use crate::visible;

/// `1 span`, `2 spans`.
#[must_use]
pub fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// So many characters of a vat's name are shown.
pub const NAME_CHARS: usize = 64;

/// A vat's name, as far as it is shown.
#[must_use]
pub fn vat_name(name: Option<&str>) -> Cow<'_, str> {
    name.map_or(Cow::Borrowed("-"), |name| visible::short(name, NAME_CHARS))
}

/// Longer texts are shown in part.
const EXCERPT_BYTES: usize = 600;

/// Two texts, cut down to the place where they first differ.
#[must_use]
pub fn excerpts(recorded: Option<&str>, replayed: Option<&str>) -> (Option<String>, Option<String>) {
    let differ_at = match (recorded, replayed) {
        (Some(recorded), Some(replayed)) => {
            recorded.bytes().zip(replayed.bytes()).take_while(|(one, other)| one == other).count()
        }
        _ => 0,
    };
    let cut = |text: &str| {
        if text.len() <= EXCERPT_BYTES {
            return text.to_owned();
        }
        let begin = text.floor_char_boundary(differ_at.min(text.len()).saturating_sub(EXCERPT_BYTES / 3));
        let end = text.floor_char_boundary((begin + EXCERPT_BYTES).min(text.len()));
        format!("[bytes {begin} to {end} of {}] {}", text.len(), &text[begin..end])
    };
    (recorded.map(cut), replayed.map(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_where_they_differ() {
        let recorded = "a".repeat(10_000);
        let mut replayed = recorded.clone();
        replayed.replace_range(5_000..5_001, "b");
        let (one, other) = excerpts(Some(&recorded), Some(&replayed));
        let (one, other) = (one.expect("text"), other.expect("text"));
        assert!(one.starts_with("[bytes 4800 to 5400 of 10000] aaa"), "{one}");
        assert!(
            one.ends_with(&"a".repeat(600)) && other.ends_with(&format!("{}b{}", "a".repeat(200), "a".repeat(399)))
        );
    }

    #[test]
    fn cuts_keep_characters_whole() {
        let text = "é".repeat(1_000);
        let (cut, _) = excerpts(Some(&text), None);
        assert!(cut.expect("text").ends_with('é'));
    }
}
