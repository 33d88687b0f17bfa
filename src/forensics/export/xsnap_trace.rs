//! A trace as `recordXSnap` of `@agoric/xsnap` writes it, for `replayXSnap` in the same file (`src/replay.js`) to run.
//!
//! It is what the worker was sent, and what it asked and was answered, in the first replay of the evidence: byte for byte
//! what went through the pipe, so that the same program does the same again. `replay.js` gives the answers in their order
//! and looks at no question, so those to what a vat prints are among them.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{ExportError, write, write_image};
use crate::evidence::{Case, ReplayedDelivery};
use crate::files::publish::Staged;
use crate::replay::{Answer, Aside, aside_answer, is_below_zones};
use crate::span::Beginning;
use crate::transcript::{Hash256, Position};

/// A script that runs the trace.
const RUNNER: &str = include_str!("replay.mjs");
const README: &str = include_str!("README.txt");
/// `DEFAULT_CRANK_METERING_LIMIT` in `@agoric/xsnap/src/xsnap.js`; without a limit the kernel gives 0 (`startXSnap.js`).
const METERED_LIMIT: u64 = 100_000_000;
/// Steps are numbered with at least as many digits: `replay.js` takes them in the order of their names.
const DIGITS_MIN: usize = 5;

/// What was written.
#[derive(Debug, Serialize)]
pub struct Traced {
    /// Where the steps are.
    pub steps_dir: PathBuf,
    /// How many.
    pub steps: usize,
    /// The position of a delivery that waits for an answer that nobody could give honestly, if there is one.
    pub waits_at: Option<Position>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Options<'a> {
    os: &'a str,
    name: String,
    debug: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    metering_limit: u64,
}

/// What the script says of the image that the trace ends with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts<'a> {
    /// Null if it is not a name: on the machine where the script runs it could be the path of any file.
    time_zone: Option<&'a str>,
    recorded: Option<Hash256>,
    replayed: Option<Hash256>,
}

struct Step<'a> {
    kind: &'static str,
    content: Cow<'a, [u8]>,
}

fn step<'a>(kind: &'static str, content: impl Into<Cow<'a, [u8]>>) -> Step<'a> {
    Step { kind, content: content.into() }
}

/// Writes the trace into a new directory.
///
/// # Errors
/// When the evidence does not have all of it, or something can't be written.
pub fn export(case: &Case, dir: &Path) -> Result<Traced, ExportError> {
    let items = case.items()?;
    let span = case.span(&items)?;
    let base = case.base()?;
    let beginning = case.beginning(&span, base.as_ref(), &[])?;
    let start = case.replayed_start(0)?;
    if start.is_cut {
        return Err(ExportError::Cut);
    }
    let deliveries = case.replayed(0)?;
    let mut steps = Vec::new();
    let mut commands = Vec::new();
    match &beginning {
        Beginning::Image(_) => commands.push(step("isReady", Vec::new())),
        Beginning::Blank { programs, set_bundle } => {
            commands.extend(programs.iter().map(|program| step("evaluate", program.as_bytes())));
            commands.push(step("issueCommand", format!(r#"["setBundle",{set_bundle}]"#).into_bytes()));
        }
    }
    for (at, command) in commands.into_iter().enumerate() {
        steps.push(command);
        asides(&start.printed, at, &mut steps);
    }
    for replayed in &deliveries {
        if let Some((_, item)) = items.iter().find(|(position, _)| *position == replayed.position) {
            deliver(item.delivery, replayed, &mut steps);
        }
    }
    let outcome = case.manifest.outcomes.first();
    let is_complete = outcome.is_some_and(|outcome| outcome.stopped_at.is_none() && outcome.failure.is_none());
    let id = case.id();
    if is_complete && span.saves.is_some() {
        steps.push(step("snapshot", format!("{}-{}.xss", id.vat, id.end - 1).into_bytes()));
    }
    let options = Options {
        os: "Linux",
        name: format!("{}:{}", id.vat, case.manifest.span.name.as_deref().unwrap_or_default()),
        debug: false,
        snapshot: base.as_ref().map(|_| "../base.xss".to_owned()),
        metering_limit: if case.manifest.start.is_metered { METERED_LIMIT } else { 0 },
    };
    steps.insert(0, step("options", json(&options)));

    // A directory that is there would mix its files with these.
    let staged = Staged::new(dir).map_err(ExportError::io(dir))?;
    let steps_dir = staged.path().join("trace");
    fs::create_dir(&steps_dir).map_err(ExportError::io(&steps_dir))?;
    let digits = steps.len().to_string().len().max(DIGITS_MIN);
    for (number, Step { kind, content }) in steps.iter().enumerate() {
        let ending = if *kind == "options" { "json" } else { "dat" };
        write(&steps_dir.join(format!("{number:0digits$}-{kind}.{ending}")), content)?;
    }
    if let Some(base) = &base {
        write_image(&staged.path().join("base.xss"), base)?;
    }
    let facts = Facts {
        time_zone: Some(&case.manifest.worker.time_zone[..]).filter(|zone| is_below_zones(zone)),
        recorded: span.saves,
        replayed: outcome.and_then(|outcome| outcome.image).map(|image| image.sha256),
    };
    write(&staged.path().join("span.json"), &json(&facts))?;
    write(&staged.path().join("replay.mjs"), RUNNER.as_bytes())?;
    write(&staged.path().join("README.txt"), README.as_bytes())?;
    staged.publish().map_err(ExportError::io(dir))?;
    let waits_at = deliveries.last().filter(|last| last.syscalls.iter().any(|syscall| !is_answered(syscall.answer)));
    Ok(Traced { steps_dir: dir.join("trace"), steps: steps.len(), waits_at: waits_at.map(|last| last.position) })
}

fn deliver<'a>(delivery: &str, replayed: &'a ReplayedDelivery, steps: &mut Vec<Step<'a>>) {
    steps.push(step("issueCommand", format!(r#"["deliver",{delivery}]"#).into_bytes()));
    for (at, syscall) in replayed.syscalls.iter().enumerate() {
        asides(&replayed.printed, at, steps);
        steps.push(step("command", format!(r#"["syscall",{}]"#, syscall.request).into_bytes()));
        if is_answered(syscall.answer) {
            steps.push(step("reply", syscall.response.as_bytes()));
        }
    }
    asides(&replayed.printed, replayed.syscalls.len(), steps);
}

fn is_answered(answer: Option<Answer>) -> bool {
    answer != Some(Answer::None)
}

/// What was printed after so many syscalls.
fn asides<'a>(printed: &'a [Aside], after: usize, steps: &mut Vec<Step<'a>>) {
    for aside in printed.iter().filter(|aside| aside.after == after) {
        steps.push(step("command", aside.query.as_bytes()));
        steps.push(step("reply", aside_answer(&aside.query).unwrap_or("[\"ok\"]").as_bytes()));
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
