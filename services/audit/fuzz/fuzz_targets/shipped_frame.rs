//! Any bytes as frames of a shipper and as the text of an event: no panic, and what is taken for an event is one line.

#![no_main]

use clawgress_audit::event::{Event, Origin, with_origin};
use clawgress_audit::ship;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let events = ship::survey(bytes);
    assert!(events <= bytes.len());
    let mut line = Vec::new();
    if with_origin(&Origin::default(), bytes, &mut line).is_some() {
        assert!(!line.contains(&b'\n'));
        // Whether it is one or not is told, not assumed.
        let _ = Event::parse(&line);
    }
});
