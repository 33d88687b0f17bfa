//! The characters that two texts share, and those that each has of its own.
//!
//! Owns the limits within which texts are compared. It must never take more than linear time beyond them.

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Where both texts have more characters than this between what they share at either end, that is not looked into: it would
/// take time with the square of it.
const LOOKED_INTO_CHARS: usize = 4_000;
/// Texts that share less than one in so many characters, and those at both ends, have nothing to do with each other.
const RELATED: usize = 4;
/// Shared characters between two differences are shown as different up to this number, or long values fall to pieces.
const JOINED_CHARS: usize = 3;

/// A part of two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Both have it.
    Same(String),
    /// The one has the first text where the other has the second; one of them may be empty.
    Differs(String, String),
}

/// Cuts two texts into what is the same and what is not.
#[must_use]
pub fn segments(one: &str, other: &str) -> Vec<Segment> {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let begin = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let (one_rest, other_rest) = (&one[begin..], &other[begin..]);
    let end = one_rest.iter().rev().zip(other_rest.iter().rev()).take_while(|(one, other)| one == other).count();
    let (one_rest, tail) = one_rest.split_at(one_rest.len() - end);
    let other_rest = &other_rest[..other_rest.len() - end];
    let middle = middle(one_rest, other_rest);
    let is_whole = matches!(middle[..], [Segment::Differs(..)]);
    if is_whole && (begin + end) * RELATED < one.len().max(other.len()) {
        return vec![Segment::Differs(text(&one), text(&other))];
    }
    let mut segments = Vec::new();
    add(&mut segments, Segment::Same(text(&one[..begin])));
    for segment in middle {
        add(&mut segments, segment);
    }
    add(&mut segments, Segment::Same(text(tail)));
    joined(segments)
}

/// Compares two texts that neither begin nor end with the same: as a whole where they have less than half in common, as two hashes
/// do that have a character in common here and there.
fn middle(one: &[char], other: &[char]) -> Vec<Segment> {
    if one.is_empty() && other.is_empty() {
        return Vec::new();
    }
    let whole = vec![Segment::Differs(text(one), text(other))];
    let shorter = one.len().min(other.len());
    if shorter > LOOKED_INTO_CHARS {
        return whole;
    }
    let ops = capture_diff_slices(Algorithm::Myers, one, other);
    let is_equal = |op: &&DiffOp| matches!(op, DiffOp::Equal { .. });
    let shared: usize = ops.iter().filter(is_equal).map(|op| op.old_range().len()).sum();
    if shared * 2 < shorter {
        return whole;
    }
    let segments = ops.iter().map(|op| {
        let (before, after) = (text(&one[op.old_range()]), text(&other[op.new_range()]));
        if is_equal(&op) { Segment::Same(before) } else { Segment::Differs(before, after) }
    });
    segments.collect()
}

/// Adds a segment; neighbours of one kind become one.
fn add(segments: &mut Vec<Segment>, segment: Segment) {
    match (segments.last_mut(), segment) {
        (_, Segment::Same(text)) if text.is_empty() => {}
        (Some(Segment::Same(before)), Segment::Same(text)) => before.push_str(&text),
        (Some(Segment::Differs(one, other)), Segment::Differs(more, more_other)) => {
            one.push_str(&more);
            other.push_str(&more_other);
        }
        (_, segment) => segments.push(segment),
    }
}

/// Lets differences that stand close together be one.
fn joined(segments: Vec<Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    let last = segments.len().saturating_sub(1);
    for (at, segment) in segments.into_iter().enumerate() {
        match (joined.last_mut(), segment) {
            (Some(Segment::Differs(one, other)), Segment::Same(text))
                if at < last && text.chars().count() <= JOINED_CHARS =>
            {
                one.push_str(&text);
                other.push_str(&text);
            }
            (_, segment) => add(&mut joined, segment),
        }
    }
    joined
}

fn text(characters: &[char]) -> String {
    characters.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(text: &str) -> Segment {
        Segment::Same(text.to_owned())
    }

    fn differs(one: &str, other: &str) -> Segment {
        Segment::Differs(one.to_owned(), other.to_owned())
    }

    #[test]
    fn what_two_texts_share() {
        for (one, other, expected) in [
            ("", "", vec![]),
            ("abc", "abc", vec![same("abc")]),
            ("balance +101", "balance +102", vec![same("balance +10"), differs("1", "2")]),
            ("abcdefgh", "abcdeXfgh", vec![same("abcde"), differs("", "X"), same("fgh")]),
            ("aé…", "aü…", vec![same("a"), differs("é", "ü"), same("…")]),
            ("one", "", vec![differs("one", "")]),
            ("4c4955989be", "8e8b56e5664", vec![differs("4c4955989be", "8e8b56e5664")]),
            (
                "the hash is 4c4955989be.",
                "the hash is 8e8b56e5664.",
                vec![same("the hash is "), differs("4c4955989be", "8e8b56e5664"), same(".")],
            ),
            ("<1ab2>", "<3ab4>", vec![same("<"), differs("1ab2", "3ab4"), same(">")]),
            (
                "<1abcdef2>",
                "<3abcdef4>",
                vec![same("<"), differs("1", "3"), same("abcdef"), differs("2", "4"), same(">")],
            ),
        ] {
            assert_eq!(segments(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn long_texts_take_no_time() {
        let one: String = (0..200_000u32).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        let other: String = (0..200_000u32).map(|at| char::from(b'b' + (at % 19) as u8)).collect();
        assert_eq!(segments(&one, &other).iter().filter(|segment| matches!(segment, Segment::Differs(..))).count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(one in "[ab]{0,40}", other in "[ab]{0,40}") {
            let (mut first, mut second) = (String::new(), String::new());
            for segment in segments(&one, &other) {
                match segment {
                    Segment::Same(text) => {
                        first.push_str(&text);
                        second.push_str(&text);
                    }
                    Segment::Differs(before, after) => {
                        first.push_str(&before);
                        second.push_str(&after);
                    }
                }
            }
            proptest::prop_assert_eq!((first, second), (one, other));
        }
    }
}
