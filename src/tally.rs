//! The counters of verdicts: what one verdict adds to which counter.
//!
//! Owns the counters and their names in the store. The store persists them, the metrics export them, and a summary prints them. Names and
//! labels never change: a store of an earlier version has them.

use crate::audit::ContradictionKind;
use crate::verdict::{Failure, FindingKind, HeapLikeness, Unverifiable, Verdict, VerdictKind};
use crate::verify::SpanReport;

/// A counter that outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Spans with a verdict of this kind.
    Spans(VerdictKind),
    /// Diverged spans with a finding of this kind; for snapshot hashes with what the heaps are to each other, where they were compared.
    Divergences(FindingKind, Option<HeapLikeness>),
    /// Responses that contradict the record.
    Contradictions(ContradictionKind),
    /// Unverifiable spans, by the label of the reason.
    Unverifiable(&'static str),
    /// Failed attempts at spans, by the label of the failure.
    Failures(&'static str),
    /// Spans of which the node's deleting left nothing to replay.
    Missed,
    /// Items that the node deleted before they were seen.
    UnseenItems,
    /// Deliveries compared.
    Deliveries,
    /// Syscalls compared.
    Syscalls,
    /// Snapshot hashes compared.
    SnapshotHashes,
}

impl Counter {
    /// The name in the store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spans(_) => "spans",
            Self::Divergences(..) => "divergences",
            Self::Contradictions(_) => "contradictions",
            Self::Unverifiable(_) => "unverifiable",
            Self::Failures(_) => "failures",
            Self::Missed => "missed",
            Self::UnseenItems => "unseen_items",
            Self::Deliveries => "deliveries",
            Self::Syscalls => "syscalls",
            Self::SnapshotHashes => "snapshot_hashes",
        }
    }

    /// The label in the store; empty for a counter without one.
    pub(crate) fn label(self) -> String {
        match self {
            Self::Spans(kind) => kind.label().to_owned(),
            Self::Divergences(kind, Some(heap)) => format!("{}/{}", kind.label(), heap.label()),
            Self::Divergences(kind, None) => kind.label().to_owned(),
            Self::Contradictions(kind) => kind.label().to_owned(),
            Self::Unverifiable(reason) | Self::Failures(reason) => reason.to_owned(),
            Self::Missed | Self::UnseenItems | Self::Deliveries | Self::Syscalls | Self::SnapshotHashes => {
                String::new()
            }
        }
    }

    /// The counter with a name and a label of the store; `None` for one that another version counts.
    pub(crate) fn of_stored(name: &str, label: &str) -> Option<Self> {
        let one_of = |labels: &[&'static str]| labels.iter().copied().find(|known| *known == label);
        match name {
            "spans" => VerdictKind::of_label(label).map(Self::Spans),
            "divergences" => {
                let (kind, heap) = label.split_once('/').map_or((label, None), |(kind, heap)| (kind, Some(heap)));
                let kind = FindingKind::ALL.into_iter().find(|known| known.label() == kind)?;
                let heap = match heap {
                    Some(heap) => Some(HeapLikeness::ALL.into_iter().find(|known| known.label() == heap)?),
                    None => None,
                };
                Some(Self::Divergences(kind, heap))
            }
            "contradictions" => {
                let mut kinds = ContradictionKind::RESPONSES.into_iter();
                kinds.find(|kind| kind.label() == label).map(Self::Contradictions)
            }
            "unverifiable" => one_of(&Unverifiable::LABELS).map(Self::Unverifiable),
            "failures" => one_of(&Failure::LABELS).map(Self::Failures),
            "missed" => Some(Self::Missed),
            "unseen_items" => Some(Self::UnseenItems),
            "deliveries" => Some(Self::Deliveries),
            "syscalls" => Some(Self::Syscalls),
            "snapshot_hashes" => Some(Self::SnapshotHashes),
            _ => None,
        }
    }
}

/// Counters with their values; a counter that is not in it is at 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally(Vec<(Counter, u64)>);

impl Tally {
    /// The tally of one verdict, apart from [`Counter::Missed`]: only a daemon can miss a span.
    pub(crate) fn of(report: &SpanReport) -> Self {
        let mut tally = Self::default();
        tally.add(Counter::Spans(report.verdict.kind()), 1);
        match &report.verdict {
            Verdict::Diverged(divergence) => {
                let heap = divergence.heap.as_ref().map(|heap| heap.answer);
                for kind in finding_kinds(&report.verdict) {
                    tally.add(Counter::Divergences(kind, heap.filter(|_| kind == FindingKind::SnapshotHash)), 1);
                }
            }
            Verdict::Unverifiable(reason) => tally.add(Counter::Unverifiable(reason.label()), 1),
            Verdict::Failed(failure) => tally.add(Counter::Failures(failure.label()), 1),
            Verdict::Verified | Verdict::Partial(_) | Verdict::Contradicted(_) | Verdict::NotApplicable(_) => {}
        }
        for (kind, count) in report.contradictions.kinds() {
            tally.add(Counter::Contradictions(kind), count);
        }
        tally.add(Counter::UnseenItems, report.verdict.partial().map_or(0, |partial| partial.end - partial.seen_to));
        tally.add(Counter::Deliveries, report.deliveries);
        tally.add(Counter::Syscalls, report.syscalls);
        tally.add(Counter::SnapshotHashes, u64::from(report.is_hash_compared));
        tally
    }

    /// Adds to one counter.
    pub(crate) fn add(&mut self, counter: Counter, value: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == counter) {
            Some((_, sum)) => *sum += value,
            None if value > 0 => self.0.push((counter, value)),
            None => {}
        }
    }

    /// Adds another tally.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(counter, value)| self.add(counter, value));
    }

    /// The value of one counter.
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.0.iter().find(|(known, _)| *known == counter).map_or(0, |(_, value)| *value)
    }

    /// The counters that are not at 0.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Counter, u64)> {
        self.0.iter().copied()
    }
}

/// The kinds of findings of a divergence, each once; none for another verdict.
pub(crate) fn finding_kinds(verdict: &Verdict) -> Vec<FindingKind> {
    let Verdict::Diverged(divergence) = verdict else { return Vec::new() };
    let mut kinds: Vec<FindingKind> = divergence.findings.iter().map(|finding| finding.kind).collect();
    kinds.sort_unstable_by_key(|kind| kind.label());
    kinds.dedup();
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Counter> {
        let mut all = vec![
            Counter::Missed,
            Counter::UnseenItems,
            Counter::Deliveries,
            Counter::Syscalls,
            Counter::SnapshotHashes,
            Counter::Divergences(FindingKind::SnapshotHash, Some(HeapLikeness::GcSchedule)),
        ];
        all.extend(VerdictKind::ALL.map(Counter::Spans));
        all.extend(FindingKind::ALL.map(|kind| Counter::Divergences(kind, None)));
        all.extend(ContradictionKind::RESPONSES.map(Counter::Contradictions));
        all.extend(Unverifiable::LABELS.map(Counter::Unverifiable));
        all.extend(Failure::LABELS.map(Counter::Failures));
        all
    }

    /// A store keeps names and labels for years.
    #[test]
    fn a_counter_comes_back_from_the_store() {
        let mut names = std::collections::HashSet::new();
        for counter in all() {
            let (name, label) = (counter.name(), counter.label());
            assert_eq!(Counter::of_stored(name, &label), Some(counter), "{name} {label}");
            assert!(names.insert((name, label)), "{counter:?} has a name of its own");
        }
        let heap = Counter::Divergences(FindingKind::SnapshotHash, Some(HeapLikeness::GcSchedule));
        assert_eq!((heap.name(), heap.label().as_str()), ("divergences", "snapshot_hash/gc_schedule"));
    }

    #[test]
    fn a_counter_of_another_version_is_none() {
        for (name, label) in
            [("spans", "doubted"), ("divergences", "snapshot_hash/other"), ("failures", ""), ("rings", "")]
        {
            assert_eq!(Counter::of_stored(name, label), None, "{name} {label}");
        }
    }

    #[test]
    fn tallies_add_up() {
        let mut sum = Tally::default();
        let mut one = Tally::default();
        one.add(Counter::Deliveries, 3);
        one.add(Counter::Missed, 0);
        sum.merge(&one);
        sum.merge(&one);
        assert_eq!(sum.iter().collect::<Vec<_>>(), [(Counter::Deliveries, 6)]);
        assert_eq!((sum.get(Counter::Deliveries), sum.get(Counter::Missed)), (6, 0));
    }
}
