//! The items of one span, proved by the hash in the span's row.
//!
//! Owns the rule for a span of which only the first items are left. It must never hold an item that no hash proves.

use crate::transcript::{Hash256, Item, Items, Position, SpanId};
use crate::verdict::Unverifiable;

/// The proved items of a span, as text.
#[derive(Debug)]
pub struct SpanText {
    /// Vat and bounds.
    pub id: SpanId,
    items: Items,
    /// Set where the last items are missing: why.
    lacks: Option<Unverifiable>,
}

impl SpanText {
    /// All items of a span; the caller has compared their hash.
    pub(super) fn whole(id: SpanId, items: Items) -> Self {
        Self { id, items, lacks: None }
    }

    /// The first items of a span, each proved when it was copied.
    pub(super) fn part(id: SpanId, items: Items, why_no_more: Unverifiable) -> Self {
        Self { id, items, lacks: Some(why_no_more) }
    }

    /// The items that an evidence folder holds. All of a span's items are proved by its hash; of fewer the folder's manifest is the only proof.
    ///
    /// # Errors
    /// When all items are there and have another hash.
    pub fn prove(id: SpanId, items: Items, is_whole: bool, recorded: Hash256) -> Result<Self, Unverifiable> {
        if !is_whole {
            return Ok(Self::part(id, items, Unverifiable::ItemsPruned));
        }
        if items.hash() != recorded {
            return Err(Unverifiable::SpanHash { recorded, found: items.hash() });
        }
        Ok(Self::whole(id, items))
    }

    /// The items' texts, from the start of the span on.
    #[must_use]
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// Whether the end of the span is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lacks.is_none()
    }

    /// The reason why the last items are missing, where they are.
    #[must_use]
    pub fn lacks(&self) -> Option<&Unverifiable> {
        self.lacks.as_ref()
    }

    /// Parses the items.
    ///
    /// # Errors
    /// [`Unverifiable::Item`] for the first one that no kernel writes.
    pub fn parse(&self) -> Result<Vec<(Position, Item<'_>)>, Unverifiable> {
        (self.id.start..)
            .zip(self.items.iter())
            .map(|(position, text)| match Item::parse(text) {
                Ok(item) => Ok((position, item)),
                Err(error) => Err(Unverifiable::Item { position, error: error.to_string() }),
            })
            .collect()
    }
}
