//! The framework of the VM tests: machines, their consoles, and a network lab around them.
//!
//! A test describes a [`machine::Machine`], powers it on inside a [`case::case`], talks with the [`vm::Vm`], and may
//! put it into a [`lab::Lab`]. Whatever a test starts ends with it; no image file is ever written to.
//!
//! `CLAWGRESS_TEST_JOURNAL=1` has quickly booted machines write their journal to the console, to see why one hangs.

pub mod accel;
pub mod agent;
pub mod capture;
pub mod case;
pub mod configuration;
pub mod dist;
pub mod error;
pub mod figures;
pub mod frame;
pub mod lab;
pub mod listing;
pub mod machine;
pub mod media;
pub mod names;
pub mod packet_socket;
pub mod pcap;
pub mod process;
pub mod qmp;
pub mod report;
pub mod serial;
pub mod shell;
pub mod stack;
pub mod tools;
mod transcript;
mod users;
pub mod vm;

pub use case::{Case, case};
pub use dist::Dist;
pub use error::{Error, Result};
