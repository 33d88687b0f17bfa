//! The item `initialize-worker`, the first of an incarnation, from the kernel's keys.
//!
//! The kernel writes it from `<vatID>.source` and `<vatID>.options` as they were then (`ensureVatOnline` in `vat-warehouse.js`), and both change
//! with an upgrade. So the vat's own keys come first, then the code of each bundle with the worker options of each vat. Only a span's hash
//! makes one of them believed.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::kernel_db::WorkerKeys;

/// Items that are made for one span.
const ITEMS_MAX: usize = 4_096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options<'a> {
    #[serde(borrow)]
    worker_options: &'a RawValue,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow, rename = "bundleID")]
    bundle_id: Option<&'a RawValue>,
}

/// The items that a vat's first span of an incarnation may begin with, the likeliest first.
pub(in crate::record) fn initialize_worker(keys: &WorkerKeys) -> Vec<Vec<u8>> {
    let mut sources: Vec<String> = Vec::new();
    if let Some(source) = keys.source.as_deref().and_then(|text| serde_json::from_str::<Source<'_>>(text).ok()) {
        sources.push(source.bundle_id.map_or_else(String::new, |id| id.get().to_owned()));
    }
    sources.extend(keys.bundles.iter().filter_map(|id| serde_json::to_string(id).ok()));
    let mut workers: Vec<&str> = Vec::new();
    for text in &keys.options {
        let options = serde_json::from_str::<Options<'_>>(text).map(|options| options.worker_options.get());
        if let Ok(options) = options
            && !workers.contains(&options)
        {
            workers.push(options);
        }
    }
    let item = |source: &String, worker: &str| {
        let source = if source.is_empty() { String::new() } else { format!(r#""bundleID":{source}"#) };
        let argument = format!(r#"{{"source":{{{source}}},"workerOptions":{worker}}}"#);
        format!(r#"{{"d":["initialize-worker",{argument}],"sc":[],"r":{{"status":"ok"}}}}"#).into_bytes()
    };
    let all = workers.iter().flat_map(|worker| sources.iter().map(move |source| item(source, worker)));
    all.take(ITEMS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_made_of_the_keys_own_text() {
        let keys = WorkerKeys {
            source: Some(r#"{"bundleID":"b1-one"}"#.to_owned()),
            options: vec![
                r#"{"workerOptions":{"type":"xsnap","bundleIDs":["b0-x","b0-y"]},"name":"n"}"#.to_owned(),
                "no JSON".to_owned(),
                r#"{"workerOptions":{"type":"xsnap","bundleIDs":["b0-x","b0-y"]},"name":"other"}"#.to_owned(),
            ],
            bundles: vec!["b1-two".to_owned()],
        };
        let items: Vec<String> =
            initialize_worker(&keys).into_iter().map(|item| String::from_utf8(item).expect("text")).collect();
        let of = |id: &str| {
            format!(
                r#"{{"d":["initialize-worker",{{"source":{{"bundleID":"{id}"}},"workerOptions":{{"type":"xsnap","bundleIDs":["b0-x","b0-y"]}}}}],"sc":[],"r":{{"status":"ok"}}}}"#
            )
        };
        assert_eq!(items, [of("b1-one"), of("b1-two")]);
    }
}
