//! The kernel's side of enforcement, over netlink: elements of sets, quotas and counters, flows, logged packets.
//!
//! Makes no table, chain or rule; a plan does that, whole, through nft.

pub mod conntrack;
pub mod diag;
pub mod names;
pub mod nflog;
pub mod objects;
pub mod sets;

pub use clawgress_link::netfilter::{KernelError, Socket, netlink, socket};
