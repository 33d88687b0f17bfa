//! A heap as one hash that depends on nothing that a program can't see: a second opinion on what [`super::diff`] says.
//!
//! Two heaps have the same fingerprint if they are isomorphic. It is made from one image alone: objects are numbered in the
//! order in which a walk from the roots meets them, and everything is written down in terms of those numbers. Shares with
//! the comparison only how an image is read; it must never use a rule of the other.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use super::code::{Code, LINE, MadeUp, MadeUpKeys, PROFILE};
use super::container::CounterMeaning;
use super::keys::{Key, KeyId};
use super::model::Heap;
use super::slot::{Kind, Slot, SlotIndex};
use super::text::RegExpParts;
use crate::transcript::Hash256;

/// Makes the fingerprint of a heap.
#[must_use]
pub fn fingerprint(heap: &Heap) -> Hash256 {
    let mut writer = Writer {
        heap,
        numbers: vec![0; heap.slot_count() as usize + 1],
        next: 0,
        queue: VecDeque::new(),
        eligible: Vec::new(),
        symbols: HashMap::new(),
        templates: HashMap::new(),
        caches: std::collections::HashSet::new(),
        positions: Vec::new(),
        hasher: Sha256::new(),
        buffer: Vec::with_capacity(1 << 16),
    };
    for (name, value, meaning) in heap.creation().counters() {
        if meaning == CounterMeaning::Settings {
            writer.bytes(name.as_bytes());
            writer.word(value.cast_unsigned());
        }
    }
    for index in 1..=heap.slot_count() {
        let slot = heap.slot(index);
        if matches!(slot.kind, Kind::Program | Kind::Module)
            && let Some((_, cache)) = heap.own(slot.first()).nth(2)
            && cache.kind == Kind::Reference
        {
            writer.caches.insert(cache.first());
        }
    }
    for number in 0..heap.root_count() {
        writer.value(heap.root(number), false);
    }
    loop {
        while let Some(node) = writer.queue.pop_front() {
            writer.node(node);
        }
        let mut eligible = std::mem::take(&mut writer.eligible);
        if eligible.is_empty() {
            break;
        }
        // In no order that anyone can see, so in the order of the numbers.
        eligible.sort_unstable();
        eligible.dedup();
        for (list, key, cell) in eligible {
            writer.tag(b'w');
            writer.word(list.into());
            writer.word(key.into());
            writer.reference(cell);
        }
    }
    for at in std::mem::take(&mut writer.positions) {
        // How many deleted entries are passed, and the one that is reached.
        let mut passed = 0;
        let mut entries = heap.chain(at).map(|(at, _)| writer.number_of(at)).take(1 << 12);
        let entry = entries.find(|number| {
            passed += u64::from(*number == 0);
            *number != 0
        });
        writer.word(passed);
        writer.word(entry.unwrap_or(0).into());
    }
    writer.flush();
    Hash256::from_digest(writer.hasher)
}

struct Writer<'a> {
    heap: &'a Heap,
    /// The number of each slot that was met, 0 for none.
    numbers: Vec<u32>,
    next: u32,
    queue: VecDeque<SlotIndex>,
    /// Entries of weak collections whose collection and key were met: their numbers, and the cell.
    eligible: Vec<(u32, u32, SlotIndex)>,
    symbols: HashMap<KeyId, u32>,
    templates: HashMap<KeyId, u32>,
    caches: std::collections::HashSet<SlotIndex>,
    positions: Vec<SlotIndex>,
    hasher: Sha256,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn flush(&mut self) {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
    }

    fn tag(&mut self, tag: u8) {
        self.buffer.push(tag);
    }

    fn word(&mut self, word: u64) {
        self.buffer.extend_from_slice(&word.to_le_bytes());
        if self.buffer.len() > 1 << 16 {
            self.flush();
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
    }

    fn number_of(&self, slot: SlotIndex) -> u32 {
        self.numbers.get(slot as usize).copied().unwrap_or(0)
    }

    fn number(&mut self, slot: SlotIndex) -> u32 {
        match self.numbers.get_mut(slot as usize) {
            Some(known @ 0) if slot != 0 => {
                self.next += 1;
                *known = self.next;
                self.next
            }
            Some(known) => *known,
            None => 0,
        }
    }

    fn reference(&mut self, node: SlotIndex) {
        if node != 0 && self.number_of(node) == 0 {
            self.queue.push_back(node);
        }
        let number = self.number(node);
        self.word(number.into());
    }

    fn key(&mut self, id: KeyId, may_be_made_up: bool) {
        let heap = self.heap;
        match heap.key(id) {
            Key::Name([b'#', digits @ ..])
                if may_be_made_up && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) =>
            {
                self.tag(b'#');
            }
            Key::Name(name) => {
                self.tag(b'n');
                self.bytes(name);
            }
            Key::Registered(name) => {
                self.tag(b'r');
                self.bytes(name);
            }
            Key::Unique(name) => self.symbol(id, name),
            Key::Nameless => self.symbol(id, b""),
            Key::None => self.tag(b'-'),
        }
    }

    fn symbol(&mut self, id: KeyId, name: &[u8]) {
        let next = u32::try_from(self.symbols.len()).unwrap_or(u32::MAX);
        let number = *self.symbols.entry(id).or_insert(next);
        self.tag(b'u');
        self.bytes(name);
        self.word(number.into());
    }

    fn template(&mut self, id: KeyId) {
        let next = u32::try_from(self.templates.len()).unwrap_or(u32::MAX);
        let number = *self.templates.entry(id).or_insert(next);
        self.tag(b't');
        self.word(number.into());
    }

    fn node(&mut self, node: SlotIndex) {
        let heap = self.heap;
        let own = heap.slot(node);
        self.tag(b'o');
        if own.kind != Kind::Instance {
            self.tag(own.flag);
            self.value(own, true);
            return;
        }
        self.word(own.flag.into());
        self.reference(own.second());
        let mut before = (Kind::Uninitialized, Slot::NONE);
        let length = |from: Slot| {
            let info = heap.slot(from.next);
            if info.kind == Kind::BufferInfo { usize::try_from(info.integer()).unwrap_or(0) } else { 0 }
        };
        for (index, slot) in heap.own(node) {
            match slot.kind {
                Kind::WeakEntry => {
                    let list = self.number_of(slot.first());
                    if list != 0 {
                        self.eligible.push((list, self.number_of(node), slot.second()));
                    }
                    continue;
                }
                Kind::WeakMap | Kind::WeakSet => {
                    let list = self.number(index);
                    for (_, entry) in heap.chain(slot.first()) {
                        let key = self.number_of(entry.first());
                        if key != 0 {
                            self.eligible.push((list, key, entry.second()));
                        }
                    }
                }
                _ => {}
            }
            self.tag(slot.flag);
            if self.caches.contains(&node) && !slot.is_internal() {
                self.template(slot.id);
            } else if slot.kind != Kind::Home {
                // A key among an object's slots is a frame of an error's stack, and its own key the file.
                self.key(slot.id, slot.is_internal() || slot.kind == Kind::Key);
            }
            match slot.kind {
                Kind::List if matches!(before.0, Kind::Map | Kind::Set) => {
                    for (at, entry) in heap.chain(slot.first()) {
                        self.number(at);
                        self.tag(entry.flag);
                        self.value(entry, false);
                    }
                }
                Kind::ArrayBuffer => {
                    let content = heap.chunk(slot.first());
                    self.bytes(content.get(..length(slot).min(content.len())).unwrap_or_default());
                }
                _ => self.value(slot, true),
            }
            before = (slot.kind, slot);
        }
    }

    /// A value, with the slots that belong to it where those are not part of another value.
    fn value(&mut self, slot: Slot, with_own: bool) {
        let heap = self.heap;
        // Both forms of a number are the same number.
        self.tag(if slot.kind == Kind::Integer { Kind::Number as u8 } else { slot.kind as u8 });
        match slot.kind {
            Kind::Integer => self.word(f64::from(slot.integer()).to_bits()),
            Kind::Number | Kind::Date => {
                self.word(if slot.number().is_nan() { f64::NAN.to_bits() } else { slot.low });
            }
            Kind::String => self.bytes(heap.text(slot.first())),
            Kind::Key => {
                self.bytes(heap.text(slot.first()));
                self.word(slot.high);
            }
            Kind::BigInt => {
                self.bytes(heap.magnitude(slot));
                self.word(slot.high);
            }
            Kind::Symbol => self.key(slot.first(), false),
            Kind::Reference | Kind::Closure | Kind::WeakRef => self.reference(slot.first()),
            Kind::Accessor | Kind::Home | Kind::Proxy | Kind::FinalizationCell | Kind::Export => {
                self.reference(slot.first());
                self.reference(slot.second());
            }
            Kind::Module | Kind::Program | Kind::ModuleSource => {
                self.reference(slot.first());
                self.key(slot.second(), true);
            }
            Kind::Error => {
                self.reference(slot.first());
                self.word(slot.high);
            }
            Kind::Array | Kind::ArgumentsSloppy | Kind::ArgumentsStrict | Kind::Stack if with_own => {
                self.word(slot.high);
                for item in heap.elements(slot) {
                    self.word(item.next.into());
                    self.tag(item.flag);
                    // The name of a variable; an array's item has a field for one, which is never read.
                    if slot.kind == Kind::Stack {
                        self.key(item.id, true);
                    }
                    self.value(item, false);
                }
            }
            Kind::Code => {
                self.code(heap.chunk(slot.first()));
                self.reference(slot.second());
            }
            Kind::RegExp => self.regexp(heap.chunk(slot.first())),
            Kind::Private if with_own => {
                self.reference(slot.first());
                for (_, field) in heap.chain(slot.second()) {
                    self.key(field.id, false);
                    self.tag(field.flag);
                    self.value(field, false);
                }
            }
            Kind::FinalizationRegistry if with_own => {
                self.word(slot.high);
                for (_, held) in heap.chain(slot.first()) {
                    self.value(held, false);
                }
            }
            Kind::List => self.positions.push(slot.first()),
            Kind::Host => self.bytes(heap.chunk(slot.first())),
            Kind::Map | Kind::Set | Kind::Global | Kind::WeakMap | Kind::WeakSet | Kind::Instance => {}
            _ => {
                self.word(slot.low);
                self.word(slot.high);
            }
        }
    }

    fn code(&mut self, bytes: &[u8]) {
        let mut made_up = MadeUpKeys::default();
        for instruction in Code::new(bytes).flatten() {
            self.tag(instruction.opcode);
            let context = made_up.next(&instruction);
            match (instruction.opcode, instruction.key) {
                (PROFILE, _) => {}
                (LINE, _) => self.buffer.extend_from_slice(instruction.operand),
                (_, Some(key)) if context == Some(MadeUp::Template) => self.template(key),
                (_, Some(key)) => self.key(key, context.is_some()),
                (_, None) => self.bytes(instruction.operand),
            }
        }
        self.tag(0);
    }

    fn regexp(&mut self, code: &[u8]) {
        let names = RegExpParts::of(code).map_or(0, |parts| parts.captures);
        for (at, word) in code.as_chunks::<4>().0.iter().enumerate() {
            let word = u32::from_le_bytes(*word);
            if (2..2 + names).contains(&at) && word != u32::MAX {
                self.key(word, false);
            } else {
                self.word(word.into());
            }
        }
    }
}
