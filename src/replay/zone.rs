//! Time zones: the offset of a zone from UTC, found without a worker, and the check of a zone's name.
//!
//! Vats can see the local time, so a worker must see the node's. Owns the reading of the system's zone files, by a library and not by the C
//! library that the worker has. It must never take a path for a name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use tz::TimeZone;

use crate::sandbox::ZONES;

/// A zone file has some KiB.
const ZONE_BYTES_MAX: u64 = 1 << 20;
/// Midnight UTC on the first of January and of July 2020, in seconds since 1970.
const MIDNIGHTS: [i64; 2] = [1_577_836_800, 1_593_561_600];

/// Minutes that a zone is behind UTC at local midnight on the first of January and of July 2020, as `getTimezoneOffset`
/// gives them. `None` if this system does not know the zone.
pub(super) fn offsets(zone: &OsStr) -> Option<[i32; 2]> {
    let text = zone.to_str()?;
    let zone = rules(text.strip_prefix(':').unwrap_or(text))?;
    let mut offsets = [0; 2];
    for (offset, midnight) in offsets.iter_mut().zip(MIDNIGHTS) {
        let ahead = |at: i64| zone.find_local_time_type(at).ok().map(|kind| i64::from(kind.ut_offset()));
        let local_midnight = midnight - ahead(midnight)?;
        *offset = i32::try_from(-ahead(local_midnight)? / 60).ok()?;
    }
    Some(offsets)
}

/// As tzset(3) finds them: a file of this name, else rules written out. `UTC` needs neither.
fn rules(name: &str) -> Option<TimeZone> {
    if let Ok(file) = File::open(Path::new(ZONES).join(name))
        && file.metadata().is_ok_and(|facts| facts.is_file())
    {
        let mut bytes = Vec::new();
        file.take(ZONE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        return TimeZone::from_tz_data(&bytes).ok();
    }
    match name {
        "UTC" => Some(TimeZone::utc()),
        rules if rules.contains('/') => None,
        rules => TimeZone::from_posix_tz(rules).ok(),
    }
}

/// Whether a text that somebody else wrote is the name of a zone below the system's directory of zones, and leads to no
/// other file. `UTC` is one on every system.
#[must_use]
pub fn is_zone_name(text: &str) -> bool {
    let name = text.strip_prefix(':').unwrap_or(text);
    name == "UTC" || is_below_zones(name) && Path::new(ZONES).join(name).is_file()
}

/// Whether a text could be such a name on any system.
#[must_use]
pub fn is_below_zones(text: &str) -> bool {
    let name = text.strip_prefix(':').unwrap_or(text);
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/_+-".contains(character);
    !name.is_empty()
        && name.len() <= 255
        && name.chars().all(is_plain)
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_without_a_worker() {
        for (zone, expected) in [
            ("UTC", Some([0, 0])),
            ("America/New_York", Some([300, 240])),
            (":Asia/Kolkata", Some([-330, -330])),
            ("Australia/Lord_Howe", Some([-660, -630])),
            ("EST5EDT,M3.2.0,M11.1.0", Some([300, 240])),
            ("<+0330>-3:30", Some([-210, -210])),
            ("No/Such_Zone", None),
            ("", None),
        ] {
            assert_eq!(offsets(OsStr::new(zone)), expected, "{zone}");
        }
        assert_eq!(offsets(OsStr::new("/usr/share/zoneinfo/Europe/Berlin")), Some([-60, -120]));
        assert_eq!(offsets(OsStr::new("/etc/passwd")), None);
    }

    #[test]
    fn a_name_of_a_zone_leads_nowhere_else() {
        for name in ["UTC", "America/New_York", ":Asia/Kolkata", "Etc/GMT+5"] {
            assert!(is_zone_name(name) && is_below_zones(name), "{name}");
        }
        for text in [
            "",
            ":",
            "/etc/passwd",
            ":/etc/passwd",
            "/usr/share/zoneinfo/UTC",
            "../../../etc/passwd",
            "America/../../../../etc/passwd",
            "America",
            "America/",
            "No/Such_Zone",
            "EST5EDT,M3.2.0,M11.1.0",
            "UTC\nXSBUG_HOST=example.com",
            "UTC\0",
        ] {
            assert!(!is_zone_name(text), "{text:?}");
        }
        assert!(is_below_zones("No/Such_Zone") && !is_below_zones("../UTC") && !is_below_zones("/UTC"));
    }
}
