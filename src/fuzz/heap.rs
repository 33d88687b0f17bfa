//! Heap images: everything that reads one.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::choices::Choices;
use super::forge::Forger;
use crate::forensics::source::{Source, read_file};
use crate::heap::census::{Census, only};
use crate::heap::diff::{Likeness, compare, deltas, tell};
use crate::heap::fingerprint::fingerprint;
use crate::heap::naming::Names;
use crate::heap::{Heap, query};
use crate::transcript::Hash256;

/// The image that others are forged from: `tests/heap/program.js` in a bare worker.
static ORIGINAL: &[u8] = include_bytes!("../../fuzz/program.xss.zst");
/// Names another image.
const ORIGINAL_VARIABLE: &str = "SPANWATCH_FUZZ_IMAGE";

struct Original {
    heap: Heap,
    print: Hash256,
    forger: Forger,
}

static BASE: LazyLock<Original> = LazyLock::new(|| {
    let bytes = match std::env::var(ORIGINAL_VARIABLE) {
        Ok(name) => Source::open(&name).expect(ORIGINAL_VARIABLE).bytes,
        Err(_) => read_file("program.xss.zst", ORIGINAL).expect("it is in the repository"),
    };
    let heap = Heap::read(bytes).expect("an engine wrote it");
    Original { print: fingerprint(&heap), forger: Forger::of(&heap), heap }
});

/// An image that begins with an odd byte is given after it; otherwise choices are, for changes to an image that an engine wrote. Whatever is
/// read as an image can be counted, named, looked at, and compared with the other; and the comparison and the fingerprint, which
/// share no rule, agree.
pub(super) fn heap(input: &[u8]) {
    let mut choices = Choices::new(input);
    let base = &*BASE;
    let picks = match choices.byte() % 2 {
        0 => [choices.word(), choices.word()],
        _ => [0, 1],
    };
    let image = if input.first().is_some_and(|first| first % 2 == 1) {
        choices.rest().to_vec()
    } else {
        let mut image = base.heap.bytes().to_vec();
        base.forger.forge(&mut image, &mut choices);
        image
    };
    match Heap::read(image) {
        Ok(heap) => exercise(&heap, base, picks),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn exercise(heap: &Heap, base: &Original, picks: [u32; 2]) {
    let names = Names::of(heap);
    let print = fingerprint(heap);
    let mut text = format!("{:?}", Census::of(heap, &names, 5));
    let comparison = compare(&base.heap, heap);
    let told = tell(&comparison, 20);
    for place in told.differences.iter().chain(&told.traces) {
        write!(text, "{place}").expect("memory");
    }
    write!(text, "{:?}{:?}", deltas(&base.heap, heap), only(&base.heap, heap, 5)).expect("memory");
    if picks[0] % 4 == 1 {
        let _ = tell(&compare(heap, &base.heap), 20);
    }
    for pick in picks {
        let node = 1 + pick % heap.slot_count().max(1);
        let object = query::look(heap, &names, node, 20);
        let _ = query::find(heap, &names, &object.path);
        write!(text, "{object:?}{:?}", query::retainers(heap, &names, node, 20)).expect("memory");
    }
    assert!(!text.is_empty());
    assert_eq!(comparison.likeness == Likeness::Different, print != base.print, "{:?}", comparison.likeness);
}
