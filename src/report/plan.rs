//! The plan of a run, before its first replay: how many spans, and what their rows let expect. A program reads it to show progress.
//!
//! Decides from rows alone, as [`crate::plan`]. It must never promise a verdict.

use serde::Serialize;

use crate::kernel_db::SpanRow;
use crate::plan::{Outlook, Selection, Survey, Unit};

/// The first line of `verify`, `"type":"plan"`. Each number of spans is for one worker.
#[derive(Debug, Serialize)]
pub struct Plan {
    r#type: &'static str,
    /// Closed spans that were asked for.
    spans: u64,
    /// Closed spans that are replayed only because one that was asked for starts from their image.
    on_the_way: u64,
    /// Spans that were asked for and are still open: they get no verdict.
    open: u64,
    /// Independent groups of spans.
    units: usize,
    workers: usize,
    expected: Expected,
}

/// The closed spans of a plan, by what their rows say.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Expected {
    /// Spans whose items and base are there.
    replayed: u64,
    /// Something is gone, or the vat's history is broken there.
    unverifiable: u64,
    /// Spans of vats that run inside the kernel's process.
    not_applicable: u64,
}

impl Plan {
    /// The plan of some units for some workers.
    #[must_use]
    pub fn of(units: &[Unit], survey: &Survey, selection: &Selection, workers: usize) -> Self {
        let (mut spans, mut on_the_way, mut expected) = (0, 0, Expected::default());
        for planned in units.iter().flatten() {
            *if planned.is_asked { &mut spans } else { &mut on_the_way } += 1;
            *match planned.outlook(survey) {
                Outlook::Local => &mut expected.not_applicable,
                Outlook::Verifiable => &mut expected.replayed,
                Outlook::Not(_) | Outlook::Open => &mut expected.unverifiable,
            } += 1;
        }
        let open = open(survey, selection).count() as u64;
        Self { r#type: "plan", spans, on_the_way, open, units: units.len(), workers, expected }
    }
}

/// The spans that were asked for and are still open.
pub fn open<'a>(survey: &'a Survey, selection: &'a Selection) -> impl Iterator<Item = &'a SpanRow> {
    survey.spans.iter().map(|(row, _)| row).filter(|row| row.is_current && selection.has(survey, row))
}
