//! Making a span that is due ready: what is around it in the database, and from what it can start.

use std::collections::{BTreeSet, HashMap};

use super::shared::Shared;
use crate::history::History;
use crate::kernel_db::{DbError, Reader, SpanRow, VatOptions};
use crate::plan::{Base, Selection, Survey, Unit, plan};
use crate::store::{Job, StoreError};
use crate::transcript::{Position, VatId};

/// What the database has around some spans of a vat that follow one another.
pub(super) struct Surroundings {
    pub(super) survey: Survey,
    pub(super) units: Vec<Unit>,
}

/// Surveys the neighbourhood of some spans and plans their replay. Where the image that the first one starts from is gone,
/// goes back to one from which it can be made, as far as is allowed.
pub(super) fn prepare(shared: &Shared, jobs: &[Job]) -> Result<Surroundings, DbError> {
    let near = plan_with(shared, jobs, 1)?;
    let is_gone = near.units.iter().flatten().any(|planned| planned.is_asked && matches!(planned.base, Base::Gone(_)));
    let far = shared.config.schedule.chain_spans_max;
    if is_gone && far > 1 { plan_with(shared, jobs, far) } else { Ok(near) }
}

fn plan_with(shared: &Shared, jobs: &[Job], spans_before: u32) -> Result<Surroundings, DbError> {
    let survey = survey(shared, jobs, spans_before)?;
    let mut units = plan(&survey, &shared.record, &Selection::default());
    for unit in &mut units {
        for planned in unit.iter_mut() {
            planned.is_asked = jobs.iter().any(|job| job.row.id == planned.row.id);
        }
        let needed = unit.iter().rposition(|planned| planned.is_asked).map_or(0, |last| last + 1);
        unit.truncate(needed);
    }
    Ok(Surroundings { survey, units })
}

fn survey(shared: &Shared, jobs: &[Job], spans_before: u32) -> Result<Survey, DbError> {
    let Some((first, last)) = jobs.first().zip(jobs.last()) else { return Ok(empty()) };
    let vat = &first.row.id.vat;
    let mut survey = shared.record.db.read(|reader| {
        let mut before = reader.closed_spans_backwards(vat, 0, first.row.id.start, spans_before)?.rows;
        before.reverse();
        // Of the spans themselves, what was noted holds, whatever became of the rows since.
        let mut rows: Vec<SpanRow> = before;
        rows.extend(jobs.iter().map(|job| job.row.clone()));
        rows.extend(reader.span_at(vat, last.row.id.end)?);
        read_around(reader, vat, rows)
    })?;
    if survey.options.is_empty() {
        let known = known_options(shared, vat).unwrap_or_default();
        survey.options.extend(known.map(|options| (vat.clone(), Ok(options))));
    }
    Ok(survey)
}

fn read_around(reader: &Reader<'_>, vat: &VatId, rows: Vec<SpanRow>) -> rusqlite::Result<Survey> {
    let mut survey = empty();
    survey.vats = BTreeSet::from([vat.clone()]);
    for row in rows {
        let ends: [Option<Position>; 2] = [row.id.start.checked_sub(1), row.id.end.checked_sub(1)];
        for position in ends.into_iter().flatten() {
            let key = (vat.clone(), position);
            if !survey.snapshots.contains_key(&key)
                && let Some(snapshot) = reader.snapshot(vat, position)?
            {
                survey.snapshots.insert(key, snapshot);
            }
        }
        let items = reader.count_items(&row.id)?;
        survey.spans.push((row, items));
    }
    if let Some(mut options) = reader.options_of(vat)? {
        if options.name.is_none() {
            let names = reader.static_vats()?;
            options.name = names.into_iter().find(|(_, id)| id == vat).map(|(name, _)| name);
        }
        survey.options = HashMap::from([(vat.clone(), Ok(options))]);
    }
    survey.relax_durability_rules = reader.relax_durability_rules()?;
    Ok(survey)
}

/// The options that a vat had when it was seen first: they never change, and its end takes them from the database.
fn known_options(shared: &Shared, vat: &VatId) -> Result<Option<VatOptions>, StoreError> {
    Ok(shared.store.vats()?.into_iter().find(|known| known.vat == *vat).map(|known| known.options))
}

/// Whether the row of a span is still what it was when it closed.
pub(super) fn is_still_there(shared: &Shared, row: &SpanRow) -> Result<bool, DbError> {
    let now = shared.record.db.read(|reader| reader.span_at(&row.id.vat, row.id.start))?;
    Ok(now.is_some_and(|now| now.id == row.id && now.hash == row.hash))
}

fn empty() -> Survey {
    Survey {
        spans: Vec::new(),
        vats: BTreeSet::new(),
        snapshots: HashMap::new(),
        options: HashMap::new(),
        relax_durability_rules: false,
        faults: Vec::new(),
        history: History::default(),
    }
}
