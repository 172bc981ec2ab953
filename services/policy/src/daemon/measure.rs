//! One measurement of enforcement: every neighbour is asked at the same time, each against its own deadline.
//!
//! Reports what came back and nothing remembered. The front is asked for a handshake, never for this very report:
//! that would be a question that asks itself.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use clawgress_link::{
    ProbeError,
    admin::Health,
    agents_resolver, control, front,
    health::{Check, Report},
    resolver, ruleset,
    seal::{self, Measured},
    units::{self, UnitState},
};
use tokio::task::JoinSet;

use crate::daemon::{
    config::Config,
    enforcer::{AskError, Enforcer},
    measurer::Source,
    notice::Notice,
    publish::Publisher,
    services::{self, Services},
};

/// Everybody who has a part in enforcement.
pub(crate) struct Neighbours {
    config: Config,
    enforcer: Enforcer,
    services: Services,
    publisher: Arc<Publisher>,
    /// What became of the configuration that this boot took.
    configuration: Notice,
    bus: Bus,
}

/// The way to systemd, kept between measurements as long as it works.
#[derive(Debug, Default)]
struct Bus(Option<zbus::Connection>);

impl Neighbours {
    pub(crate) fn new(
        config: Config,
        services: Services,
        publisher: Arc<Publisher>,
        configuration: Notice,
    ) -> Self {
        Self {
            config,
            enforcer: publisher.enforcer.clone(),
            services,
            publisher,
            configuration,
            bus: Bus::default(),
        }
    }
}

impl Source for Neighbours {
    async fn take(&mut self) -> Health {
        // Boxed: the TLS handshake alone makes this future tens of kilobytes.
        Box::pin(measure(self)).await
    }
}

async fn measure(neighbours: &mut Neighbours) -> Health {
    let config = &neighbours.config;
    let deadline = config.deadline();
    let wanted = neighbours.publisher.gateway_revision().await;
    let (kernel, named, front, agents, status, units, services) = tokio::join!(
        timed(seal::ask(&config.init_socket, deadline)),
        timed(resolver::probe(config.resolver, deadline)),
        timed(front::handshake(
            config.front,
            &config.front_certificate,
            deadline
        )),
        timed(agents_resolver::probe(config.agents_resolver, deadline)),
        timed(neighbours.enforcer.status()),
        neighbours.bus.states(&config.units, deadline),
        services::measure(&neighbours.services, &config.quota_socket, deadline, wanted),
    );
    let status_now = status.1.as_ref().ok().cloned();
    let sealed = status_now
        .as_ref()
        .is_some_and(|status| status.revision.is_none());
    let mut checks = judge_kernel(kernel);
    checks.push(judge("named", named, |denial| {
        Ok(format!(
            "denies by the policy zone, serial {}",
            denial.serial
        ))
    }));
    checks.push(judge("front", front, |()| {
        Ok("holds the key of the front's certificate".to_owned())
    }));
    checks.push(judge_enforcer(status));
    let dns = judge("dns", agents, |denial| {
        if denial.judged || sealed {
            Ok(format!("denies: {}", denial.text))
        } else {
            Err(format!(
                "it refuses everybody although a revision is enforced: {}",
                denial.text
            ))
        }
    });
    let dns_up = dns.ok;
    checks.push(dns);
    checks.extend(neighbours.configuration.check());
    checks.extend(
        units
            .into_iter()
            .map(|(unit, state)| judge(&format!("unit {unit}"), state, |state| judge_unit(&state))),
    );
    Health {
        services,
        services_wanted: wanted.is_some(),
        report: Report::of(checks),
        revision: status_now.as_ref().and_then(|status| status.revision),
        generation: status_now.as_ref().map(|status| status.generation),
        clock_trusted: status_now.as_ref().map(|status| status.clock_trusted),
        dns: dns_up,
    }
}

/// Sealed because nothing was committed is as it should be; a revision that is not enforced is not.
fn judge_enforcer((took, outcome): Timed<control::Status, AskError>) -> Check {
    judge("enforcer", (took, outcome), |status| {
        match status.revision {
            Some(revision) if status.enforcing => Ok(format!(
                "enforces revision {revision}, generation {}",
                status.generation
            )),
            Some(revision) => Err(format!(
                "revision {revision} is not enforced: {}",
                status.detail
            )),
            None => Ok(format!("sealed: {}", status.detail)),
        }
    })
}

type Timed<T, E = ProbeError> = (Duration, Result<T, E>);

async fn timed<T, E>(probe: impl Future<Output = Result<T, E>>) -> Timed<T, E> {
    let begun = Instant::now();
    let outcome = probe.await;
    (begun.elapsed(), outcome)
}

/// A check from a probe's answer: silence and a wrong answer are equally not ok.
fn judge<T, E: ToString>(
    name: &str,
    (took, outcome): Timed<T, E>,
    verdict: impl FnOnce(T) -> Result<String, String>,
) -> Check {
    Check::of(
        name,
        took,
        outcome.map_err(|error| error.to_string()).and_then(verdict),
    )
}

/// appliance-init's one answer is two checks.
fn judge_kernel((took, outcome): Timed<Measured>) -> Vec<Check> {
    match outcome {
        Ok(Measured {
            ruleset,
            forwarding,
        }) => {
            let committed = ruleset.loaded && ruleset.generation != ruleset::SEALED;
            let loaded = if ruleset.loaded {
                Ok(ruleset.detail)
            } else {
                Err(ruleset.detail)
            };
            let loaded =
                loaded.map(|detail| format!("generation {}, {detail}", ruleset.generation));
            let forwards = match (forwarding.ipv4, forwarding.ipv6) {
                (false, false) => Ok("off".to_owned()),
                (true, true) => Err("IPv4 and IPv6"),
                (true, false) => Err("IPv4"),
                (false, true) => Err("IPv6"),
            };
            let forwards = forwards.or_else(|what| {
                if committed {
                    Ok(format!("{what} on, by a committed revision"))
                } else {
                    Err(format!(
                        "{what} is forwarded although no committed revision says so"
                    ))
                }
            });
            vec![
                Check::of("ruleset", took, loaded),
                Check::of("forwarding", took, forwards),
            ]
        }
        Err(error) => {
            let unknown = || Err(error.to_string());
            vec![
                Check::of("ruleset", took, unknown()),
                Check::of("forwarding", took, unknown()),
            ]
        }
    }
}

fn judge_unit(state: &UnitState) -> Result<String, String> {
    if state.is_up() {
        Ok(state.to_string())
    } else {
        Err(state.to_string())
    }
}

impl Bus {
    /// The state of each unit, in the order in which they were named.
    async fn states(
        &mut self,
        names: &[String],
        deadline: Duration,
    ) -> Vec<(String, Timed<UnitState>)> {
        if names.is_empty() {
            return Vec::new();
        }
        let bus = match self.connection(deadline).await {
            Ok(bus) => bus,
            Err(why) => {
                let failed = |name: &String| {
                    let doing = format!("asking systemd for the state of {name}");
                    (
                        name.clone(),
                        (
                            Duration::ZERO,
                            Err(ProbeError::Answer {
                                doing,
                                why: why.clone(),
                            }),
                        ),
                    )
                };
                return names.iter().map(failed).collect();
            }
        };
        let mut asked = JoinSet::new();
        for (place, name) in names.iter().cloned().enumerate() {
            let bus = bus.clone();
            asked.spawn(async move {
                let state = timed(async {
                    tokio::time::timeout(deadline, units::state(&bus, &name))
                        .await
                        .unwrap_or_else(|_| {
                            let doing = format!("asking systemd for the state of {name}");
                            Err(ProbeError::Deadline { doing, deadline })
                        })
                })
                .await;
                (place, name, state)
            });
        }
        let mut states = asked.join_all().await;
        states.sort_by_key(|(place, ..)| *place);
        // Whatever went wrong may lie in the connection: the next measurement makes a new one.
        if states.iter().any(|(_, _, (_, state))| state.is_err()) {
            self.0 = None;
        }
        states
            .into_iter()
            .map(|(_, name, state)| (name, state))
            .collect()
    }

    async fn connection(&mut self, deadline: Duration) -> Result<zbus::Connection, String> {
        if let Some(bus) = &self.0 {
            return Ok(bus.clone());
        }
        let bus = tokio::time::timeout(deadline, zbus::Connection::system())
            .await
            .map_err(|_| {
                format!(
                    "the message bus did not answer within {} ms",
                    deadline.as_millis()
                )
            })?
            .map_err(|error| format!("connecting to the message bus: {error}"))?;
        self.0 = Some(bus.clone());
        Ok(bus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawgress_link::{ruleset::Ruleset, seal::Forwarding};

    fn kernel(loaded: bool, generation: u32, ipv4: bool) -> Vec<Check> {
        let policy = || "drop".to_owned();
        let ruleset = Ruleset {
            loaded,
            generation,
            input: policy(),
            forward: policy(),
            output: policy(),
            detail: "as listed".to_owned(),
        };
        judge_kernel((
            Duration::ZERO,
            Ok(Measured {
                ruleset,
                forwarding: Forwarding { ipv4, ipv6: false },
            }),
        ))
    }

    fn oks(checks: &[Check]) -> Vec<bool> {
        checks.iter().map(|check| check.ok).collect()
    }

    #[test]
    fn a_sealed_box_must_not_forward() {
        assert_eq!(oks(&kernel(true, ruleset::SEALED, false)), [true, true]);
        let checks = kernel(true, ruleset::SEALED, true);
        assert_eq!(oks(&checks), [true, false]);
        assert!(
            checks[1].detail.contains("IPv4 is forwarded"),
            "{}",
            checks[1].detail
        );
    }

    #[test]
    fn a_committed_revision_may_forward_but_only_while_it_is_loaded() {
        assert_eq!(oks(&kernel(true, 7, true)), [true, true]);
        assert_eq!(oks(&kernel(false, 7, true)), [false, false]);
    }

    #[test]
    fn a_revision_that_is_not_enforced_breaks_the_enforcer_and_a_sealed_box_does_not() {
        let check = |revision, enforcing| {
            let status = control::Status {
                revision,
                generation: 3,
                enforcing,
                detail: "as said".to_owned(),
                principals: 1,
                domains: 1,
                pins: 0,
                clock_trusted: true,
                next_change: None,
                warnings: Vec::new(),
            };
            judge_enforcer((Duration::ZERO, Ok(status)))
        };
        assert!(check(Some(7), true).ok && check(None, false).ok);
        let broken = check(Some(7), false);
        assert!(
            !broken.ok
                && broken
                    .detail
                    .contains("revision 7 is not enforced: as said")
        );
        let silent = AskError::Unfit("that for its status");
        assert!(!judge_enforcer((Duration::ZERO, Err(silent))).ok);
    }

    #[test]
    fn silence_of_appliance_init_breaks_both_of_its_checks() {
        let error = ProbeError::Deadline {
            doing: "asking".to_owned(),
            deadline: Duration::from_millis(5),
        };
        assert_eq!(
            oks(&judge_kernel((Duration::ZERO, Err(error)))),
            [false, false]
        );
    }

    #[test]
    fn active_is_the_only_state_of_a_unit_that_counts() {
        let state = |load: &str, active: &str| UnitState {
            load: load.to_owned(),
            active: active.to_owned(),
            sub: "running".to_owned(),
            restarts: 2,
        };
        assert_eq!(
            judge_unit(&state("loaded", "active")),
            Ok("active (running), restarted 2 times".to_owned())
        );
        assert!(judge_unit(&state("loaded", "activating")).is_err());
        assert_eq!(
            judge_unit(&state("masked", "active")),
            Err("masked".to_owned())
        );
    }
}
