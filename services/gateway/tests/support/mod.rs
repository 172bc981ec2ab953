//! A gateway as it runs, with a revision, agents and an audit queue of its own, for tests and for the bench.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawgress_audit::queue::{Queue, Settings};
use clawgress_config::access::{Access, Agent, AuthType, Quotas, Status};
use clawgress_config::policy::Policy;
use clawgress_gateway::gateway::{Gateway, Sockets};
use clawgress_gateway::judge::{Blocked, Judge, Parts, Snapshot};
use clawgress_gateway::listen;
use clawgress_gateway::tls::Showing;
use clawgress_gateway::worker::Limits;
use clawgress_identity::api_key::Fresh;
use clawgress_identity::snapshot::KeyRecord;
use clawgress_identity::{CredentialKey, Snapshot as Credentials, text};
use clawgress_policy::{Logging, Network, Revision};
use clawgress_quota::Ledger;

pub const LIMITS: Limits = Limits {
    head: Duration::from_secs(10),
    between: Duration::from_secs(60),
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(30),
    unknown_of_source: 20_000,
};

/// What is committed and who has which key; changed, and then taken by the judge.
pub struct World {
    pub revision: Revision,
    pub credentials: Credentials,
}

impl World {
    pub fn with(policy: &serde_json::Value) -> Self {
        let revision = Revision {
            number: 1,
            created: 1,
            enabled: true,
            policy: Policy::from_json(policy.to_string().as_bytes()).expect("a policy"),
            network: Network::default(),
            time_zone: "UTC".to_owned(),
            trust_hardware_clock: true,
            logging: Logging { facility: "local0".to_owned(), deny_log: true },
            name_servers: Vec::new(),
            access: Access::default(),
        };
        Self { revision, credentials: Credentials::default() }
    }

    /// Adds an agent that proves itself by API keys, and answers with its first key.
    pub fn agent(&mut self, id: &str) -> String {
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
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.revision.number += 1;
        let parts = Parts { revision: &self.revision, credentials: &self.credentials, key: key(), own: &[] };
        Arc::new(Snapshot::compile(parts).expect("a snapshot"))
    }

    pub fn judge(&mut self, queue: &Path) -> Arc<Judge> {
        // Nobody ships from here: it has to hold all that a bench records.
        let settings = Settings { max_bytes: 8 << 30, share_per_agent: 8 << 30, ..Settings::default() };
        let queue = Queue::open(queue, settings).expect("an audit queue");
        let judge = Arc::new(Judge::new(queue, Arc::new(Ledger::new(&Quotas::default())), Blocked::default()));
        judge.take(self.snapshot());
        judge
    }
}

pub fn key() -> CredentialKey {
    CredentialKey::of(&[7; CredentialKey::BYTES])
}

/// Serves plain HTTP at an address with so many workers.
pub fn serve(judge: &Arc<Judge>, address: SocketAddr, workers: usize, named: SocketAddr, limits: Limits) -> Gateway {
    let sockets = (0..workers)
        .map(|_| Sockets { plain: vec![listen::open(address).expect("a socket")], ..Sockets::default() })
        .collect();
    Gateway::start(Arc::clone(judge), limits, named, &Arc::new(Showing::default()), sockets).expect("a gateway")
}

/// A policy that allows these names, and so many others.
pub fn allowing(names: &[&str], others: usize) -> serde_json::Value {
    let mut domains: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    domains.extend((0..others).map(|n| format!("n{n}.bench.test")));
    let allow = BTreeMap::from([("domains", domains)]);
    serde_json::json!({"version": 1, "allow": allow})
}
