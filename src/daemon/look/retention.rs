//! Who keeps what of closed spans, learnt from those that closed last; it decides what is copied.

use serde::Serialize;

use super::{Looker, VatNews};
use crate::daemon::config::CaptureWhen;
use crate::kernel_db::WorkerType;

/// Who has something of closed spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// The node's database.
    Node,
    /// Its archive.
    Archive,
    /// Nobody but us.
    Nobody,
}

/// Who has what of closed spans, as seen on those that closed last. `None` until one has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// The items.
    pub items: Option<Keeper>,
    /// The images.
    pub images: Option<Keeper>,
}

impl Retention {
    /// In words, with what would improve it.
    #[must_use]
    pub fn describe(self) -> String {
        let advice = |line: &str| format!("; in app.toml, section [swingset], {line} would change that");
        let items = match self.items {
            None => "whether the node keeps the items of closed spans is not known yet, so they are copied".to_owned(),
            Some(Keeper::Node) => "the node keeps the items of closed spans".to_owned(),
            Some(Keeper::Archive) => "the items of closed spans are read from the archive".to_owned(),
            Some(Keeper::Nobody) => format!(
                "the node deletes the items of a span as it closes, so they are copied before, and the last ones cannot be \
                 seen{}",
                advice("vat-transcript-archive-dir (with node.transcript_archive here)")
            ),
        };
        let images = match self.images {
            None => "whether it keeps old images is not known yet, so they are copied".to_owned(),
            Some(Keeper::Node) => "it keeps old images".to_owned(),
            Some(Keeper::Archive) => "old images are read from the archive".to_owned(),
            Some(Keeper::Nobody) => format!(
                "it deletes old images, so they are copied while they are in use{}",
                advice("vat-snapshot-archive-dir (with node.snapshot_archive here)")
            ),
        };
        format!("{items}; {images}")
    }
}

impl Looker<'_> {
    /// Learns from the spans that closed last who keeps what.
    pub(super) fn learn_retention(&mut self, vats: &[VatNews]) {
        let archives = &self.shared.record.archives;
        let mut retention = self.shared.view().retention;
        let (mut items, mut images) = (None, None);
        for news in vats {
            let Some((last, kept)) = news.closed.rows.last().or(news.last_closed.as_ref()).zip(news.kept) else {
                continue;
            };
            let options = self.vats.get(&news.vat).map(|known| &known.options);
            let is_local =
                options.or(news.options.as_ref()).is_some_and(|options| options.worker_type == Some(WorkerType::Local));
            if is_local || last.id.end <= last.id.start {
                continue;
            }
            let keeper = |is_kept, is_archived| match (is_kept, is_archived) {
                (true, _) => Keeper::Node,
                (false, true) => Keeper::Archive,
                (false, false) => Keeper::Nobody,
            };
            // Where they differ, as they do after a setting was changed, rather a copy too many.
            items = items.max(Some(keeper(kept.items, archives.has_items(&last.id))));
            if let (Some(is_kept), Some(before)) = (kept.image, last.id.start.checked_sub(1)) {
                images = images.max(Some(keeper(is_kept, archives.has_image(&last.id.vat, before))));
            }
        }
        (retention.items, retention.images) = (items.or(retention.items), images.or(retention.images));
        let is_known = retention.items.is_some() && retention.images.is_some();
        if retention != self.shared.view().retention || (is_known && !self.is_retention_told) {
            self.is_retention_told |= is_known;
            tracing::info!("{}", retention.describe());
        }
        self.shared.set_view(|view| view.retention = retention);
    }

    fn wants(&self, when: CaptureWhen, keeper: Option<Keeper>) -> bool {
        match when {
            CaptureWhen::Always => true,
            CaptureWhen::Never => false,
            CaptureWhen::Auto => !matches!(keeper, Some(Keeper::Node | Keeper::Archive)),
        }
    }

    pub(super) fn wants_items(&self) -> bool {
        self.wants(self.shared.config.capture.items, self.shared.view().retention.items)
    }

    pub(super) fn wants_images(&self) -> bool {
        self.wants(self.shared.config.capture.images, self.shared.view().retention.images)
    }
}
