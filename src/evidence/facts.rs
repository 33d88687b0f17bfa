//! The facts that evidence states: of a worker, of an outcome, of an engine.
//!
//! Owns the facts that `manifest.json` and `workers.json` take from replays. This module must never write a file.

use super::manifest::{EngineFacts, ImageFacts, OutcomeFacts, WorkerColumn, WorkerFacts, WorkerOutcome};
use super::{keeper::Witness, replayed};
use crate::heap::Heap;
use crate::record::image::Image;
use crate::replay::{Limits, Replay, WorkerProgram};
use crate::span::{Beginning, Span};
use crate::verdict::Verdict;

/// Of the image that the span starts from, or where it starts from none of the one that it ends with.
pub(super) fn engine_of(witness: &Witness<'_>) -> Option<EngineFacts> {
    let image = match witness.start.beginning {
        Beginning::Image(image) => image,
        Beginning::Blank { .. } => witness.judged.replays.iter().find_map(|replay| replay.image.as_ref())?,
    };
    let mut bytes = Vec::new();
    image.copy_to(&mut bytes).ok()?;
    // An image that can't be read is told where heaps are compared.
    let heap = Heap::read(bytes).ok()?;
    let atoms = heap.atoms().iter().map(|atom| (atom.tag.to_owned(), atom.bytes as u64)).collect();
    Some(EngineFacts { version: heap.version().to_string(), atoms })
}

pub(super) fn outcome(replay: &Replay, span: &Span<'_>, file: String) -> OutcomeFacts {
    let bytes = replay.image.as_ref().map_or(0, Image::bytes);
    OutcomeFacts {
        times: 1,
        findings: replay.findings.clone(),
        findings_total: replay.findings_total,
        stopped_at: replay.stopped_at,
        failure: replay.failure.as_ref().map(ToString::to_string),
        image: replayed::end_of(replay, span).map(|sha256| ImageFacts { sha256, bytes }),
        file,
    }
}

/// A worker as evidence names it.
#[must_use]
pub fn worker_facts(program: &WorkerProgram, limits: &Limits) -> WorkerFacts {
    WorkerFacts {
        path: program.path.display().to_string(),
        version: program.version.clone(),
        sha256: program.sha256.clone(),
        sandbox: program.protection.mode,
        layers: program.protection.layers.clone(),
        time_zone: program.sandbox.time_zone().to_string_lossy().into_owned(),
        stack: limits.stack,
    }
}

/// What a worker did, in a line.
#[must_use]
pub fn column(verdict: &Verdict, worker: WorkerFacts) -> WorkerColumn {
    let mut column = WorkerColumn {
        worker,
        outcome: WorkerOutcome::Failed,
        position: None,
        kind: None,
        repeat: None,
        explanation: String::new(),
    };
    match verdict {
        Verdict::Contradicted(otherwise) => return self::column(otherwise, column.worker),
        Verdict::Verified => {
            column.outcome = WorkerOutcome::Reproduces;
            column.explanation = "all as recorded".to_owned();
        }
        Verdict::Partial(partial) => {
            column.outcome = WorkerOutcome::Reproduces;
            column.explanation = partial.to_string();
        }
        Verdict::Diverged(divergence) => {
            let first = divergence.findings.first();
            column.outcome = WorkerOutcome::Diverges;
            column.position = first.map(|finding| finding.position);
            column.kind = first.map(|finding| finding.kind);
            column.repeat = Some(divergence.repeat.kind());
            column.explanation = first.map(ToString::to_string).unwrap_or_default();
        }
        Verdict::Unverifiable(why) => column.explanation = why.to_string(),
        Verdict::Failed(failure) => column.explanation = failure.to_string(),
        Verdict::NotApplicable(why) => column.explanation = why.text().to_owned(),
    }
    column
}
