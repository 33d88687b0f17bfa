//! The complaints: trouble that lasts is logged once and then now and again, not at each attempt.
//!
//! Owns which complaints were logged, and when. Complaints about one subject end together.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time after which the same complaint is logged again.
const TELL_AGAIN: Duration = Duration::from_secs(600);
/// The number of complaints that are remembered; beyond that all are forgotten.
const COMPLAINTS_MAX: usize = 100;

/// The subject of a complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The daemon's own store.
    Store,
    /// The node's database.
    Database,
    /// The watch on the files of the database.
    FileEvents,
    /// Copies of what the node deletes.
    Capture,
    /// The node's archive directories.
    Archive,
    /// The evidence of divergences.
    Evidence,
}

/// The complaints that were made.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<BTreeMap<(Subject, String), Complaint>>);

#[derive(Debug)]
struct Complaint {
    told: Instant,
    /// How often it was made since.
    unsaid: u64,
}

impl Complaints {
    fn known(&self) -> MutexGuard<'_, BTreeMap<(Subject, String), Complaint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a complaint, unless the same one was logged a short time ago.
    pub(super) fn complain(&self, about: Subject, text: &str) {
        match self.note(about, text, Instant::now()) {
            Some(0) => tracing::error!("{text}"),
            Some(unsaid) => tracing::error!(times = unsaid + 1, "{text}"),
            None => {}
        }
    }

    /// Notes a complaint. `None` if it is not to be logged; else how often it was made without being logged.
    fn note(&self, about: Subject, text: &str, now: Instant) -> Option<u64> {
        let mut known = self.known();
        if known.len() > COMPLAINTS_MAX {
            known.clear();
        }
        match known.get_mut(&(about, text.to_owned())) {
            Some(complaint) if now.duration_since(complaint.told) < TELL_AGAIN => {
                complaint.unsaid += 1;
                None
            }
            Some(complaint) => Some(std::mem::replace(complaint, Complaint { told: now, unsaid: 0 }).unsaid),
            None => {
                known.insert((about, text.to_owned()), Complaint { told: now, unsaid: 0 });
                Some(0)
            }
        }
    }

    /// Forgets all complaints about a subject. Whether there were any.
    pub(super) fn end(&self, about: Subject) -> bool {
        let mut known = self.known();
        let before = known.len();
        known.retain(|(of, _), _| *of != about);
        known.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_complaint_is_logged_again_only_after_a_while() {
        let complaints = Complaints::default();
        let began = Instant::now();
        let at = |seconds| complaints.note(Subject::Store, "full", began + Duration::from_secs(seconds));
        assert_eq!((at(0), at(1), at(599)), (Some(0), None, None));
        assert_eq!(at(600), Some(2), "with the number of those that were not logged");
        assert_eq!(at(601), None);
        assert_eq!(complaints.note(Subject::Database, "full", began), Some(0), "another subject is another complaint");
        assert_eq!(complaints.note(Subject::Store, "locked", began), Some(0), "and so is another text");
    }

    #[test]
    fn what_ends_is_logged_anew_when_it_comes_back() {
        let complaints = Complaints::default();
        let now = Instant::now();
        assert!(!complaints.end(Subject::Store));
        complaints.note(Subject::Store, "full", now);
        complaints.note(Subject::Capture, "full", now);
        assert!(complaints.end(Subject::Store) && !complaints.end(Subject::Store));
        assert_eq!(complaints.note(Subject::Store, "full", now), Some(0));
        assert_eq!(complaints.note(Subject::Capture, "full", now), None, "the other subject goes on");
    }

    #[test]
    fn memory_for_complaints_is_limited() {
        let complaints = Complaints::default();
        for number in 0..1_000 {
            complaints.note(Subject::Database, &number.to_string(), Instant::now());
        }
        assert!(complaints.known().len() <= COMPLAINTS_MAX + 1);
    }
}
