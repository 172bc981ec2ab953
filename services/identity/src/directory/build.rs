//! From a snapshot and the committed revision to what is asked at each request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use clawgress_config::Cidr;
use clawgress_config::access::{Access, AuthType, KeySource};

use super::token::Issuer;
use super::{Agent, Directory, Key};
use crate::api_key::{self, CredentialKey};
use crate::cache::Cache;
use crate::certificate::Authorities;
use crate::identity::{CredentialId, Proof};
use crate::snapshot::{self, KeyRecord, Snapshot};
use crate::text;
use crate::token::KeySet;

const TOKENS_KEPT: usize = 65_536;
const CHAINS_KEPT: usize = 16_384;

impl Directory {
    pub fn build(snapshot: &Snapshot, access: &Access, credential_key: CredentialKey) -> Self {
        let agents: HashMap<Arc<str>, Arc<Agent>> = access
            .agents
            .iter()
            .map(|(id, agent)| {
                let agent = Arc::new(Agent::of(id, agent));
                (Arc::clone(&agent.id), agent)
            })
            .collect();
        let mut faults = Vec::new();
        let mut keys = HashMap::with_capacity(snapshot.keys.len());
        for record in &snapshot.keys {
            match key_of(record, &agents) {
                Some((prefix, key)) => {
                    // Two of one prefix: nobody can say which is meant.
                    if keys.insert(prefix, key).is_some() {
                        keys.remove(&prefix);
                        faults.push(format!("two API keys have the prefix {}", record.prefix));
                    }
                }
                None => faults.push(format!(
                    "the record of the API key {} can't be read",
                    record.prefix
                )),
            }
        }
        let mut issuers: HashMap<String, Vec<Issuer>> = HashMap::new();
        for (name, configured) in &access.issuers {
            let text = match &configured.keys {
                KeySource::Own => snapshot.own_keys.as_ref(),
                KeySource::File(_) | KeySource::Url(_) => snapshot.key_sets.get(name),
            };
            let keys = text
                .ok_or_else(|| "no keys of it are known yet".to_owned())
                .and_then(|text| KeySet::of_jwks(text))
                .unwrap_or_else(|why| {
                    faults.push(format!("the keys of the issuer {name}: {why}"));
                    KeySet::default()
                });
            issuers
                .entry(configured.issuer.clone())
                .or_default()
                .push(Issuer::of(name, configured, keys));
        }
        let authorities = snapshot.client_ca.as_ref().and_then(|text| {
            Authorities::of_pem(text, snapshot.client_crl.as_deref())
                .map_err(|why| faults.push(format!("client certificates: {why}")))
                .ok()
        });
        Self {
            decoy: credential_key.hash("a key that nobody has"),
            agents,
            keys,
            credential_key,
            issuers,
            // A configured list that is missing is no list without entries.
            authorities: authorities
                .filter(|_| access.client_crl.is_none() || snapshot.client_crl.is_some()),
            revoked_tokens: snapshot
                .revoked_tokens
                .iter()
                .map(|token| (token.issuer.clone(), token.id.clone()))
                .collect(),
            tokens_before: snapshot.tokens_before.clone().into_iter().collect(),
            revoked_certificates: snapshot.revoked_certificates.clone(),
            tokens: Cache::new(TOKENS_KEPT),
            chains: Cache::new(CHAINS_KEPT),
            missed: Mutex::default(),
            faults,
        }
    }
}

fn key_of(
    record: &KeyRecord,
    agents: &HashMap<Arc<str>, Arc<Agent>>,
) -> Option<(api_key::Prefix, Key)> {
    let prefix = api_key::prefix_from(&record.prefix)?;
    let hash = text::from_base64url(&record.hash)?.try_into().ok()?;
    let sources = record
        .sources
        .iter()
        .map(|text| snapshot::network(text))
        .collect::<Option<Vec<Cidr>>>()?;
    let holder = agents.get(record.agent.as_str()).map(|agent| {
        let identity = agent.identity(
            AuthType::ApiKey,
            CredentialId(record.prefix.as_str().into()),
            record.workload_fingerprint.as_deref().map(Arc::from),
            record.expires,
            Proof::Key(prefix),
        );
        (Arc::clone(agent), Arc::new(identity))
    });
    let key = Key {
        hash,
        holder,
        sources,
        expires: record.expires,
        revoked: record.revoked,
    };
    Some((prefix, key))
}
