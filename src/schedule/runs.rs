//! Which units are replayed together on one thread, and which of these runs are begun first.
//!
//! Owns the estimate of what a unit takes. All of it depends on the plan and the number of threads alone, never on who is
//! done when: which images are read from the record follows from it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::ops::Range;

use crate::plan::{Base, PlannedSpan, Unit};

/// The number of spans that a run ends with: reports wait for those before them.
pub(super) const SPANS_MAX: usize = 64;

/// What parts of what is left for each thread a run may be, so that none waits long for the last one. Each is tried.
const SHARES: [u64; 2] = [2, 4];

/// How many times as long as reading its first image a run takes at least. Each is tried.
const READINGS: [u64; 4] = [2, 4, 8, 16];

/// What a worker's start takes, in deliveries. This and the next are measured, roughly: a delivery here is 3 ms.
const START: u64 = 20;

/// What saving and loading an image takes, and what reading one takes, in bytes for a delivery.
const IMAGE_BYTES: u64 = 1 << 20;

/// An image of which the record does not say how large it is.
const IMAGE_BYTES_USUAL: u64 = 10 << 20;

/// What a damaged record may say of a span's length or an image's size, and no more: sums of these must not overflow.
const DELIVERIES_MAX: u64 = 1_000_000;
const IMAGE_BYTES_MAX: u64 = 1 << 40;

/// Units that are replayed in order on one thread, in a vat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) units: Range<usize>,
    /// What it takes, in deliveries.
    weight: u64,
}

/// Divides the plan for that many threads: the runs in the order of the plan, and the tasks, each a run with one worker,
/// in the order in which they are begun. The task of run `r` with worker `w` is `r * programs + w`.
pub(super) fn divide(units: &[Unit], programs: usize, jobs: NonZeroUsize) -> (Vec<Run>, Vec<usize>) {
    let chains = chains(units, programs);
    let sizes: Vec<Size> = units.iter().map(Size::of).collect();
    if jobs == NonZeroUsize::MIN {
        // Nobody waits, so each image is read that no span gives, and no other.
        let runs: Vec<Run> = chains.into_iter().map(|units| run(units, &sizes)).collect();
        let order = (0..runs.len() * programs).collect();
        return (runs, order);
    }
    let choices = SHARES.iter().flat_map(|share| READINGS.iter().map(move |readings| (*share, *readings)));
    choices
        .map(|(share, readings)| {
            let runs = cut(&chains, &sizes, jobs, share, readings);
            let weights: Vec<u64> = runs.iter().flat_map(|run| vec![run.weight; programs]).collect();
            let order = order(&weights, jobs);
            (takes(&order, &weights, jobs), runs, order)
        })
        .min_by_key(|(takes, ..)| *takes)
        .map(|(_, runs, order)| (runs, order))
        .unwrap_or_default()
}

/// What a unit is expected to take, in deliveries.
#[derive(Debug, Clone, Copy)]
struct Size {
    spans: usize,
    weight: u64,
    /// For the image that it starts from, if that has to be read.
    reading: u64,
}

impl Size {
    fn of(unit: &Unit) -> Self {
        let weight = |span: &PlannedSpan| {
            let id = &span.row.id;
            let image = image_bytes(&span.base).unwrap_or(IMAGE_BYTES_USUAL) / IMAGE_BYTES;
            START + id.end.saturating_sub(id.start).min(DELIVERIES_MAX) + image
        };
        let reading = unit.first().and_then(|first| image_bytes(&first.base)).unwrap_or(0) / IMAGE_BYTES;
        Self { spans: unit.len(), weight: unit.iter().map(weight).sum(), reading }
    }
}

/// The size of the image that is to be read, if one is.
fn image_bytes(base: &Base) -> Option<u64> {
    match base {
        Base::Recorded { row_bytes, .. } => Some(row_bytes.unwrap_or(IMAGE_BYTES_USUAL).min(IMAGE_BYTES_MAX)),
        Base::Blank | Base::Chained | Base::Gone(_) => None,
    }
}

/// The units that follow one another in a vat.
fn chains(units: &[Unit], programs: usize) -> Vec<Range<usize>> {
    let mut chains: Vec<Range<usize>> = Vec::new();
    for unit in 0..units.len() {
        match chains.last_mut() {
            // With several workers the reports of each unit come worker by worker.
            Some(chain) if programs == 1 && goes_on(&units[unit - 1], &units[unit]) => chain.end = unit + 1,
            _ => chains.push(unit..unit + 1),
        }
    }
    chains
}

/// Whether a unit starts from the image that the one before it leaves.
pub(super) fn goes_on(before: &Unit, unit: &Unit) -> bool {
    before.last().zip(unit.first()).is_some_and(|(before, first)| {
        let (before, row) = (&before.row, &first.row);
        let is_next = before.id.vat == row.id.vat && before.id.end == row.id.start;
        is_next && before.incarnation == row.incarnation && matches!(first.base, Base::Recorded { .. })
    })
}

fn run(units: Range<usize>, sizes: &[Size]) -> Run {
    let reading = sizes[units.start].reading;
    let weight = reading + sizes[units.clone()].iter().map(|size| size.weight).sum::<u64>();
    Run { units, weight }
}

/// Cuts chains into runs that become shorter.
fn cut(chains: &[Range<usize>], sizes: &[Size], jobs: NonZeroUsize, share: u64, readings: u64) -> Vec<Run> {
    let jobs = u64::try_from(jobs.get()).unwrap_or(u64::MAX);
    let mut left: u64 = sizes.iter().map(|size| size.weight).sum();
    let mut runs = Vec::new();
    for chain in chains {
        let mut rest: u64 = sizes[chain.clone()].iter().map(|size| size.weight).sum();
        let mut start = chain.start;
        while start < chain.end {
            let least = readings * sizes[start].reading;
            let most = (left / jobs / share).max(least);
            let (mut end, mut spans, mut weight) = (start, 0, 0);
            while end < chain.end {
                let size = sizes[end];
                let is_full = weight + size.weight / 2 > most || spans + size.spans > SPANS_MAX;
                // What would be left is not worth reading an image for.
                let is_scrap = rest - weight < least / 2 && spans < SPANS_MAX;
                if end > start && is_full && !is_scrap {
                    break;
                }
                (end, spans, weight) = (end + 1, spans + size.spans, weight + size.weight);
            }
            runs.push(run(start..end, sizes));
            (start, rest, left) = (end, rest - weight, left - weight);
        }
    }
    runs
}

/// In which order tasks are begun: that of the plan, as reports come in that order, but each before it is too late for it:
/// before what it takes is much of what each thread has left.
fn order(weights: &[u64], jobs: NonZeroUsize) -> Vec<usize> {
    let jobs = u64::try_from(jobs.get()).unwrap_or(u64::MAX);
    let mut heaviest: BinaryHeap<(u64, Reverse<usize>)> =
        weights.iter().enumerate().map(|(task, weight)| (*weight, Reverse(task))).collect();
    let mut is_begun = vec![false; weights.len()];
    let mut left: u64 = weights.iter().sum();
    let mut first = 0;
    let mut order = Vec::with_capacity(weights.len());
    while let Some((weight, Reverse(heavy))) = heaviest.peek().copied() {
        if is_begun[heavy] {
            heaviest.pop();
            continue;
        }
        while is_begun[first] {
            first += 1;
        }
        let next = if weight.saturating_mul(jobs).saturating_mul(3) / 2 >= left { heavy } else { first };
        is_begun[next] = true;
        left -= weights[next];
        order.push(next);
    }
    order
}

/// When the last of these tasks is done, if the estimates are right.
fn takes(order: &[usize], weights: &[u64], jobs: NonZeroUsize) -> u64 {
    let mut threads: BinaryHeap<Reverse<u64>> = std::iter::repeat_n(Reverse(0), jobs.get().min(order.len())).collect();
    let mut last = 0;
    for task in order {
        let done = threads.pop().map_or(0, |Reverse(free)| free) + weights[*task];
        last = last.max(done);
        threads.push(Reverse(done));
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_db::SpanRow;
    use crate::record::{ItemsAt, Origin};
    use crate::transcript::{SpanId, VatId};

    /// A unit of one span of 80 items, with an image of its own.
    fn unit(vat: &str, number: u64) -> Unit {
        unit_of(vat, number, 80, 10)
    }

    fn unit_of(vat: &str, number: u64, items: u64, mebibytes: u64) -> Unit {
        let id = SpanId { vat: VatId::new(vat), start: number * items, end: (number + 1) * items };
        let row_bytes = Some(mebibytes << 20);
        let base = Base::Recorded { at: Origin::Database, row_hash: None, row_bytes };
        let base = if number == 0 { Base::Blank } else { base };
        let row = SpanRow { id, hash: None, is_current: false, incarnation: 0 };
        let (begins, ends, at) = (None, None, ItemsAt::Database);
        vec![PlannedSpan { row, items_present: items, begins, ends, items: at, base, is_asked: true, before: None }]
    }

    fn threads(jobs: usize) -> NonZeroUsize {
        NonZeroUsize::new(jobs).expect("some")
    }

    /// Some long vats, some short ones, and a heavy one at the end.
    fn history() -> Vec<Unit> {
        let mut units: Vec<Unit> = (0..300).map(|number| unit("v1", number)).collect();
        units.extend((0..3).map(|number| unit("v2", number)));
        units.extend((0..40).map(|number| unit("v3", number)));
        units.extend((0..9).map(|number| unit_of("v4", number, 150, 90)));
        units
    }

    #[test]
    fn each_unit_is_in_one_run_and_each_task_is_begun_once() {
        let units = history();
        for programs in 1..4 {
            for jobs in [1, 2, 3, 8, 64, 1_000] {
                let (runs, order) = divide(&units, programs, threads(jobs));
                let in_runs: Vec<usize> = runs.iter().flat_map(|run| run.units.clone()).collect();
                assert_eq!(in_runs, (0..units.len()).collect::<Vec<_>>());
                let mut tasks = order;
                tasks.sort_unstable();
                assert_eq!(tasks, (0..runs.len() * programs).collect::<Vec<_>>());
                let is_of_one_vat = |run: &Run| {
                    let vat = |unit: usize| &units[unit][0].row.id.vat;
                    run.units.clone().all(|unit| vat(unit) == vat(run.units.start))
                };
                assert!(runs.iter().all(is_of_one_vat), "{runs:?}");
                assert!(programs == 1 || runs.iter().all(|run| run.units.len() == 1), "{runs:?}");
            }
        }
        assert_eq!(divide(&[], 1, threads(2)), (vec![], vec![]));
    }

    #[test]
    fn one_thread_takes_a_vat_at_a_time_in_the_order_of_the_plan() {
        let (runs, order) = divide(&history(), 1, NonZeroUsize::MIN);
        let units: Vec<Range<usize>> = runs.into_iter().map(|run| run.units).collect();
        assert_eq!(units, [0..300, 300..303, 303..343, 343..352]);
        assert_eq!(order, [0, 1, 2, 3]);
    }

    #[test]
    fn runs_become_shorter_but_are_worth_their_images() {
        let units: Vec<Unit> = (0..400).map(|number| unit("v1", number)).collect();
        let (runs, order) = divide(&units, 1, threads(2));
        let lengths: Vec<usize> = runs.iter().map(|run| run.units.len()).collect();
        assert!(lengths[0] == SPANS_MAX && lengths.is_sorted_by(|one, other| one >= other), "{lengths:?}");
        assert!(order.is_sorted(), "{order:?}");
        // A span takes 110: 80 deliveries, its start and its image; reading an image takes 10.
        let lengths = |readings| -> Vec<usize> {
            let chains = chains(&units, 1);
            cut(&chains, &sizes(&units), threads(2), 4, readings).iter().map(|run| run.units.len()).collect()
        };
        assert_eq!(lengths(2).last(), Some(&1));
        let dear = lengths(88);
        assert!(
            dear.split_last().is_some_and(|(last, others)| *last >= 4 && others.iter().all(|length| *length >= 8)),
            "{dear:?}"
        );
    }

    #[test]
    fn a_record_that_lies_about_sizes_is_divided_too() {
        let mut units = history();
        for unit in &mut units {
            unit[0].row.id.end = u64::MAX;
            if let Base::Recorded { row_bytes, .. } = &mut unit[0].base {
                *row_bytes = Some(u64::MAX);
            }
        }
        for jobs in [2, usize::MAX] {
            let (runs, order) = divide(&units, 2, threads(jobs));
            assert_eq!((runs.len(), order.len()), (units.len(), 2 * units.len()));
        }
    }

    fn sizes(units: &[Unit]) -> Vec<Size> {
        units.iter().map(Size::of).collect()
    }

    #[test]
    fn what_is_heavy_is_begun_in_time() {
        let units = history();
        for jobs in [2, 3, 4, 8] {
            let (runs, order) = divide(&units, 1, threads(jobs));
            let weights: Vec<u64> = runs.iter().map(|run| run.weight).collect();
            let least = weights.iter().sum::<u64>() / u64::try_from(jobs).expect("few");
            let takes = takes(&order, &weights, threads(jobs));
            assert!(takes * 100 < least * 105, "{jobs} threads take {takes}, {least} is the least");
        }
        // Until the end is near the plan's order holds, so that reports need not wait.
        let (runs, order) = divide(&units, 1, threads(2));
        let in_order = order.iter().zip(0..).take_while(|(task, at)| *task == at).count();
        assert!(in_order * 2 > runs.len(), "{order:?}");
    }

    #[test]
    fn runs_are_of_spans_that_follow_one_another() {
        let units: Vec<Unit> = (0..100).map(|number| unit("v1", 2 * number)).collect();
        for jobs in 1..4 {
            assert_eq!(divide(&units, 1, threads(jobs)).0.len(), units.len());
        }
    }
}
