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

/// The kind of base from which a span's worker started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseKind {
    /// The bundles of a blank worker.
    Blank,
    /// The recorded image, from the node.
    Recorded,
    /// The recorded image, from our captures.
    Captured,
    /// The image that the replay of the span before it gave.
    Chained,
    /// Nothing: there was no image.
    Missing,
    /// The base in an evidence folder.
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

/// The state that a worker is given before the first delivery.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::VatId;

    const INITIALIZE: &str = r#"{"d":["initialize-worker",{"source":{"bundleID":"b1-00"},"workerOptions":{"type":"xsnap","bundleIDs":["b0-00"]}}],"sc":[],"r":{"status":"ok"}}"#;
    const LOCAL: &str = r#"{"d":["initialize-worker",{"source":{"bundleID":"b1-00"},"workerOptions":{"type":"local"}}],"sc":[],"r":{"status":"ok"}}"#;
    const UNKNOWN: &str = r#"{"d":["initialize-worker",{"source":{"bundleID":"b1-00"},"workerOptions":{"type":"newWorker"}}],"sc":[],"r":{"status":"ok"}}"#;
    const LOAD: &str = r#"{"d":["load-snapshot",{"snapshotID":"f467b89caf819ee4ba76ffecf353d99eb374b673ea01da456beb73a9a9d372e6"}],"sc":[],"r":{"status":"ok"}}"#;
    const SAVE: &str = r#"{"d":["save-snapshot"],"sc":[],"r":{"status":"ok","snapshotID":"f467b89caf819ee4ba76ffecf353d99eb374b673ea01da456beb73a9a9d372e6"}}"#;
    const SHUTDOWN: &str = r#"{"d":["shutdown-worker"],"sc":[],"r":{"status":"ok"}}"#;
    const DELIVERY: &str = r#"{"d":["bringOutYourDead"],"sc":[],"r":{"status":"ok","metering":{"computrons":2364}}}"#;
    const FAILED: &str = r#"{"d":["bringOutYourDead"],"sc":[],"r":{"status":"error"}}"#;
    const UNMETERED: &str = r#"{"d":["bringOutYourDead"],"sc":[],"r":{"status":"ok"}}"#;
    const BUSY_SAVE: &str = r#"{"d":["save-snapshot"],"sc":[{"s":["exit",false,{}],"r":["ok",null]}],"r":{"status":"ok","snapshotID":"f467b89caf819ee4ba76ffecf353d99eb374b673ea01da456beb73a9a9d372e6"}}"#;

    /// The span of these items (its end, its deliveries, the end of the part that was seen), or the reason why they make no span.
    fn told(texts: &[&str], ends_by_rows: Option<SpanEnds>, is_whole: bool) -> String {
        let id = SpanId { vat: VatId::new("v7"), start: 5, end: 5 + texts.len() as u64 + u64::from(!is_whole) };
        let items: Vec<_> =
            (5..).zip(texts.iter().map(|text| Item::parse(text.as_bytes()).expect("a kernel's item"))).collect();
        match Span::new(&id, ends_by_rows, &items, is_whole) {
            Ok(span) => {
                assert_eq!(span.saves.is_some(), span.ends == SpanEnds::SaveSnapshot);
                assert_eq!(span.loads().is_some(), texts[0] == LOAD);
                format!("{}, {} deliveries, seen to {}", span.ends.label(), span.deliveries.len(), span.seen_to)
            }
            Err(Verdict::Unverifiable(reason)) => reason.to_string(),
            Err(Verdict::NotApplicable(reason)) => reason.label().to_owned(),
            Err(other) => other.label().to_owned(),
        }
    }

    #[test]
    fn items_are_in_an_order_in_which_a_kernel_writes_them() {
        for (texts, expected) in [
            (&[INITIALIZE, DELIVERY, SAVE][..], "save-snapshot, 1 deliveries, seen to 8"),
            (&[LOAD, DELIVERY, FAILED, SHUTDOWN], "shutdown-worker, 2 deliveries, seen to 9"),
            (&[LOAD, DELIVERY], "termination, 1 deliveries, seen to 7"),
            (&[LOAD, SAVE], "save-snapshot, 0 deliveries, seen to 7"),
            (&[LOAD, SHUTDOWN], "empty"),
            (&[LOAD], "empty"),
            (&[], "empty"),
            (&[LOCAL, DELIVERY], "local_worker"),
            (&[UNKNOWN, DELIVERY], "it runs in a worker of unknown type \"newWorker\""),
            (&[DELIVERY, SAVE], "item 5 is out of place: the span begins with bringOutYourDead"),
            (&[LOAD, SAVE, DELIVERY, SAVE], "item 6 is out of place: save-snapshot stands in the middle of the span"),
            (&[LOAD, INITIALIZE, SAVE], "item 6 is out of place: initialize-worker stands in the middle of the span"),
            (&[LOAD, UNMETERED, SAVE], "item 6 is out of place: bringOutYourDead has no computrons"),
            (&[LOAD, DELIVERY, BUSY_SAVE], "item 7 is out of place: save-snapshot has syscalls or an error"),
        ] {
            assert_eq!(told(texts, None, true), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_span_that_lost_its_snapshot_does_not_pass_for_a_terminated_one() {
        let texts = [LOAD, DELIVERY];
        let expected = "item 6 is out of place: the span ends with termination, other rows say save-snapshot";
        assert_eq!(told(&texts, Some(SpanEnds::SaveSnapshot), true), expected);
        assert_eq!(told(&texts, Some(SpanEnds::SaveSnapshot), false), "unseen, 1 deliveries, seen to 7");
    }

    #[test]
    fn without_its_end_a_span_without_deliveries_is_unknown_and_not_empty() {
        assert_eq!(told(&[LOAD], None, false), "its items were pruned by the node");
    }

    #[test]
    fn labels_are_those_of_the_transcript() {
        let items = [(INITIALIZE, "initialize-worker"), (LOAD, "load-snapshot"), (DELIVERY, "none")];
        for (text, expected) in items {
            let item = Item::parse(text.as_bytes()).expect("a kernel's item");
            assert_eq!(SpanBegins::of(&item.kind).map_or("none", SpanBegins::label), expected);
        }
        for ends in [SpanEnds::SaveSnapshot, SpanEnds::ShutdownWorker, SpanEnds::Termination, SpanEnds::Unseen] {
            assert_eq!(serde_json::to_string(&ends).expect("a word"), format!("{:?}", ends.label()));
        }
    }

    #[test]
    fn a_blank_worker_gets_no_bundle_that_is_missing_or_forged() {
        let texts = [INITIALIZE, DELIVERY];
        let items: Vec<_> =
            (0..).zip(texts.iter().map(|text| Item::parse(text.as_bytes()).expect("a kernel's item"))).collect();
        let id = SpanId { vat: VatId::new("v7"), start: 0, end: 2 };
        let span = Span::new(&id, None, &items, true).expect("a span");
        let missing = blank_beginning(|_| Ok(None), &span, &VatOptions::default(), false);
        let Err(Verdict::Unverifiable(Unverifiable::BundleMissing(id))) = missing else { panic!("{missing:?}") };
        assert_eq!(id, "b0-00");
        let forged = |id: &str| Ok(Some(CodeBundle { id: id.to_owned(), bytes: b"{}".to_vec() }));
        let damaged = blank_beginning(forged, &span, &VatOptions::default(), false);
        assert!(matches!(damaged, Err(Verdict::Unverifiable(Unverifiable::BundleDamaged { .. }))), "{damaged:?}");
    }
}
