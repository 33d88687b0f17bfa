//! One transcript item, sliced but not copied.
//!
//! Source of the shapes: `getTranscriptEntry` and the pseudo-deliveries in `swingset-vat/src/kernel/vat-warehouse.js`. Owns the parsing of
//! items. It must never print a text again from parsed values.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Hash256;

/// A delivery or pseudo-delivery with its syscalls and its result, borrowed from the item's text.
#[derive(Debug)]
pub struct Item<'a> {
    /// What was delivered.
    pub kind: DeliveryKind,
    /// The delivery's JSON text, as the kernel wrote it.
    pub delivery: &'a str,
    /// The syscalls that the vat made during the delivery, in order.
    pub syscalls: Vec<Syscall<'a>>,
    /// How it ended.
    pub result: ItemResult,
}

/// A recorded syscall and the response that the kernel gave, both as JSON text.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syscall<'a> {
    /// What the vat asked.
    #[serde(borrow, rename = "s")]
    request: &'a RawValue,
    /// What the kernel answered.
    #[serde(borrow, rename = "r")]
    response: &'a RawValue,
}

impl<'a> Syscall<'a> {
    /// The syscall's JSON text, as the kernel wrote it.
    #[must_use]
    pub fn request(&self) -> &'a str {
        self.request.get()
    }

    /// The response's JSON text, as the kernel wrote it.
    #[must_use]
    pub fn response(&self) -> &'a str {
        self.response.get()
    }
}

/// The recorded end of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemResult {
    /// `ok` or `error`.
    pub status: String,
    /// What the delivery cost, in computrons; recorded for each real delivery that ended `ok`.
    pub computrons: Option<u64>,
}

/// What kind of entry an item is, with what a replay needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryKind {
    /// A blank worker is started and given its bundles.
    InitializeWorker {
        /// `local` or `xsnap`.
        worker_type: String,
        /// The bundles that are evaluated first: lockdown, then supervisor.
        worker_bundles: Vec<String>,
        /// The vat's own code; a host can start a vat from a whole bundle, and then there is no ID.
        source: Option<String>,
    },
    /// A worker is started from a heap snapshot.
    LoadSnapshot {
        /// sha256 of the uncompressed image.
        image: Hash256,
    },
    /// The worker writes a heap snapshot; the span ends.
    SaveSnapshot {
        /// sha256 of the uncompressed image.
        image: Hash256,
    },
    /// The worker is stopped for an upgrade; the span ends.
    ShutdownWorker,
    /// A delivery that is sent to the vat.
    Real(RealDelivery),
}

/// The deliveries that a vat sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealDelivery {
    /// The first delivery of an incarnation.
    StartVat,
    /// A message to an object of the vat.
    Message,
    /// Promises that the vat follows are resolved.
    Notify,
    /// Exports are no longer reachable from elsewhere.
    DropExports,
    /// Exports are no longer recognizable elsewhere.
    RetireExports,
    /// Imports are gone.
    RetireImports,
    /// A forced garbage collection.
    BringOutYourDead,
    /// New vat options, sent by older kernels.
    ChangeVatOptions,
    /// The last delivery before an upgrade, sent by older kernels.
    StopVat,
}

impl RealDelivery {
    const NAMES: [(&'static str, Self); 9] = [
        ("startVat", Self::StartVat),
        ("message", Self::Message),
        ("notify", Self::Notify),
        ("dropExports", Self::DropExports),
        ("retireExports", Self::RetireExports),
        ("retireImports", Self::RetireImports),
        ("bringOutYourDead", Self::BringOutYourDead),
        ("changeVatOptions", Self::ChangeVatOptions),
        ("stopVat", Self::StopVat),
    ];
}

impl DeliveryKind {
    /// The kernel's name of it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InitializeWorker { .. } => "initialize-worker",
            Self::LoadSnapshot { .. } => "load-snapshot",
            Self::SaveSnapshot { .. } => "save-snapshot",
            Self::ShutdownWorker => "shutdown-worker",
            Self::Real(real) => {
                let name = RealDelivery::NAMES.iter().find(|(_, kind)| kind == real);
                name.map_or("delivery", |(name, _)| name)
            }
        }
    }
}

/// Why an item's text is not what a kernel writes.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// Not JSON, or JSON of another shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Not text at all.
    #[error("text is not UTF-8 (first bad byte at {0})")]
    NotUtf8(usize),
    /// A delivery that no kernel known here makes.
    #[error("delivery of unknown type {0:?}")]
    UnknownDelivery(String),
    /// A field without which the item can't be replayed.
    #[error("{0}")]
    Shape(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawItem<'a> {
    #[serde(borrow)]
    d: &'a RawValue,
    #[serde(borrow)]
    sc: Vec<Syscall<'a>>,
    r: RawResult,
}

#[derive(Deserialize)]
struct RawResult {
    status: String,
    metering: Option<RawMetering>,
    #[serde(rename = "snapshotID")]
    snapshot_id: Option<String>,
}

#[derive(Deserialize)]
struct RawMetering {
    computrons: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawInitialize {
    source: RawSource,
    worker_options: RawWorkerOptions,
}

#[derive(Deserialize)]
struct RawSource {
    #[serde(rename = "bundleID")]
    bundle_id: Option<String>,
}

#[derive(Deserialize)]
struct RawWorkerOptions {
    #[serde(rename = "type")]
    worker_type: String,
    #[serde(rename = "bundleIDs", default)]
    bundle_ids: Vec<String>,
}

#[derive(Deserialize)]
struct RawLoad {
    #[serde(rename = "snapshotID")]
    snapshot_id: String,
}

impl<'a> Item<'a> {
    /// Slices an item's text.
    ///
    /// # Errors
    /// When the text is not JSON of the shape that a kernel writes.
    pub fn parse(text: &'a [u8]) -> Result<Self, ItemError> {
        let text = std::str::from_utf8(text).map_err(|error| ItemError::NotUtf8(error.valid_up_to()))?;
        let raw: RawItem<'a> = serde_json::from_str(text)?;
        let delivery = raw.d.get();
        let (name, argument) = head_of(delivery)?;
        let kind = match name.as_str() {
            "initialize-worker" => {
                let initialize: RawInitialize = serde_json::from_str(required(argument)?)?;
                DeliveryKind::InitializeWorker {
                    worker_type: initialize.worker_options.worker_type,
                    worker_bundles: initialize.worker_options.bundle_ids,
                    source: initialize.source.bundle_id,
                }
            }
            "load-snapshot" => {
                let load: RawLoad = serde_json::from_str(required(argument)?)?;
                DeliveryKind::LoadSnapshot { image: image_hash(Some(&load.snapshot_id))? }
            }
            "save-snapshot" => DeliveryKind::SaveSnapshot { image: image_hash(raw.r.snapshot_id.as_deref())? },
            "shutdown-worker" => DeliveryKind::ShutdownWorker,
            other => match RealDelivery::NAMES.iter().find(|(name, _)| *name == other) {
                Some((_, real)) => DeliveryKind::Real(*real),
                None => return Err(ItemError::UnknownDelivery(other.chars().take(64).collect())),
            },
        };
        if !matches!(raw.r.status.as_str(), "ok" | "error") {
            return Err(ItemError::Shape("the result's status is neither ok nor error"));
        }
        Ok(Self {
            kind,
            delivery,
            syscalls: raw.sc,
            result: ItemResult {
                status: raw.r.status,
                computrons: raw.r.metering.and_then(|metering| metering.computrons),
            },
        })
    }
}

fn required(argument: Option<&RawValue>) -> Result<&str, ItemError> {
    argument.map(RawValue::get).ok_or(ItemError::Shape("the pseudo-delivery has no argument"))
}

fn image_hash(text: Option<&str>) -> Result<Hash256, ItemError> {
    text.and_then(Hash256::parse).ok_or(ItemError::Shape("snapshotID is not a sha256 in hex"))
}

/// The first two elements of a JSON array: a delivery's type and its first argument.
fn head_of(delivery: &str) -> Result<(String, Option<&RawValue>), ItemError> {
    let elements: Vec<&RawValue> = serde_json::from_str(delivery)?;
    let name = elements.first().ok_or(ItemError::Shape("the delivery is an empty array"))?;
    Ok((serde_json::from_str(name.get())?, elements.get(1).copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::canonical;
    use proptest::prelude::*;

    #[test]
    fn slices_are_verbatim() {
        let text = r##"{"d":["message","o+0",{"methargs":{"body":"#[\"\ud83d\"]","slots":[]}}],"sc":[{"s":["vatstoreGet","k"],"r":["ok",null]}],"r":{"status":"ok","metering":{"computrons":7}}}"##;
        let item = Item::parse(text.as_bytes()).expect("a kernel's item");
        assert_eq!(item.kind.name(), "message");
        assert_eq!(item.delivery, r##"["message","o+0",{"methargs":{"body":"#[\"\ud83d\"]","slots":[]}}]"##);
        assert_eq!(item.syscalls[0].request(), r##"["vatstoreGet","k"]"##);
        assert_eq!(item.syscalls[0].response(), r##"["ok",null]"##);
        assert_eq!(item.result, ItemResult { status: "ok".into(), computrons: Some(7) });
    }

    #[test]
    fn what_no_kernel_writes_is_an_error() {
        for (text, says) in [
            ("", "EOF while parsing"),
            ("[]", "invalid length"),
            (r#"{"d":["noise"],"sc":[],"r":{"status":"ok"}}"#, "delivery of unknown type \"noise\""),
            (r#"{"d":[],"sc":[],"r":{"status":"ok"}}"#, "the delivery is an empty array"),
            (r#"{"d":["message"],"sc":[],"r":{"status":"fine"}}"#, "neither ok nor error"),
            (r#"{"d":["message"],"sc":[],"r":{"status":"ok"},"x":1}"#, "unknown field `x`"),
            (r#"{"d":["save-snapshot"],"sc":[],"r":{"status":"ok","snapshotID":"12"}}"#, "not a sha256 in hex"),
            (r#"{"d":["load-snapshot"],"sc":[],"r":{"status":"ok"}}"#, "no argument"),
        ] {
            let error = Item::parse(text.as_bytes()).expect_err(text);
            assert!(error.to_string().contains(says), "{text}: {error}");
        }
        assert!(matches!(Item::parse(b"\"\xff\""), Err(ItemError::NotUtf8(1))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        /// Whatever happens to an item's text, it is an item or an error; what is sliced from it can be compared.
        #[test]
        fn cuts_and_flips_end_in_an_item_or_an_error(
            flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..4),
            cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
        ) {
            let mut text = br##"{"d":["message","o+0",{"methargs":{"body":"#[\"\ud83d\",-0,1e21]","slots":["o-50"]},"result":"p-61"}],"sc":[{"s":["vatstoreGet","vc.4.|schemata"],"r":["ok","{\"label\":\"caf\u00e9\"}"]},{"s":["callNow","d-70",{"body":"#[]","slots":[]}],"r":["ok",{"body":"#1","slots":[]}]}],"r":{"status":"ok","metering":{"computrons":123456}}}"##.to_vec();
            for (at, bit) in flips {
                let at = at.index(text.len());
                text[at] ^= 1 << bit;
            }
            if let Some(cut) = cut {
                text.truncate(cut.index(text.len()));
            }
            if let Ok(item) = Item::parse(&text) {
                for syscall in &item.syscalls {
                    for text in [syscall.request(), syscall.response()] {
                        let spaced = [" ", text, " "].concat();
                        prop_assert_eq!(canonical::canonical(text).ok(), canonical::canonical(&spaced).ok());
                    }
                }
            }
        }
    }
}
