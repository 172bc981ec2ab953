//! Everything that a gateway needs to say who asks: agents of the committed revision, and the credentials of a snapshot.
//!
//! Built whole and replaced whole; no clock, no I/O. What could not be read denies those whom it concerns, no others.

mod build;
mod token;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use clawgress_config::Cidr;
use clawgress_config::access::{AuthType, Status};
use clawgress_policy::Moment;
use rustls::pki_types::CertificateDer;

use crate::api_key::{self, CredentialKey, Hash, Prefix};
use crate::cache::Cache;
use crate::certificate::Authorities;
use crate::identity::{CredentialId, Identity, Proof};
use crate::presented::Presented;
use crate::refusal::Refusal;
use token::{Issuer, Known};

/// A chain is verified again after so many seconds: a revocation list has an end, too.
const CHAIN_HOLDS: i64 = 60;

pub struct Directory {
    agents: HashMap<Arc<str>, Arc<Agent>>,
    keys: HashMap<Prefix, Key>,
    credential_key: CredentialKey,
    /// Compared with where no key has the prefix, so that a wrong prefix takes as long as a wrong secret.
    decoy: Hash,
    /// By the `iss` claim.
    issuers: HashMap<String, Vec<Issuer>>,
    authorities: Option<Authorities>,
    revoked_tokens: BTreeSet<(String, String)>,
    tokens_before: HashMap<String, i64>,
    revoked_certificates: BTreeSet<String>,
    tokens: Cache<Arc<Known>>,
    chains: Cache<Arc<KnownChain>>,
    /// Issuers whose keys are fetched and of whom a token named a key that is not known: by the configuration's names.
    missed: Mutex<BTreeSet<String>>,
    faults: Vec<String>,
}

struct Agent {
    id: Arc<str>,
    team: Arc<str>,
    project: Arc<str>,
    environment: Arc<str>,
    auth_type: AuthType,
    active: bool,
    /// None: from everywhere.
    sources: Option<Vec<Cidr>>,
}

struct Key {
    hash: Hash,
    /// None: the committed revision has no such agent.
    holder: Option<(Arc<Agent>, Arc<Identity>)>,
    sources: Vec<Cidr>,
    expires: Option<i64>,
    revoked: bool,
}

struct KnownChain {
    identity: Arc<Identity>,
    agent: Arc<Agent>,
    verified: i64,
}

impl Directory {
    /// Who this is. Nothing is ever concluded from the source address alone.
    pub fn resolve(
        &self,
        presented: &Presented<'_>,
        source: IpAddr,
        moment: Moment,
    ) -> Result<Arc<Identity>, Refusal> {
        let source = source.to_canonical();
        match presented {
            Presented::Nothing => Err(Refusal::NoCredential),
            Presented::Bearer(text) => self.by_text(text, source, moment),
            Presented::Basic { user, secret } => {
                let identity = self.by_text(secret, source, moment)?;
                if *identity.agent_id == **user {
                    Ok(identity)
                } else {
                    Err(Refusal::WrongAgent)
                }
            }
            Presented::Certificate(chain) => self.by_certificate(chain, source, moment),
        }
    }

    /// Judges an identity again that was proved under an earlier directory: for connections that outlive it. Answers
    /// with the agent's fields as they are now. The end of a credential's time is not looked at: it bounds when the
    /// credential may be shown, and `expires` says it to whoever wants to end connections by it.
    pub fn renew(
        &self,
        identity: &Identity,
        source: IpAddr,
        moment: Moment,
    ) -> Result<Arc<Identity>, Refusal> {
        let source = source.to_canonical();
        let agent = self
            .agents
            .get(&identity.agent_id)
            .ok_or(Refusal::UnknownAgent)?;
        match &identity.proof {
            Proof::Key(prefix) => {
                let key = self.keys.get(prefix).ok_or(Refusal::Revoked)?;
                if key.revoked {
                    return Err(Refusal::Revoked);
                }
                let (holder, now) = key.holder.as_ref().ok_or(Refusal::UnknownAgent)?;
                if !Arc::ptr_eq(holder, agent) {
                    return Err(Refusal::Revoked);
                }
                within(&key.sources, source)?;
                agent.admits(AuthType::ApiKey, source)?;
                return Ok(Arc::clone(now));
            }
            Proof::Token {
                issuer,
                key,
                id,
                issued,
            } => {
                self.token_stands(agent, issuer, key, id, *issued)?;
                agent.admits(AuthType::Jwt, source)?;
            }
            Proof::Certificate(chain) => {
                let authorities = self.authorities.as_ref().ok_or(Refusal::Unavailable)?;
                let last = identity.expires.unwrap_or(moment.now).min(moment.now);
                let proved = authorities.verify(
                    chain,
                    Moment {
                        now: last,
                        ..moment
                    },
                )?;
                if self.revoked_certificates.contains(&proved.serial) {
                    return Err(Refusal::Revoked);
                }
                agent.admits(AuthType::Certificate, source)?;
            }
        }
        Ok(Arc::new(agent.identity(
            identity.auth_type,
            identity.credential.clone(),
            identity.workload_fingerprint.clone(),
            identity.expires,
            identity.proof.clone(),
        )))
    }

    /// What could not be read of the snapshot; whoever depends on it is denied.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Of which issuers tokens named keys that are not known, since this was asked last: to be told to the identity
    /// service, which may fetch their sets anew. At most as many as are configured.
    pub fn take_missed(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.missed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    fn by_text(
        &self,
        text: &str,
        source: IpAddr,
        moment: Moment,
    ) -> Result<Arc<Identity>, Refusal> {
        if api_key::claims_to_be(text) {
            self.by_key(text, source, moment)
        } else {
            self.by_token(text, source, moment)
        }
    }

    fn by_key(&self, text: &str, source: IpAddr, moment: Moment) -> Result<Arc<Identity>, Refusal> {
        let prefix = api_key::prefix_of(text).ok_or(Refusal::UnknownCredential)?;
        let key = self.keys.get(&prefix);
        let matches = self
            .credential_key
            .matches(text, key.map_or(&self.decoy, |key| &key.hash));
        let key = key.filter(|_| matches).ok_or(Refusal::UnknownCredential)?;
        if key.revoked {
            return Err(Refusal::Revoked);
        }
        if let Some(end) = key.expires {
            if !moment.trusted {
                return Err(Refusal::ClockUntrusted);
            }
            if moment.now >= end {
                return Err(Refusal::Expired);
            }
        }
        let (agent, identity) = key.holder.as_ref().ok_or(Refusal::UnknownAgent)?;
        agent.admits(AuthType::ApiKey, source)?;
        within(&key.sources, source)?;
        Ok(Arc::clone(identity))
    }

    fn by_certificate(
        &self,
        chain: &[CertificateDer<'_>],
        source: IpAddr,
        moment: Moment,
    ) -> Result<Arc<Identity>, Refusal> {
        let parts: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
        let digest = Cache::<()>::digest(&parts).ok_or(Refusal::Unavailable)?;
        let holds = |known: &KnownChain| {
            let end = known.identity.expires.unwrap_or(known.verified);
            moment.trusted
                && (known.verified..known.verified.saturating_add(CHAIN_HOLDS))
                    .contains(&moment.now)
                && moment.now <= end
        };
        let kept = self.chains.get(&digest).filter(|known| holds(known));
        let known = if let Some(known) = kept {
            known
        } else {
            let known = Arc::new(self.verify_chain(chain, moment)?);
            self.chains.insert(digest, Arc::clone(&known));
            known
        };
        known.agent.admits(AuthType::Certificate, source)?;
        Ok(Arc::clone(&known.identity))
    }

    fn verify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        moment: Moment,
    ) -> Result<KnownChain, Refusal> {
        if chain.is_empty() {
            return Err(Refusal::NoCredential);
        }
        let authorities = self.authorities.as_ref().ok_or(Refusal::WrongIssuer)?;
        let proved = authorities.verify(chain, moment)?;
        if self.revoked_certificates.contains(&proved.serial) {
            return Err(Refusal::Revoked);
        }
        let mut agents = proved
            .names
            .iter()
            .filter_map(|name| self.agents.get(name.as_str()));
        // A certificate of two agents would be neither's.
        let (Some(agent), None) = (agents.next(), agents.next()) else {
            return Err(Refusal::UnknownAgent);
        };
        let kept: Vec<CertificateDer<'static>> =
            chain.iter().map(|one| one.clone().into_owned()).collect();
        let identity = agent.identity(
            AuthType::Certificate,
            CredentialId(proved.serial.into()),
            Some(proved.fingerprint.into()),
            Some(proved.expires),
            Proof::Certificate(kept.into()),
        );
        Ok(KnownChain {
            identity: Arc::new(identity),
            agent: Arc::clone(agent),
            verified: moment.now,
        })
    }
}

impl Agent {
    fn of(id: &str, agent: &clawgress_config::access::Agent) -> Self {
        let sources: Vec<Cidr> = agent.sources.iter().copied().collect();
        Self {
            id: id.into(),
            team: agent.team_id.as_str().into(),
            project: agent.project_id.as_str().into(),
            environment: agent.environment.as_str().into(),
            auth_type: agent.auth_type,
            active: agent.status == Status::Active,
            sources: (agent.bound && !sources.is_empty()).then_some(sources),
        }
    }

    /// What holds for each of its credentials.
    fn admits(&self, proved_by: AuthType, source: IpAddr) -> Result<(), Refusal> {
        if !self.active {
            return Err(Refusal::Disabled);
        }
        if self.auth_type != proved_by {
            return Err(Refusal::WrongAuthType);
        }
        self.sources
            .as_ref()
            .map_or(Ok(()), |sources| within(sources, source))
    }

    fn identity(
        &self,
        auth_type: AuthType,
        credential: CredentialId,
        workload_fingerprint: Option<Arc<str>>,
        expires: Option<i64>,
        proof: Proof,
    ) -> Identity {
        Identity {
            agent_id: Arc::clone(&self.id),
            team_id: Arc::clone(&self.team),
            project_id: Arc::clone(&self.project),
            environment: Arc::clone(&self.environment),
            auth_type,
            credential,
            workload_fingerprint,
            expires,
            proof,
        }
    }
}

/// Empty: everywhere.
fn within(networks: &[Cidr], source: IpAddr) -> Result<(), Refusal> {
    if networks.is_empty() || networks.iter().any(|network| network.contains(source)) {
        Ok(())
    } else {
        Err(Refusal::WrongSource)
    }
}
