//! Running ahead: the worker finds the recorded responses of a delivery in its pipe before it asks for them.
//!
//! A vat that does as recorded reads the same bytes in the same order, only without waiting for us, which is most of what a
//! syscall costs. Owns when that is honest and how much may lie in the pipe; it must never put a response there that a
//! worker in step would not read next. A vat that then asks something else, or prints, takes a response for the answer to
//! that: such a replay is out of step, says so, and is made again without this (`judge`).

use super::netstring::write_netstring;
use crate::transcript::Syscall;

/// As many bytes of responses may lie in the pipe, which holds 64 KiB: so writing them never waits for a worker that waits for
/// us to read.
const BYTES_MAX: usize = 16 * 1024;
/// No more are sent until so many of them were read: a few large writes cost less than many small ones.
const BYTES_AGAIN: usize = BYTES_MAX / 2;

/// Why a replay that ran ahead was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfStep {
    /// The vat printed something, and took a syscall's response for the answer.
    Printed,
    /// The worker made another syscall than the one whose response it was given, or none.
    Differed,
}

/// The responses of one delivery.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    recorded: &'a [Syscall<'a>],
    /// The number of responses that were sent.
    sent: usize,
    /// Bytes of those that the worker may not have read yet.
    unread: usize,
    /// The number of them that the worker has read, as far as we know.
    read: usize,
    batch: Vec<u8>,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(recorded: &'a [Syscall<'a>]) -> Self {
        Self { recorded, sent: 0, unread: 0, read: 0, batch: Vec::new() }
    }

    /// Whether a worker that has made so many syscalls has been given a response for what it does next, if that is no syscall
    /// that the record has.
    pub(super) fn is_beyond(&self, made: usize) -> bool {
        self.sent > made
    }

    /// What to write now, if anything, when the worker has made so many syscalls, all as recorded: at least the response to the
    /// last of them.
    pub(super) fn batch(&mut self, made: usize) -> Option<&[u8]> {
        // It asks only when it has read all responses before.
        while self.read + 1 < made {
            self.unread -= size(&self.recorded[self.read]);
            self.read += 1;
        }
        let is_awaited = self.sent < made;
        if !is_awaited && self.unread > BYTES_AGAIN {
            return None;
        }
        self.batch.clear();
        while let Some(next) = self.recorded.get(self.sent) {
            if self.sent >= made && self.unread + size(next) > BYTES_MAX {
                break;
            }
            // Writing to memory does not fail.
            let _ = write_netstring(&mut self.batch, &[b"/", next.response().as_bytes()]);
            self.unread += size(next);
            self.sent += 1;
        }
        (!self.batch.is_empty()).then_some(&self.batch[..])
    }
}

/// Bytes of a response in the pipe; at most a few more.
fn size(syscall: &Syscall<'_>) -> usize {
    syscall.response().len() + 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::Item;

    /// What is sent for an item when its syscalls are made one by one, in pieces.
    fn sent(item: &Item<'_>) -> Vec<String> {
        let mut ahead = Ahead::new(&item.syscalls);
        (0..=item.syscalls.len())
            .filter_map(|made| ahead.batch(made).map(|batch| String::from_utf8_lossy(batch).into_owned()))
            .collect()
    }

    fn text(responses: &[usize]) -> String {
        let syscalls: Vec<String> = (responses.iter())
            .map(|length| format!(r#"{{"s":["vatstoreGet","k"],"r":["ok","{}"]}}"#, "x".repeat(*length)))
            .collect();
        format!(
            r#"{{"d":["bringOutYourDead"],"sc":[{}],"r":{{"status":"ok","metering":{{"computrons":1}}}}}}"#,
            syscalls.join(",")
        )
    }

    #[test]
    fn all_responses_are_sent_once_and_in_order() {
        for responses in [&[][..], &[1], &[1; 3_000], &[BYTES_MAX; 3], &[10, 2 * BYTES_MAX, 10, 10], &[700; 100]] {
            let text = text(responses);
            let item = Item::parse(text.as_bytes()).expect("an item");
            let expected: String = (item.syscalls.iter())
                .map(|syscall| format!("{}:/{},", syscall.response().len() + 1, syscall.response()))
                .collect();
            let sent = sent(&item);
            assert_eq!(sent.concat(), expected);
            assert!(
                sent.iter().all(|batch| batch.len() <= BYTES_MAX || responses.iter().any(|size| *size >= BYTES_MAX))
            );
            assert!(sent.len() <= 2 + 2 * expected.len() / BYTES_AGAIN, "{} writes", sent.len());
        }
    }

    #[test]
    fn what_is_awaited_is_sent_however_large_and_nothing_beyond_a_full_pipe() {
        let text = text(&[10, BYTES_MAX, 10]);
        let item = Item::parse(text.as_bytes()).expect("an item");
        let mut ahead = Ahead::new(&item.syscalls);
        assert!(ahead.batch(0).is_some_and(|batch| batch.len() < 100));
        assert!(ahead.is_beyond(0) && !ahead.is_beyond(1));
        assert_eq!(ahead.batch(1), None);
        assert!(ahead.batch(2).is_some_and(|batch| batch.len() > BYTES_MAX && batch.len() < BYTES_MAX + 50));
        assert!(!ahead.is_beyond(2));
        assert!(ahead.batch(3).is_some());
        assert_eq!(ahead.batch(3), None);
    }
}
