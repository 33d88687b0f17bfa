//! Throws damaged and forged heap images at everything that reads them.
//!
//! `fuzz-heap MINUTES SEED DIRECTORY IMAGE…`: takes real images, changes each a little and calls what `spanwatch snapshot`
//! calls: read, count, fingerprint, compare with the original, look at objects, ask who keeps them. Nothing may panic, take
//! longer than [`SECONDS_MAX`], or hold more memory than a small multiple of the image ([`MEMORY_FACTOR_MAX`]); and the
//! comparison and the fingerprint, which know nothing of each other, must agree. What does not hold is kept in the directory, and
//! the program ends with 1. The same seed makes the same changes.
//!
//! Most changes are of a sort that keeps an image valid (see [`Forger`]): a reader that refuses everything would pass any
//! test of what lies behind it.

#![expect(clippy::expect_used, reason = "a tool for developers")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use spanwatch::heap::census::{Census, only};
use spanwatch::heap::diff::{Likeness, compare, deltas, tell};
use spanwatch::heap::fingerprint::fingerprint;
use spanwatch::heap::naming::Names;
use spanwatch::heap::source::Source;
use spanwatch::heap::{Heap, query};
use spanwatch::transcript::Hash256;

/// No image may keep a processor longer. The clock would count what other processes did meanwhile.
const SECONDS_MAX: f64 = 20.0;
/// What is held for an image at once, its own bytes not counted, may be so many times its size.
const MEMORY_FACTOR_MAX: f64 = 24.0;
/// The engine's own limits are far above what any of these images needs.
const ADDRESS_SPACE: u64 = 4 << 30;

/// Counts what is allocated.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn note(more: usize, less: usize) {
    let held = HELD.fetch_add(more, Relaxed) + more - less.min(HELD.load(Relaxed) + more);
    HELD.fetch_sub(less, Relaxed);
    PEAK.fetch_max(held, Relaxed);
}

#[expect(unsafe_code, reason = "an allocator can be counted in no other way")]
// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller keeps the promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller keeps the promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller keeps the promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: the caller keeps the promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut next = self.0;
        next = (next ^ (next >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        next = (next ^ (next >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        next ^ (next >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).expect("small")
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).expect("half of it")
    }

    /// A number that is likely to be at the edge of something.
    fn edge(&mut self, around: usize) -> u64 {
        let around = around as u64;
        match self.below(12) {
            0 => 0,
            1 => 1,
            2 => around,
            3 => around.wrapping_add(1),
            4 => around.wrapping_sub(1),
            5 => u64::from(u32::MAX),
            6 => u64::MAX,
            7 => 1 << 31,
            8 => self.next(),
            9 => u64::from(self.word()),
            _ => self.next() % (around + 2),
        }
    }
}

/// Changes images. Knows the layout just well enough to aim.
struct Forger {
    blocks: Range<usize>,
    heap: Range<usize>,
    stack: Range<usize>,
    tables: Vec<Range<usize>>,
    /// Where each atom begins.
    atoms: Vec<usize>,
    keys: usize,
}

const SLOT: usize = 32;

impl Forger {
    fn of(heap: &Heap) -> Self {
        let range = |tag: &str| heap.atoms().iter().find(|atom| atom.tag == tag).expect("all are there").range.clone();
        Self {
            blocks: range("BLOC"),
            heap: range("HEAP"),
            stack: range("STAC"),
            tables: ["CREA", "KEYS", "NAME", "SYMB"].map(range).to_vec(),
            atoms: heap.atoms().iter().map(|atom| atom.range.start - 8).chain([0]).collect(),
            keys: range("KEYS").len() / 8,
        }
    }

    /// Some changes to an image.
    fn forge(&self, image: &mut Vec<u8>, random: &mut Random) {
        let count = 1 << random.below(5);
        for _ in 0..count {
            match random.below(32) {
                0 => {
                    let at = random.below(image.len());
                    image[at] ^= 1 << random.below(8);
                }
                1 => {
                    let at = *self.atoms.get(random.below(self.atoms.len())).expect("an atom");
                    let size = u32::try_from(random.edge(image.len()) & 0xffff_ffff).expect("four bytes");
                    put(image, at, &size.to_be_bytes());
                }
                2 => {
                    let table = &self.tables[random.below(self.tables.len())];
                    let at = table.start + random.below(table.len() / 8) * 8;
                    put(image, at, &random.edge(self.slots()).to_le_bytes());
                }
                3 if random.below(8) == 0 => {
                    let keep = random.below(image.len());
                    image.truncate(keep);
                }
                4 => {
                    let at = self.blocks.start + random.below(self.blocks.len() / 8) * 8;
                    put(image, at, &random.edge(self.blocks.len()).to_le_bytes());
                }
                5..=8 => self.content(image, random),
                _ => self.slot(image, random),
            }
        }
    }

    fn slots(&self) -> usize {
        self.heap.len() / SLOT
    }

    /// Changes bytes of a chunk that are no padding and no head: texts, code, numbers, items.
    fn content(&self, image: &mut [u8], random: &mut Random) {
        let at = self.blocks.start + random.below(self.blocks.len());
        for at in at..(at + 1 + random.below(4)).min(self.blocks.end) {
            if let Some(byte) = image.get_mut(at).filter(|byte| **byte != 0) {
                *byte = u8::try_from(random.below(255) + 1).expect("a byte");
            }
        }
    }

    fn slot(&self, image: &mut [u8], random: &mut Random) {
        let count = self.slots();
        let index = match random.below(16) {
            0 => None,
            _ => Some(random.below(count)),
        };
        let at = match index {
            Some(index) => self.heap.start + index * SLOT,
            None => self.stack.start + random.below(self.stack.len() / SLOT) * SLOT,
        };
        let index = index.unwrap_or(count);
        let Some(slot) = image.get(at..at + SLOT).map(<[u8]>::to_vec) else { return };
        let word = |slot: &[u8], at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes"));
        match random.below(16) {
            0 => put(image, at, &random.edge(count).to_le_bytes()),
            1 => put(image, at + 8, &[u8::try_from(random.below(58)).expect("a byte").wrapping_sub(1)]),
            2 | 3 => put(image, at + 9, &[1 << random.below(7)]),
            4 => put(image, at + 9, &[slot[9] ^ 1]),
            5 | 6 => put(image, at + 12, &u32::try_from(random.below(self.keys)).expect("few").to_le_bytes()),
            7 => put(image, at + 12, &random.word().to_le_bytes()),
            8 => put(image, at + 16 + 8 * random.below(2), &random.edge(count).to_le_bytes()),
            // References back to what a walk has met before may be changed without upsetting the order of slots.
            9..=11 => {
                let half = at + 16 + 8 * random.below(2);
                let old = word(image, half);
                if old > 0 && old < index as u64 && slot[8] > 9 {
                    put(image, half, &(1 + random.next() % index.max(1) as u64).to_le_bytes());
                }
            }
            12 => put(image, at + 16, &random.next().to_le_bytes()),
            // Kinds whose values have the same form.
            13 => {
                const ALIKE: [&[u8]; 9] = [
                    &[27, 33],
                    &[35, 37],
                    &[14, 15, 16],
                    &[31, 38, 42],
                    &[3, 7],
                    &[4, 21, 22, 54, 39],
                    &[0, 1, 255, 12, 20, 48],
                    &[36, 10, 28, 29],
                    &[45, 46, 52, 53],
                ];
                if let Some(alike) = ALIKE.iter().find(|alike| alike.contains(&slot[8])) {
                    put(image, at + 8, &[alike[random.below(alike.len())]]);
                }
            }
            // What another slot has.
            _ => {
                let from = self.heap.start + random.below(index.min(count)) * SLOT;
                let Some(other) = image.get(from..from + SLOT).map(<[u8]>::to_vec) else { return };
                put(image, at + 8, &other[8..]);
            }
        }
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// How far an image got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused,
    Read(Likeness),
    /// The fingerprint does not say the same as the comparison.
    Disagreement(Likeness),
}

fn exercise(image: Vec<u8>, original: &Heap, print: Hash256, random: &mut Random) -> Outcome {
    let heap = match Heap::read(image) {
        Ok(heap) => heap,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return Outcome::Refused;
        }
    };
    let names = Names::of(&heap);
    let census = Census::of(&heap, &names, 5);
    let own_print = fingerprint(&heap);
    let mut text = format!("{census:?}{own_print}");
    let comparison = compare(original, &heap);
    let told = tell(&comparison, 20);
    for place in told.differences.iter().chain(&told.traces) {
        write!(text, "{place}").expect("memory");
    }
    write!(text, "{:?}{:?}", deltas(original, &heap), only(original, &heap, 5)).expect("memory");
    let likeness = comparison.likeness;
    if random.below(4) == 0 {
        let _ = tell(&compare(&heap, original), 20);
    }
    for _ in 0..3 {
        let node = u32::try_from(1 + random.below(heap.slot_count() as usize)).expect("a slot");
        let object = query::look(&heap, &names, node, 20);
        write!(text, "{object:?}").expect("memory");
        let _ = query::find(&heap, &names, &object.path);
    }
    let node = u32::try_from(1 + random.below(heap.slot_count() as usize)).expect("a slot");
    write!(text, "{:?}", query::retainers(&heap, &names, node, 20)).expect("memory");
    assert!(!text.is_empty());
    if (likeness == Likeness::Different) == (own_print == print) {
        return Outcome::Disagreement(likeness);
    }
    Outcome::Read(likeness)
}

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let usage = "fuzz-heap MINUTES SEED DIRECTORY IMAGE…";
    let minutes: f64 = arguments.next().and_then(|text| text.parse().ok()).expect(usage);
    let seed: u64 = arguments.next().and_then(|text| text.parse().ok()).expect(usage);
    let directory = PathBuf::from(arguments.next().expect(usage));
    fs::create_dir_all(&directory).expect("a directory for what is found");
    let limit = Rlimit { current: Some(ADDRESS_SPACE), maximum: Some(ADDRESS_SPACE) };
    setrlimit(Resource::As, limit).expect("a limit");
    let originals: Vec<Heap> = arguments
        .map(|name| Heap::read(Source::open(&name).expect("an image").bytes).expect("a whole image"))
        .collect();
    assert!(!originals.is_empty(), "{usage}");
    let prints: Vec<Hash256> = originals.iter().map(fingerprint).collect();
    let forgers: Vec<Forger> = originals.iter().map(Forger::of).collect();

    let start = Instant::now();
    let end = Duration::from_secs_f64(minutes * 60.0);
    let (mut tried, mut refused, mut read, mut found) = (0_u64, 0_u64, [0_u64; 4], 0_u64);
    let (mut worst_factor, mut worst_time) = (0.0_f64, 0.0_f64);
    let mut said = Instant::now();
    while start.elapsed() < end {
        // Each try has a seed of its own, so that one can be had again without those before it.
        let own_seed = seed.wrapping_mul(1_000_003).wrapping_add(tried);
        let mut random = Random(own_seed);
        let which = random.below(originals.len());
        let (original, forger, print) = (&originals[which], &forgers[which], prints[which]);
        let mut image = original.bytes().to_vec();
        forger.forge(&mut image, &mut random);
        let bytes = image.len();
        let kept = image.clone();
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        let began = processor_seconds();
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(image, original, print, &mut random)));
        let took = processor_seconds() - began;
        let factor = PEAK.load(Relaxed).saturating_sub(before) as f64 / bytes.max(1 << 20) as f64;
        let fault = match outcome {
            Err(_) => Some("panic"),
            Ok(_) if took > SECONDS_MAX => Some("slow"),
            Ok(_) if factor > MEMORY_FACTOR_MAX => Some("memory"),
            Ok(Outcome::Disagreement(Likeness::Different)) => Some("different-and-same-fingerprint"),
            Ok(Outcome::Disagreement(_)) => Some("isomorphic-and-other-fingerprint"),
            Ok(Outcome::Refused) => {
                refused += 1;
                None
            }
            Ok(Outcome::Read(likeness)) => {
                read[likeness as usize] += 1;
                None
            }
        };
        worst_factor = worst_factor.max(factor);
        worst_time = worst_time.max(took);
        if let Some(fault) = fault {
            found += 1;
            let path = directory.join(format!("{fault}-{own_seed}.xss"));
            println!("{fault}: try {tried}, {took:.3} s, memory × {factor:.1}: {}", path.display());
            fs::write(&path, kept).expect("room");
            if found > 50 {
                break;
            }
        }
        tried += 1;
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            report(start, tried, refused, &read, found, worst_factor, worst_time);
        }
    }
    report(start, tried, refused, &read, found, worst_factor, worst_time);
    std::process::ExitCode::from(u8::from(found > 0))
}

fn processor_seconds() -> f64 {
    let times = fs::read_to_string("/proc/thread-self/schedstat").expect("procfs");
    let nanoseconds: f64 = times.split(' ').next().and_then(|time| time.parse().ok()).expect("a number");
    nanoseconds / 1e9
}

fn report(start: Instant, tried: u64, refused: u64, read: &[u64; 4], found: u64, factor: f64, time: f64) {
    let [identical, isomorphic, schedule, different] = read;
    println!(
        "{:.1} min: {tried} tried, {refused} refused, read: {identical} identical, {isomorphic} isomorphic, {schedule} GC \
         schedule, {different} different; memory at most × {factor:.1}, time at most {time:.3} s; {found} found",
        start.elapsed().as_secs_f64() / 60.0
    );
}
