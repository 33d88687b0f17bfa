//! `spanwatch verify --chain`: where a worker first leaves the record if no recorded image puts it back.
//!
//! Owns the order of the chain. A difference ends it: each span after it would start from an image that no record speaks of.

use serde::Serialize;

use super::CliError;
use super::args::Format;
use crate::plan::{Base, PlannedSpan, Unit};
use crate::report::{Totals, json, text};
use crate::span::SpanBegins;
use crate::transcript::Position;
use crate::verdict::Verdict;
use crate::verify::{Chain, Context};
use crate::visible;

#[derive(Debug, Serialize)]
struct ChainLine {
    r#type: &'static str,
    worker: usize,
    spans: usize,
    /// The bounds of the first span that is not as recorded.
    first: Option<(Position, Position)>,
}

/// Replays the spans of one vat that were asked for with each worker, each span from the image that the replay of the span before gave,
/// up to the first that differs.
pub(super) fn run(context: &Context<'_>, units: Vec<Unit>, format: Format) -> Result<Totals, CliError> {
    let mut spans: Vec<PlannedSpan> = units.into_iter().flatten().filter(|planned| planned.is_asked).collect();
    spans.sort_by_key(|planned| planned.row.id.start);
    for at in 1..spans.len() {
        let follows = spans[at - 1].row.id.end == spans[at].row.id.start;
        if follows && spans[at].begins == Some(SpanBegins::LoadSnapshot) {
            spans[at].base = Base::Chained;
        }
    }
    let workers = context.programs.len();
    let mut out = visible::stdout();
    let mut totals = Totals::default();
    for worker in 0..workers {
        let mut chain = Chain::new(context, worker);
        let mut first = None;
        for planned in &spans {
            let report = chain.verify(planned);
            totals.add(&report);
            match format {
                Format::Text => out.write_lines(&text::span(&report, workers))?,
                Format::Json => writeln!(out, "{}", json::span(&report))?,
            }
            if matches!(report.verdict, Verdict::Diverged(_)) {
                first = Some((report.id.start, report.id.end));
                break;
            }
        }
        let of_worker = if workers > 1 { format!(" with worker {worker}") } else { String::new() };
        match (format, first) {
            (Format::Json, _) => {
                let line = ChainLine { r#type: "chain", worker, spans: spans.len(), first };
                writeln!(out, "{}", json::line(&line))?;
            }
            (Format::Text, Some((start, end))) => {
                writeln!(out, "a chained replay differs first in span [{start}, {end}){of_worker}")?;
            }
            (Format::Text, None) => writeln!(out, "no span differs in a chained replay{of_worker}")?,
        }
    }
    Ok(totals)
}
