//! The kernel's rows of a vat's vatstore: keys of `kvStore` that begin with `<vatID>.vs.`.
//!
//! Owns the paging, so that no read is long. It must never hold all rows of a vat in memory.

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, params};

use super::query::{Reader, bytes_of, signed, span_row};
use super::rows::SpanRow;
use crate::transcript::{Position, VatId};

/// A longer value is not read: what a vat can send to its kernel in one message is shorter.
const VALUE_BYTES_MAX: i64 = 64 << 20;

/// A row of a vatstore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VatstoreRow {
    /// The vat's key: bytes, as a key with a lone surrogate is not UTF-8.
    pub key: Vec<u8>,
    /// Its value.
    pub value: VatstoreValue,
}

/// A value of a vatstore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VatstoreValue {
    /// Text.
    Text(Vec<u8>),
    /// More text than a vat can have written, in bytes.
    TooLong(i64),
    /// Something else than text.
    NotText,
}

/// Some rows of a vatstore, in SQLite's order of keys.
#[derive(Debug, Clone, Default)]
pub struct VatstoreRows {
    /// The rows.
    pub rows: Vec<VatstoreRow>,
    /// Set when there are more than were asked for.
    pub is_cut: bool,
}

impl Reader<'_> {
    /// The rows of a vat's vatstore behind a key, or from the first one on; no more than `bytes_max` of text (but one row
    /// at least).
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn vatstore(
        &self,
        vat: &VatId,
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> rusqlite::Result<VatstoreRows> {
        let prefix = format!("{vat}.vs.");
        let from = [prefix.as_bytes(), after.unwrap_or_default()].concat();
        // `/` follows the dot. A cast from a blob keeps bytes that are not UTF-8.
        let end = format!("{vat}.vs/");
        let order = if after.is_some() { ">" } else { ">=" };
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT key, CASE WHEN octet_length(value) <= ?3 THEN value END, octet_length(value) FROM kvStore \
             WHERE key {order} CAST(?1 AS TEXT) AND key < ?2 ORDER BY key"
        ))?;
        let mut rows = statement.query(params![from, end, VALUE_BYTES_MAX])?;
        let (mut found, mut bytes) = (VatstoreRows::default(), 0);
        while let Some(row) = rows.next()? {
            let Some(key) = bytes_of(row.get_ref(0)?).and_then(|key| key.strip_prefix(prefix.as_bytes())) else {
                continue;
            };
            let value = match row.get_ref(1)? {
                ValueRef::Text(text) => VatstoreValue::Text(text.to_vec()),
                _ => match row.get::<_, Option<i64>>(2)? {
                    Some(length) if length > VALUE_BYTES_MAX => VatstoreValue::TooLong(length),
                    _ => VatstoreValue::NotText,
                },
            };
            bytes += key.len() + if let VatstoreValue::Text(text) = &value { text.len() } else { 0 };
            if bytes > bytes_max && !found.rows.is_empty() {
                found.is_cut = true;
                break;
            }
            found.rows.push(VatstoreRow { key: key.to_vec(), value });
        }
        Ok(found)
    }

    /// The spans of a vat from a start on, open ones too, first to last; the other number is of rows that can't be read.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn spans_from(&self, vat: &VatId, start: Position) -> rusqlite::Result<(Vec<SpanRow>, usize)> {
        let mut statement = self.db.prepare_cached(
            "SELECT vatID, startPos, endPos, hash, isCurrent, incarnation FROM transcriptSpans \
             WHERE vatID = ? AND startPos >= ? ORDER BY startPos",
        )?;
        let mut rows = statement.query(params![vat.as_str(), signed(start)])?;
        let (mut spans, mut unreadable) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            match span_row(row) {
                Some(span) => spans.push(span),
                None => unreadable += 1,
            }
        }
        Ok((spans, unreadable))
    }

    /// The vats that have rows of a vatstore, by going from each vat's keys to the next vat's.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn vats_with_vatstore(&self) -> rusqlite::Result<BTreeSet<VatId>> {
        let mut next = self
            .db
            .prepare("SELECT key FROM kvStore WHERE key > CAST(? AS TEXT) AND key < 'w' ORDER BY key LIMIT 1")?;
        let mut any = self.db.prepare("SELECT 1 FROM kvStore WHERE key >= ? AND key < ? LIMIT 1")?;
        let (mut from, mut vats) = (b"v".to_vec(), BTreeSet::new());
        loop {
            let key: Option<Vec<u8>> =
                next.query_row([&from], |row| Ok(bytes_of(row.get_ref(0)?).unwrap_or_default().to_vec())).optional()?;
            let Some(key) = key.filter(|key| !key.is_empty()) else { return Ok(vats) };
            let word = key.split(|byte| *byte == b'.').next().unwrap_or_default();
            if let Some(vat) = std::str::from_utf8(word).ok().and_then(VatId::parse) {
                let bounds = [format!("{vat}.vs."), format!("{vat}.vs/")];
                if any.query_row(bounds, |_| Ok(())).optional()?.is_some() {
                    vats.insert(vat);
                }
            }
            // Behind all keys that are this word, or begin with it and a dot.
            from = [word, b"/"].concat();
        }
    }

    /// The vats that the kernel runs: those of `vat.names` and of `vat.dynamicIDs`. `None` where a list can't be read.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn live_vats(&self) -> rusqlite::Result<Option<BTreeSet<VatId>>> {
        let list = |key: &str| -> rusqlite::Result<Option<Vec<String>>> {
            let Some(json) = self.kv(key)? else { return Ok(Some(Vec::new())) };
            Ok(serde_json::from_str(&json).ok())
        };
        let (Some(names), Some(ids)) = (list("vat.names")?, list("vat.dynamicIDs")?) else { return Ok(None) };
        let mut vats: BTreeSet<VatId> = ids.into_iter().map(VatId::new).collect();
        for name in names {
            vats.extend(self.kv(&format!("vat.name.{name}"))?.map(VatId::new));
        }
        Ok(Some(vats))
    }

    /// Whether the kernel keeps no transcript of a vat (`useTranscript: false`, as for comms).
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn keeps_no_transcript(&self, vat: &VatId) -> rusqlite::Result<bool> {
        let options = self.kv(&format!("{vat}.options"))?;
        let options = options.and_then(|json| serde_json::from_str::<serde_json::Value>(&json).ok());
        Ok(options.is_some_and(|options| options["useTranscript"] == false))
    }
}
