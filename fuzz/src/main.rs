//! Runs the fuzz target that `SPANWATCH_FUZZ_TARGET` names under libFuzzer. `scripts/fuzz.sh` starts it.
//!
//! The memory limit of an input covers the whole process, C libraries included ([`memory`]).

#![no_main]

mod memory;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use spanwatch::fuzz::{TARGETS, Target, target};

static TARGET: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("SPANWATCH_FUZZ_TARGET").unwrap_or_default();
    *target(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("SPANWATCH_FUZZ_TARGET is {name:?}, and the targets are {}", names.join(", "));
        std::process::exit(2)
    })
}

fuzz_target!(|input: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let target = chosen();
        // One-time initialization of the target is not counted.
        (target.check)(&[]);
        target
    });
    memory::watched(target.memory.for_input(input.len()), input.len(), || (target.check)(input));
});
