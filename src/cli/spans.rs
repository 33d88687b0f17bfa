//! `spanwatch spans`.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::{CliError, DbArgs, Exit, Format, SelectionArgs};
use crate::kernel_db::KernelDb;
use crate::plan::{Base, ItemsAt, PlannedSpan, Selection, Survey, plan};
use crate::report::{json, text::plural, verifiable};

#[derive(Debug, Args)]
pub(super) struct SpansArgs {
    #[command(flatten)]
    db: DbArgs,
    #[command(flatten)]
    selection: SelectionArgs,
}

/// A span as `spans` tells of it.
#[derive(Debug, Serialize)]
struct SpanLine<'a> {
    r#type: &'static str,
    vat: &'a str,
    name: Option<&'a str>,
    incarnation: u64,
    start: u64,
    end: u64,
    ends: Option<&'static str>,
    items: &'static str,
    items_present: u64,
    base: &'static str,
    verifiable: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct SummaryLine {
    r#type: &'static str,
    spans: u64,
    verifiable: u64,
    by_chaining: u64,
    not_verifiable: u64,
    local: u64,
    open: u64,
}

pub(super) fn run(args: SpansArgs) -> Result<Exit, CliError> {
    let db = KernelDb::locate(&args.db.db)?;
    let archives = args.db.archives()?;
    let survey = Survey::read(&db)?;
    let selection = Selection::from(args.selection);
    if let Some(unknown) = selection.unknown_vats(&survey).first() {
        return Err(CliError::UnknownVat { unknown: (*unknown).to_owned() });
    }
    for fault in &survey.faults {
        tracing::warn!("{fault}");
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut summary = SummaryLine { r#type: "summary", ..SummaryLine::default() };
    for planned in plan(&survey, &archives, &selection).iter().flatten().filter(|planned| planned.is_asked) {
        let line = describe(planned, &survey);
        summary.spans += 1;
        match line.verifiable {
            "yes" => {
                summary.verifiable += 1;
                summary.by_chaining += u64::from(planned.base == Base::Chained);
            }
            "local" => summary.local += 1,
            _ => summary.not_verifiable += 1,
        }
        match args.db.format {
            Format::Json => writeln!(out, "{}", json::line(&line))?,
            Format::Text => writeln!(out, "{}", text_of(&line))?,
        }
    }
    summary.open = survey.spans.iter().filter(|(row, _)| row.is_current).count() as u64;
    match args.db.format {
        Format::Json => writeln!(out, "{}", json::line(&summary))?,
        Format::Text => writeln!(
            out,
            "{}: {} can be verified ({} of them by chaining), {} cannot, {} of local vats; {} still open",
            plural(summary.spans, "closed span", "closed spans"),
            summary.verifiable,
            summary.by_chaining,
            summary.not_verifiable,
            summary.local,
            summary.open
        )?,
    }
    out.flush()?;
    Ok(if summary.not_verifiable == 0 && survey.faults.is_empty() { Exit::Verified } else { Exit::Incomplete })
}

fn describe<'a>(planned: &'a PlannedSpan, survey: &'a Survey) -> SpanLine<'a> {
    let id = &planned.row.id;
    let verifiable = verifiable(planned, planned.is_local(survey));
    SpanLine {
        r#type: "span",
        vat: id.vat.as_str(),
        name: survey.name_of(&id.vat),
        incarnation: planned.row.incarnation,
        start: id.start,
        end: id.end,
        ends: planned.ends,
        items: match planned.items {
            ItemsAt::Database => "database",
            ItemsAt::Archive => "archive",
            ItemsAt::Nowhere => "pruned",
        },
        items_present: planned.items_present,
        base: planned.base.label(),
        verifiable: verifiable.as_ref().map_or("no", |word| word),
        reason: verifiable.err(),
    }
}

fn text_of(line: &SpanLine<'_>) -> String {
    let reason = line.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!(
        "{:<6} {:<16} inc {:<2} [{}, {}) items: {}, base: {}, verifiable: {}{reason}",
        line.vat,
        line.name.unwrap_or("-"),
        line.incarnation,
        line.start,
        line.end,
        line.items,
        line.base,
        line.verifiable
    )
}
