//! Any bytes as a tunnel's beginning, in any pieces: the verdict depends on the bytes alone.

#![no_main]

use clawgress_gateway::wire::inspect::Inspection;
use clawgress_gateway::wire::target::Host;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, step) = input;
    let host = Host::parse("example.com").expect("a host");
    let whole = Inspection::default().of_client(&bytes, &host);
    let mut inspection = Inspection::default();
    let mut last = Ok(true);
    for piece in bytes.chunks(usize::from(step).max(1)) {
        last = inspection.of_client(piece, &host);
        if last.is_err() {
            break;
        }
    }
    if !bytes.is_empty() {
        assert_eq!(last, whole);
    }
});
