//! The commands that work on evidence: `replay`, `explain`, `bisect` and `evidence`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CliError, DbArgs, Exit, Format, WorkerArgs};
use crate::audit::Contradictions;
use crate::evidence::{Case, Replacement, column, pack, worker_facts};
use crate::files::publish;
use crate::forensics::Account;
use crate::forensics::bisect::{Bisection, bisect};
use crate::forensics::explain::explain;
use crate::forensics::export::sst::Transcript;
use crate::forensics::export::xsnap_trace::Traced;
use crate::forensics::export::{sst, xsnap_trace};
use crate::forensics::html;
use crate::forensics::readable::readable;
use crate::judge::heaps;
use crate::judge::{Court, House, Judged, REPEATS, judge};
use crate::plan::{Base, Begins, PlannedSpan, Selection, plan};
use crate::record::captures::Captures;
use crate::record::image::Image;
use crate::replay::{FoundBy, ReplayStart, WorkerProgram};
use crate::report::{Totals, json, text};
use crate::schedule::{self, Context, Handover, SpanReport};
use crate::transcript::Position;
use crate::verdict::Verdict;
use crate::visible::{self, Out};
use crate::words::plural;

/// How images are stored beside the folder's own.
const LEVEL: i32 = 3;

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The evidence: a folder, or a file that was packed from one
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    #[command(flatten)]
    worker: WorkerArgs,
    /// How often a divergence is repeated in a fresh process
    #[arg(long = "repeat", value_name = "N", default_value_t = REPEATS, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// What if: start the worker with another bundle than the recorded one; may be given several times
    #[arg(long = "with-bundle", value_name = "OLD=FILE", value_parser = Replacement::parse)]
    replacements: Vec<std::sync::Arc<Replacement>>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How far a replay with another bundle agrees with the record.
#[derive(Debug, Serialize)]
struct WhatIf<'a> {
    r#type: &'static str,
    worker: usize,
    replaced: Vec<[&'a str; 2]>,
    /// Deliveries that are the same from the first one on.
    reproduced: usize,
    deliveries: usize,
    first_difference: Option<Position>,
}

pub(super) fn replay(args: &ReplayArgs) -> Result<Exit, CliError> {
    let began = Instant::now();
    let case = Case::open(&args.evidence)?;
    let programs = args.worker.find_for(&case)?;
    let limits = args.worker.limits_for(&case)?;
    let items = case.items()?;
    let span = case.span(&items)?;
    let base = case.base()?;
    let recorded_end = case.recorded_end()?;
    for replacement in &args.replacements {
        if !case.manifest.start.bundles.contains(&replacement.old) {
            let has = case.manifest.start.bundles.join(", ");
            let why = if has.is_empty() {
                "the span starts from an image, which has its bundles in it".to_owned()
            } else {
                format!("it starts with {has}")
            };
            return Err(CliError::NoSuchBundle { id: replacement.old.clone(), why });
        }
    }
    let replacements: Vec<&Replacement> = args.replacements.iter().map(std::sync::Arc::as_ref).collect();
    let beginning = case.beginning(&span, base.as_ref(), &replacements)?;
    let options = case.options();
    let house = House::default();
    let court = Court { repeats: args.repeats, house: &house };
    let mut out = visible::stdout();
    let mut totals = Totals::default();
    let mut columns = Vec::new();
    tell_workers(&case, &programs, args.format, &mut out)?;
    for (worker, program) in programs.iter().enumerate() {
        let started = Instant::now();
        let start = ReplayStart { program, limits: &limits, options: &options, beginning: &beginning, probe: None };
        let mut judged = judge(&span, &start, &court);
        heaps::add_to(&mut judged, recorded_end.as_ref());
        columns.push(column(&judged.verdict, worker_facts(program, &limits)));
        let report = report(&case, worker, judged, started.elapsed());
        totals.add(&report);
        match args.format {
            Format::Text => out.write_lines(&text::span(&report, programs.len()))?,
            Format::Json => writeln!(out, "{}", json::span(&report))?,
        }
        if !replacements.is_empty() {
            what_if(&report, &span, &replacements, worker, args.format, &mut out)?;
        }
    }
    let summary = match args.format {
        Format::Text => text::summary(&totals, began.elapsed()),
        Format::Json => json::summary(&totals, &programs, began.elapsed()),
    };
    out.write_lines(&summary)?;
    if replacements.is_empty()
        && let Err(error) = case.note_workers(&columns)
    {
        tracing::debug!("what the workers did is not noted in the folder: {error}");
    }
    Ok(super::verify::exit(&totals, true))
}

/// A worker of a replay, and whether it is the one that diverged.
#[derive(Debug, Serialize)]
struct WorkerLine<'a> {
    r#type: &'static str,
    worker: usize,
    path: &'a Path,
    version: &'a str,
    sha256: &'a str,
    found_by: FoundBy,
    /// Whether the program is that of the evidence, byte for byte.
    is_the_same: bool,
    wanted_version: &'a str,
    wanted_sha256: &'a str,
}

/// Says of each worker whether it is the one that the evidence is of. Its sha256 tells; the path in the evidence is the path
/// of another machine.
fn tell_workers(
    case: &Case,
    programs: &[WorkerProgram],
    format: Format,
    out: &mut visible::Out<impl Write>,
) -> Result<(), CliError> {
    let wanted = &case.manifest.worker;
    for (worker, program) in programs.iter().enumerate() {
        let WorkerProgram { path, version, sha256, found_by, .. } = program;
        let is_the_same = *sha256 == wanted.sha256;
        match format {
            Format::Json => {
                let line = WorkerLine {
                    r#type: "worker",
                    worker,
                    path,
                    version,
                    sha256,
                    found_by: *found_by,
                    is_the_same,
                    wanted_version: &wanted.version,
                    wanted_sha256: &wanted.sha256,
                };
                writeln!(out, "{}", json::line(&line))?;
            }
            Format::Text if is_the_same => {
                writeln!(out, "worker {}, {found_by}: the same worker as that of the evidence", path.display())?;
            }
            Format::Text => writeln!(
                out,
                "worker {}, {found_by}: another worker ({version}, sha256 {sha256}) than that of the evidence ({})",
                path.display(),
                case.wanted_worker()
            )?,
        }
    }
    Ok(())
}

fn what_if(
    report: &SpanReport,
    span: &crate::span::Span<'_>,
    replacements: &[&Replacement],
    worker: usize,
    format: Format,
    out: &mut Out<impl Write>,
) -> Result<(), CliError> {
    let first_difference = match &report.verdict {
        Verdict::Diverged(divergence) => divergence.findings.first().map(|finding| finding.position),
        _ => None,
    };
    let deliveries = span.deliveries.len();
    let reproduced = first_difference
        .map_or(deliveries, |first| span.deliveries.iter().take_while(|(position, _)| *position < first).count());
    let replaced: Vec<[&str; 2]> =
        replacements.iter().map(|replacement| [&replacement.old[..], &replacement.new.id[..]]).collect();
    match format {
        Format::Json => {
            let line = WhatIf { r#type: "what_if", worker, replaced, reproduced, deliveries, first_difference };
            writeln!(out, "{}", json::line(&line))?;
        }
        Format::Text => {
            for [old, new] in &replaced {
                writeln!(out, "    with {} instead of {}", short(new), short(old))?;
            }
            let rest = first_difference.map_or_else(
                || if matches!(report.verdict, Verdict::Verified) { ", and the heap too" } else { "" }.to_owned(),
                |position| format!("; the first difference is at position {position}"),
            );
            writeln!(out, "    the first {reproduced} of {deliveries} deliveries are as recorded{rest}")?;
        }
    }
    Ok(())
}

/// A bundle's ID, as much of it as tells it from others.
fn short(id: &str) -> String {
    id.get(..16).map_or_else(|| id.to_owned(), |begin| format!("{begin}…"))
}

/// The report of a replay from evidence.
fn report(case: &Case, worker: usize, judged: Judged, took: Duration) -> SpanReport {
    let facts = &case.manifest.span;
    let word = |text: &str, known: &[&'static str]| known.iter().find(|known| **known == text).copied();
    let first = judged.first();
    SpanReport {
        images: crate::schedule::NamedImages::default(),
        contradictions: Contradictions::default(),
        id: case.id().clone(),
        name: facts.name.clone(),
        incarnation: facts.incarnation,
        worker,
        is_asked: true,
        begins: word(&facts.begins, &["initialize-worker", "load-snapshot"]),
        ends: word(&facts.ends, &["save-snapshot", "shutdown-worker", "termination", "unseen"]),
        base: "evidence",
        is_base_unproved: case.manifest.start.is_base_unproved,
        deliveries: first.deliveries,
        syscalls: first.syscalls,
        is_hash_compared: first.is_hash_compared,
        stopped_at: first.stopped_at,
        image_bytes: first.image.as_ref().map(Image::bytes),
        verdict: judged.verdict,
        took,
        evidence: None,
    }
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The evidence: a folder, or a file that was packed from one
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// Show also what agrees
    #[arg(long)]
    all: bool,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct AccountLine<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    account: &'a Account,
}

pub(super) fn tell(args: &ExplainArgs) -> Result<Exit, CliError> {
    let account = Account::of(&Case::open(&args.evidence)?)?;
    let mut out = visible::stdout();
    match args.format {
        Format::Text => out.write_lines(&explain(&account, args.all))?,
        Format::Json => writeln!(out, "{}", json::line(&AccountLine { r#type: "account", account: &account }))?,
    }
    Ok(Exit::Verified)
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The evidence: a folder, or a file that was packed from one
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// Where the page is written; a file that is there is replaced, and - is the standard output
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

pub(super) fn page(args: &ReportArgs) -> Result<Exit, CliError> {
    let case = Case::open(&args.evidence)?;
    let page = html::page(&Account::of(&case)?, &case.manifest);
    if args.out == Path::new("-") {
        visible::stdout().write_lines(&page)?;
        return Ok(Exit::Verified);
    }
    publish::replace(&args.out, |file| file.write_all(page.as_bytes())).map_err(|source| CliError::Keep {
        what: "the page",
        path: args.out.clone(),
        source,
    })?;
    writeln!(visible::stdout(), "{}", args.out.display())?;
    Ok(Exit::Verified)
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The evidence: a folder, or a file that was packed from one
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// The recorded transcript for the SDK's replay-transcript.js, compressed if the name ends with .gz; the image or the
    /// bundles that it starts with are written beside it
    #[arg(long, value_name = "FILE", required_unless_present = "xsnap_trace")]
    sst: Option<PathBuf>,
    /// The replay for replay.js of @agoric/xsnap, in a new directory
    #[arg(long, value_name = "DIR")]
    xsnap_trace: Option<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct ExportLine {
    r#type: &'static str,
    sst: Option<Transcript>,
    xsnap_trace: Option<Traced>,
}

pub(super) fn export(args: &ExportArgs) -> Result<Exit, CliError> {
    let case = Case::open(&args.evidence)?;
    let line = ExportLine {
        r#type: "export",
        sst: args.sst.as_deref().map(|file| sst::export(&case, file)).transpose()?,
        xsnap_trace: args.xsnap_trace.as_deref().map(|dir| xsnap_trace::export(&case, dir)).transpose()?,
    };
    let mut out = visible::stdout();
    if args.format == Format::Json {
        writeln!(out, "{}", json::line(&line))?;
        return Ok(Exit::Verified);
    }
    if let Some(Transcript { file, deliveries, beside }) = &line.sst {
        let deliveries = plural(*deliveries as u64, "delivery", "deliveries");
        writeln!(out, "{}: {deliveries}", file.display())?;
        for file in beside {
            writeln!(out, "  beside it: {}", file.display())?;
        }
    }
    if let (Some(Traced { steps_dir, steps, waits_at }), Some(dir)) = (&line.xsnap_trace, &args.xsnap_trace) {
        writeln!(out, "{}: {}", steps_dir.display(), plural(*steps as u64, "step", "steps"))?;
        if let Some(position) = waits_at {
            writeln!(
                out,
                "  in the delivery at position {position} the worker asks what the record does not answer, and waits"
            )?;
        }
        writeln!(out, "  next: node {} DIR_OF_@agoric/xsnap", dir.join("replay.mjs").display())?;
    }
    Ok(Exit::Verified)
}

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

pub(super) fn narrow_down(args: &BisectArgs) -> Result<Exit, CliError> {
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

#[derive(Debug, Args)]
pub(super) struct EvidenceCommandArgs {
    #[command(subcommand)]
    command: EvidenceCommand,
}

#[derive(Debug, Subcommand)]
enum EvidenceCommand {
    /// Make one file of a folder, to be sent
    Pack {
        /// The folder
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// The file, which must not be there yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a folder of such a file
    Unpack {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where the folder is made
        #[arg(value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
}

pub(super) fn run(args: &EvidenceCommandArgs) -> Result<Exit, CliError> {
    let mut out = visible::stdout();
    match &args.command {
        EvidenceCommand::Pack { folder, file } => {
            for name in pack::pack(folder, file)? {
                tracing::warn!("{name} is not packed: evidence has no file of that name");
            }
            writeln!(out, "{}", file.display())?;
        }
        EvidenceCommand::Unpack { file, dir } => {
            let folder = pack::unpack(file, dir)?;
            writeln!(out, "{}", folder.display())?;
        }
    }
    Ok(Exit::Verified)
}
