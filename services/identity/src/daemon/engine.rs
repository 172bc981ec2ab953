//! What is asked of the service, carried out: on disk, then published, then answered.
//!
//! One change at a time; what was answered holds, and is with every gateway that listens.

mod fetching;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use clawgress_config::access::{Access, AuthType, Issuer, KeySource};
use clawgress_identity::admin::{Key, Reply, Request, Status, Wish};
use clawgress_identity::api_key::Fresh;
use clawgress_identity::certificate::plain_serial;
use clawgress_identity::snapshot::{self, RevokedToken, Snapshot};
use clawgress_identity::token::{Grant, SigningKey};
use clawgress_identity::{CredentialKey, Directory};
use clawgress_link::bundle::Publisher;
use clawgress_policy::Revision;
use serde_json::json;

use super::Config;
use super::fetch::Fetched;
use super::store::{Store, StoreError};
use super::trust::Trust;

/// An own token never lives longer.
const LONGEST_TOKEN: i64 = 24 * 3600;
/// Ten years; whoever wants a key without an end says no lifetime.
const LONGEST_KEY: u32 = 10 * 366 * 24 * 3600;
const LONGEST_TEXT: usize = 256;
const MOST_SOURCES: usize = 64;

pub(super) struct Engine {
    revision: PathBuf,
    files: PathBuf,
    credential_key: CredentialKey,
    publisher: Arc<Publisher>,
    inner: Mutex<Inner>,
}

struct Inner {
    store: Store,
    trust: Trust,
    fetched: Fetched,
    access: Arc<Access>,
    /// Which revision that is.
    read: Option<(PathBuf, SystemTime)>,
    signing: Option<SigningKey>,
    forgot: i64,
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

impl Engine {
    pub(super) fn new(
        config: &Config,
        store: Store,
        credential_key: CredentialKey,
        publisher: Arc<Publisher>,
    ) -> anyhow::Result<Self> {
        let signing = match store
            .signing_keys()?
            .into_iter()
            .find(|key| key.retired.is_none())
        {
            Some(key) => {
                Some(SigningKey::of_pkcs8(&key.pkcs8).context("reading the own issuer's key")?)
            }
            None => None,
        };
        Ok(Self {
            revision: config.revision.clone(),
            files: config.files.clone(),
            credential_key,
            publisher,
            inner: Mutex::new(Inner {
                store,
                trust: Trust::default(),
                fetched: Fetched::open(&config.state),
                access: Arc::default(),
                read: None,
                signing,
                forgot: 0,
            }),
        })
    }

    /// Reads revision and files, and publishes.
    pub(super) fn refresh(&self) -> anyhow::Result<()> {
        let mut inner = self.lock();
        inner.read_revision(&self.revision);
        let access = Arc::clone(&inner.access);
        inner.trust.read(&access, &self.files);
        let Inner { trust, fetched, .. } = &mut *inner;
        fetched.want(&access, Instant::now(), |file| {
            trust.file(&self.files, file)
        });
        self.publish(&mut inner)
    }

    pub(super) fn refresh_when_stale(&self) -> anyhow::Result<()> {
        let stale = {
            let inner = self.lock();
            inner.trust.is_stale() || which(&self.revision) != inner.read
        };
        if stale { self.refresh() } else { Ok(()) }
    }

    pub(super) fn note_uses(&self, uses: &[(String, i64)]) -> Result<(), StoreError> {
        self.lock().store.note_uses(uses)
    }

    pub(super) fn carry_out(&self, request: Request, now: i64) -> anyhow::Result<Reply> {
        let mut inner = self.lock();
        let reply = match request {
            Request::CreateKey(wish) => self.create(&inner, wish, now)?,
            Request::ListKeys { agent } => {
                return Ok(Reply::Keys {
                    keys: inner.store.keys(agent.as_deref())?,
                });
            }
            Request::RevokeKey { prefix } => Reply::Key {
                about: inner.store.revoke(&prefix, now)?,
            },
            Request::RotateKey {
                prefix,
                grace_seconds,
            } => {
                let old = inner.store.key(&prefix)?;
                let wish = Wish {
                    agent: old.agent,
                    name: old.name,
                    sources: old.sources,
                    lifetime_seconds: old
                        .expires
                        .and_then(|end| u32::try_from(end - old.created).ok()),
                    workload_fingerprint: old.workload_fingerprint,
                };
                let reply = self.create(&inner, wish, now)?;
                inner
                    .store
                    .end(&prefix, now.saturating_add(grace_seconds.into()))?;
                reply
            }
            Request::IssueToken {
                agent,
                issuer,
                lifetime_seconds,
                workload_fingerprint,
            } => {
                let lifetime = i64::from(lifetime_seconds);
                inner.issue(
                    &agent,
                    issuer.as_deref(),
                    lifetime,
                    workload_fingerprint.as_deref(),
                    now,
                )?
            }
            Request::RevokeToken { issuer, id, until } => {
                if !inner.access.issuers.contains_key(&issuer) {
                    bail!("the committed configuration has no issuer {issuer}");
                }
                fits("id", &id)?;
                inner
                    .store
                    .revoke_token(&RevokedToken { issuer, id, until })?;
                Reply::Done
            }
            Request::RevokeTokens { agent } => {
                fits("agent", &agent)?;
                // Those issued within this very second, too.
                inner.store.revoke_tokens(&agent, now.saturating_add(1))?;
                Reply::Done
            }
            Request::RevokeCertificate { serial } => {
                let serial = serial.to_ascii_lowercase().replace(':', "");
                if serial.is_empty()
                    || serial.len() > 128
                    || !serial.bytes().all(|byte| byte.is_ascii_hexdigit())
                {
                    bail!("serial is no hex number; write it as events show it");
                }
                // An odd number of digits is one whose first zero was left out.
                let even = if serial.len() % 2 == 1 {
                    format!("0{serial}")
                } else {
                    serial
                };
                inner.store.revoke_certificate(plain_serial(&even), now)?;
                Reply::Done
            }
            Request::RotateSigningKey => {
                inner.new_signing_key(now)?;
                Reply::Done
            }
            Request::Status => return Ok(Reply::Status(Box::new(self.status(&inner)?))),
        };
        self.publish(&mut inner)
            .context("it is kept, but could not be published")?;
        Ok(reply)
    }

    fn create(&self, inner: &Inner, wish: Wish, now: i64) -> anyhow::Result<Reply> {
        let agent = inner.agent(&wish.agent)?;
        if agent.auth_type != AuthType::ApiKey {
            bail!(
                "the agent {} does not prove itself by API keys; its auth-type in the configuration says by what",
                wish.agent
            );
        }
        fits(
            "name",
            if wish.name.is_empty() {
                "-"
            } else {
                &wish.name
            },
        )?;
        if let Some(fingerprint) = &wish.workload_fingerprint {
            fits("workload_fingerprint", fingerprint)?;
        }
        if wish.sources.len() > MOST_SOURCES {
            bail!("sources has more than {MOST_SOURCES} networks");
        }
        if let Some(wrong) = wish
            .sources
            .iter()
            .find(|text| snapshot::network(text).is_none())
        {
            bail!(
                "sources has '{wrong}', which is no network; write one like 10.0.0.0/8 or 192.0.2.7/32"
            );
        }
        if wish
            .lifetime_seconds
            .is_some_and(|lifetime| lifetime == 0 || lifetime > LONGEST_KEY)
        {
            bail!(
                "lifetime_seconds is not from 1 to {LONGEST_KEY}; leave it out for a key without an end"
            );
        }
        let fresh = Fresh::make()?;
        let about = Key {
            prefix: fresh.prefix,
            agent: wish.agent,
            name: wish.name,
            sources: wish.sources,
            workload_fingerprint: wish.workload_fingerprint,
            created: now,
            expires: wish
                .lifetime_seconds
                .map(|lifetime| now.saturating_add(lifetime.into())),
            last_used: None,
            revoked: None,
        };
        inner
            .store
            .add(&about, &self.credential_key.hash(&fresh.text))?;
        Ok(Reply::NewKey {
            key: fresh.text,
            about,
        })
    }

    fn status(&self, inner: &Inner) -> anyhow::Result<Status> {
        let snapshot = inner.snapshot()?;
        let directory = Directory::build(&snapshot, &inner.access, self.credential_key.clone());
        let fetching = inner.fetched.faults();
        let faults = [inner.trust.faults(), &fetching, directory.faults()].concat();
        Ok(Status {
            snapshot: self.publisher.mark().map(|mark| (mark.epoch, mark.number)),
            agents: inner.access.agents.len(),
            keys: snapshot.keys.iter().filter(|key| !key.revoked).count(),
            faults,
        })
    }

    fn publish(&self, inner: &mut Inner) -> anyhow::Result<()> {
        let now = now();
        if inner.forgot.saturating_add(3600) <= now {
            inner.store.forget(now, LONGEST_TOKEN)?;
            inner.forgot = now;
        }
        if inner.signing.is_none() && inner.access.issuers.values().any(is_own) {
            inner.new_signing_key(now)?;
        }
        let mark = self.publisher.publish(&inner.snapshot()?, now)?;
        tracing::debug!("snapshot {mark} is offered");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The data base holds what counts, and it is never half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// One that can't be read leaves the last good one in force: it changes agents, never credentials.
    fn read_revision(&mut self, path: &Path) {
        let read = which(path);
        if read == self.read {
            return;
        }
        match &read {
            // Sealed: nobody is anybody.
            None => self.access = Arc::default(),
            Some(_) => match Revision::read(path) {
                Ok(revision) => self.access = Arc::new(revision.access),
                Err(error) => tracing::error!("{error}"),
            },
        }
        self.read = read;
    }

    fn agent(&self, id: &str) -> anyhow::Result<&clawgress_config::access::Agent> {
        self.access.agents.get(id).with_context(|| {
            let shown: String = id.chars().take(LONGEST_TEXT).collect();
            format!("the committed configuration has no agent {shown}; set service clawgress agent {shown} …, and commit")
        })
    }

    fn issue(
        &mut self,
        agent_id: &str,
        issuer: Option<&str>,
        lifetime: i64,
        workload_fingerprint: Option<&str>,
        now: i64,
    ) -> anyhow::Result<Reply> {
        let access = Arc::clone(&self.access);
        let agent = self.agent(agent_id)?;
        if agent.auth_type != AuthType::Jwt {
            bail!(
                "the agent {agent_id} does not prove itself by tokens; its auth-type in the configuration says by what"
            );
        }
        if !(1..=LONGEST_TOKEN).contains(&lifetime) {
            bail!("lifetime_seconds is {lifetime}; write one from 1 to {LONGEST_TOKEN}");
        }
        if let Some(fingerprint) = workload_fingerprint {
            fits("workload_fingerprint", fingerprint)?;
        }
        let mut own = access
            .issuers
            .iter()
            .filter(|(name, known)| is_own(known) && issuer.is_none_or(|issuer| issuer == *name));
        let (Some((_, known)), None) = (own.next(), own.next()) else {
            bail!(
                "the committed configuration has no such issuer of its own, or several; name one with `keys own`"
            );
        };
        if !known.algorithms.contains("EdDSA") {
            bail!(
                "the issuer's algorithms leave EdDSA out, which is what this appliance signs with"
            );
        }
        let claim = |field: &'static str| known.claims.get(field).map_or(field, String::as_str);
        let key = self
            .signing
            .as_ref()
            .context("the own issuer has no key yet; commit an issuer with `keys own`")?;
        let (token, id) = key.issue(&Grant {
            issuer: &known.issuer,
            audience: &known.audience,
            who: vec![
                (claim("agent_id"), agent_id),
                (claim("team_id"), &agent.team_id),
                (claim("project_id"), &agent.project_id),
                (claim("environment"), &agent.environment),
            ],
            workload_fingerprint,
            issued: now,
            lifetime,
        })?;
        Ok(Reply::Token {
            token,
            id,
            expires: now.saturating_add(lifetime),
        })
    }

    fn new_signing_key(&mut self, now: i64) -> anyhow::Result<()> {
        let (key, pkcs8) = SigningKey::make()?;
        self.store.add_signing_key(&key.id, &pkcs8, now)?;
        self.signing = Some(key);
        Ok(())
    }

    fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let mut snapshot = self.store.snapshot()?;
        self.trust.add_to(&mut snapshot);
        for (name, issuer) in &self.access.issuers {
            if matches!(issuer.keys, KeySource::Url(_))
                && let Ok(keys) = self.fetched.keys(name)
            {
                snapshot.key_sets.insert(name.clone(), keys.to_owned());
            }
        }
        let mut keys = Vec::new();
        for key in self.store.signing_keys()? {
            keys.push(
                SigningKey::of_pkcs8(&key.pkcs8)
                    .context("reading the own issuer's keys")?
                    .jwk(),
            );
        }
        snapshot.own_keys = (!keys.is_empty()).then(|| json!({ "keys": keys }).to_string());
        Ok(snapshot)
    }
}

fn is_own(issuer: &Issuer) -> bool {
    issuer.keys == KeySource::Own
}

/// Which file it leads to, and since when.
fn which(path: &Path) -> Option<(PathBuf, SystemTime)> {
    let file = std::fs::canonicalize(path).ok()?;
    let modified = std::fs::metadata(&file).ok()?.modified().ok()?;
    Some((file, modified))
}

fn fits(key: &str, text: &str) -> anyhow::Result<()> {
    if text.is_empty() || text.len() > LONGEST_TEXT || text.chars().any(char::is_control) {
        bail!("{key} is no text of 1 to {LONGEST_TEXT} bytes without control characters");
    }
    Ok(())
}
