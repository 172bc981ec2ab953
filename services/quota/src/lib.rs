//! How much each agent, team and project may have, and how much it has had.
//!
//! No clock is read here: who reserves passes the time in. Nothing is ever given back by a clock that steps backwards.

pub mod client;
mod counter;
pub mod lease;
mod ledger;
mod saved;
mod share;
mod window;
pub mod wire;

pub use ledger::{Ledger, MAX_DELAY, Outcome, Reservation, Spent, Subject, UNAVAILABLE};
pub use saved::{SavedError, Snapshot, read_used, write_used};
pub use share::Share;
