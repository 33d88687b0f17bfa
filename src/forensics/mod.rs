//! What can be said of a divergence to a person, from its evidence alone.
//!
//! `account` gathers it; `readable` puts deliveries and syscalls in a person's words, `difference` finds where two long
//! values part; `causes` is the table of what is known to bring such things about; `explain` prints it, `html` makes a page
//! of it, `export` gives the evidence to tools of others; `bisect` finds the delivery after which two heaps differ;
//! [`source`] reads the heap images that are compared. Nothing here changes a verdict, and nothing but `bisect` runs a worker.

pub(crate) mod account;
pub(crate) mod bisect;
pub(crate) mod causes;
pub(crate) mod cost;
pub(crate) mod difference;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod html;
mod plot;
pub(crate) mod readable;
mod segments;
pub mod source;

pub use account::Account;
