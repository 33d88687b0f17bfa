//! The worker that the configuration names, and its limits.

use super::config::{self, Origin};
use crate::replay::{Limits, Named};

/// The worker that is named, by the layer of the configuration that names it.
pub(super) fn named(worker: &config::Worker) -> Named {
    let path = worker.path.clone();
    match worker.path_origin {
        Origin::Flag => Named { by_option: path.into_iter().collect(), ..Named::default() },
        Origin::Environment(_) => Named { by_variable: path, ..Named::default() },
        Origin::File(_) | Origin::Default => Named { by_file: path, ..Named::default() },
    }
}

/// The limits of each worker.
pub(super) fn limits(worker: &config::Worker) -> Limits {
    Limits {
        stall_max: worker.stall_max,
        delivery_cpu_max: worker.delivery_cpu_max,
        span_cpu_max: worker.span_cpu_max,
        delivery_max: worker.delivery_wall_max,
        span_max: worker.span_wall_max,
        resident_max: worker.memory_max,
        stack: worker.stack,
        ..Limits::default()
    }
}
