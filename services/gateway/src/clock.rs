//! Whether a time server holds the kernel's clock. The one question that only a bare system call answers.

#![allow(unsafe_code)]

use nix::libc;

/// Any doubt is a no.
pub fn is_disciplined() -> bool {
    // SAFETY: `timex` is plain numbers, for which all zeros is a value; with `modes` zero the call only reads, and it
    // writes nothing but this structure, which lives until it returns.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut timex);
        (state, timex.status)
    };
    (0..libc::TIME_ERROR).contains(&state) && status & libc::STA_UNSYNC == 0
}
