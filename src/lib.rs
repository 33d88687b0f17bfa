//! Replays recorded SwingSet transcript spans in a real xsnap worker and compares everything that comes out with the record.
//!
//! The modules, in the order of the data:
//!
//! 1. [`transcript`] has the shapes of items; [`kernel_db`] opens and reads the node's database without harming the node.
//! 2. [`record`] gives the items, images and bundles of a span, each proved by its hash: from the database, from copies of
//!    ours, from the node's archives, from its flight recorder.
//! 3. [`history`] finds rows that contradict one another; [`plan`] decides what each span starts from.
//! 4. [`span`] checks the order of a span's items; [`replay`] replays them in a worker that [`sandbox`] contains; [`judge`]
//!    repeats what differs; [`verdict`] is the outcome.
//! 5. [`verify`] takes one span through these modules, [`schedule`] many spans on several threads, [`report`] prints the outcomes.
//! 6. `audit` checks the kernel's responses without a worker; [`evidence`] keeps a divergence; [`heap`] compares two heap
//!    images whose hashes differ; [`forensics`] explains.
//! 7. `daemon` does all of this beside a live node, with `store` as its memory and `tally` for its counters; [`cli`] is the program.
//!
//! `ARCHITECTURE.md` has the invariants of each module. `examples/verify.rs` verifies a database with this library.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

/// The version, with the commit that the program was built from.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILT_FROM_COMMIT"), ")");
/// The commit that the program was built from: a short hash, with `-dirty` if a file was changed; `dev` in a debug build.
pub(crate) const COMMIT: &str = env!("BUILT_FROM_COMMIT");

// What all modules use, without a word about spans.
mod files;
mod log;
mod units;
mod visible;
mod words;

pub mod transcript;

pub mod kernel_db;

pub mod record;

pub mod history;
pub mod plan;

pub mod span;

pub mod sandbox;

pub mod replay;

pub mod judge;
pub mod verdict;

pub mod verify;

pub mod schedule;

pub mod report;

mod audit;
pub mod evidence;
pub mod heap;

pub mod forensics;

mod tally;

mod store;

mod daemon;

pub mod cli;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
