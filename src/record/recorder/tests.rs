//! The ring against a model of its writer, and what comes out of files that a crash or a stranger left.

#![expect(clippy::cast_possible_truncation, reason = "the files of these tests are small")]

use std::cell::RefCell;
use std::collections::HashSet;

use proptest::prelude::*;

use super::ring::*;
use super::*;
use crate::transcript::{SpanHasher, sha256};

/// `makeSimpleCircularBuffer` of `@agoric/telemetry` 0.7.0, byte by byte: what is on the disk, and the header in the writer's memory.
struct Writer {
    file: Vec<u8>,
    arena: u64,
    start: u64,
    end: u64,
    /// Bytes that are still to be written, in order.
    queue: std::collections::VecDeque<(usize, u8)>,
}

impl Writer {
    fn new(arena: u64) -> Self {
        let mut writer = Self { file: Vec::new(), arena, start: 0, end: 0, queue: Default::default() };
        writer.file = writer.header().to_vec();
        writer.file.resize(32 + arena as usize, 0);
        writer
    }

    fn header(&self) -> [u8; 32] {
        let mut header = [0; 32];
        header[..8].copy_from_slice(b"AG-SLOG!");
        for (at, number) in [(8, self.arena), (16, self.start), (24, self.end)] {
            header[at..at + 8].copy_from_slice(&number.to_be_bytes());
        }
        header
    }

    fn length_at_start(&self) -> Option<u64> {
        // Full looks like empty.
        if self.start == self.end {
            return None;
        }
        let byte = |at: u64| self.file.get(32 + ((self.start + at) % self.arena) as usize).copied().unwrap_or(0);
        Some((0..8).fold(0, |number, at| number << 8 | u64::from(byte(at))))
    }

    /// Queues the bytes of a record and then those of the header.
    fn write(&mut self, text: &str) {
        self.settle();
        let mut record = (text.len() as u64 + 1).to_be_bytes().to_vec();
        record.push(b'\n');
        record.extend_from_slice(text.as_bytes());
        let bytes = record.len() as u64;
        if bytes > self.arena {
            return;
        }
        let end = self.end;
        let capacity = if self.start <= end { self.arena - end + self.start } else { self.start - end };
        let mut overlap = i128::from(bytes) - i128::from(capacity);
        while overlap > 0 {
            let Some(length) = self.length_at_start() else { break };
            let total = 8 + u128::from(length);
            self.start = ((u128::from(self.start) + total) % u128::from(self.arena)) as u64;
            overlap -= i128::try_from(total).expect("small");
        }
        let first = if self.start < end { bytes.min(self.arena - end) } else { bytes };
        for (at, byte) in (0..bytes).zip(record) {
            let offset = if at < first { end + at } else { at - first };
            self.queue.push_back((32 + offset as usize, byte));
        }
        self.end = (end + bytes) % self.arena;
        self.queue.extend(self.header().into_iter().enumerate());
    }

    fn step(&mut self, bytes: usize) {
        for _ in 0..bytes {
            let Some((at, byte)) = self.queue.pop_front() else { return };
            if self.file.len() <= at {
                self.file.resize(at + 1, 0);
            }
            self.file[at] = byte;
        }
    }

    fn settle(&mut self) {
        self.step(usize::MAX);
    }

    /// The rest is never written; the next writer begins with the header on the disk.
    fn crash(&mut self) {
        self.queue.clear();
        let number = |at: usize| u64::from_be_bytes(self.file[at..at + 8].try_into().expect("8 bytes"));
        (self.start, self.end) = (number(16) % self.arena, number(24) % self.arena);
    }
}

/// A file that a writer goes on with between any two reads.
struct Busy<'a> {
    writer: &'a RefCell<Writer>,
    texts: &'a RefCell<Vec<String>>,
    bytes_a_read: usize,
}

impl ReadAt for Busy<'_> {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut writer = self.writer.borrow_mut();
        if writer.queue.is_empty() && self.bytes_a_read > 0 {
            let mut texts = self.texts.borrow_mut();
            let text = text(texts.len(), self.bytes_a_read % 50);
            writer.write(&text);
            texts.push(text);
        }
        writer.step(self.bytes_a_read);
        (&writer.file[..]).read_at(into, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.writer.borrow().file.len() as u64)
    }
}

fn text(number: usize, padding: usize) -> String {
    let padding = r#"\n{\"\u0000}"#.chars().cycle().take(padding - padding % 11).collect::<String>();
    format!(r#"{{"n":{number},"p":"{padding}"}}"#)
}

fn read_all<S: ReadAt>(source: S) -> Vec<String> {
    let ring = Ring::open(source).expect("a ring");
    let mut places = Vec::new();
    ring.for_each(|_, place| {
        places.push(place);
        ControlFlow::Continue(())
    })
    .expect("in memory");
    let texts = places.iter().filter_map(|place| ring.text(place).expect("in memory"));
    texts.map(|text| String::from_utf8(text).expect("text")).collect()
}

#[derive(Debug, Clone)]
enum Act {
    Write {
        padding: usize,
    },
    /// As many bytes of the next record reach the disk.
    Crash {
        padding: usize,
        bytes: usize,
    },
    TearHeader {
        at: usize,
        byte: u8,
    },
    Read {
        bytes_a_read: usize,
    },
}

fn acts() -> impl Strategy<Value = (u64, Vec<Act>)> {
    let act = prop_oneof![
        8 => (0usize..90).prop_map(|padding| Act::Write { padding }),
        1 => (0usize..90, 0usize..140).prop_map(|(padding, bytes)| Act::Crash { padding, bytes }),
        1 => (8usize..32, any::<u8>()).prop_map(|(at, byte)| Act::TearHeader { at, byte }),
        2 => (0usize..120).prop_map(|bytes_a_read| Act::Read { bytes_a_read }),
    ];
    (60u64..700, prop::collection::vec(act, 1..40))
}

fn run(arena: u64, acts: &[Act]) {
    let writer = RefCell::new(Writer::new(arena));
    let texts = RefCell::new(Vec::new());
    // The records in the header's window, as long as nothing disturbed the writer.
    let mut window: Option<Vec<String>> = Some(Vec::new());
    for act in acts {
        match act {
            Act::Write { padding } => {
                let text = text(texts.borrow().len(), *padding);
                writer.borrow_mut().write(&text);
                writer.borrow_mut().settle();
                texts.borrow_mut().push(text.clone());
                if let Some(window) = &mut window {
                    window.push(text);
                    let mut room = arena;
                    let from = window.iter().rposition(|text| {
                        let bytes = text.len() as u64 + 9;
                        let is_out = bytes > room;
                        room = room.saturating_sub(bytes);
                        is_out
                    });
                    window.drain(..from.map_or(0, |from| from + 1));
                }
            }
            Act::Crash { padding, bytes } => {
                let text = text(texts.borrow().len(), *padding);
                writer.borrow_mut().write(&text);
                writer.borrow_mut().step(*bytes);
                writer.borrow_mut().crash();
                texts.borrow_mut().push(text);
                window = None;
            }
            Act::TearHeader { at, byte } => {
                let mut torn = writer.borrow().file.clone();
                torn[*at] = *byte;
                if u64::from_be_bytes(torn[8..16].try_into().expect("8 bytes")) <= 1 << 12 {
                    let known: HashSet<String> = texts.borrow().iter().cloned().collect();
                    let is_true = read_all(&torn[..]).iter().all(|text| known.contains(text));
                    // With another end a record that a crash left half written is like any other, and with another size of the arena
                    // a wrapped one too.
                    assert!(is_true || *at < 16 || *at >= 24 && window.is_none());
                }
            }
            Act::Read { bytes_a_read } => {
                let read = read_all(Busy { writer: &writer, texts: &texts, bytes_a_read: *bytes_a_read });
                let known: HashSet<String> = texts.borrow().iter().cloned().collect();
                for text in &read {
                    assert!(known.contains(text), "{text} was never written");
                }
                // Beside a record that was not wrapped, a wrapped one may have two readings.
                let is_ambiguous = writer.borrow().file.len() as u64 > 32 + arena;
                if *bytes_a_read == 0 && !is_ambiguous {
                    let read: HashSet<&String> = read.iter().collect();
                    let is_full = window.iter().flatten().map(|text| text.len() as u64 + 9).sum::<u64>() == arena;
                    // In a full ring the oldest record begins at the header's end.
                    for text in window
                        .iter()
                        .flatten()
                        .skip(usize::from(is_full))
                        .filter(|text| is_intact(&writer.borrow(), text))
                    {
                        assert!(read.contains(text), "{text} was not found");
                    }
                } else if *bytes_a_read > 0 {
                    window = None;
                }
            }
        }
    }
}

/// Whether a record lies in the file whole, in one piece or wrapped: the writer loses some itself where it does not wrap one.
fn is_intact(writer: &Writer, text: &str) -> bool {
    let arena = &writer.file[32..32 + writer.arena as usize];
    let twice: Vec<u8> = arena.iter().chain(arena).copied().collect();
    let record = [&(text.len() as u64 + 1).to_be_bytes()[..], b"\n", text.as_bytes()].concat();
    twice.windows(record.len()).any(|window| window == record)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12_000, ..ProptestConfig::default() })]

    /// Each text that is read was written, and each record in the header's window is found, also those that a collapsed window hides.
    #[test]
    fn only_what_was_written_is_read((arena, acts) in acts()) {
        run(arena, &acts);
    }
}

#[test]
fn any_bytes_end_the_reading() {
    proptest!(|(mut bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(b'\n'), Just(b'{'), Just(b'}'), any::<u8>()], 0..600))| {
        bytes.splice(..0, *b"AG-SLOG!\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07");
        read_all(&bytes[..]);
    });
}

/// A ring of the layout that 0.6.2 and 0.7.0 share, by hand: the second record wraps, the header's start lies in mid-record.
#[test]
fn a_ring_made_by_hand() {
    let one = b"\0\0\0\0\0\0\0\x09\n{\"a\":12}";
    let two = b"\0\0\0\0\0\0\0\x08\n{\"b\":3}";
    let arena = [&two[10..], &one[..], &two[..10]].concat();
    let header = [&b"AG-SLOG!\0\0\0\0\0\0\0\x21"[..], b"\0\0\0\0\0\0\0\x09", b"\0\0\0\0\0\0\0\x06"].concat();
    assert_eq!(arena.len(), 33);
    let file = [header, arena].concat();
    // The record at the header's end could be half written.
    assert_eq!(read_all(&file[..]), [r#"{"b":3}"#]);
    let mut moved = file.clone();
    moved[31] = 23;
    assert_eq!(read_all(&moved[..]), [r#"{"a":12}"#]);
    moved[31] = 9;
    assert_eq!(read_all(&moved[..]), [r#"{"b":3}"#, r#"{"a":12}"#]);
    // A header that says more than the file holds.
    assert_eq!(read_all(&moved[..60]), [r#"{"a":12}"#]);
}

#[test]
fn what_is_no_ring_is_refused() {
    let of = |bytes: &[u8]| Ring::open(bytes).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(of(b"").contains("0 bytes"), "{}", of(b""));
    assert!(of(&[b'x'; 40]).contains("AG-SLOG!"));
    let large = [&b"AG-SLOG!"[..], &(ARENA_BYTES_MAX + 1).to_be_bytes(), &[0; 16]].concat();
    assert!(of(&large).contains("arena"), "{}", of(&large));
    assert!(read_all(&[&b"AG-SLOG!"[..], &[0; 24]].concat()[..]).is_empty());
}

/// Entries as a slog file has them, one a line; those of [`ENTRIES`] are one delivery with two syscalls.
fn recorder_of(lines: &[&str]) -> Recorder {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    lines.iter().for_each(|line| writeln!(file, "{line}").expect("write"));
    let files = RecorderFiles { is_off: true, slogs: vec![file.path().to_owned()], ..RecorderFiles::default() };
    Recorder::open(Path::new("/no/such/db"), &files, |_, _| true).expect("readable")
}

const ENTRIES: [&str; 6] = [
    r#"{"type":"deliver","crankNum":7,"vatID":"v3","deliveryNum":6,"replay":false,"vd":["message","o+0",{"x": 1.0}],"time":1}"#,
    r#"{"type":"syscall","vatID":"v3","deliveryNum":6,"syscallNum":0,"replay":false,"vsc":["vatstoreGet","\u00e9"]}"#,
    r#"{"type":"syscall-result","vatID":"v3","deliveryNum":6,"syscallNum":0,"replay":false,"vsr":["ok",null]}"#,
    r#"{"type":"syscall","vatID":"v3","deliveryNum":6,"syscallNum":1,"replay":false,"vsc":["exit"]}"#,
    r#"{"type":"syscall-result","vatID":"v3","deliveryNum":6,"syscallNum":1,"replay":false,"vsr":["ok","b"]}"#,
    r#"{"type":"deliver-result","vatID":"v3","deliveryNum":6,"replay":false,"dr":["ok",null,{"allocate":1,"compute":123}]}"#,
];
const ITEM: &str = r#"{"d":["message","o+0",{"x": 1.0}],"sc":[{"s":["vatstoreGet","\u00e9"],"r":["ok",null]},{"s":["exit"],"r":["ok","b"]}],"r":{"status":"ok","metering":{"computrons":123}}}"#;

/// Whether the span `[5, 8)` of v3, with `ITEM` between `load-snapshot` and `save-snapshot`, comes out of entries.
fn is_found(lines: &[&str]) -> bool {
    let (loads, saves) = (sha256(b"one"), sha256(b"two"));
    let load = format!(r#"{{"d":["load-snapshot",{{"snapshotID":"{loads}"}}],"sc":[],"r":{{"status":"ok"}}}}"#);
    let save = format!(r#"{{"d":["save-snapshot"],"sc":[],"r":{{"status":"ok","snapshotID":"{saves}"}}}}"#);
    let mut hasher = SpanHasher::default();
    [&load, ITEM, &save].iter().for_each(|item| hasher.add(item.as_bytes()));
    let span = SpanId { vat: VatId::new("v3"), start: 5, end: 8 };
    let hints = Hints { loads: Some(loads), saves: Some(saves), ..Hints::default() };
    let recorder = recorder_of(lines);
    match recorder.items(&span, hasher.finish(), hints) {
        Ok(items) => {
            assert_eq!(items.iter().nth(1), Some(ITEM.as_bytes()));
            assert!(recorder.may_have(&span, 0));
            true
        }
        Err(Miss::Absent) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn an_item_is_put_together_byte_for_byte() {
    assert!(is_found(&ENTRIES));
    for (missing, entry) in ENTRIES.iter().enumerate() {
        let mut lines = ENTRIES.to_vec();
        lines.remove(missing);
        assert!(!is_found(&lines), "without {entry}");
    }
}

#[test]
fn entries_of_a_replay_and_of_other_vats_are_passed_over() {
    let replayed: Vec<String> =
        ENTRIES.iter().map(|line| line.replace(r#""replay":false"#, r#""replay":true"#)).collect();
    assert!(!is_found(&replayed.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut lines = ENTRIES.to_vec();
    lines.insert(2, r#"{"type":"deliver","vatID":"v4","deliveryNum":6,"replay":false,"vd":["message"]}"#);
    lines.insert(0, "no JSON");
    lines.insert(4, r#"{"type":"console","vatID":"v3","deliveryNum":6,"args":[]}"#);
    assert!(is_found(&lines));
}

/// A position comes again after a crank that was rolled back, or with a block that is executed again: the hash decides, whichever is last.
#[test]
fn the_hash_decides_among_attempts() {
    let other: Vec<String> = ENTRIES.iter().map(|line| line.replace("123", "124")).collect();
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    assert!(!is_found(&other));
    assert!(is_found(&[&other[..], &ENTRIES].concat()));
    assert!(is_found(&[&ENTRIES, &other[..]].concat()));
    assert!(is_found(&[&other[..4], &ENTRIES].concat()), "an attempt that never ended");
}

#[test]
fn a_gzip_file_is_read_as_well() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    ENTRIES.iter().for_each(|line| writeln!(encoder, "{line}").expect("in memory"));
    file.write_all(&encoder.finish().expect("in memory")).expect("write");
    let files = RecorderFiles { is_off: true, slogs: vec![file.path().to_owned()], ..RecorderFiles::default() };
    let recorder = Recorder::open(Path::new("/no/such/db"), &files, |_, _| true).expect("readable");
    let mut hasher = SpanHasher::default();
    hasher.add(b"first");
    hasher.add(ITEM.as_bytes());
    let span = SpanId { vat: VatId::new("v3"), start: 5, end: 7 };
    let hints = Hints { items: [(5, b"first".to_vec())].into(), ..Hints::default() };
    assert_eq!(recorder.items(&span, hasher.finish(), hints).expect("the items").len(), 2);
}

/// The combinations of many attempts are limited.
#[test]
fn a_search_ends() {
    let mut lines = Vec::new();
    for position in 6..40 {
        for attempt in 0..4 {
            let here = format!(r#""vatID":"v3","deliveryNum":{position},"#);
            lines.push(format!(r#"{{"type":"deliver",{here}"vd":[{attempt}]}}"#));
            lines.push(format!(r#"{{"type":"deliver-result",{here}"dr":["ok",null,{{"compute":{attempt}}}]}}"#));
        }
    }
    let recorder = recorder_of(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let span = SpanId { vat: VatId::new("v3"), start: 5, end: 40 };
    let hints = Hints { items: [(5, b"first".to_vec())].into(), ..Hints::default() };
    assert!(matches!(recorder.items(&span, sha256(b"none of them"), hints), Err(Miss::Absent)));
}

#[test]
fn the_end_of_a_span_may_be_any_number() {
    let here = r#""vatID":"v3","deliveryNum":6,"#;
    let lines = [
        format!(r#"{{"type":"deliver",{here}"vd":[1]}}"#),
        format!(r#"{{"type":"deliver-result",{here}"dr":["ok",null,{{"compute":1}}]}}"#),
    ];
    let recorder = recorder_of(&lines.each_ref().map(String::as_str));
    let began = std::time::Instant::now();
    for (end, expected) in [(8, true), (9, false), (u64::MAX, false)] {
        let span = SpanId { vat: VatId::new("v3"), start: 5, end };
        assert_eq!(recorder.may_have(&span, 0), expected, "{end}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(1), "each position was looked up");
}

/// An arena full of plausible lengths that each reach past its end: a second look at each would read 64 MiB.
#[test]
fn lengths_that_cross_the_end_are_looked_at_a_limited_number_of_times() {
    let arena: u64 = 1 << 20;
    let mut file = vec![0; 32];
    file[..8].copy_from_slice(b"AG-SLOG!");
    file[8..16].copy_from_slice(&arena.to_be_bytes());
    while file.len() < 32 + arena as usize {
        file.extend_from_slice(&(arena / 2).to_be_bytes());
        file.extend_from_slice(b"\n{");
    }
    file.resize(32 + 2 * arena as usize, 0);
    let ring = ring::Ring::open(&file[..]).expect("a ring");
    let mut records = 0;
    ring.for_each(|_, _| {
        records += 1;
        ControlFlow::Continue(())
    })
    .expect("read");
    assert_eq!(records, 0);
    assert_eq!(ring.spills_left(), 0);
}
