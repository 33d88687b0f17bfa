//! The program: arguments, commands, exit codes.

mod args;
mod audit;
mod bisect;
mod chain;
mod completions;
mod doctor;
mod evidence;
mod explain;
mod export;
mod replay;
mod run;
mod snapshot;
mod spans;
mod verdicts;
mod verify;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::audit::AuditError;
use crate::daemon::DaemonError;
use crate::daemon::config::ConfigError;
use crate::daemon::neighbour;
use crate::evidence::EvidenceError;
use crate::forensics::bisect::BisectError;
use crate::forensics::export::ExportError;
use crate::forensics::source::SourceError;
use crate::heap::HeapError;
use crate::heap::query::PathError;
use crate::kernel_db::DbError;
use crate::log::Wishes;
use crate::record::RecorderError;
use crate::record::archives::ArchiveError;
use crate::replay::LocateError;
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

/// Replays recorded SwingSet transcript spans in a real xsnap worker and reports each difference from the record
#[derive(Debug, Parser)]
#[command(version = crate::VERSION, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

/// How loud the log on the standard error is, and whether it has color.
#[derive(Debug, Args)]
struct LogArgs {
    /// Log one level less, without a progress bar; repeatable
    #[arg(short, long, global = true, action = ArgAction::Count)]
    quiet: u8,
    /// Log one level more; repeatable
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Color of the log and the help; auto is color on a terminal unless NO_COLOR is set
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

impl LogArgs {
    fn wishes(&self) -> Wishes {
        Wishes {
            louder: i16::from(self.verbose) - i16::from(self.quiet),
            color: match self.color {
                ColorChoice::Auto => None,
                ColorChoice::Always => Some(true),
                ColorChoice::Never => Some(false),
            },
        }
    }
}

/// The program's arguments, as clap takes them. Help is printed while the arguments are read, so its color must be known before.
fn command() -> clap::Command {
    let arguments: Vec<String> = std::env::args_os().filter_map(|argument| argument.into_string().ok()).collect();
    let after = arguments.iter().skip_while(|argument| *argument != "--color").nth(1).map(String::as_str);
    let joined = arguments.iter().find_map(|argument| argument.strip_prefix("--color="));
    let choice = joined.or(after).and_then(|word| ColorChoice::from_str(word, true).ok());
    Cli::command().color(choice.unwrap_or_default())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay closed spans and compare each with its record
    ///
    /// Exit codes: 0 all verified; 1 could not run; 2 bad usage; 3 a divergence, or a response that contradicts the record;
    /// 4 neither, but a span could not be verified, or no span was asked for.
    Verify(verify::VerifyArgs),
    /// Check the kernel's answers and its key-value rows against the transcripts, without a worker
    ///
    /// A vat reads only its own writes from its vatstore. Exit codes: 0 no contradiction; 1 could not run; 2 bad usage; 3 a
    /// contradiction; 4 none, but a part of the record is damaged or unreadable, or no vat was checked. Pruned spans are
    /// counted and do not decide the code.
    Audit(audit::AuditArgs),
    /// Watch a live database and give each span that closes a verdict
    ///
    /// Runs until SIGTERM, SIGINT or SIGHUP. Exit codes: 0 stopped by a signal; 1 could not start; 2 bad usage or a wrong
    /// configuration.
    Run(Box<run::RunArgs>),
    /// List the daemon's verdicts and alarms, newest first, also while it runs
    ///
    /// Exit codes: 0; 1 could not run; 2 bad usage or a wrong configuration; 3 the list has an unacknowledged
    /// divergence, contradiction or changed row; 4 none of these, but unacknowledged damage.
    Verdicts(verdicts::VerdictsArgs),
    /// Acknowledge a divergence, contradiction, damage or changed row, so that it no longer counts in the alert
    Ack(verdicts::AckArgs),
    /// Print the configuration of `run`, each value with its origin
    ///
    /// Exit codes: 0; 1 could not run; 2 bad usage or a wrong configuration.
    Config(Box<run::ShowArgs>),
    /// Replay a span from its evidence alone, with any worker
    ///
    /// Exit codes as those of `verify`.
    Replay(replay::ReplayArgs),
    /// Explain evidence in words: each difference, and possible causes
    Explain(explain::ExplainArgs),
    /// Make an HTML page of evidence: one file, which needs no network
    Report(explain::ReportArgs),
    /// Export evidence in the forms of other tools
    Export(export::ExportArgs),
    /// Find the delivery after which the heaps of two workers differ
    ///
    /// Exit codes: 0 the heaps are the same; 1 could not run; 2 bad usage; 3 they differ.
    Bisect(Box<bisect::BisectArgs>),
    /// Pack or unpack an evidence folder
    Evidence(evidence::EvidenceCommandArgs),
    /// List the spans, with the source of items and image of each, and whether it can be verified
    ///
    /// Exit codes: 0; 1 could not run; 2 bad usage; 4 a span cannot be verified, or a vat's history is broken.
    Spans(spans::SpansArgs),
    /// Inspect a heap image, or compare two
    Snapshot(snapshot::SnapshotArgs),
    /// Check a database, its node's settings and the worker, and suggest changes
    ///
    /// Exit codes: 0 all spans can be verified; 1 could not run; 2 bad usage; 4 a part is missing or damaged.
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell, as in `source <(spanwatch completions bash)`
    Completions(completions::CompletionsArgs),
    /// Write the man pages of all commands into a directory
    #[command(hide = true)]
    Man(completions::ManArgs),
}

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Database(#[from] DbError),
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    #[error("{0}")]
    Worker(#[from] LocateError),
    #[error("{0}")]
    Audit(#[from] AuditError),
    #[error("{source}; the evidence is of the worker {wanted}")]
    WantedWorker { source: LocateError, wanted: String },
    #[error("no vat {unknown} in this database; `spanwatch spans` lists its vats")]
    UnknownVat { unknown: String },
    #[error("the daemon has seen no vat {unknown}; `spanwatch verdicts` lists the vats that have a verdict")]
    UnknownVatInStore { unknown: String },
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
    #[error("cannot replace bundle {id}: the record does not name it, as {why}")]
    NoSuchBundle { id: String, why: String },
    #[error("--chain follows one vat, and {count} are named: give --vat once")]
    NotOneVat { count: usize },
    #[error("bisect compares two workers, and {count} are named: give --worker twice")]
    NotTwoWorkers { count: usize },
    #[error("failed to write {what} to {}: {source}", path.display())]
    Keep { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "no divergence {id} in this store, nor damage or a changed row of that name; `spanwatch verdicts --alarms` lists all"
    )]
    UnknownDivergence { id: String },
    #[error("{0}")]
    ImageSource(#[from] SourceError),
    #[error("failed to read the image {name}: {source}")]
    Image { name: String, source: HeapError },
    #[error("no object {path} in the image {image}: {source}")]
    NoObject { path: String, image: String, source: PathError },
    #[error("failed to write the result: {0}")]
    Output(#[from] io::Error),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
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
    let wishes = cli.log.wishes();
    // The daemon's log is as it is configured.
    if !matches!(cli.command, Command::Run(_)) {
        crate::files::temp::remove_on_signals();
        crate::log::of_command(wishes);
    }
    let exit = match cli.command {
        Command::Run(args) => run::run(&args, wishes),
        Command::Verdicts(args) => verdicts::run(&args),
        Command::Ack(args) => verdicts::acknowledge(&args),
        Command::Config(args) => run::show(&args),
        Command::Verify(args) => verify::run(args, wishes),
        Command::Audit(args) => audit::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Explain(args) => explain::tell(&args),
        Command::Report(args) => explain::page(&args),
        Command::Export(args) => export::run(&args),
        Command::Bisect(args) => bisect::run(*args, wishes),
        Command::Evidence(args) => evidence::run(&args),
        Command::Spans(args) => spans::run(args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::write_man_pages(&args),
    };
    match exit {
        Ok(exit) => ExitCode::from(exit as u8),
        // The reader of the output closed it.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::from(Exit::CouldNotRun as u8)
        }
        Err(error) => {
            tell(&error);
            let is_usage = matches!(error, CliError::Config(_) | CliError::NotOneVat { .. });
            let exit = if is_usage { Exit::BadUsage } else { Exit::CouldNotRun };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
