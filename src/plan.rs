//! The plan: the spans that can be verified, and the base of each.
//!
//! Owns the decision how a span's worker gets its heap: blank, from a recorded image, or by replaying the spans before
//! it. Spans that depend on one another form a [`Unit`]; units are independent. It decides from rows alone and reads no
//! item, so what it says of a pruned span is inferred from its neighbours.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::{Break, Facts, First, History, Last, Link, OpenItems, Standing, Worker};
use crate::kernel_db::{
    DbError, Edges, KernelDb, OptionsFault, Reader, SnapshotRow, SpanRow, VatLists, VatOptions, WorkerType,
};
use crate::record::{Image, ItemsAt, Origin, Record};
use crate::span::{BaseKind, SpanBegins, SpanEnds};
use crate::transcript::{Hash256, Position, VatId};

/// Number of spans whose items are examined in one read: on a node that keeps all items each takes a while.
const SPANS_A_READ: usize = 1_000;

/// Everything about a database that decides what can be verified.
#[derive(Debug)]
pub struct Survey {
    /// The spans of the vats that were asked for, by vat and start, each with the number of its items in the database.
    pub spans: Vec<(SpanRow, u64)>,
    /// All vats that have spans, or that the kernel's lists have.
    pub vats: BTreeSet<VatId>,
    /// The snapshots, by vat and position.
    pub snapshots: HashMap<(VatId, Position), SnapshotRow>,
    /// The vats' options; an error's text where they can't be read.
    pub options: HashMap<VatId, Result<VatOptions, OptionsFault>>,
    /// The kernel's durability rule, which workers are told.
    pub relax_durability_rules: bool,
    /// Rows that can't be read, a sentence each.
    pub faults: Vec<String>,
    /// Breaks in the histories of the vats that were asked for.
    pub history: History,
}

/// Facts that the check of the histories needs beside the rows, all from one read.
struct Census {
    lists: VatLists,
    items: BTreeMap<VatId, (Position, Position)>,
    /// The vats that have options of their own: a static vat's name is not among them.
    options: BTreeSet<VatId>,
}

impl Survey {
    /// Reads it, for the vats that are given by ID or name, or for all if none is.
    ///
    /// The items are looked at in short reads: on a node that keeps all of them this takes a while.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn read(db: &KernelDb, vats: &[String]) -> Result<Self, DbError> {
        let (rows, census, mut survey) = db.read(|reader| {
            let (rows, mut faults) = reader.spans()?;
            let snapshots = reader.snapshots()?;
            let (items, odd_items) = reader.item_bounds()?;
            faults.extend(odd_items);
            let census = Census { lists: reader.vat_lists()?, items, options: reader.vats_with_options()? };
            let survey = Self {
                spans: Vec::new(),
                vats: rows.iter().map(|row| &row.id.vat).chain(&census.lists.live).cloned().collect(),
                snapshots: snapshots.into_iter().map(|row| ((row.vat.clone(), row.position), row)).collect(),
                options: reader.vat_options()?,
                relax_durability_rules: reader.relax_durability_rules()?,
                faults,
                history: History::default(),
            };
            Ok((rows, census, survey))
        })?;
        let is_wanted = |vat: &VatId| vats.is_empty() || vats.iter().any(|word| survey.is_named(vat, word));
        let wanted: Vec<SpanRow> = rows.into_iter().filter(|row| is_wanted(&row.id.vat)).collect();
        let with_rows = survey.snapshots.keys().map(|(vat, _)| vat).chain(census.items.keys());
        let mut to_check: BTreeSet<VatId> =
            survey.vats.iter().chain(with_rows).filter(|vat| is_wanted(vat)).cloned().collect();
        for fault in &census.lists.faults {
            survey.history.add(Break { vat: None, position: 0, what: fault.clone(), spans: Vec::new() });
        }
        let mut snapshots: HashMap<VatId, Vec<SnapshotRow>> = HashMap::new();
        for row in survey.snapshots.values() {
            snapshots.entry(row.vat.clone()).or_default().push(row.clone());
        }
        for of_one_vat in wanted.chunk_by(|one, other| one.id.vat == other.id.vat) {
            let vat = &of_one_vat[0].id.vat;
            to_check.remove(vat);
            let links = survey.read_items(db, of_one_vat)?;
            let open = db.read(|reader| reader.open_span(vat))?;
            let open = open.map(|(row, present, hash)| OpenItems { row, present, hash });
            survey.check(vat, &census, &links, snapshots.remove(vat).unwrap_or_default(), open);
        }
        for vat in to_check {
            survey.check(&vat, &census, &[], snapshots.remove(&vat).unwrap_or_default(), None);
        }
        Ok(survey)
    }

    /// Counts the items of a vat's spans and looks at the first and the last one of each.
    fn read_items(&mut self, db: &KernelDb, rows: &[SpanRow]) -> Result<Vec<Link>, DbError> {
        let mut links = Vec::with_capacity(rows.len());
        for some in rows.chunks(SPANS_A_READ) {
            let read = db.read(|reader: &Reader<'_>| {
                let one = |row: &SpanRow| Ok((reader.count_items(&row.id)?, reader.edges(&row.id)?));
                some.iter().map(one).collect::<Result<Vec<(u64, Edges)>, _>>()
            })?;
            for (row, (present, (first, last))) in some.iter().zip(read) {
                self.spans.push((row.clone(), present));
                let (first, last) = (first.map(|text| First::of(&text)), last.map(|text| Last::of(&text)));
                links.push(Link { row: row.clone(), first, last });
            }
        }
        Ok(links)
    }

    fn check(
        &mut self,
        vat: &VatId,
        census: &Census,
        spans: &[Link],
        mut snapshots: Vec<SnapshotRow>,
        open: Option<OpenItems>,
    ) {
        snapshots.sort_by_key(|row| row.position);
        let standing = match &census.lists.terminated {
            Some(terminated) if terminated.contains(vat) => Standing::Terminated,
            _ if census.lists.live.contains(vat) => Standing::Live,
            Some(_) => Standing::Unlisted,
            None => Standing::Terminated,
        };
        let worker = match self.options.get(vat) {
            _ if !census.options.contains(vat) => Worker::NoKey,
            Some(Ok(VatOptions { worker_type: Some(worker), .. })) => Worker::Is(worker.clone()),
            _ => Worker::Unknown,
        };
        let items = census.items.get(vat).copied();
        self.history.check(&Facts { vat, standing, worker, spans, snapshots: &snapshots, items, open });
    }

    /// Proves the images that the vats' open spans start from. A verdict about a closed span says nothing of them, and a kernel
    /// that starts needs each. One after the other, each in a read of its own: they can have hundreds of megabytes.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn prove_images_in_use(&mut self, db: &KernelDb) -> Result<(), DbError> {
        let open: Vec<SpanRow> = self.spans.iter().map(|(row, _)| row).filter(|row| row.is_current).cloned().collect();
        for SpanRow { id, .. } in open {
            let Some(position) = id.start.checked_sub(1) else { continue };
            let Some(row) = self.snapshots.get(&(id.vat.clone(), position)).filter(|row| row.in_use) else { continue };
            let (Some(hash), bytes) = (row.hash, row.bytes) else { continue };
            let gzip = db.read(|reader| reader.compressed_image(&id.vat, position))?;
            // Without an image the rows are at fault already; a node that went on meanwhile has another one in use.
            let Some(Err(error)) = gzip.map(|gzip| Image::from_gzip_in_memory(&gzip, hash, bytes)) else { continue };
            let is_same = db.read(|reader| reader.snapshot(&id.vat, position))?;
            if is_same.is_some_and(|now| now.in_use && now.hash == Some(hash)) {
                let what = format!("the image in use is damaged, so the kernel cannot start the vat: {error}");
                self.history.add(Break { vat: Some(id.vat), position, what, spans: vec![id.start] });
            }
        }
        Ok(())
    }

    fn is_named(&self, vat: &VatId, word: &str) -> bool {
        vat.as_str() == word || self.name_of(vat) == Some(word)
    }

    /// A vat's options as far as they are known.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn options_of(&self, vat: &VatId) -> Result<VatOptions, OptionsFault> {
        self.options.get(vat).cloned().unwrap_or_else(|| Ok(VatOptions::default()))
    }

    /// A vat's name, if it has one and is not gone.
    #[must_use]
    pub fn name_of(&self, vat: &VatId) -> Option<&str> {
        self.options.get(vat)?.as_ref().ok()?.name.as_deref()
    }
}

/// The spans that are asked for.
#[derive(Debug, Default, Clone)]
pub struct Selection {
    /// IDs or names; all vats if empty.
    pub vats: Vec<String>,
    /// Only spans that share a position with `[start, end)`.
    pub positions: Option<(Position, Position)>,
    /// Only spans of this incarnation.
    pub incarnation: Option<u64>,
}

impl Selection {
    /// Those of the vats asked for that the database does not have.
    #[must_use]
    pub fn unknown_vats(&self, survey: &Survey) -> Vec<&str> {
        let is_known = |word: &str| survey.vats.iter().any(|vat| survey.is_named(vat, word));
        self.vats.iter().map(String::as_str).filter(|word| !is_known(word)).collect()
    }

    /// Whether a span is asked for.
    #[must_use]
    pub fn has(&self, survey: &Survey, row: &SpanRow) -> bool {
        (self.vats.is_empty() || self.vats.iter().any(|word| survey.is_named(&row.id.vat, word)))
            && self.positions.is_none_or(|(start, end)| row.id.start < end && start < row.id.end)
            && self.incarnation.is_none_or(|incarnation| incarnation == row.incarnation)
    }
}

/// The base of a span: the state from which its worker starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing: it is given its bundles.
    Blank,
    /// The recorded image, which a source of the record has.
    Recorded {
        /// The first source that has it.
        at: Origin,
        /// The hash in the row of `snapshots`, if there is one.
        row_hash: Option<Hash256>,
        /// The size in that row, in bytes.
        row_bytes: Option<u64>,
    },
    /// The image that a replay of the span before it gives.
    Chained,
    /// None of these.
    Gone(NoBase),
}

/// The reason why no image can be made for a span whose recorded one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBase {
    /// No row of a span before it.
    #[error("the span before it is not in the database")]
    NoSpanBefore,
    /// The span before it belongs to another incarnation.
    #[error("the span before it is of another incarnation")]
    OtherIncarnation,
    /// The span before it cannot be replayed, as items are missing.
    #[error("the span before it, which starts at {start}, does not have all its items")]
    ItemsMissing {
        /// The first position of that span.
        start: Position,
    },
    /// The span before it has no base either.
    #[error("the span before it, which starts at {start}, has no image to start from either")]
    NoImageBefore {
        /// The first position of that span.
        start: Position,
    },
}

/// Whether a span can be verified, as far as rows tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// The items and the base are there.
    Verifiable,
    /// The vat runs in the kernel's process: there is nothing to verify.
    Local,
    /// The span is still open.
    Open,
    /// The span cannot be verified.
    Not(Obstacle),
}

/// The reason why a span cannot be verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// No source has its items.
    #[error("its items were pruned")]
    ItemsPruned,
    /// Some items are missing.
    #[error("only {present} of its {count} items are there")]
    ItemsMissing {
        /// The number of items that are there.
        present: u64,
        /// The number of items that should be there.
        count: u64,
    },
    /// The span has no base.
    #[error("the image that it starts from is gone, and {0}")]
    NoBase(NoBase),
    /// The rows of its vat contradict one another there.
    #[error("{0}")]
    HistoryBroken(String),
}

impl Outlook {
    /// One word, as in JSON.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Verifiable => "yes",
            Self::Local => "local",
            Self::Open => "open",
            Self::Not(_) => "no",
        }
    }
}

impl Base {
    /// The kind of base.
    #[must_use]
    pub fn kind(&self) -> BaseKind {
        match self {
            Self::Blank => BaseKind::Blank,
            Self::Recorded { at: Origin::Captures, .. } => BaseKind::Captured,
            Self::Recorded { .. } => BaseKind::Recorded,
            Self::Chained => BaseKind::Chained,
            Self::Gone(_) => BaseKind::Missing,
        }
    }
}

/// A closed span and how it can be replayed.
#[derive(Debug, Clone)]
pub struct PlannedSpan {
    /// The span's row.
    pub row: SpanRow,
    /// The number of its items in the database.
    pub items_present: u64,
    /// The span's first item, if rows tell.
    pub begins: Option<SpanBegins>,
    /// The span's end, if rows tell.
    pub ends: Option<SpanEnds>,
    /// The source of the items.
    pub items: ItemsAt,
    /// The base.
    pub base: Base,
    /// Whether it was asked for; if not, it is replayed because one that was asked for starts from its image.
    pub is_asked: bool,
    /// The span before it, where it starts from the image that one saved.
    pub before: Option<SpanBefore>,
}

/// A span that saved the image from which the next one starts.
#[derive(Debug, Clone)]
pub struct SpanBefore {
    /// The span's row.
    pub row: SpanRow,
    /// The source of the items.
    pub items: ItemsAt,
    /// Whether it was asked for itself.
    pub is_asked: bool,
}

impl PlannedSpan {
    /// Whether a source has all of its items, or may have: what the flight recorder has is known once it is read.
    #[must_use]
    pub fn has_all_items(&self) -> bool {
        let count = self.row.id.end.saturating_sub(self.row.id.start);
        match self.items {
            ItemsAt::Database => self.items_present == count,
            ItemsAt::Archive | ItemsAt::Recorder => true,
            ItemsAt::Captured(to) => to == self.row.id.end,
            ItemsAt::Nowhere => false,
        }
    }

    /// Whether it can be verified.
    #[must_use]
    pub fn outlook(&self, survey: &Survey) -> Outlook {
        if let Some(reason) = survey.history.reason(&self.row.id) {
            return Outlook::Not(Obstacle::HistoryBroken(reason.to_string()));
        }
        if self.is_local(survey) {
            return Outlook::Local;
        }
        let count = self.row.id.end.saturating_sub(self.row.id.start);
        match &self.base {
            _ if self.items == ItemsAt::Nowhere => Outlook::Not(Obstacle::ItemsPruned),
            _ if !self.has_all_items() => Outlook::Not(Obstacle::ItemsMissing { present: self.items_present, count }),
            Base::Gone(why) => Outlook::Not(Obstacle::NoBase(*why)),
            Base::Blank | Base::Recorded { .. } | Base::Chained => Outlook::Verifiable,
        }
    }

    /// Whether it runs in the kernel's process.
    #[must_use]
    pub fn is_local(&self, survey: &Survey) -> bool {
        matches!(survey.options_of(&self.row.id.vat), Ok(VatOptions { worker_type: Some(WorkerType::Local), .. }))
    }
}

/// Spans of one vat of which each but the first starts from the image that the one before it gives.
pub type Unit = Vec<PlannedSpan>;

/// Plans the replay of all closed spans that are asked for.
#[must_use]
pub fn plan(survey: &Survey, record: &Record, selection: &Selection) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (index, (row, items_present)) in survey.spans.iter().enumerate() {
        if row.is_current {
            continue;
        }
        let before = index.checked_sub(1).map(|index| &survey.spans[index].0).filter(|before| follows(before, row));
        let after = survey.spans.get(index + 1).map(|(after, _)| after).filter(|after| follows(row, after));
        let begins = begins(survey, row, before);
        let items = record.items_at(&row.id, *items_present);
        let saved = before.filter(|_| begins == Some(SpanBegins::LoadSnapshot)).zip(index.checked_sub(1));
        let before = saved.map(|(before, at)| SpanBefore {
            row: before.clone(),
            items: record.items_at(&before.id, survey.spans[at].1),
            is_asked: selection.has(survey, before),
        });
        let last = units.last().and_then(|unit| unit.last());
        let base = base(survey, record, row, begins, last.filter(|last| follows(&last.row, row)));
        let planned = PlannedSpan {
            ends: ends(survey, row, after),
            items_present: *items_present,
            begins,
            items,
            is_asked: selection.has(survey, row),
            row: row.clone(),
            base,
            before,
        };
        match units.last_mut() {
            Some(unit) if planned.base == Base::Chained => unit.push(planned),
            _ => units.push(vec![planned]),
        }
    }
    for unit in &mut units {
        let needed = unit.iter().rposition(|planned| planned.is_asked).map_or(0, |last| last + 1);
        unit.truncate(needed);
    }
    units.retain(|unit| !unit.is_empty());
    units
}

fn follows(before: &SpanRow, row: &SpanRow) -> bool {
    before.id.vat == row.id.vat && before.id.end == row.id.start
}

fn begins(survey: &Survey, row: &SpanRow, before: Option<&SpanRow>) -> Option<SpanBegins> {
    match before {
        Some(before) if before.incarnation == row.incarnation => Some(SpanBegins::LoadSnapshot),
        Some(_) => Some(SpanBegins::InitializeWorker),
        None if row.id.start == 0 => Some(SpanBegins::InitializeWorker),
        None => {
            let is_saved = survey.snapshots.contains_key(&(row.id.vat.clone(), row.id.start - 1));
            is_saved.then_some(SpanBegins::LoadSnapshot)
        }
    }
}

fn ends(survey: &Survey, row: &SpanRow, after: Option<&SpanRow>) -> Option<SpanEnds> {
    match after {
        Some(after) if after.incarnation == row.incarnation => Some(SpanEnds::SaveSnapshot),
        Some(_) => Some(SpanEnds::ShutdownWorker),
        None => {
            let last = row.id.end.checked_sub(1)?;
            survey.snapshots.contains_key(&(row.id.vat.clone(), last)).then_some(SpanEnds::SaveSnapshot)
        }
    }
}

fn base(
    survey: &Survey,
    record: &Record,
    row: &SpanRow,
    begins: Option<SpanBegins>,
    before: Option<&PlannedSpan>,
) -> Base {
    if begins == Some(SpanBegins::InitializeWorker) {
        return Base::Blank;
    }
    let Some(position) = row.id.start.checked_sub(1) else { return Base::Blank };
    let snapshot = survey.snapshots.get(&(row.id.vat.clone(), position));
    if let Some((at, row_hash)) = record.base_image_at(&row.id, snapshot) {
        return Base::Recorded { at, row_hash, row_bytes: snapshot.and_then(|snapshot| snapshot.bytes) };
    }
    match before {
        None => Base::Gone(NoBase::NoSpanBefore),
        Some(before) if before.row.incarnation != row.incarnation => Base::Gone(NoBase::OtherIncarnation),
        Some(before) if !before.has_all_items() => Base::Gone(NoBase::ItemsMissing { start: before.row.id.start }),
        Some(before) => match &before.base {
            Base::Gone(_) => Base::Gone(NoBase::NoImageBefore { start: before.row.id.start }),
            _ => Base::Chained,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Archives;
    use crate::transcript::SpanId;

    /// Spans of v1 as (start, end, incarnation, items present, image of the snapshot at its end present).
    fn survey(spans: &[(u64, u64, u64, bool, bool)]) -> Survey {
        let vat = VatId::new("v1");
        let mut survey = Survey {
            spans: Vec::new(),
            vats: BTreeSet::from([vat.clone()]),
            snapshots: HashMap::new(),
            options: HashMap::new(),
            relax_durability_rules: false,
            faults: Vec::new(),
            history: History::default(),
        };
        for (start, end, incarnation, has_items, has_image) in spans {
            let id = SpanId { vat: vat.clone(), start: *start, end: *end };
            let row = SpanRow { id, hash: None, is_current: false, incarnation: *incarnation };
            survey.spans.push((row, if *has_items { end - start } else { 0 }));
            let position = end - 1;
            let row = SnapshotRow {
                vat: vat.clone(),
                position,
                hash: None,
                bytes: None,
                has_image: *has_image,
                in_use: false,
            };
            survey.snapshots.insert((vat.clone(), position), row);
        }
        survey
    }

    /// A record of which nothing but the survey's rows is asked.
    fn record() -> Record {
        Record::new(KernelDb::beside_a_node(std::path::Path::new("no such database")), Archives::default())
    }

    fn bases(survey: &Survey, selection: &Selection) -> Vec<Vec<&'static str>> {
        let units = plan(survey, &record(), selection);
        units.iter().map(|unit| unit.iter().map(|planned| planned.base.kind().label()).collect()).collect()
    }

    #[test]
    fn recorded_images_make_spans_independent() {
        let survey = survey(&[(0, 5, 0, true, true), (5, 9, 0, true, true)]);
        assert_eq!(bases(&survey, &Selection::default()), [["blank"], ["recorded"]]);
    }

    #[test]
    fn without_images_an_incarnation_is_a_chain() {
        let survey = survey(&[
            (0, 5, 0, true, false),
            (5, 9, 0, true, false),
            (9, 12, 1, true, false),
            (12, 15, 1, true, false),
        ]);
        assert_eq!(bases(&survey, &Selection::default()), [["blank", "chained"], ["blank", "chained"]]);
    }

    #[test]
    fn a_gap_ends_a_chain_until_an_image_is_there_again() {
        let survey = survey(&[
            (0, 5, 0, false, false),
            (5, 9, 0, true, false),
            (9, 12, 0, true, true),
            (12, 15, 0, true, false),
            (15, 18, 0, true, false),
        ]);
        assert_eq!(
            bases(&survey, &Selection::default()),
            [vec!["blank"], vec!["missing"], vec!["missing"], vec!["recorded", "chained"]]
        );
    }

    #[test]
    fn what_was_not_asked_for_is_replayed_only_where_it_leads_to_what_was() {
        let survey = survey(&[
            (0, 5, 0, true, false),
            (5, 9, 0, true, false),
            (9, 12, 0, true, false),
            (12, 15, 1, true, false),
        ]);
        let selection = Selection { positions: Some((5, 6)), ..Selection::default() };
        let units = plan(&survey, &record(), &selection);
        let asked: Vec<Vec<bool>> =
            units.iter().map(|unit| unit.iter().map(|planned| planned.is_asked).collect()).collect();
        assert_eq!(asked, [[false, true]]);
    }
}
