//! `spanwatch verdicts` and `spanwatch ack`: what the daemon has found, also while it runs.

use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::args::Format;
use super::run::ConfigArgs;
use super::{CliError, Exit};
use crate::report::json;
use crate::store::{Acknowledged, AlarmKind, RowState, Store, Stored, VerdictFilter, VerdictRow};
use crate::verdict::VerdictKind;
use crate::visible::{self, Lines};
use crate::words::vat_name;

#[derive(Debug, Args)]
pub(super) struct VerdictsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only divergences
    #[arg(long)]
    diverged: bool,
    /// Only alarms: divergences, contradictions, damage and changed rows
    #[arg(long, conflicts_with = "diverged")]
    alarms: bool,
    /// Only this vat, by ID or name
    #[arg(long, value_name = "ID|NAME")]
    vat: Option<String>,
    /// Only the newest N
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    row: &'a VerdictRow,
}

pub(super) fn run(args: &VerdictsArgs) -> Result<Exit, CliError> {
    let store = Store::open_to_read(&args.config.state_dir()?)?;
    check_vat(&store, args.vat.as_deref())?;
    let filter =
        VerdictFilter { is_diverged: args.diverged, is_alarm: args.alarms, vat: args.vat.clone(), limit: args.limit };
    let mut out = visible::buffered_stdout();
    let mut written = Ok(());
    let (mut rows, mut exit) = (0_u64, Exit::Verified);
    store.verdicts(&filter, |row| {
        rows += 1;
        if row.acknowledged == Some(false) {
            let is_worst = exit == Exit::Diverged || needs_exit_diverged(&row.verdict);
            exit = if is_worst { Exit::Diverged } else { Exit::Incomplete };
        }
        if written.is_ok() {
            written = match args.format {
                Format::Json => writeln!(out, "{}", json::line(&Line { r#type: "verdict", row: &row })),
                Format::Text => out.write_lines(&text(&row)),
            };
        }
    })?;
    written?;
    if args.format == Format::Text && rows == 0 {
        writeln!(out, "no verdict matches; `spanwatch run` gives one to each span that closes")?;
    }
    out.flush()?;
    store.was_steady()?;
    Ok(exit)
}

/// An unknown vat is an error, as in `verify`, and no empty answer.
fn check_vat(store: &Store, vat: Option<&str>) -> Result<(), CliError> {
    match vat {
        Some(unknown) if !store.knows_vat(unknown)? => Err(CliError::UnknownVatInStore { unknown: unknown.to_owned() }),
        _ => Ok(()),
    }
}

/// Whether a row in the list is enough for the exit code of a divergence.
fn needs_exit_diverged(state: &Stored<RowState>) -> bool {
    [RowState::Judged(VerdictKind::Diverged), RowState::Judged(VerdictKind::Contradicted), RowState::Changed]
        .iter()
        .any(|alarming| state.is(*alarming))
}

/// The line of a row, and more lines with its explanation and notes.
fn text(row: &VerdictRow) -> String {
    let verdict = match &row.verdict {
        Stored::Known(RowState::Judged(VerdictKind::Diverged)) => "DIVERGED",
        Stored::Known(RowState::Judged(VerdictKind::Contradicted)) => "CONTRADICTED",
        Stored::Known(RowState::Changed) => "CHANGED",
        _ if row.damage => "DAMAGED",
        verdict => verdict.label(),
    };
    let when = row.finished_at.map_or_else(|| "-".to_owned(), time);
    let mut first = format!(
        "{when:<20} {verdict:<14} {:<28} {:<16} inc {:<2} [{}, {})",
        row.id,
        vat_name(row.name.as_deref()),
        row.incarnation,
        row.start,
        row.end
    );
    let base = row.base.as_ref().map(Stored::label);
    if let (Some(base), Some(deliveries), Some(seconds)) = (base, row.deliveries, row.replay_seconds) {
        first.push_str(&format!(" {base}, {deliveries} deliveries, {seconds:.2} s"));
    }
    if row.attempts > 0 {
        first.push_str(&format!(", {} failed attempts", row.attempts));
    }
    let mut text = Lines::default();
    writeln!(text, "{first}");
    if let Some(explanation) = &row.explanation {
        writeln!(text, "    {explanation}");
    }
    match row.acknowledged {
        Some(true) => match row.note.as_deref() {
            None => writeln!(text, "    acknowledged: without a note"),
            Some(notes) => notes.lines().for_each(|note| writeln!(text, "    acknowledged: {note}")),
        },
        Some(false) => writeln!(text, "    not acknowledged: spanwatch ack {} --note \"…\"", row.id),
        None => {}
    }
    text.into_text()
}

fn time(seconds: f64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs_f64(seconds.max(0.0));
    humantime::format_rfc3339_seconds(at).to_string()
}

#[derive(Debug, Args)]
pub(super) struct AckArgs {
    /// ID of the alarm in `spanwatch verdicts` and /api/v1/alarms
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    id: Option<String>,
    /// Acknowledge all alarms of a kind, once you know their common cause
    #[arg(long, value_enum, value_name = "KIND")]
    all: Option<Kind>,
    /// With --all: only alarms of this vat, by ID or name
    #[arg(long, value_name = "ID|NAME", requires = "all")]
    vat: Option<String>,
    /// Note to keep with the alarm; a later note is added to the earlier ones
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What can be acknowledged all at once.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Damaged spans and breaks in histories
    Damaged,
    /// Rows that changed
    Changed,
}

pub(super) fn acknowledge(args: &AckArgs) -> Result<Exit, CliError> {
    let store = Store::open_beside_the_daemon(&args.config.state_dir()?)?;
    let mut out = visible::stdout();
    let note = args.note.as_deref();
    if let Some(kind) = args.all {
        let kind = match kind {
            Kind::Damaged => AlarmKind::Damaged,
            Kind::Changed => AlarmKind::Changed,
        };
        check_vat(&store, args.vat.as_deref())?;
        let count = store.acknowledge_all(kind, args.vat.as_deref(), note)?;
        writeln!(out, "{count} acknowledged; {} left", store.unacknowledged()?.total())?;
    }
    let Some(id) = &args.id else { return Ok(Exit::Verified) };
    match store.acknowledge(id, note)? {
        Acknowledged::Now => writeln!(out, "{id} is acknowledged; {} left", store.unacknowledged()?.total())?,
        Acknowledged::Noted => writeln!(out, "{id} was acknowledged before; the note is added")?,
        Acknowledged::Before => writeln!(out, "{id} was acknowledged before; no change")?,
        Acknowledged::Unknown => return Err(CliError::UnknownDivergence { id: id.clone() }),
    }
    Ok(Exit::Verified)
}
