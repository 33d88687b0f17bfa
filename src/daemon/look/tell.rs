//! Telling: the events in the lives of vats, logged and counted once the store has them.

use super::Tracker;
use crate::daemon::view::NodeEvent;
use crate::transcript::{Position, VatId};

/// An event in the life of a vat.
pub(super) enum VatEvent {
    /// The vat was terminated; with its name.
    Terminated(VatId, Option<String>),
    /// Its rows were deleted before its last span, which starts there, was seen.
    Gone(VatId, Position),
    /// So many spans of its history are others than were noted.
    Rewritten(VatId, usize),
    /// Its rows from there on are others than were seen.
    Restored(VatId, Position),
}

impl Tracker<'_> {
    pub(super) fn tell(&self, event: VatEvent) {
        match event {
            VatEvent::Terminated(vat, name) => {
                let events = &self.shared.metrics.node_events;
                events.with_label_values(&[NodeEvent::VatTerminated.label()]).inc();
                tracing::info!(%vat, name, "the vat was terminated");
            }
            VatEvent::Gone(vat, position) => tracing::warn!(
                %vat,
                "the vat was terminated and its rows were deleted between two looks: items from position {position} on were not verified"
            ),
            VatEvent::Restored(vat, from) => tracing::warn!(
                %vat,
                "its newest rows differ from those that were seen: the database was restored, rolled back or edited; rows from position \
                 {from} on are learned anew"
            ),
            VatEvent::Rewritten(vat, count) => {
                tracing::warn!(%vat, "its history is another one than was noted: {count} of its spans are new");
            }
        }
    }
}
