//! Benchmarks of the inner pieces of a replay: the work for each message, each item and each image.

#![expect(clippy::expect_used, reason = "a bench that cannot go on is to say so and end")]

use std::hint::black_box;
use std::io::Write;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flate2::Compression;
use flate2::write::GzEncoder;
use spanwatch::record::image::Image;
use spanwatch::replay::{NetstringReader, write_netstring};
use spanwatch::transcript::{Item, SpanHasher, canonical, sha256};

const MESSAGES: usize = 1_000;
const SYSCALLS: usize = 100;
const IMAGE_BYTES: usize = 10 << 20;

/// A syscall as vats with durable collections make them.
fn syscall(n: usize) -> String {
    format!(r##"["vatstoreSet","vc.6.sowner {n}","{{\"body\":\"#{{\\\"balance\\\":\\\"+{n}\\\"}}\",\"slots\":[]}}"]"##)
}

fn item() -> String {
    let syscalls: Vec<String> = (0..SYSCALLS).map(|n| format!(r#"{{"s":{},"r":["ok",null]}}"#, syscall(n))).collect();
    format!(
        r##"{{"d":["message","o+0",{{"methargs":{{"body":"#[\"settle\",[7]]","slots":[]}},"result":"p-61"}}],"sc":[{}],"r":{{"status":"ok","metering":{{"computrons":123456}}}}}}"##,
        syscalls.join(",")
    )
}

/// Data that compresses like a heap: gzip reduces it to about a fifth.
fn heap() -> Vec<u8> {
    let mut state = 1_u32;
    let mut heap = Vec::with_capacity(IMAGE_BYTES + 16);
    while heap.len() < IMAGE_BYTES {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let [_, _, few, some] = state.to_le_bytes();
        heap.extend_from_slice(&[0, 0, 0, few & 7, 0x40, 0, some, 0x7f]);
        heap.extend_from_slice(b"\x10\0\0\0\x01\0\0\0");
    }
    heap.truncate(IMAGE_BYTES);
    heap
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("netstring");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let syscalls: Vec<String> = (0..MESSAGES).map(syscall).collect();
    let mut bytes = Vec::new();
    for text in &syscalls {
        write_netstring(&mut bytes, &[b"?[\"syscall\",", text.as_bytes(), b"]"]).expect("in memory");
    }
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut reader = NetstringReader::new(&bytes[..]);
            while let Ok(message) = reader.next_message() {
                black_box(message);
            }
        });
    });
    group.bench_function("write", |bencher| {
        bencher.iter_batched_ref(
            || Vec::with_capacity(2 * bytes.len()),
            |to| {
                for text in &syscalls {
                    write_netstring(&mut *to, &[b"/", text.as_bytes()]).expect("in memory");
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn items(criterion: &mut Criterion) {
    let item = item();
    let mut group = criterion.benchmark_group("item");
    group.throughput(Throughput::Bytes(item.len() as u64));
    group.bench_function("slice", |bencher| {
        bencher.iter(|| Item::parse(black_box(item.as_bytes())).expect("an item"));
    });
    group.bench_function("span hash", |bencher| {
        let mut hasher = SpanHasher::default();
        bencher.iter(|| hasher.add(black_box(item.as_bytes())));
    });
    group.finish();

    let mut group = criterion.benchmark_group("syscall");
    let (one, other) = (syscall(7), syscall(7));
    group.bench_function("compare bytes", |bencher| bencher.iter(|| black_box(&one) == black_box(&other)));
    group.bench_function("compare canonically", |bencher| {
        bencher.iter(|| canonical::canonical(black_box(&one)).ok() == canonical::canonical(black_box(&other)).ok());
    });
    group.finish();
}

fn images(criterion: &mut Criterion) {
    let heap = heap();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&heap).expect("in memory");
    let gzip = encoder.finish().expect("in memory");
    let hash = sha256(&heap);
    let size = Some(heap.len() as u64);
    let mut group = criterion.benchmark_group("image");
    group.throughput(Throughput::Bytes(heap.len() as u64)).sample_size(20);
    group.bench_function("sha256", |bencher| bencher.iter(|| sha256(black_box(&heap))));
    group.bench_function("inflate and prove, bit by bit", |bencher| {
        bencher.iter(|| Image::from_gzip(&gzip[..], hash, size).expect("an image"));
    });
    group.bench_function("inflate and prove, at once", |bencher| {
        bencher.iter(|| Image::from_gzip_in_memory(&gzip, hash, size).expect("an image"));
    });
    group.finish();
}

criterion_group!(pieces, messages, items, images);
criterion_main!(pieces);
