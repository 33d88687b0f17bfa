//! The threads that replay: each takes the span that is due next, replays it, and writes its verdict.
//!
//! A verdict is reported only once it is in the store, and only by the thread that put it there. A failure of ours
//! is tried again, with growing pauses, a limited number of times.

use std::collections::HashSet;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::alarms::WHAT_TO_DO;
use super::complaints::Subject;
use super::finished::{finished, may_come_of_vanishing};
use super::job::{Surroundings, is_still_there, prepare};
use super::links;
use super::shared::{RETRY, Shared};
use super::view::KeptBy;
use super::work::Claim;
use crate::daemon::config::CaptureWhen;
use crate::daemon::metrics::observe;
use crate::judge::Repeats;
use crate::kernel_db::DbError;
use crate::plan::{Base, PlannedSpan};
use crate::store::{FinishedSpan, Job, SpanSource, StoreError, now};
use crate::tally::Counter;
use crate::transcript::SpanId;
use crate::verdict::{Divergence, Failure, Unverifiable, Verdict, VerdictKind};
use crate::verify::{Chain, Context, Handover, SpanReport};

/// The pauses after failed attempts, in seconds; the last one holds for all further ones.
const PAUSES: [f64; 5] = [1.0, 10.0, 60.0, 600.0, 3_600.0];
/// The pause, in seconds, after trouble that concerns all spans alike and is no attempt at any of them.
const PAUSE_FOR_ALL: f64 = 15.0;
/// How many spans of the history that follow one another are replayed in one go, image handed to image.
const RUN_SPANS_MAX: usize = 16;

/// Starts the threads.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    for number in 0..shared.jobs() {
        let shared = Arc::clone(shared);
        std::thread::Builder::new().name(format!("replay-{number}")).spawn(move || {
            while let Some((job, claim)) = shared.take_job() {
                // A mistake of ours must not take a thread away for good. The span stays due, and counts an attempt.
                let id = job.id;
                if catch_unwind(AssertUnwindSafe(|| work(&shared, job, claim))).is_err() {
                    let failure = Failure::System("spanwatch has a bug".to_owned());
                    let _ = shared.store.postpone(id, PAUSES[PAUSES.len() - 1], &failure, true);
                }
            }
        })?;
    }
    Ok(())
}

fn work(shared: &Shared, job: Job, mut claim: Claim<'_>) {
    let mut jobs = vec![job];
    follow(shared, &mut jobs, &mut claim);
    // An archive that can't be read would look like one that has nothing.
    if let Some(fault) = shared.record.archives.faults().first() {
        return fail(shared, &jobs, &Failure::System(fault.to_string()));
    }
    let Surroundings { survey, units } = match prepare(shared, &jobs) {
        Ok(surroundings) => surroundings,
        // The spans stay due, and are taken again once the node is back.
        Err(error) if error.is_absence() => return await_node(&error),
        Err(error) => return fail(shared, &jobs, &Failure::Database(error.to_string())),
    };
    let context = Context {
        record: &shared.record,
        survey: &survey,
        programs: &shared.programs,
        limits: &shared.limits,
        repeats: Repeats { times: shared.config.evidence.repeats, shared: &shared.replays },
        evidence: shared.evidence.as_ref(),
    };
    let mut judged = HashSet::new();
    let mut chain = Chain::new(&context, 0);
    for unit in &units {
        for (index, planned) in unit.iter().enumerate() {
            let mut report = chain.verify(planned);
            if may_come_of_vanishing(&report.verdict) && matches!(is_still_there(shared, &planned.row), Ok(false)) {
                report.verdict = Verdict::Unverifiable(Unverifiable::RowGone);
            }
            // What failed for a reason of ours on the way to a span says nothing of that span either.
            if let Verdict::Unverifiable(broken @ Unverifiable::ChainBroken { verdict: VerdictKind::Failed, .. }) =
                &report.verdict
            {
                report.verdict = Verdict::Failed(Failure::System(broken.to_string()));
            }
            if matches!(report.verdict, Verdict::Failed(Failure::Database(_)))
                && let Err(error) = shared.record.db.read(|_| Ok(()))
                && error.is_absence()
            {
                return await_node(&error);
            }
            let next = unit.get(index + 1);
            keep_image(shared, planned, next, chain.left());
            judge(shared, &jobs, planned, &mut report);
            judged.insert(&planned.row.id);
            if shared.work.is_stopping() {
                return;
            }
        }
    }
    // Whatever the plan says, no span may stay due and untouched: it would be taken again at once.
    let unplanned: Vec<Job> = jobs.iter().filter(|job| !judged.contains(&job.row.id)).cloned().collect();
    fail(shared, &unplanned, &Failure::System("no plan has this span: please report it".to_owned()));
}

/// The node is away, as the thread that looks will see too: what was begun stays due.
fn await_node(error: &DbError) {
    tracing::debug!("a replay was not begun: {error}");
    std::thread::sleep(RETRY);
}

/// Takes the spans of the history that follow, where a chain of them saves the making of images.
fn follow(shared: &Shared, jobs: &mut Vec<Job>, claim: &mut Claim<'_>) {
    while let Some(last) = jobs.last().filter(|last| last.source == SpanSource::History && jobs.len() < RUN_SPANS_MAX) {
        match shared.store.job_after(&last.row.id) {
            Ok(Some(next)) if claim.add(next.id) => jobs.push(next),
            Ok(_) => return,
            Err(error) => return shared.store_failed(&error),
        }
    }
}

/// Writes a span's verdict and reports it; or puts the span off.
fn judge(shared: &Shared, jobs: &[Job], planned: &PlannedSpan, report: &mut SpanReport) {
    let job = match job_of(shared, jobs, planned) {
        Ok(Some(job)) => job,
        Ok(None) => return,
        Err(error) => return shared.store_failed(&error),
    };
    if let Verdict::Failed(failure) = &report.verdict
        && job.attempts + 1 < shared.config.schedule.attempts_max
    {
        return put_off(shared, &job, failure, true);
    }
    links::weigh(shared, &job.row, report);
    report.conclude();
    let finished = finished(report, &job, &shared.programs[0].sha256);
    if shared.persist(|| shared.store.finish(job.id, &report.id, &finished)) != Some(true) {
        return;
    }
    count(shared, &job, report, &finished);
    if finished.verdict == VerdictKind::Diverged {
        tell_evidence(shared, report);
    }
    tell(report, &finished, job.source);
}

/// The job of a span that was replayed; `None` if it is not due, as one that was only on the way to another.
fn job_of(shared: &Shared, jobs: &[Job], planned: &PlannedSpan) -> Result<Option<Job>, StoreError> {
    match jobs.iter().find(|job| job.row.id == planned.row.id) {
        Some(job) => Ok(Some(job.clone())),
        None => shared.store.due(&planned.row),
    }
}

/// Adds a verdict that was written to the metrics.
fn count(shared: &Shared, job: &Job, report: &SpanReport, finished: &FinishedSpan) {
    let metrics = &shared.metrics;
    metrics.add(&finished.tally);
    if report.deliveries > 0 {
        observe(&metrics.replay_seconds, report.took);
    }
    if let Some(bytes) = report.image_bytes {
        #[expect(clippy::cast_precision_loss, reason = "an image has far less than 2^52 bytes")]
        metrics.snapshot_bytes.observe(bytes as f64);
    }
    if job.source == SpanSource::Live {
        metrics.verdict_delay_seconds.observe((now() - job.noticed_at - finished.replay_seconds).max(0.0));
    }
    match finished.verdict {
        VerdictKind::Verified | VerdictKind::Partial => metrics.last_verified_timestamp_seconds.set(now()),
        VerdictKind::Diverged => metrics.divergences_unacknowledged.inc(),
        VerdictKind::Contradicted => metrics.contradictions_unacknowledged.inc(),
        VerdictKind::Unverifiable | VerdictKind::Failed | VerdictKind::NotApplicable => {}
    }
    if finished.is_damage {
        metrics.damaged_spans.inc();
    }
}

/// What became of the evidence of a divergence.
fn tell_evidence(shared: &Shared, report: &SpanReport) {
    match &report.evidence {
        Some(Ok(kept)) => {
            shared.measure_evidence();
            tracing::info!(folder = %kept.dir.join(&kept.folder).display(), times = kept.times, "evidence: {kept}");
        }
        Some(Err(error)) => {
            shared.metrics.evidence_failures.with_label_values(&[error.label()]).inc();
            shared
                .complaints
                .complain(Subject::Evidence, &format!("no evidence of {} could be kept: {error}", report.id));
        }
        None => {}
    }
}

/// One line a verdict, as loud as it deserves. What can't be verified of a long history is counted, and told only to who
/// asks for it.
fn tell(report: &SpanReport, finished: &FinishedSpan, source: SpanSource) {
    let SpanId { vat, start, end } = &report.id;
    let name = report.name.as_deref().unwrap_or("-");
    let (verdict, explanation) = (report.verdict.label(), finished.explanation.as_deref().unwrap_or(""));
    match &report.verdict {
        Verdict::Diverged(divergence) => {
            let Divergence { findings, findings_total, repeat, .. } = divergence;
            let Some(first) = findings.first() else { return };
            tracing::error!(
                %vat,
                name,
                start,
                end,
                position = first.position,
                kind = first.kind.label(),
                recorded = first.recorded,
                replayed = first.replayed,
                findings = findings_total,
                repeat = repeat.label(),
                "DIVERGED: {vat} ({name}), span [{start}, {end}), {explanation}"
            );
        }
        Verdict::Contradicted(_) => {
            let Some(first) = report.contradictions.kept.first() else { return };
            tracing::error!(
                %vat,
                name,
                start,
                end,
                position = first.position,
                kind = first.kind.label(),
                key = first.key,
                recorded = first.recorded,
                implied = first.implied,
                contradictions = report.contradictions.total,
                "CONTRADICTED: {vat} ({name}), span [{start}, {end}), {explanation}"
            );
        }
        Verdict::Failed(_) => {
            tracing::error!(%vat, name, start, end, "gave up on span [{start}, {end}) of {vat}: {explanation}");
        }
        Verdict::Unverifiable(reason) if finished.is_damage => {
            tracing::error!(
                %vat,
                name,
                start,
                end,
                reason = reason.label(),
                "DAMAGED: {vat} ({name}), span [{start}, {end}), {explanation}; {WHAT_TO_DO}"
            );
        }
        Verdict::Unverifiable(reason) if finished.tally.get(Counter::Missed) > 0 => {
            tracing::warn!(%vat, name, start, end, reason = reason.label(), "missed span [{start}, {end}) of {vat}: {explanation}");
        }
        Verdict::Unverifiable(reason) if source == SpanSource::Live => {
            tracing::warn!(%vat, name, start, end, reason = reason.label(), "span [{start}, {end}) of {vat} can't be verified: {explanation}");
        }
        Verdict::Verified | Verdict::Partial(_) | Verdict::Unverifiable(_) | Verdict::NotApplicable(_) => {
            let seconds = report.took.as_secs_f64();
            tracing::debug!(%vat, name, start, end, verdict, seconds, base = report.base.label(), "{verdict} {explanation}");
        }
    }
}

/// Puts all of some spans off, or gives up on them, for a reason that concerns them all.
fn fail(shared: &Shared, jobs: &[Job], failure: &Failure) {
    for job in jobs {
        put_off(shared, job, failure, false);
    }
}

fn put_off(shared: &Shared, job: &Job, failure: &Failure, is_attempt: bool) {
    let pause = if is_attempt { PAUSES[(job.attempts as usize).min(PAUSES.len() - 1)] } else { PAUSE_FOR_ALL };
    let SpanId { vat, start, end } = &job.row.id;
    shared.metrics.add_to(Counter::Failures(failure.label()), 1);
    tracing::warn!(%vat, start, end, attempt = job.attempts + 1, "span [{start}, {end}) of {vat} is tried again in {pause} s: {failure}; {}", failure.hint());
    if let Err(error) = shared.store.postpone(job.id, pause, failure, is_attempt) {
        shared.store_failed(&error);
        // Its row says that it is due now: not at once, all the same.
        std::thread::sleep(RETRY);
    }
}

/// Where nobody else has the image that the next span starts from, ours serves: it has the recorded hash.
fn keep_image(shared: &Shared, planned: &PlannedSpan, next: Option<&PlannedSpan>, left: Option<&Handover>) {
    let is_wanted = match shared.config.capture.images {
        CaptureWhen::Never => false,
        CaptureWhen::Always => true,
        CaptureWhen::Auto => shared.view.get().retention.images == Some(KeptBy::Nobody),
    };
    let is_handed_on = next.is_some_and(|next| next.base == Base::Chained);
    let Some(image) =
        left.and_then(Handover::recorded_image).filter(|_| is_wanted && !is_handed_on && shared.may_capture())
    else {
        return;
    };
    let user = (&planned.row.id.vat, planned.row.id.end);
    let kept = || -> Result<(), StoreError> {
        if shared.record.captures.has_image(image.hash()) || has_in_database(shared, planned) {
            return Ok(());
        }
        let began = Instant::now();
        let Ok(gzip) = gzip(image) else { return Ok(()) };
        let evicted = shared.store.keep_image(image.hash(), &gzip, user, shared.config.capture.max_bytes)?;
        shared.metrics.captures_evicted.inc_by(evicted);
        tracing::debug!(vat = %user.0, position = user.1, took = ?began.elapsed(), "kept our own image for the next span");
        Ok(())
    };
    match kept() {
        Ok(()) => {}
        Err(StoreError::CaptureFull { .. }) => shared.metrics.capture_failures.inc(),
        Err(error) => shared.store_failed(&error),
    }
}

/// Whether the node still has the image at the end of a span: it does as long as the next one is open.
fn has_in_database(shared: &Shared, planned: &PlannedSpan) -> bool {
    let SpanId { vat, end, .. } = &planned.row.id;
    let row = shared.record.db.read(|reader| reader.snapshot(vat, end.saturating_sub(1)));
    matches!(row, Ok(Some(row)) if row.has_image)
}

fn gzip(image: &crate::record::image::Image) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    image.copy_to(&mut encoder)?;
    encoder.flush()?;
    encoder.finish()
}
