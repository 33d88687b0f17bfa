//! `spanwatch audit`: the kernel's answers and its vatstores, against the transcripts alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::args::{DbArgs, Format};
use super::{CliError, Exit};
use crate::audit::{Auditor, Compared, Contradiction, End, EndCompared, Fault, KeysLimit, VatAudit};
use crate::kernel_db::{Access, KernelDb, Reader, SpanRow, VatOptions, WorkerType};
use crate::plan::{Selection, Survey};
use crate::report::json;
use crate::transcript::VatId;
use crate::visible::{self, Lines};
use crate::words::{plural, vat_name};

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    db: DbArgs,
    /// Only this vat, by ID or name; repeatable
    #[arg(long = "vat", value_name = "ID|NAME")]
    vats: Vec<String>,
    /// Memory for the keys of a vat; further keys go to a temporary file
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    memory_max: u64,
    /// Directory of that temporary file [default: $TMPDIR, else /tmp]
    #[arg(long, value_name = "DIR")]
    temp: Option<PathBuf>,
}

/// What can be said of a vat, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Nothing contradicts.
    Consistent,
    /// Something does.
    Contradicted,
    /// Nothing contradicts, but a part of the record is damaged or could not be read.
    Incomplete,
    /// There was nothing to compare.
    Unchecked,
}

impl Status {
    fn of(audit: &VatAudit) -> Self {
        let is_end_lost = matches!(audit.end, End::Skipped(_)) && audit.spans_followed > 0;
        match audit {
            _ if !audit.contradictions.is_empty() => Self::Contradicted,
            _ if !audit.faults.is_empty() || is_end_lost => Self::Incomplete,
            _ if is_nothing(audit) => Self::Unchecked,
            _ => Self::Consistent,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::Contradicted => "CONTRADICTED",
            Self::Incomplete => "incomplete",
            Self::Unchecked => "-",
        }
    }
}

/// A whole history that reads nothing and has no key is checked all the same: there could be rows.
fn is_nothing(audit: &VatAudit) -> bool {
    let Compared { determined, forms, .. } = audit.compared;
    let keys = match audit.end {
        End::Compared(EndCompared { keys, is_complete, .. }) => keys + u64::from(is_complete),
        End::Skipped(_) => 0,
    };
    determined + forms + keys == 0
}

#[derive(Debug, Serialize)]
struct VatLine<'a> {
    r#type: &'static str,
    vat: &'a str,
    name: Option<&'a str>,
    status: Status,
    spans: u64,
    spans_followed: u64,
    spans_pruned: u64,
    whole: bool,
    items: u64,
    reads_checked: u64,
    reads_undetermined: u64,
    forms_checked: u64,
    rows: Option<u64>,
    keys_checked: Option<u64>,
    cleaned_up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_skipped: Option<&'static str>,
    contradictions: &'a [Contradiction],
    contradictions_total: u64,
    faults: Vec<FaultLine<'a>>,
}

#[derive(Debug, Serialize)]
struct FaultLine<'a> {
    start: u64,
    reason: &'static str,
    damage: bool,
    explanation: &'a str,
}

#[derive(Debug, Serialize)]
struct SkippedLine<'a> {
    r#type: &'static str,
    vat: &'a str,
    name: Option<&'a str>,
    reason: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    r#type: &'static str,
    spanwatch: &'static str,
    vats: u64,
    skipped: u64,
    spans: u64,
    spans_followed: u64,
    spans_pruned: u64,
    items: u64,
    reads_checked: u64,
    reads_undetermined: u64,
    forms_checked: u64,
    keys_checked: u64,
    contradictions: u64,
    faults: u64,
    ends_skipped: u64,
    seconds: f64,
}

impl Summary {
    fn add(&mut self, audit: &VatAudit) {
        self.vats += 1;
        self.spans += audit.spans;
        self.spans_followed += audit.spans_followed;
        self.spans_pruned += audit.spans_pruned;
        self.items += audit.compared.items;
        self.reads_checked += audit.compared.determined;
        self.reads_undetermined += audit.compared.undetermined;
        self.forms_checked += audit.compared.forms;
        self.contradictions += audit.contradictions.total;
        self.faults += audit.faults.len() as u64;
        match audit.end {
            End::Compared(EndCompared { keys, .. }) => self.keys_checked += keys,
            End::Skipped(_) => self.ends_skipped += u64::from(audit.spans_followed > 0),
        }
    }

    fn exit(&self, are_all_rows_readable: bool) -> Exit {
        let checked = self.reads_checked + self.forms_checked + self.keys_checked;
        if self.contradictions > 0 {
            Exit::Diverged
        } else if self.faults + self.ends_skipped > 0 || checked == 0 || !are_all_rows_readable {
            Exit::Incomplete
        } else {
            Exit::Verified
        }
    }
}

pub(super) fn run(args: &AuditArgs) -> Result<Exit, CliError> {
    let began = Instant::now();
    let (record, survey) = args.db.open(&args.vats)?;
    let db = &record.db;
    let selection = Selection { vats: args.vats.clone(), ..Selection::default() };
    if let Some(unknown) = selection.unknown_vats(&survey).first() {
        return Err(CliError::UnknownVat { unknown: (*unknown).to_owned() });
    }
    if db.access()? == Access::Live {
        // A refusal is no reason not to check.
        let _ = rustix::process::nice(19);
    }
    let memory_max = usize::try_from(args.memory_max << 20).unwrap_or(usize::MAX);
    let auditor = Auditor { record: &record, limit: KeysLimit { memory_max, temp: args.temp.clone() } };
    let mut summary = Summary { r#type: "summary", spanwatch: env!("CARGO_PKG_VERSION"), ..Summary::default() };
    let mut out = visible::stdout();
    let mut written: io::Result<()> = Ok(());
    let mut tell = |line: String| {
        if written.is_ok() {
            written = out.write_lines(&line);
        }
    };
    let skipped = without_transcript(db, &survey, &selection)?;
    for rows in survey.spans.chunk_by(|(one, _), (other, _)| one.id.vat == other.id.vat) {
        let vat = &rows[0].0.id.vat;
        if skipped.contains_key(vat) {
            continue;
        }
        let audit = auditor.audit(vat, rows)?;
        summary.add(&audit);
        let name = survey.name_of(vat);
        tell(match args.db.format {
            Format::Text => told(&audit, name),
            Format::Json => line(&audit, name),
        });
    }
    // A clean-up takes a vat's keys before its spans.
    let are_spans_gone = skipped.values().any(|reason| *reason == SPANS_GONE);
    for (vat, reason) in skipped {
        summary.skipped += 1;
        let name = survey.name_of(&vat);
        tell(match args.db.format {
            Format::Text => format!("{:<14} {vat:<6} {:<16} not checked: {reason}", "-", vat_name(name)),
            Format::Json => json::line(&SkippedLine { r#type: "skipped", vat: vat.as_str(), name, reason }),
        });
    }
    summary.seconds = json::seconds(began.elapsed());
    tell(match args.db.format {
        Format::Text => told_summary(&summary, began.elapsed()),
        Format::Json => json::line(&summary),
    });
    let exit = summary.exit(survey.faults.is_empty() && !are_spans_gone);
    // Where nobody reads on, the exit code can still tell of a contradiction.
    if exit != Exit::Diverged {
        written?;
    }
    Ok(exit)
}

/// Why the keys of a vat are not checked although no kernel leaves them so.
const SPANS_GONE: &str = "its spans are gone, and its keys are not";

/// The vats of which there is no transcript, each with the reason. The kernel's options are believed only where the vat has no
/// item: comms has an open span that stays empty.
fn without_transcript(
    db: &KernelDb,
    survey: &Survey,
    selection: &Selection,
) -> Result<BTreeMap<VatId, &'static str>, CliError> {
    const MEANT: &str = "the kernel keeps no transcript of it";
    let mut counts: BTreeMap<&VatId, u64> = BTreeMap::new();
    for (SpanRow { id, .. }, items_present) in &survey.spans {
        *counts.entry(&id.vat).or_default() += id.end.abs_diff(id.start) + items_present;
    }
    // A kernel keeps the transcript of each vat that runs in a worker of its own, whatever an edited row says.
    let is_local =
        |vat: &VatId| matches!(survey.options_of(vat), Ok(VatOptions { worker_type: Some(WorkerType::Local), .. }));
    let keeps_none =
        |reader: &Reader<'_>, vat: &VatId| Ok::<_, rusqlite::Error>(is_local(vat) && reader.keeps_no_transcript(vat)?);
    Ok(db.read(|reader: &Reader<'_>| {
        let mut skipped = BTreeMap::new();
        for (vat, _) in counts.iter().filter(|(_, items)| **items == 0) {
            if keeps_none(reader, vat)? {
                skipped.insert((*vat).clone(), MEANT);
            }
        }
        // Beside those that were asked for nobody asks for others.
        let others = if selection.vats.is_empty() { reader.vats_with_vatstore()? } else { BTreeSet::new() };
        for vat in others.into_iter().filter(|vat| !counts.contains_key(vat)) {
            let reason = if keeps_none(reader, &vat)? { MEANT } else { SPANS_GONE };
            skipped.insert(vat, reason);
        }
        Ok(skipped)
    })?)
}

fn line(audit: &VatAudit, name: Option<&str>) -> String {
    let (end, end_skipped) = match audit.end {
        End::Compared(end) => (Some(end), None),
        End::Skipped(why) => (None, Some(why)),
    };
    json::line(&VatLine {
        r#type: "audit",
        vat: audit.vat.as_str(),
        name,
        status: Status::of(audit),
        spans: audit.spans,
        spans_followed: audit.spans_followed,
        spans_pruned: audit.spans_pruned,
        whole: audit.is_whole,
        items: audit.compared.items,
        reads_checked: audit.compared.determined,
        reads_undetermined: audit.compared.undetermined,
        forms_checked: audit.compared.forms,
        rows: end.map(|end| end.rows),
        keys_checked: end.map(|end| end.keys),
        cleaned_up: end.is_some_and(|end| end.is_cleaned_up),
        end_skipped,
        contradictions: &audit.contradictions.kept,
        contradictions_total: audit.contradictions.total,
        faults: audit
            .faults
            .iter()
            .map(|Fault { start, reason, is_damage, explanation }| FaultLine {
                start: *start,
                reason,
                damage: *is_damage,
                explanation,
            })
            .collect(),
    })
}

fn told(audit: &VatAudit, name: Option<&str>) -> String {
    let Compared { determined, undetermined, forms, items } = audit.compared;
    let mut first = format!(
        "{:<14} {:<6} {:<16} {} of {} followed, {}: {} and {} checked",
        Status::of(audit).label(),
        audit.vat,
        vat_name(name),
        audit.spans_followed,
        plural(audit.spans, "span", "spans"),
        plural(items, "item", "items"),
        plural(determined, "read", "reads"),
        plural(forms, "other response", "other responses"),
    );
    if undetermined > 0 {
        first.push_str(&format!(", {} not determined", plural(undetermined, "read", "reads")));
    }
    match audit.end {
        End::Compared(EndCompared { rows, keys, is_complete, is_cleaned_up }) => {
            let whole = if is_complete { "" } else { ", the others are not known" };
            let cleaned = if is_cleaned_up { ", a part is cleaned up" } else { "" };
            let (keys, rows) = (plural(keys, "key", "keys"), plural(rows, "row", "rows"));
            first.push_str(&format!("; {keys} compared with {rows} of kvStore{whole}{cleaned}"));
        }
        End::Skipped(why) => first.push_str(&format!("; kvStore not compared: {why}")),
    }
    let mut lines = Lines::default();
    writeln!(lines, "{first}");
    for contradiction in &audit.contradictions.kept {
        writeln!(lines, "    contradicted at {}:{}, {contradiction}", audit.vat, contradiction.position);
    }
    let unsaid = audit.contradictions.total - audit.contradictions.kept.len() as u64;
    if unsaid > 0 {
        writeln!(lines, "    and {}", plural(unsaid, "more contradiction", "more contradictions"));
    }
    for Fault { start, reason, explanation, .. } in &audit.faults {
        writeln!(lines, "    the span that starts at {start} could not be followed: {reason}: {explanation}");
    }
    lines.into_text_without_end()
}

fn told_summary(summary: &Summary, took: Duration) -> String {
    let Summary { vats, skipped, spans, spans_followed, spans_pruned, items, .. } = summary;
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let a_second = *items as f64 / took.as_secs_f64().max(1e-9);
    let mut text = format!(
        "{}: {} and {} checked, {} compared with kvStore; {}",
        plural(*vats, "vat", "vats"),
        plural(summary.reads_checked, "read", "reads"),
        plural(summary.forms_checked, "other response", "other responses"),
        plural(summary.keys_checked, "key", "keys"),
        match summary.contradictions {
            0 => "nothing contradicts".to_owned(),
            some => plural(some, "CONTRADICTION", "CONTRADICTIONS"),
        },
    );
    text.push_str(&format!(
        "\n{spans_followed} of {} followed, {} in {:.1} s ({a_second:.0} a second)",
        plural(*spans, "span", "spans"),
        plural(*items, "item", "items"),
        took.as_secs_f64()
    ));
    for (count, what) in [
        (*spans_pruned, "pruned by the node: what was read after them is checked as far as it is known"),
        (summary.faults, "damaged or unreadable"),
        (summary.ends_skipped, "without a comparison with kvStore"),
        (*skipped, "without a transcript"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {what}"));
        }
    }
    text
}
