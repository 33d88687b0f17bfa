//! `spanwatch evidence`: a folder as one file, and back.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CliError, Exit};
use crate::evidence::pack;
use crate::visible;

#[derive(Debug, Args)]
pub(super) struct EvidenceCommandArgs {
    #[command(subcommand)]
    command: EvidenceCommand,
}

#[derive(Debug, Subcommand)]
enum EvidenceCommand {
    /// Pack a folder into one file, to send it
    Pack {
        /// The folder
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// New file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Unpack such a file into a folder
    Unpack {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Directory in which the folder is made
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
