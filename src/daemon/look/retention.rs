//! Who keeps what of closed spans, learnt from those that closed last; it decides what is copied.

use super::Tracker;
use super::read::VatRead;
use crate::daemon::config::CaptureWhen;
use crate::daemon::view::KeptBy;
use crate::kernel_db::WorkerType;

impl Tracker<'_> {
    /// Learns from the spans that closed last who keeps what.
    pub(super) fn learn_retention(&mut self, vats: &[VatRead]) {
        let archives = &self.shared.record.archives;
        let mut retention = self.shared.view.get().retention;
        let (mut items, mut images) = (None, None);
        for read in vats {
            let Some((last, kept)) = read.closed.rows.last().or(read.last_closed.as_ref()).zip(read.kept) else {
                continue;
            };
            let options = self.vats.get(&read.vat).map(|known| &known.options);
            let is_local =
                options.or(read.options.as_ref()).is_some_and(|options| options.worker_type == Some(WorkerType::Local));
            if is_local || last.id.end <= last.id.start {
                continue;
            }
            let kept_by = |is_kept, is_archived| match (is_kept, is_archived) {
                (true, _) => KeptBy::Node,
                (false, true) => KeptBy::Archive,
                (false, false) => KeptBy::Nobody,
            };
            // Where they differ, as they do after a setting was changed, rather a copy too many.
            items = items.max(Some(kept_by(kept.items, archives.has_items(&last.id))));
            if let (Some(is_kept), Some(before)) = (kept.image, last.id.start.checked_sub(1)) {
                images = images.max(Some(kept_by(is_kept, archives.has_image(&last.id.vat, before))));
            }
        }
        (retention.items, retention.images) = (items.or(retention.items), images.or(retention.images));
        let is_known = retention.items.is_some() && retention.images.is_some();
        if retention != self.shared.view.get().retention || (is_known && !self.is_retention_told) {
            self.is_retention_told |= is_known;
            tracing::info!("{}", retention.describe());
        }
        self.shared.view.set(|view| view.retention = retention);
    }

    fn wants(&self, when: CaptureWhen, kept_by: Option<KeptBy>) -> bool {
        match when {
            CaptureWhen::Always => true,
            CaptureWhen::Never => false,
            CaptureWhen::Auto => !matches!(kept_by, Some(KeptBy::Node | KeptBy::Archive)),
        }
    }

    pub(super) fn wants_items(&self) -> bool {
        self.wants(self.shared.config.capture.items, self.shared.view.get().retention.items)
    }

    pub(super) fn wants_images(&self) -> bool {
        self.wants(self.shared.config.capture.images, self.shared.view.get().retention.images)
    }
}
