//! Verifies all closed spans of a kernel's database with a worker, and prints a line for each.
//!
//! ```sh
//! cargo run --example verify -- ~/.agoric/data/agoric path/to/xsnap-worker
//! ```
//!
//! The database is opened read-only, also while a node writes it. The command `spanwatch verify` adds threads, archives,
//! evidence and JSON.

use std::error::Error;
use std::path::PathBuf;

use spanwatch::judge::{Repeats, SharedReplays};
use spanwatch::kernel_db::KernelDb;
use spanwatch::plan::{Selection, Survey, plan};
use spanwatch::record::{Archives, Record};
use spanwatch::replay::{Limits, Named, WorkerProgram};
use spanwatch::report::text;
use spanwatch::sandbox::Settings;
use spanwatch::verify::{Chain, Context};

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [database, worker] = &paths[..] else { return Err("usage: verify DATABASE WORKER".into()) };

    // The sources of items and images: only the database, without the node's archive directories.
    let record = Record::new(KernelDb::locate(database)?, Archives::default());
    // The rows of all vats, and the span or image that each span starts from. The spans of a unit follow one another.
    let survey = Survey::read(&record.db, &[])?;
    let units = plan(&survey, &record, &Selection::default());

    // The worker is tried in its sandbox before the first replay.
    let limits = Limits::default();
    let named = Named::by_option(std::slice::from_ref(worker));
    let programs = WorkerProgram::find(&named, &Settings::default(), &limits)?;
    // A difference is replayed three times more, to tell one that is reproducible.
    let repeats = Repeats { times: 3, shared: &SharedReplays::default() };
    let context =
        Context { record: &record, survey: &survey, programs: &programs, limits: &limits, repeats, evidence: None };

    for unit in &units {
        // Each span starts from the image that the span before left, if that image has the recorded hash.
        let mut chain = Chain::new(&context, 0);
        for planned in unit {
            println!("{}", text::span(&chain.verify(planned), programs.len()));
        }
    }
    Ok(())
}
