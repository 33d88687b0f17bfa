//! The signature of a divergence: divergences with one signature are counted into one evidence folder.
//!
//! Owns the rule: one vat, one worker, one repeat, and the kind of the first finding without its position. A worker that goes astray
//! does so at each span, and one folder tells all that a thousand would. Numbers of syscalls and the texts of either side differ from
//! span to span and take no part; the first argument that differs does, as a send to another target and a send of another message have
//! different causes. It must never read the excerpts: a long text is cut.

use crate::transcript::sha256;
use crate::verdict::{Divergence, Finding, FindingClass, FindingKind, SyscallNames};

/// The signature of a divergence of a vat with a worker, whose program has this sha256: eight hexadecimal digits.
pub(super) fn signature(vat: &str, worker_sha256: &str, divergence: &Divergence) -> String {
    let first = divergence.findings.first().map(essence).unwrap_or_default();
    let text = format!("{vat}\n{worker_sha256}\n{}\n{first}", divergence.repeat.label());
    sha256(text.as_bytes()).to_string()[..8].to_owned()
}

/// A finding's kind and syscalls, without span-specific details.
fn essence(finding: &Finding) -> String {
    let detail = match finding.kind {
        FindingKind::Syscall | FindingKind::MissingSyscall | FindingKind::ExtraSyscall => {
            let class = finding.class.map(FindingClass::label).unwrap_or_default();
            let SyscallNames { recorded, replayed } = finding.names.clone().unwrap_or_default();
            let argument = finding.argument.map(|number| format!("/argument {number}")).unwrap_or_default();
            let moved = if finding.moved_to.is_some() { "/moved" } else { "" };
            format!("{}/{}/{class}{argument}{moved}", recorded.unwrap_or_default(), replayed.unwrap_or_default())
        }
        FindingKind::WorkerExit => finding.exit.map(|exit| exit.to_string()).unwrap_or_default(),
        FindingKind::Status | FindingKind::Computrons | FindingKind::SnapshotHash => String::new(),
    };
    format!("{} {detail}", finding.kind.label())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Repeat, WorkerExit};

    fn of(first: Finding) -> String {
        of_repeat(first, Repeat::Deterministic)
    }

    fn of_repeat(first: Finding, repeat: Repeat) -> String {
        let findings = vec![first];
        let divergence = Divergence { findings, findings_total: 1, failure: None, repeat, partial: None, heap: None };
        signature("v1", "00", &divergence)
    }

    /// Two syscalls whose texts are cut, at a position.
    fn syscall(names: [&str; 2], argument: Option<usize>, position: u32) -> Finding {
        let text = |name: &str, last: &str| format!("[\"{name}\",\"{}{last}\"]", "x".repeat(5_000 + position as usize));
        let (recorded, replayed) = (text(names[0], "1"), text(names[1], "2"));
        let [recorded_name, replayed_name] = names.map(|name| Some(name.to_owned()));
        Finding {
            syscall: Some(position as usize),
            names: Some(SyscallNames { recorded: recorded_name, replayed: replayed_name }),
            argument,
            ..Finding::new(FindingKind::Syscall, position.into(), Some(&recorded), Some(&replayed))
        }
    }

    #[test]
    fn one_fault_in_spans_of_different_positions_is_the_same() {
        let sends = [3, 500, 77_000].map(|position| of(syscall(["send", "send"], Some(2), position)));
        assert!(sends.iter().all(|one| *one == sends[0]), "{sends:?}");
        let hashes = [("00", "11"), ("22", "33")]
            .map(|(one, other)| of(Finding::new(FindingKind::SnapshotHash, 9, Some(one), Some(other))));
        assert_eq!(hashes[0], hashes[1]);
    }

    #[test]
    fn two_faults_never_share_a_signature() {
        let exit =
            |exit| Finding { exit: Some(exit), ..Finding::new(FindingKind::WorkerExit, 3, None, Some("it ended")) };
        let faults = [
            syscall(["send", "send"], Some(1), 3),
            syscall(["send", "send"], Some(2), 3),
            syscall(["send", "exit"], None, 3),
            syscall(["exit", "send"], None, 3),
            syscall(["vatstoreSet", "vatstoreSet"], Some(2), 3),
            Finding { moved_to: Some(9), ..syscall(["exit", "exit"], None, 3) },
            Finding { kind: FindingKind::MissingSyscall, ..syscall(["send", "send"], None, 3) },
            Finding {
                class: Some(FindingClass::GcSensitiveRead),
                kind: FindingKind::MissingSyscall,
                ..syscall(["send", "send"], None, 3)
            },
            exit(WorkerExit::Code(11)),
            exit(WorkerExit::Code(12)),
            exit(WorkerExit::Signal(11)),
            Finding::new(FindingKind::Computrons, 3, Some("10"), Some("11")),
            Finding::new(FindingKind::Status, 3, Some("ok"), Some("error")),
        ];
        let signatures: Vec<String> = faults.iter().cloned().map(of).collect();
        let mut distinct = signatures.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), faults.len(), "{signatures:?}");
        let fault = &faults[0];
        assert_ne!(of(fault.clone()), of_repeat(fault.clone(), Repeat::Flaky(Vec::new())));
    }

    /// Folders of version 0.1.0 go on counting the divergences whose finding had no syscall.
    #[test]
    fn a_signature_stays_from_version_to_version() {
        let text = sha256(b"v1\n00\ndeterministic\ncomputrons ").to_string();
        assert_eq!(of(Finding::new(FindingKind::Computrons, 8, Some("1030"), Some("1031"))), text[..8]);
        let text = sha256(b"v1\n00\ndeterministic\nworker_exit exit 11 (not enough memory)").to_string();
        let exit = WorkerExit::Code(11);
        let finding = Finding { exit: Some(exit), ..Finding::new(FindingKind::WorkerExit, 8, None, None) };
        assert_eq!(of(finding), text[..8]);
    }
}
