//! Arguments that several commands share: the database, the selection of spans, the worker and its limits.
//!
//! Owns how a flag's text becomes a value. Must never replay or print a result.

use std::collections::HashMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::CliError;
use crate::evidence::Case;
use crate::judge::REPEATS;
use crate::kernel_db::{KernelDb, SpanRow};
use crate::plan::{Selection, Survey};
use crate::record::{Archives, Record, Recorder, RecorderFiles};
use crate::replay::{Limits, LocateError, Named, WorkerProgram};
use crate::sandbox::{Group, Mode, NOBODY, Settings};
use crate::transcript::{Position, VatId};
use crate::units;

#[derive(Debug, Args)]
pub(super) struct DbArgs {
    /// The kernel's database: the file swingstore.sqlite or the directory that holds it
    #[arg(value_name = "DB")]
    pub(super) db: PathBuf,
    /// The node's vat-transcript-archive-dir, for items that the database no longer has
    #[arg(long, value_name = "DIR")]
    pub(super) transcript_archive: Option<PathBuf>,
    /// The node's vat-snapshot-archive-dir, for images that the database no longer has
    #[arg(long, value_name = "DIR")]
    pub(super) snapshot_archive: Option<PathBuf>,
    /// The node's flight recorder, for items that the database no longer has [default: flight-recorder.bin beside the
    /// database, if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "no_flight_recorder")]
    pub(super) flight_recorder: Option<PathBuf>,
    /// Leave the flight recorder beside the database alone
    #[arg(long)]
    pub(super) no_flight_recorder: bool,
    /// The node's SLOGFILE, plain or gzip, for items that the database no longer has; repeatable, oldest first
    #[arg(long = "slog", value_name = "FILE")]
    pub(super) slogs: Vec<PathBuf>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

impl DbArgs {
    /// Without archives.
    pub(super) fn of(db: &Path, format: Format) -> Self {
        Self {
            db: db.to_owned(),
            transcript_archive: None,
            snapshot_archive: None,
            flight_recorder: None,
            no_flight_recorder: false,
            slogs: Vec::new(),
            format,
        }
    }

    /// Finds the database and its archives, and looks at what is there of some vats, or of all. Rows that can't be read
    /// are told at once.
    pub(super) fn open(&self, vats: &[String]) -> Result<(Record, Survey), CliError> {
        let db = KernelDb::locate(&self.db)?;
        let archives = Archives::open(self.transcript_archive.as_deref(), self.snapshot_archive.as_deref())?;
        for doubt in archives.doubts() {
            tracing::warn!("{doubt}");
        }
        let survey = self.survey(&db, vats)?;
        let recorder = self.recorder(&db, &survey)?;
        Ok((Record::new(db, archives).with_recorder(recorder), survey))
    }

    /// The same for `doctor`, which goes on without an archive that can't be read, and says so.
    pub(super) fn open_to_examine(&self) -> Result<(Record, Survey, Vec<String>), CliError> {
        let db = KernelDb::locate(&self.db)?;
        let (transcripts, snapshots) = (self.transcript_archive.as_deref(), self.snapshot_archive.as_deref());
        let growing = Archives::growing(transcripts, snapshots);
        let faults = growing.doubts().iter().map(ToString::to_string).collect();
        let archives = Archives::open(transcripts, snapshots).unwrap_or(growing);
        let survey = self.survey(&db, &[])?;
        let recorder = self.recorder(&db, &survey)?;
        Ok((Record::new(db, archives).with_recorder(recorder), survey, faults))
    }

    /// Reads the flight recorder and the slog files where the database lacks items of closed spans.
    fn recorder(&self, db: &KernelDb, survey: &Survey) -> Result<Recorder, CliError> {
        let mut wanted: HashMap<VatId, Vec<(Position, Position)>> = HashMap::new();
        for (SpanRow { id, .. }, present) in survey.spans.iter().filter(|(row, _)| !row.is_current) {
            // An archive file may be damaged.
            if *present < id.end.saturating_sub(id.start) {
                wanted.entry(id.vat.clone()).or_default().push((id.start, id.end));
            }
        }
        if wanted.is_empty() {
            return Ok(Recorder::default());
        }
        let files = RecorderFiles {
            named: self.flight_recorder.clone(),
            is_off: self.no_flight_recorder,
            slogs: self.slogs.clone(),
        };
        // The spans of a vat are in order.
        let is_wanted = |vat: &VatId, position: Position| {
            wanted.get(vat).is_some_and(|spans| {
                let after = spans.partition_point(|(start, _)| *start <= position);
                after.checked_sub(1).is_some_and(|at| position < spans[at].1)
            })
        };
        Ok(Recorder::open(db.path(), &files, is_wanted)?)
    }

    fn survey(&self, db: &KernelDb, vats: &[String]) -> Result<Survey, CliError> {
        let survey = Survey::read(db, vats)?;
        for fault in &survey.faults {
            tracing::warn!("{fault}");
        }
        Ok(survey)
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
    /// Only this vat, by ID or name; repeatable
    #[arg(long = "vat", value_name = "ID|NAME")]
    pub(super) vats: Vec<String>,
    /// Only spans with a position in this range, END not included
    #[arg(long = "span", value_name = "START..END", value_parser = parse_range)]
    pub(super) positions: Option<(u64, u64)>,
    /// Only spans of this incarnation; the first is 0
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
    /// xsnap-worker to replay with; each of several replays every span [default: $SPANWATCH_WORKER, else
    /// $XSNAP_WORKER, else the one of @agoric/xsnap in or above the working directory]
    #[arg(long = "worker", value_name = "PATH")]
    workers: Vec<PathBuf>,
    /// Sandbox of the worker: default requires the base layers, strict every layer; off disables the sandbox
    #[arg(long, value_name = "strict|default|off", default_value = "default", env = "SPANWATCH_WORKER_SANDBOX")]
    sandbox: Mode,
    /// If root: UID and GID of the worker
    #[arg(long, value_name = "UID", default_value_t = NOBODY, value_parser = clap::value_parser!(u32).range(1..))]
    worker_user: u32,
    /// Time zone of the node, which vats can see [default: the zone in the evidence, else $TZ, else UTC]
    #[arg(long, value_name = "ZONE")]
    worker_tz: Option<OsString>,
    /// Processor time of one delivery
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_time, help_heading = LIMITS)]
    delivery_cpu_max: Given<Duration>,
    /// Processor time of all deliveries of a span
    #[arg(long, value_name = "DURATION", default_value = "4h", value_parser = parse_time, help_heading = LIMITS)]
    span_cpu_max: Given<Duration>,
    /// Time of one delivery by the clock, without the time that the worker waits for a processor
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_time, help_heading = LIMITS)]
    delivery_wall_max: Given<Duration>,
    /// Time of a span by the clock, without the time that the worker waits for a processor
    #[arg(long, value_name = "DURATION", default_value = "8h", value_parser = parse_time, help_heading = LIMITS)]
    span_wall_max: Given<Duration>,
    /// Longest idle time of a worker that owes a reply
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_time, help_heading = LIMITS)]
    stall_max: Given<Duration>,
    /// Memory of a worker
    #[arg(long, value_name = "SIZE", default_value = "6GiB", value_parser = parse_memory, help_heading = LIMITS)]
    worker_memory_max: Given<u64>,
    /// Stack of a worker, as `ulimit -s` of the node: it decides how deep vats may recurse [default: 8MiB, or the stack that
    /// the evidence names]
    #[arg(long, value_name = "SIZE", value_parser = parse_stack, help_heading = LIMITS)]
    worker_stack: Option<Given<u64>>,
}

/// The heading of the flags with units.
const LIMITS: &str = "Limits of a worker (units as in 60s, 10m, 8MiB, 6GiB; a number without a unit is deprecated and means seconds, or MiB)";

/// A flag's value with a unit. `bare` is how the value is written with one, if the flag had only a number: earlier versions took
/// numbers of seconds and of MiB, and scripts have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given<T> {
    pub(super) value: T,
    bare: Option<String>,
}

impl<T> Given<T> {
    /// A value that was not written.
    pub(super) fn of(value: T) -> Self {
        Self { value, bare: None }
    }

    /// Warns of a number without a unit.
    pub(super) fn warn(&self, flag: &str) {
        if let Some(written) = &self.bare {
            tracing::warn!("{flag}: a number without a unit is deprecated; write {flag} {written}");
        }
    }
}

fn given<T: Copy + PartialOrd>(
    text: &str,
    parse: impl Fn(&str) -> Option<T>,
    unit: &str,
    range: RangeInclusive<T>,
    show: impl Fn(T) -> String,
    expected: &str,
) -> Result<Given<T>, String> {
    let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let with_unit = if is_bare { format!("{text}{unit}") } else { text.to_owned() };
    let value = parse(&with_unit).ok_or_else(|| format!("expected {expected}"))?;
    if !range.contains(&value) {
        return Err(format!("expected {expected}, from {} to {}", show(*range.start()), show(*range.end())));
    }
    Ok(Given { value, bare: is_bare.then_some(with_unit) })
}

fn parse_time(text: &str) -> Result<Given<Duration>, String> {
    const YEAR: u64 = 31_557_600;
    let range = Duration::from_secs(1)..=Duration::from_secs(YEAR);
    given(text, units::parse_duration, "s", range, units::show_duration, "a duration such as 60s or 10m")
}

fn parse_bytes(text: &str, range: RangeInclusive<u64>) -> Result<Given<u64>, String> {
    given(text, units::parse_size, "MiB", range, units::show_size, "a size such as 64MiB or 6GiB")
}

fn parse_memory(text: &str) -> Result<Given<u64>, String> {
    parse_bytes(text, 1 << 20..=1 << 50)
}

fn parse_stack(text: &str) -> Result<Given<u64>, String> {
    parse_bytes(text, 1 << 20..=1 << 30)
}

/// The size of all evidence together.
pub(super) fn parse_evidence_max(text: &str) -> Result<Given<u64>, String> {
    parse_bytes(text, 0..=1 << 50)
}

/// How often a divergence is repeated.
#[derive(Debug, Args)]
pub(super) struct RepeatArgs {
    /// Number of times that a divergence is replayed again, each time in a fresh process
    #[arg(long, value_name = "N", default_value_t = REPEATS, alias = "repeat", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) repeats: u32,
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
        let stack = match &self.worker_stack {
            Some(stack) => stack.value,
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
        self.warn_of_bare_numbers();
        if self.sandbox == Mode::Off {
            tracing::warn!("the sandbox is off: the code that vats run can do whatever this user can (--sandbox)");
        }
        let named = Named { not_in: not_in.map(Path::to_path_buf), ..Named::by_option(&self.workers) };
        let programs = WorkerProgram::find(&named, &settings, limits)?;
        for program in &programs {
            if let Some(uncompared) = &program.protection.uncompared {
                tracing::info!("{}: {uncompared}", program.path.display());
            }
        }
        Ok(programs)
    }

    fn warn_of_bare_numbers(&self) {
        for (flag, given) in [
            ("--delivery-cpu-max", &self.delivery_cpu_max),
            ("--span-cpu-max", &self.span_cpu_max),
            ("--delivery-wall-max", &self.delivery_wall_max),
            ("--span-wall-max", &self.span_wall_max),
            ("--stall-max", &self.stall_max),
        ] {
            given.warn(flag);
        }
        self.worker_memory_max.warn("--worker-memory-max");
        if let Some(stack) = &self.worker_stack {
            stack.warn("--worker-stack");
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            stall_max: self.stall_max.value,
            delivery_cpu_max: self.delivery_cpu_max.value,
            span_cpu_max: self.span_cpu_max.value,
            delivery_max: self.delivery_wall_max.value,
            span_max: self.span_wall_max.value,
            resident_max: self.worker_memory_max.value,
            stack: self.worker_stack.as_ref().map_or(STACK, |stack| stack.value),
            ..Limits::default()
        }
    }
}

/// The usual stack of a process, in bytes.
const STACK: u64 = 8 << 20;

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
    fn a_number_without_a_unit_keeps_its_meaning() {
        let time = |text| parse_time(text).map(|given| (given.value.as_secs(), given.bare));
        assert_eq!(time("60s"), Ok((60, None)));
        assert_eq!(time("60"), Ok((60, Some("60s".to_owned()))));
        assert_eq!(time("1h 30m"), Ok((5_400, None)));
        let size = |text| parse_memory(text).map(|given| (given.value, given.bare));
        assert_eq!(size("6GiB"), Ok((6 << 30, None)));
        assert_eq!(size("6144"), Ok((6 << 30, Some("6144MiB".to_owned()))));
        for text in ["", "0", "0s", "-5", "5 parsecs", "99999999999999999999", "18446744073709551615", "1e3"] {
            assert!(time(text).is_err(), "{text}");
            assert!(size(text).is_err(), "{text}");
        }
        assert!(parse_stack("2GiB").expect_err("too large").contains("from 1MiB to 1GiB"));
        assert_eq!(parse_evidence_max("0").map(|given| given.value), Ok(0));
    }

    #[test]
    fn ranges() {
        assert_eq!(parse_range("3..17"), Ok((3, 17)));
        for text in ["3", "3..", "..3", "a..b", "5..5", "7..5", "-1..5"] {
            parse_range(text).expect_err(text);
        }
    }
}
