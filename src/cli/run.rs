//! `spanwatch run` and `spanwatch config`: the daemon and what it is set to.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Exit};
use crate::daemon;
use crate::daemon::config::{Config, DEFAULT, Layers, Log, LogFormat};
use crate::log::Wishes;
use crate::record::archives::Archives;
use crate::visible;

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "SPANWATCH_CONFIG")]
    config: Option<PathBuf>,
    /// Set one key, as in watch.poll_interval=2s; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Directory of the daemon's store, copies and evidence [key: state.dir]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl ConfigArgs {
    fn layers(&self) -> Result<Layers, CliError> {
        let mut layers = Layers::load(self.config.as_deref())?;
        for (key, value) in &self.settings {
            layers.set(key, value);
        }
        set_path(&mut layers, "state.dir", self.state_dir.as_ref());
        Ok(layers)
    }

    /// The daemon's own directory, for a command that reads it.
    pub(super) fn state_dir(&self) -> Result<PathBuf, CliError> {
        let layers = self.layers()?;
        let config = Config::read(&layers, false)?;
        warn_of_unknown_variables(&layers);
        Ok(config.state.dir)
    }
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The kernel's database: the file swingstore.sqlite or the directory that holds it [key: node.database]
    #[arg(value_name = "DB")]
    db: Option<PathBuf>,
    /// Old form of the argument
    #[arg(long = "db", value_name = "PATH", hide = true, conflicts_with = "db")]
    db_flag: Option<PathBuf>,
    /// The node's vat-transcript-archive-dir [key: node.transcript_archive]
    #[arg(long, value_name = "DIR")]
    transcript_archive: Option<PathBuf>,
    /// The node's vat-snapshot-archive-dir [key: node.snapshot_archive]
    #[arg(long, value_name = "DIR")]
    snapshot_archive: Option<PathBuf>,
    /// The node's xsnap-worker [key: worker.path]
    #[arg(long, value_name = "PATH")]
    worker: Option<PathBuf>,
    /// Sandbox of the worker: default, strict or off [key: worker.sandbox]
    #[arg(long, value_name = "MODE")]
    sandbox: Option<String>,
    /// Address of metrics and health, or "" for none [key: http.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// First spans to verify with a new state directory: now, genesis, or a position [key: watch.since]
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Form of the log: auto, human or json [key: log.format]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// One line for all: Kubernetes sets a dozen for a service that is called spanwatch.
fn warn_of_unknown_variables(layers: &Layers) {
    let unknown = layers.unknown_variables();
    if !unknown.is_empty() {
        tracing::warn!("{}: no key has such a name; `spanwatch config --default` prints all keys", unknown.join(", "));
    }
}

fn set_path(layers: &mut Layers, key: &str, path: Option<&PathBuf>) {
    if let Some(path) = path {
        layers.set(key, &path.to_string_lossy());
    }
}

impl RunArgs {
    fn layers(&self) -> Result<Layers, CliError> {
        let mut layers = self.config.layers()?;
        for (key, path) in [
            ("node.database", &self.db),
            ("node.database", &self.db_flag),
            ("node.transcript_archive", &self.transcript_archive),
            ("node.snapshot_archive", &self.snapshot_archive),
            ("worker.path", &self.worker),
        ] {
            set_path(&mut layers, key, path.as_ref());
        }
        for (key, value) in [
            ("worker.sandbox", &self.sandbox),
            ("http.listen", &self.listen),
            ("watch.since", &self.since),
            ("log.format", &self.log_format),
        ] {
            if let Some(value) = value {
                layers.set(key, value);
            }
        }
        Ok(layers)
    }
}

pub(super) fn run(args: &RunArgs, wishes: Wishes) -> Result<Exit, CliError> {
    let layers = args.layers()?;
    let config = Config::read(&layers, true)?;
    begin_log(&config.log, wishes);
    warn_of_unknown_variables(&layers);
    daemon::run(config)?;
    Ok(Exit::Verified)
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Print the built-in file instead, which explains each key
    #[arg(long, conflicts_with = "check")]
    default: bool,
    /// Check the configuration and its archive directories, and print no value
    #[arg(long)]
    check: bool,
}

pub(super) fn show(args: &ShowArgs) -> Result<Exit, CliError> {
    let mut out = visible::stdout();
    if args.default {
        out.write_lines(DEFAULT)?;
        return Ok(Exit::Verified);
    }
    let layers = args.run.layers()?;
    let config = Config::read(&layers, args.check)?;
    warn_of_unknown_variables(&layers);
    if args.check {
        for fault in
            Archives::growing(config.node.transcript_archive.as_deref(), config.node.snapshot_archive.as_deref())
                .doubts()
        {
            tracing::warn!("{fault}");
        }
        writeln!(out, "the configuration is valid")?;
        return Ok(Exit::Verified);
    }
    out.write_lines(&layers.print())?;
    Ok(Exit::Verified)
}

fn begin_log(log: &Log, wishes: Wishes) {
    let is_human = match log.format {
        LogFormat::Auto => visible::is_stderr_a_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    // The configuration was read with success, so its directives are good.
    if is_human { crate::log::for_people(&log.level, wishes) } else { crate::log::as_json(&log.level, wishes) }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as in watch.poll_interval=2s")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
