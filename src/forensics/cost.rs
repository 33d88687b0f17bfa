//! The cost of a delivery: the computrons that it used, as recorded and as replayed.
//!
//! Owns the type alone, so that rules, pages and the plot share it without knowing one another. It must never judge a cost.

use serde::Serialize;

use crate::transcript::Position;

/// The cost of a delivery in computrons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// The delivery's position.
    pub position: Position,
    /// The delivery's kind.
    pub kind: String,
    /// The delivery in a person's words.
    pub readable: String,
    /// The cost as recorded.
    pub recorded: Option<u64>,
    /// The cost as replayed; `None` if the replay did not reach the delivery.
    pub replayed: Option<u64>,
}
