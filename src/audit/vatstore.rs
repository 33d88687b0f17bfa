//! A vat's vatstore at a position, as far as it is known.
//!
//! Where the whole history is known, that is every key. Otherwise it is every key that was written, deleted or read since: a key
//! can be known to be there, with or without its value; known to be absent; or unknown. An answer to "which key comes next"
//! also says that no key lies between. So beside the keys it keeps, for each gap between two neighbouring entries, whether
//! the gap is known to be empty.
//!
//! Keys are compared as bytes, as SQLite's BINARY collation does. A lone surrogate is stored as three bytes that are not
//! UTF-8, and comes back as three U+FFFD; an engine that replaces it when writing stores one U+FFFD. Both are accepted.
//!
//! Owns that knowledge. It must never turn a key that is unknown into one that is absent.

use crate::transcript::{Hash256, Position, sha256};

use super::AuditError;
use super::keys::{Keys, KeysLimit};

/// An answer is compared and learnt from across no more entries than this: it bounds what one answer costs.
const WALK_MAX: usize = 10_000;

/// A value as the vat reads it. `vatstoreGet` answers `null` for the empty string, as for no value (`value || null`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Empty,
    Text(Hash256),
    /// With lone surrogates: what it reads as from either kind of engine.
    Odd(Box<[Hash256; 2]>),
}

impl Value {
    /// A value that was written.
    pub(super) fn written(bytes: &[u8]) -> Self {
        match (bytes.is_empty(), std::str::from_utf8(bytes)) {
            (true, _) => Self::Empty,
            (false, Ok(_)) => Self::Text(sha256(bytes)),
            (false, Err(_)) => Self::Odd(Box::new(come_back_as(bytes).map(|text| sha256(text.as_bytes())))),
        }
    }

    /// A value as it is read: an answer, or a row after SQLite's text was decoded.
    pub(super) fn read(text: &str) -> Self {
        if text.is_empty() { Self::Empty } else { Self::Text(sha256(text.as_bytes())) }
    }

    /// Whether this value reads as another does.
    pub(super) fn reads_as(&self, read: &Self) -> bool {
        match (self, read) {
            (Self::Odd(either), Self::Text(hash)) => either.contains(hash),
            _ => self == read,
        }
    }

    /// The hash of what is read, for people.
    pub(super) fn hash(&self) -> Option<Hash256> {
        match self {
            Self::Empty => None,
            Self::Text(hash) => Some(*hash),
            Self::Odd(either) => Some(either[0]),
        }
    }
}

/// The forms in which bytes with lone surrogates come back: three U+FFFD for each, or one.
pub(super) fn come_back_as(bytes: &[u8]) -> [String; 2] {
    [String::from_utf8_lossy(bytes).into_owned(), replace(bytes)]
}

/// Each lone surrogate as one U+FFFD.
fn replace(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut invalid = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.valid().is_empty() {
            invalid = 0;
        }
        // The decoder finds three errors, of one byte each, in a surrogate.
        for _ in chunk.invalid() {
            if invalid % 3 == 0 {
                text.push('\u{fffd}');
            }
            invalid += 1;
        }
    }
    text
}

/// The knowledge of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// The key is there with this value.
    Present(Value),
    /// The key is there; its value is not known.
    SomeValue,
    /// The key reads as `null`: absent, or the empty string.
    ReadsNull,
    /// The key is absent.
    Absent,
    /// Nothing. The entry stands only for the end of a gap.
    Unknown,
}

impl State {
    fn is_present(&self) -> bool {
        matches!(self, Self::Present(_) | Self::SomeValue)
    }
}

/// An entry of the table of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) state: State,
    /// The source of the knowledge: position and number of the syscall.
    pub(super) since: (Position, u32),
    /// Whether no key lies between this one and the next entry.
    is_free_after: bool,
}

/// An entry in a temporary file.
pub(super) type EntryBytes = Vec<u8>;

/// An entry with its key.
pub(super) type KeyEntry = (Box<[u8]>, Entry);

impl Entry {
    pub(super) fn to_bytes(&self) -> EntryBytes {
        let (tag, hashes): (u8, Vec<Hash256>) = match &self.state {
            State::Present(Value::Empty) => (0, Vec::new()),
            State::Present(Value::Text(hash)) => (1, vec![*hash]),
            State::Present(Value::Odd(either)) => (2, either.to_vec()),
            State::SomeValue => (3, Vec::new()),
            State::ReadsNull => (4, Vec::new()),
            State::Absent => (5, Vec::new()),
            State::Unknown => (6, Vec::new()),
        };
        let mut bytes = vec![tag, u8::from(self.is_free_after)];
        bytes.extend_from_slice(&self.since.0.to_le_bytes());
        bytes.extend_from_slice(&self.since.1.to_le_bytes());
        hashes.iter().for_each(|hash| bytes.extend_from_slice(hash.as_bytes()));
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, hashes) = bytes.split_at_checked(14)?;
        let hash = |at: usize| Hash256::from_bytes(hashes.get(32 * at..32 * (at + 1))?);
        let state = match head[0] {
            0 => State::Present(Value::Empty),
            1 => State::Present(Value::Text(hash(0)?)),
            2 => State::Present(Value::Odd(Box::new([hash(0)?, hash(1)?]))),
            3 => State::SomeValue,
            4 => State::ReadsNull,
            5 => State::Absent,
            6 => State::Unknown,
            _ => return None,
        };
        let position = Position::from_le_bytes(*head[2..].first_chunk()?);
        let syscall = u32::from_le_bytes(*head[10..].first_chunk()?);
        Some(Self { state, since: (position, syscall), is_free_after: head[1] == 1 })
    }
}

/// The judgement of an answer by the history.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The answer is the only one possible.
    Agrees,
    /// Nothing determines it. What it says is known from now on.
    Undetermined,
    /// The answer is not possible: this is known instead.
    Contradicts(Implied),
}

/// The right answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Implied {
    /// This value, which was written or read there.
    Value(Value, (Position, u32)),
    /// `null`; since then, if the key's absence has an event.
    Null(Option<(Position, u32)>),
    /// This key, or one before it.
    KeyUpTo(Box<[u8]>),
    /// This key.
    Key(Box<[u8]>),
    /// A key after the one that was asked for.
    KeyAfter,
    /// Any key but the one that is known to be absent.
    OtherKey,
}

/// The vatstore as far as it is known.
#[derive(Debug)]
pub(super) struct Vatstore {
    keys: Keys,
    /// Whether no key lies before the first entry.
    is_free_at_start: bool,
    /// The number of gaps that are not known to be empty; 0 if everything is known.
    unknown_gaps: u64,
}

impl Vatstore {
    /// Before the first delivery of a vat: empty.
    pub(super) fn empty(limit: KeysLimit) -> Self {
        Self { keys: Keys::new(limit), is_free_at_start: true, unknown_gaps: 0 }
    }

    /// After a past that is not known.
    pub(super) fn unknown(limit: KeysLimit) -> Self {
        Self { keys: Keys::new(limit), is_free_at_start: false, unknown_gaps: 1 }
    }

    /// Whether every key is known.
    pub(super) fn is_complete(&self) -> bool {
        self.unknown_gaps == 0
    }

    /// Whether the keys are in a temporary file.
    pub(super) fn is_spilled(&self) -> bool {
        self.keys.is_spilled()
    }

    /// The first entry after a key, or the first of all.
    pub(super) fn after(&self, key: Option<&[u8]>) -> Result<Option<KeyEntry>, AuditError> {
        self.keys.after(key)
    }

    /// The entry of a key; where it has none, whether it is known to be absent.
    pub(super) fn look(&self, key: &[u8]) -> Result<Result<Entry, bool>, AuditError> {
        match self.keys.get(key)? {
            Some(entry) => Ok(Ok(entry)),
            None => Ok(Err(self.is_free_before(key)?)),
        }
    }

    pub(super) fn set(&mut self, key: &[u8], value: Value, at: (Position, u32)) -> Result<(), AuditError> {
        self.learn(key, State::Present(value), at)
    }

    pub(super) fn delete(&mut self, key: &[u8], at: (Position, u32)) -> Result<(), AuditError> {
        self.learn(key, State::Absent, at)
    }

    /// Compares an answer to `vatstoreGet`.
    pub(super) fn get(
        &mut self,
        key: &[u8],
        answer: Option<&str>,
        at: (Position, u32),
    ) -> Result<Judgement, AuditError> {
        // The kernel answers `null` for the empty string.
        let read = answer.map(Value::read);
        let known = match self.look(key)? {
            Ok(known) => known,
            Err(true) => return Ok(if read.is_none() { Judgement::Agrees } else { contradicts(Implied::Null(None)) }),
            Err(false) => Entry { state: State::Unknown, since: at, is_free_after: false },
        };
        let learnt = match (&known.state, read) {
            (State::Present(Value::Empty) | State::Absent, None) => return Ok(Judgement::Agrees),
            (State::Present(Value::Empty) | State::Absent, Some(_)) => {
                return Ok(contradicts(Implied::Null(Some(known.since))));
            }
            (State::Present(value), Some(read)) if value.reads_as(&read) => return Ok(Judgement::Agrees),
            (State::Present(value), _) => return Ok(contradicts(Implied::Value(value.clone(), known.since))),
            (State::ReadsNull, None) => return Ok(Judgement::Agrees),
            (State::ReadsNull, Some(_)) => return Ok(contradicts(Implied::Null(Some(known.since)))),
            (State::SomeValue, None) => State::Present(Value::Empty),
            (State::SomeValue | State::Unknown, Some(read)) => State::Present(read),
            (State::Unknown, None) => State::ReadsNull,
        };
        self.learn(key, learnt, at)?;
        Ok(Judgement::Undetermined)
    }

    /// Compares an answer to `vatstoreGetNextKey`.
    pub(super) fn next_key(
        &mut self,
        prior: &[u8],
        answer: Option<&str>,
        at: (Position, u32),
    ) -> Result<Judgement, AuditError> {
        let walk = self.walk(prior)?;
        let Some(answer) = answer else {
            return match walk {
                Walk { present: Some(key), is_certain: true, .. } => Ok(contradicts(Implied::Key(key))),
                Walk { present: Some(key), .. } => Ok(contradicts(Implied::KeyUpTo(key))),
                Walk { is_cut: true, .. } => Ok(Judgement::Undetermined),
                Walk { is_certain: true, .. } => Ok(Judgement::Agrees),
                Walk { .. } => {
                    self.learn_free(prior, None, at)?;
                    Ok(Judgement::Undetermined)
                }
            };
        };
        let is_next = |key: &[u8]| match std::str::from_utf8(key) {
            Ok(key) => key == answer,
            Err(_) => come_back_as(key).iter().any(|text| text == answer),
        };
        match &walk {
            Walk { present: Some(key), is_certain: true, .. } if is_next(key) => return Ok(Judgement::Agrees),
            Walk { present: Some(key), is_certain: true, .. } => return Ok(contradicts(Implied::Key(key.clone()))),
            Walk { present: None, is_certain: true, is_cut: false } => return Ok(contradicts(Implied::Null(None))),
            _ => {}
        }
        // From here on it is not determined, but not every answer is possible. A key with U+FFFD may stand for others.
        if answer.contains('\u{fffd}') {
            return Ok(Judgement::Undetermined);
        }
        let key = answer.as_bytes();
        if key <= prior {
            return Ok(contradicts(Implied::KeyAfter));
        }
        match &walk.present {
            Some(present) if **present < *key => return Ok(contradicts(Implied::KeyUpTo(present.clone()))),
            _ => {}
        }
        match self.look(key)? {
            Ok(Entry { state: State::Absent, .. }) | Err(true) => return Ok(contradicts(Implied::OtherKey)),
            Ok(_) | Err(false) => {}
        }
        if !walk.is_cut {
            self.learn_free(prior, Some(key), at)?;
        }
        Ok(Judgement::Undetermined)
    }

    /// Goes from a key to the first one after it that is known to be there.
    fn walk(&self, prior: &[u8]) -> Result<Walk, AuditError> {
        let mut is_certain = self.is_free_after(prior)?;
        let mut from: Box<[u8]> = prior.into();
        for _ in 0..WALK_MAX {
            let Some((key, entry)) = self.keys.after(Some(&from))? else {
                return Ok(Walk { present: None, is_certain, is_cut: false });
            };
            if entry.state.is_present() {
                return Ok(Walk { present: Some(key), is_certain, is_cut: false });
            }
            is_certain &= entry.is_free_after && entry.state == State::Absent;
            from = key;
        }
        Ok(Walk { present: None, is_certain: false, is_cut: true })
    }

    /// Notes what is known of a key from now on.
    fn learn(&mut self, key: &[u8], state: State, since: (Position, u32)) -> Result<(), AuditError> {
        let is_free_before = self.is_free_before(key)?;
        let known = self.keys.get(key)?;
        let is_free_after = known.as_ref().map_or(is_free_before, |entry| entry.is_free_after);
        if state == State::Absent && is_free_before && is_free_after {
            // The gaps on both sides say so too.
            return self.keys.remove(key);
        }
        if known.is_none() && !is_free_after {
            self.unknown_gaps += 1;
        }
        self.keys.put(key, Entry { state, since, is_free_after })
    }

    /// Notes that no key lies between two, or after the first, and that the second one is there.
    fn learn_free(&mut self, prior: &[u8], next: Option<&[u8]>, at: (Position, u32)) -> Result<(), AuditError> {
        // The gap in which the second one lies goes on behind it.
        if let Some(next) = next {
            let state = match self.keys.get(next)? {
                Some(Entry { state: state @ State::Present(_), .. }) => state,
                Some(Entry { state: State::ReadsNull, .. }) => State::Present(Value::Empty),
                _ => State::SomeValue,
            };
            self.learn(next, state, at)?;
        }
        if self.keys.get(prior)?.is_none() && !self.is_free_before(prior)? {
            self.learn(prior, State::Unknown, at)?;
        }
        let mut from: Box<[u8]> = prior.into();
        while let Some((key, entry)) = self.keys.after(Some(&from))?
            && next.is_none_or(|next| *key < *next)
        {
            self.unknown_gaps -= u64::from(!entry.is_free_after);
            self.keys.remove(&key)?;
            from = key;
        }
        self.set_free_after(prior)
    }

    /// The gap behind a key becomes free.
    fn set_free_after(&mut self, key: &[u8]) -> Result<(), AuditError> {
        // Without an entry of its own the gap around it was free already.
        let Some(mut entry) = self.keys.get(key)? else { return Ok(()) };
        self.unknown_gaps -= u64::from(!entry.is_free_after);
        entry.is_free_after = true;
        if entry.state == State::Absent && self.is_free_before(key)? {
            return self.keys.remove(key);
        }
        self.keys.put(key, entry)
    }

    fn is_free_before(&self, key: &[u8]) -> Result<bool, AuditError> {
        if self.unknown_gaps == 0 {
            return Ok(true);
        }
        Ok(self.keys.before(key)?.map_or(self.is_free_at_start, |entry| entry.is_free_after))
    }

    fn is_free_after(&self, key: &[u8]) -> Result<bool, AuditError> {
        if self.unknown_gaps == 0 {
            return Ok(true);
        }
        match self.keys.get(key)? {
            Some(entry) => Ok(entry.is_free_after),
            None => self.is_free_before(key),
        }
    }
}

/// The result of a walk to the next key.
struct Walk {
    /// The first key that is known to be there.
    present: Option<Box<[u8]>>,
    /// Whether nothing else can lie before it, or at all.
    is_certain: bool,
    /// Whether it was given up.
    is_cut: bool,
}

fn contradicts(implied: Implied) -> Judgement {
    Judgement::Contradicts(implied)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const AT: (Position, u32) = (7, 1);

    /// Few and short keys, so that they meet; some that are not UTF-8, some that share beginnings, and the empty one.
    const KEYS: [&[u8]; 9] = [
        b"",
        b"a",
        b"a\0",
        b"a.b",
        b"b",
        b"b\xed\xa0\xbd",
        b"b\xee\x80\x80",
        "b\u{fffd}\u{fffd}\u{fffd}".as_bytes(),
        b"c",
    ];
    const VALUES: [&str; 4] = ["", "1", "2", "\u{fffd}"];

    #[derive(Debug, Clone)]
    enum Step {
        Set(usize, usize),
        Delete(usize),
        Get(usize),
        NextKey(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..KEYS.len(), 0..VALUES.len()).prop_map(|(key, value)| Step::Set(key, value)),
            (0..KEYS.len()).prop_map(Step::Delete),
            (0..KEYS.len()).prop_map(Step::Get),
            (0..KEYS.len()).prop_map(Step::NextKey),
        ]
    }

    /// A vatstore as the kernel has it: a table of bytes, and what JavaScript makes of them.
    #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
    struct Kernel(BTreeMap<&'static [u8], &'static str>);

    impl Kernel {
        fn get(&self, key: &[u8]) -> Option<String> {
            self.0.get(key).filter(|value| !value.is_empty()).map(|value| (*value).to_owned())
        }

        fn next_key(&self, prior: &[u8]) -> Option<String> {
            let next = self.0.keys().find(|key| **key > prior)?;
            Some(String::from_utf8_lossy(next).into_owned()).filter(|key| !key.is_empty())
        }

        fn apply(&mut self, step: &Step) {
            match *step {
                Step::Set(key, value) => {
                    self.0.insert(KEYS[key], VALUES[value]);
                }
                Step::Delete(key) => {
                    self.0.remove(KEYS[key]);
                }
                Step::Get(_) | Step::NextKey(_) => {}
            }
        }
    }

    /// What a step's answer is judged to be; `None` for a write.
    fn judge(vatstore: &mut Vatstore, step: &Step, answer: Option<&str>) -> Option<Judgement> {
        match *step {
            Step::Set(key, value) => {
                vatstore.set(KEYS[key], Value::written(VALUES[value].as_bytes()), AT).expect("in memory");
                None
            }
            Step::Delete(key) => {
                vatstore.delete(KEYS[key], AT).expect("in memory");
                None
            }
            Step::Get(key) => Some(vatstore.get(KEYS[key], answer, AT).expect("in memory")),
            Step::NextKey(key) => Some(vatstore.next_key(KEYS[key], answer, AT).expect("in memory")),
        }
    }

    fn honest(kernel: &Kernel, step: &Step) -> Option<String> {
        match *step {
            Step::Get(key) => kernel.get(KEYS[key]),
            Step::NextKey(key) => kernel.next_key(KEYS[key]),
            _ => None,
        }
    }

    fn begin(is_complete: bool, memory_max: usize) -> Vatstore {
        let limit = KeysLimit { memory_max, temp: None };
        if is_complete { Vatstore::empty(limit) } else { Vatstore::unknown(limit) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]
        /// What a kernel answers is never called a contradiction, whatever was there before; and where all is known, every
        /// answer is determined. Kept in a file, the keys give the same.
        #[test]
        fn what_a_kernel_answers_never_contradicts(
            before in prop::collection::btree_map(0..KEYS.len(), 0..VALUES.len(), 0..6),
            steps in prop::collection::vec(step(), 1..40),
            is_complete in any::<bool>(),
        ) {
            let mut kernel = Kernel::default();
            if !is_complete {
                before.into_iter().for_each(|(key, value)| kernel.apply(&Step::Set(key, value)));
            }
            let mut places = [begin(is_complete, usize::MAX), begin(is_complete, 0)];
            for step in &steps {
                let answer = honest(&kernel, step);
                let [judgement, spilled] = places.each_mut().map(|place| judge(place, step, answer.as_deref()));
                prop_assert_eq!(&judgement, &spilled);
                if let Some(judgement) = judgement {
                    let is_right = matches!(judgement, Judgement::Agrees) || !is_complete && judgement == Judgement::Undetermined;
                    prop_assert!(is_right, "{step:?} of {kernel:?}: {answer:?} is {judgement:?}");
                }
                kernel.apply(step);
            }
            if is_complete {
                prop_assert!(places[0].is_complete());
            }
        }
    }

    /// All kernels that can have given some answers so far, by trying all of a few keys.
    fn worlds(keys: &[usize]) -> BTreeSet<Kernel> {
        let mut worlds = BTreeSet::from([Kernel::default()]);
        for key in keys {
            let with: Vec<Kernel> = worlds
                .iter()
                .flat_map(|world| {
                    (0..3).map(|value| {
                        let mut world = world.clone();
                        world.apply(&Step::Set(*key, value));
                        world
                    })
                })
                .collect();
            worlds.extend(with);
        }
        worlds
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        /// With an unknown past, an answer is called impossible exactly when no past explains it beside the answers before
        /// it. The naive model keeps every past that is still possible.
        #[test]
        fn an_answer_contradicts_exactly_when_no_past_explains_it(
            steps in prop::collection::vec(step(), 1..14),
            lies in prop::collection::vec((any::<prop::sample::Index>(), 0..8_usize), 14),
        ) {
            // The other keys are written by nobody in these histories.
            const USED: [usize; 4] = [1, 2, 4, 8];
            let at = |key: usize| USED[key % USED.len()];
            let mut possible = worlds(&USED);
            let mut vatstore = begin(false, usize::MAX);
            for (step, (which, lie)) in steps.iter().zip(&lies) {
                let step = match *step {
                    Step::Set(key, value) => Step::Set(at(key), value % 3),
                    Step::Delete(key) => Step::Delete(at(key)),
                    Step::Get(key) => Step::Get(at(key)),
                    Step::NextKey(key) => Step::NextKey(at(key)),
                };
                let worlds: Vec<Kernel> = possible.iter().cloned().collect();
                let world = &worlds[which.index(worlds.len())];
                let answer = match (&step, lie) {
                    (Step::Get(_), 0) => Some("1".to_owned()),
                    (Step::Get(_), 1) | (Step::NextKey(_), 0) => None,
                    (Step::NextKey(_), 1..=3) => Some(String::from_utf8(KEYS[USED[*lie]].to_vec()).expect("text")),
                    _ => honest(world, &step),
                };
                let agreeing: BTreeSet<Kernel> =
                    worlds.iter().filter(|world| honest(world, &step) == answer).cloned().collect();
                match judge(&mut vatstore, &step, answer.as_deref()) {
                    None => {
                        possible = possible.into_iter().map(|mut world| { world.apply(&step); world }).collect();
                    }
                    Some(Judgement::Contradicts(implied)) => {
                        prop_assert!(agreeing.is_empty(), "{step:?} {answer:?} is possible, implied was {implied:?}");
                    }
                    Some(judgement) => {
                        prop_assert!(!agreeing.is_empty(), "{step:?} {answer:?} is {judgement:?}, and not possible");
                        prop_assert!(judgement == Judgement::Undetermined || agreeing.len() == worlds.len());
                        possible = agreeing;
                    }
                }
            }
        }
    }

    #[test]
    fn a_lone_surrogate_comes_back_as_replacement_characters() {
        let key: &[u8] = b"text \xed\xa0\xbd end";
        let mut vatstore = begin(true, usize::MAX);
        vatstore.set(key, Value::written(b"lone \xed\xb8\x80\xed\xa0\xbd"), AT).expect("in memory");
        for (answer, is_right) in [
            ("text \u{fffd}\u{fffd}\u{fffd} end", true),
            ("text \u{fffd} end", true),
            ("text \u{fffd}\u{fffd} end", false),
            ("text  end", false),
        ] {
            let judgement = vatstore.next_key(b"text", Some(answer), AT).expect("in memory");
            assert_eq!(judgement == Judgement::Agrees, is_right, "{answer:?}: {judgement:?}");
        }
        let three = "\u{fffd}".repeat(6);
        for (answer, is_right) in
            [(format!("lone {three}"), true), ("lone \u{fffd}\u{fffd}".to_owned(), true), (three, false)]
        {
            let judgement = vatstore.get(key, Some(&answer), AT).expect("in memory");
            assert_eq!(judgement == Judgement::Agrees, is_right, "{answer:?}: {judgement:?}");
        }
    }

    #[test]
    fn entries_survive_a_file() {
        let hash = sha256(b"1");
        for state in [
            State::Present(Value::Empty),
            State::Present(Value::Text(hash)),
            State::Present(Value::Odd(Box::new([hash, sha256(b"2")]))),
            State::SomeValue,
            State::ReadsNull,
            State::Absent,
            State::Unknown,
        ] {
            let entry = Entry { state, since: (u64::MAX, 3), is_free_after: true };
            assert_eq!(Entry::from_bytes(&entry.to_bytes()), Some(entry));
        }
        for bytes in [&[][..], &[1; 14], &[9; 46]] {
            assert_eq!(Entry::from_bytes(bytes), None);
        }
    }
}
