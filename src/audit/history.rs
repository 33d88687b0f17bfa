//! Following a vat's whole history, and comparing its end with the kernel's rows.
//!
//! Each read is short: the items of one span, or some rows of the vatstore. Beside a running node the vat may go on meanwhile. Its vatstore
//! changes with its transcript alone, so rows that were read at different times belong together if the vat's open span was the same each
//! time; if not, the new items are followed and the comparison begins again. Owns that walk. It must never follow items that their span's
//! hash does not prove.

use crate::kernel_db::{ItemsRead, Reader, SpanRow, VatstoreRows};
use crate::record::Record;
use crate::transcript::{Item, Items, Position, SpanHasher, SpanId, VatId};
use crate::verdict::{Failure, Unverifiable, Verdict};

use super::end::{EndCheck, EndCompared};
use super::{AuditError, Compared, Contradictions, KeysLimit, Responses};

/// The rows of a vatstore that are read at once.
const ROWS_BYTES: usize = 8 << 20;
/// The attempts to compare the end while the vat goes on.
const TRIES_MAX: u32 = 20;

/// The means to follow a history.
#[derive(Debug)]
pub struct Auditor<'a> {
    /// The node's record.
    pub record: &'a Record,
    /// The place of the keys.
    pub limit: KeysLimit,
}

/// The result for a vat.
#[derive(Debug)]
pub struct VatAudit {
    /// The vat.
    pub vat: VatId,
    /// Spans, the open one too.
    pub spans: u64,
    /// The spans of which all items could be followed.
    pub spans_followed: u64,
    /// Spans that the node pruned.
    pub spans_pruned: u64,
    /// The counts of compared answers.
    pub compared: Compared,
    /// Whether the history could be followed from position 0 to its end.
    pub is_whole: bool,
    /// Whether the keys were kept in a temporary file.
    pub is_spilled: bool,
    /// The rows of `kvStore` at the end.
    pub end: End,
    /// The contradictions.
    pub contradictions: Contradictions,
    /// The faults: items and rows that could not be proved or read.
    pub faults: Vec<Fault>,
}

/// A span that could not be followed although it should be there.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The start of the span.
    pub start: Position,
    /// One word.
    pub reason: &'static str,
    /// Whether the node's own record is damaged.
    pub is_damage: bool,
    /// A sentence.
    pub explanation: String,
}

/// The comparison with the kernel's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The comparison was made.
    Compared(EndCompared),
    /// The comparison was not made, for this reason.
    Skipped(&'static str),
}

/// Whether a vat is alive changes what its rows may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// Its keys are deleted in their order, in steps.
    Terminated,
}

/// The state that must not change while rows are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    spans: Vec<(Position, Position, Option<crate::transcript::Hash256>, bool)>,
    life: Option<Life>,
    /// The rows of a terminated vat change without any item.
    crank: Option<String>,
}

impl Auditor<'_> {
    /// Follows a vat. `rows` are its spans, by start, each with the number of its items in the database.
    ///
    /// # Errors
    /// For trouble of ours alone: the database can't be read, or there is no room for the keys.
    pub fn audit(&self, vat: &VatId, rows: &[(SpanRow, u64)]) -> Result<VatAudit, AuditError> {
        let mut walk = Walk {
            auditor: self,
            responses: Responses::from_the_start(self.limit.clone()),
            next: 0,
            open: None,
            is_end_followed: false,
            audit: VatAudit {
                vat: vat.clone(),
                spans: 0,
                spans_followed: 0,
                spans_pruned: 0,
                compared: Compared::default(),
                is_whole: true,
                is_spilled: false,
                end: End::Skipped("it has no span"),
                contradictions: Contradictions::default(),
                faults: Vec::new(),
            },
        };
        let last = rows.len().saturating_sub(1);
        for (row, _) in rows.iter().take(last) {
            walk.span(row)?;
        }
        walk.finish()
    }
}

/// A span of which more items may come.
#[derive(Debug)]
struct OpenSpan {
    start: Position,
    hasher: SpanHasher,
}

struct Walk<'a> {
    auditor: &'a Auditor<'a>,
    responses: Responses,
    /// The position that is followed next.
    next: Position,
    open: Option<OpenSpan>,
    /// Whether the last items that were looked at could be followed.
    is_end_followed: bool,
    audit: VatAudit,
}

impl Walk<'_> {
    /// Follows a span of which nothing was followed before.
    fn span(&mut self, row: &SpanRow) -> Result<(), AuditError> {
        let id = &row.id;
        self.begin(id);
        match self.auditor.record.items(row) {
            Ok((text, _)) => {
                if let Some(reason) = text.lacks() {
                    return self.lose(id, &Verdict::Unverifiable(reason.clone()));
                }
                self.follow(id, id.start, text.items())?;
                if row.is_current {
                    self.open = Some(OpenSpan { start: id.start, hasher: SpanHasher::resume(text.items().hash()) });
                }
                Ok(())
            }
            Err(verdict) => self.lose(id, &verdict),
        }
    }

    /// Notes where a span begins, which should be where the one before it ended.
    fn begin(&mut self, id: &SpanId) {
        self.open = None;
        self.audit.spans += 1;
        if id.start != self.next {
            // Only before its first span can a vat's history lack something that no kernel deletes by itself.
            if self.audit.spans > 1 {
                let what = format!("the span before it ends at {}", self.next);
                let reason = Unverifiable::HistoryBroken { position: id.start, what };
                self.audit.faults.push(Fault {
                    start: id.start,
                    reason: reason.label(),
                    is_damage: reason.is_damage(),
                    explanation: reason.to_string(),
                });
            }
            self.forget();
        }
        self.next = id.start;
    }

    /// Follows proved items of a span, from a position on.
    fn follow(&mut self, id: &SpanId, from: Position, items: &Items) -> Result<(), AuditError> {
        for (position, text) in (from..).zip(items.iter()) {
            match Item::parse(text) {
                Ok(item) => self.responses.add(position, &item)?,
                Err(error) => {
                    let reason = Unverifiable::Item { position, error: error.to_string() };
                    return self.lose(id, &Verdict::Unverifiable(reason));
                }
            }
        }
        self.next = id.end;
        self.is_end_followed = true;
        self.audit.spans_followed += u64::from(from == id.start);
        Ok(())
    }

    /// Notes that the items of a span can't be followed: what comes after it is followed with an unknown past.
    fn lose(&mut self, id: &SpanId, verdict: &Verdict) -> Result<(), AuditError> {
        self.forget();
        (self.next, self.open, self.is_end_followed) = (id.end.max(id.start), None, false);
        let fault = match verdict {
            Verdict::Unverifiable(Unverifiable::ItemsPruned) => {
                self.audit.spans_pruned += 1;
                return Ok(());
            }
            Verdict::Failed(Failure::Database(error)) => return Err(AuditError::Database(error.clone())),
            Verdict::Unverifiable(reason) => Fault {
                start: id.start,
                reason: reason.label(),
                is_damage: reason.is_damage(),
                explanation: reason.to_string(),
            },
            other => Fault {
                start: id.start,
                reason: other.reason().unwrap_or("system"),
                is_damage: false,
                explanation: match other {
                    Verdict::Failed(failure) => failure.to_string(),
                    other => other.label().to_owned(),
                },
            },
        };
        // Between the survey and the read of its items a node may have deleted the row.
        if self.auditor.record.db.read(|reader| reader.span_at(&id.vat, id.start))?.is_none() {
            self.audit.spans_pruned += 1;
            return Ok(());
        }
        self.audit.faults.push(fault);
        Ok(())
    }

    fn forget(&mut self) {
        self.audit.is_whole = false;
        self.audit.is_spilled |= self.responses.vatstore.is_spilled();
        self.responses.forget(self.auditor.limit.clone());
    }

    /// Follows what is left, and compares the end.
    fn finish(mut self) -> Result<VatAudit, AuditError> {
        for tries in 1..=TRIES_MAX {
            if !self.advance()? {
                self.audit.end = End::Skipped("its last items could not be followed");
                break;
            }
            match self.compare_end(tries == TRIES_MAX)? {
                Some((end, found)) => {
                    self.audit.end = end;
                    self.responses.add_found(found);
                    break;
                }
                None => self.audit.end = End::Skipped("the node changed it each time while it was read"),
            }
        }
        self.audit.compared = self.responses.compared();
        self.audit.is_spilled |= self.responses.vatstore.is_spilled();
        self.audit.contradictions = self.responses.into_contradictions();
        Ok(self.audit)
    }

    /// Follows the items that have come since. Whether the last ones that the rows speak of could be followed.
    fn advance(&mut self) -> Result<bool, AuditError> {
        let (vat, db) = (self.audit.vat.clone(), &self.auditor.record.db);
        let from = self.open.as_ref().map_or(self.next, |open| open.start);
        let (rows, _) = db.read(|reader| reader.spans_from(&vat, from))?;
        for row in rows {
            match &self.open {
                Some(open) if open.start == row.id.start => self.resume(&row)?,
                _ => self.span(&row)?,
            }
            if !row.is_current {
                self.open = None;
            }
        }
        Ok(self.is_end_followed)
    }

    /// Follows what was added to the span that is being followed.
    fn resume(&mut self, row: &SpanRow) -> Result<(), AuditError> {
        let from = self.next;
        if row.id.end == from {
            return Ok(());
        }
        let added = SpanId { start: from, ..row.id.clone() };
        let read = self.auditor.record.db.read(|reader| reader.items(&added))?;
        let Some(mut hasher) = self.open.as_ref().map(|open| open.hasher.clone()) else { return Ok(()) };
        match read {
            ItemsRead::All(items) => {
                items.iter().for_each(|item| hasher.add(item));
                match row.hash {
                    Some(recorded) if recorded == hasher.finish() => {
                        self.follow(&row.id, from, &items)?;
                        self.open = Some(OpenSpan { start: row.id.start, hasher });
                        Ok(())
                    }
                    Some(recorded) => {
                        let found = hasher.finish();
                        self.lose(&row.id, &Verdict::Unverifiable(Unverifiable::SpanHash { recorded, found }))
                    }
                    None => {
                        let what = "its hash is not a sha256 in hex";
                        self.lose(&row.id, &Verdict::Unverifiable(Unverifiable::SpanRow(what)))
                    }
                }
            }
            // The span has closed, and the node prunes.
            _ => self.lose(&row.id, &Verdict::Unverifiable(Unverifiable::ItemsPruned)),
        }
    }

    /// Compares the vatstore with its rows; `None` if the vat went on meanwhile.
    fn compare_end(&mut self, is_last_try: bool) -> Result<Option<(End, Contradictions)>, AuditError> {
        let (vat, db, from) =
            (self.audit.vat.clone(), &self.auditor.record.db, self.open.as_ref().map(|open| open.start));
        let read = |after: Option<&[u8]>| {
            db.read(|reader| {
                let stamp = stamp(reader, &vat, from.unwrap_or(self.next), is_last_try)?;
                let has_options = reader.kv(&format!("{vat}.options"))?.is_some();
                Ok((stamp, has_options, reader.vatstore(&vat, after, ROWS_BYTES)?))
            })
        };
        let (first, has_options, mut chunk): (Stamp, bool, VatstoreRows) = read(None)?;
        let is_followed = match (&first.spans[..], &self.open) {
            ([(start, end, hash, true)], Some(open)) => {
                (*start, *end, *hash) == (open.start, self.next, Some(open.hasher.finish()))
            }
            ([], None) => true,
            _ => false,
        };
        let skipped = |why| Ok(Some((End::Skipped(why), Contradictions::default())));
        let Some(life) = first.life else { return skipped("the kernel's lists of its vats can't be read") };
        if life == Life::Alive && self.open.is_none() && first.spans.is_empty() {
            return skipped("the vat is alive and has no open span, so its last items are not known");
        }
        if !is_followed {
            return Ok(None);
        }
        let mut check = EndCheck::new(&self.responses.vatstore, life, has_options, self.next);
        loop {
            for row in &chunk.rows {
                check.row(row)?;
            }
            let Some(last) = chunk.rows.last().filter(|_| chunk.is_cut).map(|row| row.key.clone()) else { break };
            let (stamp, _, next) = read(Some(&last))?;
            if stamp != first {
                return Ok(None);
            }
            chunk = next;
        }
        let is_steady = life == Life::Alive || !is_last_try;
        let (compared, found) = check.finish(is_steady)?;
        Ok(Some((End::Compared(compared), found)))
    }
}

/// The state of a vat now; without the crank if the vat need not stand still.
fn stamp(reader: &Reader<'_>, vat: &VatId, from: Position, is_last_try: bool) -> rusqlite::Result<Stamp> {
    let (rows, _) = reader.spans_from(vat, from)?;
    let life = reader.live_vats()?.map(|live| if live.contains(vat) { Life::Alive } else { Life::Terminated });
    let crank = match life {
        Some(Life::Terminated) if !is_last_try => reader.kv("crankNumber")?,
        _ => None,
    };
    let spans = rows.into_iter().map(|row| (row.id.start, row.id.end, row.hash, row.is_current)).collect();
    Ok(Stamp { spans, life, crank })
}
