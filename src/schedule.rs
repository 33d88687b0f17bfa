//! Which thread replays what, and when.
//!
//! Owns the threads: one a core, each pinned with the worker that it drives to the same core, as the two only ever
//! alternate. Units of work are independent; the spans of a unit are replayed in order on one thread, each handing its
//! image to the next. Reports come out in the order of the plan, whoever finishes first.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::archive::Archives;
use crate::image::Image;
use crate::kernel_db::KernelDb;
use crate::plan::{Base, Begins, PlannedSpan, Survey, Unit};
use crate::replay::{Limits, Replay, ReplayStart, WorkerProgram, replay};
use crate::span::{Beginning, Span, SpanText, blank_beginning, recorded_image};
use crate::transcript::{DeliveryKind, Hash256, Position, SpanId};
use crate::verdict::{Divergence, Finding, NotApplicable, Repeat, Unverifiable, Verdict};

/// What all replays of a run have in common.
#[derive(Debug)]
pub struct Context<'a> {
    /// The node's database.
    pub db: &'a KernelDb,
    /// Its archives.
    pub archives: &'a Archives,
    /// What is in it.
    pub survey: &'a Survey,
    /// The workers to replay with, each span with each.
    pub programs: &'a [WorkerProgram],
    /// What workers are held to.
    pub limits: &'a Limits,
}

/// What came of one span with one worker.
#[derive(Debug)]
pub struct SpanReport {
    /// Vat and bounds.
    pub id: SpanId,
    /// The vat's name, if it has one and is not gone.
    pub name: Option<String>,
    /// Its incarnation.
    pub incarnation: u64,
    /// Which of the workers replayed it.
    pub worker: usize,
    /// Whether it was asked for; if not, it was on the way to one that was.
    pub is_asked: bool,
    /// Its first item, if that is known.
    pub begins: Option<&'static str>,
    /// Its last item, if that is known: `save-snapshot`, `shutdown-worker`, or `termination` for neither.
    pub ends: Option<&'static str>,
    /// What it started from: `blank`, `recorded`, `chained` or `missing`.
    pub base: &'static str,
    /// Set when it started from an image that a diverging replay of ours gave and that no record speaks of.
    pub is_base_unproved: bool,
    /// What can be said of it.
    pub verdict: Verdict,
    /// Deliveries made and compared.
    pub deliveries: u64,
    /// Syscalls that the vat made in them.
    pub syscalls: u64,
    /// Whether the snapshot at its end was compared.
    pub is_hash_compared: bool,
    /// Where the replay could not go on, if it did not come to the end.
    pub stopped_at: Option<Position>,
    /// How long it took.
    pub took: Duration,
}

/// What a replay leaves for the span after it.
struct Handover {
    start: Position,
    verdict: &'static str,
    image: Option<Image>,
}

/// Replays all units with all workers and hands each report to `report`, in the order of the plan: unit by unit, for
/// each unit worker by worker.
pub fn run(context: &Context<'_>, units: &[Unit], jobs: NonZeroUsize, mut report: impl FnMut(&SpanReport)) {
    let tasks = units.len() * context.programs.len();
    let next = AtomicUsize::new(0);
    let cores = usable_cores();
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(2 * jobs.get());
        for job in 0..jobs.get().min(tasks) {
            let (sender, next) = (sender.clone(), &next);
            let core = if jobs.get() <= cores.len() { cores.get(job).copied() } else { None };
            scope.spawn(move || {
                pin(core);
                loop {
                    let task = next.fetch_add(1, Ordering::Relaxed);
                    if task >= tasks {
                        return;
                    }
                    let (unit, worker) = (task / context.programs.len(), task % context.programs.len());
                    run_unit(context, &units[unit], worker, |report| {
                        // The receiver lives as long as this scope.
                        let _ = sender.send((task, Some(report)));
                    });
                    let _ = sender.send((task, None));
                }
            });
        }
        drop(sender);
        let mut waiting: BTreeMap<usize, (Vec<SpanReport>, bool)> = BTreeMap::new();
        let mut current = 0;
        for (task, message) in receiver {
            let (reports, is_done) = waiting.entry(task).or_default();
            match message {
                Some(report) => reports.push(report),
                None => *is_done = true,
            }
            while let Some((reports, is_done)) = waiting.get_mut(&current) {
                reports.drain(..).for_each(|one| report(&one));
                if !*is_done {
                    break;
                }
                waiting.remove(&current);
                current += 1;
            }
        }
    });
}

fn usable_cores() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Pins this thread and the workers that it will start. Only a matter of speed, so a refusal is no error.
fn pin(core: Option<usize>) {
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core);
        let _ = sched_setaffinity(None, &set);
    }
}

fn run_unit(context: &Context<'_>, unit: &Unit, worker: usize, mut done: impl FnMut(SpanReport)) {
    let mut handover: Option<Handover> = None;
    for planned in unit {
        let (report, image) = run_span(context, planned, worker, handover.as_ref());
        handover = Some(Handover { start: report.id.start, verdict: report.verdict.label(), image });
        done(report);
    }
}

fn run_span(
    context: &Context<'_>,
    planned: &PlannedSpan,
    worker: usize,
    handover: Option<&Handover>,
) -> (SpanReport, Option<Image>) {
    let began = Instant::now();
    let row = &planned.row;
    let mut report = SpanReport {
        id: row.id.clone(),
        name: context.survey.name_of(&row.id.vat).map(str::to_owned),
        incarnation: row.incarnation,
        worker,
        is_asked: planned.is_asked,
        begins: match planned.begins {
            Begins::Initialize => Some("initialize-worker"),
            Begins::Load => Some("load-snapshot"),
            Begins::Unknown => None,
        },
        ends: planned.ends,
        base: planned.base.label(),
        is_base_unproved: false,
        verdict: Verdict::Verified,
        deliveries: 0,
        syscalls: 0,
        is_hash_compared: false,
        stopped_at: None,
        took: Duration::ZERO,
    };
    let mut image = None;
    report.verdict = match verify(context, planned, worker, handover, &mut report, &mut image) {
        Ok(verdict) | Err(verdict) => verdict,
    };
    report.took = began.elapsed();
    (report, image)
}

/// The verdict; the error is one too, of a span that could not be replayed.
fn verify(
    context: &Context<'_>,
    planned: &PlannedSpan,
    worker: usize,
    handover: Option<&Handover>,
    report: &mut SpanReport,
    image: &mut Option<Image>,
) -> Result<Verdict, Verdict> {
    let id = &planned.row.id;
    if id.end < id.start {
        return Err(Verdict::Unverifiable(Unverifiable::SpanRow("it ends before it starts")));
    }
    if planned.is_local(context.survey) {
        return Err(Verdict::NotApplicable(NotApplicable::LocalWorker));
    }
    let options =
        context.survey.options_of(&id.vat).map_err(|error| Verdict::Unverifiable(Unverifiable::Options(error)))?;
    let text = SpanText::load(context.db, context.archives, planned)?;
    let items = text.parse().map_err(Verdict::Unverifiable)?;
    report.begins = items.first().map(|(_, item)| item.kind.name());
    report.ends = items.last().map(|(_, item)| match item.kind {
        DeliveryKind::SaveSnapshot { .. } | DeliveryKind::ShutdownWorker => item.kind.name(),
        _ => "termination",
    });
    let span = Span::new(id, &items)?;

    let own_image;
    let beginning = match span.loads() {
        None => {
            report.base = Base::Blank.label();
            blank_beginning(context.db, &span, &options, context.survey.relax_durability_rules)?
        }
        Some(recorded) => match (&planned.base, handover) {
            (Base::Chained, Some(handover)) => chained(handover, recorded, report)?,
            (Base::Recorded { .. }, _) => {
                own_image = recorded_image(context.db, context.archives, planned, recorded)?;
                Beginning::Image(&own_image)
            }
            (Base::Gone(why), _) => return Err(Verdict::Unverifiable(Unverifiable::BaseGone(why.clone()))),
            (Base::Blank | Base::Chained, _) => {
                return Err(Verdict::Unverifiable(Unverifiable::Shape {
                    position: id.start,
                    what: "load-snapshot begins an incarnation".to_owned(),
                }));
            }
        },
    };
    let start = ReplayStart {
        program: &context.programs[worker],
        limits: context.limits,
        options: &options,
        beginning: &beginning,
    };
    Ok(replay_and_judge(&span, &start, report, image))
}

/// The image that the replay of the span before gave.
fn chained<'a>(handover: &'a Handover, recorded: Hash256, report: &mut SpanReport) -> Result<Beginning<'a>, Verdict> {
    let Some(image) = &handover.image else {
        let Handover { start, verdict, .. } = *handover;
        return Err(Verdict::Unverifiable(Unverifiable::ChainBroken { start, verdict }));
    };
    report.is_base_unproved = image.hash() != recorded;
    Ok(Beginning::Image(image))
}

fn replay_and_judge(
    span: &Span<'_>,
    start: &ReplayStart<'_>,
    report: &mut SpanReport,
    image: &mut Option<Image>,
) -> Verdict {
    let once = replay(span, start);
    report.deliveries = once.deliveries;
    report.syscalls = once.syscalls;
    report.is_hash_compared = once.is_hash_compared;
    report.stopped_at = once.stopped_at;
    let verdict = match (once.findings.is_empty(), once.failure) {
        (true, None) => Verdict::Verified,
        (true, Some(failure)) => Verdict::Failed(failure),
        (false, _) => {
            let repeat = repeat(&once.findings, replay(span, start));
            Verdict::Diverged(Divergence { findings: once.findings, findings_total: once.findings_total, repeat })
        }
    };
    *image = once.image;
    verdict
}

/// What a second replay says of the first one's findings.
fn repeat(once: &[Finding], again: Replay) -> Repeat {
    if again.findings == once {
        return Repeat::Deterministic;
    }
    match again.failure {
        Some(failure) if again.findings.is_empty() => Repeat::Unconfirmed(failure.to_string()),
        _ => Repeat::Flaky(again.findings),
    }
}
