//! One span, ready to be replayed: its items proved and sliced, its bundles proved, its image proved.
//!
//! Everything is checked against a hash before it is believed, wherever it came from. What can't be proved makes the
//! span [`Unverifiable`], never a divergence.

use crate::kernel_db::{DbError, ItemsRead, KernelDb, SpanRow, VatOptions};
use crate::plan::{Base, ItemsAt, PlannedSpan};
use crate::record::archives::Archives;
use crate::record::bundle;
use crate::record::captures::Captures;
use crate::record::image::{Image, ImageError};
use crate::store::StoreError;
use crate::transcript::{DeliveryKind, Hash256, Item, Items, Position, SpanId};
use crate::verdict::{Failure, NotApplicable, Unverifiable, Verdict};

/// The proved items of a span, as text.
#[derive(Debug)]
pub struct SpanText {
    /// Vat and bounds.
    pub id: SpanId,
    items: Items,
    /// Whether the end of the span is among them.
    is_whole: bool,
}

/// A span's items, sliced and in an order in which a kernel writes them.
#[derive(Debug)]
pub struct Span<'a> {
    /// Vat and bounds.
    pub id: &'a SpanId,
    /// The first item: how the worker is started.
    pub begins: &'a DeliveryKind,
    /// The deliveries that the vat saw, each with its position.
    pub deliveries: &'a [(Position, Item<'a>)],
    /// The snapshot at the end, if it ends with one.
    pub saves: Option<Hash256>,
    /// The kind of the last item, or `termination` where the span was closed as it was; `unseen` where the end is missing.
    pub ends: &'static str,
    /// Where what is there of it ends; the span's own end unless its last items are missing.
    pub seen_to: Position,
}

/// What a worker is given before the first delivery.
#[derive(Debug)]
pub enum Beginning<'a> {
    /// Programs to evaluate in a blank worker, then the arguments of `setBundle`.
    Blank {
        /// Lockdown, then supervisor.
        programs: Vec<String>,
        /// `[vatID, bundle, options]` without the brackets.
        set_bundle: String,
    },
    /// An image.
    Image(&'a Image),
}

impl SpanText {
    /// Reads a span's items from where they are and proves them.
    ///
    /// # Errors
    /// The verdict, when they are not to be had or not what was recorded.
    pub fn load(
        db: &KernelDb,
        archives: &Archives,
        captures: &Captures,
        row: &SpanRow,
        items_at: ItemsAt,
    ) -> Result<Self, Verdict> {
        let id = &row.id;
        let recorded =
            row.hash.ok_or(Verdict::Unverifiable(Unverifiable::SpanRow("its hash is not a sha256 in hex")))?;
        let items = match items_at {
            ItemsAt::Database => match database_items(db, id, recorded)? {
                Ok(items) => items,
                Err(fault) if archives.has_items(id) => {
                    let items = archives.items(id, recorded)?;
                    tracing::warn!("{id}: the archive had to serve, as in the database {fault}");
                    items
                }
                Err(fault) => return Err(Verdict::Unverifiable(fault)),
            },
            ItemsAt::Archive => archives.items(id, recorded)?,
            ItemsAt::Captured(to) => {
                let items = captures.items(id)?;
                let is_whole = items.len() as u64 == id.end - id.start;
                if (items.len() as u64) < to - id.start || items.len() as u64 > id.end - id.start {
                    return Err(Verdict::Unverifiable(Unverifiable::ItemsPruned));
                }
                if is_whole && items.hash() != recorded {
                    return Err(Verdict::Unverifiable(Unverifiable::SpanHash { recorded, found: items.hash() }));
                }
                return Ok(Self { id: id.clone(), items, is_whole });
            }
            ItemsAt::Nowhere => return Err(Verdict::Unverifiable(Unverifiable::ItemsPruned)),
        };
        Ok(Self { id: id.clone(), items, is_whole: true })
    }

    /// Takes the items that an evidence folder has, and proves them.
    ///
    /// # Errors
    /// When they are not those that were recorded.
    pub fn prove(id: SpanId, items: Items, is_whole: bool, recorded: Hash256) -> Result<Self, Unverifiable> {
        if is_whole && items.hash() != recorded {
            return Err(Unverifiable::SpanHash { recorded, found: items.hash() });
        }
        Ok(Self { id, items, is_whole })
    }

    /// The items' texts.
    #[must_use]
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// Whether the end of the span is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Slices the items.
    ///
    /// # Errors
    /// When one of them is not what a kernel writes.
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

/// The items in the database if they are those that were recorded, or what is wrong with them.
fn database_items(db: &KernelDb, id: &SpanId, recorded: Hash256) -> Result<Result<Items, Unverifiable>, DbError> {
    Ok(match db.read(|reader| reader.items(id))? {
        ItemsRead::All(items) if items.hash() == recorded => Ok(items),
        ItemsRead::All(items) => Err(Unverifiable::SpanHash { recorded, found: items.hash() }),
        ItemsRead::None => Err(Unverifiable::ItemsPruned),
        ItemsRead::Gap { missing, present } => {
            Err(Unverifiable::ItemsMissing { missing, present, count: id.end - id.start })
        }
        ItemsRead::TooLarge { bytes } => Err(Unverifiable::TooLarge { bytes }),
    })
}

impl<'a> Span<'a> {
    /// Checks that the items are in an order in which a kernel writes them, and end as other rows say, where those tell.
    ///
    /// # Errors
    /// When they are not, or there is nothing to replay.
    pub fn new(
        id: &'a SpanId,
        ends_by_rows: Option<&'static str>,
        items: &'a [(Position, Item<'a>)],
        is_whole: bool,
    ) -> Result<Self, Verdict> {
        let shape = |position, what: String| Verdict::Unverifiable(Unverifiable::Shape { position, what });
        let Some(((first_position, first), mut deliveries)) = items.split_first() else {
            return Err(Verdict::NotApplicable(NotApplicable::Empty));
        };
        match &first.kind {
            DeliveryKind::InitializeWorker { worker_type, .. } if worker_type == "local" => {
                return Err(Verdict::NotApplicable(NotApplicable::LocalWorker));
            }
            DeliveryKind::InitializeWorker { worker_type, .. } if worker_type != "xsnap" => {
                return Err(Verdict::Unverifiable(Unverifiable::WorkerType(worker_type.clone())));
            }
            DeliveryKind::InitializeWorker { .. } | DeliveryKind::LoadSnapshot { .. } => {}
            other => {
                return Err(shape(*first_position, format!("the span begins with {}", other.name())));
            }
        }
        let mut saves = None;
        let mut ends = if is_whole { "termination" } else { "unseen" };
        if let Some(((_, last), rest)) = deliveries.split_last() {
            match last.kind {
                DeliveryKind::SaveSnapshot { image } => {
                    (saves, deliveries, ends) = (Some(image), rest, last.kind.name());
                }
                DeliveryKind::ShutdownWorker => (deliveries, ends) = (rest, last.kind.name()),
                _ => {}
            }
        }
        for (position, item) in items {
            let is_real = matches!(item.kind, DeliveryKind::Real(_));
            let is_ok = item.result.status == "ok";
            if !is_real && (!is_ok || !item.syscalls.is_empty()) {
                return Err(shape(*position, format!("{} has syscalls or an error", item.kind.name())));
            }
            if is_real && is_ok && item.result.computrons.is_none() {
                return Err(shape(*position, format!("{} has no computrons", item.kind.name())));
            }
        }
        if let Some((position, item)) = deliveries.iter().find(|(_, item)| !matches!(item.kind, DeliveryKind::Real(_)))
        {
            return Err(shape(*position, format!("{} stands in the middle of the span", item.kind.name())));
        }
        // Otherwise a record that lost its snapshot would verify without its hash.
        if let Some(by_rows) = ends_by_rows.filter(|by_rows| is_whole && *by_rows != ends) {
            return Err(shape(id.end - 1, format!("the span ends with {ends}, other rows say {by_rows}")));
        }
        if deliveries.is_empty() && saves.is_none() {
            // Without its end nobody can say that it had none.
            return Err(match is_whole {
                true => Verdict::NotApplicable(NotApplicable::Empty),
                false => Verdict::Unverifiable(Unverifiable::ItemsPruned),
            });
        }
        let seen_to = id.start + items.len() as u64;
        Ok(Self { id, begins: &first.kind, deliveries, saves, ends, seen_to })
    }

    /// The image that it starts from, as recorded in its first item.
    #[must_use]
    pub fn loads(&self) -> Option<Hash256> {
        match self.begins {
            DeliveryKind::LoadSnapshot { image } => Some(*image),
            _ => None,
        }
    }
}

/// The image that a `load-snapshot` span starts from, read from the database, our own copies or the archive, and proved.
///
/// # Errors
/// The verdict, when it is not to be had or not the recorded one.
pub fn recorded_image(
    db: &KernelDb,
    archives: &Archives,
    captures: &Captures,
    planned: &PlannedSpan,
    recorded: Hash256,
) -> Result<Image, Verdict> {
    let id = &planned.row.id;
    let Base::Recorded { in_database, in_archive, is_captured, row_hash, row_bytes } = &planned.base else {
        return Err(Verdict::Unverifiable(Unverifiable::BaseGone("nothing says where it was".to_owned())));
    };
    let position = id.start.saturating_sub(1);
    let mut faults = Vec::new();
    if let Some(row_hash) = row_hash.filter(|hash| *hash != recorded) {
        faults.push(format!(
            "the row in snapshots at position {position} has hash {row_hash}, load-snapshot says {recorded}"
        ));
    } else if *in_database {
        match db.read(|reader| reader.compressed_image(&id.vat, position))? {
            Some(gzip) => match Image::from_gzip_in_memory(&gzip, recorded, *row_bytes) {
                Ok(image) => return Ok(image),
                Err(error) => faults.push(format!("in the database {}", image_fault(error)?)),
            },
            None => faults.push("it vanished from the database".to_owned()),
        }
    }
    if *is_captured {
        match captures.image(recorded)? {
            Some(Ok(image)) => {
                for fault in faults {
                    tracing::warn!("{id}: a captured image had to serve, as {fault}");
                }
                return Ok(image);
            }
            Some(Err(error)) => faults.push(format!("as captured {}", image_fault(error)?)),
            // Whoever was done with it dropped it a moment ago; the next attempt starts from what there is then.
            None if !*in_archive => {
                let what = "the captured image that it starts from was dropped just before it was read".to_owned();
                return Err(Verdict::Failed(Failure::System(what)));
            }
            None => faults.push("its capture was dropped".to_owned()),
        }
    }
    if *in_archive {
        match archives.image(&id.vat, position, recorded, *row_bytes) {
            Ok(image) => {
                for fault in faults {
                    tracing::warn!("{id}: the archive had to serve, as {fault}");
                }
                return Ok(image);
            }
            Err(error) => faults.push(format!("in the archive {}", image_fault(error)?)),
        }
    }
    Err(Verdict::Unverifiable(Unverifiable::BaseDamaged(faults.join("; "))))
}

/// The image at the end of a span, if anybody has the recorded one.
#[must_use]
pub fn image_at_end(db: &KernelDb, archives: &Archives, captures: &Captures, span: &Span<'_>) -> Option<Image> {
    let (recorded, vat, position) = (span.saves?, &span.id.vat, span.id.end - 1);
    let gzip = db.read(|reader| reader.compressed_image(vat, position)).ok().flatten();
    gzip.and_then(|gzip| Image::from_gzip_in_memory(&gzip, recorded, None).ok())
        .or_else(|| captures.image(recorded).ok().flatten()?.ok())
        .or_else(|| archives.image(vat, position, recorded, None).ok())
}

fn image_fault(error: ImageError) -> Result<String, Verdict> {
    match error {
        ImageError::Io(error) => Err(Verdict::Failed(Failure::System(format!("failed to read an image: {error}")))),
        other => Ok(other.to_string()),
    }
}

/// A bundle, and the ID that proves it.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its ID.
    pub id: String,
    /// As the kernel's database has it.
    pub bytes: Vec<u8>,
}

/// The programs and the `setBundle` arguments for a blank worker. `bundle` gives the one to use where the record names one.
///
/// # Errors
/// The verdict, when a bundle is missing or not what its ID says.
pub fn blank_beginning(
    bundle: impl Fn(&str) -> Result<Option<Source>, Verdict>,
    span: &Span<'_>,
    options: &VatOptions,
    relax_durability_rules: bool,
) -> Result<Beginning<'static>, Verdict> {
    let DeliveryKind::InitializeWorker { worker_bundles, source, .. } = span.begins else {
        return Err(Verdict::Unverifiable(Unverifiable::SourceUnknown));
    };
    let source = source.as_ref().ok_or(Verdict::Unverifiable(Unverifiable::SourceUnknown))?;
    let read = |id: &str| match bundle(id)? {
        Some(source) => Ok(source),
        None => Err(Verdict::Unverifiable(Unverifiable::BundleMissing(id.to_owned()))),
    };
    let damaged = |id: &str| {
        let id = id.to_owned();
        move |error| Verdict::Unverifiable(Unverifiable::bundle(&id, &error))
    };
    let programs = worker_bundles
        .iter()
        .map(|id| read(id).and_then(|source| bundle::program_of(&source.id, &source.bytes).map_err(damaged(id))))
        .collect::<Result<_, _>>()?;
    let code = read(source)?;
    let bundle = bundle::set_bundle_argument(&code.id, &code.bytes).map_err(damaged(source))?;
    // The options in the kernel's key order (`vat-loader.js`).
    let set_bundle = format!(
        r#""{}",{bundle},{{"enableDisavow":{},"relaxDurabilityRules":{relax_durability_rules}}}"#,
        span.id.vat, options.enable_disavow
    );
    Ok(Beginning::Blank { programs, set_bundle })
}

/// So is a store that can't be read.
impl From<StoreError> for Verdict {
    fn from(error: StoreError) -> Self {
        Self::Failed(Failure::System(error.to_string()))
    }
}

/// A database that can't be read is trouble of ours, not a fault of the record.
impl From<DbError> for Verdict {
    fn from(error: DbError) -> Self {
        Self::Failed(Failure::Database(error.to_string()))
    }
}
