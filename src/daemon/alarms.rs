//! The alarms about rows of the node's database, in the log.

use crate::store::Alarm;
use crate::transcript::SpanId;

/// The number of alarms of one look that are logged one by one.
const ALARMS_TOLD_MAX: usize = 10;

/// The response of a person to damage and changed rows, in a line.
pub(super) const WHAT_TO_DO: &str = "keep a copy of the database as evidence, compare it with another node's, and restore the node from a \
     backup (docs/operations.md, \"When an alert fires\")";

/// Logs alarms that were just raised; of many only the first ones, and how many more there are.
pub(super) fn tell(raised: &[(String, Alarm)]) {
    for (id, Alarm { kind, id: SpanId { vat, start, .. }, reason, explanation, .. }) in
        raised.iter().take(ALARMS_TOLD_MAX)
    {
        let word = kind.label().to_uppercase();
        tracing::error!(%vat, start, reason, id, "{word}: {vat}: {explanation}; {WHAT_TO_DO}");
    }
    if let Some(more) = raised.len().checked_sub(ALARMS_TOLD_MAX).filter(|more| *more > 0) {
        tracing::error!("{more} more alarms about rows: `spanwatch verdicts --alarms` lists them");
    }
}
