//! The policy engine: what a revision means, as a pure index that every path asks. The daemon beside it is the API.
//!
//! No I/O, no clock: both are arguments.

pub mod reason;
pub mod revision;

pub use reason::Reason;
pub use revision::{Card, LanCard, Logging, Network, Revision};
