//! The gateway as it is shipped, with the real services around it: what holds when any of them stops, dies or changes.
//! As root, or within `unshare -Urn`: each test has a network of its own.

mod good;
mod killed;
mod manager;
#[path = "../gateway/origin.rs"]
mod origin;
mod quota;
mod restart;
mod stack;
