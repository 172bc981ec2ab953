//! Netlink to netfilter: messages byte by byte, and a socket with bounded waits.
//!
//! Knows how to speak, not what to say: which sets, flows or rules are meant is its callers' matter.

pub mod netlink;
pub mod sets;
pub mod socket;

pub use socket::{KernelError, Socket};
