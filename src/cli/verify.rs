//! `spanwatch verify`.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{CliError, DbArgs, Exit, Format, SelectionArgs, WorkerArgs, default_jobs};
use crate::plan::plan;
use crate::report::{Totals, json, text};
use crate::schedule::{self, Context};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    db: DbArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    /// How many spans are replayed at once [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

pub(super) fn run(args: VerifyArgs) -> Result<Exit, CliError> {
    let began = Instant::now();
    let (db, archives, survey) = args.db.open()?;
    let selection = args.selection.selection(&survey)?;
    let programs = args.worker.find(db.path())?;
    let units = plan(&survey, &archives, &selection);
    let limits = args.worker.limits();
    let context = Context { db: &db, archives: &archives, survey: &survey, programs: &programs, limits: &limits };

    let spans: usize = units.iter().map(Vec::len).sum::<usize>() * programs.len();
    let bar = progress_bar(spans as u64, args.db.format);
    let mut totals = Totals::default();
    let mut written = Ok(());
    let mut out = io::stdout().lock();
    schedule::run(&context, &units, args.jobs.unwrap_or_else(default_jobs), |report| {
        totals.add(report);
        let line = match args.db.format {
            Format::Text => text::span(report, programs.len()),
            Format::Json => json::span(report),
        };
        if written.is_ok() {
            // With a line a span, whoever reads along sees it at once.
            written = bar.suspend(|| writeln!(out, "{line}").and_then(|()| out.flush()));
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    written?;
    let summary = match args.db.format {
        Format::Text => text::summary(&totals, began.elapsed()),
        Format::Json => json::summary(&totals, &programs, began.elapsed()),
    };
    writeln!(out, "{summary}")?;
    Ok(exit(&totals, survey.faults.is_empty()))
}

fn exit(totals: &Totals, are_all_rows_readable: bool) -> Exit {
    let incomplete = totals.count("unverifiable") + totals.count("failed");
    if totals.count("diverged") > 0 {
        Exit::Diverged
    } else if incomplete > 0 || totals.count("verified") == 0 || !are_all_rows_readable {
        Exit::Incomplete
    } else {
        Exit::Verified
    }
}

fn progress_bar(spans: u64, format: Format) -> ProgressBar {
    if format != Format::Text || !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(spans), ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} spans, {eta} left");
    ProgressBar::new(spans).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
