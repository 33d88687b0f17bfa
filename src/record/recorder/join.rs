//! The items of one span from candidates of several kinds, chosen by the span's hash.
//!
//! A position has the attempts of the recorder, the database's own row, and at its ends the items that no entry is about: `initialize-worker`
//! or `load-snapshot` first, `save-snapshot` or `shutdown-worker` last. The combinations are tried, the likeliest first, up to a fixed amount of
//! work. This module must never give items with another hash than the recorded one.

use std::collections::BTreeMap;

use super::entries::{At, Index, item};
use crate::transcript::{Hash256, Items, Position, SpanHasher, SpanId, sha256};

/// Items that are chained in all combinations of one span: about a second of hashing. Tests are not optimized.
const WORK_MAX: usize = if cfg!(test) { 100_000 } else { 4_000_000 };

/// What other sources say of a span's items. All of it is unproved.
#[derive(Debug, Default)]
pub(in crate::record) struct Hints {
    /// Items by position: what is left in the database, and what was captured.
    pub(in crate::record) items: BTreeMap<Position, Vec<u8>>,
    /// The hashes in the rows of `snapshots` before the span and at its end.
    pub(in crate::record) loads: Option<Hash256>,
    /// See `loads`.
    pub(in crate::record) saves: Option<Hash256>,
    /// The items `initialize-worker` that the vat's keys give, the likeliest first.
    pub(in crate::record) initialize: Vec<Vec<u8>>,
}

const SHUTDOWN: &[u8] = br#"{"d":["shutdown-worker"],"sc":[],"r":{"status":"ok"}}"#;

fn load_snapshot(hash: Hash256) -> Vec<u8> {
    format!(r#"{{"d":["load-snapshot",{{"snapshotID":"{hash}"}}],"sc":[],"r":{{"status":"ok"}}}}"#).into_bytes()
}

fn save_snapshot(hash: Hash256) -> Vec<u8> {
    format!(r#"{{"d":["save-snapshot"],"sc":[],"r":{{"status":"ok","snapshotID":"{hash}"}}}}"#).into_bytes()
}

/// The items of a span if some combination of candidates has the recorded hash.
///
/// # Errors
/// Those of `read`.
pub(super) fn items<E>(
    index: &Index,
    span: &SpanId,
    recorded: Hash256,
    mut hints: Hints,
    read: impl Fn(&At) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Items>, E> {
    let mut positions: Vec<Vec<(Hash256, Vec<u8>)>> = Vec::new();
    let mut bytes = 0;
    for position in span.start..span.end {
        let mut candidates: Vec<(Hash256, Vec<u8>)> = Vec::new();
        let mut add = |text: Vec<u8>| {
            let hash = sha256(&text);
            if !candidates.iter().any(|(known, _)| *known == hash) {
                bytes += text.len() as u64 + Items::BYTES_EACH;
                candidates.push((hash, text));
            }
        };
        hints.items.remove(&position).into_iter().for_each(&mut add);
        if position == span.start {
            let before = position.checked_sub(1);
            let noted = before.map_or(&[][..], |before| index.saves(&span.vat, before));
            hints.loads.iter().chain(noted).map(|hash| load_snapshot(*hash)).for_each(&mut add);
            std::mem::take(&mut hints.initialize).into_iter().for_each(&mut add);
        } else {
            for attempt in index.attempts(&span.vat, position) {
                item(attempt, &read)?.into_iter().for_each(&mut add);
            }
            if position + 1 == span.end {
                let noted = index.saves(&span.vat, position);
                hints.saves.iter().chain(noted).map(|hash| save_snapshot(*hash)).for_each(&mut add);
                add(SHUTDOWN.to_vec());
            }
        }
        if candidates.is_empty() || bytes > Items::BYTES_MAX {
            return Ok(None);
        }
        positions.push(candidates);
    }
    Ok(choose(&positions, recorded).map(|chosen| {
        let mut items = Items::default();
        positions.iter().zip(chosen).for_each(|(candidates, at)| items.push(&candidates[at].1));
        items
    }))
}

/// The candidate of each position with which the chain has the recorded hash.
fn choose(positions: &[Vec<(Hash256, Vec<u8>)>], recorded: Hash256) -> Option<Vec<usize>> {
    let mut chosen = vec![0; positions.len()];
    // The hash before each position, as far as it holds for the present choice.
    let mut before = vec![SpanHasher::default()];
    let mut work = 0;
    loop {
        work += positions.len() + 1 - before.len();
        if work > WORK_MAX {
            return None;
        }
        while before.len() <= positions.len() {
            let at = before.len() - 1;
            let mut hasher = before.last()?.clone();
            hasher.add_hash(positions[at][chosen[at]].0);
            before.push(hasher);
        }
        if before.last()?.finish() == recorded {
            return Some(chosen);
        }
        // The last position with a further candidate moves on; those after it begin again.
        let moves = (0..positions.len()).rev().find(|at| chosen[*at] + 1 < positions[*at].len())?;
        chosen[moves] += 1;
        chosen[moves + 1..].fill(0);
        before.truncate(moves + 1);
    }
}
