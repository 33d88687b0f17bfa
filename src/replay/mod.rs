//! Replaying a span: a worker's process, its protocol, and the session that compares.
//!
//! Everything here blocks; each replay runs on a thread of its own with its worker beside it. A worker serves one span
//! and is never used again.

mod ahead;
mod align;
mod channel;
mod compare;
mod locate;
pub(crate) mod message;
mod netstring;
mod probe;
mod process;
mod session;
mod trace;
mod trust;
mod watch;
mod worker;
mod zone;

pub(crate) use ahead::OutOfStep;
pub(crate) use align::{Mark, side_by_side};
pub(crate) use compare::is_gc_sensitive;
pub use locate::{FoundBy, LocateError, Named, Protection, SandboxFault, WorkerProgram};
pub(crate) use message::aside_answer;
pub use netstring::{MESSAGE_BYTES_MAX, NetstringError, NetstringReader, write_netstring};
pub use probe::Probe;
pub use process::{End, run_alone};
pub use session::{Replay, ReplayStart, replay, replay_ahead};
pub use trace::{Answer, Aside, Trace, TracedDelivery, TracedSyscall};
pub use trust::Distrust;
pub use watch::{Limits, Stopped};
pub(crate) use zone::{is_below_zones, is_zone_name};
