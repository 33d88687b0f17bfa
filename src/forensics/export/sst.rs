//! A transcript as `misc-tools/replay-transcript.js` of agoric-sdk's `packages/SwingSet` reads it, a JSON object a line.
//!
//! Sources: that tool, and beside it `extract-transcript-from-kerneldb.js` and `extract-transcript-from-slogfile.js`, which
//! write such files. The first line is `create-vat`, which names the bundles, or `heap-snapshot-load`; then come the items
//! as the kernel wrote them, with a `transcriptNum`; an image is saved at `heap-snapshot-save`. The tool reads bundles and images
//! from the directory that it is run in, as `<bundleID>` and `<vatID>-<hash>.xss`, so these are written beside the file. The
//! kernel's pseudo-deliveries are not sent to a worker, so they are no items here.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::{ExportError, has_image, write_image, write_once};
use crate::evidence::Case;
use crate::files::publish;
use crate::record::bundle;
use crate::record::image::Image;
use crate::transcript::{DeliveryKind, Hash256, Position};

/// What was written.
#[derive(Debug, Serialize)]
pub struct Transcript {
    /// The file.
    pub file: PathBuf,
    /// How many deliveries it has.
    pub deliveries: usize,
    /// What the tool needs beside it.
    pub beside: Vec<PathBuf>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    r#type: &'a str,
    transcript_num: Position,
    #[serde(rename = "vatID")]
    vat: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vat_name: Option<&'a str>,
    #[serde(rename = "bundleIDs", skip_serializing_if = "<[String]>::is_empty")]
    bundles: &'a [String],
    #[serde(rename = "vatSourceBundleID", skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    image: Option<Hash256>,
}

/// Writes the transcript, compressed if its name ends with `.gz`, and beside it what the tool needs.
///
/// # Errors
/// When something is missing or can't be written.
pub fn export(case: &Case, file: &Path) -> Result<Transcript, ExportError> {
    let items = case.items()?;
    // All that the span starts with is there and sound, or nothing is written.
    let base = case.base()?;
    case.beginning(&case.span(&items)?, base.as_ref(), &[])?;
    let beside = beside(case, base.as_ref(), file.parent().unwrap_or(Path::new("")))?;
    let id = case.id();
    let vat = id.vat.as_str();
    let mut deliveries = 0;
    let mut lines = |to: &mut dyn Write| -> io::Result<()> {
        for ((position, item), text) in items.iter().zip(case.texts().iter()) {
            let mark = Head {
                r#type: "",
                transcript_num: *position,
                vat,
                vat_name: None,
                bundles: &[],
                source: None,
                image: None,
            };
            let head = match &item.kind {
                DeliveryKind::InitializeWorker { worker_bundles, source, .. } => Head {
                    r#type: "create-vat",
                    vat_name: case.manifest.span.name.as_deref(),
                    bundles: worker_bundles,
                    source: source.as_deref(),
                    ..mark
                },
                DeliveryKind::LoadSnapshot { image } => {
                    Head { r#type: "heap-snapshot-load", image: Some(*image), ..mark }
                }
                DeliveryKind::SaveSnapshot { image } => {
                    Head { r#type: "heap-snapshot-save", image: Some(*image), ..mark }
                }
                // The tool ends the worker by itself.
                DeliveryKind::ShutdownWorker => continue,
                DeliveryKind::Real(_) => {
                    let text = String::from_utf8_lossy(text).replace(['\n', '\r'], " ");
                    let fields = text.trim().strip_prefix('{').unwrap_or_default();
                    writeln!(to, r#"{{"transcriptNum":{position},{fields}"#)?;
                    deliveries += 1;
                    continue;
                }
            };
            writeln!(to, "{}", serde_json::to_string(&head)?)?;
        }
        to.flush()
    };
    let is_packed = file.extension().is_some_and(|ending| ending == "gz");
    let mut write = |file: &mut File| -> io::Result<()> {
        let to = BufWriter::new(file);
        if is_packed {
            let mut to = GzEncoder::new(to, Compression::default());
            lines(&mut to)?;
            to.finish()?.flush()
        } else {
            let mut to = to;
            lines(&mut to)
        }
    };
    if let Err(error) = publish::create(file, |to| write(to)) {
        for path in beside.iter().filter(|beside| beside.is_new).map(|beside| &beside.path) {
            // Alone it is of no use.
            let _ = fs::remove_file(path);
        }
        return Err(ExportError::io(file)(error));
    }
    Ok(Transcript { file: file.to_owned(), deliveries, beside: beside.into_iter().map(|beside| beside.path).collect() })
}

/// A file beside the transcript.
struct Beside {
    path: PathBuf,
    /// Whether it was not there before.
    is_new: bool,
}

/// Writes the image or the bundles that the span starts with.
fn beside(case: &Case, base: Option<&Image>, dir: &Path) -> Result<Vec<Beside>, ExportError> {
    let mut written = Vec::new();
    if let Some(base) = base {
        let path = dir.join(format!("{}-{}.xss", case.id().vat, base.hash()));
        let is_new = !has_image(&path, base);
        if is_new {
            write_image(&path, base)?;
        }
        written.push(Beside { path, is_new });
    }
    for id in &case.manifest.start.bundles {
        let wrong = |why: String| ExportError::Bundle { id: id.clone(), why };
        let bytes = case.bundle(id)?.ok_or_else(|| wrong("it is not in the folder".to_owned()))?;
        let json = match id.starts_with("b1-") {
            true => bundle::set_bundle_argument(id, &bytes).map_err(|error| wrong(error.to_string()))?.into_bytes(),
            false => bytes,
        };
        let path = dir.join(id);
        let is_new = write_once(&path, &json)?;
        written.push(Beside { path, is_new });
    }
    Ok(written)
}
