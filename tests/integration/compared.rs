//! `verify` around its spans: the plan before them, the comparison of several workers after them, and a chain in place of them.

use serde_json::json;

use crate::run::{Run, fake_worker, spanwatch, text};
use crate::synthetic::{self, Keep, Node, Synthetic};

fn verify(synthetic: &Synthetic, directives: &[&str], more: &[&str]) -> Run {
    let workers: Vec<_> = directives.iter().map(|directive| fake_worker(synthetic.dir.path(), directive)).collect();
    let mut arguments = vec!["verify", text(&synthetic.file), "--sandbox", "off", "--repeats", "1"];
    workers.iter().for_each(|worker| arguments.extend(["--worker", text(worker)]));
    spanwatch(&[&arguments[..], more].concat())
}

#[test]
fn the_plan_comes_first() {
    let synthetic = synthetic::database();
    let run = verify(&synthetic, &["ok"], &["--format", "json"]);
    let plan = &run.lines("plan")[0];
    assert!(run.out.starts_with(r#"{"type":"plan","#), "{}", run.out);
    let spans = run.lines("span");
    assert_eq!(plan["spans"], spans.len(), "{plan}");
    assert_eq!((&plan["on_the_way"], &plan["workers"]), (&json!(0), &json!(1)), "{plan}");
    assert!(plan["open"].as_u64().is_some_and(|open| open > 0), "{plan}");
    let expected = &plan["expected"];
    let count = |verdict: &str| spans.iter().filter(|span| span["verdict"] == verdict).count();
    assert_eq!(expected["replayed"], count("verified"), "{}", run.out);
    assert_eq!(expected["not_applicable"], count("not_applicable"), "{}", run.out);
    // Two workers replay each span.
    let run = verify(&synthetic, &["ok", "computrons"], &["--format", "json", "--vat", "one"]);
    let plan = &run.lines("plan")[0];
    assert_eq!(plan["workers"], 2);
    assert_eq!(run.lines("span").len() as u64, 2 * plan["spans"].as_u64().expect("a number"), "{plan}");
}

/// Without old images a span is reached through those before it, and what was pruned can't be replayed.
#[test]
fn the_plan_says_what_rows_let_expect() {
    let dir = tempfile::tempdir().expect("a directory");
    for (keep, expected) in [
        (Keep::items(), json!({"replayed": 3, "unverifiable": 0, "not_applicable": 0})),
        (Keep::default(), json!({"replayed": 0, "unverifiable": 1, "not_applicable": 0})),
    ] {
        let file = dir.path().join(format!("{}.sqlite", keep.items));
        let mut node = Node::create(&file, keep);
        node.start_vat("v1", "one");
        for _ in 0..3 {
            node.work("v1");
            node.save("v1");
        }
        node.commit();
        drop(node.stop());
        let worker = fake_worker(dir.path(), "ok");
        let arguments = ["verify", text(&file), "--worker", text(&worker), "--sandbox", "off", "--format", "json"];
        let run = spanwatch(&[&arguments[..], &["--span", "11..12"]].concat());
        let plan = &run.lines("plan")[0];
        assert_eq!(plan["expected"], expected, "{}", run.out);
        assert_eq!(plan["spans"], 1, "{plan}");
        assert_eq!(plan["on_the_way"], expected["replayed"].as_u64().expect("a number").saturating_sub(1), "{plan}");
    }
}

#[test]
fn workers_are_compared_one_by_one() {
    let synthetic = synthetic::database();
    let run = verify(&synthetic, &["ok", "computrons"], &["--format", "json", "--vat", "one"]);
    assert_eq!(run.code, 3, "{}", run.err);
    let summary = &run.lines("summary")[0];
    let of_worker = summary["by_worker"].as_array().expect("an array");
    let spans = run.lines("span").len() as u64 / 2;
    assert_eq!(
        (of_worker[0]["spans"]["verified"].as_u64(), of_worker[1]["spans"]["verified"].as_u64()),
        (Some(spans), Some(0))
    );
    assert_eq!(of_worker[1]["spans"]["diverged"].as_u64(), Some(spans), "{summary}");
    let disagreements = run.lines("disagreement");
    assert_eq!(disagreements.len() as u64, spans);
    assert_eq!(disagreements[0]["verdicts"], json!(["verified", "diverged"]), "{}", disagreements[0]);
    assert_eq!((&disagreements[0]["vat"], &disagreements[0]["start"]), (&json!("v1"), &json!(0)));

    let run = verify(&synthetic, &["ok", "computrons"], &["--vat", "one", "--span", "0..6"]);
    assert!(run.out.contains("worker 0 (") && run.out.contains("): 1 of 1 span verified\n"), "{}", run.out);
    assert!(run.out.contains("): 0 of 1 span verified; 1 diverged\n"), "{}", run.out);
    assert!(run.out.contains("the workers disagree on v1 [0, 6): worker 0 verified, worker 1 diverged"), "{}", run.out);
    let run = verify(&synthetic, &["ok", "ok"], &["--vat", "one", "--span", "0..6"]);
    assert!(run.out.contains("the workers agree on the verdict of each span"), "{}", run.out);
    // One worker is not compared.
    let run = verify(&synthetic, &["ok"], &["--vat", "one", "--format", "json"]);
    assert!(run.lines("summary")[0]["by_worker"].is_null(), "{}", run.out);
}

#[test]
fn where_nothing_is_closed_it_says_what_is_open() {
    let synthetic = synthetic::database();
    let open = spanwatch(&["spans", text(&synthetic.file), "--vat", "one", "--format", "json"]);
    let open = open.lines("span").into_iter().find(|span| span["verifiable"] == "open").expect("an open span");
    let range = format!("{}..{}", open["start"], open["end"]);
    let run = verify(&synthetic, &["ok"], &["--vat", "one", "--span", &range]);
    let says = format!("no closed span matches; [{}, {}) of v1 is still open", open["start"], open["end"]);
    assert_eq!((run.code, run.out.trim()), (4, &*says), "{}", run.err);
    let run = verify(&synthetic, &["ok"], &["--vat", "one", "--span", "100000..100001"]);
    assert_eq!((run.code, run.out.trim()), (4, "no closed span matches"), "{}", run.err);
}

#[test]
fn a_chain_ends_at_the_first_span_that_differs() {
    let synthetic = synthetic::database();
    let chain = |directives: &[&str], more: &[&str]| verify(&synthetic, directives, &[&["--chain"], more].concat());
    let run = chain(&["ok"], &["--vat", "one"]);
    assert!(run.code == 0 && run.out.contains("no span differs in a chained replay"), "{}{}", run.out, run.err);
    assert!(run.out.contains(" chained: "), "{}", run.out);
    let run = chain(&["ok", "computrons"], &["--vat", "one", "--format", "json"]);
    assert_eq!(run.code, 3, "{}", run.err);
    let ends = run.lines("chain");
    assert_eq!((&ends[0]["first"], &ends[1]["first"]), (&json!(null), &json!([0, 6])), "{}", run.out);
    assert_eq!(run.lines("span").iter().filter(|span| span["worker"] == 1).count(), 1, "{}", run.out);
    for (vats, code) in [(&[][..], 2), (&["--vat", "one", "--vat", "two"], 2), (&["--vat", "nobody"], 1)] {
        let run = chain(&["ok"], vats);
        assert_eq!(run.code, code, "{vats:?}: {}", run.err);
    }
    // The old spelling, and how it is written now.
    let worker = fake_worker(synthetic.dir.path(), "computrons");
    let old =
        ["bisect", "--chain", text(&synthetic.file), "--vat", "one", "--worker", text(&worker), "--sandbox", "off"];
    let run = spanwatch(&old);
    assert!(run.code == 3 && run.out.contains("differs first in span [0, 6)"), "{}{}", run.out, run.err);
    assert!(run.err.contains("--vat one --chain"), "{}", run.err);
    assert!(!spanwatch(&["bisect", "--help"]).out.contains("--chain"));
}
