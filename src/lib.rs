//! Replays recorded SwingSet transcript spans in a real xsnap worker and compares what comes out with what was recorded.
//!
//! The modules stand in the order in which data takes its way:
//!
//! 1. [`transcript`] has the shapes of items; [`kernel_db`] finds and reads the node's database without harming the node.
//! 2. [`record`] gives the items, images and bundles of a span, from the database, from copies of ours or from the node's archives,
//!    each with the proof that it is what was recorded.
//! 3. [`history`] says where a vat's rows contradict one another; [`plan`] decides what can be verified, and from what each span starts.
//! 4. [`span`] makes one span ready; [`replay`] replays it in the sandbox that [`sandbox`] makes; [`judge`] repeats what differs.
//! 5. [`schedule`] walks spans this way, on as many threads as are allowed; [`verdict`] is the outcome, [`report`] prints it.
//! 6. [`evidence`] keeps a divergence, [`forensics`] explains it, and [`heap`] compares two images whose hashes differ.
//!    [`audit`] checks what the kernel answered, without a worker.
//! 7. [`daemon`] does all of that beside a live node, with [`store`] as its memory. [`cli`] is the program.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

/// The version, with the commit that the program was built from.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILT_FROM_COMMIT"), ")");
/// The commit that the program was built from: a short hash, with `-dirty` if a file was changed; `dev` in a debug build.
pub(crate) const COMMIT: &str = env!("BUILT_FROM_COMMIT");

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

pub mod judge;
pub mod replay;
pub mod sandbox;
pub mod span;

pub mod report;
pub mod schedule;
pub mod verdict;
pub mod verify;

pub mod audit;
pub mod evidence;
pub mod forensics;
pub mod heap;

pub mod cli;
pub mod daemon;
pub mod store;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
