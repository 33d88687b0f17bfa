//! Evidence made by hand, and the causes that the table of rules gives for it.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::transcript::sha256;

/// Evidence of a span from 5 to 9 that starts from an image and saves one, with one worker in UTC.
struct Case {
    manifest: Manifest,
    findings: Vec<Finding>,
    costs: Vec<Cost>,
    workers: Vec<WorkerColumn>,
}

impl Case {
    fn of(findings: Vec<Finding>) -> Self {
        let hash = |text: &str| sha256(text.as_bytes()).to_string();
        let manifest = json!({
            "schema": 1, "spanwatch": "0.1.0", "written_at": "", "id": "v1.5.9-00000000", "signature": "00000000",
            "span": {
                "vat": "v1", "name": null, "incarnation": 0, "start": 5, "end": 9, "seen_to": 9, "hash": hash("items"),
                "begins": "load-snapshot", "ends": "save-snapshot", "saves": hash("recorded image"), "items": [1, 1, 1, 1],
            },
            "start": {
                "base": "recorded", "image": { "sha256": hash("base"), "bytes": 1 }, "is_base_unproved": false,
                "is_metered": false, "enable_disavow": false, "relax_durability_rules": false, "bundles": [],
            },
            "repeat": "deterministic", "unconfirmed": null, "heap": null,
            "outcomes": [{
                "times": 4, "findings": [], "findings_total": 0, "stopped_at": null, "failure": null,
                "image": { "sha256": hash("replayed image"), "bytes": 1 }, "file": "replayed.jsonl",
            }],
            "worker": worker("00", "UTC"), "engine": null,
            "host": { "kernel": "", "arch": "", "processor": null, "processors": 1, "memory": null, "page_size": 4096 },
            "files": {},
        });
        let manifest = serde_json::from_value(manifest).expect("a manifest");
        let costs = (6..9).map(|position| cost(position, 10, 10)).collect();
        Self { manifest, findings, costs, workers: Vec::new() }
    }

    /// The same with the heap at the end as recorded.
    fn with_recorded_end(mut self) -> Self {
        let saves = self.manifest.span.saves.expect("a snapshot");
        self.manifest.outcomes[0].image.as_mut().expect("an image").sha256 = saves;
        self
    }

    fn flaky(mut self) -> Self {
        self.manifest.repeat = RepeatKind::Flaky;
        self
    }

    fn blank(mut self) -> Self {
        self.manifest.start.image = None;
        self
    }

    fn in_zone(mut self, zone: &str) -> Self {
        self.manifest.worker.time_zone = zone.to_owned();
        self
    }

    fn with_heap(mut self, answer: HeapLikeness, traces: &[TraceKind]) -> Self {
        let counts: BTreeMap<TraceKind, u64> = traces.iter().map(|kind| (*kind, 1)).collect();
        self.manifest.heap = Some(HeapAnswer { answer, trace_counts: counts, ..HeapAnswer::default() });
        self
    }

    fn with_costs(mut self, costs: Vec<Cost>) -> Self {
        self.costs = costs;
        self
    }

    fn with_workers(mut self, workers: &[(&str, &str, WorkerOutcome)]) -> Self {
        let column = |(sha256, zone, outcome): &(&str, &str, WorkerOutcome)| WorkerColumn {
            worker: serde_json::from_value(worker(sha256, zone)).expect("a worker"),
            outcome: *outcome,
            position: None,
            kind: None,
            repeat: None,
            explanation: String::new(),
        };
        self.workers = workers.iter().map(column).collect();
        self
    }

    /// The names of the causes with their confidence, in the order in which they are told.
    fn causes(&self) -> Vec<String> {
        let Self { manifest, findings, costs, workers } = self;
        let causes = causes(&Facts { manifest, findings, deliveries: &[], costs, workers });
        assert!(causes.iter().all(|cause| !cause.reason.is_empty()));
        causes.iter().map(|cause| format!("{} {}", cause.name, cause.confidence.words())).collect()
    }
}

fn worker(sha256: &str, zone: &str) -> serde_json::Value {
    json!({
        "path": format!("/{sha256}"), "version": "xsnap 0.15.0", "sha256": sha256, "sandbox": "default", "layers": [],
        "time_zone": zone, "stack": 8 << 20,
    })
}

fn cost(position: u64, recorded: u64, replayed: u64) -> Cost {
    Cost {
        position,
        kind: "message".to_owned(),
        readable: String::new(),
        recorded: Some(recorded),
        replayed: Some(replayed),
    }
}

fn finding(kind: FindingKind, position: u64) -> Finding {
    Finding::new(kind, position, Some("recorded"), Some("replayed"))
}

fn exit(exit: WorkerExit) -> Finding {
    Finding { exit: Some(exit), ..finding(FindingKind::WorkerExit, 7) }
}

/// A difference that no rule speaks of.
fn plain() -> Finding {
    finding(FindingKind::Syscall, 7)
}

fn hash_only() -> Case {
    Case::of(vec![finding(FindingKind::SnapshotHash, 8)])
}

/// A cause, evidence for it, and evidence like it that does not speak for it.
type Pair = (&'static str, Case, Case);

/// Causes that are told without the heaps.
fn without_heaps() -> Vec<Pair> {
    let gc_read = |kind| Finding { class: Some(FindingClass::GcSensitiveRead), ..finding(kind, 7) };
    let all_cost_more = || (6..12).map(|position| cost(position, 10, 11)).collect();
    let reproduces = ("11", "UTC", WorkerOutcome::Reproduces);
    vec![
        (
            "worker certain",
            Case::of(vec![plain()]).with_workers(&[("00", "UTC", WorkerOutcome::Diverges), reproduces]),
            Case::of(vec![plain()]).with_workers(&[("00", "UTC", WorkerOutcome::Diverges)]),
        ),
        (
            "worker likely",
            Case::of(vec![plain()]).with_workers(&[("11", "Asia/Tokyo", WorkerOutcome::Diverges), reproduces]),
            Case::of(vec![plain()]).with_workers(&[("11", "UTC", WorkerOutcome::Failed), reproduces]),
        ),
        (
            "garbage_collection likely",
            Case::of(vec![gc_read(FindingKind::ExtraSyscall), finding(FindingKind::Computrons, 7)]),
            Case::of(vec![gc_read(FindingKind::ExtraSyscall), plain()]),
        ),
        ("record_changed likely", Case::of(vec![plain()]).with_recorded_end(), Case::of(vec![plain()])),
        (
            "bundle possible",
            Case::of(vec![finding(FindingKind::Syscall, 6)]).blank(),
            Case::of(vec![finding(FindingKind::Syscall, 6)]),
        ),
        (
            "engine likely",
            Case::of(vec![finding(FindingKind::Computrons, 6)]).with_costs(all_cost_more()),
            Case::of(vec![finding(FindingKind::Computrons, 6)]),
        ),
        (
            "metering possible",
            Case::of(vec![finding(FindingKind::Computrons, 7)]).with_recorded_end(),
            Case::of(vec![finding(FindingKind::Computrons, 7), finding(FindingKind::Computrons, 8)])
                .with_recorded_end(),
        ),
        (
            "order likely",
            Case::of(vec![Finding { syscall: Some(1), moved_to: Some(3), ..plain() }]),
            Case::of(vec![Finding { syscall: Some(1), ..plain() }]),
        ),
        (
            "record_cut possible",
            Case::of(vec![finding(FindingKind::ExtraSyscall, 7)]),
            Case::of(vec![finding(FindingKind::ExtraSyscall, 7), finding(FindingKind::ExtraSyscall, 8)]),
        ),
        ("limits likely", Case::of(vec![exit(WorkerExit::Code(12))]), Case::of(vec![exit(WorkerExit::Code(13))])),
        ("crash likely", Case::of(vec![exit(WorkerExit::Signal(11))]), Case::of(vec![exit(WorkerExit::Code(11))])),
        (
            "crash possible",
            Case::of(vec![exit(WorkerExit::Signal(11))]).flaky(),
            Case::of(vec![exit(WorkerExit::Signal(11))]),
        ),
    ]
}

/// Causes that are told from the heaps, or from a hash alone.
fn from_heaps() -> Vec<Pair> {
    vec![
        (
            "host_in_heap certain",
            hash_only().with_heap(HeapLikeness::Isomorphic, &[TraceKind::HostPointer]),
            hash_only().with_heap(HeapLikeness::Isomorphic, &[TraceKind::TableSize]),
        ),
        ("host_in_heap likely", hash_only().flaky(), hash_only()),
        (
            "compiler likely",
            hash_only().with_heap(HeapLikeness::Isomorphic, &[TraceKind::NumberRepresentation]),
            hash_only().with_heap(HeapLikeness::Isomorphic, &[]),
        ),
        ("compiler possible", hash_only(), hash_only().with_heap(HeapLikeness::GcSchedule, &[])),
        ("time_zone possible", hash_only(), hash_only().with_heap(HeapLikeness::Isomorphic, &[])),
        ("time_zone likely", hash_only().in_zone("Asia/Tokyo"), hash_only()),
        ("gc_schedule certain", hash_only().with_heap(HeapLikeness::GcSchedule, &[]), hash_only()),
        ("gc_schedule possible", hash_only(), hash_only().with_heap(HeapLikeness::Different, &[])),
    ]
}

#[test]
fn each_rule_speaks_for_its_evidence_and_for_no_other() {
    let cases: Vec<Pair> = without_heaps().into_iter().chain(from_heaps()).collect();
    for (name, with, without) in &cases {
        assert!(with.causes().contains(&(*name).to_owned()), "{name} is missing: {:?}", with.causes());
        assert!(!without.causes().contains(&(*name).to_owned()), "{name} is too much: {:?}", without.causes());
    }
    // A new rule needs a case.
    for (rule, _) in RULES {
        assert!(cases.iter().any(|(name, ..)| name.split(' ').next() == Some(rule)), "no case for {rule}");
    }
}

#[test]
fn causes_are_told_surest_first() {
    let case = hash_only()
        .with_heap(HeapLikeness::GcSchedule, &[])
        .with_workers(&[("00", "UTC", WorkerOutcome::Diverges), ("11", "UTC", WorkerOutcome::Reproduces)])
        .blank();
    let causes = case.causes();
    assert_eq!(causes[..2], ["worker certain", "gc_schedule certain"], "{causes:?}");
    assert!(causes[2..].iter().all(|cause| !cause.ends_with("certain")), "{causes:?}");
}
