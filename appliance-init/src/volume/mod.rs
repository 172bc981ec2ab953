//! The volume labelled CLAWGRESS-CFG: finds it by its own label, reads one file from it, lets it go.
//!
//! Nothing is ever written to it, and nothing on it is trusted: no devices, no set-uid, no programs, bounded reads.

mod label;
mod read;

pub(crate) use read::{Found, find, read_config};
