//! How long reading and comparing heap images takes, and how much memory.
//!
//! `measure-heap RUNS RECORDED REPLAYED`: does what `spanwatch snapshot diff` does, so many times, and prints the median of
//! each part with the fastest and the slowest, and the peak of resident memory. `scripts/measure-heap.sh` makes images of
//! several sizes and runs it on them.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a tool for developers")]

use std::time::{Duration, Instant};

use spanwatch::heap::Heap;
use spanwatch::heap::census::only;
use spanwatch::heap::diff::{compare, deltas, tell};
use spanwatch::heap::fingerprint::fingerprint;
use spanwatch::heap::source::Source;

fn main() {
    let usage = "measure-heap RUNS RECORDED REPLAYED";
    let mut arguments = std::env::args().skip(1);
    let runs: usize = arguments.next().and_then(|text| text.parse().ok()).filter(|runs| *runs > 0).expect(usage);
    let (recorded, replayed) = (arguments.next().expect(usage), arguments.next().expect(usage));
    let mut times: [Vec<Duration>; 6] = Default::default();
    let (mut bytes, mut said) = (0, String::new());
    for _ in 0..runs {
        let start = Instant::now();
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
        let parts = [opened, read - opened, compared - read, all - compared, all];
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
    let start = Instant::now();
    let _ = fingerprint(&heap);
    times[5].push(start.elapsed());

    println!("{recorded}\n{replayed}\n  {:.1} MB in both; {said}", bytes as f64 / 1e6);
    let names = ["read and hash the files", "parse both", "compare", "put in words", "all", "fingerprint of one"];
    for (name, times) in names.into_iter().zip(&mut times) {
        times.sort_unstable();
        let seconds = |at: usize| times.get(at).map_or(0.0, Duration::as_secs_f64);
        let (least, median, most) = (seconds(0), seconds(times.len() / 2), seconds(times.len() - 1));
        let speed =
            if name == "parse both" { format!(", {:.0} MB/s", bytes as f64 / 1e6 / median) } else { String::new() };
        println!("  {name:<24} {median:.3} s ({least:.3} to {most:.3}){speed}");
    }
    println!("  peak of resident memory  {:.0} MB", peak as f64 * 1024.0 / 1e6);
}

/// What the process has had in memory at most (`VmHWM`).
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
