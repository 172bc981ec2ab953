//! Any bytes as a request's head: refused, or read so that reading it again from its parts gives the same.

#![no_main]

use clawgress_gateway::wire::fields::{check_host, of_request};
use clawgress_gateway::wire::head::{RequestHead, end_of_head};
use clawgress_gateway::wire::target::{Absolute, Authority};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(end)) = end_of_head(bytes, 0) else {
        return;
    };
    let Ok(head) = RequestHead::parse(&bytes[..end]) else {
        return;
    };
    let mut again = format!("{} {} HTTP/1.{}\r\n", head.method, head.target, head.version as u8).into_bytes();
    for header in &head.headers {
        again.extend_from_slice(header.name.as_bytes());
        again.extend_from_slice(b": ");
        again.extend_from_slice(header.value);
        again.extend_from_slice(b"\r\n");
    }
    again.extend_from_slice(b"\r\n");
    assert_eq!(RequestHead::parse(&again).as_ref(), Ok(&head));
    let Ok(fields) = of_request(&head) else {
        return;
    };
    for target in [Authority::parse(head.target).ok(), Absolute::parse(head.target).ok().map(|absolute| absolute.authority)]
        .into_iter()
        .flatten()
    {
        assert_eq!(Authority::parse(&format!("{}:{}", target.host, target.port)).as_ref(), Ok(&target));
        let _ = check_host(fields.host, &target, Some(80));
    }
});
