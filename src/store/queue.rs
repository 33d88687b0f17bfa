//! What is noted of the node, and which spans are due.

use std::collections::HashSet;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Transaction, params};

use super::alarms::{Alarm, put_alarms};
use super::{Store, StoreError, hash, memory, now, signed, span_id, unsigned};
use crate::kernel_db::{Identity, Pulse, SpanRow, VatOptions, WorkerType};
use crate::tally::Counter;
use crate::transcript::{Hash256, Position, SpanId, VatId};
use crate::verdict::Failure;

/// The source of a span: the time when it closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpanSource {
    /// It closed while the daemon was in charge.
    Live,
    /// It had closed before.
    History,
}

impl SpanSource {
    /// All sources.
    pub const ALL: [Self; 2] = [Self::Live, Self::History];

    /// The label, as in JSON, metrics and the store.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::History => "history",
        }
    }

    /// The source with a label; `None` if no source has it.
    #[must_use]
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.label() == label)
    }
}

/// The node's database as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its path.
    pub path: String,
    /// The file behind it.
    pub identity: Identity,
    /// How far it had come.
    pub pulse: Pulse,
}

/// A vat as it is known.
#[derive(Debug, Clone)]
pub struct KnownVat {
    /// Which.
    pub vat: VatId,
    /// Where its current span starts, or its last one ended: what closed before is noted.
    pub cursor: Position,
    /// Whether it has no current span any more.
    pub is_terminated: bool,
    /// Its options, kept beyond its end.
    pub options: VatOptions,
    /// Spans that start in this range are history, not noted yet.
    pub history: (Position, Position),
}

/// What a look changes of a vat.
#[derive(Debug, Clone)]
pub struct NotedVat {
    /// As it is now.
    pub vat: KnownVat,
    /// The spans that closed.
    pub closed: Vec<NotedSpan>,
    /// Set when its history became another one: what was seen of it from this position on is forgotten.
    pub forget_from: Option<Position>,
}

/// A span that is to be replayed.
#[derive(Debug, Clone)]
pub struct NotedSpan {
    /// Its row.
    pub row: SpanRow,
    /// Where it came from.
    pub source: SpanSource,
    /// The hash in the row of `snapshots` at its end, if there is one.
    pub image: Option<Hash256>,
}

/// What a look saw, to be written at once.
#[derive(Debug, Clone)]
pub struct Noted {
    /// The database.
    pub node: NodeSeen,
    /// Vats of which something changed.
    pub vats: Vec<NotedVat>,
    /// Spans that closed and of which there is not even a row.
    pub missed: u64,
    /// What is wrong with rows.
    pub alarms: Vec<Alarm>,
    /// Set when the database is another one, or an earlier state of it: all that was seen of its rows is forgotten.
    pub is_replaced: bool,
}

/// The part of a look that was new to the store.
#[derive(Debug, Clone, Default)]
pub struct NewlyNoted {
    /// How many spans.
    pub spans: u64,
    /// The alarms, each with its name among people.
    pub alarms: Vec<(String, Alarm)>,
}

/// A span that is due.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number in the store.
    pub id: i64,
    /// Its row as it was when it closed.
    pub row: SpanRow,
    /// Where it came from.
    pub source: SpanSource,
    /// When its closing was noticed, in seconds since 1970.
    pub noticed_at: f64,
    /// The number of failed attempts.
    pub attempts: u32,
}

/// How much is due.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// Live spans.
    pub live: u64,
    /// Spans of the history that are noted.
    pub history: u64,
    /// When the oldest of the live ones was noticed.
    pub oldest_noticed_at: Option<f64>,
}

const JOB_COLUMNS: &str = "id, vat, start, end, hash, incarnation, source, noticed_at, attempts";

impl Store {
    /// The database as it was last seen; `None` if it never was.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn node(&self) -> Result<Option<NodeSeen>, StoreError> {
        self.with("read what was seen last", |db| {
            db.query_row("SELECT path, device, inode, crank, activity_hash, height FROM node", [], |row| {
                let number = |column| row.get::<_, Option<i64>>(column).map(|value| value.map(i64::cast_unsigned));
                Ok(NodeSeen {
                    path: row.get(0)?,
                    identity: Identity {
                        device: row.get::<_, i64>(1)?.cast_unsigned(),
                        inode: row.get::<_, i64>(2)?.cast_unsigned(),
                    },
                    pulse: Pulse { crank: number(3)?, activity_hash: row.get(4)?, height: number(5)? },
                })
            })
            .optional()
        })
    }

    /// All vats that were seen.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn vats(&self) -> Result<Vec<KnownVat>, StoreError> {
        self.with("read the vats", |db| {
            let mut statement = db.prepare(
                "SELECT vat, cursor, is_terminated, name, worker_type, is_metered, enable_disavow, history_from, \
                 history_to FROM vats",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(KnownVat {
                    vat: VatId::new(row.get::<_, String>(0)?),
                    cursor: unsigned(row, 1)?,
                    is_terminated: row.get(2)?,
                    options: VatOptions {
                        name: row.get(3)?,
                        worker_type: row.get::<_, Option<String>>(4)?.map(|word| WorkerType::of(&word)),
                        is_metered: row.get(5)?,
                        enable_disavow: row.get(6)?,
                    },
                    history: (unsigned(row, 7)?, unsigned(row, 8)?),
                })
            })?;
            rows.collect()
        })
    }

    /// Writes what a look saw: spans are due from then on, alarms are raised. What of it was new to the store.
    ///
    /// # Errors
    /// When it can't be written; then nothing of it is.
    pub fn note(&self, noted: &Noted) -> Result<NewlyNoted, StoreError> {
        self.write("note what closed", |db| {
            let NodeSeen { path, identity, pulse } = &noted.node;
            db.prepare_cached("INSERT OR REPLACE INTO node VALUES (1, ?, ?, ?, ?, ?, ?)")?.execute(params![
                path,
                identity.device.cast_signed(),
                identity.inode.cast_signed(),
                pulse.crank.map(u64::cast_signed),
                pulse.activity_hash,
                pulse.height.map(u64::cast_signed)
            ])?;
            let mut new = NewlyNoted { spans: 0, alarms: put_alarms(db, &noted.alarms)? };
            if noted.is_replaced {
                memory::forget(db, None)?;
            }
            for NotedVat { vat, closed, forget_from } in &noted.vats {
                put_vat(db, vat)?;
                if let Some(from) = forget_from {
                    memory::forget(db, Some((&vat.vat, *from)))?;
                }
                for span in closed {
                    new.spans += put_span(db, span)?;
                }
            }
            add_total(db, Counter::Missed, noted.missed)?;
            Ok(new)
        })
    }

    /// The span to replay next: of the live ones the newest, then of the history the first that was noted. None of the
    /// given ones, and of the history none of the vats that are at work.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn next_job(&self, running: &HashSet<i64>, busy: &HashSet<VatId>) -> Result<Option<Job>, StoreError> {
        self.with("read what is due", |db| {
            for (source, order) in [(SpanSource::Live, "DESC"), (SpanSource::History, "ASC")] {
                let mut statement = db.prepare_cached(&format!(
                    "SELECT {JOB_COLUMNS} FROM spans \
                     WHERE verdict IS NULL AND source = ? AND not_before <= ? ORDER BY id {order}"
                ))?;
                let mut rows = statement.query(params![source.label(), now()])?;
                while let Some(row) = rows.next()? {
                    let job = job(row)?;
                    let is_taken =
                        running.contains(&job.id) || (source == SpanSource::History && busy.contains(&job.row.id.vat));
                    if !is_taken {
                        return Ok(Some(job));
                    }
                }
            }
            Ok(None)
        })
    }

    /// The span of the history that follows another directly, if it is due too.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn job_after(&self, span: &SpanId) -> Result<Option<Job>, StoreError> {
        self.with("read what is due", |db| {
            db.prepare_cached(&format!(
                "SELECT {JOB_COLUMNS} FROM spans WHERE verdict IS NULL AND source = 'history' AND vat = ? AND start = ? \
                 AND not_before <= ? LIMIT 1"
            ))?
            .query_row(params![span.vat.as_str(), signed(span.end), now()], job)
            .optional()
        })
    }

    /// The number of a span, if it is due.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn due(&self, row: &SpanRow) -> Result<Option<Job>, StoreError> {
        let Some(hash) = row.hash else { return Ok(None) };
        self.with("read what is due", |db| {
            db.prepare_cached(&format!(
                "SELECT {JOB_COLUMNS} FROM spans WHERE verdict IS NULL AND vat = ? AND start = ? AND end = ? AND hash = ?"
            ))?
            .query_row(
                params![row.id.vat.as_str(), signed(row.id.start), signed(row.id.end), hash.to_string()],
                job,
            )
            .optional()
        })
    }

    /// Puts a span off after a failed attempt: not before so many seconds from now. What was no fault of the span does not
    /// count as one of its attempts.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn postpone(&self, id: i64, seconds: f64, failure: &Failure, is_attempt: bool) -> Result<(), StoreError> {
        self.write("put a span off", |db| {
            add_total(db, Counter::Failures(failure.label()), 1)?;
            db.prepare_cached("UPDATE spans SET attempts = attempts + ?, not_before = ? WHERE id = ?")?
                .execute(params![is_attempt, now() + seconds, id])?;
            Ok(())
        })
    }

    /// Whether a span is known, due or judged.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn is_noted(&self, row: &SpanRow) -> Result<bool, StoreError> {
        let hash = row.hash.map_or_else(String::new, |hash| hash.to_string());
        self.with("look for a span", |db| {
            let found = db
                .prepare_cached("SELECT 1 FROM spans WHERE vat = ? AND start = ? AND end = ? AND hash = ?")?
                .query_row(params![row.id.vat.as_str(), signed(row.id.start), signed(row.id.end), hash], |_| Ok(()))
                .optional()?;
            Ok(found.is_some())
        })
    }

    /// Of each vat the start of the first span that was noted live, and the last such span.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn noted_live(&self) -> Result<Vec<(Position, SpanRow)>, StoreError> {
        self.with("read what was noted", |db| {
            let mut statement = db.prepare(&format!(
                "SELECT {JOB_COLUMNS}, (SELECT min(start) FROM spans AS of_vat \
                 WHERE of_vat.vat = spans.vat AND of_vat.source = 'live') \
                 FROM spans WHERE id IN (SELECT max(id) FROM spans WHERE source = 'live' GROUP BY vat)"
            ))?;
            let rows = statement.query_map([], |row| Ok((unsigned(row, 9)?, job(row)?.row)))?;
            rows.collect()
        })
    }

    /// How much is due.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn backlog(&self) -> Result<Backlog, StoreError> {
        self.with("count what is due", |db| {
            let mut backlog = Backlog::default();
            let mut statement = db.prepare_cached(
                "SELECT source, count(*), min(noticed_at) FROM spans WHERE verdict IS NULL GROUP BY source",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if row.get_ref(0)?.as_str()? == SpanSource::Live.label() {
                    (backlog.live, backlog.oldest_noticed_at) = (unsigned(row, 1)?, row.get(2)?);
                } else {
                    backlog.history = unsigned(row, 1)?;
                }
            }
            Ok(backlog)
        })
    }
}

fn put_vat(db: &Transaction<'_>, vat: &KnownVat) -> rusqlite::Result<()> {
    let worker_type = vat.options.worker_type.as_ref().map(WorkerType::label);
    db.prepare_cached("INSERT OR REPLACE INTO vats VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
        vat.vat.as_str(),
        signed(vat.cursor),
        vat.is_terminated,
        vat.options.name,
        worker_type,
        vat.options.is_metered,
        vat.options.enable_disavow,
        signed(vat.history.0),
        signed(vat.history.1)
    ])?;
    Ok(())
}

/// A span that is there already, due or judged, stays as it is: the hash says that it is the same. Only one whose row had
/// vanished before it could be replayed is due anew when it is back.
fn put_span(db: &Transaction<'_>, NotedSpan { row, source, image }: &NotedSpan) -> rusqlite::Result<u64> {
    memory::learn(db, row, *image)?;
    let added = db
        .prepare_cached(
            "INSERT INTO spans (vat, start, end, hash, incarnation, source, noticed_at) VALUES (?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (vat, start, end, hash) DO UPDATE SET verdict = NULL, noticed_at = excluded.noticed_at, \
             attempts = 0, not_before = 0 WHERE verdict = 'unverifiable' AND reason = 'row_gone'",
        )?
        .execute(params![
            row.id.vat.as_str(),
            signed(row.id.start),
            signed(row.id.end),
            row.hash.map_or_else(String::new, |hash| hash.to_string()),
            signed(row.incarnation),
            source.label(),
            now()
        ])?;
    Ok(added as u64)
}

fn job(row: &rusqlite::Row<'_>) -> rusqlite::Result<Job> {
    let source = row.get_ref(6)?.as_str()?;
    let source = SpanSource::of_label(source).ok_or_else(|| {
        let unknown = format!("no source of spans is called {source:?}: did another version of spanwatch write it?");
        rusqlite::Error::FromSqlConversionFailure(6, Type::Text, unknown.into())
    })?;
    // A row whose hash was none when it closed: the verdict will say so.
    let hash = hash(row, 4).unwrap_or(None);
    Ok(Job {
        id: row.get(0)?,
        row: SpanRow { id: span_id(row, 1)?, hash, is_current: false, incarnation: unsigned(row, 5)? },
        source,
        noticed_at: row.get(7)?,
        attempts: row.get(8)?,
    })
}

pub(super) fn add_total(db: &Transaction<'_>, counter: Counter, value: u64) -> rusqlite::Result<()> {
    if value > 0 {
        db.prepare_cached(
            "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (name, label) DO UPDATE SET value = value + excluded.value",
        )?
        .execute(params![counter.name(), counter.label(), signed(value)])?;
    }
    Ok(())
}
