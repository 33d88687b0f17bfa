//! What needs a person: divergences and damaged spans among the verdicts, and alarms about rows of the node's database.
//!
//! Owns the table of alarms and the acknowledgement of everything that can be acknowledged. An alarm is raised once: the
//! same finding about the same row is not raised again while its row is here, acknowledged or not.

use rusqlite::{Row, Transaction, params};

use super::labels::{RowSource, RowState, Stored};
use super::{Store, StoreError, VerdictFilter, VerdictRow, now, signed, unsigned};
use crate::transcript::SpanId;
use crate::verdict::VerdictKind;

/// Alarms of a kind beyond this number are dropped: a person with so many compares whole databases. It is far below what fills a disk.
const ALARMS_MAX: u64 = 10_000;

/// The name of an alarm among people: vat, position, kind and number.
const PUBLIC_ID: &str = "a.vat || '.' || a.start || '-' || a.kind || '-' || a.id";

/// Verdicts that alarm until they are acknowledged.
pub(super) const ALARMING: &str = "(verdict IN ('diverged', 'contradicted') OR is_damaged = 1)";

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmKind {
    /// The rows of a vat do not make a history that a kernel writes.
    Damaged,
    /// A row is not what it was when it was seen first.
    Changed,
}

impl AlarmKind {
    /// One word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Changed => "changed",
        }
    }
}

/// Something wrong with a row of the node's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Of which kind.
    pub kind: AlarmKind,
    /// The span that the row is about; of a position alone, a span without length.
    pub id: SpanId,
    /// The span's incarnation, as it was seen first.
    pub incarnation: u64,
    /// One word.
    pub reason: &'static str,
    /// A sentence. Another finding about the same row has another one.
    pub explanation: String,
}

/// How much nobody has acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unacknowledged {
    /// Diverged spans.
    pub diverged: u64,
    /// Spans with responses that contradict the record.
    pub contradicted: u64,
    /// Damaged spans, and breaks in histories.
    pub damaged: u64,
    /// Rows that changed.
    pub changed: u64,
}

impl Unacknowledged {
    /// All of it.
    #[must_use]
    pub fn total(self) -> u64 {
        self.diverged + self.contradicted + self.damaged + self.changed
    }
}

/// What came of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// It is now.
    Now,
    /// It was already, and no note was given.
    Before,
    /// It was already; the note is added to those that it has.
    Noted,
    /// Nothing that can be acknowledged has that name.
    Unknown,
}

impl Store {
    /// How much nobody has acknowledged.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn unacknowledged(&self) -> Result<Unacknowledged, StoreError> {
        self.with("count alarms", |db| {
            let count = |sql: &str| db.prepare_cached(sql)?.query_row([], |row| unsigned(row, 0));
            let of_kind = "SELECT count(*) FROM alarms WHERE acknowledged_at IS NULL AND kind =";
            Ok(Unacknowledged {
                diverged: count("SELECT count(*) FROM spans WHERE verdict = 'diverged' AND acknowledged_at IS NULL")?,
                contradicted: count(
                    "SELECT count(*) FROM spans WHERE verdict = 'contradicted' AND acknowledged_at IS NULL",
                )?,
                damaged: count("SELECT count(*) FROM spans WHERE is_damaged = 1 AND acknowledged_at IS NULL")?
                    + count(&format!("{of_kind} 'damaged'"))?,
                changed: count(&format!("{of_kind} 'changed'"))?,
            })
        })
    }

    /// Takes an alarm off its gauge, with a note. If it is off already, the note becomes another line of its notes.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn acknowledge(&self, id: &str, note: Option<&str>) -> Result<Acknowledged, StoreError> {
        self.write("acknowledge an alarm", |db| {
            let of_span = super::verdicts::PUBLIC_ID.replace("s.", "");
            let (mut changed, mut noted, mut known) = (0, 0, 0_i64);
            let of_alarm = PUBLIC_ID.replace("a.", "");
            for (table, condition) in
                [("spans", format!("{ALARMING} AND {of_span} = ?")), ("alarms", format!("{of_alarm} = ?"))]
            {
                if let Some(note) = note {
                    let set = "SET note = coalesce(note || char(10), '') || ?";
                    let sql = format!("UPDATE {table} {set} WHERE acknowledged_at IS NOT NULL AND {condition}");
                    noted += db.execute(&sql, params![note, id])?;
                }
                changed += db.execute(
                    &format!(
                        "UPDATE {table} SET acknowledged_at = ?, note = ? WHERE acknowledged_at IS NULL AND {condition}"
                    ),
                    params![now(), note, id],
                )?;
                known += db.query_row(&format!("SELECT count(*) FROM {table} WHERE {condition}"), [id], |row| {
                    row.get::<_, i64>(0)
                })?;
            }
            Ok(match (changed, noted, known) {
                (1.., _, _) => Acknowledged::Now,
                (0, 1.., _) => Acknowledged::Noted,
                (0, 0, 1..) => Acknowledged::Before,
                _ => Acknowledged::Unknown,
            })
        })
    }

    /// Takes all alarms of a kind off their gauge, of one vat or of all. How many there were.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn acknowledge_all(&self, kind: AlarmKind, vat: Option<&str>, note: Option<&str>) -> Result<u64, StoreError> {
        self.write("acknowledge alarms", |db| {
            let of_vat = "(?3 IS NULL OR vat = ?3 OR vat IN (SELECT vat FROM vats WHERE name = ?3))";
            let set = "SET acknowledged_at = ?1, note = ?2 WHERE acknowledged_at IS NULL";
            let mut count = db.execute(
                &format!("UPDATE alarms {set} AND kind = '{}' AND {of_vat}", kind.label()),
                params![now(), note, vat],
            )?;
            if kind == AlarmKind::Damaged {
                let sql = format!("UPDATE spans {set} AND is_damaged = 1 AND {of_vat}");
                count += db.execute(&sql, params![now(), note, vat])?;
            }
            Ok(count as u64)
        })
    }

    /// The alarms about rows that match, newest first.
    pub(super) fn alarms(&self, filter: &VerdictFilter) -> Result<Vec<VerdictRow>, StoreError> {
        if filter.is_diverged {
            return Ok(Vec::new());
        }
        self.with("read the alarms", |db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT {PUBLIC_ID}, a.vat, a.start, a.end, v.name, a.incarnation, a.reason, a.explanation, a.found_at, \
                 a.acknowledged_at IS NOT NULL, a.note, a.kind \
                 FROM alarms AS a LEFT JOIN vats AS v ON v.vat = a.vat \
                 WHERE (?1 IS NULL OR a.vat = ?1 OR v.name = ?1) ORDER BY a.id DESC LIMIT ?2"
            ))?;
            let rows = statement.query_map(params![filter.vat, filter.limit.unwrap_or(u32::MAX)], alarm_row)?;
            rows.collect()
        })
    }
}

fn alarm_row(row: &Row<'_>) -> rusqlite::Result<VerdictRow> {
    let damage = row.get_ref(11)?.as_str()? == AlarmKind::Damaged.label();
    let state = if damage { RowState::Judged(VerdictKind::Unverifiable) } else { RowState::Changed };
    let read = VerdictRow::read(row, Stored::Known(state), Stored::Known(RowSource::Rows))?;
    Ok(VerdictRow { damage, finished_at: Some(read.noticed_at), ..read })
}

/// Raises alarms. Those that are new, each with its name among people.
pub(super) fn put_alarms(db: &Transaction<'_>, alarms: &[Alarm]) -> rusqlite::Result<Vec<(String, Alarm)>> {
    let mut raised = Vec::new();
    for kind in [AlarmKind::Damaged, AlarmKind::Changed] {
        let mut room = None;
        for alarm in alarms.iter().filter(|alarm| alarm.kind == kind) {
            let room = match &mut room {
                Some(room) => room,
                None => {
                    let sql = "SELECT count(*) FROM alarms WHERE acknowledged_at IS NULL AND kind = ?";
                    let count = db.prepare_cached(sql)?.query_row([kind.label()], |row| unsigned(row, 0))?;
                    room.insert(ALARMS_MAX.saturating_sub(count))
                }
            };
            if *room == 0 {
                break;
            }
            let Alarm { id, incarnation, reason, explanation, .. } = alarm;
            let added = db
                .prepare_cached(
                    "INSERT INTO alarms (kind, vat, start, end, incarnation, reason, explanation, found_at) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, vat, start, explanation) DO NOTHING",
                )?
                .execute(params![
                    kind.label(),
                    id.vat.as_str(),
                    signed(id.start),
                    signed(id.end),
                    signed(*incarnation),
                    reason,
                    explanation,
                    now()
                ])?;
            if added > 0 {
                *room -= 1;
                let name = format!("{}.{}-{}-{}", id.vat, id.start, kind.label(), db.last_insert_rowid());
                raised.push((name, alarm.clone()));
            }
        }
    }
    Ok(raised)
}
