//! Finding the delivery after which the heaps of two workers differ.
//!
//! A transcript says nothing of the heap between two snapshots. So both workers save it at a probe point, each in a replay of its own that
//! ends there: saving collects garbage, which would disturb what comes after. Halving takes a number of replays that grows with the logarithm
//! of the deliveries. Owns the choice of probe points. It must never compare heaps of replays that did not reach their probe point.

use serde::Serialize;

use crate::evidence::{Case, EvidenceError};
use crate::record::image::Image;
use crate::replay::{Limits, ReplayStart, WorkerProgram, replay};
use crate::span::{Beginning, Span};
use crate::transcript::{Hash256, Position};

/// Why two workers could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum BisectError {
    /// The folder.
    #[error("{0}")]
    Evidence(#[from] EvidenceError),
    /// A replay failed for a reason of ours.
    #[error("failed to replay up to position {position} with {worker}: {why}")]
    Replay {
        /// The position at which it was to end.
        position: Position,
        /// The worker.
        worker: String,
        /// The failure.
        why: String,
    },
}

/// A heap that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// After which delivery; the span's first position for before all of them.
    pub position: Position,
    /// Whether both heaps were the same.
    pub is_same: bool,
    /// Their hashes; `None` for a worker that did not come so far.
    pub hashes: [Option<Hash256>; 2],
}

/// The result of a bisection.
#[derive(Debug, Serialize)]
pub struct Bisection {
    /// The first delivery after which the heaps differ; the span's first position if they do so before all of them; `None`
    /// if they are the same at the end.
    pub first: Option<Position>,
    /// Whether a further replay of the second worker gave the same heap there.
    pub is_deterministic: Option<bool>,
    /// The probes, in the order in which they were made.
    pub probes: Vec<Probe>,
    /// The number of replays that it took.
    pub replays: u32,
    /// The number of deliveries in the span.
    pub deliveries: usize,
    /// Both heaps after that delivery.
    #[serde(skip)]
    pub images: Option<[Image; 2]>,
}

struct Prober<'a> {
    span: &'a Span<'a>,
    case: &'a Case,
    beginning: &'a Beginning<'a>,
    programs: [&'a WorkerProgram; 2],
    limits: &'a Limits,
    probes: Vec<Probe>,
    replays: u32,
    /// The earliest heaps that differ, with their position.
    differing: Option<(Position, [Option<Image>; 2])>,
}

impl Prober<'_> {
    fn image(&mut self, worker: usize, position: Position) -> Result<Option<Image>, BisectError> {
        let program = self.programs[worker];
        let options = self.case.options();
        let start = ReplayStart {
            program,
            limits: self.limits,
            options: &options,
            beginning: self.beginning,
            probe: Some(position),
        };
        self.replays += 1;
        let replay = replay(self.span, &start);
        match replay.failure {
            Some(failure) => {
                let worker = program.path.display().to_string();
                Err(BisectError::Replay { position, worker, why: failure.to_string() })
            }
            None => Ok(replay.image),
        }
    }

    /// Whether both heaps are the same after a delivery.
    fn is_same(&mut self, position: Position) -> Result<bool, BisectError> {
        let images = [self.image(0, position)?, self.image(1, position)?];
        let hashes = images.each_ref().map(|image| image.as_ref().map(Image::hash));
        // One that can't go on so far differs, whatever the other one did.
        let is_same = hashes[0].is_some() && hashes[0] == hashes[1];
        self.probes.push(Probe { position, is_same, hashes });
        if !is_same && self.differing.as_ref().is_none_or(|(earliest, _)| position < *earliest) {
            self.differing = Some((position, images));
        }
        Ok(is_same)
    }
}

/// Finds the first delivery after which the heaps of two workers differ. `is_linear` looks after each delivery instead of
/// halving: heaps that differ can become the same again, which halving does not see. The second worker makes the heap that was found
/// `repeats` times more, to tell whether it is always the same.
///
/// # Errors
/// When the folder is damaged or a replay fails for a reason of ours.
pub fn bisect(
    case: &Case,
    programs: [&WorkerProgram; 2],
    limits: &Limits,
    is_linear: bool,
    repeats: u32,
) -> Result<Bisection, BisectError> {
    let items = case.items()?;
    let span = case.span(&items)?;
    let base = case.base()?;
    let beginning = case.beginning(&span, base.as_ref(), &[])?;
    let mut prober = Prober {
        span: &span,
        case,
        beginning: &beginning,
        programs,
        limits,
        probes: Vec::new(),
        replays: 0,
        differing: None,
    };
    // Number 0 is before all deliveries.
    let mut points = vec![span.id.start];
    points.extend(span.deliveries.iter().map(|(position, _)| *position));
    let found = if is_linear { linear(&mut prober, &points)? } else { halving(&mut prober, &points)? };
    let mut is_deterministic = None;
    let mut images = None;
    if let (Some(position), Some((_, [Some(one), Some(other)]))) = (found, prober.differing.take()) {
        let mut is_same = true;
        for _ in 0..repeats {
            let again = prober.image(1, position)?;
            is_same &= again.is_some_and(|again| again.hash() == other.hash());
        }
        is_deterministic = Some(is_same);
        images = Some([one, other]);
    }
    Ok(Bisection {
        first: found,
        is_deterministic,
        probes: prober.probes,
        replays: prober.replays,
        deliveries: span.deliveries.len(),
        images,
    })
}

fn halving(prober: &mut Prober<'_>, points: &[Position]) -> Result<Option<Position>, BisectError> {
    let (mut same, mut differs) = (0, points.len() - 1);
    if prober.is_same(points[differs])? {
        return Ok(None);
    }
    if differs == 0 || !prober.is_same(points[0])? {
        return Ok(Some(points[0]));
    }
    while differs - same > 1 {
        let middle = usize::midpoint(same, differs);
        if prober.is_same(points[middle])? {
            same = middle;
        } else {
            differs = middle;
        }
    }
    Ok(Some(points[differs]))
}

fn linear(prober: &mut Prober<'_>, points: &[Position]) -> Result<Option<Position>, BisectError> {
    let mut first = None;
    for point in points {
        if !prober.is_same(*point)? {
            first = first.or(Some(*point));
        }
    }
    Ok(first)
}
