//! The parts of a package that are made from the program's arguments. `scripts/dist.sh --check` tries a whole archive.

use std::process::Command;

use crate::run::{run, spanwatch};
use crate::skip::{Needs, skip};

#[test]
fn bash_reads_the_completions_and_offers_the_commands() {
    if !Command::new("bash").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip(Needs::Bash);
    }
    let script = spanwatch(&["completions", "bash"]);
    assert_eq!((script.code, script.err.as_str()), (0, ""));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("spanwatch.bash");
    std::fs::write(&file, &script.out).expect("write");
    let ask = "source \"$0\"; COMP_WORDS=(spanwatch v) COMP_CWORD=1; _spanwatch spanwatch v spanwatch; echo \"${COMPREPLY[*]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ask]).arg(&file);
    let offered = run(bash);
    assert_eq!((offered.out.trim(), offered.err.as_str()), ("verify verdicts", ""));
}
