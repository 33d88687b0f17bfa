//! Rows for a check of the histories: the kernel's own lists of vats, and the positions of items, whatever the spans say.
//!
//! Owns the form of these lists. It must never call a list wrong: [`crate::history`] does.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, params};

use super::query::{Reader, bytes_of, position, signed, span_row};
use super::rows::SpanRow;
use crate::transcript::{Hash256, Position, SpanHasher, SpanId, VatId};
use crate::visible::short;

/// No more is shown of what should be the ID of a vat.
const ID_CHARACTERS_MAX: usize = 80;

/// A pseudo-delivery is shorter than this; the text of a longer item is not looked at.
const EDGE_BYTES_MAX: i64 = 64 << 10;

/// The vats that the kernel says there are.
#[derive(Debug, Clone, Default)]
pub struct VatLists {
    /// The vats of `vat.names` and `vat.dynamicIDs`.
    pub live: BTreeSet<VatId>,
    /// The vats of `vats.terminated`, which kernels have that clean up in steps.
    pub terminated: Option<BTreeSet<VatId>>,
    /// The faults of the lists themselves, a sentence each.
    pub faults: Vec<String>,
}

/// For vats of which items are there, the lowest and the highest position.
pub type ItemBounds = BTreeMap<VatId, (Position, Position)>;

/// The texts of a span's first and last item; `None` where it is not there, empty where it is no text or a long one.
pub type Edges = (Option<Vec<u8>>, Option<Vec<u8>>);

impl Reader<'_> {
    /// The kernel's own lists of vats.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn vat_lists(&self) -> rusqlite::Result<VatLists> {
        let mut lists = VatLists::default();
        let named: BTreeMap<String, VatId> = self.static_vats()?.into_iter().collect();
        if let Some(names) = self.list("vat.names", &mut lists.faults)? {
            let names: BTreeSet<String> = names.into_iter().collect();
            for name in names.iter().filter(|name| !named.contains_key(*name)) {
                lists.faults.push(format!("vat.names lists {name:?}, and no key vat.name.… gives its ID"));
            }
            for name in named.keys().filter(|name| !names.contains(*name)) {
                lists.faults.push(format!("a key vat.name.… is there for {name:?}, which vat.names does not list"));
            }
        }
        for (name, vat) in named {
            match VatId::parse(vat.as_str()) {
                Some(vat) => drop(lists.live.insert(vat)),
                None => lists
                    .faults
                    .push(format!("the static vat {name:?} has the ID {:?}, which is no vat ID", vat.as_str())),
            }
        }
        for key in ["vat.dynamicIDs", "vats.terminated"] {
            let Some(ids) = self.list(key, &mut lists.faults)? else { continue };
            let vats: BTreeSet<VatId> = ids.iter().filter_map(|id| VatId::parse(id)).collect();
            if let Some(odd) = ids.iter().find(|id| VatId::parse(id).is_none()) {
                lists.faults.push(format!("{key} lists {odd:?}, which is no vat ID"));
            }
            match key {
                "vats.terminated" => lists.terminated = Some(vats),
                _ => lists.live.extend(vats),
            }
        }
        Ok(lists)
    }

    fn list(&self, key: &str, faults: &mut Vec<String>) -> rusqlite::Result<Option<Vec<String>>> {
        let Some(text) = self.kv(key)? else {
            if key != "vats.terminated" {
                faults.push(format!("there is no key {key}, which each kernel has"));
            }
            return Ok(None);
        };
        match serde_json::from_str(&text) {
            Ok(list) => Ok(Some(list)),
            Err(error) => {
                faults.push(format!("the key {key} is unreadable: {error}"));
                Ok(None)
            }
        }
    }

    /// For each vat of which items are there, the lowest and the highest position; and a sentence for each vat of which a row has no
    /// whole number as its position, and for each ID that is no vat's.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn item_bounds(&self) -> rusqlite::Result<(ItemBounds, Vec<String>)> {
        // From one vat's first row to the next vat's by the index.
        let mut statement = self.db.prepare(
            "WITH RECURSIVE vats (id) AS (
               SELECT min(vatID) FROM transcriptItems
               UNION ALL SELECT (SELECT min(vatID) FROM transcriptItems WHERE vatID > vats.id) FROM vats
               WHERE vats.id IS NOT NULL)
             SELECT id, (SELECT min(position) FROM transcriptItems WHERE vatID = id),
               (SELECT max(position) FROM transcriptItems WHERE vatID = id)
             FROM vats WHERE id IS NOT NULL",
        )?;
        let mut rows = statement.query([])?;
        let (mut bounds, mut faults) = (ItemBounds::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let id = bytes_of(row.get_ref(0)?).map(String::from_utf8_lossy).unwrap_or_default();
            let of_vat = position(row.get_ref(1)?).zip(position(row.get_ref(2)?));
            match (VatId::parse(&id), of_vat) {
                (Some(vat), Some(of_vat)) => drop(bounds.insert(vat, of_vat)),
                (Some(vat), None) => {
                    faults.push(format!(
                        "a row of transcriptItems of {vat} has a position that is no whole number from 0"
                    ));
                }
                (None, _) => faults.push(format!(
                    "a row of transcriptItems is of the vat {:?}, which is no vat ID",
                    short(&id, ID_CHARACTERS_MAX)
                )),
            }
        }
        Ok((bounds, faults))
    }

    /// A span's first and last item.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn edges(&self, span: &SpanId) -> rusqlite::Result<Edges> {
        let Some(last) = span.end.checked_sub(1).filter(|last| span.start <= *last) else { return Ok((None, None)) };
        let mut statement = self.db.prepare_cached(
            "SELECT CASE WHEN octet_length(item) <= ?3 THEN item END FROM transcriptItems \
             WHERE vatID = ?1 AND position = ?2",
        )?;
        let mut item = |at: Position| {
            let bounds = params![span.vat.as_str(), signed(at), EDGE_BYTES_MAX];
            let read = |row: &rusqlite::Row<'_>| Ok(bytes_of(row.get_ref(0)?).map(<[u8]>::to_vec).unwrap_or_default());
            statement.query_row(bounds, read).optional()
        };
        Ok((item(span.start)?, item(last)?))
    }

    /// A vat's open span as it is now: its row, how many of its items are there, and the hash of those.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn open_span(&self, vat: &VatId) -> rusqlite::Result<Option<(SpanRow, u64, Hash256)>> {
        let mut statement = self.db.prepare_cached(
            "SELECT vatID, startPos, endPos, hash, isCurrent, incarnation FROM transcriptSpans \
             WHERE vatID = ? AND isCurrent = 1",
        )?;
        let row = statement.query_row([vat.as_str()], |row| Ok(span_row(row))).optional()?.flatten();
        let Some(row) = row else { return Ok(None) };
        let mut statement = self.db.prepare_cached(
            "SELECT item FROM transcriptItems WHERE vatID = ? AND position >= ? AND position < ? ORDER BY position",
        )?;
        let mut items = statement.query(params![vat.as_str(), signed(row.id.start), signed(row.id.end)])?;
        let (mut present, mut hasher) = (0, SpanHasher::default());
        while let Some(item) = items.next()? {
            present += 1;
            hasher.add(bytes_of(item.get_ref(0)?).unwrap_or_default());
        }
        Ok(Some((row, present, hasher.finish())))
    }
}
