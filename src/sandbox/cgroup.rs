//! Layer 8, where the system allows: a control group for each worker, which limits its memory (cgroups(7), version 2).
//!
//! Owns the groups below one that was delegated to us, as systemd does with `Delegate=memory pids`. It must never touch a
//! group with processes that are not ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Pid;

/// The mount points of version 2: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Our own processes, as a group that hands controllers on may not have any itself.
const OURS: &str = "spanwatch";
/// The file that says what happened to a group's memory.
const EVENTS: &str = "memory.events";

/// A group in which groups with a limit on memory can be made.
#[derive(Debug, Clone)]
pub struct Group {
    path: PathBuf,
    next: Arc<AtomicU64>,
}

impl Group {
    /// The group that we are in, if it was delegated to us with control over memory. Moves this process into a group of its
    /// own below it.
    #[must_use]
    pub fn delegated() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        // The root of all groups is the machine's, whatever user we are.
        if own.is_empty() {
            return None;
        }
        let path =
            MOUNTS.iter().map(|mount| Path::new(mount).join(own)).find(|path| path.join("cgroup.procs").exists())?;
        Self::below(&path).ok()
    }

    fn below(path: &Path) -> io::Result<Self> {
        let has = |file: &str| -> io::Result<bool> {
            Ok(fs::read_to_string(path.join(file))?.split_whitespace().any(|controller| controller == "memory"))
        };
        // A start under a supervisor that has moved us already.
        if path.file_name().is_some_and(|name| name == OURS)
            && let Some(parent) = path.parent()
            && parent.join("cgroup.subtree_control").exists()
        {
            return Self::below(parent);
        }
        if !has("cgroup.controllers")? {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !has("cgroup.subtree_control")? {
            let ours = path.join(OURS);
            match fs::create_dir(&ours) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let own = std::process::id().to_string();
            let others = fs::read_to_string(path.join("cgroup.procs"))?;
            if others.lines().any(|process| process != own) {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            fs::write(ours.join("cgroup.procs"), own)?;
            fs::write(path.join("cgroup.subtree_control"), "+memory +pids")
                .or_else(|_| fs::write(path.join("cgroup.subtree_control"), "+memory"))?;
        }
        let group = Self { path: path.to_owned(), next: Arc::default() };
        group.sweep();
        // Whether it works shows best by doing it.
        drop(group.make(1 << 30)?);
        Ok(group)
    }

    /// Takes a process in, with so many bytes of memory.
    pub(super) fn take(&self, pid: Pid, memory: u64) -> io::Result<Member> {
        let member = self.make(memory)?;
        fs::write(member.path.join("cgroup.procs"), pid.as_raw_nonzero().to_string())?;
        Ok(member)
    }

    fn make(&self, memory: u64) -> io::Result<Member> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("worker-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let member = Member { path };
        fs::write(member.path.join("memory.max"), memory.to_string())?;
        // Swapped out it would be slow instead of dead. Neither of these is there in every kernel.
        let _ = fs::write(member.path.join("memory.swap.max"), "0");
        let _ = fs::write(member.path.join("pids.max"), "1");
        Ok(member)
    }

    /// Removes what an instance of us that was killed has left.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("worker-") {
                // One that still has processes stays.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The group of one worker. Ends with this value.
#[derive(Debug)]
pub(crate) struct Member {
    path: PathBuf,
}

impl Member {
    /// Whether the system has killed a process of the group because memory ran out.
    pub(crate) fn has_run_out(&self) -> bool {
        let events = fs::read_to_string(self.path.join(EVENTS)).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // The kernel may take a moment to notice that the group is empty.
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }
}
