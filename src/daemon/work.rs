//! The spans that are taken: a thread claims the span that it replays, and gives the claim back when it drops it.
//!
//! Owns the lock around the claims, the condition on which idle threads wait, and the order to stop. The queue itself is the store's:
//! nothing here outlives the process, so a span whose claim is lost is due again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;

use crate::store::Job;
use crate::transcript::VatId;

/// The longest sleep of an idle thread before it asks for work by itself.
const IDLE: Duration = Duration::from_secs(1);

/// The claims of all threads.
#[derive(Debug)]
pub(super) struct Work {
    claims: Mutex<Claims>,
    changed: Condvar,
    is_stopping: AtomicBool,
    /// The number of threads with a claim, as exported.
    running: IntGauge,
}

/// The spans, by their numbers in the store, and the vats that threads work on.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) spans: HashSet<i64>,
    pub(super) vats: HashSet<VatId>,
}

/// The claim of one thread: some spans of one vat. They are free again when it is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    work: &'a Work,
    spans: Vec<i64>,
    vat: VatId,
}

impl Claim<'_> {
    /// Claims another span of the same vat; `false` if another thread has it.
    pub(super) fn add(&mut self, id: i64) -> bool {
        let is_free = self.work.claims().spans.insert(id);
        if is_free {
            self.spans.push(id);
        }
        is_free
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claims = self.work.claims();
        self.spans.iter().for_each(|id| {
            claims.spans.remove(id);
        });
        claims.vats.remove(&self.vat);
        drop(claims);
        self.work.running.dec();
    }
}

impl Work {
    /// No claims; the gauge is kept at the number of threads that have one.
    pub(super) fn new(running: IntGauge) -> Self {
        Self { claims: Mutex::default(), changed: Condvar::new(), is_stopping: AtomicBool::new(false), running }
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the span that `next` gives, which is asked again until it gives one; `None` when the daemon stops. `next` runs under the
    /// lock and must give no span that is claimed.
    pub(super) fn take(&self, mut next: impl FnMut(&Claims) -> Option<Job>) -> Option<(Job, Claim<'_>)> {
        let mut claims = self.claims();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(job) = next(&claims) {
                claims.spans.insert(job.id);
                let vat = job.row.id.vat.clone();
                claims.vats.insert(vat.clone());
                self.running.inc();
                let spans = vec![job.id];
                return Some((job, Claim { work: self, spans, vat }));
            }
            claims = self.changed.wait_timeout(claims, IDLE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wakes the threads that wait for a span.
    pub(super) fn wake(&self) {
        // A thread that is about to wait holds the lock until it does.
        drop(self.claims());
        self.changed.notify_all();
    }

    /// The number of spans that are claimed.
    pub(super) fn running(&self) -> usize {
        self.claims().spans.len()
    }

    /// Makes each thread end at its next span.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether [`Work::stop`] was called.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_db::SpanRow;
    use crate::store::SpanSource;
    use crate::transcript::SpanId;

    fn work() -> Work {
        Work::new(IntGauge::new("running", "Threads with a claim.").expect("a gauge"))
    }

    fn job(id: i64) -> Job {
        let span = SpanId { vat: VatId::new("v1"), start: 0, end: 1 };
        let row = SpanRow { id: span, hash: None, is_current: false, incarnation: 0 };
        Job { id, row, source: SpanSource::Live, noticed_at: 0.0, attempts: 0 }
    }

    #[test]
    fn a_claim_is_given_back_when_it_is_dropped() {
        let work = work();
        let (_, mut claim) = work.take(|_| Some(job(1))).expect("a span");
        assert!(claim.add(2) && !claim.add(1) && !claim.add(2), "each span is claimed once");
        assert_eq!((work.running(), work.running.get()), (2, 1));
        let other = work.take(|claims| {
            assert!(claims.spans.contains(&1) && claims.vats.contains(&VatId::new("v1")));
            Some(job(3))
        });
        assert_eq!((work.running(), work.running.get()), (3, 2));
        drop(claim);
        drop(other);
        assert_eq!((work.running(), work.running.get()), (0, 0));
        assert!(work.claims().vats.is_empty());
    }

    #[test]
    fn stopping_ends_a_thread_that_waits() {
        let work = work();
        std::thread::scope(|scope| {
            let (asked, was_asked) = std::sync::mpsc::sync_channel(1);
            let waiting = scope.spawn(|| {
                let asked = asked;
                let ask = |_: &Claims| {
                    let _ = asked.try_send(());
                    None
                };
                work.take(ask).is_none()
            });
            was_asked.recv().expect("the thread asks for a span");
            work.stop();
            assert!(waiting.join().expect("no panic"));
        });
        assert!(work.take(|_| Some(job(1))).is_none(), "nothing is begun any more");
    }
}
