//! `spanwatch verify`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{DbArgs, Format, Given, RepeatArgs, SelectionArgs, WorkerArgs, default_jobs, parse_evidence_max};
use super::{CliError, Exit, chain};
use crate::evidence::{EvidenceError, Keeper, WorkerColumn, column, note_workers, worker_facts};
use crate::history::History;
use crate::judge::{Repeats, SharedReplays};
use crate::kernel_db::Access;
use crate::log::Wishes;
use crate::plan::{Unit, plan};
use crate::replay::WorkerProgram;
use crate::report::compared::Compared;
use crate::report::{self, Totals, history, json, text};
use crate::schedule;
use crate::transcript::SpanId;
use crate::verdict::VerdictKind;
use crate::verify::{Context, SpanReport};
use crate::visible::{self, Out};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    db: DbArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    repeat: RepeatArgs,
    #[command(flatten)]
    evidence: EvidenceArgs,
    /// Number of replays at once [default: one per processor; beside a running node, half of that]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Replay the spans of one vat in a chain, each from the image that the replay of the span before gave, up to the first that
    /// differs from the record
    #[arg(long, requires = "vats", conflicts_with = "jobs")]
    chain: bool,
}

impl VerifyArgs {
    /// As `bisect --chain` of earlier versions.
    pub(super) fn chain(db: DbArgs, vat: String, worker: WorkerArgs) -> Self {
        let selection = SelectionArgs { vats: vec![vat], positions: None, incarnation: None };
        let evidence = EvidenceArgs { dir: None, max: Given::of(0) };
        Self { db, selection, worker, repeat: RepeatArgs { repeats: 1 }, evidence, jobs: None, chain: true }
    }
}

#[derive(Debug, Args)]
struct EvidenceArgs {
    /// Directory for evidence: a folder for each divergence, to replay it on any machine
    #[arg(long = "evidence", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of all folders together; a number without a unit is deprecated and means MiB
    #[arg(long = "evidence-max", value_name = "SIZE", default_value = "10GiB", value_parser = parse_evidence_max, requires = "dir")]
    max: Given<u64>,
}

impl EvidenceArgs {
    fn keeper(&self) -> Result<Option<Keeper>, EvidenceError> {
        self.max.warn("--evidence-max");
        // Nobody acknowledges here: nothing is ever dropped.
        self.dir.as_deref().map(|dir| Keeper::open(dir, self.max.value, Vec::new)).transpose()
    }
}

pub(super) fn run(args: VerifyArgs, wishes: Wishes) -> Result<Exit, CliError> {
    let began = Instant::now();
    let (record, mut survey) = args.db.open(&args.selection.vats)?;
    let selection = args.selection.selection(&survey)?;
    if args.chain && selection.vats.len() != 1 {
        return Err(CliError::NotOneVat { count: selection.vats.len() });
    }
    let programs = args.worker.find(&record.db)?;
    let jobs = match record.db.access()? {
        Access::Live => beside_a_node(args.jobs),
        Access::Down | Access::Crashed => args.jobs.unwrap_or_else(default_jobs),
    };
    if selection.positions.is_none() && selection.incarnation.is_none() {
        survey.prove_images_in_use(&record.db)?;
    }
    let units = plan(&survey, &record, &selection);
    let limits = args.worker.limits();
    let replays = SharedReplays::default();
    let keeper = args.evidence.keeper()?;
    let context = Context {
        record: &record,
        survey: &survey,
        programs: &programs,
        limits: &limits,
        repeats: Repeats { times: args.repeat.repeats, shared: &replays },
        evidence: keeper.as_ref(),
    };

    let is_sound = survey.faults.is_empty() && survey.history.is_whole();
    let mut out = visible::stdout();
    if args.db.format == Format::Json {
        writeln!(out, "{}", json::line(&report::plan::Plan::of(&units, &survey, &selection, programs.len())))?;
        out.flush()?;
    }
    if args.chain {
        let totals = chain::run(&context, units, args.db.format)?;
        write_history(&mut out, args.db.format, &survey.history)?;
        return Ok(exit(&totals, is_sound));
    }
    let (totals, compared, written) = verify_all(&context, &units, jobs, args.db.format, &mut out, wishes);
    if written.is_err() && (totals.count(VerdictKind::Diverged) > 0 || totals.contradictions > 0) {
        // The reader has left, but the exit code can still tell.
        return Ok(Exit::Diverged);
    }
    written?;
    write_history(&mut out, args.db.format, &survey.history)?;
    if args.db.format == Format::Text && units.is_empty() {
        let open: Vec<_> = report::plan::open(&survey, &selection).collect();
        out.write_lines(&text::nothing_matches(&open))?;
    } else {
        write_summary(&mut out, args.db.format, &totals, &compared, &programs, began.elapsed())?;
    }
    Ok(exit(&totals, is_sound))
}

/// Verifies the units and prints a line for each span as soon as its turn comes, until the reader leaves.
fn verify_all(
    context: &Context<'_>,
    units: &[Unit],
    jobs: NonZeroUsize,
    format: Format,
    out: &mut Out<impl Write>,
    wishes: Wishes,
) -> (Totals, Compared, io::Result<()>) {
    let workers = context.programs.len();
    let spans: usize = units.iter().map(Vec::len).sum::<usize>() * workers;
    let bar = progress_bar(spans as u64, wishes);
    let mut totals = Totals::default();
    let mut compared = Compared::of(workers);
    let mut columns = Columns::default();
    let mut written = Ok(());
    schedule::run(context, units, jobs, |report| {
        totals.add(report);
        compared.add(report);
        columns.add(report, context);
        let line = match format {
            Format::Text => text::span(report, workers),
            Format::Json => json::span(report),
        };
        // A reader sees each span at once.
        written = bar.suspend(|| out.write_lines(&line).and_then(|()| out.flush()));
        bar.inc(1);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    bar.finish_and_clear();
    columns.note();
    (totals, compared, written)
}

/// The end of the output: the totals, and what sets the workers apart where there are several.
pub(super) fn write_summary(
    out: &mut Out<impl Write>,
    format: Format,
    totals: &Totals,
    compared: &Compared,
    programs: &[WorkerProgram],
    took: Duration,
) -> io::Result<()> {
    match format {
        Format::Text => {
            let of_workers = compared.text(programs);
            if !of_workers.is_empty() {
                out.write_lines(&of_workers)?;
            }
            out.write_lines(&text::summary(totals, took))
        }
        Format::Json => {
            compared.json_lines().try_for_each(|line| writeln!(out, "{line}"))?;
            writeln!(out, "{}", json::summary(totals, programs, compared, took))
        }
    }
}

/// Where the histories break, also where no closed span is concerned.
pub(super) fn write_history(out: &mut Out<impl Write>, format: Format, found: &History) -> io::Result<()> {
    match format {
        Format::Text => history::text_lines(found).iter().try_for_each(|line| writeln!(out, "{line}")),
        Format::Json => history::json_lines(found).try_for_each(|line| writeln!(out, "{line}")),
    }
}

/// What each of several workers did with the spans of which there is evidence.
#[derive(Default)]
struct Columns {
    of_span: HashMap<SpanId, Vec<WorkerColumn>>,
    folders: Vec<(SpanId, PathBuf)>,
}

impl Columns {
    fn add(&mut self, report: &SpanReport, context: &Context<'_>) {
        if context.evidence.is_none() || context.programs.len() < 2 {
            return;
        }
        let facts = worker_facts(&context.programs[report.worker], context.limits);
        self.of_span.entry(report.id.clone()).or_default().push(column(&report.verdict, facts));
        if let Some(Ok(kept)) = &report.evidence
            && kept.times == 1
        {
            self.folders.push((report.id.clone(), kept.dir.join(&kept.folder)));
        }
    }

    fn note(&self) {
        for (id, folder) in &self.folders {
            if let Err(error) = note_workers(folder, &self.of_span[id]) {
                tracing::warn!("{error}");
            }
        }
    }
}

/// A running node comes first: the replays get what it leaves, and unless told otherwise at most half of the cores.
fn beside_a_node(asked: Option<NonZeroUsize>) -> NonZeroUsize {
    // Workers inherit it. A refusal is no reason not to verify.
    let _ = rustix::process::nice(19);
    let half = NonZeroUsize::new(default_jobs().get() / 2).unwrap_or(NonZeroUsize::MIN);
    asked.unwrap_or(half)
}

pub(super) fn exit(totals: &Totals, are_all_rows_sound: bool) -> Exit {
    let incomplete = totals.count(VerdictKind::Unverifiable) + totals.count(VerdictKind::Failed);
    if totals.count(VerdictKind::Diverged) > 0 || totals.contradictions > 0 {
        Exit::Diverged
    } else if incomplete > 0 || totals.asked_verified == 0 || !are_all_rows_sound {
        Exit::Incomplete
    } else {
        Exit::Verified
    }
}

/// On the standard error, whatever is written to the standard output.
fn progress_bar(spans: u64, wishes: Wishes) -> ProgressBar {
    if wishes.louder < 0 || !visible::is_stderr_a_terminal() {
        return ProgressBar::with_draw_target(Some(spans), ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} spans, {eta} left");
    ProgressBar::new(spans).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
