//! Replays recorded SwingSet transcript spans in a real xsnap worker and compares what comes out with what was recorded.
//!
//! The modules stand in the order in which data takes its way:
//!
//! 1. [`kernel_db`] finds and reads the node's database without harming the node; [`archive`] its archive directories.
//! 2. [`transcript`], [`bundle`] and [`image`] are what is in them, each with the proof that it is what was recorded.
//! 3. [`history`] says where a vat's rows contradict one another, [`plan`] decides what can be verified, and from what each span starts.
//! 4. [`span`] makes one span ready, [`replay`] replays it in the cage that [`sandbox`] makes, [`schedule`] says on which
//!    thread.
//! 5. [`judge`] repeats what differs; [`verdict`] is what can be said of it, [`report`] how it is told.
//! 6. [`evidence`] is what a divergence leaves, [`forensics`] what can be said of that, and [`heap`] what differs in two
//!    images whose hashes differ.
//!
//! [`regular`] opens files for all of them. [`cli`] is the program around them. What it prints goes through [`visible`], as much of it
//! comes from outside; what it writes is kept from others by [`own`] and [`temp`].

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod archive;
pub mod audit;
mod bounded;
pub mod bundle;
pub mod capture;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod evidence;
pub mod forensics;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod heap;
pub mod history;
pub mod http;
pub mod image;
pub mod judge;
pub mod kernel_db;
mod log;
pub mod metrics;
pub mod neighbour;
pub mod own;
pub mod plan;
pub mod publish;
pub mod regular;
pub mod replay;
pub mod report;
pub mod sandbox;
pub mod schedule;
mod seal;
pub mod span;
pub mod store;
pub mod temp;
pub mod transcript;
pub mod verdict;
pub mod visible;
