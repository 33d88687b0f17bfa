//! `spanwatch bisect`: the delivery after which the heaps of two workers differ.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::args::{DbArgs, Format, WorkerArgs};
use super::replay::tell_workers;
use super::{CliError, Exit};
use crate::evidence::Case;
use crate::files::publish;
use crate::forensics::bisect::{Bisection, bisect};
use crate::forensics::readable::readable;
use crate::judge::{Court, House};
use crate::plan::{Base, Begins, PlannedSpan, Selection, plan};
use crate::record::captures::Captures;
use crate::record::image::Image;
use crate::report::{Totals, json, text};
use crate::schedule::{self, Context, Handover};
use crate::transcript::Position;
use crate::verdict::Verdict;
use crate::visible;
use crate::words::plural;

/// How images are stored beside the folder's own.
const LEVEL: i32 = 3;

#[derive(Debug, Args)]
pub(super) struct BisectArgs {
    /// The evidence: a folder, or a file that was packed from one
    #[arg(value_name = "EVIDENCE", required_unless_present = "chain")]
    evidence: Option<PathBuf>,
    #[command(flatten)]
    worker: WorkerArgs,
    /// Look after each delivery instead of halving: heaps that differ can become the same again
    #[arg(long, requires = "evidence")]
    linear: bool,
    /// Where both heaps are written [default: the directory "bisect" in the folder]
    #[arg(long, short, value_name = "DIR", requires = "evidence")]
    out: Option<PathBuf>,
    /// Against the record instead: replay a vat's spans in this database in a chain, each from the image that the replay of
    /// the one before gave, and say which one differs first
    #[arg(long, value_name = "DB", conflicts_with = "evidence", requires = "vat")]
    chain: Option<PathBuf>,
    /// The vat, by ID or name
    #[arg(long, value_name = "ID|NAME", requires = "chain")]
    vat: Option<String>,
    /// How results are printed
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

pub(super) fn run(args: &BisectArgs) -> Result<Exit, CliError> {
    match (&args.evidence, &args.chain, &args.vat) {
        (Some(evidence), _, _) => workers_apart(args, evidence),
        (None, Some(db), Some(vat)) => apart_from_the_record(args, db, vat),
        (None, _, _) => Ok(Exit::CouldNotRun),
    }
}

fn workers_apart(args: &BisectArgs, evidence: &Path) -> Result<Exit, CliError> {
    let case = Case::open(evidence)?;
    let programs = args.worker.find_for(&case)?;
    let [good, bad] = &programs[..] else {
        return Err(CliError::NotTwoWorkers { count: programs.len() });
    };
    let limits = args.worker.limits_for(&case)?;
    let found = bisect(&case, [good, bad], &limits, args.linear)?;
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
                None => writeln!(out, "the heaps of both workers are the same at the end of the span")?,
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
            writeln!(out, "  {probes} looked at among {deliveries}, in {replays}")?;
            if found.is_deterministic == Some(false) {
                writeln!(
                    out,
                    "  but the second worker gave another heap there when it was run again: its heap is not always the same"
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

#[derive(Debug, Serialize)]
struct ChainLine {
    r#type: &'static str,
    spans: usize,
    /// The bounds of the first span that is not as recorded.
    first: Option<(Position, Position)>,
}

/// Replays a vat's spans in a chain up to the first one that is not as recorded.
fn apart_from_the_record(args: &BisectArgs, db: &Path, vat: &str) -> Result<Exit, CliError> {
    let db_args = DbArgs::of(db, args.format);
    let (db, archives, survey) = db_args.open(&[vat.to_owned()])?;
    let selection = Selection { vats: vec![vat.to_owned()], ..Selection::default() };
    if let Some(unknown) = selection.unknown_vats(&survey).first() {
        return Err(CliError::UnknownVat { unknown: (*unknown).to_owned() });
    }
    let programs = args.worker.find(&db)?;
    let captures = Captures::default();
    let mut spans: Vec<PlannedSpan> =
        plan(&survey, &archives, &captures, &selection).into_iter().flatten().filter(|span| span.is_asked).collect();
    spans.sort_by_key(|planned| planned.row.id.start);
    for at in 1..spans.len() {
        let follows = spans[at - 1].row.id.end == spans[at].row.id.start;
        if follows && spans[at].begins == Begins::Load {
            spans[at].base = Base::Chained;
        }
    }
    let limits = args.worker.limits();
    let house = House::default();
    let context = Context {
        db: &db,
        archives: &archives,
        captures: &captures,
        survey: &survey,
        programs: &programs,
        limits: &limits,
        court: Court { repeats: 1, house: &house },
        evidence: None,
    };
    let mut out = visible::stdout();
    let mut totals = Totals::default();
    let mut handover: Option<Handover> = None;
    let mut first = None;
    for planned in &spans {
        let (report, leaves) = schedule::run_span(&context, planned, 0, handover.as_ref());
        handover = Some(leaves);
        totals.add(&report);
        match args.format {
            Format::Text => out.write_lines(&text::span(&report, 1))?,
            Format::Json => writeln!(out, "{}", json::span(&report))?,
        }
        if matches!(report.verdict, Verdict::Diverged(_)) {
            first = Some((report.id.start, report.id.end));
            break;
        }
    }
    match args.format {
        Format::Json => {
            writeln!(out, "{}", json::line(&ChainLine { r#type: "chain", spans: spans.len(), first }))?;
        }
        Format::Text => match first {
            Some((start, end)) => writeln!(out, "a chained replay differs first in span [{start}, {end})")?,
            None => writeln!(out, "no span differs in a chained replay")?,
        },
    }
    Ok(super::verify::exit(&totals, true))
}
