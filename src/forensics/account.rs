//! The account of a divergence: all facts about it, gathered from its folder.
//!
//! Owns the shape that `explain`, `report` and JSON share. It must never change a verdict, run a worker, or read outside the folder.

use std::collections::HashMap;

use serde::Serialize;

use super::causes::{Cause, Facts, causes};
use super::cost::Cost;
use super::difference::{Difference, first_difference};
use super::readable::readable;
use crate::evidence::manifest::{Seen, WorkerColumn};
use crate::evidence::{Case, EvidenceError, ReplayedDelivery, WorkerOutcome};
use crate::replay::{Answer, Mark, is_gc_sensitive, side_by_side};
use crate::span::{SpanBegins, SpanEnds};
use crate::transcript::{Item, Position, Syscall};
use crate::verdict::{Finding, FindingClass, FindingKind, HeapAnswer, RepeatKind};

/// A divergence, told.
#[derive(Debug, Serialize)]
pub struct Account {
    /// The folder's name where it was written.
    pub id: String,
    /// The vat.
    pub vat: String,
    /// Its name.
    pub name: Option<String>,
    /// Its incarnation.
    pub incarnation: u64,
    /// The span.
    pub span: (Position, Position),
    /// Its first and last item.
    pub from_to: (SpanBegins, SpanEnds),
    /// The agreement of the replays.
    pub repeat: RepeatKind,
    /// The outcomes of the replays, a line each.
    pub outcomes: Vec<String>,
    /// The first finding.
    pub first: Option<Finding>,
    /// The findings that were kept.
    pub findings: Vec<Finding>,
    /// The number of findings, as not all are kept.
    pub findings_total: usize,
    /// The position at which the replay could not go on.
    pub stopped_at: Option<Position>,
    /// The deliveries in which something differs.
    pub deliveries: Vec<DeliveryAccount>,
    /// Each delivery's cost.
    pub costs: Vec<Cost>,
    /// The outcomes of workers with the span.
    pub workers: Vec<WorkerColumn>,
    /// The comparison of both heaps, if the snapshot's hash differs.
    pub heap: Option<HeapAnswer>,
    /// The possible causes, the likeliest first.
    pub causes: Vec<Cause>,
    /// The number of times that it was seen.
    pub seen: Option<Seen>,
    /// The next steps.
    pub next: Vec<String>,
}

/// A delivery in which something differs.
#[derive(Debug, Serialize)]
pub struct DeliveryAccount {
    /// Its position.
    pub position: Position,
    /// Its kind.
    pub kind: String,
    /// In a person's words.
    pub readable: String,
    /// Its status, as recorded and as replayed.
    pub status: (String, Option<String>),
    /// Its computrons, as recorded and as replayed.
    pub computrons: (Option<u64>, Option<u64>),
    /// Its syscalls, side by side.
    pub syscalls: Vec<SyscallRow>,
}

/// A syscall, side by side.
#[derive(Debug, Serialize)]
pub struct SyscallRow {
    /// What became of it.
    pub mark: Mark,
    /// Its number and JSON text in the record.
    pub recorded: Option<(usize, String)>,
    /// In the replay.
    pub replayed: Option<(usize, String)>,
    /// The source of the replayed syscall's response, if it is not the record in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The class of the difference, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<FindingClass>,
    /// The first difference of a syscall that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

impl SyscallRow {
    /// Notes for a person.
    #[must_use]
    pub fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if self.class.is_some() {
            notes.push("a read that garbage collection causes");
        }
        match self.answer {
            Some(Answer::Inferred) => notes.push("answered as inferred from the span's record"),
            Some(Answer::None) => notes.push("no answer would have been honest: the delivery ended here"),
            _ => {}
        }
        notes
    }
}

impl Account {
    /// Gathers the account of a divergence.
    ///
    /// # Errors
    /// When the folder is damaged.
    pub fn of(case: &Case) -> Result<Self, EvidenceError> {
        let manifest = &case.manifest;
        let items = case.items()?;
        let replayed = case.replayed(0)?;
        let made: HashMap<Position, &ReplayedDelivery> =
            replayed.iter().map(|delivery| (delivery.position, delivery)).collect();
        let first_outcome = manifest.outcomes.first();
        let findings = first_outcome.map(|outcome| outcome.findings.clone()).unwrap_or_default();
        let workers = case.workers();
        let costs: Vec<Cost> = items
            .iter()
            .filter(|(_, item)| item.result.computrons.is_some())
            .map(|(position, item)| Cost {
                position: *position,
                kind: item.kind.name().to_owned(),
                readable: readable(item.delivery),
                recorded: item.result.computrons,
                replayed: made.get(position).and_then(|delivery| delivery.computrons),
            })
            .collect();
        let deliveries: Vec<DeliveryAccount> = items
            .iter()
            .filter(|(position, _)| findings.iter().any(|finding| finding.position == *position))
            .filter(|(position, _)| made.contains_key(position))
            .map(|(position, item)| delivery(*position, item, made[position]))
            .collect();
        let facts = Facts { manifest, findings: &findings, deliveries: &deliveries, costs: &costs, workers: &workers };
        let causes = causes(&facts);
        Ok(Self {
            id: manifest.id.clone(),
            vat: manifest.span.vat.clone(),
            name: manifest.span.name.clone(),
            incarnation: manifest.span.incarnation,
            span: (manifest.span.start, manifest.span.end),
            from_to: (manifest.span.begins, manifest.span.ends),
            repeat: manifest.repeat,
            outcomes: outcomes(case),
            first: findings.first().cloned(),
            findings_total: first_outcome.map_or(0, |outcome| outcome.findings_total),
            stopped_at: first_outcome.and_then(|outcome| outcome.stopped_at),
            deliveries,
            next: next(case, &findings, &workers),
            findings,
            costs,
            workers,
            heap: manifest.heap.clone(),
            causes,
            seen: case.seen(),
        })
    }
}

fn delivery(position: Position, item: &Item<'_>, made: &ReplayedDelivery) -> DeliveryAccount {
    let recorded: Vec<&str> = item.syscalls.iter().map(Syscall::request).collect();
    let replayed: Vec<&str> = made.syscalls.iter().map(|syscall| &syscall.request[..]).collect();
    let has_ended = made.status != "none";
    let rows = side_by_side(&recorded, &replayed, !has_ended).into_iter().map(|row| {
        let of_record = row.recorded.map(|at| (at, recorded[at].to_owned()));
        let of_replay = row.replayed.map(|at| (at, replayed[at].to_owned()));
        let is_gc = row.mark != Mark::Ok
            && row.mark != Mark::Changed
            && [&of_record, &of_replay].into_iter().flatten().all(|(_, request)| is_gc_sensitive(request));
        let difference = match (&of_record, &of_replay) {
            (Some((_, one)), Some((_, other))) if row.mark == Mark::Changed => first_difference(one, other),
            _ => None,
        };
        SyscallRow {
            mark: row.mark,
            answer: row.replayed.and_then(|at| made.syscalls[at].answer),
            class: is_gc.then_some(FindingClass::GcSensitiveRead),
            recorded: of_record,
            replayed: of_replay,
            difference,
        }
    });
    DeliveryAccount {
        position,
        kind: item.kind.name().to_owned(),
        readable: readable(item.delivery),
        status: (item.result.status.clone(), has_ended.then(|| made.status.clone())),
        computrons: (item.result.computrons, made.computrons),
        syscalls: rows.collect(),
    }
}

fn outcomes(case: &Case) -> Vec<String> {
    let outcomes = case.manifest.outcomes.iter().map(|outcome| {
        let times = outcome.times;
        match outcome.findings.first() {
            None if outcome.failure.is_none() => format!("{times} ×: as recorded"),
            None => format!("{times} ×: failed, as {}", outcome.failure.as_deref().unwrap_or_default()),
            Some(first) => format!("{times} ×: at position {}, {first}", first.position),
        }
    });
    outcomes.collect()
}

fn next(case: &Case, findings: &[Finding], workers: &[WorkerColumn]) -> Vec<String> {
    let manifest = &case.manifest;
    let folder = case.dir().display();
    // The path in the evidence is one of another machine, or a stranger's: no reader is told to run it.
    let mut next = vec![format!(
        "replay it: spanwatch replay {folder} --worker PATH, where PATH is your copy of the worker {}",
        case.wanted_worker()
    )];
    if !workers.iter().any(|column| column.outcome == WorkerOutcome::Reproduces) {
        next.push(format!("find a worker that reproduces the record: spanwatch replay {folder} --worker OTHER"));
    }
    let is_hash_only = findings.iter().all(|finding| finding.kind == FindingKind::SnapshotHash);
    if is_hash_only && !findings.is_empty() {
        next.push(format!(
            "find the delivery after which the heaps differ: spanwatch bisect {folder} --worker GOOD --worker BAD"
        ));
    }
    if manifest.start.image.is_none() {
        next.push(format!("try another bundle: spanwatch replay {folder} --with-bundle OLD=FILE"));
    }
    next.push(format!("send it to somebody: spanwatch evidence pack {folder} {}.spanwatch", manifest.id));
    next
}
