//! Runs Wycheproof's JSON Web Signature vectors against the verification of tokens: `jws_vectors FILE`, where FILE is its
//! `json_web_signature_test.json`. The crate of vectors leaves that file out, so it is a program and no test.
//!
//! Fails if something invalid is accepted, or something valid of an algorithm that is ours is refused.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clawgress_identity::token::{Algorithm, KeySet, Signed};
use serde_json::{Value, json};

/// Vectors, and those of them that were accepted.
#[derive(Default)]
struct Count {
    valid: (usize, usize),
    invalid: (usize, usize),
}

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: jws_vectors json_web_signature_test.json");
        return ExitCode::from(2);
    };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("reading {path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let document: Value = serde_json::from_slice(&text).unwrap_or_default();
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut wrong = 0;
    for group in members(&document["testGroups"]) {
        let key = [&group["public"], &group["private"]]
            .into_iter()
            .find(|key| key.is_object());
        let Some(key) = key else { continue };
        let ours = key["alg"].as_str().and_then(Algorithm::of_word).is_some();
        // A set that can't be read admits nobody.
        let keys = KeySet::of_jwks(&json!({ "keys": [key] }).to_string()).unwrap_or_default();
        let name = key["alg"].as_str().unwrap_or("no alg").to_owned();
        let count = counts.entry(name).or_default();
        for test in members(&group["tests"]) {
            let jws = test["jws"].as_str().unwrap_or_default();
            let accepted = Signed::parse(jws)
                .and_then(|signed| signed.verify(&keys, &Algorithm::ALL).map(drop))
                .is_ok();
            let valid = test["result"] == "valid";
            let of = if valid {
                &mut count.valid
            } else {
                &mut count.invalid
            };
            of.0 += 1;
            of.1 += usize::from(accepted);
            if accepted && !valid || valid && ours && !accepted {
                wrong += 1;
                let verdict = if accepted { "accepted" } else { "refused" };
                println!(
                    "{}: {} ({}): {verdict}",
                    test["tcId"], test["comment"], test["result"]
                );
            }
        }
    }
    println!("algorithm  valid accepted  invalid accepted");
    let mut all = 0;
    for (name, count) in &counts {
        let ((valid, good), (invalid, bad)) = (count.valid, count.invalid);
        all += valid + invalid;
        println!("{name:<9} {valid:>6} {good:>8} {invalid:>8} {bad:>8}");
    }
    if all == 0 {
        println!("{path} holds no vector");
        return ExitCode::FAILURE;
    }
    println!("{all} vectors, {wrong} judged wrongly");
    ExitCode::from(u8::from(wrong > 0))
}

fn members(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}
