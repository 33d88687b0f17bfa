//! The alignment of two sequences: the elements that belong together.
//!
//! Works on tokens alone: equal tokens are equal elements. Owns the rule that one element more is one difference, not one
//! for each element behind it. It must never take longer than a small multiple of the sequences' length.

use std::collections::HashMap;

/// The fate of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// In both, in order: its index in each.
    Same(usize, usize),
    /// In both, but not in the same order.
    Moved(usize, usize),
    /// Two that stand in the same place and differ.
    Changed(usize, usize),
    /// Only in the first.
    OnlyFirst(usize),
    /// Only in the second.
    OnlySecond(usize),
}

/// More edits than this are not searched for the best way.
const DISTANCE_MAX: usize = 400;

/// Aligns two sequences. `by_place` says whether two that differ may stand for each other, as in an array, or only those
/// with equal tokens may, as with the keys of a map.
#[must_use]
pub fn align(first: &[u64], second: &[u64], by_place: bool) -> Vec<Edit> {
    let prefix = first.iter().zip(second).take_while(|(one, other)| one == other).count();
    let rest = first.len().min(second.len()) - prefix;
    let suffix = first.iter().rev().zip(second.iter().rev()).take(rest).take_while(|(one, other)| one == other).count();
    let mut edits: Vec<Edit> = (0..prefix).map(|at| Edit::Same(at, at)).collect();
    let inner = (&first[prefix..first.len() - suffix], &second[prefix..second.len() - suffix]);
    let same = common(inner.0, inner.1);
    let (mut at_first, mut at_second) = (0, 0);
    let (mut left_first, mut left_second) = (Vec::new(), Vec::new());
    for (next_first, next_second) in same.into_iter().chain([(inner.0.len(), inner.1.len())]) {
        let (gap_first, gap_second) = (next_first - at_first, next_second - at_second);
        let paired = if by_place { gap_first.min(gap_second) } else { 0 };
        for step in 0..paired {
            edits.push(Edit::Changed(prefix + at_first + step, prefix + at_second + step));
        }
        left_first.extend((at_first + paired..next_first).map(|at| prefix + at));
        left_second.extend((at_second + paired..next_second).map(|at| prefix + at));
        if next_first < inner.0.len() || next_second < inner.1.len() {
            edits.push(Edit::Same(prefix + next_first, prefix + next_second));
        }
        (at_first, at_second) = (next_first + 1, next_second + 1);
    }
    pair_moved(first, second, &left_first, left_second, &mut edits);
    edits.extend((0..suffix).rev().map(|back| Edit::Same(first.len() - 1 - back, second.len() - 1 - back)));
    edits
}

/// Those that are left on both sides and equal have moved.
fn pair_moved(first: &[u64], second: &[u64], left_first: &[usize], left_second: Vec<usize>, edits: &mut Vec<Edit>) {
    let mut by_token: HashMap<u64, Vec<usize>> = HashMap::new();
    for at in left_second.iter().rev() {
        by_token.entry(second[*at]).or_default().push(*at);
    }
    let mut moved = std::collections::HashSet::new();
    for at in left_first {
        match by_token.get_mut(&first[*at]).and_then(Vec::pop) {
            Some(to) => {
                moved.insert(to);
                edits.push(Edit::Moved(*at, to));
            }
            None => edits.push(Edit::OnlyFirst(*at)),
        }
    }
    edits.extend(left_second.into_iter().filter(|at| !moved.contains(at)).map(Edit::OnlySecond));
}

/// A longest common subsequence (Myers), or a common subsequence of tokens that occur once in each where that takes long.
fn common(first: &[u64], second: &[u64]) -> Vec<(usize, usize)> {
    if first.is_empty() || second.is_empty() {
        return Vec::new();
    }
    shortest_edit(first, second).unwrap_or_else(|| by_unique_tokens(first, second))
}

fn shortest_edit(first: &[u64], second: &[u64]) -> Option<Vec<(usize, usize)>> {
    let (rows, columns) = (first.len(), second.len());
    let most = DISTANCE_MAX.min(rows + columns);
    // For each diagonal, shifted by `most + 1`: how far in `first` it was reached.
    let shift = most + 1;
    let mut reached = vec![0_usize; 2 * shift + 1];
    let mut history: Vec<Vec<usize>> = Vec::new();
    for distance in 0..=most {
        history.push(reached[shift - distance..=shift + distance].to_vec());
        for step in 0..=distance {
            let diagonal = shift + 2 * step - distance;
            let from_above = 2 * step == 0 || (step != distance && reached[diagonal - 1] < reached[diagonal + 1]);
            let mut row = if from_above { reached[diagonal + 1] } else { reached[diagonal - 1] + 1 };
            // row - column = diagonal - shift
            let mut column = (row + shift).wrapping_sub(diagonal);
            while row < rows && column < columns && first[row] == second[column] {
                (row, column) = (row + 1, column + 1);
            }
            reached[diagonal] = row;
            if row >= rows && column >= columns && row <= rows && column <= columns {
                return Some(walk_back(first, second, &history, distance));
            }
        }
    }
    None
}

fn walk_back(first: &[u64], second: &[u64], history: &[Vec<usize>], distance: usize) -> Vec<(usize, usize)> {
    let (mut row, mut column) = (first.len(), second.len());
    let mut same = Vec::new();
    for distance in (0..=distance).rev() {
        let before = &history[distance];
        // `before` holds the diagonals from -distance to distance.
        let at = |diagonal: isize| before.get(usize::try_from(diagonal + distance as isize).unwrap_or(usize::MAX));
        let diagonal = row as isize - column as isize;
        let (start_row, start_column) = if distance == 0 {
            (0, 0)
        } else {
            let (below, above) = (at(diagonal - 1).copied().unwrap_or(0), at(diagonal + 1).copied().unwrap_or(0));
            let from_above = diagonal == -(distance as isize) || (diagonal != distance as isize && below < above);
            let previous = if from_above { (above, diagonal + 1) } else { (below, diagonal - 1) };
            let previous_column = (previous.0 as isize - previous.1).max(0).unsigned_abs();
            let start = if from_above { (previous.0, previous_column + 1) } else { (previous.0 + 1, previous_column) };
            while row > start.0 && column > start.1 {
                (row, column) = (row - 1, column - 1);
                same.push((row, column));
            }
            (row, column) = (previous.0, previous_column);
            continue;
        };
        while row > start_row && column > start_column {
            (row, column) = (row - 1, column - 1);
            same.push((row, column));
        }
    }
    same.reverse();
    same
}

fn by_unique_tokens(first: &[u64], second: &[u64]) -> Vec<(usize, usize)> {
    let mut places: HashMap<u64, (usize, usize, u32, u32)> = HashMap::new();
    for (at, token) in first.iter().enumerate() {
        let place = places.entry(*token).or_default();
        (place.0, place.2) = (at, place.2 + 1);
    }
    for (at, token) in second.iter().enumerate() {
        let place = places.entry(*token).or_default();
        (place.1, place.3) = (at, place.3 + 1);
    }
    let mut pairs: Vec<(usize, usize)> =
        places.into_values().filter(|place| (place.2, place.3) == (1, 1)).map(|place| (place.0, place.1)).collect();
    pairs.sort_unstable();
    // The longest run that ascends in both: for each length, the pair with the smallest end.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; pairs.len()];
    for (at, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < pair.1);
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut chosen = Vec::new();
    let mut at = ends.last().copied();
    while let Some(pair) = at {
        chosen.push(pairs[pair]);
        at = before[pair];
    }
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn distance(first: &[u64], second: &[u64]) -> usize {
        let mut row: Vec<usize> = (0..=second.len()).collect();
        for (at, one) in first.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = at + 1;
            for (to, other) in second.iter().enumerate() {
                let up = row[to + 1];
                row[to + 1] = if one == other { diagonal } else { 1 + up.min(row[to]) };
                diagonal = up;
            }
        }
        row[second.len()]
    }

    proptest! {
        #[test]
        fn what_is_common_is_in_both_and_the_most(
            first in proptest::collection::vec(0_u64..6, 0..40),
            second in proptest::collection::vec(0_u64..6, 0..40),
        ) {
            let same = common(&first, &second);
            prop_assert!(same.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
            prop_assert!(same.iter().all(|(one, other)| first[*one] == second[*other]));
            prop_assert_eq!(first.len() + second.len() - 2 * same.len(), distance(&first, &second));
            let unique = by_unique_tokens(&first, &second);
            prop_assert!(unique.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
        }

        #[test]
        fn every_element_is_told_once(
            first in proptest::collection::vec(0_u64..9, 0..30),
            second in proptest::collection::vec(0_u64..9, 0..30),
            by_place in any::<bool>(),
        ) {
            let (mut seen_first, mut seen_second) = (vec![0; first.len()], vec![0; second.len()]);
            for edit in align(&first, &second, by_place) {
                let (one, other) = match edit {
                    Edit::Same(one, other) | Edit::Moved(one, other) => {
                        prop_assert_eq!(first[one], second[other]);
                        (Some(one), Some(other))
                    }
                    Edit::Changed(one, other) => (Some(one), Some(other)),
                    Edit::OnlyFirst(one) => (Some(one), None),
                    Edit::OnlySecond(other) => (None, Some(other)),
                };
                one.into_iter().for_each(|one| seen_first[one] += 1);
                other.into_iter().for_each(|other| seen_second[other] += 1);
            }
            prop_assert!(seen_first.iter().chain(&seen_second).all(|seen| *seen == 1));
        }
    }

    #[test]
    fn one_more_in_a_thousand_is_one_edit() {
        let first: Vec<u64> = (0..1000).collect();
        let mut second = first.clone();
        second.insert(500, 7777);
        let edits = align(&first, &second, true);
        let changes: Vec<_> = edits.into_iter().filter(|edit| !matches!(edit, Edit::Same(..))).collect();
        assert_eq!(changes, [Edit::OnlySecond(500)]);
    }

    #[test]
    fn long_and_all_different_ends_soon() {
        let first: Vec<u64> = (0..200_000).collect();
        let second: Vec<u64> = (0..200_000).map(|token| token * 2 + 1).rev().collect();
        assert!(align(&first, &second, true).len() >= 200_000);
    }
}
