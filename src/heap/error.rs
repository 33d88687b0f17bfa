//! Why an image can't be read.
//!
//! Owns the words around a fault. It must never name a fault that was not found in the image itself.

/// Why an image can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// The bytes are something else.
    #[error("it is no XS heap snapshot: {0}")]
    NotASnapshot(String),
    /// Another engine wrote the image.
    #[error("it was written by {found}; understood is {understood}, so its numbers would be misread")]
    Version {
        /// The writer, as the image names it.
        found: String,
        /// The writer whose images can be read.
        understood: &'static str,
    },
    /// The image says something that no engine writes.
    #[error("it is damaged, or no xsnap wrote it: {0}")]
    Damaged(String),
}

impl HeapError {
    pub(super) fn damaged(fault: impl Into<String>) -> Self {
        Self::Damaged(fault.into())
    }
}
