//! The only place where a test sleeps: between two looks at a condition, until a deadline.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// The longest pause between two looks; the first ones are shorter.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Asks again and again; `None` once that takes longer than `patience`.
pub fn try_for<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The same, where no answer fails the test with an explanation.
pub fn wait_for<T>(patience: Duration, ask: impl FnMut() -> Option<T>, explain: impl FnOnce() -> String) -> T {
    try_for(patience, ask).unwrap_or_else(|| panic!("after {patience:?}: {}", explain()))
}

/// Waits until a condition holds.
pub fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool, explain: impl FnOnce() -> String) {
    wait_for(patience, || holds().then_some(()), explain);
}

/// The end of a process; `None` if it still runs after `patience`.
pub fn try_end(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    try_for(patience, || child.try_wait().expect("wait"))
}

#[test]
fn a_wait_ends_with_an_answer_or_at_its_deadline() {
    let mut asked = 0;
    let third = || {
        asked += 1;
        (asked == 3).then_some(asked)
    };
    assert_eq!(try_for(Duration::from_secs(60), third), Some(3));
    let began = Instant::now();
    assert_eq!(try_for(Duration::from_millis(30), || None::<u8>), None);
    assert!(began.elapsed() >= Duration::from_millis(30));
}
