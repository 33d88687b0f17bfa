//! How long reading and comparing heap images takes, and how much memory.
//!
//! `measure-heap RUNS RECORDED REPLAYED`: does what `spanwatch snapshot diff` does, so many times, and prints the median of
//! each part with the fastest and the slowest, in time of the processor and by the clock, and the peak of resident memory. On a
//! machine that is busy otherwise the clock shows the others' work too. `scripts/measure-heap.sh` makes images of
//! several sizes and runs it on them.

#![expect(clippy::expect_used, reason = "a tool for developers")]

use std::time::Instant;

use spanwatch::forensics::source::Source;
use spanwatch::heap::Heap;
use spanwatch::heap::census::only;
use spanwatch::heap::diff::{compare, deltas, tell};
use spanwatch::heap::fingerprint::fingerprint;

fn main() {
    let usage = "measure-heap RUNS RECORDED REPLAYED";
    let mut arguments = std::env::args().skip(1);
    let runs: usize = arguments.next().and_then(|text| text.parse().ok()).filter(|runs| *runs > 0).expect(usage);
    let (recorded, replayed) = (arguments.next().expect(usage), arguments.next().expect(usage));
    let mut times: [Vec<(f64, f64)>; 6] = Default::default();
    let (mut bytes, mut said) = (0, String::new());
    for _ in 0..runs {
        let start = Now::new();
        let (one, other) = (Source::open(&recorded).expect("an image"), Source::open(&replayed).expect("an image"));
        let opened = start.elapsed();
        bytes = one.bytes.len() + other.bytes.len();
        let one = Heap::read(one.bytes).expect("a whole image");
        let other = Heap::read(other.bytes).expect("a whole image");
        let read = start.elapsed();
        let comparison = compare(&one, &other);
        let compared = start.elapsed();
        let told = tell(&comparison, 10);
        let (deltas, only) = (deltas(&one, &other), only(&one, &other, 10));
        let all = start.elapsed();
        let minus = |one: (f64, f64), other: (f64, f64)| (one.0 - other.0, one.1 - other.1);
        let parts = [opened, minus(read, opened), minus(compared, read), minus(all, compared), all];
        times.iter_mut().zip(parts).for_each(|(times, part)| times.push(part));
        said = format!(
            "{}, {} differences, {} counts, {} and {} slots",
            comparison.likeness.label(),
            told.differences_total,
            deltas.len() + only.0.texts.len() + only.1.texts.len(),
            one.slot_count(),
            other.slot_count()
        );
    }
    // The peak is that of comparing; the fingerprint is no part of it.
    let peak = peak_kib();
    let heap = Heap::read(Source::open(&recorded).expect("an image").bytes).expect("a whole image");
    let start = Now::new();
    std::hint::black_box(fingerprint(&heap));
    times[5].push(start.elapsed());

    println!("{recorded}\n{replayed}\n  {:.1} MB in both; {said}", bytes as f64 / 1e6);
    let names = ["read and hash the files", "parse both", "compare", "put in words", "all", "fingerprint of one"];
    for (name, times) in names.into_iter().zip(&times) {
        let shown = |of: fn(&(f64, f64)) -> f64| {
            let mut times: Vec<f64> = times.iter().map(of).collect();
            times.sort_by(f64::total_cmp);
            let at = |at: usize| times.get(at).copied().unwrap_or(0.0);
            (at(times.len() / 2), format!("{:.3} s ({:.3} to {:.3})", at(times.len() / 2), at(0), at(times.len() - 1)))
        };
        let ((median, processor), (_, clock)) = (shown(|time| time.0), shown(|time| time.1));
        let speed =
            if name == "parse both" { format!(", {:.0} MB/s", bytes as f64 / 1e6 / median) } else { String::new() };
        println!("  {name:<24} {processor}, by the clock {clock}{speed}");
    }
    println!("  peak of resident memory  {:.0} MB", peak as f64 * 1024.0 / 1e6);
}

/// A moment, by the processor's time of this thread and by the clock.
struct Now(f64, Instant);

impl Now {
    fn new() -> Self {
        Self(processor_seconds(), Instant::now())
    }

    /// Both times since then.
    fn elapsed(&self) -> (f64, f64) {
        (processor_seconds() - self.0, self.1.elapsed().as_secs_f64())
    }
}

fn processor_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("procfs");
    let nanoseconds: f64 = times.split(' ').next().and_then(|time| time.parse().ok()).expect("a number");
    nanoseconds / 1e9
}

/// What the process has had in memory at most (`VmHWM`).
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
