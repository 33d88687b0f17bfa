//! Comparing one delivery: what the vat asks while it runs, against what it asked when it was recorded.
//!
//! *Verified*: each syscall (canonical equality), their order and their number. Status, computrons and the snapshot
//! hash are compared by the session. *Not verified*: the responses, which are the kernel's word and are given to the
//! vat as recorded; console output and allocation figures, which the kernel does not record.
//!
//! After a mismatch the delivery goes on as far as it can be answered honestly: a syscall that stands elsewhere in the
//! record gets that response; one that always gets the same response gets that; a read of a key whose value this span's
//! record tells gets that value, marked as inferred; anything else ends the delivery.
//!
//! No I/O and no clock.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use serde_json::value::RawValue;

use super::align::{Mark, aligned};
use super::trace::{Answer, TracedSyscall};
use crate::transcript::canonical::{self, CanonicalError};
use crate::transcript::{Item, Position, Syscall};
use crate::verdict::{Finding, FindingClass, FindingKind, SyscallNames};

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
/// A longer name of a syscall, which no kernel knows, is cut.
const NAME_CHARS: usize = 64;
/// A delivery ends when the syscalls from the first mismatch on have more text than this.
const REPLAYED_BYTES_MAX: usize = 64 << 20;

/// The syscalls of one delivery, as they are compared.
#[derive(Debug)]
pub struct SyscallCheck<'a> {
    recorded: &'a [Syscall<'a>],
    /// The deliveries of the span before this one: they tell what the vat's store holds.
    before: &'a [(Position, Item<'a>)],
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
    /// The replayed ones from there on, and each in canonical form.
    replayed: Vec<TracedSyscall>,
    keys: Vec<Vec<u8>>,
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
        Self { recorded, unanswered, replayed: Vec::new(), keys: Vec::new(), bytes: 0, unrecorded: 0, ended: false }
    }
}

impl<'a> SyscallCheck<'a> {
    /// Begins a delivery; `before` are those of the span before it.
    #[must_use]
    pub fn new(recorded: &'a [Syscall<'a>], before: &'a [(Position, Item<'a>)]) -> Self {
        Self { recorded, before, agreed: 0, after: None }
    }

    /// How many syscalls the vat has made.
    #[must_use]
    pub fn count(&self) -> usize {
        self.agreed + self.after.as_ref().map_or(0, |after| after.replayed.len())
    }

    /// Whether all of them were as recorded.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.after.is_none()
    }

    /// Takes the next syscall and gives the response to answer it with; `None` if no response would be honest.
    ///
    /// # Errors
    /// When what was replayed is no syscall at all.
    pub fn next(&mut self, replayed: &str) -> Result<Option<Cow<'a, str>>, CanonicalError> {
        if self.after.is_none()
            && let Some(recorded) = self.recorded.get(self.agreed)
            && recorded.request() == replayed
        {
            self.agreed += 1;
            return Ok(Some(Cow::Borrowed(recorded.response())));
        }
        let key = canonical::canonical(replayed)?;
        if self.after.is_none()
            && let Some(recorded) = self.recorded.get(self.agreed)
            && canonical::canonical(recorded.request()).is_ok_and(|recorded| recorded == key)
        {
            self.agreed += 1;
            return Ok(Some(Cow::Borrowed(recorded.response())));
        }
        let rest = &self.recorded[self.agreed..];
        let after = self.after.get_or_insert_with(|| AfterMismatch::new(rest));
        let found = after.unanswered.get_mut(&key).and_then(VecDeque::pop_front);
        after.bytes += replayed.len();
        after.unrecorded += usize::from(found.is_none());
        let is_too_much = after.bytes > REPLAYED_BYTES_MAX || after.unrecorded > UNRECORDED_MAX;
        let returns_nothing = RETURN_NOTHING.iter().any(|name| replayed.starts_with(&format!("[\"{name}\"")));
        let (answer, response) = match found {
            _ if is_too_much => (Answer::None, None),
            Some(found) => (Answer::Recorded, Some(Cow::Borrowed(rest[found].response()))),
            None if returns_nothing => (Answer::Nothing, Some(Cow::Borrowed(NOTHING))),
            None => match self.infer(replayed) {
                Some(response) => (Answer::Inferred, Some(Cow::Owned(response))),
                None => (Answer::None, None),
            },
        };
        if let Some(after) = &mut self.after {
            after.ended = response.is_none();
            after.keys.push(key);
            after.replayed.push(TracedSyscall {
                request: replayed.to_owned(),
                response: response.as_deref().map(str::to_owned),
                answer,
            });
        }
        Ok(response)
    }

    /// The response to a read of a key whose value this span's record tells: nobody but the vat itself writes it.
    fn infer(&self, read: &str) -> Option<String> {
        let key = argument_of(read, "vatstoreGet")?;
        let replayed = self.after.iter().flat_map(|after| after.replayed.iter().rev());
        let replayed = replayed.map(|syscall| (&syscall.request[..], syscall.response.as_deref().unwrap_or_default()));
        let recorded =
            |syscalls: &'a [Syscall<'a>]| syscalls.iter().rev().map(|syscall| (syscall.request(), syscall.response()));
        let before = self.before.iter().rev().flat_map(|(_, item)| recorded(&item.syscalls));
        replayed
            .chain(recorded(&self.recorded[..self.agreed]))
            .chain(before)
            .find_map(|(request, response)| value_after(request, response, key))
    }

    /// Ends the delivery and says what differed. `completed` is whether the vat finished it: if it did not, recorded
    /// syscalls that it never came to are not missing.
    #[must_use]
    pub fn finish(self, completed: bool) -> Finished {
        let rest = &self.recorded[self.agreed..];
        if self.after.is_none() && (!completed || rest.is_empty()) {
            return Finished { findings: Vec::new(), agreed: self.agreed, after: Vec::new() };
        }
        let after = self.after.unwrap_or_else(|| AfterMismatch::new(rest));
        let recorded = rest.iter().map(Syscall::request).zip(after.recorded).collect::<Vec<_>>();
        let replayed: Vec<(&str, Vec<u8>)> =
            after.replayed.iter().map(|syscall| &syscall.request[..]).zip(after.keys).collect();
        let findings = findings(&recorded, &replayed, self.agreed, after.ended || !completed);
        Finished { findings, agreed: self.agreed, after: after.replayed }
    }
}

/// What came of a delivery's syscalls.
#[derive(Debug)]
pub struct Finished {
    /// What differed.
    pub findings: Vec<SyscallFinding>,
    /// How many were as recorded, from the start on.
    pub agreed: usize,
    /// Those after them.
    pub after: Vec<TracedSyscall>,
}

/// The text of the first argument of a syscall, if that is the one that is meant.
fn argument_of<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    if !request.starts_with(&format!("[\"{name}\"")) {
        return None;
    }
    let elements: Vec<&RawValue> = serde_json::from_str(request).ok()?;
    elements.get(1).map(|key| key.get())
}

/// What a read of a key gives after a syscall, if that syscall tells.
fn value_after(request: &str, response: &str, key: &str) -> Option<String> {
    // Most syscalls are about other keys: they are not parsed.
    if !request.starts_with("[\"vatstore") || !request.contains(key) {
        return None;
    }
    let elements: Vec<&RawValue> = serde_json::from_str(request).ok()?;
    let (name, of) = (elements.first()?.get(), elements.get(1)?.get());
    match name {
        _ if of != key => None,
        "\"vatstoreGet\"" if response.starts_with("[\"ok\"") => Some(response.to_owned()),
        "\"vatstoreSet\"" => Some(format!("[\"ok\",{}]", elements.get(2)?.get())),
        "\"vatstoreDelete\"" => Some(NOTHING.to_owned()),
        _ => None,
    }
}

/// Whether a syscall reads what describes a virtual collection. Liveslots reads it when it makes a collection's
/// representative anew, and whether that must be done depends on when the engine collected the last one.
#[must_use]
pub fn is_gc_sensitive(request: &str) -> bool {
    let Some(key) = argument_of(request, "vatstoreGet") else { return false };
    let Some(rest) = key.strip_prefix("\"vc.") else { return false };
    let Some((number, field)) = rest.split_once('.') else { return false };
    number.bytes().all(|byte| byte.is_ascii_digit()) && matches!(field, "|schemata\"" | "|label\"")
}

/// A difference in the syscalls of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallFinding {
    kind: FindingKind,
    /// What it is known to be.
    class: Option<FindingClass>,
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
        let (recorded, replayed) = (self.recorded.as_deref(), self.replayed.as_deref());
        let names = SyscallNames { recorded: recorded.and_then(name_of), replayed: replayed.and_then(name_of) };
        let argument = match (recorded, replayed) {
            (Some(recorded), Some(replayed)) if names.recorded == names.replayed => {
                differing_argument(recorded, replayed)
            }
            _ => None,
        };
        // The same text on both sides would be cut at its end, where nothing differs.
        let excerpted = match self.moved_to {
            None => Finding::new(self.kind, position, recorded, replayed),
            Some(_) => {
                let Finding { recorded, .. } = Finding::new(self.kind, position, recorded, None);
                Finding { replayed: recorded.clone(), recorded, ..Finding::new(self.kind, position, None, None) }
            }
        };
        Finding {
            syscall: Some(self.index),
            moved_to: self.moved_to,
            names: Some(names),
            argument,
            class: self.class,
            ..excerpted
        }
    }
}

/// The name of a syscall, as far as it is kept; `None` if the request has none.
pub(super) fn name_of(request: &str) -> Option<String> {
    let elements: Vec<&RawValue> = serde_json::from_str(request).ok()?;
    let name: String = serde_json::from_str(elements.first()?.get()).ok()?;
    Some(name.chars().take(NAME_CHARS).collect())
}

/// The number of the first argument that differs, from 1.
fn differing_argument(recorded: &str, replayed: &str) -> Option<usize> {
    let elements = |text| serde_json::from_str::<Vec<&RawValue>>(text).ok();
    let (recorded, replayed) = (elements(recorded)?, elements(replayed)?);
    let key =
        |of: &[&RawValue], at: usize| of.get(at).map(|value| canonical::canonical(value.get()).unwrap_or_default());
    (1..recorded.len().max(replayed.len())).find(|at| key(&recorded, *at) != key(&replayed, *at))
}

fn findings(
    recorded: &[(&str, Vec<u8>)],
    replayed: &[(&str, Vec<u8>)],
    first: usize,
    ended: bool,
) -> Vec<SyscallFinding> {
    let keys = |side: &[(&str, Vec<u8>)]| side.iter().map(|(_, key)| key.clone()).collect::<Vec<_>>();
    let rows = aligned(&keys(recorded), &keys(replayed), ended);
    let mut findings: Vec<SyscallFinding> = rows
        .into_iter()
        .filter_map(|row| {
            let kind = match row.mark {
                Mark::Ok | Mark::NotReached => return None,
                Mark::Changed | Mark::Moved => FindingKind::Syscall,
                Mark::Missing => FindingKind::MissingSyscall,
                Mark::Extra => FindingKind::ExtraSyscall,
            };
            let (one, other) = (row.recorded.map(|at| recorded[at].0), row.replayed.map(|at| replayed[at].0));
            let sides = [one, other].into_iter().flatten();
            let is_gc_sensitive = row.mark != Mark::Changed && sides.clone().all(is_gc_sensitive);
            Some(SyscallFinding {
                kind,
                index: first + row.recorded.or(row.replayed).unwrap_or_default(),
                class: is_gc_sensitive.then_some(FindingClass::GcSensitiveRead),
                recorded: one.map(str::to_owned),
                replayed: other.map(str::to_owned),
                moved_to: row.replayed.filter(|_| row.mark == Mark::Moved).map(|to| first + to),
            })
        })
        .collect();
    findings.sort_by_key(|finding| finding.index);
    findings
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
        let mut check = SyscallCheck::new(&syscalls, &[]);
        let mut answers = Vec::new();
        for text in replayed {
            let answer = check.next(text).expect("a syscall").map(Cow::into_owned);
            answers.push(answer.clone());
            if answer.is_none() {
                break;
            }
        }
        let completed = answers.last().is_none_or(Option::is_some);
        let findings = check.finish(completed).findings.into_iter().map(|finding| {
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

    /// The findings of a delivery at position 7 that went to its end. Each recorded syscall returned nothing.
    fn found(recorded: &[String], replayed: &[String]) -> Vec<Finding> {
        let items: Vec<String> = recorded.iter().map(|text| format!(r#"{{"s":{text},"r":{NOTHING}}}"#)).collect();
        let syscalls: Vec<Syscall<'_>> = items.iter().map(|text| serde_json::from_str(text).expect("json")).collect();
        let mut check = SyscallCheck::new(&syscalls, &[]);
        for text in replayed {
            check.next(text).expect("a syscall");
        }
        check.finish(true).findings.into_iter().map(|finding| finding.at(7)).collect()
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
    fn a_read_whose_value_the_span_tells_is_inferred() {
        let texts = [
            (r#"["vatstoreSet","a","1"]"#, NOTHING),
            (r#"["vatstoreGet","b"]"#, r#"["ok","2"]"#),
            (r#"["vatstoreDelete","c"]"#, NOTHING),
            (r#"["vatstoreGet","d"]"#, r#"["error","no"]"#),
        ]
        .map(|(request, response)| format!(r#"{{"s":{request},"r":{response}}}"#));
        let item = format!(r#"{{"d":["bringOutYourDead"],"sc":[{}],"r":{{"status":"ok"}}}}"#, texts.join(","));
        let before = [(3, Item::parse(item.as_bytes()).expect("an item"))];
        for (made, key, value) in [
            ("", "a", Some(r#"["ok","1"]"#)),
            ("", "b", Some(r#"["ok","2"]"#)),
            ("", "c", Some(NOTHING)),
            ("", "d", None),
            ("", "x", None),
            (r#"["vatstoreSet","a","9"]"#, "a", Some(r#"["ok","9"]"#)),
            (r#"["vatstoreDelete","b"]"#, "b", Some(NOTHING)),
        ] {
            let mut check = SyscallCheck::new(&[], &before);
            if !made.is_empty() {
                check.next(made).expect("a syscall");
            }
            let answer = check.next(&get(key)).expect("a syscall");
            assert_eq!(answer.as_deref(), value, "{made} {key}");
            let expected = if value.is_some() { Answer::Inferred } else { Answer::None };
            assert_eq!(check.finish(value.is_some()).after.last().map(|last| last.answer), Some(expected));
        }
    }

    #[test]
    fn reads_that_collecting_garbage_causes_are_known() {
        for (request, is) in [
            (r#"["vatstoreGet","vc.12.|schemata"]"#, true),
            (r#"["vatstoreGet","vc.1.|label"]"#, true),
            (r#"["vatstoreGet","vc.1.|entryCount"]"#, false),
            (r#"["vatstoreGet","vc.x.|label"]"#, false),
            (r#"["vatstoreGet","vc.1.sfoo"]"#, false),
            (r#"["vatstoreSet","vc.1.|label","x"]"#, false),
        ] {
            assert_eq!(is_gc_sensitive(request), is, "{request}");
        }
    }

    #[test]
    fn a_finding_names_the_syscalls_and_the_first_argument_that_differs() {
        let long = "x".repeat(5_000);
        let texts = |changed: &str| {
            [
                format!(r#"["vatstoreSet","k","{long}{changed}"]"#),
                format!(r#"["send","o+1",{{"body":"{changed}","slots":[]}}]"#),
                r#"["exit"]"#.to_owned(),
            ]
        };
        let (recorded, mut replayed) = (texts("1"), texts("2"));
        replayed[2] = r#"["subscribe","p-1"]"#.to_owned();
        let found = found(&recorded, &replayed);
        let told: Vec<_> = found
            .iter()
            .map(|finding| {
                let names = finding.names.clone().unwrap_or_default();
                (names.recorded.unwrap_or_default(), names.replayed.unwrap_or_default(), finding.argument)
            })
            .collect();
        let of = |one: &str, other: &str, argument| (one.to_owned(), other.to_owned(), argument);
        assert_eq!(
            told,
            [of("vatstoreSet", "vatstoreSet", Some(2)), of("send", "send", Some(2)), of("exit", "subscribe", None)]
        );
        assert!(found[0].recorded.as_deref().is_some_and(|text| text.starts_with("[bytes ")), "an excerpt: {found:?}");
    }

    #[test]
    fn a_moved_syscall_has_its_number_in_the_replay_and_its_text_from_the_start() {
        let long = set(&"x".repeat(5_000));
        let (recorded, replayed) = ([long.clone(), set("b")], [set("b"), long]);
        let found = found(&recorded, &replayed);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((finding.syscall, finding.moved_to, finding.argument), (Some(0), Some(1), None));
        assert!(finding.recorded.as_deref().is_some_and(|text| text.starts_with("[bytes 0 to ")), "{finding}");
        assert!(finding.to_string().contains("recorded as syscall 0: [bytes 0 to 600 of "), "{finding}");
    }

    #[test]
    fn a_worker_that_dies_has_no_missing_syscalls() {
        let texts = [r#"{"s":["exit"],"r":["ok",null]}"#];
        let syscalls: Vec<Syscall<'_>> = texts.iter().map(|text| serde_json::from_str(text).expect("json")).collect();
        assert_eq!(SyscallCheck::new(&syscalls, &[]).finish(false).findings, []);
        assert_eq!(SyscallCheck::new(&syscalls, &[]).finish(true).findings.len(), 1);
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
