//! Bringing a plan into force: files, dry checks, the daemons, the kernel, and the proof that each of them has it.

pub mod exchange;
pub mod files;
pub mod haproxy;
pub mod host;
pub mod marker;
pub mod nft;
pub mod reload;
pub mod run;
pub mod stages;
