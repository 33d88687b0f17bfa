//! Which worker: where it is found and which version it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::transcript::Hash256;

/// The variable that names the worker.
pub const WORKER_VARIABLE: &str = "SPANWATCH_WORKER";

/// Where `@agoric/xsnap` puts the worker that it compiles.
const IN_PACKAGE: &str = "xsnap-native/xsnap/build/bin/lin/release/xsnap-worker";
/// Where the package is, seen from a directory that may hold it.
const PACKAGES: [&str; 3] = ["node_modules/@agoric/xsnap", "packages/xsnap", "agoric-sdk/packages/xsnap"];

const VERSION_TIME_MAX: Duration = Duration::from_secs(10);
const VERSION_BYTES_MAX: u64 = 4 * 1024;

/// A worker's program and what identifies it.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerProgram {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself: `xsnap 0.15.0 (XS 13.3.0)`.
    pub version: String,
    /// sha256 of the file.
    pub sha256: String,
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
    /// The workers to use: those that are named, else the one in the environment, else the nearest one.
    ///
    /// # Errors
    /// When there is none, or one of those named is no worker.
    pub fn find(named: &[PathBuf], near: &[&Path]) -> Result<Vec<Self>, LocateError> {
        let from_environment = std::env::var_os(WORKER_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let paths = if !named.is_empty() {
            named.to_vec()
        } else if let Some(path) = from_environment.or_else(|| nearest(near)) {
            vec![path]
        } else {
            let near: Vec<String> = near.iter().map(|path| path.display().to_string()).collect();
            return Err(LocateError::NotFound(near.join(" and ")));
        };
        paths.iter().map(|path| Self::identify(path)).collect()
    }

    fn identify(path: &Path) -> Result<Self, LocateError> {
        let unusable = |source| LocateError::Unusable { path: path.to_owned(), source };
        let path = path.canonicalize().map_err(unusable)?;
        let sha256 = hash_file(&path).map_err(unusable)?.to_string();
        let said = version(&path).map_err(unusable)?;
        let line = said.lines().next().unwrap_or_default().trim();
        if !(line.starts_with("xsnap ") && line.contains("(XS ")) {
            return Err(LocateError::NotAWorker { path, said: said.chars().take(200).collect() });
        }
        Ok(Self { version: line.to_owned(), path, sha256 })
    }
}

fn nearest(near: &[&Path]) -> Option<PathBuf> {
    near.iter().flat_map(|path| path.ancestors()).find_map(|directory| {
        PACKAGES.iter().map(|package| directory.join(package).join(IN_PACKAGE)).find(|path| path.is_file())
    })
}

fn hash_file(path: &Path) -> io::Result<Hash256> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Hash256::from_digest(hasher)),
            read => hasher.update(&chunk[..read]),
        }
    }
}

/// What the program prints for `-v`, within limits of time and size.
fn version(path: &Path) -> io::Result<String> {
    let mut child = Command::new(path)
        .arg("-v")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take(VERSION_BYTES_MAX).read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    let deadline = Instant::now() + VERSION_TIME_MAX;
    while child.try_wait()?.is_none() && !reader.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill()?;
    child.wait()?;
    // A program that left its output open with a child of its own is not waited for.
    while !reader.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    if reader.is_finished() { Ok(reader.join().unwrap_or_default()) } else { Ok(String::new()) }
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
            ("/bin/cat", "is not an xsnap worker"),
            ("/etc/passwd", "failed to use /etc/passwd as a worker"),
            ("/no/such/file", "failed to use /no/such/file as a worker"),
        ] {
            let error = WorkerProgram::find(&[PathBuf::from(path)], &[]).expect_err(path);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
