//! A JWK set as an operator or an issuer may have written it.

#![no_main]

use clawgress_identity::token::KeySet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = KeySet::of_jwks(text);
});
