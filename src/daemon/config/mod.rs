//! The daemon's configuration.
//!
//! Owns the keys, their ranges and where their values come from: the built-in default file, the operator's file, the
//! environment, flags; later ones override. All faults are found before any is told. The built-in file is the reference:
//! a key that it does not have does not exist.

mod layers;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sandbox::Mode;
use crate::transcript::Position;
pub use layers::{Layers, Origin};
use value::Reading;

/// The built-in file.
pub const DEFAULT: &str = include_str!("../../../config/spanwatch.toml");

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The node.
    pub node: Node,
    /// Its worker.
    pub worker: Worker,
    /// Watching it.
    pub watch: Watch,
    /// Which spans when.
    pub schedule: Schedule,
    /// Copies of what it deletes.
    pub capture: Capture,
    /// What is kept of divergences.
    pub evidence: Evidence,
    /// The daemon's memory.
    pub state: State,
    /// The web server's address, if there is to be one.
    pub listen: Option<SocketAddr>,
    /// Logging.
    pub log: Log,
    /// Manners.
    pub neighbour: Neighbour,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its database.
    pub database: PathBuf,
    /// Its archive of items.
    pub transcript_archive: Option<PathBuf>,
    /// Its archive of images.
    pub snapshot_archive: Option<PathBuf>,
}

/// `[worker]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The program; `None` to look for it.
    pub path: Option<PathBuf>,
    /// Where that was set.
    pub path_origin: Origin,
    /// Bytes.
    pub stack: u64,
    /// Bytes.
    pub memory_max: u64,
    /// How much of a sandbox.
    pub sandbox: Mode,
    /// Whom workers run as where we are root.
    pub user: u32,
    /// Its `TZ`; `None` for ours.
    pub time_zone: Option<String>,
    /// Processor time for one delivery.
    pub delivery_cpu_max: Duration,
    /// Processor time for all of a span.
    pub span_cpu_max: Duration,
    /// Time for one delivery by the clock.
    pub delivery_wall_max: Duration,
    /// Time for all of a span by the clock.
    pub span_wall_max: Duration,
    /// How long it may do nothing.
    pub stall_max: Duration,
}

/// `[watch]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Time between two looks.
    pub poll_interval: Duration,
    /// Whether file events are used.
    pub file_events: bool,
    /// How many old rows are read again at each poll.
    pub recheck_rows: u32,
    /// Where to begin.
    pub since: Since,
}

/// Where to begin with a new state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// With what closes from now on.
    Now,
    /// With everything that is there, or that reaches to a position.
    Position(Position),
}

/// `[schedule]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Replays at once; 0 for half of the processors.
    pub jobs: usize,
    /// Attempts a span.
    pub attempts_max: u32,
    /// From here on we are behind.
    pub backlog_max: u64,
    /// Spans replayed on the way to one.
    pub chain_spans_max: u32,
}

/// `[capture]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Of items.
    pub items: CaptureWhen,
    /// Of images.
    pub images: CaptureWhen,
    /// All together, in bytes.
    pub max_bytes: u64,
}

/// Whether copies are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureWhen {
    /// Where the node deletes and no archive has it.
    Auto,
    /// Whatever the node does.
    Always,
    /// Not at all.
    Never,
}

/// `[evidence]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The directory; `None` for one in the state directory.
    pub dir: Option<PathBuf>,
    /// All folders together, in bytes; 0 for none.
    pub max_bytes: u64,
    /// Further replays of what diverges.
    pub repeats: u32,
}

/// `[state]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The directory.
    pub dir: PathBuf,
    /// How long verdicts are kept.
    pub keep_verdicts: Duration,
    /// Room to leave on its disk, in bytes.
    pub min_free: u64,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How.
    pub format: LogFormat,
    /// Directives of tracing's filter.
    pub level: String,
    /// Time between two summaries.
    pub summary_interval: Duration,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[neighbour]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Priority.
    pub nice: i32,
    /// Idle class on the disk.
    pub io_idle: bool,
    /// Processors; 0 for no limit.
    pub max_cpu_cores: usize,
    /// Bytes that must be available before a replay begins.
    pub min_available_memory: u64,
    /// Time for running replays at the end.
    pub shutdown_grace: Duration,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which key, or which file.
    pub what: String,
    /// Where it was set.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Everything that is wrong with the configuration: at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<Fault>);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the configuration has {}:", crate::words::plural(self.0.len() as u64, "fault", "faults"))?;
        for Fault { what, origin, problem } in &self.0 {
            write!(f, "\n  {what} ({origin}): {problem}")?;
        }
        write!(f, "\n`spanwatch config --default` explains all keys")
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl Config {
    /// Where evidence is kept.
    #[must_use]
    pub fn evidence_dir(&self) -> PathBuf {
        self.evidence.dir.clone().unwrap_or_else(|| self.state.dir.join(crate::store::EVIDENCE_NAME))
    }

    /// Reads the values out of their layers. `needs_node` is whether a database must be given.
    ///
    /// # Errors
    /// All faults at once.
    pub fn read(layers: &Layers, needs_node: bool) -> Result<Self, ConfigError> {
        let mut read = Reading::new(layers);
        let config = Self {
            node: Node {
                database: read.path("node.database").unwrap_or_default(),
                transcript_archive: read.path("node.transcript_archive"),
                snapshot_archive: read.path("node.snapshot_archive"),
            },
            worker: Worker {
                path: read.path("worker.path"),
                path_origin: match read.path("worker.path") {
                    Some(_) => layers.origin("worker.path"),
                    None => Origin::Default,
                },
                stack: read.size("worker.stack", MIB..=GIB),
                memory_max: read.size("worker.memory_max", 64 * MIB..=1 << 50),
                sandbox: read.one_of(
                    "worker.sandbox",
                    &[("default", Mode::Default), ("strict", Mode::Strict), ("off", Mode::Off)],
                ),
                user: read.number("worker.user", 1..=u32::MAX - 1),
                time_zone: Some(read.zone("worker.time_zone")).filter(|zone| !zone.is_empty()),
                delivery_cpu_max: read.duration("worker.delivery_cpu_max", SECOND..=24 * HOUR),
                span_cpu_max: read.duration("worker.span_cpu_max", SECOND..=30 * DAY),
                delivery_wall_max: read.duration("worker.delivery_wall_max", SECOND..=24 * HOUR),
                span_wall_max: read.duration("worker.span_wall_max", SECOND..=30 * DAY),
                stall_max: read.duration("worker.stall_max", SECOND..=HOUR),
            },
            watch: Watch {
                poll_interval: read.duration("watch.poll_interval", Duration::from_millis(100)..=HOUR),
                file_events: read.boolean("watch.file_events"),
                recheck_rows: read.number("watch.recheck_rows", 0..=1_000_000),
                since: read.since("watch.since"),
            },
            schedule: Schedule {
                jobs: read.number("schedule.jobs", 0..=256),
                attempts_max: read.number("schedule.attempts_max", 1..=20),
                backlog_max: read.number("schedule.backlog_max", 1..=1_000_000_000),
                chain_spans_max: read.number("schedule.chain_spans_max", 0..=100_000),
            },
            capture: Capture {
                items: read.one_of("capture.items", &CAPTURE_WHEN),
                images: read.one_of("capture.images", &CAPTURE_WHEN),
                max_bytes: read.size("capture.max_bytes", KIB..=1 << 50),
            },
            evidence: Evidence {
                dir: read.path("evidence.dir"),
                max_bytes: read.size("evidence.max_bytes", 0..=1 << 50),
                repeats: read.number("evidence.repeats", 1..=100),
            },
            state: State {
                dir: read.path("state.dir").unwrap_or_default(),
                keep_verdicts: read.duration("state.keep_verdicts", HOUR..=36_525 * DAY),
                min_free: read.size("state.min_free", 0..=1 << 50),
            },
            listen: read.address("http.listen"),
            log: Log {
                format: read.one_of(
                    "log.format",
                    &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)],
                ),
                level: read.filter("log.level"),
                summary_interval: read.duration("log.summary_interval", 10 * SECOND..=7 * DAY),
            },
            neighbour: Neighbour {
                nice: read.number("neighbour.nice", 0..=19),
                io_idle: read.boolean("neighbour.io_idle"),
                max_cpu_cores: read.number("neighbour.max_cpu_cores", 0..=4096),
                min_available_memory: read.size("neighbour.min_available_memory", 0..=1 << 50),
                shutdown_grace: read.duration("neighbour.shutdown_grace", Duration::ZERO..=HOUR / 6),
            },
        };
        if needs_node && config.node.database == Path::new("") && !read.is_faulty("node.database") {
            read.fault("node.database", "no database is set; on a chain node it is ~/.agoric/data/agoric".to_owned());
        }
        if config.state.dir == Path::new("") {
            read.fault("state.dir", "no directory is set".to_owned());
        }
        read.finish().map(|()| config)
    }
}

const CAPTURE_WHEN: [(&str, CaptureWhen); 3] =
    [("auto", CaptureWhen::Auto), ("always", CaptureWhen::Always), ("never", CaptureWhen::Never)];

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
        let mut layers = Layers::default();
        layers.add_text(file, &Origin::File(PathBuf::from("spanwatch.toml")));
        layers.add_environment(environment.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        for (key, value) in flags {
            layers.set(key, value);
        }
        layers
    }

    #[test]
    fn the_default_lacks_only_what_nobody_can_guess() {
        let error = Config::read(&layers("", &[], &[]), true).expect_err("no database");
        assert_eq!(error.0.len(), 1, "{error}");
        let config = Config::read(&layers("", &[], &[]), false).expect("complete");
        assert_eq!(config.watch.poll_interval, Duration::from_secs(1));
        assert_eq!(config.listen, Some(([127, 0, 0, 1], 9488).into()));
    }

    #[test]
    fn later_layers_override() {
        let file = "[watch]\npoll_interval = \"5s\"\n[schedule]\njobs = 3\n[neighbour]\nnice = 5";
        let environment = [("SPANWATCH_SCHEDULE_JOBS", "4"), ("SPANWATCH_NEIGHBOUR_NICE", "6"), ("SPANWATCH_LOG", "x")];
        let config = Config::read(&layers(file, &environment, &[("neighbour.nice", "7")]), false).expect("good");
        assert_eq!(config.watch.poll_interval, Duration::from_secs(5));
        assert_eq!((config.schedule.jobs, config.neighbour.nice), (4, 7));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let file = "typo = 1\n[watch]\npoll_interval = 5\npol_interval = \"5s\"\nsince = \"yesterday\"\n\
                    [capture]\nitems = \"sometimes\"\nmax_bytes = \"12 parsecs\"\n[neighbour]\nnice = 20\nio_idle = \"yes\"\n\
                    [worker]\nstack = \"1KiB\"\n[http]\nlisten = \"everywhere\"\n[log]\nlevel = \"a=b=c\"\n[node]\ndatabase = 7";
        let environment = [("SPANWATCH_SCHEDULE_JOBS", "many"), ("SPANWATCH_SERVICE_HOST", "1")];
        let error =
            Config::read(&layers(file, &environment, &[("state.dir", ""), ("no.such", "1")]), true).expect_err("bad");
        insta::assert_snapshot!(error);
    }

    /// Kubernetes sets some for a service that is called spanwatch.
    #[test]
    fn an_unknown_variable_is_no_fault() {
        let environment = [("SPANWATCH_PORT", "tcp://10.0.0.1:9488"), ("SPANWATCH_LOG", "debug"), ("OTHER", "1")];
        let layers = layers("", &environment, &[]);
        assert_eq!(layers.unknown_variables(), ["SPANWATCH_PORT"]);
        Config::read(&layers, false).expect("no fault");
    }

    #[test]
    fn a_file_that_is_no_toml() {
        let error = Config::read(&layers("[watch\n", &[], &[]), false).expect_err("bad");
        insta::assert_snapshot!(error);
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let printed = layers("[watch]\npoll_interval = \"5s\"", &[], &[("node.database", "/data")]).print();
        let again = layers(&printed, &[], &[]);
        assert_eq!(
            Config::read(&again, true).expect("good"),
            Config::read(&layers("[watch]\npoll_interval = \"5s\"", &[], &[("node.database", "/data")]), true)
                .expect("good")
        );
        assert!(printed.contains("poll_interval = \"5s\" # file spanwatch.toml"), "{printed}");
    }
}
