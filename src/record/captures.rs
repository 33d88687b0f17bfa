//! Our own copies of what a pruning node deletes, offered like the node's own: *the items of a span, its base image*.
//!
//! The copies lie in the [`Store`]; whoever replays asks here. Nothing of them is believed unproved: images by their hash,
//! whole spans by the span's hash. A part of a span was proved when it was copied, by the hash that the node's row had then.

use std::sync::Arc;

use crate::record::image::{Image, ImageError};
use crate::store::{Store, StoreError};
use crate::transcript::{Hash256, Items, Position, SpanId};

/// The copies, if there is somebody who makes any.
#[derive(Debug, Default, Clone)]
pub struct Captures(Option<Arc<Store>>);

impl Captures {
    /// Those in a store.
    #[must_use]
    pub fn of(store: Arc<Store>) -> Self {
        Self(Some(store))
    }

    /// Whether an image is there. Trouble with the store counts as no: the span then says that its image is gone.
    #[must_use]
    pub fn has_image(&self, hash: Hash256) -> bool {
        self.0.as_ref().is_some_and(|store| store.has_image(hash).unwrap_or(false))
    }

    /// The hash of the image that was copied for a span, whatever became of the node's row since.
    #[must_use]
    pub fn image_of(&self, span: &SpanId) -> Option<Hash256> {
        self.0.as_ref()?.image_of(&span.vat, span.start).ok().flatten()
    }

    /// How far the items of a span were copied: one past the last, if there is any.
    #[must_use]
    pub fn captured_to(&self, span: &SpanId) -> Option<Position> {
        let next = self.0.as_ref()?.captured_to(&span.vat, span.start).ok().flatten()?;
        (next > span.start).then_some(next.min(span.end))
    }

    /// The items that were copied of a span, no more than it has.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn items(&self, span: &SpanId) -> Result<Items, StoreError> {
        match &self.0 {
            Some(store) => Ok(store.captured_items(&span.vat, span.start)?.items),
            None => Ok(Items::default()),
        }
    }

    /// An image, proved.
    ///
    /// # Errors
    /// The outer one when the store can't be read, the inner one when the image is damaged; `None` if it is not there.
    pub fn image(&self, hash: Hash256) -> Result<Option<Result<Image, ImageError>>, StoreError> {
        let Some(store) = &self.0 else { return Ok(None) };
        Ok(store.image(hash)?.map(|gzip| Image::from_gzip_in_memory(&gzip, hash, None)))
    }
}
