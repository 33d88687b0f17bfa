//! One source of the record: asked for one copy, it gives it proved or says why not.
//!
//! Each source proves its own copies, as only it can name the row or file that is at fault. A new kind of source (an export directory) is a further
//! implementation of [`Source`]. A source must never ask another one: the recorder, whose items complete those of the others, is no `Source`
//! but a step of `Record::items`.

use super::Origin;
use super::archives::Archives;
use super::captures::Captures;
use super::image::{Image, ImageError};
use crate::kernel_db::{DbError, ItemsRead, KernelDb};
use crate::transcript::{Hash256, Items, Position, SpanId, VatId};
use crate::verdict::{Failure, Unverifiable};

/// Why a source gives no copy.
#[derive(Debug)]
pub(super) enum Miss {
    /// The source has no copy.
    Absent,
    /// The copy is not what was recorded.
    Damaged(Unverifiable),
    /// The source could not be read.
    Trouble(Failure),
    /// The node's database is away, so no other source could be judged by its rows either.
    NodeAway(Failure),
}

/// A place where copies of items and images lie.
pub(super) trait Source {
    fn origin(&self) -> Origin;

    /// The items of a span whose hash is recorded, from its start on. All of them have that hash; fewer were proved when they were copied.
    fn items(&self, span: &SpanId, recorded: Hash256) -> Result<Items, Miss>;

    /// The image that a vat saved at a position, whose hash is recorded; no more than `bytes` of it, where its size is recorded.
    fn image(&self, vat: &VatId, position: Position, recorded: Hash256, bytes: Option<u64>) -> Result<Image, Miss>;
}

impl From<DbError> for Miss {
    fn from(error: DbError) -> Self {
        let failure = Failure::Database(error.to_string());
        if error.is_absence() { Self::NodeAway(failure) } else { Self::Trouble(failure) }
    }
}

/// The miss that an image's fault means, with the place of the copy.
pub(super) fn image_miss(place: &str, error: ImageError) -> Miss {
    match error {
        ImageError::Io(error) => Miss::Trouble(Failure::System(format!("failed to read the image {place}: {error}"))),
        other => Miss::Damaged(Unverifiable::BaseDamaged(format!("{place} {other}"))),
    }
}

impl Source for KernelDb {
    fn origin(&self) -> Origin {
        Origin::Database
    }

    fn items(&self, span: &SpanId, recorded: Hash256) -> Result<Items, Miss> {
        Err(Miss::Damaged(match self.read(|reader| reader.items(span))? {
            ItemsRead::All(items) if items.hash() == recorded => return Ok(items),
            ItemsRead::All(items) => Unverifiable::SpanHash { recorded, found: items.hash() },
            ItemsRead::None => return Err(Miss::Absent),
            ItemsRead::Gap { missing, present } => {
                Unverifiable::ItemsMissing { missing, present, count: span.end.saturating_sub(span.start) }
            }
            ItemsRead::TooLarge { bytes } => Unverifiable::TooLarge { bytes },
        }))
    }

    fn image(&self, vat: &VatId, position: Position, recorded: Hash256, bytes: Option<u64>) -> Result<Image, Miss> {
        let (row, gzip) =
            self.read(|reader| Ok((reader.snapshot(vat, position)?, reader.compressed_image(vat, position)?)))?;
        let Some((row, gzip)) = row.zip(gzip) else { return Err(Miss::Absent) };
        if let Some(hash) = row.hash.filter(|hash| *hash != recorded) {
            let what = format!("the row in snapshots at position {position} has hash {hash}, recorded is {recorded}");
            return Err(Miss::Damaged(Unverifiable::BaseDamaged(what)));
        }
        Image::from_gzip_in_memory(&gzip, recorded, row.bytes.or(bytes))
            .map_err(|error| image_miss("in the database", error))
    }
}

impl Source for Captures {
    fn origin(&self) -> Origin {
        Origin::Captures
    }

    fn items(&self, span: &SpanId, recorded: Hash256) -> Result<Items, Miss> {
        let items = self.items_of(span).map_err(Miss::from)?;
        let count = span.end.saturating_sub(span.start);
        match items.len() as u64 {
            0 => Err(Miss::Absent),
            len if len < count => Ok(items),
            len if len == count && items.hash() == recorded => Ok(items),
            _ => Err(Miss::Damaged(Unverifiable::SpanHash { recorded, found: items.hash() })),
        }
    }

    fn image(&self, _: &VatId, _: Position, recorded: Hash256, _: Option<u64>) -> Result<Image, Miss> {
        match self.image_with(recorded).map_err(Miss::from)? {
            None => Err(Miss::Absent),
            Some(image) => image.map_err(|error| image_miss("as captured", error)),
        }
    }
}

impl Source for Archives {
    fn origin(&self) -> Origin {
        Origin::Archive
    }

    fn items(&self, span: &SpanId, recorded: Hash256) -> Result<Items, Miss> {
        self.items_of(span, recorded)
    }

    fn image(&self, vat: &VatId, position: Position, recorded: Hash256, bytes: Option<u64>) -> Result<Image, Miss> {
        self.image_of(vat, position, recorded, bytes)
    }
}
