//! `spanwatch replay`: a span again, from its evidence alone.
//!
//! Owns the order of a replay from a folder: the worker is compared with the folder's, the span replayed and judged, and the workers' results
//! noted in the folder. Must never run a program that the evidence names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::args::{Format, RepeatArgs, WorkerArgs};
use super::verify::write_summary;
use super::{CliError, Exit};
use crate::audit::Contradictions;
use crate::evidence::{Case, Replacement, column, worker_facts};
use crate::judge::heaps;
use crate::judge::{Judged, Repeats, SharedReplays, judge};
use crate::record::image::Image;
use crate::replay::{FoundBy, ReplayStart, WorkerProgram};
use crate::report::compared::Compared;
use crate::report::{Totals, json, text};
use crate::span::BaseKind;
use crate::transcript::Position;
use crate::verdict::Verdict;
use crate::verify::SpanReport;
use crate::visible::{self, Out};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Evidence: a folder or a packed file
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    repeat: RepeatArgs,
    /// Start the worker with bundle FILE in place of the recorded bundle OLD; repeatable
    #[arg(long = "with-bundle", value_name = "OLD=FILE", value_parser = Replacement::parse)]
    replacements: Vec<std::sync::Arc<Replacement>>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How far a replay with another bundle agrees with the record.
#[derive(Debug, Serialize)]
struct WhatIf<'a> {
    r#type: &'static str,
    worker: usize,
    replaced: Vec<[&'a str; 2]>,
    /// Deliveries that are the same from the first one on.
    reproduced: usize,
    deliveries: usize,
    first_difference: Option<Position>,
}

pub(super) fn run(args: &ReplayArgs) -> Result<Exit, CliError> {
    let began = Instant::now();
    let case = Case::open(&args.evidence)?;
    let programs = args.worker.find_for(&case)?;
    let limits = args.worker.limits_for(&case)?;
    let items = case.items()?;
    let span = case.span(&items)?;
    let base = case.base()?;
    let recorded_end = case.recorded_end()?;
    for replacement in &args.replacements {
        if !case.manifest.start.bundles.contains(&replacement.old) {
            let has = case.manifest.start.bundles.join(", ");
            let why = if has.is_empty() {
                "the span starts from an image, which has its bundles in it".to_owned()
            } else {
                format!("it starts with {has}")
            };
            return Err(CliError::NoSuchBundle { id: replacement.old.clone(), why });
        }
    }
    let replacements: Vec<&Replacement> = args.replacements.iter().map(std::sync::Arc::as_ref).collect();
    let beginning = case.beginning(&span, base.as_ref(), &replacements)?;
    let options = case.options();
    let replays = SharedReplays::default();
    let repeats = Repeats { times: args.repeat.repeats, shared: &replays };
    let mut out = visible::stdout();
    let mut totals = Totals::default();
    let mut compared = Compared::of(programs.len());
    let mut columns = Vec::new();
    tell_workers(&case, &programs, args.format, &mut out)?;
    for (worker, program) in programs.iter().enumerate() {
        let started = Instant::now();
        let start = ReplayStart { program, limits: &limits, options: &options, beginning: &beginning, probe: None };
        let mut judged = judge(&span, &start, &repeats);
        heaps::add_to(&mut judged, recorded_end.as_ref());
        columns.push(column(&judged.verdict, worker_facts(program, &limits)));
        let report = report(&case, worker, judged, started.elapsed());
        totals.add(&report);
        compared.add(&report);
        match args.format {
            Format::Text => out.write_lines(&text::span(&report, programs.len()))?,
            Format::Json => writeln!(out, "{}", json::span(&report))?,
        }
        if !replacements.is_empty() {
            what_if(&report, &span, &replacements, worker, args.format, &mut out)?;
        }
    }
    write_summary(&mut out, args.format, &totals, &compared, &programs, began.elapsed())?;
    if replacements.is_empty()
        && let Err(error) = case.note_workers(&columns)
    {
        tracing::debug!("what the workers did is not noted in the folder: {error}");
    }
    Ok(super::verify::exit(&totals, true))
}

/// A worker of a replay, and whether it is the one that diverged.
#[derive(Debug, Serialize)]
struct WorkerLine<'a> {
    r#type: &'static str,
    worker: usize,
    path: &'a Path,
    version: &'a str,
    sha256: &'a str,
    found_by: FoundBy,
    /// Whether the program is that of the evidence, byte for byte.
    is_the_same: bool,
    wanted_version: &'a str,
    wanted_sha256: &'a str,
}

/// Says of each worker whether it is the one that the evidence is of. Its sha256 tells; the path in the evidence is the path
/// of another machine.
pub(super) fn tell_workers(
    case: &Case,
    programs: &[WorkerProgram],
    format: Format,
    out: &mut visible::Out<impl Write>,
) -> Result<(), CliError> {
    let wanted = &case.manifest.worker;
    for (worker, program) in programs.iter().enumerate() {
        let WorkerProgram { path, version, sha256, found_by, .. } = program;
        let is_the_same = *sha256 == wanted.sha256;
        match format {
            Format::Json => {
                let line = WorkerLine {
                    r#type: "worker",
                    worker,
                    path,
                    version,
                    sha256,
                    found_by: *found_by,
                    is_the_same,
                    wanted_version: &wanted.version,
                    wanted_sha256: &wanted.sha256,
                };
                writeln!(out, "{}", json::line(&line))?;
            }
            Format::Text if is_the_same => {
                writeln!(out, "worker {}, {found_by}: the worker of the evidence", path.display())?;
            }
            Format::Text => writeln!(
                out,
                "worker {}, {found_by}: not the worker of the evidence: this is {version}, sha256 {sha256}; that was {}",
                path.display(),
                case.wanted_worker()
            )?,
        }
    }
    Ok(())
}

fn what_if(
    report: &SpanReport,
    span: &crate::span::Span<'_>,
    replacements: &[&Replacement],
    worker: usize,
    format: Format,
    out: &mut Out<impl Write>,
) -> Result<(), CliError> {
    let first_difference = match &report.verdict {
        Verdict::Diverged(divergence) => divergence.findings.first().map(|finding| finding.position),
        _ => None,
    };
    let deliveries = span.deliveries.len();
    let reproduced = first_difference
        .map_or(deliveries, |first| span.deliveries.iter().take_while(|(position, _)| *position < first).count());
    let replaced: Vec<[&str; 2]> =
        replacements.iter().map(|replacement| [&replacement.old[..], &replacement.new.id[..]]).collect();
    match format {
        Format::Json => {
            let line = WhatIf { r#type: "what_if", worker, replaced, reproduced, deliveries, first_difference };
            writeln!(out, "{}", json::line(&line))?;
        }
        Format::Text => {
            for [old, new] in &replaced {
                writeln!(out, "    with {} instead of {}", short(new), short(old))?;
            }
            let rest = first_difference.map_or_else(
                || if matches!(report.verdict, Verdict::Verified) { ", and the heap too" } else { "" }.to_owned(),
                |position| format!("; the first difference is at position {position}"),
            );
            writeln!(out, "    the first {reproduced} of {deliveries} deliveries are as recorded{rest}")?;
        }
    }
    Ok(())
}

/// A bundle's ID, as much of it as tells it from others.
fn short(id: &str) -> String {
    id.get(..16).map_or_else(|| id.to_owned(), |begin| format!("{begin}…"))
}

/// The report of a replay from evidence.
fn report(case: &Case, worker: usize, judged: Judged, took: Duration) -> SpanReport {
    let facts = &case.manifest.span;
    let first = judged.first();
    SpanReport {
        images: crate::verify::NamedImages::default(),
        contradictions: Contradictions::default(),
        id: case.id().clone(),
        name: facts.name.clone(),
        incarnation: facts.incarnation,
        worker,
        is_asked: true,
        begins: Some(facts.begins),
        ends: Some(facts.ends),
        items_from: None,
        base_from: None,
        base: BaseKind::Evidence,
        is_base_unproved: case.manifest.start.is_base_unproved,
        deliveries: first.deliveries,
        syscalls: first.syscalls,
        is_hash_compared: first.is_hash_compared,
        stopped_at: first.stopped_at,
        image_bytes: first.image.as_ref().map(Image::bytes),
        verdict: judged.verdict,
        took,
        evidence: None,
    }
}
