//! A gateway as it runs, with a revision, agents and an audit queue of its own, for tests and for the bench.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clawgress_audit::queue::{Queue, Settings};
use clawgress_config::access::{Access, Agent, AuthType, GatewaySettings, Quotas, Status};
use clawgress_config::policy::Policy;
use clawgress_gateway::judge::{Blocked, Compiled, Judge, Own, Snapshot};
use clawgress_gateway::worker::Limits;
use clawgress_identity::api_key::Fresh;
use clawgress_identity::snapshot::KeyRecord;
use clawgress_identity::{CredentialKey, Snapshot as Credentials, text};
use clawgress_policy::{Logging, Network, Revision};
use clawgress_quota::Ledger;

pub(crate) const LIMITS: Limits = Limits {
    head: Duration::from_secs(10),
    between: Duration::from_secs(60),
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(30),
    unknown_of_source: 20_000,
};

/// What is committed and who has which key; changed, and then taken by the judge.
pub(crate) struct World {
    /// Where the enforcer is asked to count.
    pub(crate) counter: Option<PathBuf>,
    pub(crate) revision: Revision,
    pub(crate) credentials: Credentials,
}

impl World {
    pub(crate) fn with(policy: &serde_json::Value) -> Self {
        let revision = Revision {
            number: 1,
            created: 1,
            enabled: true,
            policy: Policy::from_json(policy.to_string().as_bytes()).expect("a policy"),
            network: Network::default(),
            time_zone: "UTC".to_owned(),
            trust_hardware_clock: true,
            logging: Logging {
                facility: "local0".to_owned(),
                deny_log: true,
            },
            name_servers: Vec::new(),
            access: Access {
                gateway: GatewaySettings {
                    enabled: true,
                    ..GatewaySettings::default()
                },
                ..Access::default()
            },
        };
        Self {
            counter: None,
            revision,
            credentials: Credentials::default(),
        }
    }

    /// Adds an agent that proves itself by API keys, and answers with its first key.
    pub(crate) fn agent(&mut self, id: &str) -> String {
        self.revision.access.agents.insert(
            id.to_owned(),
            Agent {
                team_id: "team-1".to_owned(),
                project_id: "project-1".to_owned(),
                environment: "production".to_owned(),
                auth_type: AuthType::ApiKey,
                status: Status::Active,
                sources: std::collections::BTreeSet::new(),
                bound: false,
            },
        );
        let fresh = Fresh::make().expect("random numbers");
        self.credentials.keys.push(KeyRecord {
            prefix: fresh.prefix,
            agent: id.to_owned(),
            hash: text::base64url(&key().hash(&fresh.text)),
            sources: Vec::new(),
            expires: None,
            revoked: false,
            workload_fingerprint: None,
        });
        fresh.text
    }

    /// As it would be published now, one number later than before.
    pub(crate) fn snapshot(&mut self) -> Arc<Snapshot> {
        self.revision.number += 1;
        let compiled = Compiled::of(&self.revision).expect("a compiled revision");
        let number = self.revision.number;
        Arc::new(Snapshot::of(
            &Arc::new(compiled),
            number,
            &self.credentials,
            key(),
        ))
    }

    pub(crate) fn judge(&mut self, queue: &Path) -> Arc<Judge> {
        let judge = Self::judge_without_snapshot(queue, self.counter.clone());
        judge.take(self.snapshot());
        judge
    }

    pub(crate) fn judge_without_snapshot(queue: &Path, counter: Option<PathBuf>) -> Arc<Judge> {
        // Nobody ships from here: it has to hold all that a bench records.
        let settings = Settings {
            max_bytes: 8 << 30,
            share_per_agent: 8 << 30,
            ..Settings::default()
        };
        let queue = Queue::open(queue, settings).expect("an audit queue");
        let ledger = Arc::new(Ledger::new(&Quotas::default()));
        let judge = Judge::new(queue, ledger, Blocked::default());
        let judge = Arc::new(judge.with_counter(counter));
        judge.take_own(Own::default());
        judge
    }
}

pub(crate) fn key() -> CredentialKey {
    CredentialKey::of(&[7; CredentialKey::BYTES])
}

/// A policy that allows these names, and so many others.
pub(crate) fn allowing(names: &[&str], others: usize) -> serde_json::Value {
    let mut domains: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    domains.extend((0..others).map(|n| format!("n{n}.bench.test")));
    let allow = BTreeMap::from([("domains", domains)]);
    serde_json::json!({"version": 1, "allow": allow})
}
