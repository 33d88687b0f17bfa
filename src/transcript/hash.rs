//! sha256 in the two ways of the swing-store: over bytes, and chained over the items of a span.
//!
//! Owns both. It must never accept a hash in another form than 64 lower-case hexadecimal digits.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// A sha256, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash256([u8; 32]);

impl Hash256 {
    /// Reads 64 lower-case hex digits, as the swing-store writes them; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// Takes the digest that a hasher finished with.
    #[must_use]
    pub fn from_digest(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Takes the 32 bytes; anything else is `None`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The 64 hex digits as bytes: the operand of the span hash.
    fn hex(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Hash256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a sha256 in hex"))
    }
}

impl fmt::Display for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.hex()))
    }
}

impl fmt::Debug for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The sha256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash256 {
    Hash256(Sha256::digest(bytes).into())
}

/// The cumulative hash of a span's items.
///
/// Starts at the hash of a fixed text; each item's hash is then chained to it, all operands being hex text
/// (`updateSpanHash` in `swing-store/src/transcriptStore.js`).
#[derive(Debug, Clone)]
pub struct SpanHasher(Hash256);

impl Default for SpanHasher {
    fn default() -> Self {
        Self(sha256(b"start of transcript span"))
    }
}

impl SpanHasher {
    /// Goes on from the hash of the items before.
    #[must_use]
    pub fn resume(so_far: Hash256) -> Self {
        Self(so_far)
    }

    /// Chains the next item's text.
    pub fn add(&mut self, item: &[u8]) {
        self.add_hash(sha256(item));
    }

    /// Chains the next item by the sha256 of its text.
    pub(crate) fn add_hash(&mut self, item: Hash256) {
        let mut hasher = Sha256::new();
        hasher.update(self.0.hex());
        hasher.update(item.hex());
        self.0 = Hash256::from_digest(hasher);
    }

    /// The hash of the items so far.
    #[must_use]
    pub fn finish(&self) -> Hash256 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc").to_string(), text);
        assert_eq!(Hash256::parse(text), Some(sha256(b"abc")));
        assert_eq!(Hash256::parse(&text.to_uppercase()), None);
        assert_eq!(Hash256::parse("ba78"), None);
    }

    #[test]
    fn the_empty_span_has_the_seed_hash() {
        // What `initTranscript` of the swing-store writes for a new vat.
        assert_eq!(SpanHasher::default().finish(), sha256(b"start of transcript span"));
    }

    #[test]
    fn items_are_chained_as_hex_text() {
        let seed = sha256(b"start of transcript span").to_string();
        let mut hasher = SpanHasher::default();
        hasher.add(b"one");
        let one = sha256((seed + &sha256(b"one").to_string()).as_bytes());
        assert_eq!(hasher.finish(), one);
        hasher.add(b"two");
        assert_eq!(hasher.finish(), sha256((one.to_string() + &sha256(b"two").to_string()).as_bytes()));
    }
}
