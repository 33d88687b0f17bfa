//! Files on this machine: how spanwatch opens, bounds, protects and publishes them.
//!
//! | module | owns |
//! |---|---|
//! | [`regular`] | opening a file that others may have put there: regular files only, without blocking |
//! | [`bounded`] | memory for outside data: buffers, and the window of zstd |
//! | [`own`] | owner and mode of everything that spanwatch keeps |
//! | [`publish`] | a file or folder that gets its name once it is complete |
//! | [`temp`] | temporary directories, removed also after a signal |
//! | [`seal`] | memory files that can no longer change |
//! | [`process`] | facts about this process from `/proc/self` |
//!
//! Nothing here knows the meaning of a file, and nothing here may ever write into the node's directory.

pub(crate) mod bounded;
pub(crate) mod own;
pub(crate) mod process;
pub(crate) mod publish;
pub(crate) mod regular;
pub(crate) mod seal;
pub(crate) mod temp;
