//! Code bundles, and the proof that a bundle is the one that its ID names.
//!
//! * `b0-` and a sha256: JSON text `{"moduleFormat","source","sourceMap"}`; the ID is the hash of the text. Lockdown and
//!   supervisor are of this kind.
//! * `b1-` and a sha512: the bytes of a zip; the ID is the hash of its `compartment-map.json`, which in turn holds the
//!   sha512 of each module. A vat's code is of this kind.
//!
//! Sources: `swing-store/src/bundleStore.js`, `@endo/check-bundle`. It does no I/O.

use std::collections::BTreeMap;
use std::io::Cursor;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

use crate::files::bounded;

/// More than this is unpacked of no bundle. A whole contract's bundle has some 2 MB.
const UNPACKED_BYTES_MAX: u64 = 128 << 20;

/// Why a bundle can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The bundle does not match its ID.
    #[error("it does not match its ID: {0}")]
    Mismatch(String),
    /// The ID or the content has an unknown form.
    #[error("it is unreadable: {0}")]
    Unreadable(String),
}

/// The bytes of a bundle under the ID that proves them.
#[derive(Debug, Clone)]
pub struct CodeBundle {
    /// `b0-` or `b1-` and a hash.
    pub id: String,
    /// As the kernel's database has them.
    pub bytes: Vec<u8>,
}

/// A proved bundle of kind `b0-`: what is evaluated in a blank worker before anything else.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NestedEvaluate {
    module_format: String,
    source: String,
}

/// The argument of `setBundle`, in the kernel's key order (`getBundle` in `bundleStore.js`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndoZip<'a> {
    module_format: &'static str,
    endo_zip_base64_sha512: &'a str,
    endo_zip_base64: String,
}

/// Proves a bundle, whichever its kind.
///
/// # Errors
/// When it does not match its ID.
pub fn prove(id: &str, bytes: &[u8]) -> Result<(), BundleError> {
    if id.starts_with("b1-") { prove_zip(id, bytes) } else { prove_text(id, bytes) }
}

/// The ID of a bundle that somebody made, with its bytes as a kernel's database has them. It may be given as it is there, or
/// as bundlers write it: JSON with an `endoZipBase64`.
///
/// # Errors
/// When it is neither, or its modules are not those that its map names.
pub fn identify(content: Vec<u8>) -> Result<(String, Vec<u8>), BundleError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outer {
        endo_zip_base64: Option<String>,
    }
    let unreadable = |error: String| BundleError::Unreadable(error);
    let zip = match serde_json::from_slice::<Outer>(&content) {
        Ok(Outer { endo_zip_base64: None }) => {
            let id = format!("b0-{}", hex(&Sha256::digest(&content)));
            program_of(&id, &content)?;
            return Ok((id, content));
        }
        Ok(Outer { endo_zip_base64: Some(text) }) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|error| unreadable(format!("its endoZipBase64: {error}")))?,
        Err(_) => content,
    };
    let mut archive =
        zip::ZipArchive::new(Cursor::new(&zip[..])).map_err(|error| unreadable(format!("no JSON, no zip: {error}")))?;
    let map = read_file(&mut archive, "compartment-map.json", &mut UNPACKED_BYTES_MAX.clone())?;
    let id = format!("b1-{}", hex(&Sha512::digest(map)));
    prove_zip(&id, &zip)?;
    Ok((id, zip))
}

/// Proves a `b0-` bundle and gives the program text that the worker evaluates.
///
/// # Errors
/// When it does not match its ID or is no such bundle.
pub fn program_of(id: &str, bytes: &[u8]) -> Result<String, BundleError> {
    prove_text(id, bytes)?;
    let unreadable = |error: serde_json::Error| BundleError::Unreadable(error.to_string());
    let bundle: NestedEvaluate = serde_json::from_slice(bytes).map_err(unreadable)?;
    if !matches!(bundle.module_format.as_str(), "nestedEvaluate" | "getExport") {
        return Err(BundleError::Unreadable(format!("its moduleFormat is {:?}", bundle.module_format)));
    }
    // `startXSnap.js` trims this text, which begins with a parenthesis and ends with one.
    Ok(format!("({}\n)()", bundle.source))
}

/// Proves a `b1-` bundle and gives it as the JSON that `setBundle` takes.
///
/// # Errors
/// When it does not match its ID or is no such bundle.
pub fn set_bundle_argument(id: &str, bytes: &[u8]) -> Result<String, BundleError> {
    prove_zip(id, bytes)?;
    let bundle = EndoZip {
        module_format: "endoZipBase64",
        endo_zip_base64_sha512: &id["b1-".len()..],
        endo_zip_base64: base64::engine::general_purpose::STANDARD.encode(bytes),
    };
    serde_json::to_string(&bundle).map_err(|error| BundleError::Unreadable(error.to_string()))
}

fn prove_text(id: &str, bytes: &[u8]) -> Result<(), BundleError> {
    let Some(recorded) = id.strip_prefix("b0-") else {
        return Err(BundleError::Unreadable("its ID begins with neither b0- nor b1-".to_owned()));
    };
    matches("its text", recorded, &hex(&Sha256::digest(bytes)))
}

fn matches(what: &str, recorded: &str, found: &str) -> Result<(), BundleError> {
    if recorded == found {
        Ok(())
    } else {
        Err(BundleError::Mismatch(format!("the hash of {what} is {found}, recorded is {recorded}")))
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Deserialize)]
struct CompartmentMap {
    compartments: BTreeMap<String, Compartment>,
}

#[derive(Deserialize)]
struct Compartment {
    location: String,
    #[serde(default)]
    modules: BTreeMap<String, Module>,
}

#[derive(Deserialize)]
struct Module {
    location: Option<String>,
    sha512: Option<String>,
}

fn prove_zip(id: &str, bytes: &[u8]) -> Result<(), BundleError> {
    let Some(recorded) = id.strip_prefix("b1-") else {
        return Err(BundleError::Unreadable("its ID does not begin with b1-".to_owned()));
    };
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes))
        .map_err(|error| BundleError::Mismatch(format!("it is not a zip: {error}")))?;
    let mut budget = UNPACKED_BYTES_MAX;
    let map_text = read_file(&mut zip, "compartment-map.json", &mut budget)?;
    matches("compartment-map.json", recorded, &hex(&Sha512::digest(&map_text)))?;
    let map: CompartmentMap =
        serde_json::from_slice(&map_text).map_err(|error| BundleError::Unreadable(error.to_string()))?;
    for compartment in map.compartments.values() {
        for module in compartment.modules.values() {
            // A module without a location is a link to another compartment's, which has one.
            let Some(location) = &module.location else { continue };
            let path = format!("{}/{location}", compartment.location);
            let Some(recorded) = &module.sha512 else {
                return Err(BundleError::Mismatch(format!("its map has no hash for {path}")));
            };
            let file = read_file(&mut zip, &path, &mut budget)?;
            matches(&path, recorded, &hex(&Sha512::digest(&file)))?;
        }
    }
    Ok(())
}

fn read_file(zip: &mut zip::ZipArchive<Cursor<&[u8]>>, path: &str, budget: &mut u64) -> Result<Vec<u8>, BundleError> {
    let damaged = |error: String| BundleError::Mismatch(format!("its file {path} is unreadable: {error}"));
    let file = zip.by_name(path).map_err(|error| damaged(error.to_string()))?;
    let mut bytes = Vec::new();
    bounded::read_up_to(*budget + 1, file, &mut bytes).map_err(|error| damaged(error.to_string()))?;
    match budget.checked_sub(bytes.len() as u64) {
        Some(rest) => *budget = rest,
        None => return Err(damaged(format!("with it the bundle has more than {UNPACKED_BYTES_MAX} bytes"))),
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (path, bytes) in files {
            zip.start_file(*path, options).expect("in memory");
            zip.write_all(bytes).expect("in memory");
        }
        zip.finish().expect("in memory").into_inner()
    }

    fn endo_bundle(module: &[u8]) -> (String, Vec<u8>) {
        let map = format!(
            r#"{{"compartments":{{"c":{{"location":"c-v1","modules":{{"./m":{{"location":"m.js","sha512":"{}"}},"x":{{"compartment":"d"}}}}}}}}}}"#,
            hex(&Sha512::digest(b"module"))
        );
        let id = format!("b1-{}", hex(&Sha512::digest(map.as_bytes())));
        (id, zip_of(&[("compartment-map.json", map.as_bytes()), ("c-v1/m.js", module)]))
    }

    #[test]
    fn text_bundles() {
        let text = br#"{"moduleFormat":"nestedEvaluate","source":"() => 1","sourceMap":""}"#;
        let id = format!("b0-{}", hex(&Sha256::digest(text)));
        assert_eq!(program_of(&id, text).expect("proved"), "(() => 1\n)()");
        assert!(matches!(program_of(&id, b"{}"), Err(BundleError::Mismatch(_))));
        assert!(matches!(program_of("b9-00", text), Err(BundleError::Unreadable(_))));
    }

    #[test]
    fn zip_bundles() {
        let (id, zip) = endo_bundle(b"module");
        let argument = set_bundle_argument(&id, &zip).expect("proved");
        assert!(argument.starts_with(&format!(
            r#"{{"moduleFormat":"endoZipBase64","endoZipBase64Sha512":"{}","endoZipBase64":"UEsD"#,
            &id[3..]
        )));
    }

    #[test]
    fn a_bundle_tells_its_id() {
        let (id, zip) = endo_bundle(b"module");
        assert_eq!(identify(zip.clone()).expect("a zip"), (id.clone(), zip.clone()));
        let outer = format!(
            r#"{{"moduleFormat":"endoZipBase64","endoZipBase64":"{}"}}"#,
            base64::engine::general_purpose::STANDARD.encode(&zip)
        );
        assert_eq!(identify(outer.into_bytes()).expect("JSON around it").0, id);
        let text = br#"{"moduleFormat":"getExport","source":"() => 1"}"#;
        assert!(identify(text.to_vec()).expect("text").0.starts_with("b0-"));
        for bad in [&b""[..], b"{}", b"not a zip", &endo_bundle(b"Module").1] {
            identify(bad.to_vec()).expect_err("no bundle");
        }
    }

    #[test]
    fn a_changed_module_is_noticed_under_an_unchanged_map() {
        let (id, zip) = endo_bundle(b"Module");
        let error = prove(&id, &zip).expect_err("changed");
        assert!(matches!(&error, BundleError::Mismatch(what) if what.contains("c-v1/m.js")), "{error}");
    }

    #[test]
    fn no_cut_or_flip_passes_or_panics() {
        let (id, zip) = endo_bundle(b"module");
        for at in 0..zip.len() {
            let _ = prove(&id, &zip[..at]);
            let mut flipped = zip.clone();
            flipped[at] ^= 0x20;
            let _ = prove(&id, &flipped);
        }
    }
}
