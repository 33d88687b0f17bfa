//! Verdicts: written once each, read by many.

use rusqlite::{OptionalExtension, Row, ToSql, params};
use serde::Serialize;

use super::alarms::ALARMING;
use super::captures::release;
use super::labels::{RowSource, RowState, Stored};
use super::queue::add_total;
use super::{SeenTo, Store, StoreError, now, signed, span_id, unsigned};
use crate::span::BaseKind;
use crate::tally::{Counter, Tally};
use crate::transcript::SpanId;
use crate::verdict::{FindingKind, VerdictKind};

/// The result of a span, as it is written.
#[derive(Debug, Clone)]
pub struct FinishedSpan {
    /// The kind of its verdict.
    pub verdict: VerdictKind,
    /// The label of its reason, if it has one.
    pub reason: Option<&'static str>,
    /// A sentence for people.
    pub explanation: Option<String>,
    /// The kinds of findings, each once.
    pub kinds: Vec<FindingKind>,
    /// The end of the part that could be seen, if that is not all.
    pub seen_to: Option<SeenTo>,
    /// Set when the node's own record is damaged.
    pub is_damage: bool,
    /// The image or bundles that it started from.
    pub base: BaseKind,
    /// The report as a JSON object.
    pub detail: String,
    /// The time of its replay, in seconds.
    pub replay_seconds: f64,
    /// The sha256 of the worker, in hex.
    pub worker_sha256: String,
    /// The counts that the verdict adds.
    pub tally: Tally,
}

/// A row of the list of verdicts: a span, or an alarm about rows of the node's database.
#[derive(Debug, Clone, Serialize)]
pub struct VerdictRow {
    /// The ID for people, `ack` and the API.
    pub id: String,
    /// The vat's ID.
    pub vat: String,
    /// The vat's name.
    pub name: Option<String>,
    /// The vat's incarnation.
    pub incarnation: u64,
    /// The first position.
    pub start: u64,
    /// One past the last position.
    pub end: u64,
    /// The verdict; `pending` before there is one, `changed` for a row that changed.
    pub verdict: Stored<RowState>,
    /// The label of the reason.
    pub reason: Option<String>,
    /// Set when the node's own record is damaged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub damage: bool,
    /// A sentence for people.
    pub explanation: Option<String>,
    /// The kinds of findings.
    pub kinds: Vec<Stored<FindingKind>>,
    /// One past the last position that was seen, if that is not all.
    pub seen_to: Option<u64>,
    /// The image or bundles that the span started from.
    pub base: Option<Stored<BaseKind>>,
    /// `live` or `history`; `rows` for an alarm about rows of the node's database.
    pub source: Stored<RowSource>,
    /// The time when the end of the span was noticed, in seconds since 1970.
    pub noticed_at: f64,
    /// The time when the verdict was written, in seconds since 1970.
    pub finished_at: Option<f64>,
    /// The time of the replay, in seconds.
    pub replay_seconds: Option<f64>,
    /// The number of failed attempts.
    pub attempts: u64,
    /// The number of deliveries compared.
    pub deliveries: Option<u64>,
    /// The number of syscalls compared.
    pub syscalls: Option<u64>,
    /// Whether a person acknowledged it; `None` for a row that needs no person.
    pub acknowledged: Option<bool>,
    /// The notes on it, a line each, the first one first.
    pub note: Option<String>,
    /// The whole report of a divergence or a contradiction.
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
    pub fn finish(&self, id: i64, span: &SpanId, finished: &FinishedSpan) -> Result<bool, StoreError> {
        let kinds: Vec<&str> = finished.kinds.iter().map(|kind| kind.label()).collect();
        let count = |counter| signed(finished.tally.get(counter));
        self.write("write a verdict", |db| {
            let written = db
                .prepare_cached(
                    "UPDATE spans SET verdict = ?, reason = ?, explanation = ?, kinds = ?, seen_to = ?, base = ?, \
                     detail = ?, finished_at = ?, replay_seconds = ?, deliveries = ?, syscalls = ?, worker_sha256 = ?, \
                     is_damaged = ? \
                     WHERE id = ? AND verdict IS NULL",
                )?
                .execute(params![
                    finished.verdict.label(),
                    finished.reason,
                    finished.explanation,
                    kinds.join(","),
                    finished.seen_to.map(signed),
                    finished.base.label(),
                    finished.detail,
                    now(),
                    finished.replay_seconds,
                    count(Counter::Deliveries),
                    count(Counter::Syscalls),
                    finished.worker_sha256,
                    finished.is_damage,
                    id
                ])?;
            if written == 0 {
                return Ok(false);
            }
            for (counter, value) in finished.tally.iter() {
                add_total(db, counter, value)?;
            }
            release(db, span.vat.as_str(), signed(span.start), finished.verdict == VerdictKind::Diverged)?;
            Ok(true)
        })
    }

    /// The counts that outlive the process, typed. Counters that only another version knows are left out.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn tally(&self) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        for (name, label, value) in self.totals()? {
            if let Some(counter) = Counter::of_stored(&name, &label) {
                tally.add(counter, value);
            }
        }
        Ok(tally)
    }

    /// The counts that outlive the process, as name, label and value, those of another version too.
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
                "SELECT {PUBLIC_ID}, s.vat, s.start, s.end, v.name, s.incarnation, s.reason, s.explanation, \
                 s.noticed_at, s.acknowledged_at IS NOT NULL, s.note, coalesce(s.verdict, 'pending'), s.is_damaged, s.kinds, \
                 s.seen_to, s.base, s.source, s.finished_at, s.replay_seconds, s.attempts, s.deliveries, s.syscalls, s.detail, s.id \
                 FROM spans AS s LEFT JOIN vats AS v ON v.vat = s.vat WHERE {} ORDER BY s.id DESC LIMIT ?",
                conditions.join(" AND ")
            ))?;
            let mut rows = statement.query(&values[..])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                page.push((row.get(23)?, span_row(row)?));
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

impl VerdictRow {
    /// Reads the columns that spans and alarms share, the first eleven: ID, vat, start, end, name, incarnation, reason, explanation, time,
    /// whether it is acknowledged, notes.
    pub(super) fn read(row: &Row<'_>, verdict: Stored<RowState>, source: Stored<RowSource>) -> rusqlite::Result<Self> {
        let id = span_id(row, 1)?;
        Ok(Self {
            id: row.get(0)?,
            vat: id.vat.to_string(),
            name: row.get(4)?,
            incarnation: unsigned(row, 5)?,
            start: id.start,
            end: id.end,
            verdict,
            reason: row.get(6)?,
            damage: false,
            explanation: row.get(7)?,
            kinds: Vec::new(),
            seen_to: None,
            base: None,
            source,
            noticed_at: row.get(8)?,
            finished_at: None,
            replay_seconds: None,
            attempts: 0,
            deliveries: None,
            syscalls: None,
            acknowledged: Some(row.get(9)?),
            note: row.get(10)?,
            report: None,
        })
    }
}

fn span_row(row: &Row<'_>) -> rusqlite::Result<VerdictRow> {
    let verdict = Stored::read(row.get_ref(11)?.as_str()?);
    let has_report = [VerdictKind::Diverged, VerdictKind::Contradicted].map(RowState::Judged).map(|of| verdict.is(of));
    let has_report = has_report.contains(&true);
    let read = VerdictRow::read(row, verdict, Stored::read(row.get_ref(16)?.as_str()?))?;
    let optional = |column: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(column)?.and_then(|number| u64::try_from(number).ok()))
    };
    let damage = row.get(12)?;
    let kinds: Option<String> = row.get(13)?;
    let kinds = kinds.iter().flat_map(|kinds| kinds.split(',')).filter(|kind| !kind.is_empty());
    let base: Option<String> = row.get(15)?;
    let detail: Option<String> = row.get(22)?;
    Ok(VerdictRow {
        damage,
        kinds: kinds.map(Stored::read).collect(),
        seen_to: optional(14)?,
        base: base.as_deref().map(Stored::read),
        finished_at: row.get(17)?,
        replay_seconds: row.get(18)?,
        attempts: unsigned(row, 19)?,
        deliveries: optional(20)?,
        syscalls: optional(21)?,
        acknowledged: read.acknowledged.filter(|_| has_report || damage),
        report: detail.filter(|_| has_report).and_then(|text| serde_json::from_str(&text).ok()),
        ..read
    })
}
