//! From slog entries to transcript items.
//!
//! | entry | part of an item |
//! |---|---|
//! | `deliver` | its position (`deliveryNum`) and `d` (`vd`) |
//! | `syscall`, `syscall-result` | one `{"s":vsc,"r":vsr}` of `sc` |
//! | `deliver-result` | `r`, from `dr` |
//! | `heap-snapshot-save` | the image that `save-snapshot`, and the next span's `load-snapshot`, name |
//!
//! Entries with `replay: true` are of the kernel's own replays. A position comes again where a crank was rolled back or a block was executed
//! again: all its attempts are kept, the last first, and the span's hash decides.
//!
//! Owns the index of attempts: places of texts, no text. It does no I/O and must never print a value again: an item is made of slices.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ring::Place;
use crate::transcript::{Hash256, Items, Position, SpanId, VatId};

/// Entries of one index, with some 100 bytes each. A ring of 100 MiB has about 150,000 that count.
const ENTRIES_MAX: usize = 1 << 20;
/// Attempts of a position that are kept: the last ones.
const ATTEMPTS_MAX: usize = 4;

/// The fields of an entry that an item needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, rename = "vatID")]
    vat: Option<Cow<'a, str>>,
    delivery_num: Option<u64>,
    syscall_num: Option<u32>,
    replay: Option<bool>,
    time: Option<f64>,
    #[serde(borrow)]
    vd: Option<&'a RawValue>,
    #[serde(borrow)]
    vsc: Option<&'a RawValue>,
    #[serde(borrow)]
    vsr: Option<&'a RawValue>,
    #[serde(borrow)]
    dr: Option<&'a RawValue>,
    #[serde(borrow, rename = "snapshotID")]
    snapshot_id: Option<Cow<'a, str>>,
    end_position: Option<u64>,
}

/// A delivery's result: `["ok",null,{"compute":N,…}]` or `["error",…]`.
#[derive(Deserialize)]
struct Metering<'a> {
    #[serde(borrow)]
    compute: Option<&'a RawValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deliver,
    Syscall,
    SyscallResult,
    DeliverResult,
}

/// A text in one of several files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) file: usize,
    pub(crate) place: Place,
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    vat: usize,
    position: Position,
    number: u32,
    kind: Kind,
    at: At,
    time: f64,
}

/// The texts of one complete attempt at a delivery.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) deliver: At,
    pub(crate) syscalls: Vec<(At, At)>,
    pub(crate) result: At,
}

/// An attempt that has not ended yet.
struct Open {
    position: Position,
    deliver: At,
    syscalls: Vec<(At, Option<At>)>,
}

/// The entries of one file, in the order of reading.
#[derive(Debug)]
pub(crate) struct Reading {
    file: usize,
    noted: Vec<Noted>,
    /// Entries that were too many.
    pub(crate) passed_over: u64,
}

/// The complete attempts of all files.
#[derive(Debug, Default)]
pub(crate) struct Index {
    vats: HashMap<VatId, usize>,
    attempts: BTreeMap<(usize, Position), Vec<Attempt>>,
    saves: HashMap<(usize, Position), Vec<Hash256>>,
}

impl Reading {
    pub(crate) fn new(file: usize) -> Self {
        Self { file, noted: Vec::new(), passed_over: 0 }
    }

    /// How many entries are noted.
    pub(crate) fn len(&self) -> usize {
        self.noted.len()
    }

    /// In a ring the reading begins at the header's end, which may not be the last one: the greatest step back in time is the ring's seam.
    pub(crate) fn rotate(&mut self) {
        let count = self.noted.len();
        let step = |index: usize| self.noted[(index + count - 1) % count].time - self.noted[index].time;
        if let Some(seam) = (0..count).max_by(|one, other| step(*one).total_cmp(&step(*other))) {
            self.noted.rotate_left(seam);
        }
    }
}

impl Index {
    /// Notes what an entry says of the positions that are wanted; a text that is no such entry is passed over.
    pub(crate) fn note(
        &mut self,
        reading: &mut Reading,
        text: &[u8],
        place: Place,
        is_wanted: impl Fn(&VatId, Position) -> bool,
    ) {
        let Ok(entry) = serde_json::from_slice::<Entry<'_>>(text) else { return };
        let Some(vat) = entry.vat.as_deref().and_then(VatId::parse) else { return };
        if entry.kind == "heap-snapshot-save" {
            let hash = entry.snapshot_id.as_deref().and_then(Hash256::parse);
            if let Some((position, hash)) = entry.end_position.zip(hash)
                && (is_wanted(&vat, position) || is_wanted(&vat, position.saturating_add(1)))
            {
                if self.saves.len() + reading.noted.len() >= ENTRIES_MAX {
                    reading.passed_over += 1;
                    return;
                }
                let vat = self.number_of(vat);
                let hashes = self.saves.entry((vat, position)).or_default();
                if !hashes.contains(&hash) && hashes.len() < ATTEMPTS_MAX {
                    hashes.push(hash);
                }
            }
            return;
        }
        let (kind, is_complete) = match &*entry.kind {
            "deliver" => (Kind::Deliver, entry.vd.is_some()),
            "syscall" => (Kind::Syscall, entry.vsc.is_some()),
            "syscall-result" => (Kind::SyscallResult, entry.vsr.is_some()),
            "deliver-result" => (Kind::DeliverResult, entry.dr.is_some()),
            _ => return,
        };
        let Some(position) = entry.delivery_num.filter(|_| is_complete && entry.replay != Some(true)) else { return };
        if !is_wanted(&vat, position) {
            return;
        }
        if self.saves.len() + reading.noted.len() >= ENTRIES_MAX {
            reading.passed_over += 1;
            return;
        }
        let number = entry.syscall_num.unwrap_or(0);
        let at = At { file: reading.file, place };
        let time = entry.time.unwrap_or(0.0);
        reading.noted.push(Noted { vat: self.number_of(vat), position, number, kind, at, time });
    }

    fn number_of(&mut self, vat: VatId) -> usize {
        let next = self.vats.len();
        *self.vats.entry(vat).or_insert(next)
    }

    /// Adds the attempts that a file has whole.
    pub(crate) fn add(&mut self, reading: Reading) {
        let mut open: HashMap<usize, Open> = HashMap::new();
        for noted in reading.noted {
            let Noted { vat, position, number, kind, at, .. } = noted;
            if kind == Kind::Deliver {
                open.insert(vat, Open { position, deliver: at, syscalls: Vec::new() });
                continue;
            }
            let Some(attempt) = open.get_mut(&vat).filter(|attempt| attempt.position == position) else { continue };
            let answered = attempt.syscalls.last().is_none_or(|(_, response)| response.is_some());
            match (kind, attempt.syscalls.len()) {
                (Kind::Syscall, count) if answered && number as usize == count => attempt.syscalls.push((at, None)),
                (Kind::SyscallResult, count) if !answered && number as usize + 1 == count => {
                    attempt.syscalls[count - 1].1 = Some(at);
                }
                (Kind::DeliverResult, _) if answered => {
                    let Some(Open { deliver, syscalls, .. }) = open.remove(&vat) else { continue };
                    let syscalls = syscalls.into_iter().filter_map(|(call, answer)| Some((call, answer?))).collect();
                    let attempts = self.attempts.entry((vat, position)).or_default();
                    if attempts.len() == ATTEMPTS_MAX {
                        attempts.remove(0);
                    }
                    attempts.push(Attempt { deliver, syscalls, result: at });
                }
                // An entry is missing between them.
                _ => drop(open.remove(&vat)),
            }
        }
    }

    /// The attempts at a position, the last one first.
    pub(crate) fn attempts(&self, vat: &VatId, position: Position) -> impl Iterator<Item = &Attempt> {
        let attempts = self.vats.get(vat).and_then(|vat| self.attempts.get(&(*vat, position)));
        attempts.into_iter().flatten().rev()
    }

    /// The images that entries say were saved at a position.
    pub(crate) fn saves(&self, vat: &VatId, position: Position) -> &[Hash256] {
        let saves = self.vats.get(vat).and_then(|vat| self.saves.get(&(*vat, position)));
        saves.map_or(&[], Vec::as_slice)
    }

    /// How many positions of a span have an attempt.
    pub(crate) fn count(&self, span: &SpanId) -> u64 {
        let Some(vat) = self.vats.get(&span.vat) else { return 0 };
        self.attempts.range((*vat, span.start)..(*vat, span.end.max(span.start))).count() as u64
    }

    /// Whether a delivery to a vat is known.
    pub(crate) fn knows(&self, vat: &VatId) -> bool {
        self.vats.contains_key(vat)
    }

    /// How many deliveries are known.
    pub(crate) fn len(&self) -> usize {
        self.attempts.len()
    }
}

/// The item of an attempt as the kernel writes it (`getTranscriptEntry` in `vat-warehouse.js`); `None` where a text can't be read or is
/// another one by now.
pub(crate) fn item<E>(
    attempt: &Attempt,
    read: impl Fn(&At) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let places =
        attempt.syscalls.iter().flat_map(|(call, answer)| [call, answer]).chain([&attempt.deliver, &attempt.result]);
    if places.map(|at| at.place.bytes()).sum::<u64>() > Items::BYTES_MAX {
        return Ok(None);
    }
    let mut item = Vec::new();
    let mut add = |at: &At, before: &str, field: fn(&Entry<'_>) -> Option<String>| -> Result<bool, E> {
        let Some(text) = read(at)? else { return Ok(false) };
        let Some(value) = serde_json::from_slice(&text).ok().as_ref().and_then(field) else { return Ok(false) };
        item.extend_from_slice(before.as_bytes());
        item.extend_from_slice(value.as_bytes());
        Ok(true)
    };
    if !add(&attempt.deliver, r#"{"d":"#, |entry| entry.vd.map(|value| value.get().to_owned()))? {
        return Ok(None);
    }
    let mut before = r#","sc":[{"s":"#;
    for (syscall, response) in &attempt.syscalls {
        if !add(syscall, before, |entry| entry.vsc.map(|value| value.get().to_owned()))?
            || !add(response, r#","r":"#, |entry| entry.vsr.map(|value| value.get().to_owned()))?
        {
            return Ok(None);
        }
        before = r#"},{"s":"#;
    }
    let before = if attempt.syscalls.is_empty() { r#","sc":[],"r":"# } else { r#"}],"r":"# };
    if !add(&attempt.result, before, |entry| entry.dr.and_then(result))? {
        return Ok(None);
    }
    item.push(b'}');
    Ok(Some(item))
}

/// The `r` of an item from a `deliver-result`'s `dr`.
fn result(dr: &RawValue) -> Option<String> {
    let parts: Vec<&RawValue> = serde_json::from_str(dr.get()).ok()?;
    let status = parts.first()?.get();
    if status != r#""ok""# {
        return Some(format!(r#"{{"status":{status}}}"#));
    }
    let usage = parts.get(2).filter(|usage| usage.get() != "null");
    let Some(usage) = usage else { return Some(r#"{"status":"ok"}"#.to_owned()) };
    Some(match serde_json::from_str::<Metering<'_>>(usage.get()).ok()?.compute {
        Some(compute) => format!(r#"{{"status":"ok","metering":{{"computrons":{}}}}}"#, compute.get()),
        None => r#"{"status":"ok","metering":{}}"#.to_owned(),
    })
}
