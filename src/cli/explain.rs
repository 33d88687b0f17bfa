//! `spanwatch explain` and `spanwatch report`: a divergence in words, on the terminal or as a page.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::args::Format;
use super::{CliError, Exit};
use crate::evidence::Case;
use crate::files::publish;
use crate::forensics::Account;
use crate::forensics::explain::explain;
use crate::forensics::html;
use crate::report::json;
use crate::visible;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Evidence: a folder or a packed file
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// Show syscalls that agree, too
    #[arg(long)]
    all: bool,
    /// Form of the output
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
    /// Evidence: a folder or a packed file
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// File for the page, replaced if it exists; - is the standard output
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
