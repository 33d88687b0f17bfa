//! What two heaps are to each other, where a snapshot's hash differs and both images are at hand.
//!
//! Puts the answer of [`crate::heap`] in a verdict's terms. It must never fail a verdict: what can't be compared is unknown,
//! and says why.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::heap::Heap;
use crate::heap::diff::{Likeness, Told, compare as compare_heaps, tell};
use crate::judge::Judged;
use crate::record::image::Image;
use crate::verdict::{FindingKind, HeapAnswer, HeapLikeness, Verdict};

/// Places that are kept of each sort.
const PLACES: usize = 5;
/// Larger images are not compared here; `spanwatch snapshot diff` does.
const BYTES_MAX: u64 = 256 << 20;

/// Adds the comparison to a divergence in whose first replay the snapshot's hash differs.
pub fn add_to(judged: &mut Judged, recorded: Option<&Image>) {
    let Judged { verdict: Verdict::Diverged(divergence), replays } = judged else { return };
    if !divergence.findings.iter().any(|finding| finding.kind == FindingKind::SnapshotHash) {
        return;
    }
    divergence.heap = Some(Box::new(match (recorded, replays.first().and_then(|replay| replay.image.as_ref())) {
        (Some(recorded), Some(replayed)) => compare(recorded, replayed),
        (None, _) => unknown("the recorded image is not at hand".to_owned()),
        (_, None) => unknown("the replay left no image".to_owned()),
    }));
}

/// Compares two images.
#[must_use]
pub fn compare(recorded: &Image, replayed: &Image) -> HeapAnswer {
    if recorded.bytes().max(replayed.bytes()) > BYTES_MAX {
        return unknown(format!(
            "with more than {BYTES_MAX} bytes they are compared by `spanwatch snapshot diff` alone"
        ));
    }
    // A mistake of ours must not cost the verdict.
    let compared = catch_unwind(AssertUnwindSafe(|| -> Result<HeapAnswer, String> {
        let (recorded, replayed) = (heap_of(recorded, "recorded")?, heap_of(replayed, "replayed")?);
        let comparison = compare_heaps(&recorded, &replayed);
        let Told { differences, differences_total, traces, trace_counts } = tell(&comparison, PLACES);
        Ok(HeapAnswer {
            answer: match comparison.likeness {
                Likeness::Identical | Likeness::Isomorphic => HeapLikeness::Isomorphic,
                Likeness::GcScheduleDiffers => HeapLikeness::GcSchedule,
                Likeness::Different => HeapLikeness::Different,
            },
            places: differences.iter().map(ToString::to_string).collect(),
            places_total: differences_total,
            traces: traces.iter().map(ToString::to_string).collect(),
            trace_kinds: traces.iter().filter_map(|place| place.trace).collect(),
            trace_counts,
            why: None,
        })
    }));
    compared
        .unwrap_or_else(|_| Err("spanwatch has a bug there: please report what it printed".to_owned()))
        .unwrap_or_else(unknown)
}

fn heap_of(image: &Image, which: &str) -> Result<Heap, String> {
    let mut bytes = Vec::with_capacity(usize::try_from(image.bytes()).unwrap_or_default());
    image.copy_to(&mut bytes).map_err(|error| format!("the {which} image can't be read: {error}"))?;
    Heap::read(bytes).map_err(|error| format!("the {which} image can't be read: {error}"))
}

fn unknown(why: String) -> HeapAnswer {
    HeapAnswer { answer: HeapLikeness::Unknown, why: Some(why), ..HeapAnswer::default() }
}
