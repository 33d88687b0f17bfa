//! Which worker: where it is found and which version it is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::probe::{Answer, Probe, probe};
use super::process::{End, run_alone};
use super::watch::{Limits, Stopped};
use crate::sandbox::{Cage, CageError, Layer, Missing, Mode, Settings, SpawnError};

/// The variable that names the worker.
pub const WORKER_VARIABLE: &str = "SPANWATCH_WORKER";

/// Where `@agoric/xsnap` puts the worker that it compiles.
const IN_PACKAGE: &str = "xsnap-native/xsnap/build/bin/lin/release/xsnap-worker";
/// Where the package is, seen from a directory that may hold it.
const PACKAGES: [&str; 3] = ["node_modules/@agoric/xsnap", "packages/xsnap", "agoric-sdk/packages/xsnap"];

/// How long a worker may take to say its version.
const VERSION_TIME_MAX: Duration = Duration::from_secs(10);

/// A worker's program, what identifies it, and the cage that it runs in.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerProgram {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself: `xsnap 0.15.0 (XS 13.3.0)`.
    pub version: String,
    /// sha256 of the bytes that are run.
    pub sha256: String,
    /// What stands between its workers and the machine.
    pub sandbox: Sandboxed,
    /// The cage.
    #[serde(skip)]
    pub cage: Arc<Cage>,
}

/// What stands between a program's workers and the machine, for reports.
#[derive(Debug, Clone, Serialize)]
pub struct Sandboxed {
    /// How much was asked for.
    pub mode: Mode,
    /// The layers that hold.
    pub layers: Vec<Layer>,
    /// Those that do not, and why.
    pub missing: Vec<Missing>,
    /// What a script found in a worker, the same inside and outside; nothing if it is no engine that we know. Not for reports
    /// that are to be the same in each run.
    #[serde(skip)]
    pub probe: Option<Probe>,
}

/// Why there is no worker to use.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// None was named and none is near.
    #[error(
        "no xsnap worker found: looked at ${WORKER_VARIABLE} and for node_modules/@agoric/xsnap and an agoric-sdk checkout \
         in and above {0}; name the node's own with --worker, or get one with `npm install @agoric/xsnap` \
         (it ends up in node_modules/@agoric/xsnap/{IN_PACKAGE})"
    )]
    NotFound(String),
    /// The file can't be read or run.
    #[error("failed to use {} as a worker: {source}; is it the path of an xsnap-worker that this user may run?", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not run in such a cage.
    #[error(
        "failed to run {} in the sandbox ({mode}): {reason}; docs/sandbox.md says what each layer needs; \
         with --sandbox off (worker.sandbox) a worker could do all that this user can", path.display()
    )]
    NoCage {
        /// The file.
        path: PathBuf,
        /// How much was asked for.
        mode: &'static str,
        /// Which layer, and what went wrong.
        reason: String,
    },
    /// It is a program, but no worker.
    #[error(
        "{} is not an xsnap worker: asked for its version (-v) it said {said:?}, not \"xsnap … (XS …)\"; name another with --worker",
        path.display()
    )]
    NotAWorker {
        /// The file.
        path: PathBuf,
        /// What it said.
        said: String,
    },
}

impl WorkerProgram {
    /// The workers to use: those that are named, else the one in the environment, else the nearest one. Each was tried in its
    /// cage.
    ///
    /// # Errors
    /// When there is none, one of those named is no worker, or a cage such as is asked for can't be had.
    pub fn find(
        named: &[PathBuf],
        near: &[&Path],
        settings: &Settings,
        limits: &Limits,
    ) -> Result<Vec<Self>, LocateError> {
        let from_environment = std::env::var_os(WORKER_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let paths = if !named.is_empty() {
            named.to_vec()
        } else if let Some(path) = from_environment.or_else(|| nearest(near)) {
            vec![path]
        } else {
            let near: Vec<String> = near.iter().map(|path| path.display().to_string()).collect();
            return Err(LocateError::NotFound(near.join(" and ")));
        };
        paths.iter().map(|path| Self::identify(path, settings, limits)).collect()
    }

    fn identify(path: &Path, settings: &Settings, limits: &Limits) -> Result<Self, LocateError> {
        let unusable = |source| LocateError::Unusable { path: path.to_owned(), source };
        let path = path.canonicalize().map_err(unusable)?;
        let no_cage = |reason: String| LocateError::NoCage { path: path.clone(), mode: settings.mode.label(), reason };
        let prepare = |settings: &Settings| {
            Cage::prepare(&path, settings.clone()).map_err(|error| match error {
                CageError::Program(source) => unusable(source),
                error @ CageError::Layer { .. } => no_cage(error.to_string()),
            })
        };
        let mut cage = prepare(settings)?;
        let mut tried = version(&cage, limits);
        // Huge pages want two more files in the worker's root, and a layer is worth more than speed.
        if settings.huge_pages && matches!(&tried, Err(error) if error.layer == Some(Layer::Namespaces)) {
            cage = prepare(&Settings { huge_pages: false, ..settings.clone() })?;
            tried = version(&cage, limits);
        }
        // Where there are no namespaces to be had, the base stands alone, if that may be.
        if let Err(error) = &tried
            && error.layer == Some(Layer::Namespaces)
            && settings.mode == Mode::Default
        {
            let reason = error.to_string();
            cage = prepare(settings)?.without_namespaces(reason);
            tried = version(&cage, limits);
        }
        let (said, stopped) = match tried {
            Ok(said) => said,
            Err(error) if error.layer.is_some() => return Err(no_cage(error.to_string())),
            Err(error) => return Err(unusable(error.source)),
        };
        if let Some(Stopped::Sandbox(rule)) = stopped {
            return Err(no_cage(format!("asked for its version (-v) it was killed by {rule}")));
        }
        let line = said.lines().next().unwrap_or_default().trim();
        if !(line.starts_with("xsnap ") && line.contains("(XS ")) {
            return Err(LocateError::NotAWorker { path, said: said.chars().take(200).collect() });
        }
        let probe = same_inside_and_outside(&cage, settings, limits).map_err(no_cage)?;
        let (mode, layers, missing) = (cage.mode(), cage.layers(), cage.missing().to_vec());
        let sandbox = Sandboxed { mode, layers, missing, probe };
        let sha256 = cage.program().1.to_string();
        Ok(Self { version: line.to_owned(), path, sha256, sandbox, cage: Arc::new(cage) })
    }
}

/// Tries a script inside and outside the cage, which must make no difference.
fn same_inside_and_outside(cage: &Cage, settings: &Settings, limits: &Limits) -> Result<Option<Probe>, String> {
    let outside = Settings { mode: Mode::Off, ..settings.clone() };
    let outside = Cage::prepare(cage.program().0, outside).map_err(|error| error.to_string())?;
    if settings.mode == Mode::Off {
        return Ok(match probe(&outside, limits) {
            Answer::Found(found) => Some(found),
            Answer::Nothing | Answer::Failed(_) => None,
        });
    }
    // Side by side: neither waits for the other where there are two cores.
    let (inside, outside) = std::thread::scope(|scope| {
        let outside = scope.spawn(|| probe(&outside, limits));
        (probe(cage, limits), outside.join())
    });
    let outside = outside.unwrap_or_else(|_| Answer::Failed("spanwatch has a bug: please report it".to_owned()));
    match (inside, outside) {
        (Answer::Found(inside), Answer::Found(outside)) if inside.agrees_with(&outside) => Ok(Some(inside)),
        (Answer::Nothing, Answer::Nothing) => Ok(None),
        (Answer::Failed(inside), Answer::Failed(outside)) => {
            Err(format!("told to evaluate a script, {inside}; outside the sandbox, {outside}"))
        }
        (Answer::Failed(inside), _) => {
            Err(format!("told to evaluate a script, {inside}, as it does not outside the sandbox"))
        }
        (inside, outside) => Err(format!("a script finds {inside:?} in the sandbox and {outside:?} outside it")),
    }
}

fn nearest(near: &[&Path]) -> Option<PathBuf> {
    near.iter().flat_map(|path| path.ancestors()).find_map(|directory| {
        PACKAGES.iter().map(|package| directory.join(package).join(IN_PACKAGE)).find(|path| path.is_file())
    })
}

/// What the program prints for `-v`, and why it was stopped if it was.
fn version(cage: &Cage, limits: &Limits) -> Result<(String, Option<Stopped>), SpawnError> {
    let limits = Limits { delivery_max: VERSION_TIME_MAX, ..limits.clone() };
    let End { said, stopped, .. } = run_alone(cage, &["-v"], &limits)?;
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
        assert_eq!(nearest(&[&inner]), None);
        let path = dir.path().join("node_modules/@agoric/xsnap").join(IN_PACKAGE);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("make");
        std::fs::write(&path, "").expect("write");
        assert_eq!(nearest(&[&inner]), Some(path));
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
                let found = WorkerProgram::find(&[PathBuf::from(path)], &[], &settings, &Limits::default());
                let error = found.expect_err(path);
                assert!(error.to_string().contains(says), "{error}");
            }
        }
    }
}
