//! A vat's history is one chain of rows. This module says where the chain breaks.
//!
//! Owns the rules: positions are contiguous from 0, incarnations go up by one, at most one span is open and it is the
//! last one, each boundary has the items and the row of `snapshots` that a kernel leaves there, and the kernel's own
//! lists say which vats there are. The rows of a terminated vat may go in the order in which a kernel cleans up, and an
//! import may have left out everything before a position ([`Gap`]).
//!
//! It is pure: no I/O, no replay. It must never call a history broken that a kernel or swing-store writes.
//!
//! Source of the rules: `swing-store/src/transcriptStore.js` and `snapStore.js`, `swingset-vat/src/kernel/state/kernelKeeper.js`
//! (`cleanupAfterTerminatedVat`, `deleteVatID`) and `vatKeeper.js` (`saveSnapshot`, `beginNewIncarnation`).

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use crate::kernel_db::{SnapshotRow, SpanRow, WorkerType};
use crate::transcript::{DeliveryKind, Hash256, Item, Position, SpanId, VatId};
use crate::verdict::{Unverifiable, Verdict};

/// A place at which a vat's rows contradict one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The vat; `None` where the kernel's own lists are what is broken.
    pub vat: Option<VatId>,
    /// Where in the vat's transcript.
    pub position: Position,
    /// What was found there.
    pub what: String,
    /// The starts of the spans that it concerns.
    pub spans: Vec<Position>,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.vat {
            Some(vat) => write!(f, "{vat} at position {}: {}", self.position, self.what),
            None => write!(f, "kvStore: {}", self.what),
        }
    }
}

/// A history that begins later than at position 0 and is whole from there on: an import without history leaves this, and
/// so does an edit that deletes the first rows with everything that belongs to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The vat.
    pub vat: VatId,
    /// Where its rows begin.
    pub position: Position,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vat, position } = self;
        write!(f, "{vat} at position {position}: its history begins here; no row is left of the positions before it")
    }
}

/// What the rows of some vats say of their histories.
#[derive(Debug, Default, Clone)]
pub struct History {
    breaks: Vec<Break>,
    gaps: Vec<Gap>,
    /// The first break that concerns a span, by vat and start.
    of_span: HashMap<(VatId, Position), usize>,
}

impl History {
    /// Adds a break.
    pub fn add(&mut self, found: Break) {
        if let Some(vat) = &found.vat {
            for start in &found.spans {
                self.of_span.entry((vat.clone(), *start)).or_insert(self.breaks.len());
            }
        }
        self.breaks.push(found);
    }

    /// Checks a vat's history and adds what is found.
    pub fn check(&mut self, facts: &Facts<'_>) {
        let (breaks, gap) = check(facts);
        breaks.into_iter().for_each(|found| self.add(found));
        self.gaps.extend(gap);
    }

    /// All breaks, in the order in which they were found.
    #[must_use]
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// All histories that do not begin at position 0.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Whether there is neither a break nor a gap.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.breaks.is_empty() && self.gaps.is_empty()
    }

    /// The break that concerns a span, as the reason of its verdict.
    #[must_use]
    pub fn reason(&self, span: &SpanId) -> Option<Unverifiable> {
        let found = &self.breaks[*self.of_span.get(&(span.vat.clone(), span.start))?];
        Some(Unverifiable::HistoryBroken { position: found.position, what: found.what.clone() })
    }

    /// A span's verdict in the light of the rows around it: a divergence, damage and trouble of ours stay what they are,
    /// anything else does not count where the history is broken.
    #[must_use]
    pub fn weigh(&self, span: &SpanId, verdict: Verdict) -> Verdict {
        let yields = match &verdict {
            Verdict::Verified | Verdict::Partial(_) | Verdict::NotApplicable(_) => true,
            // What an item out of place means for the chain says more than that it is out of place.
            Verdict::Unverifiable(Unverifiable::Shape { .. }) => true,
            Verdict::Unverifiable(reason) => !reason.is_damage(),
            _ => false,
        };
        match self.reason(span).filter(|_| yields) {
            Some(reason) => Verdict::Unverifiable(reason),
            None => verdict,
        }
    }
}

/// What the kernel's own lists say of a vat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// `vat.names` or `vat.dynamicIDs` has it.
    Live,
    /// `vats.terminated` has it, or there is no such list.
    Terminated,
    /// None of them has it.
    Unlisted,
}

/// What the kernel's key `<vatID>.options` says of the vat's worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Worker {
    /// Its type.
    Is(WorkerType),
    /// There is no such key.
    NoKey,
    /// It does not say, or can't be read.
    Unknown,
}

/// The first item of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// `initialize-worker`, with the type of the worker.
    Initialize(WorkerType),
    /// `load-snapshot`, with the hash that it names.
    Load(Hash256),
    /// Anything else.
    Other(&'static str),
}

/// The last item of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Last {
    /// `save-snapshot`, with the hash of the image.
    Save(Hash256),
    /// `shutdown-worker`.
    Shutdown,
    /// Anything else.
    Other(&'static str),
}

impl First {
    /// From the item's text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        match Item::parse(text).map(|item| item.kind) {
            Ok(DeliveryKind::InitializeWorker { worker_type, .. }) => Self::Initialize(WorkerType::of(&worker_type)),
            Ok(DeliveryKind::LoadSnapshot { image }) => Self::Load(image),
            Ok(other) => Self::Other(other.name()),
            Err(_) => Self::Other("an unreadable item"),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Initialize(_) => "initialize-worker",
            Self::Load(_) => "load-snapshot",
            Self::Other(name) => name,
        }
    }
}

impl Last {
    /// From the item's text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        match Item::parse(text).map(|item| item.kind) {
            Ok(DeliveryKind::SaveSnapshot { image }) => Self::Save(image),
            Ok(DeliveryKind::ShutdownWorker) => Self::Shutdown,
            Ok(other) => Self::Other(other.name()),
            Err(_) => Self::Other("an unreadable item"),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Save(_) => "save-snapshot",
            Self::Shutdown => "shutdown-worker",
            Self::Other(name) => name,
        }
    }
}

/// A span's row with its first and last item, each `None` where the item is not there.
#[derive(Debug, Clone)]
pub struct Link {
    /// The row.
    pub row: SpanRow,
    /// Its first item.
    pub first: Option<First>,
    /// Its last item.
    pub last: Option<Last>,
}

impl Link {
    fn start(&self) -> Position {
        self.row.id.start
    }

    fn end(&self) -> Position {
        self.row.id.end
    }

    fn is_empty(&self) -> bool {
        self.start() == self.end()
    }
}

/// The items of an open span, read together with its row.
#[derive(Debug, Clone)]
pub struct OpenItems {
    /// The row.
    pub row: SpanRow,
    /// How many of its items are there.
    pub present: u64,
    /// The hash of those.
    pub hash: Hash256,
}

/// What there is of a vat.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The vat.
    pub vat: &'a VatId,
    /// What the kernel's lists say of it.
    pub standing: Standing,
    /// What its options say.
    pub worker: Worker,
    /// Its spans, by start.
    pub spans: &'a [Link],
    /// Its rows of `snapshots`, by position.
    pub snapshots: &'a [SnapshotRow],
    /// The lowest and the highest position of which an item is there, whatever the spans say.
    pub items: Option<(Position, Position)>,
    /// The items of its open span.
    pub open: Option<OpenItems>,
}

/// Says where a vat's history breaks, and whether it begins later than at 0.
#[must_use]
pub fn check(facts: &Facts<'_>) -> (Vec<Break>, Option<Gap>) {
    let mut checker = Checker { facts, breaks: Vec::new(), gap: None };
    match (facts.spans.first(), facts.spans.last()) {
        (Some(first), Some(last)) => {
            checker.rows();
            checker.beginning(first);
            for pair in facts.spans.windows(2) {
                checker.boundary(&pair[0], &pair[1]);
            }
            checker.end(last);
            checker.snapshots(last);
            checker.worker();
            checker.open();
        }
        _ => checker.absence(),
    }
    (checker.breaks, checker.gap)
}

/// A fault between the rows of two spans of a vat that should follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeamFault {
    /// Positions between them belong to no span.
    Gap,
    /// Positions belong to both.
    Overlap,
    /// The incarnation neither stays nor goes up by one.
    Incarnation,
}

/// The fault between the rows of a span and the next one of its vat. Costs nothing: no item is read.
pub(crate) fn seam(before: &SpanRow, after: &SpanRow) -> Option<SeamFault> {
    match before.id.end.cmp(&after.id.start) {
        Ordering::Less => Some(SeamFault::Gap),
        Ordering::Greater => Some(SeamFault::Overlap),
        Ordering::Equal => match after.incarnation.checked_sub(before.incarnation) {
            Some(0 | 1) => None,
            _ => Some(SeamFault::Incarnation),
        },
    }
}

struct Checker<'a> {
    facts: &'a Facts<'a>,
    breaks: Vec<Break>,
    gap: Option<Gap>,
}

impl Checker<'_> {
    fn add(&mut self, position: Position, spans: &[&Link], what: String) {
        let spans = spans.iter().map(|link| link.start()).collect();
        self.breaks.push(Break { vat: Some(self.facts.vat.clone()), position, what, spans });
    }

    /// A break that concerns everything of the vat.
    fn add_for_all(&mut self, position: Position, what: String) {
        let all: Vec<&Link> = self.facts.spans.iter().collect();
        self.add(position, &all, what);
    }

    fn snapshot(&self, position: Position) -> Option<&SnapshotRow> {
        let at = self.facts.snapshots.binary_search_by_key(&position, |row| row.position).ok()?;
        Some(&self.facts.snapshots[at])
    }

    /// No span has a row.
    fn absence(&mut self) {
        let left = match (self.facts.items, self.facts.snapshots.first()) {
            (Some((first, _)), _) => Some((first, "items of the vat are there, and no row of transcriptSpans is")),
            (None, Some(row)) => Some((row.position, "the vat has rows in snapshots and none in transcriptSpans")),
            (None, None) => None,
        };
        if self.facts.standing == Standing::Live {
            self.add(0, &[], "the kernel's lists have this vat, and transcriptSpans has no row of it".to_owned());
        } else if let Some((position, what)) = left {
            self.add(position, &[], what.to_owned());
        }
    }

    /// What each row says by itself.
    fn rows(&mut self) {
        for link in self.facts.spans {
            if link.end() < link.start() {
                self.add(link.start(), &[link], "the span's row says that it ends before it starts".to_owned());
            }
            if link.row.hash.is_none() {
                self.add(link.start(), &[link], "the hash in the span's row is not a sha256 in hex".to_owned());
            }
        }
    }

    fn beginning(&mut self, first: &Link) {
        let start = first.start();
        if start == 0 {
            // Only the span of a local worker without a transcript stays empty.
            if !matches!(self.facts.worker, Worker::Is(WorkerType::Local)) {
                self.empty_open_span(first, "initialize-worker");
            }
            if first.row.incarnation != 0 {
                let what = format!("the first span is of incarnation {}, expected 0", first.row.incarnation);
                self.add(0, &[first], what);
            }
            if let Some(item @ (First::Load(_) | First::Other(_))) = &first.first {
                let what = format!("the first span begins with {}, expected initialize-worker", item.name());
                self.add(0, &[first], what);
            }
            return;
        }
        let left = match (self.facts.items, self.facts.snapshots.first()) {
            (Some((position, _)), _) if position < start => Some("an item"),
            (_, Some(row)) if row.position.saturating_add(1) < start => Some("a row of snapshots"),
            _ => None,
        };
        match left {
            Some(left) => {
                let what =
                    format!("the first span begins here, and {left} before it is there: a span's row is missing");
                self.add(start, &[first], what);
            }
            None => self.gap = Some(Gap { vat: self.facts.vat.clone(), position: start }),
        }
        match &first.first {
            Some(First::Load(loaded)) => self.image(first, None, Some(*loaded)),
            Some(First::Initialize(_)) => self.begins_incarnation(first),
            Some(First::Other(name)) => {
                let what = format!("the span begins with {name}, expected load-snapshot or initialize-worker");
                self.add(start, &[first], what);
            }
            None => {}
        }
    }

    /// Two spans, one after the other.
    fn boundary(&mut self, before: &Link, after: &Link) {
        let at = after.start();
        if before.row.is_current {
            let what =
                format!("the span [{}, {}) is marked as open, and others follow it", before.start(), before.end());
            self.add(before.start(), &[before, after], what);
        }
        match seam(&before.row, &after.row) {
            Some(SeamFault::Gap) => {
                let what = format!(
                    "no span has the positions from {} up to {at}: a row is missing or was shortened",
                    before.end()
                );
                self.add(before.end(), &[before, after], what);
            }
            Some(SeamFault::Overlap) => {
                let what =
                    format!("the span before it ends at {}, so both have the positions up to there", before.end());
                self.add(at, &[before, after], what);
            }
            Some(SeamFault::Incarnation) => {
                let (is, was) = (after.row.incarnation, before.row.incarnation);
                self.add(at, &[before, after], format!("incarnation {is} follows incarnation {was}"));
            }
            None if after.row.incarnation == before.row.incarnation => self.snapshot_boundary(before, after),
            None => self.upgrade_boundary(before, after),
        }
    }

    /// The span before saved a snapshot, and this one loads it.
    fn snapshot_boundary(&mut self, before: &Link, after: &Link) {
        let at = after.start();
        let saved = match &before.last {
            Some(Last::Save(hash)) => Some(*hash),
            Some(other) => {
                let what = format!(
                    "{} ends the span, expected save-snapshot: the next span is of the same incarnation",
                    other.name()
                );
                self.add(at.saturating_sub(1), &[before, after], what);
                None
            }
            None => None,
        };
        let loaded = match &after.first {
            Some(First::Load(hash)) => Some(*hash),
            Some(other) => {
                let what = format!(
                    "the span begins with {}, expected load-snapshot: it goes on with the incarnation",
                    other.name()
                );
                self.add(at, &[after], what);
                None
            }
            None => None,
        };
        self.empty_open_span(after, "load-snapshot");
        if let Some((saved, loaded)) = saved.zip(loaded).filter(|(saved, loaded)| saved != loaded) {
            let what = format!("load-snapshot names {loaded}, the span before it saved {saved}");
            self.add(at, &[after], what);
        }
        self.image(after, saved, loaded);
    }

    /// The row of the snapshot that a span starts from.
    fn image(&mut self, after: &Link, saved: Option<Hash256>, loaded: Option<Hash256>) {
        let position = after.start().saturating_sub(1);
        let Some(row) = self.snapshot(position) else {
            // The clean-up of a terminated vat deletes them, newest first.
            let is_newest = self.facts.snapshots.last().is_none_or(|last| last.position < position);
            if self.facts.standing == Standing::Live || !is_newest {
                let what = "the row of snapshots with the image that the next span starts from is missing".to_owned();
                self.add(position, &[after], what);
            }
            return;
        };
        let hash = row.hash;
        let named = [(saved, "save-snapshot"), (loaded, "load-snapshot")];
        let other = named.into_iter().find_map(|(named, by)| named.filter(|named| hash != Some(*named)).zip(Some(by)));
        if let Some((named, by)) = other {
            let hash = hash.map_or_else(|| "no sha256".to_owned(), |hash| hash.to_string());
            self.add(position, &[after], format!("the row of snapshots has {hash}, {by} names {named}"));
        }
    }

    fn upgrade_boundary(&mut self, before: &Link, after: &Link) {
        let at = after.start();
        if let Some(other @ (Last::Save(_) | Last::Other(_))) = &before.last {
            let what = format!("{} ends the incarnation, expected shutdown-worker", other.name());
            self.add(at.saturating_sub(1), &[before, after], what);
        }
        if let Some(other @ (First::Load(_) | First::Other(_))) = &after.first {
            let what = format!("the incarnation begins with {}, expected initialize-worker", other.name());
            self.add(at, &[after], what);
        }
        self.empty_open_span(after, "initialize-worker");
        self.begins_incarnation(after);
    }

    /// A blank worker starts from no snapshot.
    fn begins_incarnation(&mut self, after: &Link) {
        let position = after.start().saturating_sub(1);
        if self.snapshot(position).is_some() {
            let what = "snapshots has a row for the end of an incarnation, which saves none".to_owned();
            self.add(position, &[after], what);
        }
        if after.row.incarnation == 0 {
            self.add(after.start(), &[after], "initialize-worker stands in the middle of incarnation 0".to_owned());
        }
    }

    fn empty_open_span(&mut self, link: &Link, expected: &str) {
        if link.is_empty() {
            self.add(link.start(), &[link], format!("the span is empty, expected {expected}"));
        }
    }

    fn end(&mut self, last: &Link) {
        let end = last.end();
        let is_open = last.row.is_current;
        match self.facts.standing {
            Standing::Live if !is_open => {
                let what =
                    "no span is open, and the kernel's lists have this vat: a row was marked as closed or is missing";
                self.add(end, &[last], what.to_owned());
            }
            Standing::Terminated | Standing::Unlisted if is_open => {
                let what = "a span is open, and the kernel's lists do not have this vat among those that are alive";
                self.add(last.start(), &[last], what.to_owned());
            }
            Standing::Unlisted => {
                let what = "none of the kernel's lists has this vat, neither as alive nor as terminated";
                self.add_for_all(end, what.to_owned());
            }
            Standing::Live | Standing::Terminated => {}
        }
        // The clean-up of a terminated vat takes its keys and its snapshots before its spans.
        let is_untouched = self.facts.worker != Worker::NoKey || !self.facts.snapshots.is_empty();
        if let Some(item @ (Last::Save(_) | Last::Shutdown)) = &last.last
            && is_untouched
        {
            let what = format!("{} ends the last span: the row of the span after it is missing", item.name());
            self.add(end, &[last], what);
        }
        if self.facts.items.is_some_and(|(_, highest)| highest >= end) {
            let what = "items are there behind the end of the last span: its row was shortened, or a row is missing";
            self.add(end, &[last], what.to_owned());
        }
    }

    /// Each row of `snapshots` belongs to a boundary, and the one in use to the open span.
    fn snapshots(&mut self, last: &Link) {
        let mut boundaries: BTreeSet<Position> = BTreeSet::new();
        let mut loads_last = last.start() > 0 && !matches!(last.first, Some(First::Initialize(_)));
        for pair in self.facts.spans.windows(2) {
            // A boundary of incarnations is looked at there.
            boundaries.extend([pair[0].end(), pair[1].start()].iter().filter_map(|end| end.checked_sub(1)));
            loads_last = pair[0].row.incarnation == pair[1].row.incarnation;
        }
        boundaries.extend(self.facts.spans.first().and_then(|first| first.start().checked_sub(1)));
        let is_live = self.facts.standing == Standing::Live && last.row.is_current;
        let expected = last.start().checked_sub(1).filter(|_| is_live && loads_last);
        for row in self.facts.snapshots {
            let position = row.position;
            let is_boundary = boundaries.contains(&position);
            let what = if !is_boundary {
                "no span ends where this row of snapshots says that one does"
            } else if row.in_use && expected != Some(position) {
                "this row of snapshots is marked as in use, and no open span starts from it"
            } else if !row.in_use && expected == Some(position) {
                "the open span starts from this row of snapshots, which is not marked as in use"
            } else if row.in_use && !row.has_image {
                "the image that is in use is missing: the kernel cannot start the vat"
            } else {
                continue;
            };
            let spans = self.facts.spans;
            let at = spans.partition_point(|link| link.start() <= position).checked_sub(1);
            let owner = at.map(|at| &spans[at]).filter(|link| position < link.end());
            let concerned = if is_boundary { Some(last) } else { owner };
            self.add(position, &concerned.into_iter().collect::<Vec<_>>(), what.to_owned());
        }
    }

    /// The type of the worker, by the vat's options and by its items.
    fn worker(&mut self) {
        let mut types = self.facts.spans.iter().filter_map(|link| match &link.first {
            Some(First::Initialize(worker)) => Some((link.start(), worker)),
            _ => None,
        });
        let first = types.next();
        if let Some((_, is)) = first
            && let Some((at, other)) = types.find(|(_, other)| *other != is)
        {
            let what = format!(
                "initialize-worker names a worker of type {:?}, an earlier one {:?}",
                other.label(),
                is.label()
            );
            return self.add_for_all(at, what);
        }
        match (&self.facts.worker, first) {
            (Worker::NoKey, _) if self.facts.standing == Standing::Live => {
                let what = format!("kvStore has no {}.options, and the kernel's lists have this vat", self.facts.vat);
                return self.add_for_all(0, what);
            }
            (Worker::Is(options), Some((at, items))) if options != items => {
                let what = format!(
                    "the vat's options name a worker of type {:?}, initialize-worker {:?}",
                    options.label(),
                    items.label()
                );
                return self.add_for_all(at, what);
            }
            _ => {}
        }
        let is_local = matches!(&self.facts.worker, Worker::Is(WorkerType::Local))
            || matches!(first, Some((_, WorkerType::Local)));
        let loads = self.facts.spans.iter().find(|link| matches!(link.first, Some(First::Load(_)))).map(Link::start);
        let saves = self.facts.snapshots.first().map(|row| row.position);
        if let Some(position) = loads.or(saves).filter(|_| is_local) {
            let what = "the vat is said to run in a local worker, and those have no snapshots".to_owned();
            self.add_for_all(position, what);
        }
    }

    fn open(&mut self) {
        let Some(OpenItems { row, present, hash }) = &self.facts.open else { return };
        let count = row.id.end.saturating_sub(row.id.start);
        let link = Link { row: row.clone(), first: None, last: None };
        if *present != count {
            let what =
                format!("{present} of the {count} items of the open span are there, and the kernel needs all of them");
            self.add(row.id.start, &[&link], what);
        } else if let Some(recorded) = row.hash.filter(|recorded| recorded != hash) {
            let what = format!("the items of the open span have the hash {hash}, its row has {recorded}");
            self.add(row.id.start, &[&link], what);
        }
    }
}
