//! Any bytes as a segment, as recovery and as verify read it: no panic, no more events than lines, and what is not a
//! signed store of ours is never called good.

#![no_main]

use clawgress_audit::{store, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // With a chain that is right, reading gets to the events.
    for text in [bytes.to_vec(), store::chained(bytes)] {
        let lines = text.split(|byte| *byte == b'\n').count();
        let (fault, counted, readable, _) = store::survey(&text);
        assert!(counted <= readable && readable <= lines);
        assert!(fault.is_none_or(|at| at <= text.len()));
        let report = verify::survey(&text);
        assert_eq!(report.checkpoints, 0, "nobody signed this");
        assert!(fault.is_none() || !report.faults.is_empty(), "a fault that verify passes over");
    }
});
