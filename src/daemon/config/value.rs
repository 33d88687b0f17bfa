//! Values out of their layers, each checked against its range; what is wrong is collected.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Value;

use super::{ConfigError, Fault, Layers, Since};
use crate::units::{parse_duration, parse_size, show_duration, show_size};

/// Reads values and remembers what was wrong with any of them. After a fault it gives a value of no meaning, which nobody
/// sees, as [`Reading::finish`] fails then.
pub(super) struct Reading<'a> {
    layers: &'a Layers,
    faults: Vec<Fault>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(layers: &'a Layers) -> Self {
        Self { layers, faults: layers.faults.clone() }
    }

    pub(super) fn finish(self) -> Result<(), ConfigError> {
        if self.faults.is_empty() { Ok(()) } else { Err(ConfigError(self.faults)) }
    }

    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.faults.iter().any(|fault| fault.what == key)
    }

    pub(super) fn fault(&mut self, key: &str, problem: String) {
        let origin = self.layers.origin(key);
        self.faults.push(Fault { what: key.to_owned(), origin, problem });
    }

    /// A text, made into something; `expected` says what would be right.
    fn text<T>(&mut self, key: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.layers.values.get(key).map(|(value, _)| value);
        let parsed = value.and_then(Value::as_str).and_then(parse);
        if parsed.is_none() {
            let found = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
            self.fault(key, format!("expected {expected}, found {found}"));
        }
        parsed
    }

    fn within<T: PartialOrd>(
        &mut self,
        key: &str,
        value: Option<T>,
        range: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let value = value?;
        if !range.contains(&value) {
            let (found, from, to) = (show(&value), show(range.start()), show(range.end()));
            self.fault(key, format!("{found} is not within {from} and {to}"));
        }
        Some(value)
    }

    /// An empty text is no path.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.text(key, "a path in quotes", |text| Some(PathBuf::from(text))).filter(|path| !path.as_os_str().is_empty())
    }

    pub(super) fn boolean(&mut self, key: &str) -> bool {
        match self.layers.values.get(key).map(|(value, _)| value) {
            Some(Value::Boolean(value)) => *value,
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), Value::to_string);
                self.fault(key, format!("expected true or false, found {found}"));
                false
            }
        }
    }

    pub(super) fn number<T>(&mut self, key: &str, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let value = self.layers.values.get(key).map(|(value, _)| value);
        let number = value.and_then(Value::as_integer).and_then(|number| T::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let found = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
                let (from, to) = range.into_inner();
                self.fault(key, format!("expected a whole number from {from} to {to}, found {found}"));
                from
            }
        }
    }

    pub(super) fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Duration {
        let parsed = self.text(key, "a duration such as \"30s\"", parse_duration);
        self.within(key, parsed, &range, |duration| show_duration(*duration)).unwrap_or_default()
    }

    pub(super) fn size(&mut self, key: &str, range: RangeInclusive<u64>) -> u64 {
        let parsed = self.text(key, "a size such as \"64MiB\"", parse_size);
        self.within(key, parsed, &range, |bytes| show_size(*bytes)).unwrap_or_default()
    }

    pub(super) fn one_of<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> T {
        let expected: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let find = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        self.text(key, &format!("one of {}", expected.join(", ")), find).unwrap_or(words[0].1)
    }

    pub(super) fn zone(&mut self, key: &str) -> String {
        let parse = |text: &str| (!text.contains('\0')).then(|| text.to_owned());
        self.text(key, "a time zone such as \"UTC\" or \"America/New_York\"", parse).unwrap_or_default()
    }

    pub(super) fn since(&mut self, key: &str) -> Since {
        let parse = |text: &str| match text {
            "now" => Some(Since::Now),
            "genesis" => Some(Since::Position(0)),
            number => number.parse().ok().map(Since::Position),
        };
        self.text(key, "\"now\", \"genesis\" or a position such as \"1200\"", parse).unwrap_or(Since::Now)
    }

    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let parse = |text: &str| match text {
            "" => Some(None),
            address => SocketAddr::from_str(address).ok().map(Some),
        };
        self.text(key, "an address and a port such as \"127.0.0.1:9488\"", parse).flatten()
    }

    pub(super) fn filter(&mut self, key: &str) -> String {
        let expected = "a level (off, error, warn, info, debug or trace), or levels by target such as \"info,spanwatch::replay=debug\"";
        self.text(key, expected, |text| crate::log::is_filter(text).then(|| text.to_owned())).unwrap_or_default()
    }
}
