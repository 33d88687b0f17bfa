//! Files on this machine: how spanwatch opens, bounds, protects and publishes them.
//!
//! | module | owns |
//! |---|---|
//! | [`regular`] | opening a file that somebody else wrote: regular files only, without blocking |
//! | [`bounded`] | reading into memory no more than a limit allows |
//! | [`own`] | owner and mode of everything that spanwatch keeps |
//! | [`publish`] | a file or folder that gets its name once it is complete |
//! | [`temp`] | temporary directories, removed also after a signal |
//! | [`seal`] | memory files that can no longer change |
//!
//! Nothing here knows what a file holds, and nothing here may write into the node's directory.

pub(crate) mod bounded;
pub(crate) mod own;
pub(crate) mod publish;
pub(crate) mod regular;
pub(crate) mod seal;
pub(crate) mod temp;
