//! Copies that spanwatch takes of rows that a pruning node deletes: items of spans, and the images that spans start from.
//!
//! [`Captured`] is the interface to the place that keeps them; the daemon's store implements it, one-shot commands have none. Nothing of a
//! copy is believed unproved: images by their hash, whole spans by the span's hash. A part of a span was proved when it was copied, by
//! the hash that the node's row had then. This module must never write a copy.

use std::fmt::Debug;
use std::sync::Arc;

use super::image::{Image, ImageError};
use super::source::Miss;
use crate::transcript::{Hash256, Items, Position, SpanId};
use crate::verdict::Failure;

/// The place of the copies could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CaptureError(pub String);

impl From<CaptureError> for Miss {
    fn from(error: CaptureError) -> Self {
        Self::Trouble(Failure::System(error.0))
    }
}

/// A place that keeps copies. Errors: when it can't be read.
pub trait Captured: Debug + Send + Sync {
    /// Whether it has an image.
    fn has_image(&self, hash: Hash256) -> Result<bool, CaptureError>;

    /// The hash of the image that was copied for a span.
    fn image_of(&self, span: &SpanId) -> Result<Option<Hash256>, CaptureError>;

    /// One past the last item that was copied of a span.
    fn captured_to(&self, span: &SpanId) -> Result<Option<Position>, CaptureError>;

    /// The items that were copied of a span, from its start on.
    fn items(&self, span: &SpanId) -> Result<Items, CaptureError>;

    /// An image as gzip.
    fn image(&self, hash: Hash256) -> Result<Option<Vec<u8>>, CaptureError>;
}

/// The copies, where a place keeps any.
#[derive(Debug, Default, Clone)]
pub struct Captures(Option<Arc<dyn Captured>>);

impl Captures {
    /// Those that a place keeps.
    #[must_use]
    pub fn of(place: Arc<dyn Captured>) -> Self {
        Self(Some(place))
    }

    /// Whether an image is there. A place that can't be read counts as no: the span then says that its image is gone.
    #[must_use]
    pub fn has_image(&self, hash: Hash256) -> bool {
        self.0.as_ref().is_some_and(|place| place.has_image(hash).unwrap_or(false))
    }

    /// The hash of the image that was copied for a span, also after the node deleted the row.
    #[must_use]
    pub fn image_of(&self, span: &SpanId) -> Option<Hash256> {
        self.0.as_ref()?.image_of(span).ok().flatten()
    }

    /// One past the last item that was copied of a span; `None` without an item.
    #[must_use]
    pub fn captured_to(&self, span: &SpanId) -> Option<Position> {
        let next = self.0.as_ref()?.captured_to(span).ok().flatten()?;
        (next > span.start).then_some(next.min(span.end))
    }

    /// The items that were copied of a span, unproved.
    pub(super) fn items_of(&self, span: &SpanId) -> Result<Items, CaptureError> {
        self.0.as_ref().map_or_else(|| Ok(Items::default()), |place| place.items(span))
    }

    /// An image, proved. The inner error says that it is damaged; `None` if it is not there.
    pub(super) fn image_with(&self, hash: Hash256) -> Result<Option<Result<Image, ImageError>>, CaptureError> {
        let Some(place) = &self.0 else { return Ok(None) };
        Ok(place.image(hash)?.map(|gzip| Image::from_gzip_in_memory(&gzip, hash, None)))
    }
}
