//! The way of one span: its items are read and proved, its base chosen, the span replayed, judged, and what differs kept as evidence.
//!
//! | step | function | from |
//! |---|---|---|
//! | items, proved by the span's hash | [`Record::items`] | [`crate::record`] |
//! | the order of the items | [`Span::new`] | [`crate::span`] |
//! | the base: bundles, a recorded image, or the image that the span before it left | `base` here, [`Chain`] | [`crate::plan`], [`crate::record`] |
//! | replays, and what they mean together | [`judge`] | [`crate::judge`] |
//! | heaps, where hashes differ | `heaps::add_to` | [`crate::judge`] |
//! | evidence | [`Keeper::keep`] | [`crate::evidence`] |
//! | the rows around it | `links` | [`crate::history`] |
//!
//! Owns [`SpanReport`]. A mistake of ours in one span must never cost the verdict of another, and nothing after the replay may hide what
//! the replay found.

mod handover;
mod links;
mod report;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::audit;
use crate::evidence::{Keeper, Witness};
use crate::judge::{Judged, Repeats, heaps, judge};
use crate::kernel_db::VatOptions;
use crate::plan::{Base, PlannedSpan, Survey};
use crate::record::bundle::CodeBundle;
use crate::record::{Image, Origin, Record, SpanText};
use crate::replay::{Limits, ReplayStart, WorkerProgram};
use crate::span::{BaseKind, Beginning, Span, SpanBegins, blank_beginning};
use crate::transcript::Hash256;
use crate::verdict::{Failure, Unverifiable, Verdict};

pub use handover::{Chain, Handover};
pub use report::{NamedImages, SpanReport};

/// The things that all spans of a run share.
#[derive(Debug)]
pub struct Context<'a> {
    /// The node's record.
    pub record: &'a Record,
    /// The record's rows.
    pub survey: &'a Survey,
    /// The workers to replay with, each span with each.
    pub programs: &'a [WorkerProgram],
    /// The limits of a worker.
    pub limits: &'a Limits,
    /// The repetition of replays.
    pub repeats: Repeats<'a>,
    /// The place of the evidence of divergences, if it is kept.
    pub evidence: Option<&'a Keeper>,
}

/// Verifies one span; `handed` is what the span before it left, if this span may start from it.
fn verify_span(
    context: &Context<'_>,
    planned: &PlannedSpan,
    worker: usize,
    handed: Option<&Handover>,
) -> (SpanReport, Handover) {
    let began = Instant::now();
    let row = &planned.row;
    let mut report = SpanReport::new(planned, context.survey.name_of(&row.id.vat), worker);
    let mut left = Handover::of_failure(row.id.start);
    let verified = catch_unwind(AssertUnwindSafe(|| {
        SpanOnItsWay { context, planned, worker, handed, report: &mut report, left: &mut left }.verdict()
    }));
    report.verdict = match verified {
        Ok(Ok(verdict) | Err(verdict)) => context.survey.history.weigh(&row.id, verdict),
        Err(_) => Verdict::Failed(Failure::System("spanwatch has a bug: please report what it printed".to_owned())),
    };
    report.weigh_contradictions();
    report.took = began.elapsed();
    report.image_bytes = left.image.as_ref().map(Image::bytes);
    left.verdict = report.verdict.kind();
    (report, left)
}

/// One span on its way.
struct SpanOnItsWay<'a> {
    context: &'a Context<'a>,
    planned: &'a PlannedSpan,
    worker: usize,
    handed: Option<&'a Handover>,
    report: &'a mut SpanReport,
    left: &'a mut Handover,
}

impl<'a> SpanOnItsWay<'a> {
    /// The verdict; the error is one too, of a span that could not be replayed.
    fn verdict(&mut self) -> Result<Verdict, Verdict> {
        let (context, planned) = (self.context, self.planned);
        let id = &planned.row.id;
        if id.end < id.start {
            return Err(Verdict::Unverifiable(Unverifiable::SpanRow("it ends before it starts")));
        }
        if planned.is_local(context.survey) {
            return Err(links::local(context, planned));
        }
        let options = context
            .survey
            .options_of(&id.vat)
            .map_err(|fault| Verdict::Unverifiable(Unverifiable::Options(fault.to_string())))?;
        let (text, origin) = context.record.items(&planned.row)?;
        self.report.items_from = Some(origin);
        let items = text.parse()?;
        self.report.begins = items.first().and_then(|(_, item)| SpanBegins::of(&item.kind));
        self.report.contradictions = audit::check_span(&items)
            .map_err(|error| Verdict::Failed(Failure::System(format!("failed to check the responses: {error}"))))?;
        let span = Span::new(id, planned.ends, &items, text.is_whole())
            .map_err(|verdict| links::said_to_be_local(verdict, &options, &items))?;
        self.report.ends = Some(span.ends);
        self.report.images = NamedImages { loads: span.loads(), saves: span.saves };
        let mut read = None;
        let beginning = self.base(&span, &options, &mut read)?;
        let start = ReplayStart {
            program: &context.programs[self.worker],
            limits: context.limits,
            options: &options,
            beginning: &beginning,
            probe: None,
        };
        let mut judged = judge(&span, &start, &context.repeats);
        self.report.add_replay(judged.first());
        let recorded_end = self.compare_heaps(&span, &mut judged);
        self.keep_evidence(&text, &span, &start, &judged, recorded_end.as_ref());
        (self.left.saves, self.left.image) = (span.saves, judged.take_image());
        self.weigh_rows(&span, &text, judged.verdict)
    }

    /// The programs or the image that the worker starts from. `read` holds an image that had to be read from the record.
    fn base<'b>(
        &mut self,
        span: &Span<'_>,
        options: &VatOptions,
        read: &'b mut Option<Image>,
    ) -> Result<Beginning<'b>, Verdict>
    where
        'a: 'b,
    {
        let (record, id) = (self.context.record, span.id);
        let Some(recorded) = span.loads() else {
            self.report.base = BaseKind::Blank;
            let bundle = |id: &str| {
                let bytes = record.bundle(id)?;
                Ok(bytes.map(|bytes| CodeBundle { id: id.to_owned(), bytes }))
            };
            return blank_beginning(bundle, span, options, self.context.survey.relax_durability_rules);
        };
        match (&self.planned.base, self.handed) {
            (Base::Chained, Some(handed)) => self.chained(handed, recorded),
            // The handed image has the recorded hash, so it is the recorded image.
            (Base::Recorded { row_hash: Some(row_hash), .. }, Some(Handover { image: Some(image), .. }))
                if *row_hash == recorded && image.hash() == recorded =>
            {
                Ok(Beginning::Image(image))
            }
            (Base::Recorded { row_bytes, .. }, _) => {
                let (image, origin) = record.image(&id.vat, id.start.saturating_sub(1), recorded, *row_bytes)?;
                self.report.base = if origin == Origin::Captures { BaseKind::Captured } else { BaseKind::Recorded };
                self.report.base_from = Some(origin);
                Ok(Beginning::Image(read.insert(image)))
            }
            (Base::Gone(why), _) => Err(Verdict::Unverifiable(Unverifiable::BaseGone(why.to_string()))),
            (Base::Blank | Base::Chained, _) => Err(Verdict::Unverifiable(Unverifiable::Shape {
                position: id.start,
                what: "load-snapshot begins an incarnation".to_owned(),
            })),
        }
    }

    /// The image that the replay of the span before it gave.
    fn chained(&mut self, handed: &'a Handover, recorded: Hash256) -> Result<Beginning<'a>, Verdict> {
        let Some(image) = &handed.image else {
            let Handover { start, verdict, .. } = *handed;
            return Err(Verdict::Unverifiable(Unverifiable::ChainBroken { start, verdict }));
        };
        if handed.saves != Some(recorded) {
            let saved = handed.saves.map_or_else(|| "none".to_owned(), |saved| saved.to_string());
            let what = format!("load-snapshot names {recorded}, the span before it saved {saved}");
            let position = self.planned.row.id.start;
            return Err(Verdict::Unverifiable(Unverifiable::HistoryBroken { position, what }));
        }
        self.report.is_base_unproved = image.hash() != recorded;
        Ok(Beginning::Image(image))
    }

    /// Compares the heaps where the snapshot's hash differs, and gives the recorded image for that, if a source has it.
    fn compare_heaps(&self, span: &Span<'_>, judged: &mut Judged) -> Option<Image> {
        let differs = judged.first().is_hash_compared && !judged.first().is_image_recorded;
        let recorded_end = span.saves.filter(|_| differs).and_then(|saved| {
            let image = self.context.record.image(&span.id.vat, span.id.end.saturating_sub(1), saved, None);
            image.ok().map(|(image, _)| image)
        });
        heaps::add_to(judged, recorded_end.as_ref());
        recorded_end
    }

    fn keep_evidence(
        &mut self,
        text: &SpanText,
        span: &Span<'_>,
        start: &ReplayStart<'_>,
        judged: &Judged,
        recorded_end: Option<&Image>,
    ) {
        let (Verdict::Diverged(_), Some(keeper)) = (&judged.verdict, self.context.evidence) else { return };
        let witness = Witness {
            name: self.report.name.as_deref(),
            incarnation: self.report.incarnation,
            text,
            span,
            hash: self.planned.row.hash,
            start,
            relax_durability_rules: self.context.survey.relax_durability_rules,
            base: self.report.base,
            is_base_unproved: self.report.is_base_unproved,
            judged,
            bundle: &|id| self.context.record.bundle(id).ok().flatten(),
            recorded_end,
        };
        self.report.evidence = Some(keeper.keep(&witness));
    }

    /// Damage of the rows around a span is its verdict where the replay found nothing: only now, as an edited row must not hide what the
    /// replay found.
    fn weigh_rows(&self, span: &Span<'_>, text: &SpanText, verdict: Verdict) -> Result<Verdict, Verdict> {
        if !matches!(verdict, Verdict::Verified | Verdict::Partial(_)) {
            return Ok(verdict);
        }
        if let Some(damage) = text.lacks().filter(|reason| reason.is_damage()) {
            return Ok(Verdict::Unverifiable(damage.clone()));
        }
        let Some(loaded) = span.loads() else { return Ok(verdict) };
        Ok(links::broken_before(self.context, self.planned, self.handed, loaded)?.unwrap_or(verdict))
    }
}
