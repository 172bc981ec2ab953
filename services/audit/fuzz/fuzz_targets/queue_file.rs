//! Any bytes as a file of the queue: read without a panic, and never more text than there were bytes.

#![no_main]

use clawgress_audit::queue::record::survey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (records, length) = survey(bytes);
    assert!(records <= bytes.len() && length <= bytes.len());
    // With a head that is right, reading gets to the records.
    let sealed = clawgress_audit::queue::record::with_head(bytes);
    let (records, length) = survey(&sealed);
    assert!(records <= sealed.len() && length <= sealed.len());
});
