//! Breaks of histories, for people and for programs: the same lines in `verify`, `spans` and `doctor`.

use serde::Serialize;

use super::json;
use crate::history::{Break, Gap, History};
use crate::transcript::VatId;

/// The hint beside each break.
pub const BREAK_HINT: &str = "rows were edited or lost: keep the file as evidence, compare it with another node's copy, and restore it from a backup";
/// The hint beside each gap.
pub const GAP_HINT: &str = "an import without history leaves this; if this node was never imported so, rows were deleted: compare with another node's copy";

/// A break or a gap as a JSON line, `"type":"history"`.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    r#type: &'static str,
    vat: Option<&'a str>,
    position: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    damage: bool,
    spans: &'a [u64],
    explanation: String,
}

impl<'a> Line<'a> {
    fn of_break(found: &'a Break) -> Self {
        Self {
            r#type: "history",
            vat: found.vat.as_ref().map(VatId::as_str),
            position: found.position,
            state: "broken",
            reason: Some("history_broken"),
            damage: true,
            spans: &found.spans,
            explanation: found.what.clone(),
        }
    }

    fn of_gap(gap: &'a Gap) -> Self {
        Self {
            r#type: "history",
            vat: Some(gap.vat.as_str()),
            position: gap.position,
            state: "begins_late",
            reason: None,
            damage: false,
            spans: &[],
            explanation: "no row is left of the positions before it".to_owned(),
        }
    }
}

/// All of them, breaks first.
pub fn lines(history: &History) -> impl Iterator<Item = Line<'_>> {
    history.breaks().iter().map(Line::of_break).chain(history.gaps().iter().map(Line::of_gap))
}

/// Likewise as JSON texts.
pub fn json_lines(history: &History) -> impl Iterator<Item = String> {
    lines(history).map(|line| json::line(&line))
}

/// Likewise as texts for people, each hint once.
#[must_use]
pub fn text_lines(history: &History) -> Vec<String> {
    let mut texts: Vec<String> = history.breaks().iter().map(|found| format!("HISTORY BROKEN {found}")).collect();
    if !texts.is_empty() {
        texts.push(format!("    {BREAK_HINT}"));
    }
    texts.extend(history.gaps().iter().map(|gap| format!("history begins late: {gap}")));
    if !history.gaps().is_empty() {
        texts.push(format!("    {GAP_HINT}"));
    }
    texts
}
