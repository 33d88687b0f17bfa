//! Decoders: code bundles, heap images in gzip, archived items, image files in gzip or zstd.

use std::io::Read;

use flate2::read::GzDecoder;

use super::MIB;
use super::choices::Choices;
use crate::forensics::source::read_file;
use crate::record::archives::read_items;
use crate::record::bundle::{identify, program_of, prove, set_bundle_argument};
use crate::record::image::{Image, ImageError};
use crate::transcript::{SpanId, VatId, sha256};

/// What is known as a bundle is proved by its ID, and is given to a worker in one of the two ways.
pub(super) fn bundle(content: &[u8]) {
    let (id, bytes) = match identify(content.to_vec()) {
        Ok(identified) => identified,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    prove(&id, &bytes).expect("it was proved when it was identified");
    match id.strip_prefix("b1-") {
        Some(hash) => {
            let argument = set_bundle_argument(&id, &bytes).expect("a proved zip");
            assert!(argument.contains(hash));
            assert_eq!(identify(argument.into_bytes()).expect("as bundlers write it"), (id, bytes));
        }
        None => {
            let program = program_of(&id, &bytes).expect("a proved text");
            assert!(program.starts_with('(') && program.ends_with("\n)()"));
        }
    }
}

/// Both ways to inflate an image give the same image or the same refusal, and never more than the size that is recorded.
pub(super) fn gzip(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (choice, other_size) = (choices.byte(), u64::from(choices.word() % (2 << 20)));
    let gzip = choices.rest();
    let mut content = Vec::new();
    let is_whole = GzDecoder::new(gzip).take(16 * MIB as u64).read_to_end(&mut content).is_ok();
    let recorded_bytes = match choice % 4 {
        0 => None,
        1 => Some(content.len() as u64),
        2 => Some(other_size),
        _ => Some(u64::MAX),
    };
    let recorded = if choice < 128 { sha256(&content) } else { sha256(b"another image") };
    let summary = |image: Result<Image, ImageError>| match image {
        Ok(image) => {
            assert_eq!((image.hash(), image.bytes()), (recorded, content.len() as u64));
            assert!(image.bytes() <= recorded_bytes.unwrap_or(u64::MAX));
            Ok(image.hash())
        }
        Err(error) => Err(error.to_string()),
    };
    let streamed = summary(Image::from_gzip(gzip, recorded, recorded_bytes));
    let at_once = summary(Image::from_gzip_in_memory(gzip, recorded, recorded_bytes));
    assert_eq!(streamed, at_once);
    let is_recorded = choice < 128 && recorded_bytes.is_none_or(|bytes| content.len() as u64 <= bytes);
    if content.len() < 16 * MIB {
        assert_eq!(streamed.is_ok(), is_whole && is_recorded, "{streamed:?}");
    }
}

/// An archived span has at most as many items as the span, and their texts are the file's lines.
pub(super) fn archive(input: &[u8]) {
    let mut choices = Choices::new(input);
    let end = choices.edge(10);
    let span = SpanId { vat: VatId::new("v1"), start: choices.edge(10).min(end), end };
    let gzip = choices.rest();
    let items = match read_items(gzip, &span) {
        Ok(items) => items,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(items.len() as u64 <= span.end - span.start);
    let lines: Vec<u8> = items.iter().flat_map(|item| [item, b"\n"].concat()).collect();
    let mut content = Vec::new();
    GzDecoder::new(gzip).read_to_end(&mut content).expect("it was read before");
    assert_eq!(lines, content);
}

/// What is read of an image file begins as an image does, and is no longer than its head says and a byte more.
pub(super) fn image(file: &[u8]) {
    match read_file("the input", file) {
        Ok(image) => {
            let size = image.first_chunk::<4>().map(|size| u32::from_be_bytes(*size)).expect("a head");
            assert_eq!(image.get(4..8), Some(&b"XS_M"[..]));
            assert!(image.len() as u64 <= u64::from(size) + 9);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
