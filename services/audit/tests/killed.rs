//! Gateways and the audit service killed with -9 at random while they work: every request that was answered has exactly
//! one event, none has two, and the chain verifies.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clawgress_audit::event::{Begun, Decision, Event, Micros, Outcome};
use clawgress_audit::query::{Query, page};
use clawgress_audit::queue::{Queue, Settings, lanes};
use clawgress_audit::ship::{drain, keep_shipping};
use clawgress_audit::store::checkpoint::SigningKey;
use clawgress_audit::store::{self, Store};
use clawgress_audit::verify::{Trust, verify};
use tokio::net::UnixStream;

const PLACE: &str = "CLAWGRESS_AUDIT_TEST_PLACE";
const FIRST: &str = "CLAWGRESS_AUDIT_TEST_FIRST";

/// The gateway of the test below, run as a process of its own: it tells each request that it has answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway() {
    let Some(place) = std::env::var_os(PLACE) else {
        return;
    };
    let place = Path::new(&place);
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let settings = Settings {
        max_bytes: 64 * 1024 * 1024,
        ..Settings::default()
    };
    let socket = place.join("run/ship.sock");
    let queue = Arc::new(Queue::open(&place.join("queue"), settings).unwrap());
    let reader = queue.reader();
    let to = socket.clone();
    tokio::spawn(async move {
        keep_shipping(|| UnixStream::connect(to.clone()), reader, "gateway").await;
    });
    for lane in lanes(&place.join("queue")).unwrap() {
        let stream = UnixStream::connect(&socket).await;
        let queue = lane.open(settings).unwrap();
        if let Ok(stream) = stream {
            // Cut by the service's death: the lane is found again by the next process.
            let _ = drain(stream, queue, "gateway").await;
        }
    }
    let mut out = std::io::stdout();
    let mut open = Vec::new();
    for number in first.. {
        let request = format!("r{number}");
        let begun = Begun {
            // Or retention would take them for old.
            timestamp: Micros::now(),
            request_id: request.as_str().into(),
            agent_id: Some("agent-1".into()),
            ..Begun::default()
        };
        match number % 4 {
            0 => {
                if queue.whole(&begun, &Outcome::default()).is_err() {
                    break;
                }
            }
            kind => match queue.begin(&begun) {
                // Some stay open for a while, and some for ever.
                Ok(ticket) if kind == 1 => open.push(ticket),
                Ok(ticket) => queue.end(ticket, &Outcome::default()),
                Err(_) => break,
            },
        }
        writeln!(out, "answered {request}").unwrap();
        if open.len() > 50 {
            open.remove(0).end(&Outcome::default());
        }
        if number % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    std::mem::forget(open);
}

fn service(place: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_clawgress-audit"))
        .arg("--config")
        .arg(place.join("audit.toml"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn gateway_process(place: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "gateway", "--nocapture"])
        .env(PLACE, place)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn exactly_one_event_for_each_request_whoever_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    std::fs::create_dir(place.join("run")).unwrap();
    std::fs::create_dir(place.join("state")).unwrap();
    let uid = nix::unistd::getuid().as_raw();
    let config = format!(
        "state = \"{0}/state\"\napi_socket = \"{0}/run/api.sock\"\napi_uids = []\nship_socket = \"{0}/run/ship.sock\"\n\
         enrol_socket = \"{0}/none\"\nsegment_bytes = 1048576\ncheckpoint_seconds = 1\n\
         resolver = \"127.0.0.1:53\"\nrevision = \"{0}/boot.json\"\nfiles = \"{0}/config\"\n[shippers]\ngateway = {uid}\n",
        place.display()
    );
    std::fs::write(place.join("audit.toml"), config).unwrap();
    let mut audit = service(place);
    let mut answered: Vec<String> = Vec::new();
    for round in 0_u64..12 {
        let mut gateway = gateway_process(place, round * 1_000_000);
        let lines = BufReader::new(gateway.stdout.take().unwrap());
        let lines = std::thread::spawn(move || {
            let answers = lines.lines().map_while(Result::ok);
            // A line that the kill has cut was not an answer.
            let whole =
                answers.filter_map(|line| line.strip_prefix("answered ").map(str::to_owned));
            whole.collect::<Vec<_>>()
        });
        let life = Duration::from_millis(150 + 97 * (round % 5));
        std::thread::sleep(life / 2);
        if round % 3 == 1 {
            audit.kill().unwrap();
            audit.wait().unwrap();
            audit = service(place);
        }
        std::thread::sleep(life / 2);
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        answered.extend(lines.join().unwrap());
    }
    // One more, so that what is left of the others gets through.
    let settled = settle(place);
    audit.kill().unwrap();
    audit.wait().unwrap();
    assert!(settled, "the queue was not emptied");
    assert!(answered.len() > 2000, "{}", answered.len());

    let key = SigningKey::open(&place.join("state/signing.key")).unwrap();
    let store = Store::open(
        &place.join("state/segments"),
        key,
        store::Settings::default(),
    )
    .unwrap();
    let mut events: HashMap<String, u32> = HashMap::new();
    let mut query = Query {
        limit: 10_000,
        ..Query::default()
    };
    loop {
        let page = page(&store, &query).unwrap();
        for line in &page.lines {
            let event = Event::parse(line.json.as_bytes()).unwrap();
            assert_ne!(
                event.outcome.reason.as_deref(),
                Some("missing"),
                "{}",
                line.json
            );
            if event.outcome.decision != Decision::Notice {
                *events
                    .entry(event.begun.request_id.into_owned())
                    .or_default() += 1;
            }
        }
        match page.next {
            Some(next) => query.after = Some(next.to_string()),
            None => break,
        }
    }
    assert!(
        events.values().all(|count| *count == 1),
        "an event is there twice"
    );
    // The last line of a killed process may be cut in the middle of its number.
    let lost: Vec<_> = answered
        .iter()
        .filter(|request| !events.contains_key(*request))
        .collect();
    assert!(
        lost.len() <= 12 && lost.iter().all(|request| is_cut(request, &events)),
        "{} lost, from {:?} to {:?}",
        lost.len(),
        lost.first(),
        lost.last()
    );
    let trust = Trust {
        key: Some(store.public_key()),
        ..Trust::default()
    };
    let report = verify(&place.join("state/segments"), &trust).unwrap();
    assert!(report.good, "{:?}", report.faults);
    assert_eq!(report.pruned, 0);
    println!("{} answered, {} events", answered.len(), events.len());
}

fn is_cut(request: &str, events: &HashMap<String, u32>) -> bool {
    events.keys().any(|event| event.starts_with(request))
}

/// Ships what is left in all lanes, as the next gateway does.
fn settle(place: &Path) -> bool {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    runtime.block_on(async {
        while Instant::now() < until {
            let left = lanes(&place.join("queue")).unwrap();
            if left.is_empty() {
                return true;
            }
            for lane in left {
                let queue = lane.open(Settings::default()).unwrap();
                if let Ok(stream) = UnixStream::connect(place.join("run/ship.sock")).await {
                    let _ = drain(stream, queue, "gateway").await;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    })
}
