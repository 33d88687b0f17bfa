//! The node's record of its spans, wherever a part of it lies: items, heap images, bundles.
//!
//! | module | holds |
//! |---|---|
//! | [`archives`] | the node's two archive directories |
//! | [`captures`] | our own copies of rows that the node deletes |
//! | [`image`] | heap images in memory, proved by their sha256 |
//! | [`bundle`] | code bundles, proved by their ID |
//!
//! Nothing is believed before its hash is checked.

pub mod archives;
pub mod bundle;
pub mod captures;
pub mod image;

pub use archives::{ArchiveError, Archives};
pub use captures::Captures;
pub use image::{IMAGE_BYTES_MAX, Image, ImageError};
