//! The comparison of a vatstore at the end of a history with the kernel's rows, both in the order of their keys.
//!
//! Owns the walk over both and the count of rows. It must never compare a key that the history leaves open, nor hold all rows in memory.

use std::collections::BTreeMap;

use crate::kernel_db::{VatstoreRow, VatstoreValue};
use crate::transcript::Position;

use super::contradiction::{Contradiction, ContradictionKind, Contradictions, shown};
use super::history::Life;
use super::vatstore::{KeyEntry, State, Value, Vatstore, come_back_as};
use super::{AuditError, responses::since};

/// More keys with lone surrogates are not set aside for a second look.
const ODD_MAX: usize = 100_000;

/// The counts of a comparison at the end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct EndCompared {
    /// Rows of the vat.
    pub rows: u64,
    /// Keys whose value, presence or absence the history determines, and that were compared with the rows.
    pub keys: u64,
    /// Whether the history determines every key, so that no row may be left over.
    pub is_complete: bool,
    /// Whether rows of a terminated vat are gone already.
    pub is_cleaned_up: bool,
}

pub(super) struct EndCheck<'a> {
    vatstore: &'a Vatstore,
    life: Life,
    at: Position,
    /// The last key of the model that was passed.
    passed: Option<Box<[u8]>>,
    /// Whether something that a cleanup deletes before the next key is still there.
    is_something_left: bool,
    compared: EndCompared,
    found: Contradictions,
    /// Rows of a terminated vat that are gone while others are there that go before them.
    out_of_order: Vec<Contradiction>,
    /// Keys with a lone surrogate and without a row.
    odd: BTreeMap<Vec<u8>, KeyEntry>,
    /// Which of them an engine or an import may have written as this key.
    written_as: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Rows without a key that may be one of those.
    odd_rows: Vec<VatstoreRow>,
    has_odd: bool,
}

impl<'a> EndCheck<'a> {
    pub(super) fn new(vatstore: &'a Vatstore, life: Life, has_options: bool, at: Position) -> Self {
        Self {
            vatstore,
            life,
            at,
            passed: None,
            is_something_left: has_options,
            compared: EndCompared { is_complete: vatstore.is_complete(), ..EndCompared::default() },
            found: Contradictions::default(),
            out_of_order: Vec::new(),
            odd: BTreeMap::new(),
            written_as: BTreeMap::new(),
            odd_rows: Vec::new(),
            has_odd: false,
        }
    }

    /// The next row.
    pub(super) fn row(&mut self, row: &VatstoreRow) -> Result<(), AuditError> {
        self.compared.rows += 1;
        while let Some((key, entry)) = self.vatstore.after(self.passed.as_deref())? {
            if *key > *row.key {
                break;
            }
            self.passed = Some(key.clone());
            if *key == *row.key {
                self.is_something_left = true;
                self.compare(row, &entry.state, entry.since);
                return Ok(());
            }
            self.without_row((key, entry));
        }
        self.is_something_left = true;
        if self.vatstore.look(&row.key)? != Err(true) {
            return Ok(());
        }
        match std::str::from_utf8(&row.key).is_ok_and(|key| !key.contains('\u{fffd}')) {
            true => self.extra(row, None),
            false => {
                self.has_odd = true;
                if self.odd_rows.len() < ODD_MAX {
                    self.odd_rows.push(row.clone());
                }
            }
        }
        Ok(())
    }

    /// After the last row. Where rows of a terminated vat were going meanwhile, their order says nothing.
    pub(super) fn finish(mut self, is_steady: bool) -> Result<(EndCompared, Contradictions), AuditError> {
        while let Some((key, entry)) = self.vatstore.after(self.passed.as_deref())? {
            self.passed = Some(key.clone());
            self.without_row((key, entry));
        }
        for row in std::mem::take(&mut self.odd_rows) {
            match self.written_as.get(&*row.key).and_then(|key| self.odd.remove(key)) {
                Some((_, entry)) => self.compare(&row, &entry.state, entry.since),
                None => self.extra(&row, None),
            }
        }
        for (key, entry) in std::mem::take(&mut self.odd).into_values() {
            self.missing(&key, entry.since);
        }
        // A cleanup never finds a key with a lone surrogate again, nor those that come right behind it.
        if is_steady && !self.has_odd {
            self.out_of_order.into_iter().for_each(|one| self.found.add(one));
        }
        Ok((self.compared, self.found))
    }

    fn compare(&mut self, row: &VatstoreRow, state: &State, at: (Position, u32)) {
        let read = match &row.value {
            VatstoreValue::Text(text) => Some(Value::read(&String::from_utf8_lossy(text))),
            VatstoreValue::TooLong(_) | VatstoreValue::NotText => None,
        };
        let implied = match state {
            State::Unknown => return,
            State::Absent => return self.extra(row, Some(at)),
            State::SomeValue => {
                self.compared.keys += 1;
                return;
            }
            State::Present(value) => value.clone(),
            State::ReadsNull => Value::Empty,
        };
        self.compared.keys += 1;
        if !read.is_some_and(|read| implied.reads_as(&read)) {
            let implied = match implied.hash() {
                Some(hash) => format!("the value of {} (sha256 {hash})", since(&at)),
                None => format!("the empty string or no row, as of {}", since(&at)),
            };
            self.add(ContradictionKind::RowDiffers, &row.key, told(row), implied);
        }
    }

    fn without_row(&mut self, (key, entry): KeyEntry) {
        if !matches!(entry.state, State::Present(_) | State::SomeValue) {
            self.compared.keys += u64::from(matches!(entry.state, State::Absent | State::ReadsNull));
            return;
        }
        if std::str::from_utf8(&key).is_err() {
            self.has_odd = true;
            if self.odd.len() < ODD_MAX {
                for replaced in come_back_as(&key) {
                    self.written_as.insert(replaced.into_bytes(), key.to_vec());
                }
                self.odd.insert(key.to_vec(), (key, entry));
            }
            return;
        }
        self.missing(&key, entry.since);
    }

    fn missing(&mut self, key: &[u8], at: (Position, u32)) {
        let contradiction = Contradiction {
            kind: ContradictionKind::RowMissing,
            position: self.at,
            syscall: None,
            key: Some(shown(key)),
            recorded: "no row in kvStore".to_owned(),
            implied: format!("a row, as of {}", since(&at)),
        };
        match self.life {
            Life::Alive => {
                self.compared.keys += 1;
                self.found.add(contradiction);
            }
            Life::Terminated => {
                self.compared.is_cleaned_up = true;
                if self.is_something_left && self.out_of_order.len() < Contradictions::KEPT_MAX {
                    self.out_of_order.push(contradiction);
                }
            }
        }
    }

    fn extra(&mut self, row: &VatstoreRow, at: Option<(Position, u32)>) {
        self.compared.keys += 1;
        let implied = match at {
            Some(at) => format!("no row, as of {}", since(&at)),
            None => "no row: the vat has no such key".to_owned(),
        };
        self.add(ContradictionKind::RowExtra, &row.key, told(row), implied);
    }

    fn add(&mut self, kind: ContradictionKind, key: &[u8], recorded: String, implied: String) {
        let (position, key) = (self.at, Some(shown(key)));
        self.found.add(Contradiction { kind, position, syscall: None, key, recorded, implied });
    }
}

/// A row's value in words.
fn told(row: &VatstoreRow) -> String {
    match &row.value {
        VatstoreValue::Text(text) => {
            let bytes = crate::words::plural(text.len() as u64, "byte", "bytes");
            format!("a row of {bytes} (sha256 {})", crate::transcript::sha256(text))
        }
        VatstoreValue::TooLong(bytes) => format!("a row of {bytes} bytes, more than a vat can write"),
        VatstoreValue::NotText => "a row whose value is not text".to_owned(),
    }
}
