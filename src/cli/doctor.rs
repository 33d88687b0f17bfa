//! `spanwatch doctor`: for a person who sets the verifier up beside a node.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::args::{DbArgs, Format, WorkerArgs};
use super::{CliError, Exit};
use crate::kernel_db::{Access, BundleRow, DbError, KernelDb};
use crate::plan::{Base, Obstacle, Outlook, Selection, Survey, plan};
use crate::record::bundle;
use crate::record::{ItemsAt, Origin};
use crate::replay::{Probe, WorkerProgram};
use crate::report::{history, json};
use crate::visible::{self, Out};
use crate::words::plural;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    db: DbArgs,
    #[command(flatten)]
    worker: WorkerArgs,
}

/// Which of the four kinds of node this is, going by what its database and archives hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Retention {
    /// Items and images.
    Everything,
    /// Items, but only the images that are in use.
    ItemsOnly,
    /// Nothing of closed spans, but archives have it.
    Archives,
    /// Nothing of closed spans.
    Nothing,
    /// Some closed spans this way, some that way: a setting was changed, or an archive is incomplete.
    Mixed,
    /// No span was closed yet.
    Unknown,
}

impl Retention {
    /// A sentence for people. `are_all_verifiable` is whether each closed span can be verified.
    fn meaning(self, are_all_verifiable: bool) -> &'static str {
        match self {
            Self::Everything => "every closed span can be verified by itself",
            Self::ItemsOnly => {
                "old images are gone, so closed spans are verified as a chain: each incarnation is replayed from its start"
            }
            Self::Archives => "closed spans are verified from the archives",
            Self::Nothing => {
                "the node deletes a span's items and image when the span closes, so `verify` has nothing to replay. `spanwatch run` beside \
                 the node copies them in time: spans that close from then on get the verdict partial (without the items of their last block)"
            }
            Self::Mixed if are_all_verifiable => {
                "every closed span can be verified; not all of them have items and images in the same place"
            }
            Self::Mixed => "some closed spans can be verified and some cannot; `spanwatch spans` says which and why",
            Self::Unknown => "no span has closed yet, so the node's retention is unknown",
        }
    }
}

/// How many closed spans have what.
#[derive(Debug, Default, Serialize)]
struct Kept {
    closed_spans: u64,
    items_in_database: u64,
    items_in_archive: u64,
    items_in_recorder: u64,
    base_blank: u64,
    base_in_database: u64,
    base_in_archive: u64,
    base_by_chaining: u64,
    verifiable: u64,
}

impl Kept {
    fn count(survey: &Survey, units: &[crate::plan::Unit]) -> Self {
        let mut kept = Self::default();
        let spans = units.iter().flatten().filter(|planned| !planned.is_local(survey));
        for planned in spans {
            kept.closed_spans += 1;
            // A broken history is told apart: it says nothing of what the node keeps.
            let are_parts_there =
                matches!(planned.outlook(survey), Outlook::Verifiable | Outlook::Not(Obstacle::HistoryBroken(_)));
            kept.verifiable += u64::from(are_parts_there);
            match planned.items {
                ItemsAt::Database => kept.items_in_database += 1,
                ItemsAt::Archive => kept.items_in_archive += 1,
                ItemsAt::Recorder => kept.items_in_recorder += 1,
                ItemsAt::Captured(_) | ItemsAt::Nowhere => {}
            }
            match planned.base {
                Base::Blank => kept.base_blank += 1,
                Base::Recorded { at: Origin::Database, .. } => kept.base_in_database += 1,
                Base::Recorded { .. } => kept.base_in_archive += 1,
                Base::Chained => kept.base_by_chaining += 1,
                Base::Gone(_) => {}
            }
        }
        kept
    }

    /// The last span of a vat to close tells what the node does now, but a vat that was cleaned up or a setting that was
    /// changed leaves others; so only what holds for all of them has a name.
    fn retention(&self) -> Retention {
        let with_base = self.closed_spans - self.base_blank;
        if self.closed_spans == 0 {
            Retention::Unknown
        } else if self.items_in_database == self.closed_spans && self.base_in_database == with_base {
            Retention::Everything
        } else if self.items_in_database == self.closed_spans && self.base_in_database == 0 {
            if self.base_in_archive == with_base { Retention::Archives } else { Retention::ItemsOnly }
        } else if self.items_in_archive == self.closed_spans && self.verifiable == self.closed_spans {
            Retention::Archives
        } else if self.items_in_database == 0 && self.items_in_archive == 0 {
            Retention::Nothing
        } else {
            Retention::Mixed
        }
    }

    /// What to write into `app.toml`, as lines of its section `[swingset]`, each with what it is good for.
    fn proposals(&self, db: &Path, args: &DbArgs) -> Vec<(String, &'static str)> {
        let mut proposals = Vec::new();
        // Beside the directory of the database, where the node may write.
        let data = db.parent().and_then(Path::parent).unwrap_or(db).display();
        let items = self.items_in_database + self.items_in_archive;
        if items < self.closed_spans {
            proposals.push((
                format!("vat-transcript-archive-dir = \"{data}/transcript-archive\""),
                "writes each span that closes to a file; name the directory with --transcript-archive \
                 (or keep items in the database: vat-transcript-retention = \"archival\"; versions u17 to u21 stop \
                 when a vat is terminated while this directory is set)",
            ));
        }
        if self.base_blank + self.base_in_database + self.base_in_archive < self.closed_spans
            && args.snapshot_archive.is_none()
        {
            proposals.push((
                format!("vat-snapshot-archive-dir = \"{data}/snapshot-archive\""),
                "writes each heap snapshot to a file; name the directory with --snapshot-archive \
                 (or keep images in the database: vat-snapshot-retention = \"debug\")",
            ));
        }
        proposals
    }
}

#[derive(Debug, Serialize)]
struct Report {
    r#type: &'static str,
    database: String,
    node: &'static str,
    host_height: Option<String>,
    crank_number: Option<String>,
    retention: Retention,
    meaning: &'static str,
    kept: Kept,
    open_spans: u64,
    bundles: u64,
    bundle_faults: Vec<String>,
    workers: Vec<WorkerProgram>,
    worker_fault: Option<String>,
    archive_faults: Vec<String>,
    row_faults: Vec<String>,
    history: Vec<String>,
    breaks: u64,
    app_toml: Vec<String>,
    #[serde(skip)]
    proposals: Vec<(String, &'static str)>,
}

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    let (record, survey, archive_faults) = args.db.open_to_examine()?;
    let db = &record.db;
    let units = plan(&survey, &record, &Selection::default());
    let kept = Kept::count(&survey, &units);
    let (workers, worker_fault) = match args.worker.find(db) {
        Ok(workers) => (workers, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let (host_height, crank_number, bundles) =
        db.read(|reader| Ok((reader.kv("host.height")?, reader.kv("crankNumber")?, reader.bundles()?)))?;
    let bundle_faults = check_bundles(db, &bundles)?;
    let retention = kept.retention();
    let proposals = kept.proposals(db.path(), &args.db);
    let report = Report {
        r#type: "doctor",
        database: db.path().display().to_string(),
        node: match db.access()? {
            Access::Live => "running",
            Access::Down => "not running",
            Access::Crashed => "not running, and its last commits are only in the -wal file, so a copy is read",
        },
        host_height,
        crank_number,
        meaning: match retention {
            Retention::Nothing if kept.items_in_recorder > 0 => {
                "the node deletes a span's items and image when the span closes; its flight recorder still has the items of recent spans, \
                 and `verify` reads them from there"
            }
            _ => retention.meaning(kept.verifiable == kept.closed_spans),
        },
        retention,
        open_spans: survey.spans.iter().filter(|(row, _)| row.is_current).count() as u64,
        bundles: bundles.len() as u64,
        bundle_faults,
        workers,
        worker_fault,
        archive_faults,
        row_faults: survey.faults,
        history: history::text_lines(&survey.history),
        breaks: survey.history.breaks().len() as u64,
        app_toml: proposals.iter().map(|(line, _)| line.clone()).collect(),
        kept,
        proposals,
    };
    let is_well = report.bundle_faults.is_empty()
        && report.worker_fault.is_none()
        && report.archive_faults.is_empty()
        && report.row_faults.is_empty()
        && report.history.is_empty();
    let mut out = visible::stdout();
    match args.db.format {
        Format::Json => writeln!(out, "{}", json::line(&report))?,
        Format::Text => write_text(&mut out, &report)?,
    }
    Ok(if is_well && report.kept.verifiable == report.kept.closed_spans { Exit::Verified } else { Exit::Incomplete })
}

/// Proves every bundle; what is wrong with which. One read a bundle: each may have megabytes.
fn check_bundles(db: &KernelDb, rows: &[BundleRow]) -> Result<Vec<String>, DbError> {
    let mut faults = Vec::new();
    for row in rows {
        if !row.is_present {
            faults.push(format!(
                "bundle {} is NULL: an import left it out; copy it from another node's database",
                row.id
            ));
            continue;
        }
        if let Some(bytes) = db.read(|reader| reader.bundle(&row.id))?.flatten()
            && let Err(error) = bundle::prove(&row.id, &bytes)
        {
            faults.push(format!("bundle {}: {error}; copy it from another node's database", row.id));
        }
    }
    Ok(faults)
}

fn write_text(out: &mut Out<impl Write>, report: &Report) -> io::Result<()> {
    write_node(out, report)?;
    write_workers(out, report)?;
    let good = report.bundles - report.bundle_faults.len() as u64;
    writeln!(out, "bundles    {good} of {} match their IDs", report.bundles)?;
    for fault in &report.bundle_faults {
        writeln!(out, "           FAULT {fault}")?;
    }
    for fault in &report.archive_faults {
        writeln!(out, "archives   FAULT {fault}")?;
    }
    for fault in &report.row_faults {
        writeln!(out, "rows       FAULT {fault}")?;
    }
    if report.history.is_empty() {
        writeln!(out, "history    each vat's rows form one chain")?;
    }
    for line in &report.history {
        writeln!(out, "history    {line}")?;
    }
    if report.proposals.is_empty() {
        return writeln!(out, "app.toml   nothing to change");
    }
    writeln!(out, "app.toml   for spans that close from now on, in section [swingset]:")?;
    for (line, reason) in &report.proposals {
        writeln!(out, "             {line}")?;
        writeln!(out, "               {reason}")?;
    }
    Ok(())
}

/// The node: its database, its height, and what it keeps of closed spans.
fn write_node(out: &mut Out<impl Write>, report: &Report) -> io::Result<()> {
    writeln!(out, "database   {}", report.database)?;
    let position = match (&report.host_height, &report.crank_number) {
        (Some(height), Some(crank)) => format!(", at block {height}, crank {crank}"),
        (None, Some(crank)) => format!(", at crank {crank}"),
        _ => String::new(),
    };
    writeln!(out, "node       {}{position}", report.node)?;
    let kept = &report.kept;
    let word = match report.retention {
        Retention::Everything => "everything is kept",
        Retention::ItemsOnly => "items are kept, old images are gone",
        Retention::Archives => "pruned, with archives",
        Retention::Nothing => "pruned, without archives",
        Retention::Mixed if kept.verifiable == kept.closed_spans => "kept in several places",
        Retention::Mixed => "mixed",
        Retention::Unknown => "unknown",
    };
    writeln!(out, "retention  {word}: {}", report.meaning)?;
    writeln!(
        out,
        "           {}, {} verifiable; {} open",
        plural(kept.closed_spans, "closed span", "closed spans"),
        kept.verifiable,
        report.open_spans
    )?;
    writeln!(
        out,
        "           items: {} in the database, {} in the archive, {} in the flight recorder",
        kept.items_in_database, kept.items_in_archive, kept.items_in_recorder
    )?;
    writeln!(
        out,
        "           start: {} blank, {} from images in the database, {} from images in the archive, {} by chaining",
        kept.base_blank, kept.base_in_database, kept.base_in_archive, kept.base_by_chaining
    )
}

/// The workers, and the sandbox of each.
fn write_workers(out: &mut Out<impl Write>, report: &Report) -> io::Result<()> {
    for worker in &report.workers {
        writeln!(out, "worker     {} ({}, sha256 {})", worker.path.display(), worker.version, worker.sha256)?;
        writeln!(out, "           {}", worker.found_by)?;
    }
    for worker in &report.workers {
        let labels: Vec<&str> = worker.protection.layers.iter().map(|layer| layer.label()).collect();
        writeln!(out, "sandbox    {}: {}", worker.protection.mode.label(), labels.join(", "))?;
        for missing in &worker.protection.missing {
            writeln!(out, "           without {}: {}", missing.layer.label(), missing.reason)?;
        }
        if let Some(Probe { nests, .. }) = &worker.protection.probe {
            let zone = worker.sandbox.time_zone();
            writeln!(out, "           self-test: recursion limit {nests}; time zone {}", zone.display())?;
        }
        if let Some(uncompared) = &worker.protection.uncompared {
            writeln!(out, "           {uncompared}")?;
        }
    }
    if let Some(fault) = &report.worker_fault {
        writeln!(out, "worker     FAULT {fault}")?;
    }
    Ok(())
}
