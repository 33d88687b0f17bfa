//! What several replays mean together, with replays made by hand.

use std::cell::RefCell;

use super::*;
use crate::replay::Trace;
use crate::transcript::{Item, Position, SpanId};
use crate::verdict::{FindingKind, RepeatKind};

const LOAD: &str = r#"{"d":["load-snapshot",{"snapshotID":"f467b89caf819ee4ba76ffecf353d99eb374b673ea01da456beb73a9a9d372e6"}],"sc":[],"r":{"status":"ok"}}"#;
const DELIVERY: &str = r#"{"d":["bringOutYourDead"],"sc":[],"r":{"status":"ok","metering":{"computrons":2364}}}"#;

fn finding(position: Position, replayed: &str) -> Finding {
    Finding::new(FindingKind::Computrons, position, Some("2364"), Some(replayed))
}

/// A replay that went to its end with these findings.
fn found(findings: &[Finding]) -> Replay {
    Replay {
        findings: findings.to_vec(),
        findings_total: findings.len(),
        stopped_at: None,
        deliveries: 1,
        syscalls: 0,
        is_hash_compared: false,
        image: None,
        image_hash: None,
        is_image_recorded: false,
        is_complete: true,
        is_out_of_memory: false,
        failure: None,
        out_of_step: None,
        trace: Trace::default(),
    }
}

/// A replay that failed for a reason of ours after these findings.
fn failed(findings: &[Finding]) -> Replay {
    let failure = Some(Failure::System("no memory".to_owned()));
    Replay { failure, is_complete: false, ..found(findings) }
}

fn out_of_memory() -> Replay {
    let exit = Finding::new(FindingKind::WorkerExit, 6, None, Some("exit 11 (not enough memory)"));
    Replay { is_out_of_memory: true, is_complete: false, ..found(&[exit]) }
}

fn out_of_step(why: OutOfStep) -> Replay {
    Replay { out_of_step: Some(why), is_complete: false, ..found(&[]) }
}

/// The verdict of replays that come one after the other, and how each was asked for.
fn judged(replays: Vec<Replay>, times: u32, is_whole: bool) -> (Judged, Vec<Way>) {
    let items: Vec<_> =
        (5..).zip([LOAD, DELIVERY].map(|text| Item::parse(text.as_bytes()).expect("a kernel's item"))).collect();
    let id = SpanId { vat: VatId::new("v7"), start: 5, end: if is_whole { 7 } else { 9 } };
    let span = Span::new(&id, None, &items, is_whole).expect("a span");
    let shared = SharedReplays::default();
    let (left, asked) = (RefCell::new(replays.into_iter()), RefCell::new(Vec::new()));
    let judged = judge_by(&span, &Repeats { times, shared: &shared }, |way| {
        asked.borrow_mut().push(way);
        left.borrow_mut().next().expect("no more replays than these")
    });
    assert_eq!(left.borrow_mut().len(), 0, "each replay is asked for");
    (judged, asked.into_inner())
}

/// The kind of the verdict, with the agreement of the replays where they differ from the record.
fn told(replays: Vec<Replay>, times: u32) -> String {
    match judged(replays, times, true).0.verdict {
        Verdict::Diverged(divergence) => match &divergence.repeat {
            Repeat::Flaky(outcomes) => {
                let times: Vec<u32> = outcomes.iter().map(|outcome| outcome.times).collect();
                format!("{} {times:?}", RepeatKind::Flaky.label())
            }
            Repeat::Unconfirmed(why) => format!("unconfirmed: {why}"),
            other => other.label().to_owned(),
        },
        Verdict::Failed(failure) => format!("failed: {}", failure.label()),
        other => other.label().to_owned(),
    }
}

#[test]
fn the_replays_of_a_span_have_one_verdict() {
    let (one, other) = (finding(6, "2365"), finding(6, "2366"));
    let one = std::slice::from_ref(&one);
    let other = std::slice::from_ref(&other);
    for (replays, times, expected) in [
        (vec![found(&[])], 3, "verified"),
        (vec![failed(&[])], 3, "failed: system"),
        (vec![Replay { is_complete: false, ..found(&[]) }], 3, "failed: system"),
        (vec![found(one), found(one), found(one), found(one)], 3, "deterministic"),
        (vec![found(one)], 0, "unconfirmed: it was not repeated"),
        (vec![found(one), found(one), found(&[]), found(&[])], 3, "flaky [2]"),
        (vec![found(one), found(other), found(&[]), found(other)], 3, "flaky [2, 1]"),
        (vec![found(one), failed(&[]), found(one), found(one)], 3, "unconfirmed: the system refused: no memory"),
        (vec![failed(one), found(one)], 1, "deterministic"),
        // A replay that failed half-way, but had found something else until then, is another outcome.
        (vec![found(one), failed(other), found(one), found(one)], 3, "flaky [1]"),
    ] {
        let shown = format!("{:?}", replays.iter().map(|replay| replay.findings.len()).collect::<Vec<_>>());
        assert_eq!(told(replays, times), expected, "{shown}");
    }
}

#[test]
fn out_of_memory_counts_only_when_the_worker_runs_alone() {
    assert_eq!(told(vec![out_of_memory(), found(&[])], 3), "verified");
    assert_eq!(told(vec![out_of_memory(), out_of_memory(), out_of_memory(), out_of_memory()], 3), "deterministic");
    // It is a finding beside another one: nothing to excuse.
    let two = [finding(5, "1"), finding(6, "2")];
    let beside = || Replay { is_out_of_memory: true, ..found(&two) };
    assert_eq!(told(vec![beside(), found(&[])], 1), "flaky [1]");
}

#[test]
fn a_replay_that_ran_ahead_and_got_out_of_step_gives_no_verdict() {
    let one = [finding(6, "2365")];
    let (verdict, ways) = judged(vec![out_of_step(OutOfStep::Printed), found(&[])], 3, true);
    assert!(matches!(verdict.verdict, Verdict::Verified), "{:?}", verdict.verdict);
    assert_eq!(ways, [Way::Ahead, Way::InStep]);
    let ahead = Replay { findings: one.to_vec(), findings_total: 1, ..out_of_step(OutOfStep::Differed) };
    // The replay message by message does not confirm it: the difference stays, as a flaky one.
    let (verdict, ways) = judged(vec![ahead, found(&[]), found(&[]), found(&[])], 3, true);
    let Verdict::Diverged(Divergence { findings, repeat: Repeat::Flaky(others), .. }) = &verdict.verdict else {
        panic!("{:?}", verdict.verdict)
    };
    assert_eq!((&findings[..], others[0].times, others[0].findings.len()), (&one[..], 3, 0));
    assert_eq!(ways[0], Way::Ahead);
}

#[test]
fn a_part_of_a_span_is_partial_or_diverged_and_says_how_far_it_was_seen() {
    let (seen, _) = judged(vec![found(&[])], 3, false);
    let Verdict::Partial(Partial { seen_to, end }) = seen.verdict else { panic!("{:?}", seen.verdict) };
    assert_eq!((seen_to, end), (7, 9));
    let one = [finding(6, "2365")];
    let (seen, _) = judged(vec![found(&one), found(&one)], 1, false);
    let Verdict::Diverged(divergence) = seen.verdict else { panic!("{:?}", seen.verdict) };
    assert_eq!(divergence.partial, Some(Partial { seen_to: 7, end: 9 }));
}

#[test]
fn the_next_span_starts_from_the_recorded_image_whichever_replay_gave_it() {
    let image = |content: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, content).expect("in memory");
        let hash = crate::transcript::sha256(content);
        Image::from_gzip(&encoder.finish().expect("in memory")[..], hash, None).expect("proved")
    };
    let one = [finding(6, "2365")];
    let with =
        |content: &[u8], is_image_recorded| Replay { image: Some(image(content)), is_image_recorded, ..found(&one) };
    for (replays, expected) in [
        (vec![with(b"wrong", false), with(b"right", true)], &b"right"[..]),
        (vec![with(b"right", true), with(b"wrong", false)], b"right"),
        (vec![with(b"first", false), with(b"second", false)], b"first"),
    ] {
        let (mut judged, _) = judged(replays, 1, true);
        let taken = judged.take_image().map(|image| image.hash());
        assert_eq!(taken, Some(crate::transcript::sha256(expected)));
    }
}
