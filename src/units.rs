//! Durations and sizes as texts: `90s`, `6GiB`. One grammar for the configuration's file, its variables, and the flags.
//!
//! Pure functions without I/O. This module must never import another module, so that all may import it.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

/// A duration such as `90s` or `1h 30m`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// The text of a duration.
pub(crate) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The bytes of a size such as `64MiB`. Only 0 needs no unit.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .or_else(|| (text == "0").then_some(("0", 1)))?;
    number.trim().parse::<u64>().ok()?.checked_mul(factor)
}

/// The text of a size, in the largest unit that leaves a whole number.
pub(crate) fn show_size(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    let (unit, factor) = UNITS[..4].iter().rev().find(fits).copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        for (text, bytes) in [("0B", 0), ("5B", 5), ("64MiB", 64 << 20), ("1025KiB", 1025 << 10), ("3TiB", 3 << 40)] {
            assert_eq!((parse_size(text), show_size(bytes)), (Some(bytes), text.to_owned()));
        }
        for text in ["", "5", "5 parsecs", "MiB", "-1MiB", "1.5GiB", "99999999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        let long = Duration::from_secs(5_400);
        assert_eq!((parse_duration("90m"), show_duration(long)), (Some(long), "1h 30m".to_owned()));
    }
}
