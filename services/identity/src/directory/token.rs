//! Tokens: which issuer's, whose, and whether they stand.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use clawgress_config::access::{self, AuthType, KeySource};
use clawgress_link::hex;
use clawgress_policy::Moment;

use super::{Agent, Directory};
use crate::cache::Cache;
use crate::identity::{CredentialId, Identity, Proof};
use crate::refusal::Refusal;
use crate::token::{Algorithm, Claims, Expected, KeySet, Token};

pub(super) struct Issuer {
    name: Arc<str>,
    audience: String,
    algorithms: Vec<Algorithm>,
    keys: KeySet,
    leeway: i64,
    /// Its keys come from a URL, so that there may be newer ones.
    fetched: bool,
    /// Claim by field, and whether the configuration names it: what it names must be there.
    claims: [(&'static str, String, bool); 4],
}

/// A token that was verified under this directory.
pub(super) struct Known {
    identity: Arc<Identity>,
    agent: Arc<Agent>,
    claims: Claims,
    leeway: i64,
}

impl Issuer {
    pub(super) fn of(name: &str, issuer: &access::Issuer, keys: KeySet) -> Self {
        let claim = |field: &'static str| match issuer.claims.get(field) {
            Some(claim) => (field, claim.clone(), true),
            None => (field, field.to_owned(), field == "agent_id"),
        };
        Self {
            name: name.into(),
            audience: issuer.audience.clone(),
            algorithms: issuer
                .algorithms
                .iter()
                .filter_map(|word| Algorithm::of_word(word))
                .collect(),
            keys,
            leeway: issuer.leeway_seconds.into(),
            fetched: matches!(issuer.keys, KeySource::Url(_)),
            claims: ["agent_id", "team_id", "project_id", "environment"].map(claim),
        }
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            audience: &self.audience,
            algorithms: &self.algorithms,
            keys: &self.keys,
            leeway: self.leeway,
        }
    }
}

impl Directory {
    pub(super) fn by_token(
        &self,
        text: &str,
        source: IpAddr,
        moment: Moment,
    ) -> Result<Arc<Identity>, Refusal> {
        let digest = Cache::<()>::digest(&[text.as_bytes()]).ok_or(Refusal::Unavailable)?;
        let known = if let Some(known) = self.tokens.get(&digest) {
            known
        } else {
            let known = Arc::new(self.verify_token(text, &digest, moment)?);
            self.tokens.insert(digest, Arc::clone(&known));
            known
        };
        known.claims.hold_at(moment, known.leeway)?;
        known.agent.admits(AuthType::Jwt, source)?;
        Ok(Arc::clone(&known.identity))
    }

    fn verify_token(
        &self,
        text: &str,
        digest: &[u8; 32],
        moment: Moment,
    ) -> Result<Known, Refusal> {
        let token = Token::parse(text)?;
        let named = self
            .issuers
            .get(token.issuer()?)
            .ok_or(Refusal::WrongIssuer)?;
        // Two issuers of one name differ by their audience.
        let issuer = match named.as_slice() {
            [one] => one,
            several => several
                .iter()
                .find(|issuer| token.is_meant_for(&issuer.audience))
                .ok_or(Refusal::WrongAudience)?,
        };
        let claims = token
            .verify(&issuer.expected(), moment)
            .inspect_err(|refusal| {
                if issuer.fetched && *refusal == Refusal::UnknownKey {
                    let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
                    missed.insert(issuer.name.to_string());
                }
            })?;
        let agent = self.agent_of(issuer, &claims)?;
        let id: Arc<str> = match &claims.id {
            Some(id) => id.as_str().into(),
            None => format!("sha256:{}", hex::encode(digest)).into(),
        };
        self.token_stands(agent, &issuer.name, &claims.key, &id, claims.issued)?;
        let identity = agent.identity(
            AuthType::Jwt,
            CredentialId(Arc::clone(&id)),
            claims.text("workload_fingerprint")?.map(Arc::from),
            Some(claims.expires),
            Proof::Token {
                issuer: Arc::clone(&issuer.name),
                key: claims.key,
                id,
                issued: claims.issued,
            },
        );
        Ok(Known {
            identity: Arc::new(identity),
            agent: Arc::clone(agent),
            claims,
            leeway: issuer.leeway,
        })
    }

    /// The revision says where an agent belongs; a token that says otherwise is somebody else's.
    fn agent_of(&self, issuer: &Issuer, claims: &Claims) -> Result<&Arc<Agent>, Refusal> {
        let mut told = [None; 4];
        for ((_, claim, needed), place) in issuer.claims.iter().zip(&mut told) {
            *place = claims.text(claim)?;
            if *needed && place.is_none() {
                return Err(Refusal::WrongClaims);
            }
        }
        let [agent, team, project, environment] = told;
        let agent = agent
            .and_then(|id| self.agents.get(id))
            .ok_or(Refusal::UnknownAgent)?;
        let same = |told: Option<&str>, own: &Arc<str>| told.is_none_or(|told| *told == **own);
        if same(team, &agent.team)
            && same(project, &agent.project)
            && same(environment, &agent.environment)
        {
            Ok(agent)
        } else {
            Err(Refusal::WrongTenant)
        }
    }

    /// Whether issuer and key are still trusted and nobody took the token back.
    pub(super) fn token_stands(
        &self,
        agent: &Agent,
        issuer: &Arc<str>,
        key: &[u8; 32],
        id: &Arc<str>,
        made: Option<i64>,
    ) -> Result<(), Refusal> {
        let trusted = self
            .issuers
            .values()
            .flatten()
            .any(|known| known.name == *issuer && known.keys.has(key));
        let taken_back = self
            .revoked_tokens
            .contains(&(issuer.to_string(), id.to_string()));
        // A token that does not say when it was issued may be older than anything.
        let too_old = self
            .tokens_before
            .get(&*agent.id)
            .is_some_and(|before| made.is_none_or(|made| made < *before));
        if trusted && !taken_back && !too_old {
            Ok(())
        } else {
            Err(Refusal::Revoked)
        }
    }
}
