//! The units of enforcement: their order, and what proves that each really does its work.
//!
//! 'active' proves nothing here. Each proof is an answer that only a working daemon can give.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clawgress_link::{ProbeError, admin, agents_resolver, front, health, resolver, ruleset, units};
use tokio::time::{Instant, sleep};

use crate::enforcer;
use crate::paths::Paths;

/// How long a daemon gets to start, and then to prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// At boot: emulated machines are ten times slower than any other.
    Boot,
    /// Later: the kernel has to be looked at in between.
    Watch,
}

impl Patience {
    fn job(self) -> Duration {
        Duration::from_secs(if self == Self::Boot { 90 } else { 20 })
    }

    fn proof(self) -> Duration {
        Duration::from_secs(if self == Self::Boot { 60 } else { 10 })
    }
}

/// For one question.
pub(crate) const QUESTION: Duration = Duration::from_secs(8);

const RESOLVER: SocketAddr = loopback(53);
const FRONT: SocketAddr = loopback(443);
const AGENTS_RESOLVER: SocketAddr = loopback(10053);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Ruleset,
    Denial,
    Handshake,
    Agents,
    Status,
    Health,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Daemon {
    /// Its step in the boot report.
    pub(crate) step: &'static str,
    pub(crate) unit: &'static str,
    proof: Proof,
    /// For how many looks the unit may be away before the box is sealed. Restarting the enforcer changes nothing in the
    /// kernel, and the policy API enforces nothing; without any of the others no verdict can be relied on.
    pub(crate) grace: u32,
}

/// In the order in which they are started.
pub(crate) const ORDER: [Daemon; 6] = [
    Daemon {
        step: "nftables",
        unit: "nftables.service",
        proof: Proof::Ruleset,
        grace: 0,
    },
    Daemon {
        step: "named",
        unit: "named.service",
        proof: Proof::Denial,
        grace: 0,
    },
    Daemon {
        step: "haproxy",
        unit: "haproxy.service",
        proof: Proof::Handshake,
        grace: 0,
    },
    Daemon {
        step: "dns",
        unit: "clawgress-dns.service",
        proof: Proof::Agents,
        grace: 0,
    },
    Daemon {
        step: "enforcer",
        unit: "clawgress-enforcer.service",
        proof: Proof::Status,
        grace: 3,
    },
    Daemon {
        step: "policy",
        unit: "clawgress-policy.service",
        proof: Proof::Health,
        grace: 5,
    },
];

impl Daemon {
    /// Starts the unit if it is not up and waits until it proves itself.
    pub(crate) async fn start(
        self,
        bus: &zbus::Connection,
        paths: &Paths,
        patience: Patience,
    ) -> Result<String> {
        units::start(bus, self.unit, patience.job())
            .await
            .map_err(flat)?;
        let end = Instant::now() + patience.proof();
        let mut pause = Duration::from_millis(20);
        loop {
            match self.prove(paths).await {
                Err(error) if Instant::now() + pause > end => return Err(error),
                Err(_) => sleep(pause).await,
                proven => return proven,
            }
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Asks once.
    pub(crate) async fn prove(self, paths: &Paths) -> Result<String> {
        let certificate = paths.front_certificate();
        match self.proof {
            Proof::Ruleset => {
                let ruleset = ruleset::measure().await;
                if !ruleset.loaded {
                    bail!("{}", ruleset.detail);
                }
                Ok(format!("ruleset loaded, generation {}", ruleset.generation))
            }
            Proof::Denial => {
                resolver::probe(RESOLVER, QUESTION).await.map_err(flat)?;
                Ok("names are denied by the policy zone".to_owned())
            }
            Proof::Handshake => {
                front::handshake(FRONT, &certificate, QUESTION)
                    .await
                    .map_err(flat)?;
                Ok("the TLS front answers".to_owned())
            }
            Proof::Agents => {
                let denial = agents_resolver::probe(AGENTS_RESOLVER, QUESTION)
                    .await
                    .map_err(flat)?;
                Ok(if denial.judged {
                    "the agents' resolver judges by a policy".to_owned()
                } else {
                    "the agents' resolver refuses everybody".to_owned()
                })
            }
            Proof::Status => {
                let status = enforcer::status(paths, QUESTION).await?;
                Ok(match status.revision {
                    Some(revision) if status.enforcing => {
                        format!("revision {revision} {}", enforcer::IN_FORCE)
                    }
                    Some(revision) => format!("revision {revision}: {}", status.detail),
                    None if status.detail.starts_with("no revision") => {
                        enforcer::NO_POLICY.to_owned()
                    }
                    None => status.detail,
                })
            }
            Proof::Health => {
                // Past the front, which has proved itself, and by the console's socket: callers of the front need a key.
                let socket = paths.policy_socket();
                let asked = admin::post(&socket, "/clawgress/health", b"{}".to_vec(), QUESTION);
                let (status, body) = asked.await.map_err(flat)?;
                let body = String::from_utf8_lossy(&body);
                judge_health(status, &body)
            }
        }
    }
}

/// A probe's text holds its cause already; as a chain it would be told twice.
fn flat(error: impl Into<ProbeError>) -> anyhow::Error {
    anyhow!("{}", error.into())
}

fn judge_health(status: u16, body: &str) -> Result<String> {
    let report: health::Report = serde_json::from_str(body).with_context(|| {
        format!("asking the policy API for its health: answer {status} is no report")
    })?;
    if report.enforcing {
        return Ok("the policy API reports enforcing".to_owned());
    }
    // A configuration that is wrong has a step of its own, and is no fault of the policy API. One that is on its way is
    // waited for.
    let broken: Vec<_> = report
        .broken()
        .filter(|check| check.name != "configuration" || check.detail.contains("being applied"))
        .map(|check| format!("{} ({})", check.name, check.detail))
        .collect();
    if broken.is_empty() && report.broken().next().is_some() {
        return Ok("the policy API answers; the configuration is wrong".to_owned());
    }
    bail!(
        "the policy API reports that the box does not enforce: {}",
        broken.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_report() {
        let steps: Vec<_> = ORDER.iter().map(|daemon| daemon.step).collect();
        assert_eq!(steps, crate::report::STEPS[4..]);
    }

    #[test]
    fn only_an_enforcing_report_is_proof() {
        let good = r#"{"enforcing":true,"checks":[]}"#;
        assert!(judge_health(200, good).is_ok());
        let unconfigured = r#"{"enforcing":false,"checks":[{"name":"configuration","ok":false,"detail":"line 4","took_ms":3}]}"#;
        assert!(judge_health(503, unconfigured).is_ok());
        let coming = unconfigured.replace("line 4", "it is being applied");
        assert!(judge_health(503, &coming).is_err());
        let bad = r#"{"enforcing":false,"checks":[{"name":"named","ok":false,"detail":"silent","took_ms":3}]}"#;
        let error = judge_health(503, bad).unwrap_err().to_string();
        assert!(
            error.ends_with("does not enforce: named (silent)"),
            "{error}"
        );
        assert!(
            judge_health(502, "<html>")
                .unwrap_err()
                .to_string()
                .contains("answer 502")
        );
    }
}
