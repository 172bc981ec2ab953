//! The value of a header, from its bytes to a refusal: nothing that was not issued is ever let in.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use clawgress_config::access::{Access, Agent, AuthType, Issuer, KeySource, Status};
use clawgress_identity::snapshot::Snapshot;
use clawgress_identity::token::Token;
use clawgress_identity::{CredentialKey, Directory, presented_of_header};
use clawgress_policy::Moment;
use libfuzzer_sys::fuzz_target;

fn directory() -> &'static Directory {
    static DIRECTORY: OnceLock<Directory> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let mut access = Access::default();
        let agent = Agent {
            team_id: "t".to_owned(),
            project_id: "p".to_owned(),
            environment: "e".to_owned(),
            auth_type: AuthType::Jwt,
            status: Status::Active,
            sources: BTreeSet::new(),
            bound: false,
        };
        access.agents.insert("a".to_owned(), agent);
        let issuer = Issuer {
            issuer: "i".to_owned(),
            audience: "c".to_owned(),
            algorithms: ["EdDSA", "ES256", "RS256"].map(str::to_owned).into(),
            keys: KeySource::File("f".to_owned()),
            key_ca: None,
            leeway_seconds: 30,
            claims: BTreeMap::new(),
        };
        access.issuers.insert("i".to_owned(), issuer);
        let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let mut snapshot = Snapshot::default();
        snapshot.key_sets.insert("i".to_owned(), keys.to_owned());
        Directory::build(&snapshot, &access, CredentialKey::of(&[7; 32]))
    })
}

fuzz_target!(|value: &[u8]| {
    if let Ok(text) = std::str::from_utf8(value) {
        // The parser alone goes deeper than base64 lets most inputs go through a header.
        let _ = Token::parse(text);
    }
    let Ok(shown) = presented_of_header(value) else {
        return;
    };
    let source = [192, 0, 2, 1].into();
    assert!(
        directory()
            .resolve(&shown.presented(), source, Moment::trusted(1_795_000_000))
            .is_err()
    );
});
