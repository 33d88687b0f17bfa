//! Comparing one delivery: what the vat asks while it runs, against what it asked when it was recorded.
//!
//! *Verified*: each syscall (canonical equality), their order and their number. Status, computrons and the snapshot
//! hash are compared by the session. *Not verified*: the responses, which are the kernel's word and are given to the
//! vat as recorded; console output and allocation figures, which the kernel does not record.
//!
//! After a mismatch the delivery goes on as far as it can be answered honestly: a syscall that stands elsewhere in the
//! record gets that response, one that always gets the same response gets that; anything else ends the delivery.
//!
//! No I/O and no clock.

use std::collections::{HashMap, VecDeque};

use crate::transcript::Syscall;
use crate::transcript::canonical::{self, CanonicalError};
use crate::verdict::{Finding, FindingKind, excerpts};

/// The response to each syscall that returns nothing (`swingset-vat/src/kernel/kernelSyscall.js`).
const NOTHING: &str = "[\"ok\",null]";

/// Syscalls whose response is always [`NOTHING`].
const RETURN_NOTHING: [&str; 10] = [
    "send",
    "subscribe",
    "resolve",
    "exit",
    "vatstoreSet",
    "vatstoreDelete",
    "dropImports",
    "retireImports",
    "retireExports",
    "abandonExports",
];

/// A delivery that makes more syscalls than this beyond the recorded ones ends there.
const UNRECORDED_MAX: usize = 1_000;
/// A delivery ends when the syscalls from the first mismatch on have more text than this.
const REPLAYED_BYTES_MAX: usize = 64 << 20;
/// Longer sequences are paired one to one instead of aligned.
const ALIGN_MAX: usize = 2_000;

/// The syscalls of one delivery, as they are compared.
#[derive(Debug)]
pub struct SyscallCheck<'a> {
    recorded: &'a [Syscall<'a>],
    /// How many were replayed exactly as recorded from the start on.
    agreed: usize,
    /// From the first one that differed.
    after: Option<AfterMismatch>,
}

#[derive(Debug)]
struct AfterMismatch {
    /// The recorded syscalls from `agreed` on in canonical form, and where each is still to be answered.
    recorded: Vec<Vec<u8>>,
    unanswered: HashMap<Vec<u8>, VecDeque<usize>>,
    /// The replayed ones from there on, as text and in canonical form.
    replayed: Vec<(String, Vec<u8>)>,
    /// Bytes of their text.
    bytes: usize,
    /// How many had no counterpart in the record.
    unrecorded: usize,
    /// Set when a syscall could not be answered.
    ended: bool,
}

impl AfterMismatch {
    fn new(recorded: &[Syscall<'_>]) -> Self {
        // A record that is no JSON never gets this far, but nests as deeply as it likes.
        let key = |syscall: &Syscall<'_>| canonical::canonical(syscall.request()).unwrap_or_default();
        let recorded: Vec<Vec<u8>> = recorded.iter().map(key).collect();
        let mut unanswered: HashMap<Vec<u8>, VecDeque<usize>> = HashMap::new();
        for (at, key) in recorded.iter().enumerate() {
            unanswered.entry(key.clone()).or_default().push_back(at);
        }
        Self { recorded, unanswered, replayed: Vec::new(), bytes: 0, unrecorded: 0, ended: false }
    }
}

impl<'a> SyscallCheck<'a> {
    /// Begins a delivery.
    #[must_use]
    pub fn new(recorded: &'a [Syscall<'a>]) -> Self {
        Self { recorded, agreed: 0, after: None }
    }

    /// How many syscalls the vat has made.
    #[must_use]
    pub fn count(&self) -> usize {
        self.agreed + self.after.as_ref().map_or(0, |after| after.replayed.len())
    }

    /// Takes the next syscall and gives the response to answer it with; `None` if no response would be honest.
    ///
    /// # Errors
    /// When what was replayed is no syscall at all.
    pub fn next(&mut self, replayed: &str) -> Result<Option<&'a str>, CanonicalError> {
        if self.after.is_none()
            && let Some(recorded) = self.recorded.get(self.agreed)
            && recorded.request() == replayed
        {
            self.agreed += 1;
            return Ok(Some(recorded.response()));
        }
        let key = canonical::canonical(replayed)?;
        if self.after.is_none()
            && let Some(recorded) = self.recorded.get(self.agreed)
            && canonical::canonical(recorded.request()).is_ok_and(|recorded| recorded == key)
        {
            self.agreed += 1;
            return Ok(Some(recorded.response()));
        }
        let rest = &self.recorded[self.agreed..];
        let after = self.after.get_or_insert_with(|| AfterMismatch::new(rest));
        let found = after.unanswered.get_mut(&key).and_then(VecDeque::pop_front);
        after.bytes += replayed.len();
        after.replayed.push((replayed.to_owned(), key));
        if after.bytes > REPLAYED_BYTES_MAX {
            after.ended = true;
            return Ok(None);
        }
        if let Some(found) = found {
            return Ok(Some(rest[found].response()));
        }
        after.unrecorded += 1;
        let returns_nothing = RETURN_NOTHING.iter().any(|name| replayed.starts_with(&format!("[\"{name}\"")));
        if returns_nothing && after.unrecorded <= UNRECORDED_MAX {
            return Ok(Some(NOTHING));
        }
        after.ended = true;
        Ok(None)
    }

    /// Ends the delivery and says what differed. `completed` is whether the vat finished it: if it did not, recorded
    /// syscalls that it never came to are not missing.
    #[must_use]
    pub fn finish(self, completed: bool) -> Vec<SyscallFinding> {
        let rest = &self.recorded[self.agreed..];
        if self.after.is_none() && (!completed || rest.is_empty()) {
            return Vec::new();
        }
        let after = self.after.unwrap_or_else(|| AfterMismatch::new(rest));
        let recorded = rest.iter().map(Syscall::request).zip(after.recorded).collect::<Vec<_>>();
        findings(&recorded, &after.replayed, self.agreed, after.ended || !completed)
    }
}

/// A difference in the syscalls of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallFinding {
    kind: FindingKind,
    /// Number of the syscall in its delivery, from 0: in the record, or for an extra one in the replay.
    index: usize,
    recorded: Option<String>,
    replayed: Option<String>,
    /// For one that was made at another place: where, in the replay.
    moved_to: Option<usize>,
}

impl SyscallFinding {
    /// As a finding at the delivery's position.
    #[must_use]
    pub fn at(self, position: u64) -> Finding {
        let (recorded, replayed) = match self.moved_to {
            // The same text on both sides: where it stood is the difference.
            Some(to) => (
                Some(format!("as syscall {}: {}", self.index, self.recorded.unwrap_or_default())),
                Some(format!("as syscall {to}: {}", self.replayed.unwrap_or_default())),
            ),
            None => (self.recorded, self.replayed),
        };
        let (recorded, replayed) = excerpts(recorded.as_deref(), replayed.as_deref());
        Finding { kind: self.kind, position, syscall: Some(self.index), recorded, replayed }
    }
}

/// One step of an alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Both,
    Recorded(usize),
    Replayed(usize),
}

fn findings(
    recorded: &[(&str, Vec<u8>)],
    replayed: &[(String, Vec<u8>)],
    first: usize,
    ended: bool,
) -> Vec<SyscallFinding> {
    let steps = align(recorded, replayed);
    // Where the delivery was cut off, what the record has after the last replayed syscall is unknown, not missing. One
    // recorded syscall still stands against the one that could not be answered.
    let last_replayed = steps.iter().rposition(|step| !matches!(step, Step::Recorded(_)));
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    let mut gap: (Vec<usize>, Vec<usize>) = Default::default();
    let mut close = |gap: &mut (Vec<usize>, Vec<usize>), is_last: bool| {
        let pairs = gap.0.len().min(gap.1.len());
        // Only where there was too much to align can a pair be equal.
        found.extend(
            gap.0.iter().copied().zip(gap.1.iter().copied()).filter(|(from, to)| recorded[*from].1 != replayed[*to].1),
        );
        if !(is_last && ended) {
            missing.extend(gap.0.drain(pairs..));
        }
        extra.extend(gap.1.drain(pairs..));
        *gap = Default::default();
    };
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Both => close(&mut gap, last_replayed.is_none_or(|last| at > last)),
            Step::Recorded(index) => gap.0.push(*index),
            Step::Replayed(index) => gap.1.push(*index),
        }
    }
    close(&mut gap, true);
    let mut findings: Vec<SyscallFinding> = found
        .into_iter()
        .map(|(from, to)| SyscallFinding {
            kind: FindingKind::Syscall,
            index: first + from,
            recorded: Some(recorded[from].0.to_owned()),
            replayed: Some(replayed[to].0.clone()),
            moved_to: None,
        })
        .collect();
    for from in missing {
        let moved = extra.iter().position(|to| recorded[from].1 == replayed[*to].1);
        let to = moved.map(|at| extra.remove(at));
        findings.push(SyscallFinding {
            kind: if to.is_some() { FindingKind::Syscall } else { FindingKind::MissingSyscall },
            index: first + from,
            recorded: Some(recorded[from].0.to_owned()),
            replayed: to.map(|to| replayed[to].0.clone()),
            moved_to: to.map(|to| first + to),
        });
    }
    findings.extend(extra.into_iter().map(|to| SyscallFinding {
        kind: FindingKind::ExtraSyscall,
        index: first + to,
        recorded: None,
        replayed: Some(replayed[to].0.clone()),
        moved_to: None,
    }));
    findings.sort_by_key(|finding| finding.index);
    findings
}

/// Aligns two sequences along a longest common subsequence.
fn align(recorded: &[(&str, Vec<u8>)], replayed: &[(String, Vec<u8>)]) -> Vec<Step> {
    // Equal numbers for equal values.
    let mut numbers: HashMap<&[u8], usize> = HashMap::new();
    let keys = recorded.iter().map(|(_, key)| key).chain(replayed.iter().map(|(_, key)| key));
    for key in keys {
        let next = numbers.len();
        numbers.entry(key).or_insert(next);
    }
    let one: Vec<usize> = recorded.iter().map(|(_, key)| numbers[&key[..]]).collect();
    let other: Vec<usize> = replayed.iter().map(|(_, key)| numbers[&key[..]]).collect();
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
            steps.push(Step::Both);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(key: &str) -> String {
        format!(r#"["vatstoreGet","{key}"]"#)
    }

    fn set(key: &str) -> String {
        format!(r#"["vatstoreSet","{key}","1"]"#)
    }

    /// Runs a replay against a record whose responses name their syscall; gives the answers and a line a finding.
    fn check(recorded: &[String], replayed: &[String]) -> (Vec<Option<String>>, Vec<String>) {
        let texts: Vec<String> =
            recorded.iter().enumerate().map(|(n, text)| format!(r#"{{"s":{text},"r":["ok","{n}"]}}"#)).collect();
        let syscalls: Vec<Syscall<'_>> = texts.iter().map(|text| serde_json::from_str(text).expect("json")).collect();
        let mut check = SyscallCheck::new(&syscalls);
        let mut answers = Vec::new();
        for text in replayed {
            let answer = check.next(text).expect("a syscall").map(str::to_owned);
            answers.push(answer.clone());
            if answer.is_none() {
                break;
            }
        }
        let completed = answers.last().is_none_or(Option::is_some);
        let findings = check.finish(completed).into_iter().map(|finding| {
            let name =
                |text: Option<String>| text.map_or("-".into(), |text| text.split('"').nth(3).unwrap_or("?").to_owned());
            let moved = finding.moved_to.map(|to| format!(" to {to}")).unwrap_or_default();
            format!(
                "{} {} {}/{}{moved}",
                finding.kind.label(),
                finding.index,
                name(finding.recorded),
                name(finding.replayed)
            )
        });
        (answers, findings.collect())
    }

    fn calls(names: &str) -> Vec<String> {
        names.split(' ').filter(|name| !name.is_empty()).map(set).collect()
    }

    #[test]
    fn the_same_again_has_no_finding() {
        let (answers, findings) = check(&calls("a b c"), &calls("a b c"));
        assert_eq!(answers, ["0", "1", "2"].map(|n| Some(format!(r#"["ok","{n}"]"#))));
        assert_eq!(findings, [""; 0]);
    }

    #[test]
    fn each_difference_is_named() {
        for (recorded, replayed, says) in [
            ("a b c", "a x c", vec!["syscall 1 b/x"]),
            ("a b c", "a c", vec!["missing_syscall 1 b/-"]),
            ("a b c", "a b", vec!["missing_syscall 2 c/-"]),
            ("a b c", "a b c d", vec!["extra_syscall 3 -/d"]),
            ("a c", "a b c", vec!["extra_syscall 1 -/b"]),
            ("a b c", "b a c", vec!["syscall 0 a/a to 1"]),
            ("a b c d", "x b c y", vec!["syscall 0 a/x", "syscall 3 d/y"]),
            ("a a a", "a a", vec!["missing_syscall 2 a/-"]),
            ("", "a", vec!["extra_syscall 0 -/a"]),
            ("a", "", vec!["missing_syscall 0 a/-"]),
        ] {
            let (answers, findings) = check(&calls(recorded), &calls(replayed));
            assert!(answers.iter().all(Option::is_some), "{recorded} | {replayed}");
            assert_eq!(findings, says, "{recorded} | {replayed}");
        }
    }

    #[test]
    fn a_read_that_the_record_has_elsewhere_is_answered_from_there() {
        let (answers, findings) = check(&[get("a"), get("b")], &[get("b"), get("a")]);
        assert_eq!(answers, [Some(r#"["ok","1"]"#.to_owned()), Some(r#"["ok","0"]"#.to_owned())]);
        assert_eq!(findings, ["syscall 0 a/a to 1"]);
    }

    #[test]
    fn a_read_that_the_record_does_not_have_ends_the_delivery() {
        let (answers, findings) = check(&[set("a"), get("b"), set("c")], &[set("a"), get("x"), set("c")]);
        assert_eq!(answers[1], None);
        assert_eq!(findings, ["syscall 1 b/x"], "c was never come to, so it is not missing");
    }

    #[test]
    fn a_worker_that_dies_has_no_missing_syscalls() {
        let texts = [r#"{"s":["exit"],"r":["ok",null]}"#];
        let syscalls: Vec<Syscall<'_>> = texts.iter().map(|text| serde_json::from_str(text).expect("json")).collect();
        assert_eq!(SyscallCheck::new(&syscalls).finish(false), []);
        assert_eq!(SyscallCheck::new(&syscalls).finish(true).len(), 1);
    }

    #[test]
    fn a_flood_of_syscalls_ends() {
        let flood: Vec<String> = (0..=UNRECORDED_MAX).map(|n| set(&n.to_string())).collect();
        let (answers, _) = check(&[], &flood);
        assert_eq!(answers.iter().filter(|answer| answer.is_some()).count(), UNRECORDED_MAX);
    }

    proptest! {
        #[test]
        fn a_replay_agrees_exactly_when_it_is_the_same(
            recorded in prop::collection::vec("[abc]", 0..12),
            replayed in prop::collection::vec("[abc]", 0..12),
        ) {
            let (recorded, replayed) = (calls(&recorded.join(" ")), calls(&replayed.join(" ")));
            let (_, findings) = check(&recorded, &replayed);
            prop_assert_eq!(findings.is_empty(), recorded == replayed);
        }

        #[test]
        fn a_single_change_is_found_where_it_is(length in 1..20_usize, at in any::<prop::sample::Index>()) {
            let recorded: Vec<String> = (0..length).map(|n| set(&n.to_string())).collect();
            let mut replayed = recorded.clone();
            let at = at.index(length);
            replayed[at] = set("changed");
            let (_, findings) = check(&recorded, &replayed);
            prop_assert_eq!(findings, [format!("syscall {at} {at}/changed")]);
        }
    }
}
