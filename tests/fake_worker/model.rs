//! How the fake worker computes, shared by the worker itself and by the tests that write what it will do into a
//! database.
//!
//! Its heap is one hash of everything that it was ever told. A message's body is a JSON list of the syscalls to make.

use sha2::{Digest, Sha256};

/// The first bytes of its images.
pub const IMAGE_MAGIC: &str = "FAKE IMAGE ";

/// What a vat could say to move a terminal, to hide something, or to pass for a line of ours.
pub const WORDS: &str = "zoe\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}\r\nverified       v66    forged\n  \
                         2026-01-01T00:00:00Z ERROR forged\u{85}end";

#[derive(Debug, Clone)]
pub struct Heap(String);

impl Heap {
    pub fn blank() -> Self {
        Self("blank".to_owned())
    }

    pub fn from_image(image: &str) -> Option<Self> {
        image.strip_prefix(IMAGE_MAGIC).map(|heap| Self(heap.to_owned()))
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.0 = hex(&[self.0.as_bytes(), bytes].concat());
    }

    pub fn image(&self) -> String {
        format!("{IMAGE_MAGIC}{}", self.0)
    }
}

/// The syscalls that a delivery asks for, as JSON texts.
pub fn syscalls_of(delivery: &serde_json::Value) -> Vec<String> {
    let body = delivery[2]["methargs"]["body"].as_str().unwrap_or("[]");
    let syscalls: Vec<serde_json::Value> = serde_json::from_str(body).unwrap_or_default();
    syscalls.iter().map(ToString::to_string).collect()
}

/// What a delivery with so many syscalls costs.
pub fn computrons(syscalls: usize) -> u64 {
    1_000 + 10 * syscalls as u64
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
