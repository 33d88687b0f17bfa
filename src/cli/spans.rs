//! `spanwatch spans`.

use std::collections::HashMap;

use clap::Args;
use serde::Serialize;

use super::args::{DbArgs, Format, SelectionArgs};
use super::verify::write_history;
use super::{CliError, Exit};
use crate::kernel_db::SpanRow;
use crate::plan::{Obstacle, Outlook, PlannedSpan, Survey, plan};
use crate::record::ItemsAt;
use crate::report::json;
use crate::span::{BaseKind, SpanEnds};
use crate::transcript::SpanId;
use crate::visible;
use crate::words::{plural, vat_name};

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
    ends: Option<SpanEnds>,
    items: &'static str,
    items_present: u64,
    base: BaseKind,
    #[serde(serialize_with = "label")]
    verifiable: Outlook,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damage: bool,
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
    breaks: u64,
    begin_late: u64,
}

pub(super) fn run(args: SpansArgs) -> Result<Exit, CliError> {
    let (record, survey) = args.db.open(&args.selection.vats)?;
    let selection = args.selection.selection(&survey)?;
    let mut out = visible::buffered_stdout();
    let mut summary = SummaryLine { r#type: "summary", ..SummaryLine::default() };
    let units = plan(&survey, &record, &selection);
    let planned: HashMap<&SpanId, &PlannedSpan> =
        units.iter().flatten().map(|planned| (&planned.row.id, planned)).collect();
    for (row, items_present) in survey.spans.iter().filter(|(row, _)| selection.has(&survey, row)) {
        let line = match planned.get(&row.id) {
            Some(planned) => describe(planned, &survey),
            None => describe_open(row, *items_present, &survey),
        };
        match line.verifiable {
            Outlook::Verifiable => summary.verifiable += 1,
            Outlook::Local => summary.local += 1,
            Outlook::Open => summary.open += 1,
            Outlook::Not(_) => summary.not_verifiable += 1,
        }
        summary.spans += u64::from(line.verifiable != Outlook::Open);
        summary.by_chaining += u64::from(line.verifiable == Outlook::Verifiable && line.base == BaseKind::Chained);
        match args.db.format {
            Format::Json => writeln!(out, "{}", json::line(&line))?,
            Format::Text => writeln!(out, "{}", text_of(&line))?,
        }
    }
    write_history(&mut out, args.db.format, &survey.history)?;
    summary.breaks = survey.history.breaks().len() as u64;
    summary.begin_late = survey.history.gaps().len() as u64;
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
    let is_sound = survey.faults.is_empty() && survey.history.is_whole();
    Ok(if summary.not_verifiable == 0 && is_sound { Exit::Verified } else { Exit::Incomplete })
}

fn describe<'a>(planned: &'a PlannedSpan, survey: &'a Survey) -> SpanLine<'a> {
    let id = &planned.row.id;
    let verifiable = planned.outlook(survey);
    let (reason, damage) = match &verifiable {
        Outlook::Not(obstacle) => (Some(obstacle.to_string()), matches!(obstacle, Obstacle::HistoryBroken(_))),
        Outlook::Verifiable | Outlook::Local | Outlook::Open => (None, false),
    };
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
            ItemsAt::Captured(_) => "captured",
            ItemsAt::Recorder => "recorder",
            ItemsAt::Nowhere => "pruned",
        },
        items_present: planned.items_present,
        base: planned.base.kind(),
        verifiable,
        reason,
        damage,
    }
}

fn label<S: serde::Serializer>(outlook: &Outlook, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(outlook.label())
}

/// A span to which items are still added. Its items and the image that it starts from are always there.
fn describe_open<'a>(row: &'a SpanRow, items_present: u64, survey: &'a Survey) -> SpanLine<'a> {
    let id = &row.id;
    let image = id.start.checked_sub(1).map(|position| (id.vat.clone(), position));
    let has_image = image.is_some_and(|image| survey.snapshots.contains_key(&image));
    let broken = survey.history.reason(id);
    SpanLine {
        r#type: "span",
        vat: id.vat.as_str(),
        name: survey.name_of(&id.vat),
        incarnation: row.incarnation,
        start: id.start,
        end: id.end,
        ends: None,
        items: "database",
        items_present,
        base: if has_image { BaseKind::Recorded } else { BaseKind::Blank },
        verifiable: Outlook::Open,
        damage: broken.is_some(),
        reason: Some(
            broken.map_or_else(|| "still open; verified once it closes".to_owned(), |reason| reason.to_string()),
        ),
    }
}

fn text_of(line: &SpanLine<'_>) -> String {
    let reason = line.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!(
        "{:<6} {:<16} inc {:<2} [{}, {}) items: {}, base: {}, verifiable: {}{reason}",
        line.vat,
        vat_name(line.name),
        line.incarnation,
        line.start,
        line.end,
        line.items,
        line.base.label(),
        line.verifiable.label()
    )
}
