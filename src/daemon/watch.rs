//! When to look: file events as a hint, the poll as the truth. It knows nothing of spans.
//!
//! An event on the `-wal` file comes before the commit is visible, and none follows it; many come long before it, as a
//! block grows. So the last event of a burst is followed by a short series of looks, each only if the head of the `-wal`'s
//! index says that there was a commit. The poll goes on whatever happens.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::complaints::Subject;
use super::look::Tracker;
use super::shared::Shared;
use super::view::LookSource;

/// After the last event: when to look, in milliseconds, each counted from the look before.
const SERIES: [u64; 9] = [1, 1, 3, 5, 10, 30, 50, 100, 100];
/// Events that keep coming begin the series anew, but not more often than this.
const CALM: Duration = Duration::from_millis(5);
/// How often a file watch that could not be set up is tried again.
const REWATCH: Duration = Duration::from_secs(10);

/// Starts the thread that looks.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("look".to_owned()).spawn(move || {
        // A verifier that does not look any more must not seem to be alive.
        if catch_unwind(AssertUnwindSafe(|| LookLoop::new(&shared).run())).is_err() {
            tracing::error!(
                "the thread that looks at the database has a bug, and without it nothing is verified: ending"
            );
            std::process::abort();
        }
    })?;
    Ok(())
}

struct LookLoop<'a> {
    shared: &'a Shared,
    tracker: Tracker<'a>,
    events: Receiver<()>,
    sender: SyncSender<()>,
    /// The directory under watch, its inode, and what watches it.
    watcher: Option<(PathBuf, u64, RecommendedWatcher)>,
    watch_tried: Option<Instant>,
}

impl<'a> LookLoop<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        // One event is as good as many: a look sees every commit.
        let (sender, events) = sync_channel(1);
        Self { shared, tracker: Tracker::new(shared), events, sender, watcher: None, watch_tried: None }
    }

    fn run(mut self) {
        let poll = self.shared.config.watch.poll_interval;
        let mut next_poll = Instant::now();
        while !self.shared.work.is_stopping() {
            self.shared.view.note_alive();
            self.keep_watching();
            let now = Instant::now();
            if now >= next_poll {
                next_poll = now + poll;
                if self.tracker.look(LookSource::Poll).is_unfinished {
                    next_poll = now;
                }
                continue;
            }
            match self.events.recv_timeout(next_poll - now) {
                Ok(()) => self.after_event(next_poll),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Looks a few times, until something is found or the poll is due.
    fn after_event(&mut self, until: Instant) {
        self.shared.metrics.file_events.inc();
        let mut step = 0;
        while step < SERIES.len() && Instant::now() < until && !self.shared.work.is_stopping() {
            match self.events.recv_timeout(Duration::from_millis(SERIES[step])) {
                // The burst goes on: what it is about can't be visible yet.
                Ok(()) => {
                    step = 0;
                    std::thread::sleep(CALM);
                    continue;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            step += 1;
            if !self.tracker.is_commit_new() {
                continue;
            }
            let mut found = self.tracker.look(LookSource::FileEvent);
            if found.is_changed {
                while found.is_unfinished && !self.shared.work.is_stopping() {
                    found = self.tracker.look(LookSource::FileEvent);
                }
                return;
            }
        }
    }

    /// Sees to it that the directory of the database is watched, also when it comes to be only now, or comes anew.
    fn keep_watching(&mut self) {
        if !self.shared.config.watch.file_events || self.watch_tried.is_some_and(|at| at.elapsed() < REWATCH) {
            return;
        }
        self.watch_tried = Some(Instant::now());
        let directory =
            std::fs::canonicalize(self.shared.record.db.path()).ok().and_then(|file| file.parent().map(Path::to_owned));
        let Some(directory) = directory else {
            self.watcher = None;
            return;
        };
        // A directory that was made anew is another one, and nothing is heard of it.
        let inode = std::fs::metadata(&directory).map_or(0, |meta| meta.ino());
        if self.watcher.as_ref().is_some_and(|(watched, of, _)| *watched == directory && *of == inode) {
            return;
        }
        match watcher(&directory, self.sender.clone()) {
            Ok(watcher) => {
                self.watcher = Some((directory, inode, watcher));
                if self.shared.complaints.end(Subject::FileEvents) {
                    tracing::info!("file events come again");
                }
            }
            Err(error) => {
                let hint = match &error.kind {
                    notify::ErrorKind::MaxFilesWatch => "; raise the sysctl fs.inotify.max_user_watches",
                    notify::ErrorKind::Io(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                        "; raise the sysctl fs.inotify.max_user_instances"
                    }
                    _ => "",
                };
                let text = format!(
                    "no file events from {}: {error}{hint}; it is still looked at each {:?}",
                    directory.display(),
                    self.shared.config.watch.poll_interval
                );
                self.shared.complaints.complain(Subject::FileEvents, &text);
            }
        }
    }
}

fn watcher(directory: &Path, sender: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let is_hint = match &event {
            // Our own reads open and close the files too, and SQLite as root sees to their owner.
            Ok(event) => {
                let is_ours = matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)));
                !is_ours && event.paths.iter().any(|path| is_database(path))
            }
            Err(_) => true,
        };
        if is_hint {
            // Full: a look is due anyway.
            let _ = sender.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The database itself or its `-wal`.
fn is_database(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    name.ends_with(b".sqlite-wal") || name.ends_with(b".sqlite")
}
