//! One table: what a worker does, and which verdict that must give.

use std::time::{Duration, Instant};

use crate::run::{Run, fake_worker, spanwatch, text};
use crate::synthetic::{self, Synthetic};

/// What the worker does in the second message of a span of v1, and the verdict for `[0, 6)`. That message is at
/// position 3, the snapshot at 5.
const TABLE: &[(&str, &str)] = &[
    ("ok", "verified"),
    // The machine was short of memory, not the vat: the repetition counts.
    ("short-of-memory-once", "verified"),
    // Another heap, or other behaviour: divergences, every one of them named.
    ("wrong-syscall", "diverged/syscall@3+snapshot_hash@5"),
    ("extra-syscall", "diverged/extra_syscall@3+snapshot_hash@5"),
    ("missing-syscall", "diverged/missing_syscall@3+snapshot_hash@5"),
    ("swapped-syscalls", "diverged/syscall@3+syscall@3"),
    ("unanswerable", "diverged/syscall@3"),
    ("computrons", "diverged/computrons@3"),
    ("error-status", "diverged/status@3"),
    ("uncaught", "diverged/status@3"),
    ("wrong-hash", "diverged/snapshot_hash@5"),
    ("flaky", "diverged/snapshot_hash@5"),
    ("not-ready", "diverged/status@0"),
    // Ends that only code the worker runs brings about.
    ("exit-0", "diverged/worker_exit@3"),
    ("exit-11", "diverged/worker_exit@3"),
    ("exit-12", "diverged/worker_exit@3"),
    ("exit-15", "diverged/worker_exit@3"),
    ("exit-16", "diverged/worker_exit@3"),
    ("exit-17", "diverged/worker_exit@3"),
    ("exit-255", "diverged/worker_exit@3"),
    ("signal-11", "diverged/worker_exit@3"),
    ("signal-6", "diverged/worker_exit@3"),
    ("cut-message", "diverged/worker_exit@3"),
    ("leave-a-child", "diverged/worker_exit@3"),
    ("leave-a-stray", "diverged/worker_exit@3"),
    // Trouble that says nothing about the record.
    ("exit-1", "failed/worker_io"),
    ("exit-2", "failed/worker_io"),
    ("signal-9", "failed/worker_killed"),
    ("signal-15", "failed/worker_killed"),
    ("hang", "failed/limit"),
    ("spin", "failed/limit"),
    ("drip", "failed/limit"),
    ("grow", "failed/limit"),
    ("flood-output", "failed/limit"),
    ("flood-console", "failed/limit"),
    ("huge-image", "failed/limit"),
    ("flood-replies", "failed/worker_protocol"),
    ("promise-900-mb", "failed/worker_protocol"),
    ("garbage", "failed/worker_protocol"),
    ("empty-message", "failed/worker_protocol"),
    ("unknown-message", "failed/worker_protocol"),
    ("unknown-query", "failed/worker_protocol"),
    ("bad-meter", "failed/worker_protocol"),
    ("bad-reply", "failed/worker_protocol"),
    ("no-meter", "failed/worker_protocol"),
    ("bad-syscall", "failed/worker_protocol"),
    ("bad-set-bundle", "failed/worker_protocol"),
    ("wrong-size", "failed/worker_protocol"),
    ("close-pipes", "failed/worker_protocol"),
];

/// Verifies with the fake worker that does what `directive` says.
fn verify(synthetic: &Synthetic, directive: &str, more: &[&str]) -> Run {
    let worker = fake_worker(synthetic.dir.path(), directive);
    let arguments = ["verify", text(&synthetic.file), "--format", "json", "--worker", text(&worker)];
    spanwatch(&[&arguments[..], more].concat())
}

/// What ends otherwise in the sandbox, of those in the table; the others get the same verdict with and without it. Most of these
/// take a system call that no worker makes.
const IN_THE_SANDBOX: &[(&str, &str)] = &[
    ("signal-9", "failed/sandbox"),
    ("signal-15", "failed/sandbox"),
    ("signal-11", "failed/sandbox"),
    ("drip", "failed/sandbox"),
    ("grow", "failed/sandbox"),
    ("leave-a-child", "failed/sandbox"),
    ("leave-a-stray", "failed/sandbox"),
    ("close-pipes", "failed/sandbox"),
];

#[test]
fn every_fault_gets_its_verdict() {
    let (synthetic, mut wrong) = (synthetic::database(), Vec::new());
    for (directive, verdict) in TABLE {
        check(&synthetic, directive, verdict, "off", &mut wrong);
        check(&synthetic, &format!("{directive}-printing"), verdict, "off", &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_fault_gets_its_verdict_in_the_sandbox() {
    let (synthetic, mut wrong) = (synthetic::database(), Vec::new());
    for (directive, verdict) in TABLE {
        // It writes a file, which nothing in a sandbox can.
        if !directive.ends_with("-once") {
            let other = IN_THE_SANDBOX.iter().find(|(other, _)| other == directive);
            let verdict = other.map_or(*verdict, |(_, verdict)| verdict);
            check(&synthetic, directive, verdict, "default", &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(synthetic: &Synthetic, directive: &str, verdict: &str, sandbox: &str, wrong: &mut Vec<String>) {
    let began = Instant::now();
    let limits = ["--stall-max", "2s", "--delivery-cpu-max", "1s", "--worker-memory-max", "64MiB"];
    let run = verify(
        synthetic,
        directive,
        &[&["--vat", "one", "--span", "0..6", "--sandbox", sandbox], &limits[..]].concat(),
    );
    assert!(began.elapsed() < Duration::from_secs(120), "{directive} took {:?}", began.elapsed());
    let found = run.verdicts().join(" ");
    let code = match verdict.split('/').next() {
        Some("verified") => 0,
        Some("diverged") => 3,
        _ => 4,
    };
    if found != verdict || run.code != code {
        wrong.push(format!("{directive}: {found} (exit {}), not {verdict}\n{}{}", run.code, run.out, run.err));
    }
}

#[test]
fn a_repeated_divergence_is_told_from_a_flaky_one() {
    let synthetic = synthetic::database();
    for (directive, repeat) in [("wrong-hash", "deterministic"), ("flaky", "flaky"), ("wrong-syscall", "deterministic")]
    {
        let run = verify(&synthetic, directive, &["--vat", "v2"]);
        assert_eq!(run.lines("span")[0]["repeat"], repeat, "{}", run.out);
    }
    // What only the first replay had is told, though that one ran ahead and could not go on.
    for directive in ["wrong-syscall-once", "wrong-syscall-once-printing"] {
        let run = verify(&synthetic, directive, &["--vat", "one", "--span", "0..6", "--sandbox", "off"]);
        let span = &run.lines("span")[0];
        assert_eq!((&span["verdict"], &span["repeat"]), (&"diverged".into(), &"flaky".into()), "{}", run.out);
        let first = &span["findings"][0];
        assert_eq!((&first["kind"], &first["position"]), (&"syscall".into(), &3.into()), "{}", run.out);
    }
}

#[test]
fn a_worker_that_cannot_read_the_image_fails_only_where_there_is_one() {
    let synthetic = synthetic::database();
    let run = verify(&synthetic, "cannot-load", &[]);
    let expected = ["verified", "failed/worker_io", "failed/worker_io", "verified", "not_applicable/local_worker"];
    assert_eq!((run.verdicts(), run.code), (expected.map(str::to_owned).to_vec(), 4), "{}{}", run.out, run.err);
    assert!(run.out.contains("cannot read snapshot"), "what the worker printed is told: {}", run.out);
}

#[test]
fn a_chain_goes_on_from_a_diverged_image_and_says_so() {
    let synthetic = synthetic::database();
    let db = rusqlite::Connection::open(&synthetic.file).expect("open");
    db.execute("UPDATE snapshots SET compressedSnapshot = NULL", []).expect("write");
    db.close().expect("close");
    for (directive, verdicts, unproved) in [
        ("ok", ["verified", "verified", "verified"], false),
        ("wrong-hash", ["diverged/snapshot_hash@5", "diverged/snapshot_hash@10", "diverged/snapshot_hash@15"], true),
        ("exit-11", ["diverged/worker_exit@3", "unverifiable/chain_broken", "unverifiable/chain_broken"], false),
        ("hang", ["failed/limit", "unverifiable/chain_broken", "unverifiable/chain_broken"], false),
    ] {
        let run = verify(&synthetic, directive, &["--vat", "v1", "--stall-max", "2s"]);
        assert_eq!(run.verdicts(), verdicts, "{directive}: {}{}", run.out, run.err);
        let spans = run.lines("span");
        assert_eq!(spans[1]["base_unproved"] == true, unproved, "{directive}: {}", run.out);
        assert_eq!(spans[2]["base"], "chained");
    }
}

/// A record whose parts do not fit together never verifies, though each of them has its hash.
#[test]
fn records_that_do_not_fit_together() {
    let other = "0".repeat(64);
    for (what, position, from, to, reason) in [
        (
            "a load of another image",
            6,
            "\"snapshotID\":\"",
            format!("\"snapshotID\":\"{}", &other[..4]),
            "history_broken",
        ),
        ("computrons left out", 8, ",\"metering\":", ",\"mattering\":".to_owned(), "item_out_of_place"),
        (
            "a snapshot that is called a shutdown",
            10,
            "[\"save-snapshot\"]",
            "[\"shutdown-worker\"]".to_owned(),
            "history_broken",
        ),
        (
            "a load with a syscall",
            6,
            "\"sc\":[]",
            r#""sc":[{"s":["exit"],"r":["ok",null]}]"#.to_owned(),
            "item_out_of_place",
        ),
    ] {
        let synthetic = synthetic::database();
        let db = rusqlite::Connection::open(&synthetic.file).expect("open");
        db.execute("UPDATE snapshots SET compressedSnapshot = NULL WHERE inUse IS NULL", []).expect("write");
        db.close().expect("close");
        synthetic::change_item(&synthetic.file, "v1", position, true, |item| {
            let (before, after) = item.split_once(from).expect("such a text");
            // A hash keeps its length.
            let after = if what.contains("another image") { &after[4..] } else { after };
            format!("{before}{to}{after}")
        });
        let run = verify(&synthetic, "ok", &["--vat", "v1"]);
        assert_eq!(run.verdicts()[1], format!("unverifiable/{reason}"), "{what}: {}{}", run.out, run.err);
        assert_eq!((run.verdicts()[0].as_str(), run.code), ("verified", 4), "{what}: {}", run.out);
    }
}

#[test]
fn several_workers_are_compared() {
    let synthetic = synthetic::database();
    let (good, bad) = (fake_worker(synthetic.dir.path(), "ok"), fake_worker(synthetic.dir.path(), "computrons"));
    let run = spanwatch(&[
        "verify",
        text(&synthetic.file),
        "--format",
        "json",
        "--vat",
        "v2",
        "--worker",
        text(&good),
        "--worker",
        text(&bad),
    ]);
    assert_eq!(run.verdicts(), ["verified", "diverged/computrons@3"], "{}{}", run.out, run.err);
    assert_eq!(run.lines("summary")[0]["workers"][1]["path"], text(&bad));
    assert_eq!(run.code, 3);
}

#[test]
fn a_divergence_reads_well() {
    let synthetic = synthetic::database();
    let worker = fake_worker(synthetic.dir.path(), "wrong-syscall");
    let run = spanwatch(&["verify", text(&synthetic.file), "--worker", text(&worker), "--vat", "v2", "--jobs", "1"]);
    let seconds = |line: &str| match line.rfind(", ").filter(|_| line.ends_with(" s")) {
        Some(at) => format!("{}, N s", &line[..at]),
        None => line.split(" compared in ").next().map_or_else(String::new, str::to_owned),
    };
    insta::assert_snapshot!(run.out.lines().map(seconds).collect::<Vec<_>>().join("\n"));
}

/// The fake worker takes everything that it is told into its heap, so an option that was not passed on would not show.
#[test]
fn a_blank_worker_is_told_the_vats_options() {
    for (key, value) in [
        ("kernel.relaxDurabilityRules", "true"),
        ("v2.options", r#"{"workerOptions":{"type":"xsnap"},"name":"two","enableDisavow":true}"#),
    ] {
        let synthetic = synthetic::database();
        let db = rusqlite::Connection::open(&synthetic.file).expect("open");
        db.execute("INSERT OR REPLACE INTO kvStore VALUES (?, ?)", [key, value]).expect("write");
        db.close().expect("close");
        let run = verify(&synthetic, "ok", &["--vat", "v2"]);
        assert_eq!(run.verdicts(), ["diverged/snapshot_hash@5"], "{key}: {}", run.out);
    }
}
