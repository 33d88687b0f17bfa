//! Copying what a node is about to delete: the items of open spans, and the images that they start from.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::read::VatRead;
use super::{LookError, Tracker};
use crate::daemon::complaints::Subject;
use crate::daemon::metrics::observe;
use crate::kernel_db::SpanRow;
use crate::record::image::Image;
use crate::store::{CaptureRow, StoreError};
use crate::transcript::{Position, SpanHasher, VatId};

/// No more images are copied in one look.
const IMAGES_MAX: usize = 4;
/// What could not be copied is tried again after this time.
const RETRY: Duration = Duration::from_secs(60);
/// An image that does not have its hash is read again after this time: the node deletes it when the span closes.
const RETRY_DAMAGED: Duration = Duration::from_secs(5);

impl Tracker<'_> {
    /// Whether a copy failed a moment ago.
    pub(super) fn is_refused(&self, refused: &HashMap<VatId, Instant>, vat: &VatId) -> bool {
        refused.get(vat).is_some_and(|at| Instant::now() < *at)
    }

    /// Where the database is another one, or a vat's history, what was copied of spans that are still open may be of the one
    /// before.
    pub(super) fn distrust(&mut self, is_other: bool, vats: &[VatRead]) -> Result<(), LookError> {
        if is_other {
            self.shared.store.distrust_captures(None)?;
            self.captures.clear();
            self.images_done.clear();
        }
        for read in vats.iter().filter(|read| read.is_rewritten) {
            self.shared.store.distrust_captures(Some(&read.vat))?;
            self.captures.remove(&read.vat);
            self.images_done.remove(&read.vat);
        }
        Ok(())
    }

    /// Puts the items that were read into the store, each copy proved by the hash that the row had in the same read. Whether
    /// there are more.
    pub(super) fn copy_items(&mut self, vats: &[VatRead]) -> Result<bool, LookError> {
        if !self.wants_items() {
            return Ok(false);
        }
        let mut is_cut = vats.iter().any(|read| read.is_over_budget);
        for VatRead { vat, current, items, .. } in vats {
            let (Some(row), Some((first, items))) = (current, items) else { continue };
            let first = *first;
            if first != self.copied_to(vat, row) {
                // Read in the belief in a copy that was dropped since.
                is_cut = true;
                continue;
            }
            if items.texts.is_empty() || !self.shared.may_capture() {
                continue;
            }
            let mut hasher = match self.captures.get(vat).filter(|capture| capture.start == row.id.start) {
                Some(capture) => SpanHasher::resume(capture.hash),
                None => SpanHasher::default(),
            };
            items.texts.iter().for_each(|text| hasher.add(text));
            let next = first + items.texts.len() as u64;
            let capture = CaptureRow { vat: vat.clone(), start: row.id.start, next, hash: hasher.finish() };
            if next == row.id.end && row.hash != Some(capture.hash) {
                self.shared.metrics.capture_failures.inc();
                self.shared.store.drop_capture(vat, row.id.start)?;
                self.captures.remove(vat);
                if first == row.id.start {
                    // Read in one go, and not what the row says: the database is damaged, and the verdict will say so.
                    self.items_refused.insert(vat.clone(), Instant::now() + RETRY);
                    let start = row.id.start;
                    let text =
                        format!("the items of the open span of {vat} from position {start} on do not have its hash");
                    self.shared.complaints.complain(Subject::Capture, &text);
                } else {
                    // Copied before the database moved backwards: from the start again at once.
                    is_cut = true;
                }
                continue;
            }
            let max_bytes = self.shared.config.capture.max_bytes;
            if self.captured(self.shared.store.capture_items(&capture, &items.texts, max_bytes))? {
                self.captures.insert(vat.clone(), capture);
                self.items_refused.remove(vat);
                is_cut |= items.is_cut;
            } else {
                self.items_refused.insert(vat.clone(), Instant::now() + RETRY);
            }
        }
        Ok(is_cut)
    }

    /// Up to where the items of an open span are copied: one past the last.
    pub(super) fn copied_to(&self, vat: &VatId, row: &SpanRow) -> Position {
        let have = self.captures.get(vat).filter(|capture| capture.start == row.id.start);
        have.map_or(row.id.start, |capture| capture.next)
    }

    /// Copies the images that open spans start from. Whether there are more.
    pub(super) fn copy_images(&mut self, vats: &[VatRead]) -> Result<bool, LookError> {
        let mut copied = 0;
        let is_wanted = |read: &&VatRead| matches!(read.image, Some(Some(_)));
        let wanted: HashSet<&VatId> = vats.iter().filter(is_wanted).map(|read| &read.vat).collect();
        self.images_refused.retain(|vat, _| wanted.contains(vat));
        for VatRead { vat, current, image, .. } in vats {
            let (Some(row), Some(image)) = (current, image) else { continue };
            let Some(image) = image else {
                self.images_done.insert(vat.clone(), row.id.start);
                continue;
            };
            let Some(hash) = image.hash else { continue };
            if self.is_refused(&self.images_refused, vat) || !self.shared.may_capture() {
                continue;
            }
            let user = (vat, row.id.start);
            if self.shared.store.use_image(hash, user)? {
                self.images_refused.remove(vat);
                self.images_done.insert(vat.clone(), row.id.start);
                continue;
            }
            if copied == IMAGES_MAX {
                return Ok(true);
            }
            copied += 1;
            let began = Instant::now();
            let gzip = self.shared.record.db.read(|reader| reader.compressed_image(vat, image.position))?;
            observe(&self.shared.metrics.read_transaction_seconds, began.elapsed());
            // Gone: it was replaced meanwhile, and the next look sees the next one.
            let Some(gzip) = gzip else { continue };
            // Once a span. What is kept is never read from the node again, so it must be what the row says.
            if let Err(error) = Image::from_gzip_in_memory(&gzip, hash, None) {
                self.shared.metrics.capture_failures.inc();
                self.images_refused.insert(vat.clone(), Instant::now() + RETRY_DAMAGED);
                let position = image.position;
                let text = format!(
                    "the image of {vat} at position {position}, from which its open span starts, is damaged, and is not copied: {error}"
                );
                self.shared.complaints.complain(Subject::Capture, &text);
                continue;
            }
            let max_bytes = self.shared.config.capture.max_bytes;
            if self.captured(self.shared.store.keep_image(hash, &gzip, user, max_bytes))? {
                self.images_done.insert(vat.clone(), row.id.start);
                self.images_refused.remove(vat);
            } else {
                self.images_refused.insert(vat.clone(), Instant::now() + RETRY);
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
                self.shared.complaints.complain(Subject::Capture, "capture.max_bytes is reached, and all that is captured is still needed: spans will be missed; raise it");
                Ok(false)
            }
            Err(error) => {
                self.shared.metrics.capture_failures.inc();
                Err(error.into())
            }
        }
    }
}
