//! `spanwatch bisect`: the delivery after which the heaps of two workers differ.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::args::{DbArgs, Format, WorkerArgs};
use super::replay::tell_workers;
use super::verify::{self, VerifyArgs};
use super::{CliError, Exit};
use crate::evidence::Case;
use crate::files::publish;
use crate::forensics::bisect::{Bisection, bisect};
use crate::forensics::readable::readable;
use crate::log::Wishes;
use crate::record::image::Image;
use crate::report::json;
use crate::visible;
use crate::words::plural;

/// How images are stored beside the folder's own.
const LEVEL: i32 = 3;

#[derive(Debug, Args)]
pub(super) struct BisectArgs {
    /// Evidence: a folder or a packed file
    #[arg(value_name = "EVIDENCE", required_unless_present = "chain")]
    evidence: Option<PathBuf>,
    #[command(flatten)]
    worker: WorkerArgs,
    /// Compare after each delivery instead of halving: heaps that differ can become equal again
    #[arg(long, requires = "evidence")]
    linear: bool,
    /// Number of times that the second worker makes its first differing heap again, to tell whether it is reproducible
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// Directory for both heaps [default: "bisect" in the folder]
    #[arg(long, short, value_name = "DIR", requires = "evidence")]
    out: Option<PathBuf>,
    /// Old form of `verify DB --vat VAT --chain`
    #[arg(long, value_name = "DB", conflicts_with = "evidence", requires = "vat", hide = true)]
    chain: Option<PathBuf>,
    /// The vat of --chain
    #[arg(long, value_name = "ID|NAME", requires = "chain", hide = true)]
    vat: Option<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct BisectionLine<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    found: &'a Bisection,
    images: Option<&'a [PathBuf; 2]>,
}

pub(super) fn run(args: BisectArgs, wishes: Wishes) -> Result<Exit, CliError> {
    if let Some(evidence) = &args.evidence {
        return workers_apart(&args, evidence);
    }
    let (Some(db), Some(vat)) = (args.chain, args.vat) else { return Ok(Exit::CouldNotRun) };
    let name = db.display();
    tracing::warn!("bisect --chain is deprecated; write `spanwatch verify {name} --vat {vat} --chain`");
    verify::run(VerifyArgs::chain(DbArgs::of(&db, args.format), vat, args.worker), wishes)
}

fn workers_apart(args: &BisectArgs, evidence: &Path) -> Result<Exit, CliError> {
    let case = Case::open(evidence)?;
    let programs = args.worker.find_for(&case)?;
    let [good, bad] = &programs[..] else {
        return Err(CliError::NotTwoWorkers { count: programs.len() });
    };
    let limits = args.worker.limits_for(&case)?;
    let found = bisect(&case, [good, bad], &limits, args.linear, args.repeats)?;
    let dir = args.out.clone().unwrap_or_else(|| match evidence.is_dir() {
        true => evidence.join("bisect"),
        false => PathBuf::from(format!("{}-bisect", case.manifest.id)),
    });
    let mut files = None;
    if let (Some(position), Some([one, other])) = (found.first, &found.images) {
        let names = ["first", "second"].map(|which| dir.join(format!("{position}-{which}.xss.zst")));
        fs::create_dir_all(&dir)
            .and_then(|()| keep(one, &names[0]))
            .and_then(|()| keep(other, &names[1]))
            .map_err(|source| CliError::Keep { what: "the heaps", path: dir.clone(), source })?;
        files = Some(names);
    }
    let mut out = visible::stdout();
    if args.format == Format::Text {
        tell_workers(&case, &programs, args.format, &mut out)?;
    }
    match args.format {
        Format::Json => {
            let line = BisectionLine { r#type: "bisection", found: &found, images: files.as_ref() };
            writeln!(out, "{}", json::line(&line))?;
        }
        Format::Text => {
            let probes = plural(found.probes.len() as u64, "point", "points");
            let deliveries = plural(found.deliveries as u64, "delivery", "deliveries");
            let replays = plural(u64::from(found.replays), "replay", "replays");
            match found.first {
                None => writeln!(out, "the heaps of both workers are equal at the end of the span")?,
                Some(position) if position == case.id().start => {
                    writeln!(out, "the heaps differ before the first delivery, from what each worker starts with")?;
                }
                Some(position) => {
                    let items = case.items()?;
                    let item = items.iter().find(|(at, _)| *at == position);
                    let what = item.map(|(_, item)| readable(item.delivery)).unwrap_or_default();
                    writeln!(out, "the heaps differ first after the delivery at position {position}: {what}")?;
                }
            }
            writeln!(out, "  checked {probes} of {deliveries}, in {replays}")?;
            if found.is_deterministic == Some(false) {
                writeln!(
                    out,
                    "  but another replay with the second worker gave another heap there: its heap is not reproducible"
                )?;
            }
            if let Some([one, other]) = &files {
                writeln!(out, "  kept: {}", one.display())?;
                writeln!(out, "        {}", other.display())?;
                writeln!(out, "  next: spanwatch snapshot diff {} {}", one.display(), other.display())?;
            }
        }
    }
    Ok(if found.first.is_some() { Exit::Diverged } else { Exit::Verified })
}

fn keep(image: &Image, path: &Path) -> io::Result<()> {
    publish::replace(path, |file| {
        let mut to = zstd::Encoder::new(file, LEVEL)?;
        image.copy_to(&mut to)?;
        to.finish().map(drop)
    })
}
