//! `spanwatch run`: beside a live node, for months.
//!
//! Owns the threads and how they begin and end. One thread looks at the node's database (`watch` says when, `look`
//! what follows), a few replay (`replayer`), and this one serves what waits: the web, timers, signals. They share
//! [`Shared`]; what is to be done goes from the one to the others by way of the [`crate::store`], never through memory, so
//! that a kill at any moment costs nothing but the replays that were under way.

mod alarms;
mod complaints;
pub mod config;
mod finished;
mod gauges;
mod http;
mod job;
mod links;
mod look;
mod metrics;
pub(crate) mod neighbour;
mod pause;
mod reach;
mod replayer;
mod shared;
mod view;
mod watch;
mod work;
mod worker;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::evidence::{EvidenceError, Keeper};
use crate::files::process;
use crate::kernel_db::KernelDb;
use crate::replay::{LocateError, Named, Protection, WorkerProgram};
use crate::sandbox::{Group, MissingLayer, Mode, Settings};
use crate::store::{Store, StoreError};
use crate::visible::visible;

use complaints::Subject;
use config::Config;
use shared::Shared;

/// How often the machine is looked at, the gauges are set and the watchdog is fed.
const TICK: Duration = Duration::from_secs(1);
/// How often old verdicts are forgotten, and copies dropped that nothing needs.
const HOUSEKEEPING: Duration = Duration::from_secs(600);
/// So many requests are answered at once; a list of spans may be long.
const ANSWERS_AT_ONCE: usize = 4;
/// A thread that looks at the database and has not come round for so long hangs.
const LOOK_SILENCE_MAX: Duration = Duration::from_secs(120);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its own memory.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The worker.
    #[error("{0}")]
    Worker(#[from] LocateError),
    /// The port.
    #[error(
        "failed to listen on {address}: {source}; is another spanwatch running? http.listen takes another address, or \"\" for none"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Where evidence is kept.
    #[error("{0}; evidence.dir says where it is kept, and with evidence.max_bytes = \"0KiB\" none is")]
    Evidence(#[from] EvidenceError),
    /// A thread, a timer or a signal.
    #[error("failed to start: {0}")]
    System(#[from] io::Error),
}

/// Runs until a signal ends it.
///
/// # Errors
/// When it can't start.
pub fn run(config: Config) -> Result<(), DaemonError> {
    let db = KernelDb::beside_a_node(&config.node.database);
    let named = Named { not_in: db.path().parent().map(Path::to_path_buf), ..worker::named(&config.worker) };
    let settings = Settings {
        mode: config.worker.sandbox,
        user: Some(config.worker.user),
        time_zone: config.worker.time_zone.clone().map(OsString::from),
        group: Group::delegated(),
        policy: None,
        // A guest takes memory as it comes.
        huge_pages: false,
    };
    let programs = WorkerProgram::find(&named, &settings, &worker::limits(&config.worker))?;
    let store = Arc::new(Store::open(&config.state.dir)?);
    let evidence = match config.evidence.max_bytes {
        0 => None,
        max => {
            let of = Arc::clone(&store);
            Some(Keeper::open(&config.evidence_dir(), max, move || of.acknowledged_evidence().unwrap_or_default())?)
        }
    };
    let shared = Arc::new(Shared::new(config, db, programs, store, evidence)?);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(ANSWERS_AT_ONCE).build()?;
    runtime.block_on(serve(&shared))
}

async fn serve(shared: &Arc<Shared>) -> Result<(), DaemonError> {
    let descriptors = neighbour::raise_descriptor_limit();
    // First of all: a daemon that cannot have the port must not touch the node.
    let listener = match shared.config.listen {
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.map_err(|source| DaemonError::Listen { address, source })?)
        }
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Under nohup it is ignored, and stays so.
    let mut hangup = match process::is_ignored(libc::SIGHUP) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    for refusal in neighbour::lower_priorities(&shared.config.neighbour) {
        tracing::warn!("{refusal}");
    }
    tell_archives(shared);
    if let Some(listener) = listener {
        let address = listener.local_addr()?;
        tokio::spawn(http::serve(listener, Arc::clone(shared), descriptors));
        tracing::info!(%address, "serving /metrics, /healthz, /readyz and /api/v1");
        if let Some(warning) = reach::warning(address) {
            tracing::warn!("{warning}");
        }
    }
    watch::start(shared)?;
    replayer::start(shared)?;
    let program = &shared.programs[0];
    tracing::info!(
        database = %shared.record.db.path().display(),
        worker = %program.path.display(),
        worker_version = program.version,
        worker_sha256 = program.sha256,
        worker_found = %program.found_by,
        state = %shared.store.path().display(),
        replays_at_once = shared.jobs(),
        sandbox = shared.sandbox_layers().join(","),
        "spanwatch {} watches", crate::VERSION
    );
    tell_sandbox(&program.protection);
    tell_system(&[sd_notify::NotifyState::Ready]);

    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut summarized, mut housekept) = (Instant::now(), None::<Instant>);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = hung_up(&mut hangup) => break,
            _ = tick.tick() => {}
        }
        shared.update_pauses();
        shared.refresh_gauges();
        if shared.view.silence() < LOOK_SILENCE_MAX {
            tell_system(&[sd_notify::NotifyState::Watchdog]);
        }
        if summarized.elapsed() >= shared.config.log.summary_interval {
            summarized = Instant::now();
            let summary = shared.summary();
            tell_system(&[sd_notify::NotifyState::Status(&visible(&summary))]);
            tracing::info!("{summary}");
        }
        if housekept.is_none_or(|at| at.elapsed() >= HOUSEKEEPING) {
            if housekept.replace(Instant::now()).is_some() {
                tell_archives(shared);
            }
            let seconds = shared.config.state.keep_verdicts.as_secs_f64();
            let tidied = shared.store.forget_older_than(seconds).and_then(|_| shared.store.tidy_captures());
            if let Err(error) = tidied {
                shared.store_failed(&error);
            }
        }
    }
    tell_system(&[sd_notify::NotifyState::Stopping]);
    stop(shared, &mut terminate, &mut interrupt).await;
    Ok(())
}

/// Complains of archive directories that can't be right, at the start and again while they are not. No reason to end: the node makes
/// the directory when it starts with the setting, and a disk may be mounted later. Until then no verdict is given on what only the
/// archive may have.
fn tell_archives(shared: &Shared) {
    let doubts = shared.record.archives.doubts();
    for doubt in &doubts {
        shared
            .complaints
            .complain(Subject::Archive, &format!("{doubt} (node.transcript_archive, node.snapshot_archive)"));
    }
    if doubts.is_empty() && shared.complaints.end(Subject::Archive) {
        tracing::info!("the archive directories can be read");
    }
}

/// The terminal that it was started from is gone.
async fn hung_up(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Waits a while for running replays. A span whose replay does not end is due again at the next start: its worker dies with
/// this process.
async fn stop(
    shared: &Shared,
    terminate: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) {
    let grace = shared.config.neighbour.shutdown_grace;
    let deadline = Instant::now() + grace;
    shared.work.stop();
    tracing::info!(running = shared.work.running(), ?grace, "stopping");
    while shared.work.running() > 0 && Instant::now() < deadline {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    let left = shared.work.running();
    tracing::info!(interrupted = left, "{}", shared.summary());
}

/// What a worker's sandbox lacks, as loud as it deserves.
fn tell_sandbox(sandbox: &Protection) {
    if sandbox.mode == Mode::Off {
        tracing::warn!("the sandbox is off: the code that vats run can do whatever this user can (worker.sandbox)");
        return;
    }
    if let Some(uncompared) = &sandbox.uncompared {
        tracing::info!("{uncompared}");
    }
    for MissingLayer { layer, reason } in &sandbox.missing {
        tracing::info!(layer = layer.label(), "the sandbox lacks {}: {reason}", layer.label());
    }
}

/// Tells the service manager, if there is one.
fn tell_system(state: &[sd_notify::NotifyState<'_>]) {
    // Whether anybody listens is not our concern.
    let _ = sd_notify::notify(state);
}
