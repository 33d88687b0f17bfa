//! Two sequences of syscalls side by side: which recorded one stands against which replayed one.
//!
//! Owns the pairing: a longest common part stays, within a gap the nth recorded syscall stands against the nth replayed one,
//! and one that is missing here and extra there was moved. It must never say what a difference means: `compare` does.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;

use crate::transcript::canonical;

/// Longer sequences are paired one to one instead of aligned: the search takes time with their length times what differs.
const ALIGN_MAX: usize = 2_000;

/// What became of a syscall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// The same in both.
    Ok,
    /// Another one stands in its place.
    Changed,
    /// Only the record has it.
    Missing,
    /// Only the replay has it.
    Extra,
    /// Made at another place.
    Moved,
    /// The replayed delivery ended before it could come to it.
    NotReached,
}

impl Mark {
    /// The label, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Moved => "moved",
            Self::NotReached => "not_reached",
        }
    }
}

/// A line of two sequences of syscalls side by side: which, from 0, in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aligned {
    /// What became of it.
    pub mark: Mark,
    /// In the record.
    pub recorded: Option<usize>,
    /// In the replay.
    pub replayed: Option<usize>,
}

/// Puts the syscalls of a recorded and of a replayed delivery side by side, by their canonical forms. `ended` is whether the replayed one was cut off.
#[must_use]
pub fn side_by_side(recorded: &[&str], replayed: &[&str], ended: bool) -> Vec<Aligned> {
    let with_keys = |texts: &[&'_ str]| -> Vec<Vec<u8>> {
        texts.iter().map(|text| canonical::canonical(text).unwrap_or_else(|_| text.as_bytes().to_vec())).collect()
    };
    let (one, other) = (with_keys(recorded), with_keys(replayed));
    let agreed = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    let same = (0..agreed).map(|at| Aligned { mark: Mark::Ok, recorded: Some(at), replayed: Some(at) });
    let rest = aligned(&one[agreed..], &other[agreed..], ended).into_iter().map(|row| Aligned {
        recorded: row.recorded.map(|at| at + agreed),
        replayed: row.replayed.map(|at| at + agreed),
        ..row
    });
    same.chain(rest).collect()
}

/// What both have on one stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stretch {
    /// Equal ones: the first in each, and how many.
    Same(usize, usize, usize),
    /// Others: the first in each, and how many in each.
    Gap { recorded: (usize, usize), replayed: (usize, usize) },
}

/// Aligns canonical forms. `ended` is whether the replayed delivery was cut off: what the record has after the last replayed syscall
/// is then unknown, not missing, though one recorded syscall still stands against the one that could not be answered.
pub(super) fn aligned(recorded: &[Vec<u8>], replayed: &[Vec<u8>], ended: bool) -> Vec<Aligned> {
    let mut rows: Vec<Aligned> = Vec::new();
    let row = |mark, recorded, replayed| Aligned { mark, recorded, replayed };
    for stretch in stretches(recorded, replayed) {
        match stretch {
            Stretch::Same(from, to, count) => {
                rows.extend((0..count).map(|at| row(Mark::Ok, Some(from + at), Some(to + at))));
            }
            Stretch::Gap { recorded: (from, missing), replayed: (to, extra) } => {
                let pairs = missing.min(extra);
                rows.extend((0..pairs).map(|at| {
                    // Only where there was too much to align can a pair be equal.
                    let is_same = recorded[from + at] == replayed[to + at];
                    row(if is_same { Mark::Ok } else { Mark::Changed }, Some(from + at), Some(to + at))
                }));
                let is_last = from + missing == recorded.len() && to + extra == replayed.len();
                let mark = if is_last && ended { Mark::NotReached } else { Mark::Missing };
                rows.extend((pairs..missing).map(|at| row(mark, Some(from + at), None)));
                rows.extend((pairs..extra).map(|at| row(Mark::Extra, None, Some(to + at))));
            }
        }
    }
    join_moved(recorded, replayed, &mut rows);
    rows
}

/// The longest common part and the gaps between, in order; one gap where either side is too long.
fn stretches(recorded: &[Vec<u8>], replayed: &[Vec<u8>]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let add_gap = |stretches: &mut Vec<Stretch>, from: (usize, usize), to: (usize, usize)| {
        if from != to {
            stretches.push(Stretch::Gap { recorded: (from.0, to.0 - from.0), replayed: (from.1, to.1 - from.1) });
        }
    };
    let mut done = (0, 0);
    for step in align(recorded, replayed) {
        if let Step::Both(from, to) = step {
            add_gap(&mut stretches, done, (from, to));
            stretches.push(Stretch::Same(from, to, 1));
            done = (from + 1, to + 1);
        }
    }
    add_gap(&mut stretches, done, (recorded.len(), replayed.len()));
    stretches
}

/// One step of an alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Both(usize, usize),
    Recorded(usize),
    Replayed(usize),
}

/// Aligns two sequences along a longest common subsequence.
fn align(recorded: &[Vec<u8>], replayed: &[Vec<u8>]) -> Vec<Step> {
    // Equal numbers for equal values.
    let mut numbers: HashMap<&[u8], usize> = HashMap::new();
    for key in recorded.iter().chain(replayed) {
        let next = numbers.len();
        numbers.entry(key).or_insert(next);
    }
    let one: Vec<usize> = recorded.iter().map(|key| numbers[&key[..]]).collect();
    let other: Vec<usize> = replayed.iter().map(|key| numbers[&key[..]]).collect();
    let (rows, columns) = (one.len(), other.len());
    if rows > ALIGN_MAX || columns > ALIGN_MAX {
        let unpaired = (0..rows).map(Step::Recorded).chain((0..columns).map(Step::Replayed));
        return unpaired.collect();
    }
    // lengths[i][j]: the longest common subsequence of what follows i and j.
    let mut lengths = vec![0_u16; (rows + 1) * (columns + 1)];
    let at = |row: usize, column: usize| row * (columns + 1) + column;
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            lengths[at(row, column)] = if one[row] == other[column] {
                lengths[at(row + 1, column + 1)] + 1
            } else {
                lengths[at(row + 1, column)].max(lengths[at(row, column + 1)])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut steps = Vec::with_capacity(rows + columns);
    while row < rows || column < columns {
        if row < rows && column < columns && one[row] == other[column] {
            steps.push(Step::Both(row, column));
            (row, column) = (row + 1, column + 1);
        } else if column == columns || row < rows && lengths[at(row + 1, column)] >= lengths[at(row, column + 1)] {
            steps.push(Step::Recorded(row));
            row += 1;
        } else {
            steps.push(Step::Replayed(column));
            column += 1;
        }
    }
    steps
}

/// What is missing here and extra there was moved.
fn join_moved(recorded: &[Vec<u8>], replayed: &[Vec<u8>], rows: &mut Vec<Aligned>) {
    let mut extra: HashMap<&[u8], VecDeque<usize>> = HashMap::new();
    for row in rows.iter().filter(|row| row.mark == Mark::Extra) {
        let to = row.replayed.unwrap_or_default();
        extra.entry(&replayed[to]).or_default().push_back(to);
    }
    let mut moved = HashSet::new();
    for row in rows.iter_mut().filter(|row| row.mark == Mark::Missing) {
        let from = row.recorded.unwrap_or_default();
        if let Some(to) = extra.get_mut(&recorded[from][..]).and_then(VecDeque::pop_front) {
            (row.mark, row.replayed) = (Mark::Moved, Some(to));
            moved.insert(to);
        }
    }
    rows.retain(|row| row.mark != Mark::Extra || row.replayed.is_none_or(|to| !moved.contains(&to)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn side_by_side_shows_all_of_both() {
        let marks = |recorded: &[&str], replayed: &[&str], ended| -> Vec<(Mark, Option<usize>, Option<usize>)> {
            let rows = side_by_side(recorded, replayed, ended).into_iter();
            rows.map(|row| (row.mark, row.recorded, row.replayed)).collect()
        };
        assert_eq!(
            marks(&["1", "2", "3", "4"], &["1", "3", "5"], false),
            [
                (Mark::Ok, Some(0), Some(0)),
                (Mark::Missing, Some(1), None),
                (Mark::Ok, Some(2), Some(1)),
                (Mark::Changed, Some(3), Some(2)),
            ]
        );
        assert_eq!(
            marks(&["1", "2", "3"], &["9"], true),
            [(Mark::Changed, Some(0), Some(0)), (Mark::NotReached, Some(1), None), (Mark::NotReached, Some(2), None)]
        );
        assert_eq!(
            marks(&["1", "2"], &["2", "1", "3"], false),
            [(Mark::Moved, Some(0), Some(1)), (Mark::Ok, Some(1), Some(0)), (Mark::Extra, None, Some(2))]
        );
    }

    proptest! {
        /// The longest common part is kept, so no alignment has fewer rows that differ.
        #[test]
        fn each_is_in_one_row_and_the_longest_common_part_is_kept(
            recorded in prop::collection::vec("[abcd]", 0..20),
            replayed in prop::collection::vec("[abcd]", 0..20),
        ) {
            let keys = |of: &[String]| of.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
            let (one, other) = (keys(&recorded), keys(&replayed));
            let rows = aligned(&one, &other, false);
            let mut seen: (Vec<usize>, Vec<usize>) = rows.iter().fold(Default::default(), |mut seen, row| {
                seen.0.extend(row.recorded);
                seen.1.extend(row.replayed);
                seen
            });
            seen.0.sort_unstable();
            seen.1.sort_unstable();
            prop_assert_eq!(seen, ((0..one.len()).collect(), (0..other.len()).collect()));
            let mut lengths = vec![vec![0; other.len() + 1]; one.len() + 1];
            for (row, left) in one.iter().enumerate() {
                for (column, right) in other.iter().enumerate() {
                    lengths[row + 1][column + 1] = if left == right {
                        lengths[row][column] + 1
                    } else {
                        lengths[row][column + 1].max(lengths[row + 1][column])
                    };
                }
            }
            let same = rows.iter().filter(|row| row.mark == Mark::Ok).count();
            prop_assert_eq!(same, lengths[one.len()][other.len()]);
        }
    }

    #[test]
    fn the_longest_sequences_take_no_time() {
        let numbers =
            |factor: usize| (0..ALIGN_MAX).map(|at| (at * factor % 1_999).to_string().into_bytes()).collect::<Vec<_>>();
        let begun = std::time::Instant::now();
        assert!(aligned(&numbers(1), &numbers(7), false).len() >= ALIGN_MAX);
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
