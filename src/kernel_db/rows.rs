//! The rows that the queries return, as they stand in the database.
//!
//! Owns their types. It must never correct a value: a row is what was found, and nothing of it is proved yet.

use serde::Deserialize;

use crate::transcript::{Hash256, Items, Position, SpanId, VatId};

/// A row of `transcriptSpans`.
#[derive(Debug, Clone)]
pub struct SpanRow {
    /// Vat and bounds.
    pub id: SpanId,
    /// The span hash; `None` when the column holds something else than a sha256 in hex.
    pub hash: Option<Hash256>,
    /// Whether items are still being added to it.
    pub is_current: bool,
    /// How often the vat had been upgraded when the span began.
    pub incarnation: u64,
}

/// A row of `snapshots` without its image.
#[derive(Debug, Clone)]
pub struct SnapshotRow {
    /// The vat.
    pub vat: VatId,
    /// Position of the `save-snapshot` item.
    pub position: Position,
    /// sha256 of the uncompressed image; `None` when the column holds something else.
    pub hash: Option<Hash256>,
    /// Size of the uncompressed image; imported rows may have none.
    pub bytes: Option<u64>,
    /// Whether the compressed image is there.
    pub has_image: bool,
    /// Whether the kernel starts the vat from it now.
    pub in_use: bool,
}

/// A row of `bundles` without its bytes.
#[derive(Debug, Clone)]
pub struct BundleRow {
    /// `b0-` and a sha256, or `b1-` and a sha512.
    pub id: String,
    /// Whether the bundle is there (an import can leave it NULL).
    pub is_present: bool,
}

/// What reading the items of a span gave.
#[derive(Debug)]
pub enum ItemsRead {
    /// All of them.
    All(Items),
    /// None: the node pruned them.
    None,
    /// Some are missing.
    Gap {
        /// The first position without a row.
        missing: Position,
        /// How many rows there are.
        present: u64,
    },
    /// More text than a replay may hold.
    TooLarge {
        /// Bytes of text.
        bytes: u64,
    },
}

/// A vat's options, as far as a replay depends on them (`<vatID>.options` in `kvStore`).
///
/// They never change in a vat's life, so today's hold for old incarnations. Where they are gone (a terminated vat),
/// the default is right: none of them can be known to be set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VatOptions {
    /// The vat's name, for static and dynamic vats alike.
    pub name: Option<String>,
    /// Which worker runs it, where that is known.
    pub worker_type: Option<WorkerType>,
    /// Whether its deliveries are metered: the worker gets a limit then.
    pub is_metered: bool,
    /// Whether its code may disavow imports: changes what is in the heap.
    pub enable_disavow: bool,
}

/// What a vat's worker may have been started with, as the kernel's keys have it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerKeys {
    /// `<vatID>.source`.
    pub(crate) source: Option<String>,
    /// `<vatID>.options` of the vat, then of all vats.
    pub(crate) options: Vec<String>,
    /// The IDs of the bundles with code of vats.
    pub(crate) bundles: Vec<String>,
}

/// Which kind of worker runs a vat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerType {
    /// An xsnap process.
    Xsnap,
    /// Inside the kernel's own process: nothing to replay with a worker.
    Local,
    /// Anything else.
    Other(String),
}

impl WorkerType {
    /// From the kernel's word.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word {
            "xsnap" | "xs-worker" => Self::Xsnap,
            "local" => Self::Local,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The word by which [`WorkerType::of`] knows it again.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Xsnap => "xsnap",
            Self::Local => "local",
            Self::Other(word) => word,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOptions {
    name: Option<String>,
    worker_options: Option<RawWorkerOptions>,
    #[serde(rename = "meterID")]
    meter_id: Option<String>,
    #[serde(default)]
    enable_disavow: bool,
}

#[derive(Deserialize)]
struct RawWorkerOptions {
    #[serde(rename = "type")]
    worker_type: String,
}

impl VatOptions {
    /// From the JSON of `<vatID>.options`.
    ///
    /// # Errors
    /// When it is not JSON of that shape.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let raw: RawOptions = serde_json::from_str(json)?;
        Ok(Self {
            name: raw.name,
            worker_type: raw.worker_options.map(|options| WorkerType::of(&options.worker_type)),
            is_metered: raw.meter_id.is_some(),
            enable_disavow: raw.enable_disavow,
        })
    }
}
