//! Pinned addresses: which an agent resolved, under which name, for how long; and their way into the kernel's sets.

pub mod journal;
pub mod pinner;
pub mod server;
pub mod table;

pub use pinner::{Judge, PinError, Pinner};
pub use table::Limits;
