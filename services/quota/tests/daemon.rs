//! The daemon as it is shipped, on a socket of its own: leases, restarts of either side, and who is not let in.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clawgress_config::access::{FailMode, Quota, Quotas};
use clawgress_config::policy::Period;
use clawgress_quota::client::Client;
use clawgress_quota::{Ledger, Outcome, Share, Spent, Subject, UNAVAILABLE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const NOW: u64 = 1_764_000_000_000_000_000;
const WHO: Subject<'_> = Subject {
    agent: "agent-1",
    team: "t",
    project: "p",
};

struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    async fn start(directory: &Path) -> Self {
        let socket = directory.join("lease.sock");
        let config = directory.join("quota.toml");
        let text = format!(
            "socket = \"{}\"\ngateway_uids = []\nstate = \"{}\"\nsave_every_ms = 50\n",
            socket.display(),
            directory.join("used.json").display()
        );
        std::fs::write(&config, text).unwrap();
        std::fs::remove_file(&socket).ok();
        let child = Command::new(env!("CARGO_BIN_EXE_clawgress-quota"))
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let daemon = Self { child, socket };
        eventually("the daemon listens", || daemon.socket.exists()).await;
        daemon
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "not in 20 s: {what}"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

fn quotas() -> Quotas {
    let quota = Quota {
        rpm: Some(4),
        bytes: Some((1_000, Period::Day)),
        ..Quota::default()
    };
    Quotas {
        agents: [(WHO.agent.to_owned(), quota)].into(),
        ..Quotas::default()
    }
}

/// A ledger, and the task that keeps its lease.
struct Gateway {
    ledger: Arc<Ledger>,
    keeping: tokio::task::JoinHandle<()>,
}

impl Gateway {
    fn start(name: &str, socket: &Path, fail: FailMode) -> Self {
        let ledger = Arc::new(Ledger::new(&quotas()));
        let client = Client::new(name.to_owned(), socket.to_owned(), Arc::clone(&ledger));
        let keeping = tokio::spawn(client.run(move || fail));
        Self { ledger, keeping }
    }

    async fn has(&self, index: u32, count: u32) {
        let share = Share { index, count };
        eventually(&format!("{share:?}"), || self.ledger.share() == share).await;
    }

    fn admits(&self) -> bool {
        matches!(self.ledger.reserve(&WHO, NOW), Outcome::Admit(_))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

#[tokio::test]
async fn two_gateways_have_no_more_than_one() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path()).await;
    let first = Gateway::start("a", &daemon.socket, FailMode::Closed);
    first.has(0, 1).await;
    let second = Gateway::start("b", &daemon.socket, FailMode::Closed);
    first.has(0, 2).await;
    second.has(1, 2).await;
    let admitted = |gateway: &Gateway| (0..10).filter(|_| gateway.admits()).count();
    assert_eq!((admitted(&first), admitted(&second)), (2, 2));
    // Bytes count for both, whoever moved them.
    let Outcome::Admit(connection) = first.ledger.reserve(
        &Subject {
            agent: "agent-2",
            ..WHO
        },
        NOW,
    ) else {
        panic!("an agent without quota was refused")
    };
    drop(connection);
    // The next minute: both may ask again, until one has used the bytes.
    let later = NOW + 60_000_000_000;
    let Outcome::Admit(connection) = first.ledger.reserve(&WHO, later) else {
        panic!("refused in a new minute")
    };
    assert_eq!(
        first.ledger.settle(&connection, 1_000, later),
        Spent::Over("agent-bytes")
    );
    eventually("the other gateway hears of the bytes", || {
        matches!(
            second.ledger.reserve(&WHO, later + 60_000_000_000),
            Outcome::Refuse {
                limit: "agent-bytes",
                ..
            }
        )
    })
    .await;
    drop(first);
    second.has(0, 1).await;
}

#[tokio::test]
async fn what_was_used_outlives_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path()).await;
    let gateway = Gateway::start("a", &daemon.socket, FailMode::Closed);
    gateway.has(0, 1).await;
    assert!(gateway.admits() && gateway.admits() && gateway.admits());
    let state = directory.path().join("used.json");
    eventually("the counts are on the disk", || {
        std::fs::read_to_string(&state).is_ok_and(|text| text.contains("\"count\":3"))
    })
    .await;
    drop(gateway);
    daemon.kill();
    let daemon = Daemon::start(directory.path()).await;
    let gateway = Gateway::start("a", &daemon.socket, FailMode::Closed);
    gateway.has(0, 1).await;
    assert!(gateway.admits());
    assert!(!gateway.admits());
}

#[tokio::test]
async fn without_the_service_each_fail_mode_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path()).await;
    let closed = Gateway::start("a", &daemon.socket, FailMode::Closed);
    let open = Gateway::start("b", &daemon.socket, FailMode::Open);
    closed.has(0, 2).await;
    open.has(1, 2).await;
    daemon.kill();
    closed.has(0, 0).await;
    assert!(matches!(
        closed.ledger.reserve(&WHO, NOW),
        Outcome::Refuse {
            limit: UNAVAILABLE,
            ..
        }
    ));
    assert_eq!(open.ledger.share(), Share { index: 1, count: 2 });
    assert!(open.admits() && open.admits() && !open.admits());
    let _daemon = Daemon::start(directory.path()).await;
    closed.has(0, 2).await;
}

#[tokio::test]
async fn nonsense_is_answered_and_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path()).await;
    for line in [
        "\n",
        "{}\n",
        "[[[[[[\n",
        "{\"gateway\":\"\",\"holds\":{\"index\":0,\"count\":0},\"used\":{\"format\":1,\"counts\":[]},\"fresh\":true}\n",
        "{\"gateway\":\"x\",\"holds\":{\"index\":-1,\"count\":0},\"used\":{\"format\":1,\"counts\":[]},\"fresh\":true}\n",
    ] {
        let mut stream = tokio::net::UnixStream::connect(&daemon.socket)
            .await
            .unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(10), stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.contains("\"reply\":\"error\""), "{line}: {answer}");
    }
    let gateway = Gateway::start("a", &daemon.socket, FailMode::Closed);
    gateway.has(0, 1).await;
}

#[tokio::test]
async fn a_successor_has_the_whole_limit_and_what_drains_still_counts() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path()).await;
    let ledger = Arc::new(Ledger::new(&quotas()));
    let client = Client::new("a".to_owned(), daemon.socket.clone(), Arc::clone(&ledger));
    let (tell, told) = tokio::sync::watch::channel(false);
    let (handing_over, handed_over) = tokio::sync::oneshot::channel();
    let old = tokio::spawn(client.run_until(|| FailMode::Closed, told, handing_over));
    eventually("the first has the whole", || ledger.share() == Share::WHOLE).await;
    let Outcome::Admit(open) = ledger.reserve(&WHO, NOW) else {
        panic!("refused at first")
    };
    assert_eq!(ledger.settle(&open, 300, NOW), Spent::Within);
    tell.send_replace(true);
    handed_over.await.unwrap();
    assert!(matches!(
        ledger.reserve(&WHO, NOW),
        Outcome::Refuse {
            limit: UNAVAILABLE,
            ..
        }
    ));
    let new = Gateway::start("a", &daemon.socket, FailMode::Closed);
    new.has(0, 1).await;
    // Three of four are left of the minute, and what still flows through the old one is of the same thousand.
    assert!(new.admits() && new.admits() && new.admits() && !new.admits());
    assert_eq!(ledger.settle(&open, 500, NOW), Spent::Within);
    let later = NOW + 60_000_000_000;
    let Outcome::Admit(connection) = new.ledger.reserve(&WHO, later) else {
        panic!("refused in a new minute")
    };
    let mut used = 0;
    eventually("the bytes of both are counted together", || {
        used += 1;
        new.ledger.settle(&connection, 1, later) != Spent::Within
    })
    .await;
    assert!((1..=200).contains(&used), "{used}");
    new.has(0, 1).await;
    old.abort();
}
