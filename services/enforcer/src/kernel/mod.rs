//! The kernel's side of enforcement, over netlink: elements of sets, quotas and counters, flows, logged packets.
//!
//! Makes no table, chain or rule; a plan does that, whole, through nft.

pub mod conntrack;
pub mod diag;
pub mod names;
pub mod netlink;
pub mod nflog;
pub mod objects;
pub mod sets;
pub mod socket;

pub use socket::{KernelError, Socket};
