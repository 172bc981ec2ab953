//! Agents of a committed revision, and the appliance's half of their credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use clawgress_config::access::{Access, Agent, AuthType, Issuer, KeySource, Status};
use clawgress_identity::api_key::Fresh;
use clawgress_identity::snapshot::{KeyRecord, Snapshot, network};
use clawgress_identity::{CredentialKey, Directory, Identity, Presented, Refusal, text};
use clawgress_policy::Moment;

pub(crate) const NOW: i64 = 1_795_000_000;

pub(crate) struct World {
    pub(crate) access: Access,
    pub(crate) snapshot: Snapshot,
}

pub(crate) fn source() -> IpAddr {
    "192.0.2.7".parse().unwrap()
}

pub(crate) fn now() -> Moment {
    Moment::trusted(NOW)
}

pub(crate) fn credential_key() -> CredentialKey {
    CredentialKey::of(&[7; 32])
}

impl World {
    /// `key-1` and `key-2` have API keys, `token-1` and `token-2` tokens, `cert-1` and `cert-2` certificates; the odd
    /// ones are of team red, the others of team blue.
    pub(crate) fn new() -> Self {
        let mut access = Access::default();
        for (name, auth_type) in [
            ("key", AuthType::ApiKey),
            ("token", AuthType::Jwt),
            ("cert", AuthType::Certificate),
        ] {
            for (number, team) in [(1, "red"), (2, "blue")] {
                let agent = Agent {
                    team_id: team.to_owned(),
                    project_id: "search".to_owned(),
                    environment: "prod".to_owned(),
                    auth_type,
                    status: Status::Active,
                    sources: BTreeSet::new(),
                    bound: false,
                };
                access.agents.insert(format!("{name}-{number}"), agent);
            }
        }
        Self {
            access,
            snapshot: Snapshot::default(),
        }
    }

    pub(crate) fn agent(&mut self, id: &str) -> &mut Agent {
        self.access.agents.get_mut(id).unwrap()
    }

    pub(crate) fn bind(&mut self, id: &str, networks: &[&str]) {
        let agent = self.agent(id);
        agent.sources = networks.iter().map(|text| network(text).unwrap()).collect();
        agent.bound = true;
    }

    /// A key of this agent, which the test may still change.
    pub(crate) fn key(&mut self, agent: &str) -> (String, &mut KeyRecord) {
        let fresh = Fresh::make().unwrap();
        self.snapshot.keys.push(KeyRecord {
            prefix: fresh.prefix,
            agent: agent.to_owned(),
            hash: text::base64url(&credential_key().hash(&fresh.text)),
            sources: Vec::new(),
            expires: None,
            revoked: false,
            workload_fingerprint: None,
        });
        (fresh.text, self.snapshot.keys.last_mut().unwrap())
    }

    pub(crate) fn issuer(&mut self, name: &str, algorithms: &[&str], keys: &str) -> &mut Issuer {
        self.snapshot
            .key_sets
            .insert(name.to_owned(), keys.to_owned());
        let issuer = Issuer {
            issuer: format!("https://{name}.example"),
            audience: "clawgress".to_owned(),
            algorithms: algorithms.iter().map(|word| (*word).to_owned()).collect(),
            keys: KeySource::File(format!("{name}.json")),
            key_ca: None,
            leeway_seconds: 30,
            claims: BTreeMap::new(),
        };
        self.access.issuers.insert(name.to_owned(), issuer);
        self.access.issuers.get_mut(name).unwrap()
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::build(&self.snapshot, &self.access, credential_key())
    }
}

pub(crate) fn bearer(directory: &Directory, text: &str) -> Result<Arc<Identity>, Refusal> {
    directory.resolve(&Presented::Bearer(text), source(), now())
}

pub(crate) fn basic(
    directory: &Directory,
    user: &str,
    secret: &str,
) -> Result<Arc<Identity>, Refusal> {
    directory.resolve(&Presented::Basic { user, secret }, source(), now())
}

/// Like `unwrap_err`, and names what was let in.
#[track_caller]
pub(crate) fn refused(outcome: Result<Arc<Identity>, Refusal>, expected: Refusal) {
    match outcome {
        Err(refusal) => assert_eq!(refusal, expected),
        Ok(identity) => panic!("{} was let in; {expected} was expected", identity.agent_id),
    }
}
