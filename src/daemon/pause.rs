//! The pauses: no replay is begun while the machine is short of memory or disk.
//!
//! Owns which reasons hold now. Replays that run are not stopped, and spans that close meanwhile are noted.

use std::sync::atomic::{AtomicU8, Ordering};

use super::config::Config;
use super::neighbour;

/// A reason to begin no replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PauseReason {
    /// Too little memory is available.
    Memory,
    /// Too little room is free in the state directory.
    Disk,
}

impl PauseReason {
    /// All reasons.
    pub(crate) const ALL: [Self; 2] = [Self::Memory, Self::Disk];

    /// The label in JSON and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }

    /// A sentence for people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Memory => "replays paused: memory low",
            Self::Disk => "replays paused: disk low",
        }
    }

    /// The configuration key of its threshold.
    fn key(self) -> &'static str {
        match self {
            Self::Memory => "neighbour.min_available_memory",
            Self::Disk => "state.min_free",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Memory => 1,
            Self::Disk => 2,
        }
    }
}

/// A measurement against its threshold, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    reason: PauseReason,
    /// `None` if the system does not say.
    has: Option<u64>,
    needed: u64,
}

impl Measured {
    fn is_short(self) -> bool {
        self.has.is_some_and(|has| has < self.needed)
    }
}

/// The change that a measurement made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PauseChange {
    /// The reason did not hold, and does now.
    Began,
    /// It held, and does not now.
    Ended,
}

/// Measures memory and disk.
pub(super) fn measure(config: &Config) -> [Measured; 2] {
    let (memory, disk) = (neighbour::available_memory(), neighbour::free_disk(&config.state.dir));
    [
        Measured { reason: PauseReason::Memory, has: memory, needed: config.neighbour.min_available_memory },
        Measured { reason: PauseReason::Disk, has: disk, needed: config.state.min_free },
    ]
}

/// The reasons that hold: a bit for each.
#[derive(Debug, Default)]
pub(super) struct Pauses(AtomicU8);

impl Pauses {
    /// Takes a measurement and logs a change.
    pub(super) fn update(&self, measured: Measured) -> Option<PauseChange> {
        let change = self.set(measured.reason, measured.is_short());
        let Measured { reason, has, needed } = measured;
        match change {
            Some(PauseChange::Began) => tracing::warn!(
                "{}: {} bytes are left, {needed} are needed ({}); spans that close meanwhile are noted",
                reason.text(),
                has.unwrap_or(0),
                reason.key()
            ),
            Some(PauseChange::Ended) => tracing::info!("replays resumed: enough {} again", reason.label()),
            None => {}
        }
        change
    }

    fn set(&self, reason: PauseReason, is_short: bool) -> Option<PauseChange> {
        let before = if is_short {
            self.0.fetch_or(reason.bit(), Ordering::Relaxed)
        } else {
            self.0.fetch_and(!reason.bit(), Ordering::Relaxed)
        };
        match (before & reason.bit() != 0, is_short) {
            (false, true) => Some(PauseChange::Began),
            (true, false) => Some(PauseChange::Ended),
            _ => None,
        }
    }

    /// Whether a reason holds.
    pub(super) fn has(&self, reason: PauseReason) -> bool {
        self.0.load(Ordering::Relaxed) & reason.bit() != 0
    }

    /// The reasons that hold.
    pub(super) fn reasons(&self) -> Vec<PauseReason> {
        PauseReason::ALL.into_iter().filter(|reason| self.has(*reason)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_begins_below_the_threshold_and_ends_at_it() {
        let pauses = Pauses::default();
        let memory = |has| pauses.update(Measured { reason: PauseReason::Memory, has, needed: 100 });
        assert_eq!(memory(Some(100)), None, "as much as is needed is enough");
        assert_eq!(memory(Some(99)), Some(PauseChange::Began));
        assert_eq!(memory(Some(0)), None, "it is told once");
        assert!(pauses.has(PauseReason::Memory) && !pauses.has(PauseReason::Disk));
        pauses.update(Measured { reason: PauseReason::Disk, has: Some(0), needed: 1 });
        assert_eq!(pauses.reasons(), PauseReason::ALL);
        assert_eq!(memory(Some(100)), Some(PauseChange::Ended));
        assert_eq!(pauses.reasons(), [PauseReason::Disk], "each reason ends by itself");
    }

    #[test]
    fn an_unknown_amount_is_no_reason_to_pause() {
        let pauses = Pauses::default();
        assert_eq!(pauses.update(Measured { reason: PauseReason::Memory, has: None, needed: 100 }), None);
        assert_eq!(pauses.reasons(), []);
    }
}
