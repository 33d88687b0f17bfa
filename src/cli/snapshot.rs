//! `spanwatch snapshot`: what is in a heap image, and what differs between two.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::Format;
use super::{CliError, Exit};
use crate::forensics::source::{Source, side_of};
use crate::heap::census::{Census, Large, Only, only};
use crate::heap::diff::{Delta, Likeness, Told, compare, deltas, tell};
use crate::heap::fingerprint::fingerprint;
use crate::heap::naming::Names;
use crate::heap::query::{self, Object, Retained};
use crate::heap::{Atom, Creation, Heap};
use crate::report::json;
use crate::visible::{self, Out};
use crate::words::plural;

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Count the content of an image: sizes, counters, objects, largest texts and collections
    ///
    /// Exit codes: 0; 1 could not run; 2 bad usage.
    Info(InfoArgs),
    /// Compare two images and name each difference
    ///
    /// Exit codes: 0 identical or isomorphic, also if only the GC schedule differs; 1 could not run; 2 bad usage;
    /// 3 different.
    Diff(DiffArgs),
    /// Show one object
    ///
    /// Exit codes: 0; 1 could not run, or no such object; 2 bad usage.
    Query(QueryArgs),
    /// List all references to an object, and the shortest path to it from a root
    ///
    /// Exit codes: 0; 1 could not run, or no such object; 2 bad usage.
    Retainers(QueryArgs),
}

const IMAGE_HELP: &str = "A file (plain, gzip or zstd), DB:VAT@POSITION for the snapshot of a kernel's database, or \
                          FOLDER:recorded, FOLDER:replayed or FOLDER:base for one of an evidence folder";

#[derive(Debug, Args)]
struct InfoArgs {
    #[arg(value_name = "IMAGE", help = IMAGE_HELP)]
    image: String,
    /// Number of the largest texts, arrays, collections and files
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Args)]
struct DiffArgs {
    #[arg(value_name = "IMAGE", help = IMAGE_HELP)]
    recorded: String,
    #[arg(value_name = "OTHER", help = "The other image, named in the same way")]
    replayed: String,
    /// Show all differences, traces, counts and one-sided texts, not only the first of each
    #[arg(long)]
    all: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Args)]
struct QueryArgs {
    #[arg(value_name = "IMAGE", help = IMAGE_HELP)]
    image: String,
    /// Object, named as `snapshot diff` names it, as in `<o+11>.deposit[[scope]]::balance`, `globalThis.Array`, `%Map%`; or
    /// #N for a slot by its number
    #[arg(value_name = "PATH")]
    path: String,
    /// Number of properties or references
    #[arg(long, value_name = "N", default_value_t = 50)]
    top: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Without `--all`, no more of each sort is shown.
const SHOWN: usize = 10;

pub(super) fn run(args: &SnapshotArgs) -> Result<Exit, CliError> {
    match &args.command {
        SnapshotCommand::Info(args) => info(args),
        SnapshotCommand::Diff(args) => diff(args),
        SnapshotCommand::Query(args) => query(args),
        SnapshotCommand::Retainers(args) => retainers(args),
    }
}

struct Opened {
    name: String,
    sha256: String,
    heap: Heap,
}

fn open(name: &str) -> Result<Opened, CliError> {
    let Source { name, bytes, sha256 } = Source::open(name)?;
    let sha256 = sha256.to_string();
    match Heap::read(bytes) {
        Ok(heap) => Ok(Opened { name, sha256, heap }),
        Err(source) => Err(CliError::Image { name, source }),
    }
}

#[derive(Debug, Serialize)]
struct Info<'a> {
    r#type: &'static str,
    image: &'a str,
    sha256: &'a str,
    bytes: usize,
    engine: String,
    fingerprint: String,
    atoms: &'a [Atom],
    counters: &'a Creation,
    #[serde(flatten)]
    census: Census,
}

fn info(args: &InfoArgs) -> Result<Exit, CliError> {
    let opened = open(&args.image)?;
    let heap = &opened.heap;
    let names = Names::of(heap);
    let info = Info {
        r#type: "snapshot",
        image: &opened.name,
        sha256: &opened.sha256,
        bytes: heap.bytes().len(),
        engine: heap.version().to_string(),
        fingerprint: fingerprint(heap).to_string(),
        atoms: heap.atoms(),
        counters: heap.creation(),
        census: Census::of(heap, &names, args.top),
    };
    let mut out = visible::buffered_stdout();
    match args.format {
        Format::Json => writeln!(out, "{}", json::line(&info))?,
        Format::Text => write_info(&mut out, &info)?,
    }
    out.flush()?;
    Ok(Exit::Verified)
}

fn write_info(out: &mut Out<impl Write>, info: &Info<'_>) -> io::Result<()> {
    let census = &info.census;
    writeln!(out, "image        {}", info.image)?;
    writeln!(out, "sha256       {}", info.sha256)?;
    writeln!(out, "fingerprint  {} (equal for isomorphic heaps)", info.fingerprint)?;
    writeln!(out, "engine       XS {}, {} bytes", info.engine, info.bytes)?;
    let atoms: Vec<String> = info.atoms.iter().map(|atom| format!("{} {}", atom.tag, atom.bytes)).collect();
    writeln!(out, "atoms        {}", atoms.join(", "))?;
    let counters = info.counters.counters();
    let counters: Vec<String> = counters.iter().map(|(name, value, _)| format!("{name} {value}")).collect();
    for (at, line) in counters.chunks(4).enumerate() {
        writeln!(out, "{:<12} {}", if at == 0 { "counters" } else { "" }, line.join(", "))?;
    }
    let registered: Vec<String> = census.registered.iter().map(|(sort, count)| format!("{count} {sort}…")).collect();
    let registered = if registered.is_empty() { "none".to_owned() } else { registered.join(", ") };
    writeln!(out, "registered   {registered}")?;
    writeln!(out, "realms       {}", plural(census.realms, "realm", "realms"))?;
    writeln!(out, "keys         {}", census.keys)?;
    let mut table = |title: &str, rows: Vec<(String, String)>| -> io::Result<()> {
        writeln!(out)?;
        writeln!(out, "{title}")?;
        rows.into_iter().try_for_each(|(name, value)| writeln!(out, "  {value:>22}  {name}"))
    };
    let counted = |counts: &std::collections::BTreeMap<&'static str, u64>| {
        let mut rows: Vec<(String, u64)> = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        rows.into_iter().map(|(name, count)| (name, count.to_string())).collect::<Vec<_>>()
    };
    table("slots by kind", counted(&census.slots))?;
    let mut chunks: Vec<(&&str, &(u64, u64))> = census.chunks.iter().filter(|(_, count)| count.0 > 0).collect();
    chunks.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let chunks =
        chunks.into_iter().map(|(used, (count, bytes))| ((*used).to_owned(), format!("{bytes} bytes in {count}")));
    table("chunks by use", chunks.collect())?;
    table("objects", counted(&census.objects))?;
    let large = |large: &[Large]| {
        let row = |large: &Large| {
            let text = large.text.as_ref().map(|text| format!("  {text}")).unwrap_or_default();
            (format!("{}{text}", large.path), large.size.to_string())
        };
        large.iter().map(row).collect::<Vec<_>>()
    };
    table("largest texts, in bytes", large(&census.largest_texts))?;
    table("largest arrays", large(&census.largest_arrays))?;
    table("largest collections", large(&census.largest_collections))?;
    table("functions by file", census.functions.iter().map(|(file, count)| (file.clone(), count.to_string())).collect())
}

#[derive(Debug, Serialize)]
struct DiffReport<'a> {
    r#type: &'static str,
    recorded: &'a str,
    replayed: &'a str,
    recorded_sha256: &'a str,
    replayed_sha256: &'a str,
    likeness: Likeness,
    unpaired_recorded: u64,
    unpaired_replayed: u64,
    #[serde(flatten)]
    told: Told,
    deltas: Vec<Delta>,
    only_recorded: Only,
    only_replayed: Only,
}

fn diff(args: &DiffArgs) -> Result<Exit, CliError> {
    let (recorded, replayed) = (open(&args.recorded)?, open(&args.replayed)?);
    let comparison = compare(&recorded.heap, &replayed.heap);
    let shown = if args.all { usize::MAX } else { SHOWN };
    let told = tell(&comparison, shown);
    let is_identical = comparison.likeness == Likeness::Identical;
    let (only_recorded, only_replayed) =
        if is_identical { Default::default() } else { only(&recorded.heap, &replayed.heap, shown) };
    let report = DiffReport {
        r#type: "snapshot_diff",
        recorded: &recorded.name,
        replayed: &replayed.name,
        recorded_sha256: &recorded.sha256,
        replayed_sha256: &replayed.sha256,
        likeness: comparison.likeness,
        unpaired_recorded: comparison.unpaired.0,
        unpaired_replayed: comparison.unpaired.1,
        told,
        deltas: if is_identical { Vec::new() } else { deltas(&recorded.heap, &replayed.heap) },
        only_recorded,
        only_replayed,
    };
    let mut out = visible::buffered_stdout();
    match args.format {
        Format::Json => writeln!(out, "{}", json::line(&report))?,
        Format::Text => write_diff(&mut out, &report, args.all)?,
    }
    out.flush()?;
    Ok(if comparison.likeness == Likeness::Different { Exit::Diverged } else { Exit::Verified })
}

/// The names of two images in the text: the sides of evidence, or their order on the command line.
fn names_of(recorded: &str, replayed: &str) -> [&'static str; 2] {
    match (side_of(recorded), side_of(replayed)) {
        (Some(one), Some(other)) if one != other => [one.label(), other.label()],
        _ => ["first", "second"],
    }
}

fn write_diff(out: &mut Out<impl Write>, report: &DiffReport<'_>, is_all: bool) -> io::Result<()> {
    let told = &report.told;
    let names = names_of(report.recorded, report.replayed);
    let [one, other] = names;
    match report.likeness {
        Likeness::Identical => writeln!(out, "identical: the same bytes")?,
        Likeness::Isomorphic => {
            writeln!(out, "isomorphic: the same objects, values and code; only how the engine keeps them differs")?;
        }
        Likeness::GcScheduleDiffers => writeln!(
            out,
            "isomorphic, GC schedule differs: the same heap now, but the next garbage collection comes at another time, \
             and what it finalizes may show"
        )?,
        Likeness::Different => {
            writeln!(out, "different: {}", plural(told.differences_total, "difference", "differences"))?;
        }
    }
    for place in &told.differences {
        let behind = if place.behind > 0 { "  (behind another difference)" } else { "" };
        writeln!(out, "  {}{behind}", place.with_names(names))?;
    }
    let left = told.differences_total - told.differences.len() as u64;
    if left > 0 {
        let hint = if is_all { "are counted but not kept" } else { "more; --all shows them" };
        writeln!(out, "  … {left} {hint}")?;
    }
    if !told.trace_counts.is_empty() {
        writeln!(out)?;
        writeln!(out, "without a meaning")?;
        let mut counts: Vec<_> = told.trace_counts.iter().collect();
        counts.sort_by_key(|(kind, _)| kind.label());
        for (kind, count) in counts {
            writeln!(out, "  {count} × {}", kind.label().replace('_', " "))?;
            for place in told.traces.iter().filter(|place| place.trace == Some(*kind)) {
                writeln!(out, "    {}", place.with_names(names))?;
            }
        }
    }
    if !report.deltas.is_empty() {
        writeln!(out)?;
        writeln!(out, "counts")?;
        let shown = if is_all { usize::MAX } else { 2 * SHOWN };
        for delta in report.deltas.iter().take(shown) {
            let change = delta.replayed - delta.recorded;
            writeln!(out, "  {}: {one} {}, {other} {} ({change:+})", delta.name, delta.recorded, delta.replayed)?;
        }
        if report.deltas.len() > shown {
            writeln!(out, "  … {} more; --all shows them", report.deltas.len() - shown)?;
        }
    }
    for (only, side) in [(&report.only_recorded, one), (&report.only_replayed, other)] {
        for (what, list) in [("texts", &only.texts), ("keys", &only.keys), ("functions", &only.functions)] {
            if !list.is_empty() {
                writeln!(out)?;
                writeln!(out, "{what} only in the {side} heap")?;
                list.iter().try_for_each(|one| writeln!(out, "  {one}"))?;
            }
        }
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct QueryReport {
    r#type: &'static str,
    #[serde(flatten)]
    object: Object,
}

fn query(args: &QueryArgs) -> Result<Exit, CliError> {
    let opened = open(&args.image)?;
    let names = Names::of(&opened.heap);
    let found = query::find(&opened.heap, &names, &args.path).map_err(|source| CliError::NoObject {
        path: args.path.clone(),
        image: opened.name.clone(),
        source,
    })?;
    let object = query::look(&opened.heap, &names, found, args.top);
    let mut out = visible::buffered_stdout();
    match args.format {
        Format::Json => writeln!(out, "{}", json::line(&QueryReport { r#type: "object", object }))?,
        Format::Text => {
            writeln!(out, "{}: {}", object.path, object.what)?;
            for field in &object.fields {
                writeln!(out, "  {}: {}", field.name, field.value)?;
            }
            if object.fields_total > object.fields.len() as u64 {
                let left = object.fields_total - object.fields.len() as u64;
                writeln!(out, "  … {left} more; --top shows more")?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Verified)
}

#[derive(Debug, Serialize)]
struct RetainersReport {
    r#type: &'static str,
    #[serde(flatten)]
    retained: Retained,
}

fn retainers(args: &QueryArgs) -> Result<Exit, CliError> {
    let opened = open(&args.image)?;
    let names = Names::of(&opened.heap);
    let found = query::find(&opened.heap, &names, &args.path).map_err(|source| CliError::NoObject {
        path: args.path.clone(),
        image: opened.name.clone(),
        source,
    })?;
    let retained = query::retainers(&opened.heap, &names, found, args.top);
    let mut out = visible::buffered_stdout();
    match args.format {
        Format::Json => writeln!(out, "{}", json::line(&RetainersReport { r#type: "retainers", retained }))?,
        Format::Text => {
            writeln!(out, "{}: {}", retained.path, retained.what)?;
            writeln!(out)?;
            writeln!(out, "path from a root")?;
            for step in &retained.from_root {
                writeln!(out, "  {:<28} {}", step.by, step.what)?;
            }
            if retained.from_root.is_empty() {
                writeln!(out, "  only weak references lead to it")?;
            }
            writeln!(out)?;
            writeln!(out, "{}", plural(retained.retainers_total, "reference to it", "references to it"))?;
            for retainer in &retained.retainers {
                let weak = if retainer.keeps { "" } else { "  (weak)" };
                writeln!(out, "  {}{weak}  in {}", retainer.path, retainer.what)?;
            }
            let left = retained.retainers_total - retained.retainers.len() as u64;
            if left > 0 {
                writeln!(out, "  … {left} more; --top shows more")?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Verified)
}
