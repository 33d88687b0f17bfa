//! One difference between the record and a replay, as data.
//!
//! Owns the sentence that a finding becomes, which is made where it is printed and never read back. The two sides are excerpts for
//! people; everything that decides something is a field of its own. It must never compare anything: `replay` does.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::WorkerExit;
use super::labels::labels;
use crate::transcript::Position;
use crate::words::excerpts;

/// The kind of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A syscall is another one, or stands at another place.
    Syscall,
    /// A recorded syscall was not made.
    MissingSyscall,
    /// A syscall was made that is not recorded.
    ExtraSyscall,
    /// A delivery or the worker's start ended otherwise.
    Status,
    /// A delivery cost another number of computrons.
    Computrons,
    /// The heap at the end of the span is another one.
    SnapshotHash,
    /// The worker's process ended.
    WorkerExit,
}

labels! { all FindingKind {
    Syscall => "syscall",
    MissingSyscall => "missing_syscall",
    ExtraSyscall => "extra_syscall",
    Status => "status",
    Computrons => "computrons",
    SnapshotHash => "snapshot_hash",
    WorkerExit => "worker_exit",
} }

/// A known phenomenon that a finding belongs to. The finding is a divergence all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingClass {
    /// A read of what describes a virtual collection, which is made or not depending on when the engine collects garbage.
    GcSensitiveRead,
}

labels! { all FindingClass {
    GcSensitiveRead => "gc_sensitive_read",
} }

/// The names of the two syscalls that a finding is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyscallNames {
    /// The recorded syscall's name; `None` if the record has no such syscall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    /// The replayed syscall's name; `None` if the replay made no such syscall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<String>,
}

/// One difference between the record and the replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The kind of the difference.
    pub kind: FindingKind,
    /// Position of the item.
    pub position: Position,
    /// Number of the syscall within the delivery, from 0, for a finding about a syscall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscall: Option<usize>,
    /// Number under which the replay made the syscall, for one that was made at another place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<usize>,
    /// Names of the syscalls. Absent in evidence of version 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<SyscallNames>,
    /// Number of the first argument that differs, from 1, for two syscalls of one name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<usize>,
    /// The end of the worker's process, for [`FindingKind::WorkerExit`]. Absent in evidence of version 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<WorkerExit>,
    /// The known phenomenon that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FindingClass>,
    /// The record's side for people, an excerpt of a long text. `None` if the record has nothing.
    pub recorded: Option<String>,
    /// The replay's side for people, an excerpt of a long text. `None` if the replay did nothing.
    pub replayed: Option<String>,
}

impl Finding {
    /// Makes a finding of two texts, which are cut to excerpts around their first difference.
    #[must_use]
    pub fn new(kind: FindingKind, position: Position, recorded: Option<&str>, replayed: Option<&str>) -> Self {
        let (recorded, replayed) = excerpts(recorded, replayed);
        Self {
            kind,
            position,
            syscall: None,
            moved_to: None,
            names: None,
            argument: None,
            exit: None,
            class: None,
            recorded,
            replayed,
        }
    }

    /// Both sides as a person reads them. A moved syscall has the same text on both, so its two numbers stand before it.
    #[must_use]
    pub fn sides(&self) -> (Option<String>, Option<String>) {
        let (recorded, replayed) = (self.recorded.clone(), self.replayed.clone());
        match (self.syscall, self.moved_to) {
            (Some(from), Some(to)) => {
                let placed = |number: usize| move |text: String| format!("as syscall {number}: {text}");
                (recorded.map(placed(from)), replayed.map(placed(to)))
            }
            _ => (recorded, replayed),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.label())?;
        if let Some(syscall) = self.syscall {
            write!(f, " (syscall {syscall})")?;
        }
        if self.class == Some(FindingClass::GcSensitiveRead) {
            write!(f, " (a read that garbage collection causes)")?;
        }
        let (recorded, replayed) = self.sides();
        let side = |text: Option<String>| text.unwrap_or_else(|| "nothing".to_owned());
        write!(f, ": recorded {}, replayed {}", side(recorded), side(replayed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evidence that version 0.1.0 wrote has none of the fields that were added.
    #[test]
    fn a_finding_of_an_earlier_version_is_read_and_written_as_it_was() {
        let text = r#"{"kind":"syscall","position":8,"syscall":2,"recorded":"as syscall 2: [\"exit\"]","replayed":"as syscall 3: [\"exit\"]"}"#;
        let finding: Finding = serde_json::from_str(text).expect("a finding");
        assert_eq!((finding.moved_to, &finding.names, finding.argument, finding.exit), (None, &None, None, None));
        assert_eq!(serde_json::to_string(&finding).expect("JSON"), text);
        let words = r#"syscall (syscall 2): recorded as syscall 2: ["exit"], replayed as syscall 3: ["exit"]"#;
        assert_eq!(finding.to_string(), words);
        let now = Finding {
            syscall: Some(2),
            moved_to: Some(3),
            ..Finding::new(FindingKind::Syscall, 8, Some("[\"exit\"]"), Some("[\"exit\"]"))
        };
        assert_eq!(now.to_string(), words, "the sentence is the same, and made when it is printed");
    }

    #[test]
    fn a_label_is_the_word_in_json() {
        for kind in FindingKind::ALL {
            assert_eq!(serde_json::to_string(&kind).expect("JSON"), format!("\"{}\"", kind.label()));
        }
        for class in FindingClass::ALL {
            assert_eq!(serde_json::to_string(&class).expect("JSON"), format!("\"{}\"", class.label()));
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        let text = r#"{"kind":"weather","position":8,"recorded":null,"replayed":null}"#;
        let error = serde_json::from_str::<Finding>(text).expect_err("no such kind");
        assert!(error.to_string().contains("unknown variant `weather`"), "{error}");
    }
}
