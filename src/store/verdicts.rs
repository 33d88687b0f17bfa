//! Verdicts: written once each, read by many.

use rusqlite::{OptionalExtension, Row, ToSql, params};
use serde::Serialize;

use super::alarms::ALARMING;
use super::captures::release;
use super::queue::add_total;
use super::{SeenTo, Store, StoreError, now, signed, span_id, unsigned};
use crate::audit::ContradictionKind;
use crate::transcript::SpanId;
use crate::verdict::FindingKind;

/// What came of a span, in the words of the store.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The verdict's label.
    pub verdict: &'static str,
    /// The label of its reason, if it has one.
    pub reason: Option<&'static str>,
    /// The same for people.
    pub explanation: Option<String>,
    /// The kinds of what differed, each once.
    pub kinds: Vec<&'static str>,
    /// Responses that contradict the record, by kind.
    pub contradictions: Vec<(ContradictionKind, u64)>,
    /// Where the part that could be seen ends, for one that is partial or has no more than a part.
    pub seen_to: Option<SeenTo>,
    /// Items that were gone before they could be seen.
    pub unseen: u64,
    /// Set when the node's own record is damaged.
    pub is_damage: bool,
    /// Set when nothing could be replayed because the node had deleted it.
    pub is_missed: bool,
    /// What it started from.
    pub base: &'static str,
    /// The report as a JSON object.
    pub detail: String,
    /// How long its replay took.
    pub replay_seconds: f64,
    /// Deliveries compared.
    pub deliveries: u64,
    /// Syscalls compared.
    pub syscalls: u64,
    /// Snapshot hashes compared.
    pub hashes: u64,
    /// The sha256 of the worker.
    pub worker_sha256: String,
    /// What the heaps are to each other, where the snapshot's hash differs.
    pub heap: Option<&'static str>,
}

impl Outcome {
    /// How a kind of divergence is counted: that of the heap with what both heaps are to each other.
    #[must_use]
    pub fn divergence_label(&self, kind: &str) -> String {
        match self.heap {
            Some(heap) if kind == FindingKind::SnapshotHash.label() => format!("{kind}/{heap}"),
            _ => kind.to_owned(),
        }
    }
}

/// A span with what is known of it.
#[derive(Debug, Clone, Serialize)]
pub struct VerdictRow {
    /// How it is named to people and in `ack`.
    pub id: String,
    /// The vat.
    pub vat: String,
    /// Its name.
    pub name: Option<String>,
    /// Its incarnation.
    pub incarnation: u64,
    /// First position.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// The verdict, or `pending`.
    pub verdict: String,
    /// Its reason.
    pub reason: Option<String>,
    /// Set when the node's own record is damaged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub damage: bool,
    /// The same for people.
    pub explanation: Option<String>,
    /// Kinds of divergence.
    pub kinds: Vec<String>,
    /// One past the last position that was seen, where that is not all.
    pub seen_to: Option<u64>,
    /// What it started from.
    pub base: Option<String>,
    /// `live` or `history`; `rows` for an alarm about rows of the node's database.
    pub source: String,
    /// When its closing was noticed, in seconds since 1970.
    pub noticed_at: f64,
    /// When the verdict was written.
    pub finished_at: Option<f64>,
    /// How long the replay took.
    pub replay_seconds: Option<f64>,
    /// How often it was tried in vain.
    pub attempts: u64,
    /// Deliveries compared.
    pub deliveries: Option<u64>,
    /// Syscalls compared.
    pub syscalls: Option<u64>,
    /// For what alarms: whether a person has taken note of it.
    pub acknowledged: Option<bool>,
    /// The notes on it, a line each, the first one first.
    pub note: Option<String>,
    /// The whole report of a divergence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<serde_json::Value>,
}

/// Which verdicts.
#[derive(Debug, Clone, Default)]
pub struct VerdictFilter {
    /// Only divergences.
    pub is_diverged: bool,
    /// Only what needs a person: divergences, damage, and rows that changed.
    pub is_alarm: bool,
    /// Only of this vat, by ID or name.
    pub vat: Option<String>,
    /// Only the newest so many.
    pub limit: Option<u32>,
}

/// How many verdicts are read at once.
const PAGE: u32 = 500;

/// The name of a span among people: vat, bounds, and the beginning of its hash.
pub(super) const PUBLIC_ID: &str = "s.vat || '.' || s.start || '.' || s.end || '-' || substr(s.hash, 1, 8)";

impl Store {
    /// Writes the verdict of a span, counts it, and gives its captures free. `false` if it has one already: nothing is
    /// written then, and nothing is to be reported.
    ///
    /// # Errors
    /// When it can't be written; then nothing of it is.
    pub fn finish(&self, id: i64, span: &SpanId, outcome: &Outcome) -> Result<bool, StoreError> {
        self.write("write a verdict", |db| {
            let written = db
                .prepare_cached(
                    "UPDATE spans SET verdict = ?, reason = ?, explanation = ?, kinds = ?, seen_to = ?, base = ?, \
                     detail = ?, finished_at = ?, replay_seconds = ?, deliveries = ?, syscalls = ?, worker_sha256 = ?, \
                     is_damaged = ? \
                     WHERE id = ? AND verdict IS NULL",
                )?
                .execute(params![
                    outcome.verdict,
                    outcome.reason,
                    outcome.explanation,
                    outcome.kinds.join(","),
                    outcome.seen_to.map(signed),
                    outcome.base,
                    outcome.detail,
                    now(),
                    outcome.replay_seconds,
                    signed(outcome.deliveries),
                    signed(outcome.syscalls),
                    outcome.worker_sha256,
                    outcome.is_damage,
                    id
                ])?;
            if written == 0 {
                return Ok(false);
            }
            add_total(db, "spans", outcome.verdict, 1)?;
            for kind in &outcome.kinds {
                add_total(db, "divergences", &outcome.divergence_label(kind), 1)?;
            }
            for (kind, count) in &outcome.contradictions {
                add_total(db, "contradictions", kind.label(), *count)?;
            }
            match (outcome.verdict, outcome.reason) {
                ("unverifiable", Some(reason)) => add_total(db, "unverifiable", reason, 1)?,
                ("failed", Some(reason)) => add_total(db, "failures", reason, 1)?,
                _ => {}
            }
            for (name, value) in [
                ("missed", u64::from(outcome.is_missed)),
                ("unseen_items", outcome.unseen),
                ("deliveries", outcome.deliveries),
                ("syscalls", outcome.syscalls),
                ("snapshot_hashes", outcome.hashes),
            ] {
                add_total(db, name, "", value)?;
            }
            release(db, span.vat.as_str(), signed(span.start), outcome.verdict == "diverged")?;
            Ok(true)
        })
    }

    /// The counts that outlive the process, as name, label and value.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn totals(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.with("read the totals", |db| {
            let mut statement = db.prepare("SELECT name, label, value FROM totals")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?)))?;
            rows.collect()
        })
    }

    /// When a span was verified last, in whole or (`partial`) as far as it could be seen, in seconds since 1970.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn last_verified_at(&self) -> Result<Option<f64>, StoreError> {
        self.with("read the last verdict", |db| {
            let mut statement = db.prepare_cached(
                "SELECT finished_at FROM spans WHERE verdict IS NOT NULL AND verdict IN ('verified', 'partial') \
                 ORDER BY finished_at DESC LIMIT 1",
            )?;
            statement.query_row([], |row| row.get(0)).optional()
        })
    }

    /// The last position that was verified of each vat, in a whole span or a partial one, with the vat's name.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn last_verified_positions(&self) -> Result<Vec<(String, Option<String>, u64)>, StoreError> {
        self.with("read the last verdicts", |db| {
            let mut statement = db.prepare_cached(
                "SELECT v.vat, v.name, (SELECT coalesce(s.seen_to, s.end) FROM spans AS s \
                 WHERE s.vat = v.vat AND s.verdict IN ('verified', 'partial') ORDER BY s.start DESC LIMIT 1) AS end \
                 FROM vats AS v WHERE end IS NOT NULL ORDER BY length(v.vat), v.vat",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)? - 1)))?;
            rows.collect()
        })
    }

    /// Whether a vat of this ID or name was ever seen.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn knows_vat(&self, word: &str) -> Result<bool, StoreError> {
        self.with("look for a vat", |db| {
            db.query_row(
                "SELECT EXISTS (SELECT 1 FROM vats WHERE vat = ?1 OR name = ?1) OR EXISTS (SELECT 1 FROM spans WHERE vat = ?1) \
                 OR EXISTS (SELECT 1 FROM alarms WHERE vat = ?1)",
                [word],
                |row| row.get(0),
            )
        })
    }

    /// Hands out the alarms about rows, then the spans that match, each newest first. Spans are read in pages, so that a
    /// slow reader does not hold the store's file up.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn verdicts(&self, filter: &VerdictFilter, mut each: impl FnMut(VerdictRow)) -> Result<(), StoreError> {
        let (mut left, mut before) = (filter.limit.unwrap_or(u32::MAX), i64::MAX);
        for row in self.alarms(filter)? {
            left = left.saturating_sub(1);
            each(row);
        }
        while left > 0 {
            let page = self.page(filter, before, left.min(PAGE))?;
            let Some((last, _)) = page.last() else { break };
            before = *last;
            left -= u32::try_from(page.len()).unwrap_or(left).min(left);
            page.into_iter().for_each(|(_, row)| each(row));
        }
        Ok(())
    }

    /// The newest matching spans whose number is below one, each with its number.
    fn page(&self, filter: &VerdictFilter, before: i64, limit: u32) -> Result<Vec<(i64, VerdictRow)>, StoreError> {
        self.with("read the verdicts", |db| {
            let mut conditions = vec!["s.id < ?".to_owned()];
            let mut values: Vec<&dyn ToSql> = vec![&before];
            if filter.is_diverged {
                conditions.push("s.verdict = 'diverged'".to_owned());
            }
            if filter.is_alarm {
                conditions.push(ALARMING.to_owned());
            }
            if let Some(vat) = &filter.vat {
                conditions.push("(s.vat = ? OR v.name = ?)".to_owned());
                values.extend([vat as &dyn ToSql, vat]);
            }
            values.push(&limit);
            let mut statement = db.prepare(&format!(
                "SELECT {PUBLIC_ID}, s.vat, s.start, s.end, v.name, s.incarnation, coalesce(s.verdict, 'pending'), \
                 s.reason, s.explanation, s.kinds, s.seen_to, s.base, s.source, s.noticed_at, s.finished_at, \
                 s.replay_seconds, s.attempts, s.deliveries, s.syscalls, s.acknowledged_at IS NOT NULL, s.note, s.detail, \
                 s.id, s.is_damaged \
                 FROM spans AS s LEFT JOIN vats AS v ON v.vat = s.vat WHERE {} ORDER BY s.id DESC LIMIT ?",
                conditions.join(" AND ")
            ))?;
            let mut rows = statement.query(&values[..])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                page.push((row.get(22)?, verdict_row(row)?));
            }
            Ok(page)
        })
    }

    /// The folders of evidence all of whose divergences were acknowledged.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn acknowledged_evidence(&self) -> Result<Vec<String>, StoreError> {
        self.with("read which evidence is acknowledged", |db| {
            let mut statement = db.prepare_cached(
                "SELECT json_extract(detail, '$.evidence') AS folder FROM spans \
                 WHERE verdict = 'diverged' AND folder IS NOT NULL \
                 GROUP BY folder HAVING min(acknowledged_at IS NOT NULL) = 1",
            )?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Forgets verdicts that are older than so many seconds; of what alarms only what was acknowledged.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn forget_older_than(&self, seconds: f64) -> Result<u64, StoreError> {
        self.write("forget old verdicts", |db| {
            let forgotten = db.execute(
                &format!(
                    "DELETE FROM spans WHERE verdict IS NOT NULL AND finished_at < ? \
                     AND (acknowledged_at IS NOT NULL OR NOT {ALARMING})"
                ),
                [now() - seconds],
            )?;
            Ok(forgotten as u64)
        })
    }
}

fn verdict_row(row: &Row<'_>) -> rusqlite::Result<VerdictRow> {
    let id = span_id(row, 1)?;
    let verdict: String = row.get(6)?;
    let (is_diverged, damage) = (verdict == "diverged", row.get(23)?);
    let is_alarming = is_diverged || damage || verdict == "contradicted";
    let optional = |column: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(column)?.and_then(|number| u64::try_from(number).ok()))
    };
    let kinds: Option<String> = row.get(9)?;
    let detail: Option<String> = row.get(21)?;
    Ok(VerdictRow {
        id: row.get(0)?,
        vat: id.vat.to_string(),
        name: row.get(4)?,
        incarnation: unsigned(row, 5)?,
        start: id.start,
        end: id.end,
        reason: row.get(7)?,
        damage,
        explanation: row.get(8)?,
        kinds: kinds
            .iter()
            .flat_map(|kinds| kinds.split(','))
            .filter(|kind| !kind.is_empty())
            .map(str::to_owned)
            .collect(),
        seen_to: optional(10)?,
        base: row.get(11)?,
        source: row.get(12)?,
        noticed_at: row.get(13)?,
        finished_at: row.get(14)?,
        replay_seconds: row.get(15)?,
        attempts: unsigned(row, 16)?,
        deliveries: optional(17)?,
        syscalls: optional(18)?,
        acknowledged: if is_alarming { Some(row.get(19)?) } else { None },
        note: row.get(20)?,
        report: if is_diverged || verdict == "contradicted" {
            detail.and_then(|text| serde_json::from_str(&text).ok())
        } else {
            None
        },
        verdict,
    })
}
