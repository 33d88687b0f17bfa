//! One replay of one span: starts a worker, makes the recorded deliveries, and notes every difference.
//!
//! *Compared*: for each delivery its syscalls ([`super::compare`]), its status and its computrons; at the end the sha256
//! of the heap snapshot. *Not compared, and why*: `allocate`, `currentHeapCount` and `timestamps` of a delivery's meter
//! (the kernel does not record them); console output and the test log (likewise); the worker's exit after the last item
//! (the kernel kills it too).
//!
//! Bytes count: a message is copied into the worker's heap, so deliveries and responses are sent exactly as they stand
//! in the transcript, and nothing is evaluated that the kernel did not evaluate. Owns the walk over one span. It must never report trouble of
//! ours as a finding.

use std::borrow::Cow;

use crate::kernel_db::VatOptions;
use crate::record::image::Image;
use crate::span::{Beginning, Span};
use crate::transcript::{Hash256, Item, Position};
use crate::verdict::{Failure, Finding, FindingKind, SyscallNames};

use super::WorkerProgram;
use super::ahead::{Ahead, OutOfStep};
use super::compare::{Finished, SyscallCheck, name_of};
use super::message::{FromWorker, aside_answer, tag_of};
use super::trace::{Aside, Trace, TracedDelivery};
use super::watch::Limits;
use super::worker::{Worker, WorkerError, WorkerStart};

/// The most findings that are kept of one span.
const FINDINGS_MAX: usize = 50;
/// The bytes of a worker's message that are shown.
const SHOWN_BYTES: usize = 300;

/// The start of a replay.
#[derive(Debug)]
pub struct ReplayStart<'a> {
    /// The worker's program.
    pub program: &'a WorkerProgram,
    /// The limits of the worker.
    pub limits: &'a Limits,
    /// The vat's options.
    pub options: &'a VatOptions,
    /// The worker's first input: bundles or an image.
    pub beginning: &'a Beginning<'a>,
    /// Stop after the delivery at this position and save the heap there, whatever the record does.
    pub probe: Option<Position>,
}

/// The result of a replay.
#[derive(Debug, Default)]
pub struct Replay {
    /// The differences, by position; at most some dozens of them.
    pub findings: Vec<Finding>,
    /// The number of differences.
    pub findings_total: usize,
    /// The position at which the replay could not go on, if there is one.
    pub stopped_at: Option<Position>,
    /// Deliveries that were made and compared.
    pub deliveries: u64,
    /// Syscalls that the vat made in them.
    pub syscalls: u64,
    /// Whether the snapshot at the end was compared.
    pub is_hash_compared: bool,
    /// The image that the worker saved at the end.
    pub image: Option<Image>,
    /// The hash of that image, which stays when the image itself is dropped.
    pub image_hash: Option<Hash256>,
    /// Whether it is the recorded one.
    pub is_image_recorded: bool,
    /// Whether the replay reached the end of the span.
    pub is_complete: bool,
    /// Whether the worker ended because memory or stack ran out, as it also does when the machine is short of them.
    pub is_out_of_memory: bool,
    /// The failure on our side, if there was one. Earlier findings stand.
    pub failure: Option<Failure>,
    /// Set where it ran ahead and could not go on for that reason: nothing after its last syscall means anything.
    pub out_of_step: Option<OutOfStep>,
    /// The record of what the worker did.
    pub trace: Trace,
}

impl Replay {
    /// Whether another replay that did not run ahead went as this one did, until this one got out of step.
    #[must_use]
    pub fn is_confirmed_by(&self, other: &Self) -> bool {
        let last = self.trace.deliveries.last();
        last.is_some_and(|last| {
            let there = other.trace.deliveries.iter().find(|delivery| delivery.position == last.position);
            let first = |delivery: &TracedDelivery| delivery.after.first().map(|syscall| syscall.request.clone());
            there.is_some_and(|there| (there.agreed, first(there)) == (last.agreed, first(last)))
                && !other.findings.is_empty()
        })
    }
}

/// Why a replay can't go on.
enum Stop {
    /// The reason is among the findings.
    Found,
    /// The replay ran ahead, and the worker took a response for the answer to something else.
    OutOfStep(OutOfStep),
    /// Trouble that says nothing about the record.
    Failed(Failure),
}

/// The context of a delivery's command.
struct Delivery<'c, 'a> {
    check: &'c mut SyscallCheck<'a>,
    /// Set as long as the worker is in step and runs ahead.
    ahead: Option<Ahead<'a>>,
}

impl Delivery<'_, '_> {
    /// Whether the worker takes a recorded response for the answer to whatever it asks next.
    fn is_beyond(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.is_beyond(self.check.count()))
    }
}

/// The text of an exception that nothing caught.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Uncaught(String);

/// A reply to a command.
struct Reply {
    computrons: Option<u64>,
    body: Result<Vec<u8>, Uncaught>,
    /// Whether there are responses in the pipe that the worker has not asked for.
    is_early: bool,
}

/// Replays a span.
#[must_use]
pub fn replay(span: &Span<'_>, start: &ReplayStart<'_>) -> Replay {
    run(span, start, false)
}

/// Replays a span with the recorded responses lying ready for the worker. What it finds is what [`replay`] would have found, unless
/// it says that it got out of step.
#[must_use]
pub fn replay_ahead(span: &Span<'_>, start: &ReplayStart<'_>) -> Replay {
    run(span, start, true)
}

fn run(span: &Span<'_>, start: &ReplayStart<'_>, is_ahead: bool) -> Replay {
    let mut replay = Replay::default();
    let worker = Worker::start(&WorkerStart {
        sandbox: &start.program.sandbox,
        vat: span.id.vat.as_str(),
        is_metered: start.options.is_metered,
        image: match start.beginning {
            Beginning::Image(image) => Some(image),
            Beginning::Blank { .. } => None,
        },
        limits: start.limits,
    });
    let worker = match worker {
        Ok(worker) => worker,
        Err(error) => {
            replay.failure = Some(Failure::WorkerStart(error.to_string()));
            return replay;
        }
    };
    let mut session = Session { worker, position: span.id.start, is_ahead, asides: Vec::new(), replay };
    let outcome = session.run(span, start);
    session.replay.trace.printed = session.worker.said();
    match outcome {
        Ok(()) => session.replay.is_complete = true,
        Err(Stop::Found) => session.replay.stopped_at = Some(session.position),
        Err(Stop::OutOfStep(why)) => {
            session.replay.stopped_at = Some(session.position);
            session.replay.out_of_step = Some(why);
        }
        Err(Stop::Failed(failure)) => {
            session.replay.stopped_at = Some(session.position);
            session.replay.failure = Some(failure);
        }
    }
    session.replay
}

struct Session {
    worker: Worker,
    /// The position of the item that is being replayed.
    position: Position,
    /// Whether responses are sent before they are asked for.
    is_ahead: bool,
    /// The lines printed since the command began.
    asides: Vec<Aside>,
    replay: Replay,
}

impl Session {
    fn run(&mut self, span: &Span<'_>, start: &ReplayStart<'_>) -> Result<(), Stop> {
        match start.beginning {
            Beginning::Blank { programs, set_bundle } => self.initialize(programs, set_bundle)?,
            Beginning::Image(_) => self.load()?,
        }
        for (index, (position, item)) in span.deliveries.iter().enumerate() {
            if start.probe.is_some_and(|probe| *position > probe) {
                break;
            }
            self.position = *position;
            self.deliver(item, &span.deliveries[..index])?;
        }
        match (start.probe, span.saves) {
            (Some(_), _) => self.save(None)?,
            (None, Some(recorded)) => {
                self.position = span.id.end - 1;
                self.save(Some(recorded))?;
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Gives a blank worker its bundles (`startXSnap.js`, `manager-subprocess-xsnap.js`).
    fn initialize(&mut self, programs: &[String], set_bundle: &str) -> Result<(), Stop> {
        for (at, program) in programs.iter().enumerate() {
            self.worker.begin_delivery();
            let reply = self.command(&[b"e", program.as_bytes()], None);
            self.printed_at_start(at);
            let reply = reply?;
            if let Err(Uncaught(exception)) = reply.body {
                return self.start_failed(&exception);
            }
        }
        self.worker.begin_delivery();
        let reply = self.command(&[b"?[\"setBundle\",", set_bundle.as_bytes(), b"]"], None);
        self.printed_at_start(programs.len());
        match reply?.body {
            Ok(body) if tag_of(&body).as_deref() == Some("dispatchReady") => Ok(()),
            Ok(body) if tag_of(&body).is_none() => {
                Err(self.protocol(format!("told to set a bundle it said {}", shown(&body))))
            }
            Ok(body) => self.start_failed(&shown(&body)),
            Err(Uncaught(exception)) => self.start_failed(&exception),
        }
    }

    fn printed_at_start(&mut self, after: usize) {
        let asides = std::mem::take(&mut self.asides);
        self.replay.trace.at_start.extend(asides.into_iter().map(|aside| Aside { after, ..aside }));
    }

    fn start_failed(&mut self, replayed: &str) -> Result<(), Stop> {
        self.find(FindingKind::Status, Some("the worker was ready"), Some(replayed));
        Err(Stop::Found)
    }

    /// Waits until the worker has read its image.
    fn load(&mut self) -> Result<(), Stop> {
        self.worker.begin_delivery();
        let reply = self.command(&[b"R"], None)?;
        match reply.body {
            Ok(body) if body.is_empty() => Ok(()),
            Ok(body) => Err(self.protocol(format!("asked whether it is ready it said {}", shown(&body)))),
            Err(exception) => Err(self.protocol(format!("asked whether it is ready it threw {exception}"))),
        }
    }

    fn deliver(&mut self, item: &Item<'_>, before: &[(Position, Item<'_>)]) -> Result<(), Stop> {
        self.worker.begin_delivery();
        let mut check = SyscallCheck::new(&item.syscalls, before);
        let sent = [&b"?[\"deliver\","[..], item.delivery.as_bytes(), b"]"];
        // After a difference nothing is certain.
        let ahead = (self.is_ahead && self.replay.findings_total == 0).then(|| Ahead::new(&item.syscalls));
        let outcome = self.command(&sent, Some(Delivery { check: &mut check, ahead }));
        self.replay.syscalls += check.count() as u64;
        let status = match &outcome {
            // A delivery's reply without its cost is no reply.
            Ok(Reply { computrons: None, body: Ok(_), .. }) => None,
            Ok(Reply { body: Ok(body), .. }) => tag_of(body).filter(|tag| matches!(tag.as_str(), "ok" | "error")),
            _ => None,
        };
        let Finished { findings, agreed, after } = check.finish(status.is_some());
        self.replay.trace.add(TracedDelivery {
            position: self.position,
            agreed,
            after,
            asides: std::mem::take(&mut self.asides),
            status: status.clone(),
            computrons: outcome.as_ref().ok().and_then(|reply| reply.computrons),
        });
        for finding in findings {
            self.add(finding.at(self.position));
        }
        let reply = outcome?;
        let early = reply.is_early.then_some(Stop::OutOfStep(OutOfStep::Differed));
        let body = match reply.body {
            Ok(body) => body,
            Err(exception) => {
                let replayed = format!("an exception that nothing caught: {exception}");
                self.find(FindingKind::Status, Some(&item.result.status), Some(&replayed));
                return Err(early.unwrap_or(Stop::Found));
            }
        };
        let Some(status) = status else {
            return Err(self.protocol(format!("it ended a delivery with {}", shown(&body))));
        };
        self.replay.deliveries += 1;
        if status != item.result.status {
            self.find(
                FindingKind::Status,
                Some(&item.result.status),
                Some(&format!("{status}, with {}", shown(&body))),
            );
        }
        // The kernel records the cost of deliveries that end well.
        if let Some(recorded) = item.result.computrons
            && reply.computrons != Some(recorded)
        {
            let replayed = reply.computrons.map_or_else(|| "none".to_owned(), |computrons| computrons.to_string());
            self.find(FindingKind::Computrons, Some(&recorded.to_string()), Some(&replayed));
        }
        early.map_or(Ok(()), Err)
    }

    /// Makes the worker save its heap, and compares the hash with the recorded one.
    fn save(&mut self, recorded: Option<Hash256>) -> Result<(), Stop> {
        self.worker.begin_delivery();
        self.worker.expect_image().map_err(|error| self.stop(error))?;
        let reply = self.command(&[b"w@7"], None)?;
        let stated = match reply.body {
            Ok(body) => shown(&body),
            Err(exception) => return Err(self.protocol(format!("asked for a snapshot it threw {exception}"))),
        };
        let image = self.worker.take_image().map_err(|error| self.stop(error))?;
        if stated != image.bytes().to_string() {
            let said = format!("it said that it wrote a snapshot of {stated} bytes, and wrote {}", image.bytes());
            return Err(self.protocol(said));
        }
        self.replay.is_hash_compared = recorded.is_some();
        self.replay.is_image_recorded = recorded == Some(image.hash());
        if let Some(recorded) = recorded
            && !self.replay.is_image_recorded
        {
            self.find(FindingKind::SnapshotHash, Some(&recorded.to_string()), Some(&image.hash().to_string()));
        }
        self.replay.image_hash = Some(image.hash());
        self.replay.image = Some(image);
        Ok(())
    }

    /// Sends a command and serves the worker until it is done. Syscalls are expected only of a delivery.
    fn command(&mut self, parts: &[&[u8]], mut delivery: Option<Delivery<'_, '_>>) -> Result<Reply, Stop> {
        if let Err(error) = self.worker.send(parts) {
            return Err(self.stop(error));
        }
        loop {
            // As long as it is in step, what it will ask for lies ready.
            if let Some(Delivery { check, ahead: Some(ahead) }) = &mut delivery
                && let Some(batch) = ahead.batch(check.count())
                && let Err(error) = self.worker.send_batch(batch)
            {
                return Err(self.stop(error));
            }
            let message = match self.worker.receive() {
                Ok(message) => message,
                Err(error) => return Err(self.stop(error)),
            };
            let is_beyond = delivery.as_ref().is_some_and(Delivery::is_beyond);
            let answer = match message {
                FromWorker::Console { .. } if is_beyond => return Err(Stop::OutOfStep(OutOfStep::Printed)),
                FromWorker::Done { computrons, reply } => {
                    return Ok(Reply { computrons, body: Ok(reply.to_vec()), is_early: is_beyond });
                }
                FromWorker::Uncaught(text) => {
                    return Ok(Reply { computrons: None, body: Err(Uncaught(shown(text))), is_early: is_beyond });
                }
                FromWorker::Console { text, tag, query } => {
                    let answer = aside_answer(&query).unwrap_or_default();
                    let made = delivery.as_ref().map_or(0, |delivery| delivery.check.count());
                    self.replay.trace.print(self.position, &text);
                    self.asides.extend(self.replay.trace.aside(made, query, tag));
                    Cow::Borrowed(answer)
                }
                FromWorker::Syscall(request) => match &mut delivery {
                    Some(Delivery { check, ahead }) => match check.next(&request) {
                        Ok(_) if ahead.is_some() && check.is_in_step() => continue,
                        Ok(_) if is_beyond => return Err(Stop::OutOfStep(OutOfStep::Differed)),
                        Ok(Some(response)) => {
                            *ahead = None;
                            response
                        }
                        Ok(None) => return Err(Stop::Found),
                        Err(error) => {
                            let said = format!("a syscall that is no JSON ({error}): {}", shown(request.as_bytes()));
                            return Err(self.protocol(said));
                        }
                    },
                    None => {
                        let request = request.into_owned();
                        let names = SyscallNames { recorded: None, replayed: name_of(&request) };
                        let finding = Finding::new(FindingKind::ExtraSyscall, self.position, None, Some(&request));
                        self.add(Finding { names: Some(names), ..finding });
                        return Err(Stop::Found);
                    }
                },
            };
            if let Err(error) = self.worker.send(&[b"/", answer.as_bytes()]) {
                return Err(self.stop(error));
            }
        }
    }

    /// The meaning of a worker's end here.
    fn stop(&mut self, error: WorkerError) -> Stop {
        let position = self.position;
        Stop::Failed(match error {
            WorkerError::Ended(exit) => {
                self.replay.is_out_of_memory = exit.is_out_of_memory();
                let (recorded, replayed) = ("the worker went on", exit.to_string());
                let finding = Finding::new(FindingKind::WorkerExit, position, Some(recorded), Some(&replayed));
                self.add(Finding { exit: Some(exit), ..finding });
                return Stop::Found;
            }
            WorkerError::Io { exit, said } => Failure::WorkerIo {
                position,
                exit,
                said: if said.is_empty() { said } else { format!("; it printed {:?}", shown(said.as_bytes())) },
            },
            WorkerError::Killed(signal) => Failure::WorkerKilled { position, signal },
            WorkerError::Limit(limit) => Failure::Limit { position, limit },
            WorkerError::Sandbox(rule) => Failure::Sandbox { position, rule },
            WorkerError::Protocol(error) => Failure::WorkerProtocol { position, error },
            WorkerError::System(error) => Failure::System(error),
        })
    }

    fn protocol(&self, error: String) -> Stop {
        Stop::Failed(Failure::WorkerProtocol { position: self.position, error })
    }

    fn find(&mut self, kind: FindingKind, recorded: Option<&str>, replayed: Option<&str>) {
        self.add(Finding::new(kind, self.position, recorded, replayed));
    }

    fn add(&mut self, finding: Finding) {
        self.replay.findings_total += 1;
        if self.replay.findings.len() < FINDINGS_MAX {
            self.replay.findings.push(finding);
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned();
    if bytes.len() > SHOWN_BYTES { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}
