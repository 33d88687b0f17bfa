//! The program: arguments, commands, exit codes.

mod audit;
mod doctor;
mod evidence;
mod run;
mod snapshot;
mod spans;
mod verdicts;
mod verify;

use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::audit::AuditError;
use crate::daemon::DaemonError;
use crate::daemon::config::ConfigError;
use crate::daemon::neighbour;
use crate::evidence::{Case, EvidenceError};
use crate::forensics::bisect::BisectError;
use crate::forensics::export::ExportError;
use crate::forensics::source::SourceError;
use crate::heap::HeapError;
use crate::kernel_db::{DbError, KernelDb};
use crate::plan::{Selection, Survey};
use crate::record::archives::{ArchiveError, Archives};
use crate::replay::{Limits, LocateError, Named, WorkerProgram};
use crate::sandbox::{Group, Mode, NOBODY, Settings};
use crate::store::StoreError;
use crate::visible;

/// How a one-shot command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was asked for was verified.
    Verified = 0,
    /// It could not run.
    CouldNotRun = 1,
    /// Wrong arguments, or a wrong configuration: the same again would fail again.
    BadUsage = 2,
    /// At least one divergence.
    Diverged = 3,
    /// Nothing diverged, but something could not be verified, or there was nothing to verify.
    Incomplete = 4,
}

/// Replays recorded SwingSet transcript spans in a real xsnap worker and says what differs from the record.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay closed spans and compare each with its record
    ///
    /// Exit codes: 0 all were verified; 1 could not run; 2 bad usage; 3 something diverged, or a response contradicts the
    /// record; 4 neither, but something could not be verified, or there was nothing to verify.
    Verify(verify::VerifyArgs),
    /// Check the kernel's answers and its key-value rows against the transcripts, without a worker
    ///
    /// A vat reads from its vatstore only its own writes. Exit codes: 0 nothing contradicts; 1 could not run; 2 bad
    /// usage; 3 something contradicts the transcripts; 4 nothing does, but a part of the record is damaged or could not be
    /// read, or there was nothing to check. What the node pruned is counted and does not decide the code.
    Audit(audit::AuditArgs),
    /// Watch a live database and give every span that closes a verdict
    ///
    /// Runs until SIGTERM or SIGINT and then exits with 0; 1 could not start; 2 bad usage or a wrong configuration.
    Run(Box<run::RunArgs>),
    /// List what the daemon has found, newest first, also while it runs
    ///
    /// Exit codes: 0; 1 could not run; 2 bad usage or a wrong configuration; 3 a divergence, a contradiction or a changed row
    /// among them is not acknowledged; 4 none of these is, but damage is not acknowledged.
    Verdicts(verdicts::VerdictsArgs),
    /// Acknowledge a divergence, a contradiction, damage or a changed row: it no longer counts in the alert
    Ack(verdicts::AckArgs),
    /// Print the configuration that `run` would have, with where each value comes from
    ///
    /// Exit codes: 0; 1 could not run; 2 bad usage or a wrong configuration.
    Config(Box<run::ShowArgs>),
    /// Replay the span of which evidence was kept, from the evidence alone, with any worker
    ///
    /// Exit codes as those of `verify`.
    Replay(evidence::ReplayArgs),
    /// Say in words what evidence shows, and what may be the cause
    Explain(evidence::ExplainArgs),
    /// Make a page for a browser of what evidence shows: one file, which needs no network
    Report(evidence::ReportArgs),
    /// Write evidence in a form that other tools read
    Export(evidence::ExportArgs),
    /// Find the delivery after which the heaps of two workers differ
    ///
    /// Exit codes: 0 they do not; 1 could not run; 2 bad usage; 3 they do.
    Bisect(Box<evidence::BisectArgs>),
    /// Pack or unpack an evidence folder
    Evidence(evidence::EvidenceCommandArgs),
    /// List the spans, what is there of each, and whether it can be verified
    ///
    /// Exit codes: 0; 1 could not run; 2 bad usage; 4 a span cannot be verified, or the rows of a vat do not make a history.
    Spans(spans::SpansArgs),
    /// Look into heap images: what is in one, and what differs between two
    Snapshot(snapshot::SnapshotArgs),
    /// Check what verifying this database needs, and say what to change
    ///
    /// Exit codes: 0 all can be verified; 1 could not run; 2 bad usage; 4 something is missing or damaged.
    Doctor(doctor::DoctorArgs),
}

#[derive(Debug, Args)]
struct DbArgs {
    /// The kernel's database: the file swingstore.sqlite or the directory that holds it
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// The node's vat-transcript-archive-dir: items that were pruned are read from there
    #[arg(long, value_name = "DIR")]
    transcript_archive: Option<PathBuf>,
    /// The node's vat-snapshot-archive-dir: images that were pruned are read from there
    #[arg(long, value_name = "DIR")]
    snapshot_archive: Option<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl DbArgs {
    /// Without archives.
    fn of(db: &Path, format: Format) -> Self {
        Self { db: db.to_owned(), transcript_archive: None, snapshot_archive: None, format }
    }

    /// Finds the database and its archives, and looks at what is there of some vats, or of all. Rows that can't be read
    /// are told at once.
    fn open(&self, vats: &[String]) -> Result<(KernelDb, Archives, Survey), CliError> {
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
enum Format {
    /// Lines for people
    #[value(alias = "human")]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
struct SelectionArgs {
    /// Only this vat, by ID or name; may be given several times
    #[arg(long = "vat", value_name = "ID|NAME")]
    vats: Vec<String>,
    /// Only spans with a position in this range, END not included
    #[arg(long = "span", value_name = "START..END", value_parser = parse_range)]
    positions: Option<(u64, u64)>,
    /// Only spans of this incarnation, from 0
    #[arg(long, value_name = "N")]
    incarnation: Option<u64>,
}

impl SelectionArgs {
    /// What is asked for; a vat that the database does not have is an error, not an empty answer.
    fn selection(self, survey: &Survey) -> Result<Selection, CliError> {
        let selection = Selection { vats: self.vats, positions: self.positions, incarnation: self.incarnation };
        match selection.unknown_vats(survey).first() {
            Some(unknown) => Err(CliError::UnknownVat { unknown: (*unknown).to_owned() }),
            None => Ok(selection),
        }
    }
}

#[derive(Debug, Args)]
struct WorkerArgs {
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
    fn find(&self, db: &KernelDb) -> Result<Vec<WorkerProgram>, CliError> {
        Ok(self.find_in(db.path().parent(), self.worker_tz.clone(), &self.limits())?)
    }

    /// For a span of which evidence was kept: with the time zone and the stack of its worker, where nothing else is asked
    /// for. The worker itself is found as for any span: evidence may come from anybody, and its path may be a stranger's.
    fn find_for(&self, case: &Case) -> Result<Vec<WorkerProgram>, CliError> {
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

    fn limits_for(&self, case: &Case) -> Result<Limits, CliError> {
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

    fn limits(&self) -> Limits {
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

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Database(#[from] DbError),
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error("{0}")]
    Worker(#[from] LocateError),
    #[error("{0}")]
    Audit(#[from] AuditError),
    #[error("{source}; the evidence is of the worker {wanted}")]
    WantedWorker { source: LocateError, wanted: String },
    #[error("no vat {unknown} in this database; `spanwatch spans` lists those that it has")]
    UnknownVat { unknown: String },
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Daemon(#[from] DaemonError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Evidence(#[from] EvidenceError),
    #[error("{0}")]
    Bisect(#[from] BisectError),
    #[error("{0}")]
    Export(#[from] ExportError),
    #[error("the record names no bundle {id}, so it can't be replaced: {why}")]
    NoSuchBundle { id: String, why: String },
    #[error("two workers are to be compared, and there are {count}: give --worker twice")]
    NotTwoWorkers { count: usize },
    #[error("failed to write {what} to {}: {source}", path.display())]
    Keep { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "no divergence {id} in this store, nor damage or a changed row of that name; `spanwatch verdicts --alarms` lists those that it has"
    )]
    UnknownDivergence { id: String },
    #[error("{0}")]
    ImageSource(#[from] SourceError),
    #[error("failed to read the image {name}: {source}")]
    Image { name: String, source: HeapError },
    #[error("no object {path} in the image {image}: {what}")]
    NoObject { path: String, image: String, what: String },
    #[error("failed to write the result: {0}")]
    Output(#[from] io::Error),
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
    match parsed {
        Some((start, end)) if start < end => Ok((start, end)),
        Some(_) => Err("START must be less than END".to_owned()),
        None => Err("expected two positions, as in 100..200".to_owned()),
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version repeat nothing; an error repeats an argument, which may come from elsewhere.
        Err(asked) if !asked.use_stderr() => asked.exit(),
        Err(error) => {
            let _ = visible::stderr().write_lines(&error.render().to_string());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Each replay takes some thirty descriptors, and machines with many processors run many.
    neighbour::raise_descriptor_limit();
    // The daemon's log is as it is configured.
    if !matches!(cli.command, Command::Run(_)) {
        crate::files::temp::remove_on_signals();
        crate::log::of_command();
    }
    let exit = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Verdicts(args) => verdicts::run(&args),
        Command::Ack(args) => verdicts::acknowledge(&args),
        Command::Config(args) => run::show(&args),
        Command::Verify(args) => verify::run(args),
        Command::Audit(args) => audit::run(&args),
        Command::Replay(args) => evidence::replay(&args),
        Command::Explain(args) => evidence::tell(&args),
        Command::Report(args) => evidence::page(&args),
        Command::Export(args) => evidence::export(&args),
        Command::Bisect(args) => evidence::narrow_down(&args),
        Command::Evidence(args) => evidence::run(&args),
        Command::Spans(args) => spans::run(args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    match exit {
        Ok(exit) => ExitCode::from(exit as u8),
        // Whoever read our output has seen enough.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::from(Exit::CouldNotRun as u8)
        }
        Err(error) => {
            tell(&error);
            let exit = if matches!(error, CliError::Config(_)) { Exit::BadUsage } else { Exit::CouldNotRun };
            ExitCode::from(exit as u8)
        }
    }
}

/// Says why a command could not run. Only faults of the configuration take more than a line, and the operator wrote that.
fn tell(error: &CliError) {
    let mut err = visible::stderr();
    let _ = match error {
        CliError::Config(error) => err.write_lines(&format!("spanwatch: {error}")),
        error => writeln!(err, "spanwatch: {error}"),
    };
}

/// As many replays at once as there are processors for us.
fn default_jobs() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ranges() {
        assert_eq!(parse_range("3..17"), Ok((3, 17)));
        for text in ["3", "3..", "..3", "a..b", "5..5", "7..5", "-1..5"] {
            parse_range(text).expect_err(text);
        }
    }
}
