//! The record of a node: the items, heap images and bundles of its spans, wherever a copy of them lies.
//!
//! [`Record`] asks each source in one order ([`Origin::ALL`]): the database, our captures, the node's archives, its flight recorder. A source
//! that has no copy, cannot be read, or has a copy that fails its proof is passed over for the next one; the answer names the source that
//! gave it. The flight recorder has items only; bundles are in the database only.
//!
//! | module | owns |
//! |---|---|
//! | [`items`] | [`SpanText`]: the proved items of one span |
//! | [`archives`] | file names and files of the node's two archive directories |
//! | [`captures`] | the interface to copies of rows that the node deletes; the daemon's store implements it |
//! | [`recorder`] | the node's flight recorder and slog files, and how entries become items |
//! | [`image`] | heap images in memory, proved by their sha256 |
//! | [`bundle`] | code bundles, proved by their ID |
//!
//! This module must never return bytes whose hash it did not check, and never call unreadable bytes a divergence.

pub mod archives;
pub mod bundle;
pub mod captures;
pub mod image;
pub mod items;
pub mod recorder;
mod source;

use serde::{Deserialize, Serialize};

pub use archives::{ArchiveError, Archives};
pub use captures::{CaptureError, Captured, Captures};
pub use image::{IMAGE_BYTES_MAX, Image, ImageError};
pub use items::SpanText;
pub use recorder::{Recorder, RecorderError, RecorderFiles};

use crate::kernel_db::{DbError, KernelDb, SnapshotRow, SpanRow};
use crate::transcript::{Hash256, Items, Position, SpanId, VatId};
use crate::verdict::{Failure, Unverifiable, Verdict};
use source::{Miss, Source};

/// A source of items and images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The node's database.
    Database,
    /// Copies that spanwatch took before the node deleted the rows.
    Captures,
    /// The node's archive directories.
    Archive,
    /// The node's flight recorder and slog files, joined with what other sources have of the span. Items only.
    Recorder,
}

impl Origin {
    /// All sources, in the order in which a record asks them.
    pub const ALL: [Self; 4] = [Self::Database, Self::Captures, Self::Archive, Self::Recorder];

    /// One word, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Captures => "captures",
            Self::Archive => "archive",
            Self::Recorder => "recorder",
        }
    }
}

/// The source that has the items of a span, as far as rows and file names tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemsAt {
    /// The database: all of them, or (if no other source has any) some of them.
    Database,
    /// The transcript archive.
    Archive,
    /// Our captures, up to a position (one past the last), which may be before the span's end.
    Captured(Position),
    /// The flight recorder, together with what other sources have: entries of all its deliveries are there, and only the span's hash can tell
    /// whether its items come out of them.
    Recorder,
    /// No source.
    Nowhere,
}

/// Everything that is recorded about spans: the node's database, our captures, the node's archives.
#[derive(Debug)]
pub struct Record {
    /// The node's database.
    pub db: KernelDb,
    /// The node's archive directories.
    pub archives: Archives,
    /// Copies of what the node deletes.
    pub captures: Captures,
    /// The node's flight recorder.
    pub recorder: Recorder,
}

impl Record {
    /// A database with its archives, without captures.
    #[must_use]
    pub fn new(db: KernelDb, archives: Archives) -> Self {
        Self { db, archives, captures: Captures::default(), recorder: Recorder::default() }
    }

    /// The same record with captures.
    #[must_use]
    pub fn with_captures(self, captures: Captures) -> Self {
        Self { captures, ..self }
    }

    /// The same record with a flight recorder.
    #[must_use]
    pub fn with_recorder(self, recorder: Recorder) -> Self {
        Self { recorder, ..self }
    }

    /// The sources that have copies of their own, in the order of [`Origin::ALL`]. The recorder is asked last: its items are joined with those
    /// that the others have.
    fn sources(&self) -> impl Iterator<Item = &dyn Source> {
        Origin::ALL.into_iter().filter_map(|origin| -> Option<&dyn Source> {
            match origin {
                Origin::Database => Some(&self.db),
                Origin::Captures => Some(&self.captures),
                Origin::Archive => Some(&self.archives),
                Origin::Recorder => None,
            }
        })
    }

    /// The source that has the items of a span, of which the database has `present`. No item is read.
    #[must_use]
    pub fn items_at(&self, span: &SpanId, present: u64) -> ItemsAt {
        let captured_to = self.captures.captured_to(span);
        match captured_to {
            _ if present == span.end.saturating_sub(span.start) => ItemsAt::Database,
            Some(to) if to == span.end => ItemsAt::Captured(to),
            _ if self.archives.has_items(span) => ItemsAt::Archive,
            to if self.recorder.may_have(span, present.max(to.map_or(0, |to| to.saturating_sub(span.start)))) => {
                ItemsAt::Recorder
            }
            Some(to) => ItemsAt::Captured(to),
            None if present > 0 => ItemsAt::Database,
            None => ItemsAt::Nowhere,
        }
    }

    /// The first source that has an image with which a span may start, and its recorded hash where that is known. `row` is the row of
    /// `snapshots` at the position before the span. No image is read.
    #[must_use]
    pub fn base_image_at(&self, span: &SpanId, row: Option<&SnapshotRow>) -> Option<(Origin, Option<Hash256>)> {
        let position = span.start.checked_sub(1)?;
        let hash = match row {
            Some(row) => row.hash,
            // The node deletes the rows of a terminated vat before its last spans are verified.
            None => self.captures.image_of(span),
        };
        let has = |origin: &Origin| match origin {
            Origin::Database => row.is_some_and(|row| row.has_image),
            Origin::Captures => hash.is_some_and(|hash| self.captures.has_image(hash)),
            Origin::Archive => self.archives.has_image(&span.vat, position),
            Origin::Recorder => false,
        };
        Origin::ALL.into_iter().find(has).map(|origin| (origin, hash))
    }

    /// The items of a span: those of the first source whose copy has the hash of the span's row. Where none has, the captured part of the
    /// span, with the reason why there is no more.
    ///
    /// # Errors
    /// [`Failure`] if a source could not be read, as another attempt may succeed; otherwise the reason why no copy is believed.
    pub fn items(&self, row: &SpanRow) -> Result<(SpanText, Origin), Verdict> {
        let id = &row.id;
        let recorded = row.hash.ok_or(Unverifiable::SpanRow("its hash is not a sha256 in hex"))?;
        let count = id.end.saturating_sub(id.start);
        let (mut part, mut fault, mut trouble) = (None, None, None);
        for source in self.sources() {
            let origin = source.origin();
            match source.items(id, recorded) {
                Ok(items) if items.len() as u64 == count => {
                    if let Some(fault) = &fault {
                        tracing::warn!("{id}: its items were read from the source `{}`: {fault}", origin.label());
                    }
                    return Ok((SpanText::whole(id.clone(), items), origin));
                }
                Ok(items) if items.is_empty() => {}
                Ok(items) => part = Some((items, origin)),
                Err(Miss::Absent) => {}
                Err(Miss::Damaged(reason)) => fault = Some(reason),
                Err(Miss::Trouble(failure)) => trouble = trouble.or(Some(failure)),
                Err(Miss::NodeAway(failure)) => return Err(Verdict::Failed(failure)),
            }
        }
        match self.joined(id, recorded, part.as_ref().map(|(items, _)| items)) {
            Ok(items) => {
                if let Some(fault) = &fault {
                    tracing::warn!("{id}: its items were read from the source `recorder`: {fault}");
                }
                return Ok((SpanText::whole(id.clone(), items), Origin::Recorder));
            }
            Err(Miss::Absent) => {}
            Err(Miss::Damaged(reason)) => fault = fault.or(Some(reason)),
            Err(Miss::Trouble(failure)) => trouble = trouble.or(Some(failure)),
            Err(Miss::NodeAway(failure)) => return Err(Verdict::Failed(failure)),
        }
        let fault = fault.unwrap_or(Unverifiable::ItemsPruned);
        match (part, trouble) {
            (_, Some(failure)) => Err(Verdict::Failed(failure)),
            (Some((items, origin)), None) => Ok((SpanText::part(id.clone(), items, fault), origin)),
            (None, None) => Err(Verdict::Unverifiable(fault)),
        }
    }

    /// The items of a span from the flight recorder, joined with what is left of them elsewhere. The span's hash proves the whole.
    fn joined(&self, id: &SpanId, recorded: Hash256, captured: Option<&Items>) -> Result<Items, Miss> {
        if !self.recorder.knows(&id.vat) {
            return Err(Miss::Absent);
        }
        let (left, loads, saves, keys) = self.db.read(|reader| {
            let row_before = |end: Position| match end.checked_sub(1) {
                Some(position) => reader.snapshot(&id.vat, position),
                None => Ok(None),
            };
            let (loads, saves) = (row_before(id.start)?, row_before(id.end)?);
            let (loads, saves) = (loads.and_then(|row| row.hash), saves.and_then(|row| row.hash));
            Ok((reader.items_left(id)?, loads, saves, reader.worker_keys(&id.vat)?))
        })?;
        let captured = captured.into_iter().flat_map(Items::iter).map(<[u8]>::to_vec);
        let items = left.into_iter().chain((id.start..).zip(captured)).collect();
        let initialize = recorder::initialize_worker(&keys);
        self.recorder.items(id, recorded, recorder::Hints { items, loads, saves, initialize })
    }

    /// The image that a vat saved at a position, from the first source whose copy has the recorded hash. Where its size (in bytes) is recorded,
    /// no more than that is unpacked.
    ///
    /// # Errors
    /// [`Unverifiable::BaseDamaged`] if every copy is damaged; [`Failure`] if a source could not be read, or if no source has a copy (any more):
    /// the plan has seen one, so another attempt starts from the copies that are left.
    pub fn image(
        &self,
        vat: &VatId,
        position: Position,
        recorded: Hash256,
        bytes: Option<u64>,
    ) -> Result<(Image, Origin), Verdict> {
        let (mut faults, mut trouble) = (Vec::new(), None);
        for source in self.sources() {
            let origin = source.origin();
            match source.image(vat, position, recorded, bytes) {
                Ok(image) => {
                    for fault in faults {
                        tracing::warn!(
                            "{vat}:{position}: its image was read from the source `{}`: {fault}",
                            origin.label()
                        );
                    }
                    return Ok((image, origin));
                }
                Err(Miss::Absent) => {}
                Err(Miss::Damaged(Unverifiable::BaseDamaged(fault))) => faults.push(fault),
                Err(Miss::Damaged(reason)) => faults.push(reason.to_string()),
                Err(Miss::Trouble(failure)) => trouble = trouble.or(Some(failure)),
                Err(Miss::NodeAway(failure)) => return Err(Verdict::Failed(failure)),
            }
        }
        Err(match trouble {
            Some(failure) => Verdict::Failed(failure),
            None if faults.is_empty() => Verdict::Failed(Failure::System(format!(
                "the image at position {position} was deleted between planning and reading"
            ))),
            None => Verdict::Unverifiable(Unverifiable::BaseDamaged(faults.join("; "))),
        })
    }

    /// The bytes of a bundle, unproved ([`bundle`] proves them). Only the database has bundles.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn bundle(&self, id: &str) -> Result<Option<Vec<u8>>, DbError> {
        Ok(self.db.read(|reader| reader.bundle(id))?.flatten())
    }
}

/// A database that can't be read is trouble of ours, not a fault of the record.
impl From<DbError> for Verdict {
    fn from(error: DbError) -> Self {
        Self::Failed(Failure::Database(error.to_string()))
    }
}

impl From<Unverifiable> for Verdict {
    fn from(reason: Unverifiable) -> Self {
        Self::Unverifiable(reason)
    }
}

#[cfg(test)]
mod tests;
