//! The worker: finding its program, and its version.
//!
//! Owns the choice. A worker is a program, so it comes from the operator of this machine alone: it is named, or it lies in a
//! directory in which only root and this user can have put it ([`super::trust`]). It must never come from beside a database
//! or from evidence, and no path in either is read. No program runs outside its sandbox, not even for a test.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::probe::{Probe, SelfTestFault, Uncompared, self_test};
use super::process::{End, run_alone};
use super::trust::{Distrust, trusted};
use super::watch::{Limits, Stopped};
use crate::sandbox::{Layer, MissingLayer, Mode, Sandbox, SandboxError, Settings, SpawnError};

/// The variable that names the worker.
const WORKER_VARIABLE: &str = "SPANWATCH_WORKER";
/// The one that a node's own package goes by.
const NODES_VARIABLE: &str = "XSNAP_WORKER";

/// The worker that `@agoric/xsnap` compiles, in its package.
const IN_PACKAGE: &str = "xsnap-native/xsnap/build/bin/lin/release/xsnap-worker";
/// The package, in a directory that may hold it.
const PACKAGES: [&str; 3] = ["node_modules/@agoric/xsnap", "packages/xsnap", "agoric-sdk/packages/xsnap"];

/// The most time that a worker may take to print its version.
const VERSION_TIME_MAX: Duration = Duration::from_secs(10);

/// The worker as the operator names it, but for the variables `$SPANWATCH_WORKER` and `$XSNAP_WORKER`.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// On the command line.
    pub by_option: Vec<PathBuf>,
    /// In the variable of the configuration's key.
    pub by_variable: Option<PathBuf>,
    /// In the configuration's file.
    pub by_file: Option<PathBuf>,
    /// The directory of the database or of the evidence: no worker is found in it, even where it is the working directory.
    pub not_in: Option<PathBuf>,
}

impl Named {
    /// By `--worker` alone.
    #[must_use]
    pub fn by_option(paths: &[PathBuf]) -> Self {
        Self { by_option: paths.to_vec(), ..Self::default() }
    }
}

/// The way in which a worker was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// By `--worker`.
    Option,
    /// By this variable.
    Variable(&'static str),
    /// By the configuration's file.
    Configuration,
    /// In or above the working directory.
    WorkingDirectory,
}

impl Serialize for FoundBy {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Self::Option => "option",
            Self::Variable(name) => name,
            Self::Configuration => "configuration",
            Self::WorkingDirectory => "working_directory",
        })
    }
}

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option => f.write_str("named by --worker"),
            Self::Variable(name) => write!(f, "named by ${name}"),
            Self::Configuration => f.write_str("named by worker.path in the configuration"),
            Self::WorkingDirectory => f.write_str("found in or above the working directory, as none was named"),
        }
    }
}

/// A worker's program, what identifies it, and the sandbox that it runs in.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerProgram {
    /// The path of the program.
    pub path: PathBuf,
    /// The version that it prints: `xsnap 0.15.0 (XS 13.3.0)`.
    pub version: String,
    /// sha256 of the bytes that are run.
    pub sha256: String,
    /// The way in which it was found.
    pub found_by: FoundBy,
    /// The protection of this machine from its workers.
    #[serde(rename = "sandbox")]
    pub protection: Protection,
    /// The sandbox.
    #[serde(skip)]
    pub sandbox: Arc<Sandbox>,
}

/// The protection of this machine from a program's workers, for reports.
#[derive(Debug, Clone, Serialize)]
pub struct Protection {
    /// The mode that was asked for.
    pub mode: Mode,
    /// The layers that hold.
    pub layers: Vec<Layer>,
    /// The layers that do not hold, and why.
    pub missing: Vec<MissingLayer>,
    /// The results of the self-test; `None` if the worker evaluates no script. They vary from run to run.
    #[serde(skip)]
    pub probe: Option<Probe>,
    /// The reason why a result could not be compared, if there is one.
    #[serde(skip)]
    pub uncompared: Option<Uncompared>,
}

/// Why there is no worker to use.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// None was named, and none is in or above the working directory.
    #[error(
        "no xsnap worker found: neither --worker nor ${WORKER_VARIABLE} nor ${NODES_VARIABLE} names one, and there is no \
         node_modules/@agoric/xsnap and no agoric-sdk checkout in or above the working directory {}; name the node's own with \
         --worker, or get one with `npm install @agoric/xsnap` (it ends up in node_modules/@agoric/xsnap/{IN_PACKAGE})",
        .0.display()
    )]
    NotFound(PathBuf),
    /// One is there, and it came with what is to be verified.
    #[error(
        "refused to run {}, which was not named: it lies in {}, as what is to be replayed does, and could have come with it; if it \
         is the one to use, name it with --worker or ${WORKER_VARIABLE}",
        path.display(), directory.display()
    )]
    CameAlong {
        /// The file.
        path: PathBuf,
        /// The directory of the database or of the evidence.
        directory: PathBuf,
    },
    /// One is there, and others can change it.
    #[error(
        "refused to run {}, which was found in or above the working directory and not named: {distrust}, so others than you and \
         root could have put it there; if it is the one to use, name it with --worker or ${WORKER_VARIABLE}",
        path.display()
    )]
    Distrusted {
        /// The file.
        path: PathBuf,
        /// The users who can change it.
        distrust: Distrust,
    },
    /// The file can't be read or run.
    #[error("failed to use {} as a worker: {source}; is it the path of an xsnap-worker that this user may run?", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The program does not run in such a sandbox.
    #[error(
        "failed to run {} in the sandbox ({mode}): {fault}; docs/sandbox.md says what each layer needs; \
         with --sandbox off (worker.sandbox) a worker could do all that this user can", path.display()
    )]
    NoSandbox {
        /// The file.
        path: PathBuf,
        /// The mode that was asked for.
        mode: &'static str,
        /// The fault.
        fault: SandboxFault,
    },
    /// The program is no worker.
    #[error(
        "{} is not an xsnap worker: asked for its version (-v) it said {said:?}, not \"xsnap … (XS …)\"; name another with --worker",
        path.display()
    )]
    NotAWorker {
        /// The file.
        path: PathBuf,
        /// The text that it printed.
        said: String,
    },
}

/// Why a program does not run in a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxFault {
    /// A layer can't be made.
    #[error("{0}")]
    Layer(SandboxError),
    /// A layer can't be put on.
    #[error("{0}")]
    Start(SpawnError),
    /// The sandbox killed the program.
    #[error("asked for its version (-v) it was killed by {0}")]
    Killed(String),
    /// The program runs, and vats would notice the sandbox.
    #[error("{0}")]
    SelfTest(SelfTestFault),
}

impl WorkerProgram {
    /// The workers to use: those that are named, else the nearest one in or above the working directory. Each was tried in
    /// its sandbox.
    ///
    /// # Errors
    /// When no worker is found, one of those named is no worker, the nearest one could be a stranger's, or the sandbox that was
    /// asked for can't be made.
    pub fn find(named: &Named, settings: &Settings, limits: &Limits) -> Result<Vec<Self>, LocateError> {
        let here = std::env::current_dir().unwrap_or_default();
        let (paths, found_by) = choose(named, |name| std::env::var_os(name), &here)?;
        paths.iter().map(|path| Self::identify(path, found_by, settings, limits)).collect()
    }

    fn identify(path: &Path, found_by: FoundBy, settings: &Settings, limits: &Limits) -> Result<Self, LocateError> {
        let unusable = |source| LocateError::Unusable { path: path.to_owned(), source };
        let path = path.canonicalize().map_err(unusable)?;
        let no_sandbox =
            |fault: SandboxFault| LocateError::NoSandbox { path: path.clone(), mode: settings.mode.label(), fault };
        let prepare = |settings: &Settings| {
            Sandbox::prepare(&path, settings.clone()).map_err(|error| match error {
                SandboxError::Program(source) => unusable(source),
                error => no_sandbox(SandboxFault::Layer(error)),
            })
        };
        let mut sandbox = prepare(settings)?;
        let mut tried = version(&sandbox, limits);
        // Huge pages want two more files in the worker's root, and a layer is worth more than speed.
        if settings.huge_pages && matches!(&tried, Err(error) if error.layer == Some(Layer::Namespaces)) {
            sandbox = prepare(&Settings { huge_pages: false, ..settings.clone() })?;
            tried = version(&sandbox, limits);
        }
        // Without namespaces the base stands alone, if the mode allows that.
        if let Err(error) = &tried
            && error.layer == Some(Layer::Namespaces)
            && settings.mode == Mode::Default
        {
            let reason = error.to_string();
            sandbox = prepare(settings)?.without_namespaces(reason);
            tried = version(&sandbox, limits);
        }
        let (said, stopped) = match tried {
            Ok(said) => said,
            Err(error) if error.layer.is_some() => return Err(no_sandbox(SandboxFault::Start(error))),
            Err(error) => return Err(unusable(error.source)),
        };
        if let Some(Stopped::Sandbox(rule)) = stopped {
            return Err(no_sandbox(SandboxFault::Killed(rule)));
        }
        let line = said.lines().next().unwrap_or_default().trim();
        if !(line.starts_with("xsnap ") && line.contains("(XS ")) {
            return Err(LocateError::NotAWorker { path, said: said.chars().take(200).collect() });
        }
        let (probe, uncompared) =
            self_test(&sandbox, limits).map_err(|fault| no_sandbox(SandboxFault::SelfTest(fault)))?;
        let (mode, layers, missing) = (sandbox.mode(), sandbox.layers(), sandbox.missing().to_vec());
        let protection = Protection { mode, layers, missing, probe, uncompared };
        let sha256 = sandbox.program().1.to_string();
        Ok(Self { version: line.to_owned(), path, sha256, found_by, protection, sandbox: Arc::new(sandbox) })
    }
}

/// The paths of workers, and the way in which they were found. `variable` gives a variable of the environment.
fn choose(
    named: &Named,
    variable: impl Fn(&str) -> Option<OsString>,
    here: &Path,
) -> Result<(Vec<PathBuf>, FoundBy), LocateError> {
    let variable = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if !named.by_option.is_empty() {
        return Ok((named.by_option.clone(), FoundBy::Option));
    }
    let one = [
        (variable(WORKER_VARIABLE), FoundBy::Variable(WORKER_VARIABLE)),
        // Said of this program, it counts for more than what is said to the node's.
        (named.by_variable.clone(), FoundBy::Variable("SPANWATCH_WORKER_PATH")),
        (variable(NODES_VARIABLE), FoundBy::Variable(NODES_VARIABLE)),
        (named.by_file.clone(), FoundBy::Configuration),
    ];
    if let Some((path, found_by)) = one.into_iter().find_map(|(path, found_by)| Some((path?, found_by))) {
        return Ok((vec![path], found_by));
    }
    let path = nearest(here).ok_or_else(|| LocateError::NotFound(here.to_owned()))?;
    if let Some(directory) = named.not_in.as_deref().and_then(|directory| directory.canonicalize().ok())
        && (path.starts_with(&directory) || path.canonicalize().is_ok_and(|path| path.starts_with(&directory)))
    {
        return Err(LocateError::CameAlong { path, directory });
    }
    match trusted(&path) {
        Ok(path) => Ok((vec![path], FoundBy::WorkingDirectory)),
        // The next one further up is not what would have been meant.
        Err(distrust) => Err(LocateError::Distrusted { path, distrust }),
    }
}

fn nearest(here: &Path) -> Option<PathBuf> {
    here.ancestors().find_map(|directory| {
        PACKAGES.iter().map(|package| directory.join(package).join(IN_PACKAGE)).find(|path| path.is_file())
    })
}

/// The text that the program prints for `-v`, and the reason if it was stopped.
fn version(sandbox: &Sandbox, limits: &Limits) -> Result<(String, Option<Stopped>), SpawnError> {
    let limits = Limits { delivery_max: VERSION_TIME_MAX, ..limits.clone() };
    let End { said, stopped, .. } = run_alone(sandbox, &["-v"], &limits)?;
    Ok((said, stopped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_package_wins() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("data/agoric");
        std::fs::create_dir_all(&inner).expect("make");
        assert_eq!(nearest(&inner), None);
        for package in ["agoric-sdk/packages/xsnap", "node_modules/@agoric/xsnap"] {
            let path = dir.path().join(package).join(IN_PACKAGE);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("make");
            std::fs::write(&path, "").expect("write");
            assert_eq!(nearest(&inner), Some(path));
        }
    }

    #[test]
    fn the_word_that_counts_most_is_followed() {
        let path = |name: &str| Some(PathBuf::from(name));
        let nowhere = Path::new("/proc");
        let variables = |names: &'static [&'static str]| {
            move |name: &str| names.contains(&name).then(|| OsString::from(format!("/{name}")))
        };
        let all: &[&str] = &[WORKER_VARIABLE, NODES_VARIABLE];
        let named = Named {
            by_option: vec!["/a".into(), "/b".into()],
            by_variable: path("/key"),
            by_file: path("/file"),
            not_in: None,
        };
        let without_option = Named { by_option: Vec::new(), ..named.clone() };
        let only_file = Named { by_file: path("/file"), ..Named::default() };
        for (named, names, found, found_by) in [
            (&named, all, &["/a", "/b"][..], FoundBy::Option),
            (&without_option, all, &["/SPANWATCH_WORKER"], FoundBy::Variable("SPANWATCH_WORKER")),
            (&without_option, &[NODES_VARIABLE], &["/key"], FoundBy::Variable("SPANWATCH_WORKER_PATH")),
            (&only_file, &[NODES_VARIABLE], &["/XSNAP_WORKER"], FoundBy::Variable("XSNAP_WORKER")),
            (&only_file, &[], &["/file"], FoundBy::Configuration),
        ] {
            let found: Vec<PathBuf> = found.iter().map(PathBuf::from).collect();
            assert_eq!(choose(named, variables(names), nowhere).expect("a worker"), (found, found_by));
        }
        let error = choose(&Named::default(), |_| Some(OsString::new()), nowhere).expect_err("none");
        assert!(matches!(error, LocateError::NotFound(_)), "{error}");
    }

    #[test]
    fn none_comes_with_what_is_to_be_replayed() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("a directory");
        let (data, tree) = (dir.join("data"), dir.join("data/node_modules/@agoric/xsnap").join(IN_PACKAGE));
        for directory in [tree.parent().expect("a parent"), &data.join("agoric"), &dir.join("work")] {
            std::fs::create_dir_all(directory).expect("make");
        }
        std::fs::write(&tree, "").expect("write");
        std::os::unix::fs::symlink(data.join("node_modules"), dir.join("work/node_modules")).expect("link");
        for here in [data.clone(), data.join("agoric"), dir.join("work")] {
            let named = Named { not_in: Some(data.clone()), ..Named::default() };
            let error = choose(&named, |_| None, &here).expect_err("came along");
            assert!(matches!(error, LocateError::CameAlong { .. }), "{error}");
        }
    }

    #[test]
    fn other_programs_are_told_from_workers() {
        for (path, says) in [
            ("/bin/true", "is not an xsnap worker"),
            ("/bin/echo", "is not an xsnap worker"),
            ("/etc/passwd", "failed to use /etc/passwd as a worker"),
            ("/no/such/file", "failed to use /no/such/file as a worker"),
        ] {
            for mode in [Mode::Default, Mode::Off] {
                let settings = Settings { mode, ..Settings::default() };
                let found =
                    WorkerProgram::find(&Named::by_option(&[PathBuf::from(path)]), &settings, &Limits::default());
                let error = found.expect_err(path);
                assert!(error.to_string().contains(says), "{error}");
            }
        }
    }
}
