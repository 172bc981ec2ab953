//! API keys, and what holds for every credential of an agent.

use clawgress_config::access::{AuthType, Status};
use clawgress_identity::{CredentialKey, Directory, Presented, Refusal, presented_of_header};
use clawgress_policy::Moment;

use crate::world::{NOW, World, basic, bearer, now, refused, source};

#[test]
fn a_key_says_who_asks_as_bearer_and_as_a_proxys_url_carries_it() {
    let mut world = World::new();
    let (key, record) = world.key("key-1");
    record.workload_fingerprint = Some("sha256:abc".to_owned());
    record.expires = Some(NOW + 1);
    let prefix = record.prefix.clone();
    let directory = world.directory();
    assert!(directory.faults().is_empty(), "{:?}", directory.faults());
    let by_header = presented_of_header(format!("Bearer {key}").as_bytes()).unwrap();
    for identity in [
        bearer(&directory, &key).unwrap(),
        basic(&directory, "key-1", &key).unwrap(),
        directory
            .resolve(&by_header.presented(), source(), now())
            .unwrap(),
    ] {
        assert_eq!(&*identity.agent_id, "key-1");
        assert_eq!(&*identity.team_id, "red");
        assert_eq!(&*identity.project_id, "search");
        assert_eq!(&*identity.environment, "prod");
        assert_eq!(identity.auth_type, AuthType::ApiKey);
        assert_eq!(identity.credential.to_string(), prefix);
        assert_eq!(identity.workload_fingerprint.as_deref(), Some("sha256:abc"));
        assert_eq!(identity.expires, Some(NOW + 1));
    }
}

#[test]
fn several_keys_of_an_agent_stand_beside_each_other() {
    let mut world = World::new();
    let (old, _) = world.key("key-1");
    let (new, _) = world.key("key-1");
    let directory = world.directory();
    assert_eq!(
        bearer(&directory, &old).unwrap().agent_id,
        bearer(&directory, &new).unwrap().agent_id
    );
}

#[test]
fn every_other_text_is_refused() {
    let mut world = World::new();
    let (key, _) = world.key("key-1");
    let (other, _) = world.key("key-2");
    let directory = world.directory();
    // The prefix of one with the secret of another.
    let mixed = format!("{}{}", key.get(..12).unwrap(), other.get(12..).unwrap());
    let mut flipped = key.clone().into_bytes();
    flipped[20] ^= 1;
    let flipped = String::from_utf8(flipped).unwrap();
    for wrong in [
        mixed.as_str(),
        &flipped,
        &key[..key.len() - 1],
        &format!("{key}A"),
        &key[..12],
        "cg_",
        "cg_aaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        refused(bearer(&directory, wrong), Refusal::UnknownCredential);
    }
    refused(bearer(&directory, "whatever"), Refusal::Malformed);
    refused(
        directory.resolve(&Presented::Nothing, source(), now()),
        Refusal::NoCredential,
    );
    // A right key under another agent's name.
    refused(basic(&directory, "key-2", &key), Refusal::WrongAgent);
    refused(basic(&directory, "KEY-1", &key), Refusal::WrongAgent);
}

#[test]
fn another_boxs_half_of_the_hash_opens_nothing() {
    let mut world = World::new();
    let (key, _) = world.key("key-1");
    let stolen = Directory::build(&world.snapshot, &world.access, CredentialKey::of(&[8; 32]));
    refused(bearer(&stolen, &key), Refusal::UnknownCredential);
}

#[test]
fn an_end_a_revocation_and_a_disabled_agent_are_told_after_the_secret_alone() {
    let mut world = World::new();
    let (ended, record) = world.key("key-1");
    record.expires = Some(NOW);
    let (revoked, record) = world.key("key-1");
    record.revoked = true;
    let (disabled, _) = world.key("key-2");
    world.agent("key-2").status = Status::Disabled;
    let (stray, _) = world.key("gone");
    let (wrong_type, _) = world.key("token-1");
    let directory = world.directory();
    for (key, expected) in [
        (&ended, Refusal::Expired),
        (&revoked, Refusal::Revoked),
        (&disabled, Refusal::Disabled),
        (&stray, Refusal::UnknownAgent),
        (&wrong_type, Refusal::WrongAuthType),
    ] {
        refused(bearer(&directory, key), expected);
        let guess = format!("{}{}", key.get(..12).unwrap(), "A".repeat(43));
        refused(bearer(&directory, &guess), Refusal::UnknownCredential);
    }
}

#[test]
fn without_a_clock_a_key_without_an_end_is_good_and_no_other() {
    let mut world = World::new();
    let (endless, _) = world.key("key-1");
    let (ending, record) = world.key("key-1");
    record.expires = Some(NOW + 1000);
    let directory = world.directory();
    let at =
        |key: &str| directory.resolve(&Presented::Bearer(key), source(), Moment::untrusted(NOW));
    assert!(at(&endless).is_ok());
    refused(at(&ending), Refusal::ClockUntrusted);
}

#[test]
fn a_key_and_an_agent_may_each_be_bound_to_networks() {
    let mut world = World::new();
    let (key, record) = world.key("key-1");
    record.sources = vec!["192.0.2.0/29".to_owned(), "2001:db8::/32".to_owned()];
    world.bind("key-1", &["192.0.2.0/24"]);
    let directory = world.directory();
    for (address, expected) in [
        ("192.0.2.7", Ok(())),
        ("::ffff:192.0.2.7", Ok(())),
        ("192.0.2.8", Err(Refusal::WrongSource)),
        ("2001:db8::1", Err(Refusal::WrongSource)),
        ("198.51.100.1", Err(Refusal::WrongSource)),
    ] {
        let outcome = directory.resolve(&Presented::Bearer(&key), address.parse().unwrap(), now());
        assert_eq!(outcome.map(drop), expected, "{address}");
    }
}

#[test]
fn a_record_that_cannot_be_read_opens_nothing_and_is_told() {
    for spoil in [0, 1, 2] {
        let mut world = World::new();
        let (good, _) = world.key("key-2");
        let (key, record) = world.key("key-1");
        match spoil {
            0 => record.hash.push('A'),
            1 => record.sources.push("10.0.0.1/8".to_owned()),
            _ => {
                let twin = record.clone();
                world.snapshot.keys.push(twin);
            }
        }
        let directory = world.directory();
        refused(bearer(&directory, &key), Refusal::UnknownCredential);
        assert_eq!(directory.faults().len(), 1, "{:?}", directory.faults());
        assert!(bearer(&directory, &good).is_ok());
    }
}

#[test]
fn a_live_connection_is_judged_again_by_the_next_directory() {
    let mut world = World::new();
    let (key, _) = world.key("key-1");
    let identity = bearer(&world.directory(), &key).unwrap();
    let again = |world: &World| world.directory().renew(&identity, source(), now());
    assert_eq!(again(&world).unwrap(), identity);

    world.agent("key-1").team_id = "green".to_owned();
    assert_eq!(&*again(&world).unwrap().team_id, "green");
    world.bind("key-1", &["198.51.100.0/24"]);
    refused(again(&world), Refusal::WrongSource);
    world.agent("key-1").bound = false;
    world.agent("key-1").status = Status::Disabled;
    refused(again(&world), Refusal::Disabled);
    world.agent("key-1").status = Status::Active;
    world.snapshot.keys[0].revoked = true;
    refused(again(&world), Refusal::Revoked);
    world.snapshot.keys[0].revoked = false;
    world.snapshot.keys[0].agent = "key-2".to_owned();
    refused(again(&world), Refusal::Revoked);
    world.snapshot.keys.clear();
    refused(again(&world), Refusal::Revoked);
    world.access.agents.remove("key-1");
    refused(again(&world), Refusal::UnknownAgent);
}

#[test]
fn each_refusal_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<&str> =
        Refusal::ALL.iter().map(|refusal| refusal.word()).collect();
    assert_eq!(words.len(), Refusal::ALL.len());
}
