//! The thread and the order in which spans are verified.
//!
//! Owns the threads: one for each core, pinned to it together with its worker, as the two alternate. Units of work are independent. The spans of
//! a unit are verified in order on one thread, each with the image that the one before it left ([`Chain`]); so are a few units that follow one
//! another in a vat, which saves reading the image between them. Reports come out in the order of the plan. No verdict may depend on the number
//! of threads or on the thread that finishes first.

mod runs;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::plan::{PlannedSpan, Unit};
use crate::record::image::keep_memory;
use crate::verdict::{Unverifiable, Verdict};
use crate::verify::{Chain, Context, SpanReport};

/// The most threads of a run.
const JOBS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1_023);

/// Replays all units with all workers and hands each report to `report`, in the order of the plan: unit by unit, for
/// each unit worker by worker. Ends early if `report` says so.
pub fn run(
    context: &Context<'_>,
    units: &[Unit],
    jobs: NonZeroUsize,
    mut report: impl FnMut(&SpanReport) -> ControlFlow<()>,
) {
    let jobs = jobs.min(JOBS_MAX);
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

/// Verifies the spans of some of the units in order, each when its report is asked for.
fn run_units<'a>(
    context: &'a Context<'a>,
    units: &'a [Unit],
    which: Range<usize>,
    worker: usize,
) -> impl Iterator<Item = SpanReport> + 'a {
    let mut chain = Chain::new(context, worker);
    let start = which.start;
    units[which].iter().flatten().enumerate().map(move |(at, planned)| {
        let mut report = chain.verify(planned);
        if at == 0 && lacks_image(&report) {
            report = from_image_before(context, units, start, worker, planned, &mut chain).unwrap_or(report);
        }
        report
    })
}

/// Whether a span was not replayed as no image with the recorded hash could be read.
fn lacks_image(report: &SpanReport) -> bool {
    matches!(report.verdict, Verdict::Unverifiable(Unverifiable::BaseDamaged(_)))
}

/// Verifies the first span of a run with the image that the spans before it give: had the cut been elsewhere, one of them would have handed
/// it over, and the place of the cut must not cost a verdict. These spans are replayed for their image alone: no report, no evidence. Where
/// the image of the span before cannot be read either, that of the span before that is made first, for as many spans as a run has.
fn from_image_before(
    context: &Context<'_>,
    units: &[Unit],
    unit: usize,
    worker: usize,
    planned: &PlannedSpan,
    chain: &mut Chain<'_>,
) -> Option<SpanReport> {
    let silent = Context { evidence: None, ..*context };
    let earliest = unit.saturating_sub(runs::SPANS_MAX);
    let mut from = unit;
    while from > earliest && runs::goes_on(&units[from - 1], &units[from]) {
        from -= 1;
        let mut before = Chain::new(&silent, worker);
        let mut has_begun = false;
        for planned in units[from..unit].iter().flatten() {
            if lacks_image(&before.verify(planned)) {
                before.forget();
                break;
            }
            has_begun = true;
        }
        if has_begun {
            return before.can_start(planned).then(|| {
                chain.go_on_from(before);
                chain.verify(planned)
            });
        }
    }
    None
}
