//! What must hold of each parser of outside data, for any bytes at all.
//!
//! A [`Target`] is a function from bytes: it parses them and checks the result, and panics where something does not hold. `fuzz/` runs the
//! targets under libFuzzer, which makes up the bytes and watches memory and time (`scripts/fuzz.sh`); the unit tests run them
//! on the inputs in `fuzz/corpus`, which has every input that once broke a parser.
//!
//! Owns the properties and the memory that each target may hold. It is compiled for tests and with the feature `fuzzing` only, and the
//! program must never depend on it.

#![expect(clippy::expect_used, reason = "a property that does not hold is a panic")]

mod choices;
mod evidence;
mod forge;
mod heap;
mod packed;
mod recorder;
mod text;

/// A parser with the properties that are checked of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder below `fuzz/corpus`.
    pub name: &'static str,
    /// Parses the bytes; panics where a property does not hold.
    pub check: fn(&[u8]),
    /// How much memory it may hold meanwhile.
    pub memory: Memory,
}

/// Memory that a target may hold for an input, the input not counted.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes for any input, however short.
    base: usize,
    /// Bytes for each byte of the input.
    per_byte: usize,
    /// Bytes for an input of any length: the limit that the parser names, and 64 MiB.
    max: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

impl Memory {
    /// Bytes that may be held for an input of this length.
    #[must_use]
    pub fn for_input(&self, bytes: usize) -> usize {
        self.base.saturating_add(self.per_byte.saturating_mul(bytes)).min(self.max)
    }
}

/// All targets.
pub const TARGETS: [Target; 14] = [
    Target { name: "item", check: text::item, memory: parsed(64) },
    Target { name: "canonical", check: text::canonical, memory: parsed(256) },
    Target { name: "options", check: text::options, memory: parsed(64) },
    Target { name: "netstring", check: text::netstring, memory: parsed(64) },
    Target { name: "message", check: text::message, memory: parsed(64) },
    Target { name: "replayed", check: text::replayed, memory: parsed(64) },
    Target { name: "bundle", check: packed::bundle, memory: parsed(16) },
    Target { name: "gzip", check: packed::gzip, memory: unpacked(1, 4 * DEFLATE, 2 * GIB) },
    Target { name: "archive", check: packed::archive, memory: unpacked(1, 8 * DEFLATE, 512 * MIB) },
    // A frame of zstd names a window of up to 8 MiB before its bytes arrive, and 4 bytes are 128 KiB of one letter.
    Target { name: "image", check: packed::image, memory: unpacked(24, 64 * KIB, 2 * GIB) },
    Target {
        name: "recorder",
        check: recorder::recorder,
        memory: Memory { base: 2 * MIB, per_byte: 64, max: 192 * MIB },
    },
    Target { name: "tar", check: evidence::tar, memory: Memory { base: 12 * MIB, per_byte: 64, max: 76 * MIB } },
    Target {
        name: "evidence",
        check: evidence::evidence,
        memory: Memory { base: 16 * MIB, per_byte: 1024, max: 1088 * MIB },
    },
    Target { name: "heap", check: heap::heap, memory: Memory { base: 32 * MIB, per_byte: 24, max: 3 * GIB } },
];

/// What one byte of deflate can become.
const DEFLATE: usize = 1032;

/// Of a parser whose result is a small multiple of its input.
const fn parsed(per_byte: usize) -> Memory {
    Memory { base: MIB, per_byte, max: 192 * MIB }
}

/// Of a decoder that names a limit of its output.
const fn unpacked(base_mib: usize, per_byte: usize, limit: usize) -> Memory {
    Memory { base: base_mib * MIB, per_byte, max: limit + 64 * MIB }
}

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    fn names_in(directory: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(directory).expect("the corpus is in the repository");
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect()
    }

    #[test]
    fn every_input_of_the_corpus_keeps_its_properties() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        assert_eq!(names_in(&corpus), names, "one folder for each target");
        for target in &TARGETS {
            let inputs = names_in(&corpus.join(target.name));
            assert!(!inputs.is_empty(), "{} has no input", target.name);
            for input in inputs {
                println!("{}/{input}", target.name);
                (target.check)(&fs::read(corpus.join(target.name).join(input)).expect("readable"));
            }
        }
    }
}
