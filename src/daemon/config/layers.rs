//! Where values come from, and which of them holds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{ConfigError, DEFAULT, Fault};
use crate::files::regular;

/// The beginning of the names of environment variables.
const PREFIX: &str = "SPANWATCH_";
/// A file with more bytes is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the built-in file.
    Default,
    /// In the operator's file.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
    /// With a flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Values by key (`section.name`), each with where it came from.
#[derive(Debug, Clone)]
pub struct Layers {
    pub(super) values: BTreeMap<String, (Value, Origin)>,
    pub(super) faults: Vec<Fault>,
    unknown: Vec<String>,
}

impl Default for Layers {
    fn default() -> Self {
        let mut layers = Self { values: BTreeMap::new(), faults: Vec::new(), unknown: Vec::new() };
        // The only layer that may bring new keys.
        for (key, value) in leaves(&DEFAULT.parse().unwrap_or_default()) {
            layers.values.insert(key, (value, Origin::Default));
        }
        layers
    }
}

impl Layers {
    /// The default, the file if one is named, and this process's environment.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        if let Some(path) = file {
            let text = read(path).map_err(|error| {
                let problem = format!("unreadable: {error}");
                ConfigError(vec![Fault { what: "the file".to_owned(), origin: Origin::File(path.to_owned()), problem }])
            })?;
            layers.add_text(&text, &Origin::File(path.to_owned()));
        }
        layers.add_environment(std::env::vars_os());
        Ok(layers)
    }

    /// Adds a file's text.
    pub fn add_text(&mut self, text: &str, origin: &Origin) {
        match text.parse::<Table>() {
            Ok(table) => {
                for (key, value) in leaves(&table) {
                    self.put(&key, value, origin.clone());
                }
            }
            Err(error) => self.faults.push(Fault {
                what: "the file".to_owned(),
                origin: origin.clone(),
                problem: format!("not TOML: {}", error.to_string().trim_end().replace('\n', "\n    ")),
            }),
        }
    }

    /// Adds variables whose names stand for keys. Others that begin alike are remembered, for a warning, and no fault: Kubernetes sets
    /// `SPANWATCH_PORT` and more of the kind in each container beside a service of that name.
    pub fn add_environment(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) {
        let keys: BTreeMap<String, String> = self.values.keys().map(|key| (variable(key), key.clone())).collect();
        // Those of other parts of the program.
        const OTHERS: [&str; 4] = ["SPANWATCH_LOG", "SPANWATCH_WORKER", "SPANWATCH_CONFIG", "SPANWATCH_COMMIT"];
        let mut found: Vec<(String, OsString)> = variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX) && !OTHERS.contains(&name.as_str()))
            .collect();
        found.sort();
        for (name, value) in found {
            let origin = Origin::Environment(name.clone());
            match keys.get(&name) {
                Some(key) => {
                    let value = self.like_the_default(key, &value.to_string_lossy());
                    self.put(key, value, origin);
                }
                None => self.unknown.push(name),
            }
        }
    }

    /// Names of variables that begin as ours do and that no key has, sorted.
    #[must_use]
    pub fn unknown_variables(&self) -> &[String] {
        &self.unknown
    }

    /// Sets a value by a flag.
    pub fn set(&mut self, key: &str, value: &str) {
        let value = self.like_the_default(key, value);
        self.put(key, value, Origin::Flag);
    }

    /// Where a value was set.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    fn put(&mut self, key: &str, value: Value, origin: Origin) {
        if self.values.contains_key(key) {
            self.values.insert(key.to_owned(), (value, origin));
        } else {
            let problem = match self.nearest(key) {
                Some(near) => format!("no such key; did you mean {near}?"),
                None => "no such key".to_owned(),
            };
            self.faults.push(Fault { what: key.to_owned(), origin, problem });
        }
    }

    /// Text in the type that the key has in the default, if it can be read so.
    fn like_the_default(&self, key: &str, text: &str) -> Value {
        let parsed = match self.values.get(key).map(|(value, _)| value) {
            Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
            Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
            _ => None,
        };
        parsed.unwrap_or_else(|| Value::String(text.to_owned()))
    }

    fn nearest(&self, key: &str) -> Option<&str> {
        let name = key.rsplit('.').next()?;
        let of_same_name = |known: &&String| known.rsplit('.').next() == Some(name);
        let alike = |known: &&String| {
            known.chars().filter(|letter| !key.contains(*letter)).count() == 0 && known.len().abs_diff(key.len()) <= 2
        };
        self.values.keys().find(of_same_name).or_else(|| self.values.keys().find(alike)).map(String::as_str)
    }

    /// All values as a file, each with where it came from.
    #[must_use]
    pub fn print(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for (key, (value, origin)) in &self.values {
            let (of, name) = key.split_once('.').unwrap_or(("", key));
            if of != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{of}]");
                section = of;
            }
            let _ = writeln!(text, "{name} = {value} # {origin}");
        }
        text
    }
}

fn read(path: &Path) -> io::Result<String> {
    let text = regular::read_to_end(regular::open_named(path)?, FILE_BYTES_MAX)?;
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The name of the variable that stands for a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn leaves(table: &Table) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                leaves.extend(section.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone())));
            }
            other => leaves.push((name.clone(), other.clone())),
        }
    }
    leaves
}
