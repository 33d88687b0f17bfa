//! One span, ready to be replayed: its items in an order in which a kernel writes them, and what its worker is given at the start.
//!
//! Everything here is pure: no I/O, no clock. [`crate::record`] reads and proves. A span that is not as a kernel writes it is
//! [`Unverifiable`], never a divergence.

use serde::{Deserialize, Serialize};

use crate::kernel_db::VatOptions;
use crate::record::Image;
use crate::record::bundle::{self, CodeBundle};
use crate::transcript::{DeliveryKind, Hash256, Item, Position, SpanId};
use crate::verdict::{NotApplicable, Unverifiable, Verdict};

/// The first item of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpanBegins {
    /// A blank worker is given its bundles: the first span of an incarnation.
    InitializeWorker,
    /// A worker is started from an image.
    LoadSnapshot,
}

impl SpanBegins {
    /// The item of this kind, if it can begin a span.
    #[must_use]
    pub fn of(item: &DeliveryKind) -> Option<Self> {
        match item {
            DeliveryKind::InitializeWorker { .. } => Some(Self::InitializeWorker),
            DeliveryKind::LoadSnapshot { .. } => Some(Self::LoadSnapshot),
            _ => None,
        }
    }

    /// The item's name, as in the transcript.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::InitializeWorker => "initialize-worker",
            Self::LoadSnapshot => "load-snapshot",
        }
    }
}

/// The end of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpanEnds {
    /// The worker saved an image.
    SaveSnapshot,
    /// The vat was upgraded.
    ShutdownWorker,
    /// Neither: the vat was terminated, and the span was closed as it was.
    Termination,
    /// The last items are missing.
    Unseen,
}

impl SpanEnds {
    /// The item's name, as in the transcript, or a word for none.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::SaveSnapshot => "save-snapshot",
            Self::ShutdownWorker => "shutdown-worker",
            Self::Termination => "termination",
            Self::Unseen => "unseen",
        }
    }
}

/// What a span's worker started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseKind {
    /// Its bundles.
    Blank,
    /// The recorded image, from the node.
    Recorded,
    /// The recorded image, from our captures.
    Captured,
    /// The image that the replay of the span before it gave.
    Chained,
    /// Nothing: there was no image.
    Missing,
    /// What an evidence folder holds.
    Evidence,
}

impl BaseKind {
    /// One word, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Recorded => "recorded",
            Self::Captured => "captured",
            Self::Chained => "chained",
            Self::Missing => "missing",
            Self::Evidence => "evidence",
        }
    }
}

/// The items of a span, in an order in which a kernel writes them.
#[derive(Debug)]
pub struct Span<'a> {
    /// Vat and bounds.
    pub id: &'a SpanId,
    /// The first item: how the worker is started.
    pub begins: &'a DeliveryKind,
    /// The deliveries to the vat, each with its position.
    pub deliveries: &'a [(Position, Item<'a>)],
    /// The image that the last item names, if the span ends with `save-snapshot`.
    pub saves: Option<Hash256>,
    /// The end of the span.
    pub ends: SpanEnds,
    /// One past the last item that is there; the span's own end unless its last items are missing.
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

impl<'a> Span<'a> {
    /// Checks that the items are in an order in which a kernel writes them, and end as other rows say, where those tell.
    ///
    /// # Errors
    /// When they are not, or there is nothing to replay.
    pub fn new(
        id: &'a SpanId,
        ends_by_rows: Option<SpanEnds>,
        items: &'a [(Position, Item<'a>)],
        is_whole: bool,
    ) -> Result<Self, Verdict> {
        let Some(((first_position, first), mut deliveries)) = items.split_first() else {
            return Err(Verdict::NotApplicable(NotApplicable::Empty));
        };
        check_first(*first_position, &first.kind)?;
        let mut saves = None;
        let mut ends = if is_whole { SpanEnds::Termination } else { SpanEnds::Unseen };
        if let Some(((_, last), rest)) = deliveries.split_last() {
            match last.kind {
                DeliveryKind::SaveSnapshot { image } => {
                    (saves, deliveries, ends) = (Some(image), rest, SpanEnds::SaveSnapshot);
                }
                DeliveryKind::ShutdownWorker => (deliveries, ends) = (rest, SpanEnds::ShutdownWorker),
                _ => {}
            }
        }
        check_results(items)?;
        if let Some((position, item)) = deliveries.iter().find(|(_, item)| !matches!(item.kind, DeliveryKind::Real(_)))
        {
            return Err(out_of_place(*position, format!("{} stands in the middle of the span", item.kind.name())));
        }
        // Otherwise a record that lost its snapshot would verify without its hash.
        if let Some(by_rows) = ends_by_rows.filter(|by_rows| is_whole && *by_rows != ends) {
            let what = format!("the span ends with {}, other rows say {}", ends.label(), by_rows.label());
            return Err(out_of_place(id.end - 1, what));
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

/// The first item must start a worker that can be replayed.
fn check_first(position: Position, first: &DeliveryKind) -> Result<(), Verdict> {
    match first {
        DeliveryKind::InitializeWorker { worker_type, .. } if worker_type == "local" => {
            Err(Verdict::NotApplicable(NotApplicable::LocalWorker))
        }
        DeliveryKind::InitializeWorker { worker_type, .. } if worker_type != "xsnap" => {
            Err(Verdict::Unverifiable(Unverifiable::WorkerType(worker_type.clone())))
        }
        DeliveryKind::InitializeWorker { .. } | DeliveryKind::LoadSnapshot { .. } => Ok(()),
        other => Err(out_of_place(position, format!("the span begins with {}", other.name()))),
    }
}

/// Only deliveries to the vat have syscalls or can fail, and each that succeeds has computrons.
fn check_results(items: &[(Position, Item<'_>)]) -> Result<(), Verdict> {
    for (position, item) in items {
        let is_real = matches!(item.kind, DeliveryKind::Real(_));
        let is_ok = item.result.status == "ok";
        if !is_real && (!is_ok || !item.syscalls.is_empty()) {
            return Err(out_of_place(*position, format!("{} has syscalls or an error", item.kind.name())));
        }
        if is_real && is_ok && item.result.computrons.is_none() {
            return Err(out_of_place(*position, format!("{} has no computrons", item.kind.name())));
        }
    }
    Ok(())
}

fn out_of_place(position: Position, what: String) -> Verdict {
    Verdict::Unverifiable(Unverifiable::Shape { position, what })
}

/// The programs and the `setBundle` arguments for a blank worker. `bundle` gives the one to use where the record names one.
///
/// # Errors
/// The verdict, when a bundle is missing or not what its ID says.
pub fn blank_beginning(
    bundle: impl Fn(&str) -> Result<Option<CodeBundle>, Verdict>,
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
