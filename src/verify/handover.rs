//! The image that the replay of one span leaves for the replay of the next one.
//!
//! Owns the rule when a span may start from it. A handed image must never stand for another than the recorded one, but where nothing else is
//! left (a chain after a divergence), and the report then says so.

use super::{Context, SpanReport, verify_span};
use crate::plan::{Base, PlannedSpan};
use crate::record::Image;
use crate::transcript::{Hash256, Position};
use crate::verdict::VerdictKind;

/// The image and the verdict that one span hands to the next.
#[derive(Debug)]
pub struct Handover {
    /// The first position of that span.
    pub(super) start: Position,
    /// The kind of its verdict.
    pub(super) verdict: VerdictKind,
    /// The hash in its `save-snapshot`.
    pub(super) saves: Option<Hash256>,
    /// The image that the replay gave, with any hash.
    pub(super) image: Option<Image>,
}

impl Handover {
    /// The handover of a span that has no verdict yet: nothing is left, as after a failure.
    pub(super) fn of_failure(start: Position) -> Self {
        Self { start, verdict: VerdictKind::Failed, saves: None, image: None }
    }

    /// The image at the end of the span, if it has the recorded hash.
    #[must_use]
    pub fn recorded_image(&self) -> Option<&Image> {
        self.image.as_ref().filter(|image| Some(image.hash()) == self.saves)
    }

    /// Whether a span may start from it. An image that serves no span is not worth its memory.
    fn serves(&self, planned: &PlannedSpan) -> bool {
        match &planned.base {
            Base::Chained => true,
            Base::Recorded { row_hash, .. } => row_hash.is_some() && self.image.as_ref().map(Image::hash) == *row_hash,
            Base::Blank | Base::Gone(_) => false,
        }
    }
}

/// Spans of a vat that are verified one after the other, each with what the one before it left.
#[derive(Debug)]
pub struct Chain<'a> {
    context: &'a Context<'a>,
    worker: usize,
    left: Option<Handover>,
}

impl<'a> Chain<'a> {
    /// A chain that begins with nothing; `worker` is the number of the program.
    #[must_use]
    pub fn new(context: &'a Context<'a>, worker: usize) -> Self {
        Self { context, worker, left: None }
    }

    /// Verifies the next span.
    pub fn verify(&mut self, planned: &PlannedSpan) -> SpanReport {
        let handed = self.left.take().filter(|left| left.serves(planned));
        let (report, left) = verify_span(self.context, planned, self.worker, handed.as_ref());
        self.left = Some(left);
        report
    }

    /// Goes on with what the last span of another chain left.
    pub(crate) fn go_on_from(&mut self, other: Chain<'_>) {
        self.left = other.left;
    }

    /// Goes on with nothing.
    pub(crate) fn forget(&mut self) {
        self.left = None;
    }

    /// The handover of the last span.
    #[must_use]
    pub fn left(&self) -> Option<&Handover> {
        self.left.as_ref()
    }

    /// Whether the last span left an image from which a span may start.
    #[must_use]
    pub fn can_start(&self, planned: &PlannedSpan) -> bool {
        self.left.as_ref().is_some_and(|left| left.serves(planned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_db::SpanRow;
    use crate::plan::NoBase;
    use crate::record::{ItemsAt, Origin};
    use crate::transcript::{SpanId, VatId, sha256};

    fn image(content: &[u8]) -> Image {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, content).expect("in memory");
        Image::from_gzip(&encoder.finish().expect("in memory")[..], sha256(content), None).expect("proved")
    }

    fn planned(base: Base) -> PlannedSpan {
        let id = SpanId { vat: VatId::new("v7"), start: 5, end: 9 };
        PlannedSpan {
            row: SpanRow { id, hash: None, is_current: false, incarnation: 0 },
            items_present: 4,
            begins: None,
            ends: None,
            items: ItemsAt::Database,
            base,
            is_asked: true,
            before: None,
        }
    }

    #[test]
    fn a_handed_image_serves_a_chain_or_the_span_that_recorded_it() {
        let recorded =
            |content: &[u8]| Base::Recorded { at: Origin::Database, row_hash: Some(sha256(content)), row_bytes: None };
        let unknown = Base::Recorded { at: Origin::Archive, row_hash: None, row_bytes: None };
        for (base, has_image, expected) in [
            (recorded(b"image"), true, true),
            (recorded(b"image"), false, false),
            (recorded(b"another"), true, false),
            (unknown.clone(), true, false),
            // Without a hash on either side nothing is equal.
            (unknown, false, false),
            (Base::Chained, true, true),
            (Base::Chained, false, true),
            (Base::Blank, true, false),
            (Base::Gone(NoBase::NoSpanBefore), true, false),
        ] {
            let left = Handover { image: has_image.then(|| image(b"image")), ..Handover::of_failure(0) };
            assert_eq!(left.serves(&planned(base.clone())), expected, "{base:?}, with an image: {has_image}");
        }
    }

    #[test]
    fn only_an_image_with_the_recorded_hash_is_the_recorded_one() {
        for (saved, expected) in [(Some(sha256(b"image")), true), (Some(sha256(b"another")), false), (None, false)] {
            let left = Handover { image: Some(image(b"image")), saves: saved, ..Handover::of_failure(0) };
            assert_eq!(left.recorded_image().is_some(), expected, "{saved:?}");
        }
    }
}
