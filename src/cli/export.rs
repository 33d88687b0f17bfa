//! `spanwatch export`: evidence in the forms of other tools.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::args::Format;
use super::{CliError, Exit};
use crate::evidence::Case;
use crate::forensics::export::sst::Transcript;
use crate::forensics::export::xsnap_trace::Traced;
use crate::forensics::export::{sst, xsnap_trace};
use crate::report::json;
use crate::visible;
use crate::words::plural;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("form").args(["sst", "xsnap_trace"]).required(true).multiple(true))]
pub(super) struct ExportArgs {
    /// Evidence: a folder or a packed file
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// Write the recorded transcript for the SDK's replay-transcript.js, compressed if the name ends with .gz, with its image or
    /// bundles beside it
    #[arg(long, value_name = "FILE")]
    sst: Option<PathBuf>,
    /// Write the replay for replay.js of @agoric/xsnap, into a new directory
    #[arg(long, value_name = "DIR")]
    xsnap_trace: Option<PathBuf>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct ExportLine {
    r#type: &'static str,
    sst: Option<Transcript>,
    xsnap_trace: Option<Traced>,
}

pub(super) fn run(args: &ExportArgs) -> Result<Exit, CliError> {
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
                "  in the delivery at position {position} the worker waits for an answer that the record does not have"
            )?;
        }
        writeln!(out, "  next: node {} DIR_OF_@agoric/xsnap", dir.join("replay.mjs").display())?;
    }
    Ok(Exit::Verified)
}
