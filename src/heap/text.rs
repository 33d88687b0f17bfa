//! Values as people read them: texts, numbers, big integers, regular expressions.
//!
//! Owns the engine's encodings. It must never decide whether two values are the same: that is for bytes.

/// A text in the engine's encoding: UTF-8 in which a character beyond the first 65,536 is two surrogates of three bytes
/// each, and U+0000 is `C0 80`. What is neither stands as U+FFFD.
#[must_use]
pub fn decode(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let (unit, length) = match (first, tail) {
            (0..0x80, _) => (u32::from(*first), 1),
            (0xC0..0xE0, [second, ..]) => (u32::from(first & 0x1F) << 6 | u32::from(second & 0x3F), 2),
            (0xE0..0xF0, [second, third, ..]) => {
                (u32::from(first & 0x0F) << 12 | u32::from(second & 0x3F) << 6 | u32::from(third & 0x3F), 3)
            }
            _ => (0xFFFD, 1),
        };
        units.push(u16::try_from(unit).unwrap_or(0xFFFD));
        rest = rest.get(length..).unwrap_or_default();
    }
    String::from_utf16_lossy(&units)
}

/// A text in quotes, cut where it gets long.
#[must_use]
pub fn quoted(bytes: &[u8], characters_max: usize) -> String {
    // No character takes more than six bytes.
    let is_cut = bytes.len() > characters_max * 6;
    let text = decode(bytes.get(..characters_max * 6).unwrap_or(bytes));
    let count = text.chars().count();
    if count <= characters_max && !is_cut {
        return format!("{text:?}");
    }
    let shown: String = text.chars().take(characters_max).collect();
    format!("{shown:?}… ({} bytes)", bytes.len())
}

/// A number as the language prints it, −0 apart.
#[must_use]
pub fn number(value: f64) -> String {
    if value == 0.0 && value.is_sign_negative() {
        "-0".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else if value.abs() >= 1e21 || value != 0.0 && value.abs() < 1e-6 {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}

/// A big integer from its magnitude, in hexadecimal where it is long.
#[must_use]
pub fn big_integer(magnitude: &[u8], is_negative: bool) -> String {
    let sign = if is_negative { "-" } else { "" };
    if let Some(small) = magnitude.iter().rposition(|byte| *byte != 0).map_or(Some(0), |last| {
        (last < 16).then(|| magnitude.iter().take(16).rev().fold(0_u128, |value, byte| value << 8 | u128::from(*byte)))
    }) {
        return format!("{sign}{small}n");
    }
    let digits: String =
        magnitude.iter().rev().skip_while(|byte| **byte == 0).map(|byte| format!("{byte:02x}")).collect();
    if digits.len() > 80 {
        let shown = digits.get(..80).unwrap_or_default();
        format!("{sign}0x{shown}…n ({} bits)", magnitude.len() * 8)
    } else {
        format!("{sign}0x{digits}n")
    }
}

/// The parts of a regular expression's code and of what its last match left behind (`xsre.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegExpParts {
    /// The number of groups that capture, the whole match included.
    pub captures: usize,
    /// Lookaheads and lookbehinds.
    pub assertions: usize,
    /// Repetitions.
    pub quantifiers: usize,
}

impl RegExpParts {
    /// From the compiled code; `None` if it is cut.
    #[must_use]
    pub fn of(code: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let word = code.get(at.checked_mul(4)?..)?.first_chunk::<4>()?;
            usize::try_from(u32::from_le_bytes(*word)).ok().filter(|word| *word <= 1 << 24)
        };
        let captures = word(1)?;
        Some(Self { captures, assertions: word(2 + captures)?, quantifiers: word(3 + captures)? })
    }

    /// The bytes that a match leaves behind.
    #[must_use]
    pub fn data_bytes(&self) -> usize {
        self.captures * 8 + self.assertions * 16 + self.quantifiers * 12
    }

    /// Whether a byte of what a match left behind belongs to an address in the memory of the worker.
    #[must_use]
    pub fn is_address(&self, at: usize) -> bool {
        let start = self.captures * 8;
        at >= start && at < start + self.assertions * 16 && (at - start) % 16 >= 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_of_every_kind() {
        assert_eq!(decode("grün ✓".as_bytes()), "grün ✓");
        assert_eq!(decode(b"\xED\xA0\xBD\xED\xB8\x80"), "😀");
        assert_eq!(decode(b"a\xC0\x80b"), "a\0b");
        assert_eq!(decode(b"\xED\xA0\xBD!"), "\u{FFFD}!");
        assert_eq!(quoted(b"abcdef", 3), "\"abc\"… (6 bytes)");
        assert_eq!(quoted(b"a\"b", 10), "\"a\\\"b\"");
    }

    #[test]
    fn numbers_of_every_kind() {
        let numbers = [0.0, -0.0, 1.5, -7.0, 1e21, 1e-7, f64::NAN, f64::NEG_INFINITY].map(number);
        assert_eq!(numbers, ["0", "-0", "1.5", "-7", "1e21", "1e-7", "NaN", "-Infinity"]);
        assert_eq!(big_integer(&[0, 0, 0, 0, 1, 0, 0, 0], true), "-4294967296n");
        assert_eq!(big_integer(&[0xff; 20], false), format!("0x{}n", "ff".repeat(20)));
    }

    proptest! {
        #[test]
        fn anything_can_be_shown(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let shown = decode(&bytes).chars().count();
            prop_assert!(shown <= bytes.len());
            prop_assert!(quoted(&bytes, 7).chars().count() <= 200);
            prop_assert!(big_integer(&bytes, false).ends_with('n') || bytes.len() > 40);
        }
    }
}
