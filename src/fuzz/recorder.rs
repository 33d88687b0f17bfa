//! The node's flight recorder.

use std::ops::ControlFlow;

use crate::record::recorder::entries::{At, Index, Reading, item};
use crate::record::recorder::ring::Ring;
use crate::transcript::VatId;

/// Each text that is found is whole and the same at its second reading, and each item that comes out of the entries is JSON.
pub(super) fn recorder(bytes: &[u8]) {
    let Ok(ring) = Ring::open(bytes) else { return };
    let (mut index, mut reading, mut places) = (Index::default(), Reading::new(0), Vec::new());
    let read = ring.for_each(|text, place| {
        assert!(text.starts_with(b"{") && text.ends_with(b"}") && text.iter().all(|byte| *byte >= b' '));
        index.note(&mut reading, text, place, |_, _| true);
        places.push(place);
        ControlFlow::Continue(())
    });
    read.expect("in memory");
    for place in &places {
        ring.text(place).expect("in memory");
    }
    reading.rotate();
    index.add(reading);
    for vat in (0..10).map(|number| VatId::new(format!("v{number}"))) {
        for attempt in (0..10).flat_map(|position| index.attempts(&vat, position)) {
            let text = item(attempt, |at: &At| ring.text(&at.place)).expect("in memory");
            if let Some(text) = text {
                serde_json::from_slice::<serde::de::IgnoredAny>(&text).expect("an item is JSON");
            }
        }
    }
}
