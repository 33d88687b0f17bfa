//! The self-test of a worker in its sandbox, before anything depends on it.
//!
//! A rule that denies a file does not kill: the worker would go on and compute something else. So the worker evaluates a script of ours,
//! whose results are known without the worker: how deep code may nest with this stack before the engine refuses, and the offset of the
//! time zone. Then the worker saves its heap, and another loads it: all that a replay asks of one. Owns the script and the right
//! results. It must never run a worker outside its sandbox.

use std::ffi::OsStr;
use std::io;

use serde::{Deserialize, Serialize};

use super::message::FromWorker;
use super::watch::Limits;
use super::worker::{Worker, WorkerError, WorkerStart};
use super::zone;
use crate::record::image::Image;
use crate::sandbox::{Mode, Sandbox};

/// The worker's self-test: the greatest depth of nested code that the compiler takes, to within a 256th, and the local
/// zone's distance from UTC in January and in July.
///
/// The nested function is never called. Each try takes many milliseconds, and [`Probe::compare`] needs no finer answer.
/// The script reports by a syscall, the only message that a worker can send unasked.
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

/// The stack that a level of nesting may take, in bytes: the workers of `@agoric/xsnap` take 840, and a compiler with other
/// options makes other frames. A wrong stack differs by more than this range.
const LEVEL_BYTES: [u64; 2] = [300, 2_600];
/// The script looks no further, to within a 256th.
const NESTS_MAX: u64 = (1 << 17) - (1 << 9);

/// The results of the self-test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// The depth to which code may nest before the compiler refuses; to within a 256th, at most 131071.
    pub nests: u32,
    /// The offset of the local zone in January and in July of 2020, in minutes behind UTC.
    pub offsets: [i32; 2],
}

/// Why a worker can't be used in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelfTestFault {
    /// A result is not what it should be.
    #[error("to a script in the sandbox, {0}")]
    Differs(ProbeFault),
    /// The worker did not get to a result.
    #[error("told to evaluate a script, {0}")]
    Failed(String),
}

/// A result of the self-test that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFault {
    /// The worker has another stack than it should have.
    #[error("code nests {nests} deep, and with a stack of {stack} bytes it should from {least} to {most}")]
    Nests {
        /// The depth that the script found.
        nests: u32,
        /// The stack in bytes.
        stack: u64,
        /// The least depth that is right.
        least: u64,
        /// The greatest depth that is right.
        most: u64,
    },
    /// The worker does not know its time zone.
    #[error(
        "the local time is {} and {} minutes behind UTC in January and July, and in the time zone {zone:?} it should be {} and {}",
        found[0], found[1], expected[0], expected[1]
    )]
    Time {
        /// The time zone.
        zone: String,
        /// The offsets that the script found, in minutes.
        found: [i32; 2],
        /// The offsets of this zone, in minutes.
        expected: [i32; 2],
    },
}

/// Why a result of the self-test was not compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncompared {
    /// The zone's offsets are unknown.
    #[error("this system does not know the time zone {0:?}, so the local time is not compared")]
    UnknownZone(String),
    /// The worker is no engine that we know.
    #[error("it evaluates no script, so the effect of the sandbox on vats is not compared")]
    NoScript,
    /// The result differs, and there is no sandbox that could be the reason.
    #[error("{0}")]
    Differs(ProbeFault),
    /// The worker did not get to a result, and there is no sandbox that could be the reason.
    #[error("told to evaluate a script, {0}")]
    Failed(String),
}

impl Probe {
    /// Compares the results with those that are right for a stack of so many bytes and in this zone. Returns the reason why one could
    /// not be compared, if there is one.
    ///
    /// # Errors
    /// When a result differs.
    pub fn compare(&self, stack: u64, zone: &OsStr) -> Result<Option<Uncompared>, ProbeFault> {
        let (least, most) = (stack / LEVEL_BYTES[1], stack / LEVEL_BYTES[0]);
        if u64::from(self.nests) < least.min(NESTS_MAX) || u64::from(self.nests) > most {
            return Err(ProbeFault::Nests { nests: self.nests, stack, least, most });
        }
        let name = || zone.to_string_lossy().into_owned();
        match zone::offsets(zone) {
            None => Ok(Some(Uncompared::UnknownZone(name()))),
            Some(expected) if expected == self.offsets => Ok(None),
            Some(expected) => Err(ProbeFault::Time { zone: name(), found: self.offsets, expected }),
        }
    }
}

/// The outcome of the script.
#[derive(Debug)]
enum Answer {
    /// Its results.
    Found(Probe),
    /// It ended without a result: no engine that we know.
    Nothing,
    /// The worker did not get that far.
    Failed(String),
}

/// Runs the self-test: the results, and the reason why one could not be compared.
///
/// # Errors
/// When a result differs or is missing, and a sandbox could be the reason.
pub(super) fn self_test(
    sandbox: &Sandbox,
    limits: &Limits,
) -> Result<(Option<Probe>, Option<Uncompared>), SelfTestFault> {
    let is_off = sandbox.mode() == Mode::Off;
    match probe(sandbox, limits) {
        Answer::Found(found) => match found.compare(limits.stack, &sandbox.time_zone()) {
            Ok(uncompared) => Ok((Some(found), uncompared)),
            Err(fault) if is_off => Ok((Some(found), Some(Uncompared::Differs(fault)))),
            Err(fault) => Err(SelfTestFault::Differs(fault)),
        },
        Answer::Nothing => Ok((None, Some(Uncompared::NoScript))),
        Answer::Failed(why) if is_off => Ok((None, Some(Uncompared::Failed(why)))),
        Answer::Failed(why) => Err(SelfTestFault::Failed(why)),
    }
}

/// Evaluates the script in a new worker, saves its heap and loads that into another.
fn probe(sandbox: &Sandbox, limits: &Limits) -> Answer {
    let mut found = None;
    let tried = start(sandbox, None, limits).and_then(|mut worker| {
        command(&mut worker, SCRIPT.as_bytes(), &mut found)?;
        if found.is_none() {
            return Ok(());
        }
        worker.expect_image()?;
        command(&mut worker, b"w@7", &mut found)?;
        let image = worker.take_image()?;
        drop(worker);
        command(&mut start(sandbox, Some(&image), limits)?, b"R", &mut found)
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

fn start(sandbox: &Sandbox, image: Option<&Image>, limits: &Limits) -> Result<Worker, WorkerError> {
    let start = WorkerStart { sandbox, vat: "probe", is_metered: false, image, limits };
    Worker::start(&start).map_err(|error| io::Error::other(error).into())
}

/// Runs a command; the results of the script end up in `found`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_without_a_worker_is_compared() {
        let probe = |nests, offsets| Probe { nests, offsets };
        let mib = |mib: u64| mib << 20;
        let new_york = OsStr::new("America/New_York");
        // The depths are those of @agoric/xsnap 0.15.0.
        for (nests, stack) in
            [(1_068, mib(1)), (9_536, mib(8)), (9_888, mib(8)), (80_078, mib(64)), (131_071, mib(1_024))]
        {
            assert_eq!(probe(nests, [300, 240]).compare(stack, new_york), Ok(None), "{nests} with {stack}");
        }
        for (nests, offsets, stack, says) in [
            (1_068, [300, 240], mib(8), "code nests 1068 deep"),
            (9_888, [300, 240], mib(1), "code nests 9888 deep"),
            (9_888, [300, 240], mib(64), "code nests 9888 deep"),
            (80_078, [300, 240], mib(8), "code nests 80078 deep"),
            (0, [300, 240], mib(8), "code nests 0 deep"),
            (9_536, [0, 0], mib(8), "is 0 and 0 minutes behind UTC in January and July"),
            (9_536, [300, 300], mib(8), "it should be 300 and 240"),
        ] {
            let error = probe(nests, offsets).compare(stack, new_york).expect_err(says);
            assert!(error.to_string().contains(says), "{error}");
        }
        let said = probe(9_536, [0, 0]).compare(mib(8), OsStr::new("No/Such_Zone")).expect("no difference");
        assert!(said.expect("a note").to_string().contains("does not know the time zone"));
    }
}
