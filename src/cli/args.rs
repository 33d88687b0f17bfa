//! Arguments that several commands share: the database, the selection of spans, the worker and its limits.
//!
//! Owns how a flag's text becomes a value. Must never replay or print a result.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::CliError;
use crate::evidence::Case;
use crate::kernel_db::KernelDb;
use crate::plan::{Selection, Survey};
use crate::record::archives::Archives;
use crate::replay::{Limits, LocateError, Named, WorkerProgram};
use crate::sandbox::{Group, Mode, NOBODY, Settings};

#[derive(Debug, Args)]
pub(super) struct DbArgs {
    /// The kernel's database: the file swingstore.sqlite or the directory that holds it
    #[arg(value_name = "DB")]
    pub(super) db: PathBuf,
    /// The node's vat-transcript-archive-dir: items that were pruned are read from there
    #[arg(long, value_name = "DIR")]
    pub(super) transcript_archive: Option<PathBuf>,
    /// The node's vat-snapshot-archive-dir: images that were pruned are read from there
    #[arg(long, value_name = "DIR")]
    pub(super) snapshot_archive: Option<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

impl DbArgs {
    /// Without archives.
    pub(super) fn of(db: &Path, format: Format) -> Self {
        Self { db: db.to_owned(), transcript_archive: None, snapshot_archive: None, format }
    }

    /// Finds the database and its archives, and looks at what is there of some vats, or of all. Rows that can't be read
    /// are told at once.
    pub(super) fn open(&self, vats: &[String]) -> Result<(KernelDb, Archives, Survey), CliError> {
        let db = KernelDb::locate(&self.db)?;
        let archives = Archives::open(self.transcript_archive.as_deref(), self.snapshot_archive.as_deref())?;
        let survey = Survey::read(&db, vats)?;
        for fault in &survey.faults {
            tracing::warn!("{fault}");
        }
        Ok((db, archives, survey))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Lines for people
    #[value(alias = "human")]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
pub(super) struct SelectionArgs {
    /// Only this vat, by ID or name; may be given several times
    #[arg(long = "vat", value_name = "ID|NAME")]
    pub(super) vats: Vec<String>,
    /// Only spans with a position in this range, END not included
    #[arg(long = "span", value_name = "START..END", value_parser = parse_range)]
    pub(super) positions: Option<(u64, u64)>,
    /// Only spans of this incarnation, from 0
    #[arg(long, value_name = "N")]
    pub(super) incarnation: Option<u64>,
}

impl SelectionArgs {
    /// What is asked for; a vat that the database does not have is an error, not an empty answer.
    pub(super) fn selection(self, survey: &Survey) -> Result<Selection, CliError> {
        let selection = Selection { vats: self.vats, positions: self.positions, incarnation: self.incarnation };
        match selection.unknown_vats(survey).first() {
            Some(unknown) => Err(CliError::UnknownVat { unknown: (*unknown).to_owned() }),
            None => Ok(selection),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// The xsnap-worker to replay with; several may be given, and each replays every span [default: $SPANWATCH_WORKER, else
    /// $XSNAP_WORKER, else the one of @agoric/xsnap in or above the working directory]
    #[arg(long = "worker", value_name = "PATH")]
    workers: Vec<PathBuf>,
    /// What workers are kept in: default refuses to run without the base, strict unless every layer holds
    #[arg(long, value_name = "strict|default|off", default_value = "default", env = "SPANWATCH_WORKER_SANDBOX")]
    sandbox: Mode,
    /// The user and group that workers run as where we are root
    #[arg(long, value_name = "UID", default_value_t = NOBODY, value_parser = clap::value_parser!(u32).range(1..))]
    worker_user: u32,
    /// The node's TZ, which vats can see [default: what the evidence says, else our own TZ, else UTC]
    #[arg(long, value_name = "ZONE")]
    worker_tz: Option<OsString>,
    /// A delivery may take this much processor time
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    delivery_cpu_max: u64,
    /// All deliveries of a span may take this much processor time
    #[arg(long, value_name = "SECONDS", default_value_t = 14_400, value_parser = clap::value_parser!(u64).range(1..))]
    span_cpu_max: u64,
    /// A delivery may take this long by the clock; what the worker waits for a processor does not count
    #[arg(long, value_name = "SECONDS", default_value_t = 1_800, value_parser = clap::value_parser!(u64).range(1..))]
    delivery_wall_max: u64,
    /// All of a span may take this long by the clock, counted in the same way
    #[arg(long, value_name = "SECONDS", default_value_t = 28_800, value_parser = clap::value_parser!(u64).range(1..))]
    span_wall_max: u64,
    /// A worker may do nothing for this long while something is expected of it
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    stall_max: u64,
    /// A worker may have this much memory
    #[arg(long, value_name = "MIB", default_value_t = 6144, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    worker_memory_max: u64,
    /// The stack that workers start with, as `ulimit -s` of the node: decides how deep vats may recurse [default: 8, or
    /// what the evidence says]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 10))]
    worker_stack: Option<u64>,
}

impl WorkerArgs {
    /// For a database.
    pub(super) fn find(&self, db: &KernelDb) -> Result<Vec<WorkerProgram>, CliError> {
        Ok(self.find_in(db.path().parent(), self.worker_tz.clone(), &self.limits())?)
    }

    /// For a span of which evidence was kept: with the time zone and the stack of its worker, where nothing else is asked
    /// for. The worker itself is found as for any span: evidence may come from anybody, and its path may be a stranger's.
    pub(super) fn find_for(&self, case: &Case) -> Result<Vec<WorkerProgram>, CliError> {
        let zone = match &self.worker_tz {
            Some(zone) => zone.clone(),
            None => case.time_zone()?.into(),
        };
        self.find_in(Some(case.dir()), Some(zone), &self.limits_for(case)?).map_err(|source| match source {
            LocateError::NotFound(_) | LocateError::Distrusted { .. } | LocateError::CameAlong { .. } => {
                CliError::WantedWorker { source, wanted: case.wanted_worker() }
            }
            source => source.into(),
        })
    }

    pub(super) fn limits_for(&self, case: &Case) -> Result<Limits, CliError> {
        let stack = match self.worker_stack {
            Some(mib) => mib << 20,
            None => case.stack()?,
        };
        Ok(Limits { stack, ..self.limits() })
    }

    fn find_in(
        &self,
        not_in: Option<&Path>,
        zone: Option<OsString>,
        limits: &Limits,
    ) -> Result<Vec<WorkerProgram>, LocateError> {
        let settings = Settings {
            mode: self.sandbox,
            user: Some(self.worker_user),
            time_zone: zone,
            group: Group::delegated(),
            policy: None,
            huge_pages: true,
        };
        if self.sandbox == Mode::Off {
            tracing::warn!("the sandbox is off: the code that vats run can do whatever this user can (--sandbox)");
        }
        let named = Named { not_in: not_in.map(Path::to_path_buf), ..Named::by_option(&self.workers) };
        let programs = WorkerProgram::find(&named, &settings, limits)?;
        for program in &programs {
            if let Some(uncompared) = &program.sandbox.uncompared {
                tracing::info!("{}: {uncompared}", program.path.display());
            }
        }
        Ok(programs)
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            stall_max: Duration::from_secs(self.stall_max),
            delivery_cpu_max: Duration::from_secs(self.delivery_cpu_max),
            span_cpu_max: Duration::from_secs(self.span_cpu_max),
            delivery_max: Duration::from_secs(self.delivery_wall_max),
            span_max: Duration::from_secs(self.span_wall_max),
            resident_max: self.worker_memory_max << 20,
            stack: self.worker_stack.unwrap_or(STACK_MIB) << 20,
            ..Limits::default()
        }
    }
}

/// The stack of processes that nobody has told otherwise.
const STACK_MIB: u64 = 8;

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
    match parsed {
        Some((start, end)) if start < end => Ok((start, end)),
        Some(_) => Err("START must be less than END".to_owned()),
        None => Err("expected two positions, as in 100..200".to_owned()),
    }
}

/// As many replays at once as there are processors for us.
pub(super) fn default_jobs() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("3..17"), Ok((3, 17)));
        for text in ["3", "3..", "..3", "a..b", "5..5", "7..5", "-1..5"] {
            parse_range(text).expect_err(text);
        }
    }
}
