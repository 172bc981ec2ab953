//! The agents' resolver, in front of named: it decides for each source whether a name may be asked at all, relays what
//! may, has the answer's addresses pinned, and only then answers.
//!
//! It holds no privilege and never touches the kernel's tables: pins are asked of the enforcer. A denied name is never
//! asked of anybody. Whatever is in doubt (no policy, no enforcer, a pin that failed) yields no address.

pub use clawgress_policy::address;
pub mod answer;
pub mod budget;
pub mod cache;
pub mod complaints;
pub mod config;
pub mod counts;
pub mod enforcer;
pub mod engine;
pub mod events;
pub mod facts;
pub mod flights;
pub mod listen;
pub mod pins;
pub mod question;
pub mod random;
pub mod registered;
pub mod rules;
pub mod trail;
pub mod upstream;
