//! Which thread replays what, and when.
//!
//! Owns the threads: one a core, each pinned with the worker that it drives to the same core, as the two only ever
//! alternate. Units of work are independent; the spans of a unit are replayed in order on one thread, each handing its
//! image to the next. So are units that follow one another in a vat, a few at a time: then the image that a span is to start
//! from need not be read again. Reports come out in the order of the plan, whoever finishes first.

mod links;
mod runs;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::audit::{self, Contradictions};
use crate::evidence::{EvidenceError, Keeper, Kept, Witness};
use crate::judge::heaps;
use crate::judge::{Court, judge};
use crate::kernel_db::KernelDb;
use crate::plan::{Base, Begins, PlannedSpan, Survey, Unit};
use crate::record::archives::Archives;
use crate::record::captures::Captures;
use crate::record::image::{Image, keep_memory};
use crate::replay::{Limits, Replay, ReplayStart, WorkerProgram};
use crate::span::{Beginning, Source, Span, SpanText, blank_beginning, image_at_end, recorded_image};
use crate::transcript::{Hash256, Position, SpanId};
use crate::verdict::{Failure, Unverifiable, Verdict};

/// What all replays of a run have in common.
#[derive(Debug)]
pub struct Context<'a> {
    /// The node's database.
    pub db: &'a KernelDb,
    /// Its archives.
    pub archives: &'a Archives,
    /// Our own copies of what it has deleted.
    pub captures: &'a Captures,
    /// What is in it.
    pub survey: &'a Survey,
    /// The workers to replay with, each span with each.
    pub programs: &'a [WorkerProgram],
    /// What workers are held to.
    pub limits: &'a Limits,
    /// How they are judged.
    pub court: Court<'a>,
    /// Where the evidence of divergences is kept, if it is.
    pub evidence: Option<&'a Keeper>,
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
    /// The size of the image that it saved, in bytes.
    pub image_bytes: Option<u64>,
    /// How long it took.
    pub took: Duration,
    /// Of a divergence: the evidence that was kept, or why none could be.
    pub evidence: Option<Result<Kept, EvidenceError>>,
    /// The images that its items name.
    pub images: NamedImages,
    /// Responses in its items that the items themselves contradict.
    pub contradictions: Contradictions,
}

/// The images that the proved items of a span name.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamedImages {
    /// In its `load-snapshot`.
    pub loads: Option<Hash256>,
    /// In its `save-snapshot`.
    pub saves: Option<Hash256>,
}

impl SpanReport {
    /// Makes contradictions the verdict where the replay found no difference. What failed for a reason of ours and may be
    /// tried again keeps its verdict; [`SpanReport::conclude`] is for when it is not tried again.
    fn weigh_contradictions(&mut self) {
        if !matches!(self.verdict, Verdict::Failed(_)) {
            self.conclude();
        }
    }

    /// Makes contradictions the verdict where the replay found no difference: nothing else may hide them.
    pub fn conclude(&mut self) {
        if !self.contradictions.is_empty() && !matches!(self.verdict, Verdict::Diverged(_) | Verdict::Contradicted(_)) {
            let otherwise = std::mem::replace(&mut self.verdict, Verdict::Verified);
            self.verdict = Verdict::Contradicted(Box::new(otherwise));
        }
    }
}

/// What a replay leaves for the span after it.
#[derive(Debug, Default)]
pub struct Handover {
    start: Position,
    verdict: &'static str,
    /// The hash of the snapshot at its end, as recorded.
    saves: Option<Hash256>,
    /// The image that the replay gave, whatever its hash.
    image: Option<Image>,
}

impl Handover {
    /// The image at the end of the span, if it is the recorded one.
    #[must_use]
    pub fn recorded_image(&self) -> Option<&Image> {
        self.image.as_ref().filter(|image| Some(image.hash()) == self.saves)
    }

    /// Whether a span may start from it. What serves nobody is not worth its memory.
    #[must_use]
    pub fn serves(&self, planned: &PlannedSpan) -> bool {
        match &planned.base {
            Base::Chained => true,
            Base::Recorded { row_hash, .. } => row_hash.is_some() && self.image.as_ref().map(Image::hash) == *row_hash,
            Base::Blank | Base::Gone(_) => false,
        }
    }
}

/// Replays all units with all workers and hands each report to `report`, in the order of the plan: unit by unit, for
/// each unit worker by worker. Ends early if `report` says so.
pub fn run(
    context: &Context<'_>,
    units: &[Unit],
    jobs: NonZeroUsize,
    mut report: impl FnMut(&SpanReport) -> ControlFlow<()>,
) {
    let (runs, order) = runs::divide(units, context.programs.len(), jobs);
    let next = AtomicUsize::new(0);
    let cores = usable_cores();
    let is_stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(2 * jobs.get());
        for job in 0..jobs.get().min(order.len()) {
            let (sender, next, is_stopped) = (sender.clone(), &next, &is_stopped);
            let (runs, order) = (&runs, &order);
            let core = if jobs.get() <= cores.len() { cores.get(job).copied() } else { None };
            scope.spawn(move || {
                pin(core);
                let is_sandboxed = context.programs.iter().all(|program| program.sandbox.is_solitary());
                let _kept = is_sandboxed.then(keep_memory);
                // The worker goes on until it has nothing more to do, instead of making room for us at each syscall.
                let _ = batch_scheduling();
                loop {
                    let Some(task) = order.get(next.fetch_add(1, Ordering::Relaxed)).copied() else { return };
                    if is_stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let (run, worker) = (task / context.programs.len(), task % context.programs.len());
                    for report in run_units(context, units, runs[run].units.clone(), worker) {
                        if sender.send((task, Some(report))).is_err() || is_stopped.load(Ordering::Relaxed) {
                            return;
                        }
                    }
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
                if reports.drain(..).any(|one| report(&one).is_break()) {
                    is_stopped.store(true, Ordering::Relaxed);
                    return;
                }
                if !*is_done {
                    break;
                }
                waiting.remove(&current);
                current += 1;
            }
        }
    });
}

/// The cores that we may use, beginning with the one that we are on: two programs that each pin one thread should not
/// meet on the first core.
fn usable_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let mut cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
    let here = cores.iter().position(|core| *core == sched_getcpu()).unwrap_or(0);
    cores.rotate_left(here);
    cores
}

/// Pins this thread and the workers that it will start. Only a matter of speed, so a refusal is no error.
fn pin(core: Option<usize>) {
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core);
        let _ = sched_setaffinity(None, &set);
    }
}

/// Has this thread, and all that it starts, not interrupt another one of normal priority when it has something to do.
///
/// # Errors
/// When the system refuses.
#[expect(unsafe_code, reason = "no safe wrapper sets a scheduling policy")]
pub(crate) fn batch_scheduling() -> io::Result<()> {
    // SAFETY: an all-zero structure is a valid one of plain numbers.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: 0 is this thread, and the structure outlives the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Replays the spans of some of the units in order, each when its report is asked for.
fn run_units<'a>(
    context: &'a Context<'_>,
    units: &'a [Unit],
    which: Range<usize>,
    worker: usize,
) -> impl Iterator<Item = SpanReport> + 'a {
    let mut handover: Option<Handover> = None;
    let start = which.start;
    units[which].iter().flatten().enumerate().map(move |(at, planned)| {
        handover = handover.take().filter(|handover| handover.serves(planned));
        let (mut report, mut leaves) = run_span(context, planned, worker, handover.as_ref());
        if at == 0 && lacks_image(&report) {
            // Had the cut been elsewhere, the span before would have given the image: where it is must not cost a verdict.
            let before = image_before(context, units, start, worker).filter(|before| before.serves(planned));
            if let Some(before) = before {
                (report, leaves) = run_span(context, planned, worker, Some(&before));
            }
        }
        handover = Some(leaves);
        report
    })
}

/// Whether a span was not replayed as no image with the recorded hash could be read.
fn lacks_image(report: &SpanReport) -> bool {
    matches!(report.verdict, Verdict::Unverifiable(Unverifiable::BaseDamaged(_)))
}

/// What the unit before this one leaves, replayed once more for that alone: nothing is reported and no evidence kept. Where
/// its own image cannot be read either, that of the unit before is made first, and so on, for as many spans as a run has.
fn image_before(context: &Context<'_>, units: &[Unit], unit: usize, worker: usize) -> Option<Handover> {
    let context = Context { evidence: None, ..*context };
    let earliest = unit.saturating_sub(runs::SPANS_MAX);
    let mut from = unit;
    while from > earliest && runs::goes_on(&units[from - 1], &units[from]) {
        from -= 1;
        let mut handover: Option<Handover> = None;
        let mut is_begun = false;
        for planned in units[from..unit].iter().flatten() {
            handover = handover.take().filter(|handover| handover.serves(planned));
            let (report, leaves) = run_span(&context, planned, worker, handover.as_ref());
            if lacks_image(&report) {
                break;
            }
            is_begun = true;
            handover = Some(leaves);
        }
        if is_begun {
            return handover;
        }
    }
    None
}

/// Replays one span; `handover` is what the span before it left, if that is of use to it ([`Handover::serves`]).
#[must_use]
pub fn run_span(
    context: &Context<'_>,
    planned: &PlannedSpan,
    worker: usize,
    handover: Option<&Handover>,
) -> (SpanReport, Handover) {
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
        image_bytes: None,
        took: Duration::ZERO,
        evidence: None,
        images: NamedImages::default(),
        contradictions: Contradictions::default(),
    };
    let mut leaves = Handover::default();
    // A mistake of ours in one span must not cost the verdicts of the others.
    let verified =
        catch_unwind(AssertUnwindSafe(|| verify(context, planned, worker, handover, &mut report, &mut leaves)));
    report.verdict = match verified {
        Ok(Ok(verdict) | Err(verdict)) => context.survey.history.weigh(&row.id, verdict),
        Err(_) => Verdict::Failed(Failure::System("spanwatch has a bug: please report what it printed".to_owned())),
    };
    report.weigh_contradictions();
    report.took = began.elapsed();
    report.image_bytes = leaves.image.as_ref().map(Image::bytes);
    (leaves.start, leaves.verdict) = (report.id.start, report.verdict.label());
    (report, leaves)
}

/// The verdict; the error is one too, of a span that could not be replayed.
fn verify(
    context: &Context<'_>,
    planned: &PlannedSpan,
    worker: usize,
    handover: Option<&Handover>,
    report: &mut SpanReport,
    leaves: &mut Handover,
) -> Result<Verdict, Verdict> {
    let id = &planned.row.id;
    if id.end < id.start {
        return Err(Verdict::Unverifiable(Unverifiable::SpanRow("it ends before it starts")));
    }
    if planned.is_local(context.survey) {
        return Err(links::local(context, planned));
    }
    let options =
        context.survey.options_of(&id.vat).map_err(|error| Verdict::Unverifiable(Unverifiable::Options(error)))?;
    let text = SpanText::load(context.db, context.archives, context.captures, &planned.row, planned.items)?;
    let items = text.parse().map_err(Verdict::Unverifiable)?;
    report.begins = items.first().map(|(_, item)| item.kind.name());
    report.contradictions = audit::check_span(&items)
        .map_err(|error| Verdict::Failed(Failure::System(format!("the responses could not be checked: {error}"))))?;
    let span = Span::new(&planned.row.id, planned.ends, &items, text.is_whole())
        .map_err(|verdict| links::said_to_be_local(verdict, &options, &items))?;
    report.ends = Some(span.ends);
    report.images = NamedImages { loads: span.loads(), saves: span.saves };

    let own_image;
    let beginning = match span.loads() {
        None => {
            report.base = Base::Blank.label();
            let bundle = |id: &str| {
                let bytes = context.db.read(|reader| reader.bundle(id))?.flatten();
                Ok(bytes.map(|bytes| Source { id: id.to_owned(), bytes }))
            };
            blank_beginning(bundle, &span, &options, context.survey.relax_durability_rules)?
        }
        Some(recorded) => match (&planned.base, handover) {
            (Base::Chained, Some(handover)) => chained(handover, id, recorded, report)?,
            // It has the recorded hash, so it is the recorded image.
            (Base::Recorded { row_hash: Some(row_hash), .. }, Some(Handover { image: Some(image), .. }))
                if *row_hash == recorded && image.hash() == recorded =>
            {
                Beginning::Image(image)
            }
            (Base::Recorded { .. }, _) => {
                own_image = recorded_image(context.db, context.archives, context.captures, planned, recorded)?;
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
        probe: None,
    };
    let mut judged = judge(&span, &start, &context.court);
    tell(judged.first(), report);
    let hash_differs = judged.first().is_hash_compared && !judged.first().is_image_recorded;
    let recorded_end =
        if hash_differs { image_at_end(context.db, context.archives, context.captures, &span) } else { None };
    heaps::add_to(&mut judged, recorded_end.as_ref());
    if let (Verdict::Diverged(_), Some(keeper)) = (&judged.verdict, context.evidence) {
        let witness = Witness {
            name: report.name.as_deref(),
            incarnation: report.incarnation,
            text: &text,
            span: &span,
            hash: planned.row.hash,
            start: &start,
            relax_durability_rules: context.survey.relax_durability_rules,
            base: report.base,
            is_base_unproved: report.is_base_unproved,
            judged: &judged,
            bundle: &|id| context.db.read(|reader| reader.bundle(id)).ok().flatten().flatten(),
            recorded_end: recorded_end.as_ref(),
        };
        report.evidence = Some(keeper.keep(&witness));
    }
    (leaves.saves, leaves.image) = (span.saves, judged.take_image());
    // Only now: an edited row must not hide what the replay found.
    let is_clean = matches!(judged.verdict, Verdict::Verified | Verdict::Partial(_));
    match span.loads().filter(|_| is_clean) {
        Some(loaded) => Ok(links::broken_before(context, planned, handover, loaded)?.unwrap_or(judged.verdict)),
        None => Ok(judged.verdict),
    }
}

/// The image that the replay of the span before gave.
fn chained<'a>(
    handover: &'a Handover,
    id: &SpanId,
    recorded: Hash256,
    report: &mut SpanReport,
) -> Result<Beginning<'a>, Verdict> {
    let Some(image) = &handover.image else {
        let Handover { start, verdict, .. } = *handover;
        return Err(Verdict::Unverifiable(Unverifiable::ChainBroken { start, verdict }));
    };
    if handover.saves != Some(recorded) {
        let saved = handover.saves.map_or_else(|| "none".to_owned(), |saved| saved.to_string());
        let what = format!("load-snapshot names {recorded}, the span before it saved {saved}");
        return Err(Verdict::Unverifiable(Unverifiable::HistoryBroken { position: id.start, what }));
    }
    report.is_base_unproved = image.hash() != recorded;
    Ok(Beginning::Image(image))
}

fn tell(replay: &Replay, report: &mut SpanReport) {
    report.deliveries = replay.deliveries;
    report.syscalls = replay.syscalls;
    report.is_hash_compared = replay.is_hash_compared;
    report.stopped_at = replay.stopped_at;
}
