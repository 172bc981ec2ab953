//! What the image builder and `/init` agree on: the image's identity, the kernel modules that go
//! into the initramfs, and the archive around them.
//!
//! Everything here is pure: it reads what it is handed and returns values. It must never touch
//! the machine it runs on, and, because PID 1 links it, must never panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod alias;
pub mod cpio;
pub mod identity;
pub mod image;
pub mod modules;
