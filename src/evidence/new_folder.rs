//! One evidence folder, as it is written.
//!
//! Owns the folder's files and their order: the manifest is written last, and a folder without one is no evidence. It must never touch
//! another folder.

use std::path::Path;

use serde::Serialize;

use super::EvidenceError;
use super::facts::{column, engine_of, outcome, worker_facts};
use super::files::{Writer, replace};
use super::keeper::Witness;
use super::manifest::{HostFacts, ImageFacts, Manifest, OutcomeFacts, SCHEMA, Seen, SpanFacts, StartFacts};
use super::replayed;
use crate::files::own;
use crate::judge::is_same;
use crate::replay::Replay;
use crate::span::{Beginning, SpanBegins};
use crate::transcript::DeliveryKind;
use crate::verdict::{Divergence, Repeat};
use crate::visible::{Lines, json, lines, short};
use crate::words::NAME_CHARS;

/// A folder that is to be written.
pub(super) struct NewFolder<'a> {
    /// Its path until it is complete.
    pub(super) dir: &'a Path,
    /// Its name afterwards.
    pub(super) id: &'a str,
    pub(super) signature: &'a str,
    /// The time, in UTC.
    pub(super) now: &'a str,
    pub(super) witness: &'a Witness<'a>,
    pub(super) divergence: &'a Divergence,
}

/// The image or the bundles that the worker started with.
struct Base {
    image: Option<ImageFacts>,
    bundles: Vec<String>,
}

impl NewFolder<'_> {
    /// Writes all files.
    pub(super) fn write(&self) -> Result<(), EvidenceError> {
        let Self { dir, witness, .. } = self;
        let _ = std::fs::remove_dir_all(dir);
        own::create_dir(dir).map_err(EvidenceError::io("make", *dir))?;
        let mut files = Writer::new((*dir).to_owned());
        let lines = witness.text.items().iter().fold(Vec::new(), |mut all, item| {
            all.extend_from_slice(item);
            all.push(b'\n');
            all
        });
        files.put("recorded.jsonl", &lines)?;
        let outcomes = self.write_outcomes(&mut files)?;
        let base = self.write_base(&mut files)?;
        self.write_recorded_end(&mut files)?;
        files.put("README.txt", readme(self.id, witness, self.divergence).as_bytes())?;
        let manifest = self.manifest(outcomes, base, &files)?;
        let column = column(&witness.judged.verdict, manifest.worker.clone());
        let (first_at, last_at) = (self.now.to_owned(), self.now.to_owned());
        let seen = Seen { times: 1, first_at, last_at, last: (witness.span.id.start, witness.span.id.end) };
        files.put("seen.json", pretty(&seen).as_bytes())?;
        files.put("workers.json", pretty(&[column]).as_bytes())?;
        let path = dir.join("manifest.json");
        replace(&path, pretty(&manifest).as_bytes()).map_err(EvidenceError::io("write", &path))
    }

    /// Writes what the replays did, those with the same outcome once.
    fn write_outcomes(&self, files: &mut Writer) -> Result<Vec<OutcomeFacts>, EvidenceError> {
        let Witness { span, judged, text, .. } = self.witness;
        let mut outcomes: Vec<(&Replay, OutcomeFacts)> = Vec::new();
        for replay in &judged.replays {
            if let Some((_, known)) = outcomes.iter_mut().find(|(known, _)| is_same(known, replay)) {
                known.times += 1;
                continue;
            }
            let suffix = if outcomes.is_empty() { String::new() } else { format!("-{}", outcomes.len() + 1) };
            let file = format!("replayed{suffix}.jsonl");
            files.put_big(&file, |to| replayed::write(to, text, span, replay))?;
            if let Some(image) = replay.image.as_ref().filter(|_| !replay.is_image_recorded) {
                files.put_big(&format!("replayed{suffix}.xss"), |mut to| image.copy_to(&mut to))?;
            }
            if !replay.trace.console.is_empty() {
                files.put(&format!("console{suffix}.txt"), replay.trace.console.as_bytes())?;
            }
            if !replay.trace.printed.is_empty() {
                files.put(&format!("printed{suffix}.txt"), lines(&replay.trace.printed).as_bytes())?;
            }
            outcomes.push((replay, outcome(replay, span, file)));
        }
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }

    fn write_base(&self, files: &mut Writer) -> Result<Base, EvidenceError> {
        let mut bundles = Vec::new();
        if let Beginning::Image(image) = self.witness.start.beginning {
            files.put_big("base.xss", |mut to| image.copy_to(&mut to))?;
            return Ok(Base { image: Some(ImageFacts { sha256: image.hash(), bytes: image.bytes() }), bundles });
        }
        if let DeliveryKind::InitializeWorker { worker_bundles, source, .. } = self.witness.span.begins {
            for id in worker_bundles.iter().chain(source) {
                if let Some(bytes) = (self.witness.bundle)(id) {
                    files.put(&format!("bundles/{id}"), &bytes)?;
                    bundles.push(id.clone());
                }
            }
        }
        Ok(Base { image: None, bundles })
    }

    /// Writes the recorded image at the end of the span, if a replay ended with another one.
    fn write_recorded_end(&self, files: &mut Writer) -> Result<(), EvidenceError> {
        let replays = &self.witness.judged.replays;
        if !replays.iter().any(|replay| replay.is_hash_compared && !replay.is_image_recorded) {
            return Ok(());
        }
        // One of the replays may have given it itself.
        let own = replays.iter().find(|replay| replay.is_image_recorded).and_then(|replay| replay.image.as_ref());
        match own.or(self.witness.recorded_end) {
            Some(image) => files.put_big("recorded.xss", |mut to| image.copy_to(&mut to)),
            None => Ok(()),
        }
    }

    fn manifest(&self, outcomes: Vec<OutcomeFacts>, base: Base, files: &Writer) -> Result<Manifest, EvidenceError> {
        let Witness { span, start, text, .. } = self.witness;
        let begins = SpanBegins::of(span.begins).ok_or_else(|| EvidenceError::NotEvidence {
            path: self.dir.to_owned(),
            why: format!("its span begins with {}", span.begins.name()),
        })?;
        Ok(Manifest {
            schema: SCHEMA,
            spanwatch: env!("CARGO_PKG_VERSION").to_owned(),
            written_at: self.now.to_owned(),
            id: self.id.to_owned(),
            signature: self.signature.to_owned(),
            span: SpanFacts {
                vat: span.id.vat.to_string(),
                name: self.witness.name.map(str::to_owned),
                incarnation: self.witness.incarnation,
                start: span.id.start,
                end: span.id.end,
                seen_to: span.seen_to,
                hash: self.witness.hash,
                begins,
                ends: span.ends,
                saves: span.saves,
                items: text.items().iter().map(<[u8]>::len).collect(),
            },
            start: StartFacts {
                base: self.witness.base,
                image: base.image,
                is_base_unproved: self.witness.is_base_unproved,
                is_metered: start.options.is_metered,
                enable_disavow: start.options.enable_disavow,
                relax_durability_rules: self.witness.relax_durability_rules,
                bundles: base.bundles,
            },
            repeat: self.divergence.repeat.kind(),
            unconfirmed: match &self.divergence.repeat {
                Repeat::Unconfirmed(why) => Some(why.clone()),
                Repeat::Deterministic | Repeat::Flaky(_) => None,
            },
            heap: self.divergence.heap.as_deref().cloned(),
            outcomes,
            worker: worker_facts(start.program, start.limits),
            engine: engine_of(self.witness),
            host: HostFacts::here(),
            files: files.entries.clone(),
        })
    }
}

/// A value as JSON text for people and programs.
pub(super) fn pretty(value: &impl Serialize) -> String {
    // What is serialized here has string keys and finite numbers, so there is nothing that could fail.
    json(&serde_json::to_string_pretty(value).unwrap_or_default()).into_owned() + "\n"
}

fn readme(id: &str, witness: &Witness<'_>, divergence: &Divergence) -> String {
    let span = &witness.span.id;
    let (vat, name) = (&span.vat, short(witness.name.unwrap_or("without a name"), NAME_CHARS));
    let mut text = Lines::default();
    writeln!(text, "Evidence of a divergence");
    writeln!(text, "========================");
    writeln!(text);
    writeln!(text, "Vat {vat} ({name}), incarnation {}, span [{}, {}).", witness.incarnation, span.start, span.end);
    writeln!(text, "A worker did something else than the node's transcript says:");
    match divergence.findings.first() {
        Some(first) => writeln!(text, "at position {}, {first}", first.position),
        None => writeln!(text),
    }
    match &divergence.repeat {
        Repeat::Deterministic => writeln!(text, "Each repetition in a fresh process gave the same (deterministic)."),
        Repeat::Flaky(_) => writeln!(text, "Repetitions in a fresh process did not always give the same (flaky)."),
        Repeat::Unconfirmed(why) => writeln!(text, "No repetition could tell whether it does the same again: {why}."),
    }
    writeln!(text);
    writeln!(text, "This folder has all that is needed to replay the span, without the node. Type next:");
    writeln!(text);
    writeln!(text, "    spanwatch explain {id}");
    writeln!(text, "    spanwatch replay {id} --worker PATH/TO/xsnap-worker");
    writeln!(text);
    writeln!(
        text,
        "The first says what differs and what may be the cause; the second replays the span again, with any worker."
    );
    writeln!(text, "docs/forensics.md of spanwatch {} explains each file.", env!("CARGO_PKG_VERSION"));
    text.into_text()
}
