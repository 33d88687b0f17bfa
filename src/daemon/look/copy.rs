//! Copying what a node is about to delete: the items of open spans, and the images that they start from.

use std::time::{Duration, Instant};

use super::{LookError, Looker, VatNews};
use crate::metrics::observe;
use crate::store::{CaptureRow, StoreError};
use crate::transcript::SpanHasher;

/// No more images are copied in one look.
const IMAGES_MAX: usize = 4;
/// An image that could not be copied is tried again after this time.
const RETRY_IMAGE: Duration = Duration::from_secs(60);

impl Looker<'_> {
    /// Puts the items that were read into the store, each copy proved by the hash that the row had in the same read. Whether
    /// there are more.
    pub(super) fn copy_items(&mut self, vats: &[VatNews]) -> Result<bool, LookError> {
        let mut is_cut = false;
        for news in vats {
            let (Some(vat), Some(row), Some(items)) = (&news.vat, &news.current, &news.items) else { continue };
            if items.texts.is_empty() || !self.shared.may_capture() {
                continue;
            }
            let have = self.captures.get(vat).filter(|capture| capture.start == row.id.start);
            let (next, mut hasher) = match have {
                Some(capture) => (capture.next, SpanHasher::resume(capture.hash)),
                None => (row.id.start, SpanHasher::default()),
            };
            items.texts.iter().for_each(|text| hasher.add(text));
            let capture = CaptureRow {
                vat: vat.clone(),
                start: row.id.start,
                next: next + items.texts.len() as u64,
                hash: hasher.finish(),
            };
            if capture.next == row.id.end && row.hash != Some(capture.hash) {
                // Copied before the database moved backwards, or damaged: from the start again at the next look.
                tracing::warn!(%vat, "the items that were copied from position {} on do not have the hash of their span", row.id.start);
                self.shared.metrics.capture_failures.inc();
                self.shared.store.drop_capture(vat, row.id.start)?;
                self.captures.remove(vat);
                continue;
            }
            if self.captured(self.shared.store.capture_items(
                &capture,
                &items.texts,
                self.shared.config.capture.max_bytes,
            ))? {
                self.captures.insert(vat.clone(), capture);
                is_cut |= items.is_cut;
            }
        }
        Ok(is_cut)
    }

    /// Copies the images that open spans start from. Whether there are more.
    pub(super) fn copy_images(&mut self, vats: &[VatNews]) -> Result<bool, LookError> {
        let mut copied = 0;
        for news in vats {
            let (Some(vat), Some(row)) = (&news.vat, &news.current) else { continue };
            let Some(image) = &news.image else {
                if self.wants_images() {
                    self.images_done.insert(vat.clone(), row.id.start);
                }
                continue;
            };
            let Some(hash) = image.hash else { continue };
            let is_refused = self.images_refused.get(vat).is_some_and(|at| at.elapsed() < RETRY_IMAGE);
            if is_refused || !self.shared.may_capture() {
                continue;
            }
            let user = (vat, row.id.start);
            if self.shared.store.use_image(hash, user)? {
                self.images_done.insert(vat.clone(), row.id.start);
                continue;
            }
            if copied == IMAGES_MAX {
                return Ok(true);
            }
            copied += 1;
            let began = Instant::now();
            let gzip = self.shared.db.read(|reader| reader.compressed_image(vat, image.position))?;
            observe(&self.shared.metrics.read_transaction_seconds, began.elapsed());
            // Gone: it was replaced meanwhile, and the next look sees the next one.
            let Some(gzip) = gzip else { continue };
            let max_bytes = self.shared.config.capture.max_bytes;
            if self.captured(self.shared.store.keep_image(hash, &gzip, user, max_bytes))? {
                self.images_done.insert(vat.clone(), row.id.start);
                self.images_refused.remove(vat);
            } else {
                self.images_refused.insert(vat.clone(), Instant::now());
            }
        }
        Ok(false)
    }

    /// Whether a copy was made. No room is told and counted, and is no reason to stop looking.
    fn captured(&self, result: Result<u64, StoreError>) -> Result<bool, LookError> {
        match result {
            Ok(evicted) => {
                self.shared.metrics.captures_evicted.inc_by(evicted);
                Ok(true)
            }
            Err(StoreError::CaptureFull { .. }) => {
                self.shared.metrics.capture_failures.inc();
                // Without the numbers, or each would be another complaint.
                self.shared.complain("capture", "capture.max_bytes is reached, and all that is captured is still needed: spans will be missed; raise it");
                Ok(false)
            }
            Err(error) => {
                self.shared.metrics.capture_failures.inc();
                Err(error.into())
            }
        }
    }
}
