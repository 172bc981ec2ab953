//! From a revision to what enforces it. `plan` and `front` are pure; the modules beside them bring a plan into the
//! kernel and the daemons, and are the only ones that do.

pub mod apply;
pub mod daemon;
pub mod front;
pub mod kernel;
pub mod pins;
pub mod plan;
pub mod telemetry;
