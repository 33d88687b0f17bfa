//! The comparison of the responses of items, in order, with what the items before them imply.
//!
//! *Compared*: the answers to `vatstoreGet` and `vatstoreGetNextKey` with the vatstore, as far as it is known; the form of every response to
//! a syscall that is known here. *Not compared, and why*: the content of a `callNow` response (devices keep their own state); responses to
//! syscalls that are not known here. It must never call an answer wrong that the history does not determine.

use crate::transcript::{DeliveryKind, Item, Position, RealDelivery, Syscall};

use super::AuditError;
use super::contradiction::{Contradiction, ContradictionKind, Contradictions, shown, shown_response};
use super::keys::KeysLimit;
use super::syscall::{Request, Response};
use super::vatstore::{Implied, Judgement, Value, Vatstore};

/// The counts of compared responses.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Reads of the vatstore whose answer the history determines.
    pub determined: u64,
    /// Reads of the vatstore whose answer it does not determine: what they say is known from then on.
    pub undetermined: u64,
    /// Other responses, of which the form was compared.
    pub forms: u64,
    /// Items.
    pub items: u64,
}

/// A vat's vatstore as it is followed, and what contradicted it.
#[derive(Debug)]
pub struct Responses {
    pub(super) vatstore: Vatstore,
    found: Contradictions,
    compared: Compared,
}

impl Responses {
    /// From a vat's first item on.
    #[must_use]
    pub fn from_the_start(limit: KeysLimit) -> Self {
        Self::of(Vatstore::empty(limit))
    }

    /// From an item on before which nothing is known.
    #[must_use]
    pub fn of_unknown_past() -> Self {
        Self::of(Vatstore::unknown(KeysLimit::default()))
    }

    fn of(vatstore: Vatstore) -> Self {
        Self { vatstore, found: Contradictions::default(), compared: Compared::default() }
    }

    /// Forgets the vatstore, as items are missing from here on. What was found stays.
    pub fn forget(&mut self, limit: KeysLimit) {
        self.vatstore = Vatstore::unknown(limit);
    }

    /// The counts so far.
    #[must_use]
    pub fn compared(&self) -> Compared {
        self.compared
    }

    /// The contradictions so far.
    #[must_use]
    pub fn into_contradictions(self) -> Contradictions {
        self.found
    }

    /// Adds what the rows at the end contradict.
    pub(super) fn add_found(&mut self, found: Contradictions) {
        self.found.append(found);
    }

    /// Compares the responses of the next item, and applies its writes.
    ///
    /// # Errors
    /// For trouble of ours alone.
    pub fn add(&mut self, position: Position, item: &Item<'_>) -> Result<(), AuditError> {
        let delivery = match item.kind {
            DeliveryKind::Real(real) => Some(real),
            _ => None,
        };
        self.compared.items += 1;
        for (number, syscall) in item.syscalls.iter().enumerate() {
            self.syscall(position, number, syscall, delivery)?;
        }
        Ok(())
    }

    fn syscall(
        &mut self,
        position: Position,
        number: usize,
        syscall: &Syscall<'_>,
        delivery: Option<RealDelivery>,
    ) -> Result<(), AuditError> {
        let request = Request::of(syscall);
        let at = (position, u32::try_from(number).unwrap_or(u32::MAX));
        if request == Request::Unknown {
            return Ok(());
        }
        let response = Response::of(syscall);
        let mut find = |kind, key: Option<&[u8]>, implied: String| {
            self.found.add(Contradiction {
                kind,
                position,
                syscall: Some(number),
                key: key.map(shown),
                recorded: shown_response(syscall.response()),
                implied,
            });
        };
        let key = match &request {
            Request::Get(key) | Request::Set(key, _) | Request::Delete(key) | Request::NextKey(key) => Some(&**key),
            Request::CallNow | Request::Nothing | Request::Unknown | Request::Malformed => None,
        };
        if let Some(implied) = fault_of_form(&request, &response, delivery) {
            find(ContradictionKind::Form, key, implied.to_owned());
        }
        let answer = match &response {
            Response::Null => Some(None),
            Response::Text(text) => std::str::from_utf8(text).ok().filter(|text| !text.is_empty()).map(Some),
            Response::CapData | Response::Error | Response::Other => None,
        };
        let (judgement, kind) = match (&request, answer) {
            (Request::Set(key, value), _) => {
                self.compared.forms += 1;
                return self.vatstore.set(key, Value::written(value), at);
            }
            (Request::Delete(key), _) => {
                self.compared.forms += 1;
                return self.vatstore.delete(key, at);
            }
            (Request::Get(key), Some(answer)) => (self.vatstore.get(key, answer, at)?, ContradictionKind::Value),
            (Request::NextKey(key), Some(answer)) => {
                (self.vatstore.next_key(key, answer, at)?, ContradictionKind::NextKey)
            }
            _ => {
                self.compared.forms += 1;
                return Ok(());
            }
        };
        match judgement {
            Judgement::Agrees => self.compared.determined += 1,
            Judgement::Undetermined => self.compared.undetermined += 1,
            Judgement::Contradicts(implied) => {
                self.compared.determined += 1;
                find(kind, key, told(&implied));
            }
        }
        Ok(())
    }
}

/// The form of the kernel's answer, if a response has another one.
fn fault_of_form(
    request: &Request<'_>,
    response: &Response<'_>,
    delivery: Option<RealDelivery>,
) -> Option<&'static str> {
    let is_right = match (request, response) {
        (Request::Unknown, _) => true,
        (_, Response::Error) => request.may_fail(delivery),
        (Request::Get(_) | Request::NextKey(_), Response::Text(text)) => {
            !text.is_empty() && std::str::from_utf8(text).is_ok()
        }
        (Request::Get(_) | Request::NextKey(_), Response::Null) => true,
        (Request::CallNow, Response::CapData) => true,
        (Request::Set(..) | Request::Delete(_) | Request::Nothing, Response::Null) => true,
        _ => false,
    };
    match request {
        _ if is_right => None,
        Request::Get(_) => Some("[\"ok\", a string that is not empty, or null]"),
        Request::NextKey(_) => Some("[\"ok\", a key, or null]"),
        Request::CallNow => Some("[\"ok\", capdata] or [\"error\", a string]"),
        Request::Set(..) | Request::Delete(_) | Request::Nothing => Some("[\"ok\",null]"),
        Request::Malformed | Request::Unknown => {
            Some("no item, as the kernel ends a vat that makes such a syscall, and undoes the delivery")
        }
    }
}

/// A place in the history, in words.
pub(super) fn since((position, syscall): &(Position, u32)) -> String {
    format!("position {position}, syscall {syscall}")
}

/// The right answer, in words.
fn told(implied: &Implied) -> String {
    match implied {
        Implied::Value(value, at) => match value.hash() {
            None => format!("null, as of {}", since(at)),
            Some(hash) => format!("the value of {} (sha256 {hash})", since(at)),
        },
        Implied::Null(Some(at)) => format!("null, as of {}", since(at)),
        Implied::Null(None) => "null".to_owned(),
        Implied::KeyUpTo(key) => format!("{} or a key before it", shown(key)),
        Implied::Key(key) => shown(key),
        Implied::KeyAfter => "a key after the one that was asked for, or null".to_owned(),
        Implied::OtherKey => "another key, as this one is not there".to_owned(),
    }
}
