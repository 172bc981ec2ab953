//! The ledger against a naive model, under many threads, and over a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clawgress_config::access::{Quota, QuotaMode, Quotas};
use clawgress_config::policy::Period;
use clawgress_quota::{Ledger, MAX_DELAY, Outcome, Reservation, Share, Snapshot, Spent, Subject};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_764_000_000 * SECOND;
const WHO: Subject<'_> = Subject {
    agent: "agent-1",
    team: "research",
    project: "crawler",
};

fn quota(rps: Option<u32>, rpm: Option<u32>, mode: QuotaMode) -> Quota {
    Quota {
        rps,
        rpm,
        mode,
        ..Quota::default()
    }
}

fn agent(quota: Quota) -> Quotas {
    Quotas {
        agents: [(WHO.agent.to_owned(), quota)].into(),
        ..Quotas::default()
    }
}

fn admitted(outcome: Outcome) -> Reservation {
    match outcome {
        Outcome::Admit(reservation) => reservation,
        other => panic!("{other:?}"),
    }
}

fn refused(outcome: Outcome) -> (Duration, &'static str) {
    match outcome {
        Outcome::Refuse { retry_after, limit } => (retry_after, limit),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hard_stop_says_when_to_come_again() {
    let ledger = Ledger::new(&agent(quota(Some(2), Some(3), QuotaMode::HardStop)));
    let now = START + SECOND / 4;
    drop(admitted(ledger.reserve(&WHO, now)));
    drop(admitted(ledger.reserve(&WHO, now)));
    let quarters = Duration::from_millis(750);
    assert_eq!(refused(ledger.reserve(&WHO, now)), (quarters, "agent-rps"));
    drop(admitted(ledger.reserve(&WHO, now + SECOND)));
    let (wait, limit) = refused(ledger.reserve(&WHO, now + SECOND));
    assert_eq!((wait.as_secs(), limit), (58, "agent-rpm"));
    drop(admitted(ledger.reserve(&WHO, START + 60 * SECOND)));
}

#[test]
fn a_soft_stop_delays_up_to_a_bound() {
    let ledger = Ledger::new(&agent(quota(Some(2), None, QuotaMode::SoftStop)));
    let mut waits = Vec::new();
    for _ in 0..6 {
        waits.push(match ledger.reserve(&WHO, START) {
            Outcome::Admit(_) => 0,
            Outcome::Delay(wait, _) => wait.as_secs(),
            Outcome::Refuse { .. } => 99,
        });
    }
    assert_eq!(waits, [0, 0, 1, 1, 2, 2]);
    assert_eq!(MAX_DELAY, Duration::from_secs(2));
    assert_eq!(refused(ledger.reserve(&WHO, START)).1, "agent-rps");
    // Who waited has had the places of the seconds that follow.
    assert!(matches!(
        ledger.reserve(&WHO, START + SECOND),
        Outcome::Delay(_, _)
    ));
}

#[test]
fn alert_only_admits_and_tells() {
    let ledger = Ledger::new(&agent(quota(Some(1), None, QuotaMode::AlertOnly)));
    assert_eq!(admitted(ledger.reserve(&WHO, START)).over(), None);
    assert_eq!(
        admitted(ledger.reserve(&WHO, START)).over(),
        Some("agent-rps")
    );
    assert_eq!(admitted(ledger.reserve(&WHO, START + SECOND)).over(), None);
}

#[test]
fn a_refused_request_counts_against_nobody() {
    let mut quotas = agent(quota(Some(1), None, QuotaMode::HardStop));
    quotas.teams = [(
        WHO.team.to_owned(),
        quota(Some(3), None, QuotaMode::HardStop),
    )]
    .into();
    let ledger = Ledger::new(&quotas);
    drop(admitted(ledger.reserve(&WHO, START)));
    for _ in 0..10 {
        refused(ledger.reserve(&WHO, START));
    }
    let other = Subject {
        agent: "agent-2",
        ..WHO
    };
    drop(admitted(ledger.reserve(&other, START)));
    drop(admitted(ledger.reserve(&other, START)));
    assert_eq!(refused(ledger.reserve(&other, START)).1, "team-rps");
}

#[test]
fn connections_end_when_dropped() {
    let limit = Quota {
        connections: Some(2),
        ..Quota::default()
    };
    let ledger = Ledger::new(&agent(limit));
    let first = admitted(ledger.reserve(&WHO, START));
    let _second = admitted(ledger.reserve(&WHO, START));
    assert_eq!(refused(ledger.reserve(&WHO, START)).1, "agent-connections");
    // Other limits keep the connections that there are.
    ledger.replace(&agent(limit), START);
    refused(ledger.reserve(&WHO, START));
    ledger.replace(&Quotas::default(), START);
    ledger.replace(&agent(limit), START);
    refused(ledger.reserve(&WHO, START));
    drop(first);
    admitted(ledger.reserve(&WHO, START));
}

#[test]
fn bytes_of_a_period() {
    let limit = Quota {
        bytes: Some((1_000, Period::Hour)),
        ..Quota::default()
    };
    let ledger = Ledger::new(&agent(limit));
    let connection = admitted(ledger.reserve(&WHO, START));
    assert_eq!(ledger.settle(&connection, 999, START), Spent::Within);
    assert_eq!(
        ledger.settle(&connection, 1, START),
        Spent::Over("agent-bytes")
    );
    let (wait, limit_name) = refused(ledger.reserve(&WHO, START));
    assert_eq!(limit_name, "agent-bytes");
    // A quota that is taken away and given again does not forget.
    ledger.replace(&Quotas::default(), START);
    drop(admitted(ledger.reserve(&WHO, START)));
    ledger.replace(&agent(limit), START);
    refused(ledger.reserve(&WHO, START));
    let next = START + wait.as_nanos() as u64;
    refused(ledger.reserve(&WHO, next - 1));
    drop(admitted(ledger.reserve(&WHO, next)));
}

#[test]
fn what_was_used_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts.json");
    assert!(Snapshot::read(&path).unwrap().is_none());
    let quotas = agent(Quota {
        rpm: Some(3),
        bytes: Some((1_000, Period::Day)),
        ..Quota::default()
    });
    let ledger = Ledger::new(&quotas);
    for _ in 0..2 {
        let connection = admitted(ledger.reserve(&WHO, START));
        assert_eq!(ledger.settle(&connection, 400, START), Spent::Within);
    }
    ledger.snapshot().write(&path).unwrap();
    let ledger = Ledger::new(&quotas);
    let snapshot = Snapshot::read(&path).unwrap().unwrap();
    ledger.restore(&snapshot);
    // Twice is once.
    ledger.restore(&snapshot);
    let connection = admitted(ledger.reserve(&WHO, START));
    assert_eq!(refused(ledger.reserve(&WHO, START)).1, "agent-rpm");
    assert_eq!(
        ledger.settle(&connection, 200, START),
        Spent::Over("agent-bytes")
    );
    for damaged in ["", "{}", "{\"format\":2,\"counts\":[]}"] {
        std::fs::write(&path, damaged).unwrap();
        let error = Snapshot::read(&path).unwrap_err().to_string();
        assert!(error.contains("counts.json"), "{error}");
    }
}

/// Never more than the limit in any window, and never less than it where there was the demand.
#[test]
fn exact_under_64_clients() {
    const CLIENTS: u64 = 64;
    const LIMIT: u64 = 500;
    const WINDOWS: u64 = 8;
    let mut quotas = agent(quota(Some(LIMIT as u32), None, QuotaMode::HardStop));
    quotas.teams = [(
        WHO.team.to_owned(),
        quota(Some(LIMIT as u32 + 100), None, QuotaMode::HardStop),
    )]
    .into();
    let ledger = Arc::new(Ledger::new(&quotas));
    let counts: Arc<Vec<AtomicU64>> =
        Arc::new((0..WINDOWS * 2).map(|_| AtomicU64::new(0)).collect());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (ledger, counts) = (Arc::clone(&ledger), Arc::clone(&counts));
            // Half of them are the limited agent, half another one of the same team.
            let limited = client % 2 == 0;
            thread::spawn(move || {
                let who = Subject {
                    agent: if limited { WHO.agent } else { "agent-2" },
                    ..WHO
                };
                let mut waiting = Vec::new();
                for at in 0..WINDOWS {
                    for step in 0..60 {
                        let now = START + at * SECOND + step * (SECOND / 60);
                        if let Outcome::Admit(reservation) = ledger.reserve(&who, now) {
                            let at = (at * 2 + u64::from(!limited)) as usize;
                            counts[at].fetch_add(1, Ordering::Relaxed);
                            waiting.push(reservation);
                        }
                        if step % 7 == 0 {
                            waiting.clear();
                        }
                    }
                    // All meet, or a slow one would ask in a window that others have left.
                    BARRIER.wait();
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    for at in 0..WINDOWS as usize {
        let limited = counts[at * 2].load(Ordering::Relaxed);
        let others = counts[at * 2 + 1].load(Ordering::Relaxed);
        assert!(limited <= LIMIT, "window {at}: {limited}");
        assert_eq!(limited + others, LIMIT + 100, "window {at}");
    }
}

static BARRIER: std::sync::LazyLock<std::sync::Barrier> =
    std::sync::LazyLock::new(|| std::sync::Barrier::new(64));

/// One limit, as somebody would count it with a pencil.
#[derive(Default)]
struct Pencil {
    admitted: BTreeMap<u64, u32>,
}

proptest! {
    #[test]
    fn hard_limits_are_those_of_a_pencil(
        rps in prop::option::of(1_u32..4), rpm in prop::option::of(1_u32..12),
        team in prop::option::of(1_u32..6),
        steps in prop::collection::vec((0_u64..900, any::<bool>()), 1..200),
    ) {
        let mut quotas = agent(quota(rps, rpm, QuotaMode::HardStop));
        if let Some(team) = team {
            quotas.teams = [(WHO.team.to_owned(), quota(Some(team), None, QuotaMode::HardStop))].into();
        }
        let ledger = Ledger::new(&quotas);
        let mut pencils: [Pencil; 3] = Default::default();
        let mut now = START;
        for (milliseconds, known) in steps {
            now += milliseconds * 1_000_000;
            let who = Subject { agent: if known { WHO.agent } else { "agent-2" }, ..WHO };
            let limits = [
                (rps.filter(|_| known), SECOND),
                (rpm.filter(|_| known), 60 * SECOND),
                (team, SECOND),
            ];
            let fits = limits.iter().zip(&pencils).all(|((limit, length), pencil)| {
                limit.is_none_or(|limit| {
                    pencil.admitted.get(&(now / length)).copied().unwrap_or(0) < limit
                })
            });
            let outcome = ledger.reserve(&who, now);
            prop_assert_eq!(matches!(outcome, Outcome::Admit(_)), fits, "{:?}", outcome);
            if let Outcome::Refuse { retry_after, .. } = outcome {
                // Not before then, and then if nobody else comes.
                let then = now + retry_after.as_nanos() as u64;
                let probe = Ledger::new(&quotas);
                probe.restore(&ledger.snapshot());
                prop_assert!(!matches!(probe.reserve(&who, then - 1), Outcome::Admit(_)));
                prop_assert!(matches!(probe.reserve(&who, then), Outcome::Admit(_)));
            }
            if fits {
                for ((limit, length), pencil) in limits.iter().zip(&mut pencils) {
                    if limit.is_some() {
                        *pencil.admitted.entry(now / length).or_default() += 1;
                    }
                }
            }
        }
    }
}

#[test]
fn what_was_used_before_is_found_by_limits_that_come_later() {
    let quotas = Quotas {
        agents: [(
            "agent-1".to_owned(),
            Quota {
                rpm: Some(3),
                ..Quota::default()
            },
        )]
        .into(),
        ..Quotas::default()
    };
    let who = Subject {
        agent: "agent-1",
        team: "t",
        project: "p",
    };
    let now = 1_764_000_000_000_000_000;
    let before = Ledger::new(&quotas);
    for _ in 0..2 {
        assert!(matches!(before.reserve(&who, now), Outcome::Admit(_)));
    }
    let after = Ledger::new(&Quotas::default());
    after.restore(&before.snapshot());
    after.replace(&quotas, now);
    assert!(matches!(after.reserve(&who, now), Outcome::Admit(_)));
    assert!(matches!(after.reserve(&who, now), Outcome::Refuse { .. }));
}

#[test]
fn connections_are_shared_out_like_requests() {
    let quotas = Quotas {
        teams: [(
            "t".to_owned(),
            Quota {
                connections: Some(5),
                ..Quota::default()
            },
        )]
        .into(),
        ..Quotas::default()
    };
    let who = Subject {
        agent: "a",
        team: "t",
        project: "p",
    };
    let mut open = Vec::new();
    for (index, most) in [(0, 3), (1, 2)] {
        let ledger = Ledger::new(&quotas);
        ledger.set_share(Share { index, count: 2 });
        let mut admitted = 0;
        while let Outcome::Admit(reservation) = ledger.reserve(&who, 1) {
            open.push(reservation);
            admitted += 1;
        }
        assert_eq!(admitted, most);
    }
    assert_eq!(open.len(), 5);
}
