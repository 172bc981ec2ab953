//! Wycheproof: known attacks on the three kinds of signature, each in the very form in which tokens carry it.

use clawgress_identity::token::{Algorithm, PublicKey};
use wycheproof::TestResult;

/// (vectors, of which accepted). What is valid must be accepted, what is invalid refused; "acceptable" is left open.
#[derive(Default)]
struct Count {
    run: usize,
    accepted: usize,
}

impl Count {
    fn judge(&mut self, accepted: bool, result: TestResult, of: &str, comment: &str) {
        self.run += 1;
        self.accepted += usize::from(accepted);
        match result {
            TestResult::Valid => assert!(accepted, "{of} is valid: {comment}"),
            TestResult::Invalid => assert!(!accepted, "{of} is invalid: {comment}"),
            TestResult::Acceptable => {}
        }
    }
}

#[test]
fn eddsa() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut count = Count::default();
    for group in &set.test_groups {
        let key = PublicKey::of_bytes(Algorithm::EdDsa, None, &group.key.pk).unwrap();
        for test in &group.tests {
            let accepted = key.verify(&test.msg, &test.sig);
            count.judge(
                accepted,
                test.result,
                &format!("Ed25519 {}", test.tc_id),
                &test.comment,
            );
        }
    }
    assert!(
        count.run >= 140 && count.accepted >= 40,
        "{} {}",
        count.run,
        count.accepted
    );
}

#[test]
fn es256() {
    let name = wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363;
    let set = wycheproof::ecdsa::TestSet::load(name).unwrap();
    let mut count = Count::default();
    for group in &set.test_groups {
        let key = PublicKey::of_bytes(Algorithm::Es256, None, &group.key.key).unwrap();
        for test in &group.tests {
            let accepted = key.verify(&test.msg, &test.sig);
            count.judge(
                accepted,
                test.result,
                &format!("ES256 {}", test.tc_id),
                &test.comment,
            );
        }
    }
    assert!(
        count.run >= 200 && count.accepted >= 100,
        "{} {}",
        count.run,
        count.accepted
    );
}

#[test]
fn rs256() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let (mut count, mut refused) = (Count::default(), 0);
    for name in [
        TestName::Rsa2048Sha256,
        TestName::Rsa3072Sha256,
        TestName::Rsa4096Sha256,
    ] {
        for group in &TestSet::load(name).unwrap().test_groups {
            let bytes: &[u8] = &group.key.n;
            let modulus = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
            let key = PublicKey::of_rsa(None, modulus, &group.key.e);
            // Sound by the book, and never made by anybody today: exponent 3 is refused with the key.
            let Ok(key) = key else {
                assert_eq!(&group.key.e[..], [3]);
                refused += group.tests.len();
                continue;
            };
            for test in &group.tests {
                let accepted = key.verify(&test.msg, &test.sig);
                count.judge(
                    accepted,
                    test.result,
                    &format!("RS256 {}", test.tc_id),
                    &test.comment,
                );
            }
        }
    }
    assert_eq!(refused, 3);
    assert!(count.run >= 600, "{} {}", count.run, count.accepted);
}
