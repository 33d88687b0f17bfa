//! What can be said of a divergence to a person, from its evidence alone.
//!
//! [`account`] gathers it; [`readable`] puts deliveries and syscalls in a person's words, [`difference`] finds where two long
//! values part; [`causes`] is the table of what is known to bring such things about; [`explain`] prints it, [`bisect`] finds
//! the delivery after which two heaps differ; [`heaps`] says what two heaps are to each other. Nothing here changes a
//! verdict, and nothing but [`bisect`] runs a worker.

pub mod account;
pub mod bisect;
pub mod causes;
pub mod difference;
pub mod explain;
pub mod heaps;
pub mod readable;

pub use account::Account;
