//! What a worker did in a replay, in the shape of the record: kept for the evidence of a divergence.
//!
//! As long as a delivery's syscalls are those of the record only their number is kept, so that a replay in which nothing
//! differs costs next to nothing. It must never decide anything: [`super::compare`] does.

use serde::{Deserialize, Serialize};

use crate::transcript::Position;
use crate::visible::visible;

/// Console output that is kept of a replay, in bytes: the end of it.
const CONSOLE_BYTES: usize = 64 * 1024;
/// Syscalls that differ are kept up to so many bytes of text in a replay.
const TEXT_BYTES: usize = 64 << 20;

/// What vats print is kept with its place up to so many bytes of text in a replay, and after that without its text.
const ASIDE_BYTES: usize = 256 * 1024;
/// And up to this number.
const ASIDES: usize = 100_000;

/// Something that the vat printed or wrote to the test log: the worker asks and is answered as for a syscall, but the record
/// has neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// After how many of the delivery's syscalls; at the worker's start, of its commands.
    pub after: usize,
    /// What the worker asked, as JSON text; of a long one only what it is.
    pub query: String,
}

/// All of a replay.
#[derive(Debug, Default)]
pub struct Trace {
    /// What was printed before the first delivery.
    pub at_start: Vec<Aside>,
    /// Delivery by delivery; the last one may have been cut off.
    pub deliveries: Vec<TracedDelivery>,
    /// What the vat printed.
    pub console: String,
    /// What the worker's process printed last, on its own output and error.
    pub printed: String,
    /// Whether syscalls are missing here because there were too many.
    pub is_cut: bool,
    bytes: usize,
    aside_bytes: usize,
    asides: usize,
}

/// What came of a delivery.
#[derive(Debug)]
pub struct TracedDelivery {
    /// Its position.
    pub position: Position,
    /// How many syscalls were as recorded, from the start on.
    pub agreed: usize,
    /// Those after them.
    pub after: Vec<TracedSyscall>,
    /// What was printed meanwhile.
    pub asides: Vec<Aside>,
    /// `ok` or `error`; `None` where it did not end.
    pub status: Option<String>,
    /// What it cost.
    pub computrons: Option<u64>,
}

/// A syscall that does not stand in the record in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedSyscall {
    /// What the vat asked.
    pub request: String,
    /// What it was told; `None` if nothing.
    pub response: Option<String>,
    /// Where the response is from.
    pub answer: Answer,
}

/// Where the response to a syscall after the first mismatch is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The record has the syscall elsewhere in this delivery.
    Recorded,
    /// It is one that returns nothing.
    Nothing,
    /// From what the span's record tells of the key that it reads.
    Inferred,
    /// There was none that would have been honest: the delivery ended here.
    None,
}

impl Answer {
    /// One word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Nothing => "nothing",
            Self::Inferred => "inferred",
            Self::None => "none",
        }
    }
}

impl Trace {
    pub(super) fn add(&mut self, mut delivery: TracedDelivery) {
        self.bytes += delivery.after.iter().map(|syscall| syscall.request.len()).sum::<usize>();
        if self.bytes > TEXT_BYTES {
            delivery.after.clear();
            self.is_cut = true;
        }
        self.deliveries.push(delivery);
    }

    /// What is kept of a query that is no syscall; `None` if there are too many.
    pub(super) fn aside(&mut self, after: usize, query: String, tag: &str) -> Option<Aside> {
        self.asides += 1;
        self.aside_bytes += query.len();
        if self.asides > ASIDES {
            self.is_cut = true;
            return None;
        }
        let query = if self.aside_bytes > ASIDE_BYTES { format!("[\"{tag}\"]") } else { query };
        Some(Aside { after, query })
    }

    pub(super) fn print(&mut self, position: Position, text: &str) {
        // A line each: people read it.
        self.console.push_str(&format!("[{position}] {}\n", visible(text)));
        if self.console.len() > 2 * CONSOLE_BYTES {
            let begin = self.console.ceil_char_boundary(self.console.len() - CONSOLE_BYTES);
            self.console.drain(..begin);
        }
    }
}
