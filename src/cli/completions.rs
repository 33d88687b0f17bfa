//! Completion scripts and man pages, made from the same description of the arguments that parses them.
//!
//! Both are data of a package: `scripts/dist.sh` and `make install` call these commands of the program that they pack.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError, Exit};
use crate::visible;

const PROGRAM: &str = "spanwatch";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell that reads the script
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory for the pages; it is made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    visible::stdout().write_lines(&script(args.shell))?;
    Ok(Exit::Verified)
}

/// The program as its help shows it. The generators for shells would offer hidden commands too.
fn shown() -> clap::Command {
    let all = Cli::command();
    let commands = all.get_subcommands().filter(|command| !command.is_hide_set());
    let about = all.get_about().cloned().unwrap_or_default();
    clap::Command::new(PROGRAM).version(crate::VERSION).about(about).args(all.get_arguments()).subcommands(commands)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(), PROGRAM, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `spanwatch.1`, and a page for each command below it.
pub(super) fn write_man_pages(args: &ManArgs) -> Result<Exit, CliError> {
    let keep = |source| CliError::Keep { what: "the man pages", path: args.directory.clone(), source };
    std::fs::create_dir_all(&args.directory).map_err(keep)?;
    // A page about `help` would say nothing.
    clap_mangen::generate_to(shown().disable_help_subcommand(true), &args.directory).map_err(keep)?;
    Ok(Exit::Verified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The commands that help lists, each as the name of its page.
    fn pages(command: &clap::Command, name: &str, pages: &mut BTreeSet<String>) {
        pages.insert(format!("{name}.1"));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            pages_of(below, name, pages);
        }
    }

    fn pages_of(command: &clap::Command, above: &str, found: &mut BTreeSet<String>) {
        pages(command, &format!("{above}-{}", command.get_name()), found);
    }

    #[test]
    fn each_command_has_a_man_page() {
        let directory = tempfile::tempdir().expect("a directory");
        let args = ManArgs { directory: directory.path().join("man1") };
        write_man_pages(&args).expect("pages");
        let mut wanted = BTreeSet::new();
        pages(&Cli::command(), PROGRAM, &mut wanted);
        assert!(wanted.len() > 15 && wanted.contains("spanwatch-snapshot-diff.1"), "{wanted:?}");
        let entries = std::fs::read_dir(&args.directory).expect("list");
        let written: BTreeSet<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(written, wanted);
        let page = std::fs::read_to_string(args.directory.join("spanwatch-verify.1")).expect("a page");
        assert!(page.starts_with(".ie") && page.contains(".TH spanwatch-verify 1"), "{page}");
        assert!(page.contains("Exit codes: 0 "), "{page}");
    }

    #[test]
    fn completions_know_every_command_and_pass_the_terminal_unchanged() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            assert!(!script.contains("man pages") && !script.contains("_man"), "{shell}");
            assert!(script.contains("color") && script.contains("repeats"), "{shell}");
            assert_eq!(visible::lines(&script), script, "{shell}");
        }
    }
}
