//! References between slots, and their labels.
//!
//! Nodes are objects, and the cells in which variables live; everything else belongs to one of them. Owns the layout of
//! objects: which slots after an object's own are its array, its list, its scope. It must never follow a reference: walks
//! are for those who ask.

use super::keys::{Key, KeyId};
use super::model::Heap;
use super::slot::{Kind, Slot, SlotIndex, behaviors, flags};
use super::text;

/// The label of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Label {
    /// A root of the engine, see [`super::ROOTS`].
    Root(u32),
    /// An object that liveslots has registered: the number of its entry in `slotToVal`.
    Registered(u32),
    /// The variables of a program outside of any function.
    Program,
    /// A property.
    Property(KeyId),
    /// The function that reads a property.
    Getter(KeyId),
    /// The function that sets a property.
    Setter(KeyId),
    /// An item of an array.
    Item(u32),
    /// The variables that a function has from where it was made.
    Scope,
    /// A variable.
    Variable(KeyId),
    /// The scope around a scope.
    Outer,
    /// The prototype.
    Prototype,
    /// A key of a map, by its place.
    MapKey(u32),
    /// A value of a map, by its place.
    MapValue(u32),
    /// A member of a set, by its place.
    Member(u32),
    /// The value in a weak collection for the object; the collection's slot.
    WeakValue(SlotIndex),
    /// A private field.
    Private(KeyId),
    /// A local variable of a suspended function, by its place.
    Saved(u32),
    /// The content of a cell.
    Content,
    /// Something of the engine's own.
    Internal(&'static str, u32),
    /// The target of a weak reference or of a finalization registry; keeps nothing alive.
    Weak(&'static str, u32),
}

impl Label {
    /// Whether what it leads to is kept alive by it.
    #[must_use]
    pub fn keeps(self) -> bool {
        !matches!(self, Self::Weak(..))
    }
}

/// The class of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// An object with nothing but properties.
    Object,
    /// A scope of variables.
    Scope,
    /// A function of the program.
    Function,
    /// A function of the engine or the worker.
    HostFunction,
    /// The class that the first internal slot gives.
    Other(Kind),
}

impl Class {
    /// Its name for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Scope => "scope",
            Self::Function => "function",
            Self::HostFunction => "host function",
            Self::Other(kind) => match kind {
                Kind::Array => "array",
                Kind::ArgumentsSloppy | Kind::ArgumentsStrict => "arguments",
                Kind::ArrayBuffer => "ArrayBuffer",
                Kind::DataView => "DataView",
                Kind::Date => "Date",
                Kind::Error => "Error",
                Kind::Map => "Map",
                Kind::Set => "Set",
                Kind::WeakMap => "WeakMap",
                Kind::WeakSet => "WeakSet",
                Kind::WeakRef => "WeakRef",
                Kind::Promise => "Promise",
                Kind::Proxy => "Proxy",
                Kind::RegExp => "RegExp",
                Kind::TypedArray => "typed array",
                Kind::Stack => "suspended function",
                Kind::Boolean => "Boolean",
                Kind::Number | Kind::Integer => "Number",
                Kind::String => "String",
                Kind::Symbol => "Symbol",
                Kind::BigInt => "BigInt",
                other => other.label(),
            },
        }
    }
}

impl Heap {
    /// The class of an object.
    #[must_use]
    pub fn class(&self, instance: SlotIndex) -> Class {
        let own = self.slot(instance);
        let first = self.slot(own.next);
        if own.flag & flags::EXOTIC != 0 && first.id == behaviors::ENVIRONMENT {
            return Class::Scope;
        }
        if own.next == 0 || !first.is_internal() {
            return Class::Object;
        }
        match first.kind {
            Kind::Code | Kind::CodeX => Class::Function,
            Kind::Callback => Class::HostFunction,
            // A plain object with indexes has its items first, as an array does, but no length of its own.
            Kind::Array if own.flag & flags::EXOTIC == 0 => Class::Object,
            Kind::WeakEntry => {
                self.own(instance).find(|(_, slot)| slot.kind != Kind::WeakEntry).map_or(Class::Object, |(_, slot)| {
                    match slot.kind {
                        _ if !slot.is_internal() => Class::Object,
                        Kind::Code | Kind::CodeX => Class::Function,
                        Kind::Callback => Class::HostFunction,
                        kind => Class::Other(kind),
                    }
                })
            }
            kind => Class::Other(kind),
        }
    }

    /// The object that a slot refers to, if it refers to one.
    #[must_use]
    pub fn target(&self, slot: Slot) -> Option<SlotIndex> {
        (slot.kind == Kind::Reference).then(|| slot.first())
    }

    /// Shows every reference of a node to another, in the order in which they stand.
    pub fn references(&self, node: SlotIndex, mut show: impl FnMut(Label, SlotIndex)) {
        let own = self.slot(node);
        if own.kind != Kind::Instance {
            self.references_of(own, Label::Content, 0, &mut show);
            return;
        }
        let is_scope = self.class(node) == Class::Scope;
        if own.second() != 0 {
            show(if is_scope { Label::Outer } else { Label::Prototype }, own.second());
        }
        let (mut internal, mut pairs, mut before) = (0, None, Kind::Uninitialized);
        for (at, slot) in self.own(node) {
            let label = if is_scope && slot.kind == Kind::Closure {
                Label::Variable(slot.id)
            } else if slot.is_internal() || is_scope {
                internal += 1;
                Label::Internal(slot.kind.label(), internal)
            } else {
                Label::Property(slot.id)
            };
            match slot.kind {
                Kind::Map => pairs = Some(true),
                Kind::Set => pairs = Some(false),
                Kind::List if matches!(before, Kind::Map | Kind::Set) => {
                    self.references_of_list(slot, pairs == Some(true), &mut show);
                }
                Kind::WeakEntry if slot.second() != 0 => show(Label::WeakValue(slot.first()), slot.second()),
                _ => self.references_of(slot, label, at, &mut show),
            }
            before = slot.kind;
        }
    }

    fn references_of_list(&self, list: Slot, is_map: bool, show: &mut impl FnMut(Label, SlotIndex)) {
        let mut place = 0;
        for (number, (at, slot)) in self.chain(list.first()).enumerate() {
            let is_value = is_map && number % 2 == 1;
            let label = match (is_map, is_value) {
                (false, _) => Label::Member(place),
                (true, false) => Label::MapKey(place),
                (true, true) => Label::MapValue(place),
            };
            self.references_of(slot, label, at, show);
            if !is_map || is_value {
                place += 1;
            }
        }
    }

    /// The references of one slot, and of the slots that belong to it. Those in turn are taken as values, so nothing nests.
    fn references_of(&self, slot: Slot, label: Label, at: SlotIndex, show: &mut impl FnMut(Label, SlotIndex)) {
        match slot.kind {
            Kind::Array | Kind::ArgumentsSloppy | Kind::ArgumentsStrict => {
                for item in self.elements(slot) {
                    self.references_of_value(item, Label::Item(item.next), 0, show);
                }
            }
            Kind::Stack => {
                for (place, item) in (0_u32..).zip(self.items(slot.first())) {
                    self.references_of_value(item, Label::Saved(place), 0, show);
                }
            }
            Kind::Private => {
                if slot.first() != 0 {
                    show(Label::Internal("brand", slot.id), slot.first());
                }
                for (at, field) in self.chain(slot.second()) {
                    self.references_of_value(field, Label::Private(field.id), at, show);
                }
            }
            Kind::FinalizationRegistry => {
                for (place, (at, held)) in (0_u32..).zip(self.chain(slot.first())) {
                    let label = Label::Internal(if place == 0 { "callback" } else { "held" }, place);
                    self.references_of_value(held, label, at, show);
                }
            }
            _ => self.references_of_value(slot, label, at, show),
        }
    }

    fn references_of_value(&self, slot: Slot, label: Label, at: SlotIndex, show: &mut impl FnMut(Label, SlotIndex)) {
        let mut maybe = |label: Label, target: SlotIndex| {
            if target != 0 {
                show(label, target);
            }
        };
        match slot.kind {
            Kind::Reference | Kind::Closure => maybe(label, slot.first()),
            Kind::Accessor => {
                let key = if let Label::Property(key) = label { key } else { slot.id };
                maybe(Label::Getter(key), slot.first());
                maybe(Label::Setter(key), slot.second());
            }
            Kind::Code => maybe(Label::Scope, slot.second()),
            Kind::Home => {
                maybe(Label::Internal("home", 0), slot.first());
                maybe(Label::Internal("module", 0), slot.second());
            }
            Kind::Proxy => {
                maybe(Label::Internal("handler", 0), slot.first());
                maybe(Label::Internal("target", 0), slot.second());
            }
            Kind::Module | Kind::Program => maybe(Label::Internal("realm", 0), slot.first()),
            Kind::Error => maybe(Label::Internal("stack", 0), slot.first()),
            Kind::FinalizationCell => {
                maybe(Label::Weak("registered", at), slot.first());
                maybe(Label::Weak("token", at), slot.second());
            }
            Kind::WeakRef => maybe(Label::Weak("target", 0), slot.first()),
            Kind::Export => {
                maybe(label, slot.first());
                maybe(Label::Internal("module", 0), slot.second());
            }
            _ => {}
        }
    }

    /// The name of a key as it stands after an object: `.name`, `["not a name"]`, `[Symbol.iterator]`.
    #[must_use]
    pub fn key_text(&self, id: KeyId) -> String {
        match self.key(id) {
            Key::Name(name) if is_identifier(name) => format!(".{}", text::decode(name)),
            Key::Name(name) => format!("[{}]", text::quoted(name, 60)),
            Key::Registered(name) => format!("[Symbol.for({})]", text::quoted(name, 60)),
            Key::Unique(name) if name.starts_with(b"Symbol.") => format!("[{}]", text::decode(name)),
            Key::Unique(name) => format!("[Symbol({})]", text::decode(name)),
            Key::Nameless => "[Symbol()]".to_owned(),
            Key::None => format!("[key {id}]"),
        }
    }

    /// The text of a key alone.
    #[must_use]
    pub fn key_name(&self, id: KeyId) -> String {
        match self.key(id) {
            Key::Name(name) => text::decode(name),
            Key::None => format!("key {id}"),
            _ => {
                let text = self.key_text(id);
                text.trim_start_matches('[').trim_end_matches(']').to_owned()
            }
        }
    }
}

fn is_identifier(name: &[u8]) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$') || byte >= 0x80;
    name.first().is_some_and(|first| is_first(*first))
        && name.iter().all(|byte| is_first(*byte) || byte.is_ascii_digit())
}

/// The origin of a function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Its name, empty for none.
    pub name: String,
    /// The source file, or `#3` for the third script without a name.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}", if self.name.is_empty() { "(anonymous)" } else { &self.name })?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(to, ", {file}:{line}"),
            (Some(file), None) => write!(to, ", {file}"),
            (None, Some(line)) => write!(to, ", line {line}"),
            (None, None) => Ok(()),
        }
    }
}

impl Heap {
    /// The origin of a function; `None` for any other object.
    #[must_use]
    pub fn origin(&self, instance: SlotIndex) -> Option<Origin> {
        let (_, code) = self
            .own(instance)
            .take_while(|(_, slot)| slot.is_internal())
            .find(|(_, slot)| matches!(slot.kind, Kind::Code | Kind::CodeX | Kind::Callback))?;
        // `name`, by its number among the keys that every engine has.
        const NAME: KeyId = 314;
        let name = self.own(instance).find(|(_, slot)| !slot.is_internal() && slot.id == NAME);
        let name = match name {
            Some((_, slot)) if slot.kind == Kind::String => text::decode(self.text(slot.first())),
            _ if code.kind == Kind::Callback => {
                super::CALLBACKS.get(code.first() as usize).map_or("", |name| name).to_owned()
            }
            _ if code.id != 0 => self.key_name(code.id),
            _ => String::new(),
        };
        let (mut file, mut line) = (None, None);
        if code.kind == Kind::Code {
            for instruction in super::code::Code::new(self.chunk(code.first())).flatten().take(64) {
                if instruction.opcode == super::code::FILE && file.is_none() {
                    file = instruction.key.map(|key| self.key_name(key));
                }
                line = line.or(instruction.line());
                if file.is_some() && line.is_some() {
                    break;
                }
            }
        }
        Some(Origin { name, file, line })
    }
}
