//! The names that evidence has: one table, for folders and for packed ones.
//!
//! Owns the names and the sizes that files of evidence may have. It must never open anything.

use crate::record::image::IMAGE_BYTES_MAX;
use crate::transcript::{Items, VatId};

/// The ending of compressed files.
pub(super) const ENDING: &str = ".zst";
/// More files than this are in no folder.
pub(super) const FILES_MAX: usize = 1_024;
/// No folder has more bytes in its files, as they are stored.
pub(super) const STORED_BYTES_MAX: u64 = 16 << 30;
/// The longest name: `<id>/bundles/b1-` and 128 digits, with an ID of two numbers of 20 digits.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// The directories within a folder.
pub(super) const DIRECTORIES: [&str; 2] = ["bundles", "bisect"];
/// A divergence is repeated a hundred times at most, so it has no more outcomes.
pub(super) const OUTCOMES_MAX: usize = 101;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The items' own limit, and an end for each line.
const RECORDED_BYTES_MAX: u64 = Items::BYTES_MAX + 32 * MIB;

/// How a name is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// As it is.
    Plain(&'static str),
    /// Of an outcome: a beginning and an ending, with `-2` and so on between them for the second and further ones.
    Outcome(&'static str, &'static str),
    /// `bundles/` and the ID of a bundle.
    Bundle,
    /// What `bisect` left: `bisect/`, a position and which worker's heap it is.
    Probe,
}

/// A sort of file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    pattern: Pattern,
    /// Whether it may be compressed.
    is_compressible: bool,
    /// Whether the manifest lists it: what the manifest does not list can change, and is not hashed.
    pub(super) is_listed: bool,
    /// Of its content, uncompressed.
    pub(super) bytes_max: u64,
}

const fn form(pattern: Pattern, bytes_max: u64) -> Form {
    Form { pattern, is_compressible: true, is_listed: true, bytes_max }
}

const fn small(name: &'static str, bytes_max: u64) -> Form {
    Form { pattern: Pattern::Plain(name), is_compressible: false, is_listed: false, bytes_max }
}

/// All of them.
static FORMS: [Form; 12] = [
    small("manifest.json", 16 * MIB),
    small("seen.json", 64 * KIB),
    small("workers.json", MIB),
    form(Pattern::Plain("README.txt"), MIB),
    form(Pattern::Plain("recorded.jsonl"), RECORDED_BYTES_MAX),
    // What is kept of a worker that goes astray has a limit of its own, 64 MiB, to which each line adds a little.
    form(Pattern::Outcome("replayed", ".jsonl"), RECORDED_BYTES_MAX + 160 * MIB),
    form(Pattern::Outcome("console", ".txt"), 2 * MIB),
    form(Pattern::Outcome("printed", ".txt"), MIB),
    form(Pattern::Plain("base.xss"), IMAGE_BYTES_MAX),
    form(Pattern::Plain("recorded.xss"), IMAGE_BYTES_MAX),
    form(Pattern::Outcome("replayed", ".xss"), IMAGE_BYTES_MAX),
    form(Pattern::Bundle, 128 * MIB),
];
static PROBE: Form =
    Form { pattern: Pattern::Probe, is_compressible: true, is_listed: false, bytes_max: IMAGE_BYTES_MAX };

/// What a file of a folder is, by the name under which it is stored; `None` for a name that evidence does not have.
pub(super) fn form_of(stored: &str) -> Option<&'static Form> {
    let inner = stored.strip_suffix(ENDING);
    FORMS.iter().chain([&PROBE]).find(|form| match inner {
        Some(inner) => form.is_compressible && form.pattern.is_of(inner),
        None => form.pattern.is_of(stored),
    })
}

/// Whether it is the file of an outcome, without the ending of a compressed one.
pub(super) fn is_replayed(name: &str) -> bool {
    Pattern::Outcome("replayed", ".jsonl").is_of(name)
}

impl Form {
    /// The most bytes that a file takes which is stored under such a name: what can't be compressed becomes a little larger.
    pub(super) fn stored_max(&self) -> u64 {
        self.bytes_max + self.bytes_max / 128 + 4 * KIB
    }

    pub(super) fn is_probe(&self) -> bool {
        self.pattern == Pattern::Probe
    }
}

impl Pattern {
    fn is_of(self, name: &str) -> bool {
        match self {
            Self::Plain(plain) => name == plain,
            Self::Outcome(begin, end) => {
                let number = name.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
                number.is_some_and(|number| number.is_empty() || number.strip_prefix('-').is_some_and(is_number))
            }
            Self::Bundle => name.strip_prefix("bundles/").is_some_and(is_bundle_id),
            Self::Probe => {
                let probe = name.strip_prefix("bisect/").and_then(|rest| rest.strip_suffix(".xss"));
                let position =
                    probe.and_then(|probe| probe.strip_suffix("-first").or_else(|| probe.strip_suffix("-second")));
                position.is_some_and(is_position)
            }
        }
    }
}

/// The number of a further outcome.
fn is_number(text: &str) -> bool {
    is_position(text) && text.parse().is_ok_and(|number: usize| (2..=OUTCOMES_MAX).contains(&number))
}

/// A number as it is written: no sign, no zero before it.
fn is_position(text: &str) -> bool {
    text.parse::<u64>().is_ok_and(|number| number.to_string() == text)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether it is the ID of a bundle, as a kernel makes them.
pub(super) fn is_bundle_id(id: &str) -> bool {
    id.strip_prefix("b0-").is_some_and(|hash| is_hex(hash, 64))
        || id.strip_prefix("b1-").is_some_and(|hash| is_hex(hash, 128))
}

/// Whether it is a folder's name as the keeper gives it: `<vat>.<start>.<end>-<hash>`, with `.<signature>` behind it for a second
/// divergence of the same span.
pub(super) fn is_id(name: &str) -> bool {
    let Some((span, hash)) = name.split_once('-') else { return false };
    let bounds: Vec<&str> = span.split('.').collect();
    let [vat, start, end] = bounds[..] else { return false };
    let is_hash = match hash.split_once('.') {
        Some((hash, signature)) => is_hex(hash, 8) && is_hex(signature, 8),
        None => is_hex(hash, 8),
    };
    VatId::parse(vat).is_some() && is_position(start) && is_position(end) && is_hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_the_table_or_none() {
        let (b0, b1) = ("ab".repeat(32), "cd".repeat(64));
        for name in [
            "manifest.json",
            "seen.json",
            "workers.json",
            "README.txt",
            "README.txt.zst",
            "recorded.jsonl",
            "recorded.jsonl.zst",
            "replayed.jsonl.zst",
            "replayed-2.jsonl.zst",
            "replayed-101.jsonl.zst",
            "console.txt",
            "console-3.txt",
            "printed.txt",
            "printed-3.txt.zst",
            "base.xss.zst",
            "recorded.xss.zst",
            "replayed.xss.zst",
            "replayed-2.xss.zst",
            "base.xss",
            "bisect/15-first.xss.zst",
            "bisect/15-second.xss.zst",
            &format!("bundles/b0-{b0}"),
            &format!("bundles/b1-{b1}.zst"),
        ] {
            assert!(form_of(name).is_some(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "/",
            "manifest.json.zst",
            "seen.json.zst",
            "Manifest.json",
            "manifest.json/",
            "manifest.json\0",
            "../manifest.json",
            "/manifest.json",
            "./manifest.json",
            "replayed-1.jsonl",
            "replayed-02.jsonl",
            "replayed-102.jsonl",
            "replayed-.jsonl",
            "replayed-+2.jsonl",
            "base.xss.zst.zst",
            "base.xss.gz",
            "bundles",
            "bundles/",
            "bundles/b0-00",
            "bundles/../x",
            &format!("bundles/b0-{b1}"),
            &format!("bundles/b0-{}", b0.to_uppercase()),
            "bisect/first.xss.zst",
            "bisect/../15-first.xss",
            "node_modules/x",
            "xsnap-worker",
            ".bashrc",
            "seen.new",
            "/dev/zero",
        ] {
            assert!(form_of(name).is_none(), "{name}");
        }
        assert!(FORMS.iter().all(|form| form.stored_max() < STORED_BYTES_MAX));
    }

    #[test]
    fn a_folder_has_the_name_of_its_span() {
        for id in ["v1.6.11-be2d8c99", "v15.0.1-0a2143e8.12345678", "v999.0.18446744073709551615-00000000"] {
            assert!(is_id(id), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            "node_modules",
            ".ssh",
            "v1",
            "v1.6.11",
            "v1.6.11-be2d8c9",
            "v1.6.11-BE2D8C99",
            "v1.6.11-be2d8c99.",
            "v1.6.11-be2d8c99.1",
            "v1.6.11-be2d8c99/x",
            "x1.6.11-be2d8c99",
            "v1.06.11-be2d8c99",
            "v1.6-be2d8c99",
            "../v1.6.11-be2d8c99",
            "v1.6.11-be2d8c99\n",
        ] {
            assert!(!is_id(id), "{id}");
        }
    }
}
