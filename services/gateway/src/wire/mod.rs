//! What is on the wire, as pure readers of bytes: heads, targets, framing, hellos. No I/O, no clock, no policy.
//!
//! Every byte here is hostile: bounded memory and time, no panic, and what is doubtful is refused.

pub mod chunked;
pub mod fields;
pub mod head;
pub mod hello;
pub mod inspect;
pub mod proxy_v2;
pub mod target;
