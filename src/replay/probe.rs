//! Trying a worker in its cage before anything depends on it.
//!
//! A rule that denies a file does not kill: the worker would go on and compute something else. So a script of ours is
//! evaluated inside and outside the cage, and has to find the same: how deep code may nest before the engine says so, and
//! what time it is elsewhere. Then the worker saves its heap, and another loads it: all that a replay asks of one.

use std::io;

use serde::{Deserialize, Serialize};

use super::message::FromWorker;
use super::watch::Limits;
use super::worker::{Worker, WorkerError, WorkerStart};
use crate::image::Image;
use crate::sandbox::Cage;

/// Reports the greatest depth that the compiler takes, of a function that is never called, to within a 256th (each try takes
/// many milliseconds, and [`Probe::agrees_with`] asks for no more), and how far the local zone is from UTC in two seasons. Said as a syscall, as a worker has no other way of asking for attention.
const SCRIPT: &str = r#"e(() => {
  const nests = depth => {
    try { Function("[".repeat(depth) + "]".repeat(depth)); return true; }
    catch (error) { if (!(error instanceof RangeError)) throw error; return false; }
  };
  let [fits, fails] = [1, 1 << 17];
  while (fails - fits > 1 + (fits >> 8)) {
    const middle = (fits + fails) >> 1;
    if (nests(middle)) fits = middle; else fails = middle;
  }
  for (let key = 0; key < 1 << 15; key += 1) ({})["key" + key] = key;
  const offsets = [0, 6].map(month => new Date(2020, month, 1).getTimezoneOffset());
  const found = JSON.stringify(["syscall", { nests: fits, offsets }]);
  issueCommand(new TextEncoder().encode(found).buffer);
})()"#;

/// What a script of ours finds in a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// How deep code may nest before the compiler says that it is too deep; to within a 256th, at most 131071.
    pub nests: u32,
    /// Minutes that the local zone is behind UTC, in January and in July of 2020.
    pub offsets: [i32; 2],
}

impl Probe {
    /// Whether two workers see the same. The depth is never quite the same, not even in two runs outside of any cage: the
    /// system puts the stack at a place of chance, and with it the first page that the engine counts from.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.offsets == other.offsets && self.nests.abs_diff(other.nests) <= self.nests / 50
    }
}

/// How the script ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// What it found.
    Found(Probe),
    /// It ended without a word: no engine that we know.
    Nothing,
    /// The worker did not get that far.
    Failed(String),
}

/// Evaluates the script in a new worker, saves its heap and loads that into another.
pub(super) fn probe(cage: &Cage, limits: &Limits) -> Answer {
    let mut found = None;
    let tried = start(cage, None, limits).and_then(|mut worker| {
        command(&mut worker, SCRIPT.as_bytes(), &mut found)?;
        if found.is_none() {
            return Ok(());
        }
        worker.expect_image()?;
        command(&mut worker, b"w@7", &mut found)?;
        let image = worker.take_image()?;
        drop(worker);
        command(&mut start(cage, Some(&image), limits)?, b"R", &mut found)
    });
    match (tried, found) {
        (Ok(()), Some(found)) => match serde_json::from_str(&found) {
            Ok(found) => Answer::Found(found),
            Err(error) => Answer::Failed(format!("it found {found:?}: {error}")),
        },
        (Ok(()), None) => Answer::Nothing,
        (Err(error), _) => Answer::Failed(error.to_string()),
    }
}

fn start(cage: &Cage, image: Option<&Image>, limits: &Limits) -> Result<Worker, WorkerError> {
    let start = WorkerStart { cage, vat: "probe", is_metered: false, image, limits };
    Worker::start(&start).map_err(|error| io::Error::other(error).into())
}

/// Has a command carried out; what the script finds ends up in `found`.
fn command(worker: &mut Worker, command: &[u8], found: &mut Option<String>) -> Result<(), WorkerError> {
    worker.begin_delivery();
    worker.send(&[command])?;
    loop {
        match worker.receive()? {
            FromWorker::Done { .. } => return Ok(()),
            FromWorker::Uncaught(text) => {
                let text = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
                return Err(WorkerError::Protocol(format!("it threw {text}")));
            }
            FromWorker::Syscall(text) => *found = Some(text.into_owned()),
            FromWorker::Console { .. } => {}
        }
        worker.send(&[b"/[]"])?;
    }
}
