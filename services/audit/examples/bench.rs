//! Figures of queue and store: what an append costs its caller, how many a core takes, how long a question takes.
//! Announces each figure on a line of its own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use clawgress_audit::event::{Begun, Decision, Micros, Outcome};
use clawgress_audit::query::{Filter, Query, page};
use clawgress_audit::queue::{Durability, Queue, Queued, Settings};
use clawgress_audit::store::checkpoint::SigningKey;
use clawgress_audit::store::{self, Store};

#[derive(Parser)]
struct Arguments {
    /// Where queue and store are made; on the disk that is meant.
    #[arg(long)]
    directory: PathBuf,
    /// Events in the store that is asked.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Events appended to the queue.
    #[arg(long, default_value_t = 500_000)]
    appends: u64,
}

fn figure(name: &str, value: f64, unit: &str, must: &str, holds: bool) {
    println!(
        "figure: {}",
        serde_json::json!({"figure": name, "value": (value * 1000.0).round() / 1000.0, "unit": unit, "must": must, "holds": holds})
    );
}

fn begun(number: u64, at: Micros) -> (String, String, Micros) {
    (
        format!("01j9-{number:020}"),
        format!("agent-{}", number % 1000),
        at,
    )
}

fn about((request, agent, at): &(String, String, Micros)) -> Begun<'_> {
    Begun {
        timestamp: *at,
        request_id: request.as_str().into(),
        agent_id: Some(agent.as_str().into()),
        team_id: Some("research".into()),
        project_id: Some("crawler".into()),
        environment: Some("production".into()),
        auth_type: Some("api-key".into()),
        credential: Some("4f9a01bc".into()),
        client_address: Some("10.20.30.40".into()),
        destination_host: Some("api.example.com".into()),
        destination_port: Some(443),
        http_method: Some("CONNECT".into()),
        policy_id: Some("allow-api".into()),
        policy_version: Some(3),
        revision: Some(17),
        ..Begun::default()
    }
}

fn outcome() -> Outcome<'static> {
    Outcome {
        decision: Decision::Allow,
        status: Some(200),
        destination_address: Some("192.0.2.7".into()),
        latency_ms: Some(0.213),
        bytes_out: Some(1234),
        bytes_in: Some(56_789),
        duration_ms: Some(321),
        ..Outcome::default()
    }
}

/// Appends while the store, in a thread of its own, takes and acknowledges.
fn append(arguments: &Arguments, whole: bool) -> (Duration, Vec<u64>) {
    let directory = arguments.directory.join("queue");
    let _ = std::fs::remove_dir_all(&directory);
    let settings = Settings {
        durability: Durability::Batch,
        max_bytes: 2 << 30,
        share_per_agent: 2 << 30,
        ..Settings::default()
    };
    let queue = Queue::open(&directory, settings).expect("a queue");
    let mut single = Vec::with_capacity(arguments.appends as usize);
    let mut spent = Duration::ZERO;
    let outcome = outcome();
    for number in 0..arguments.appends {
        let names = begun(number, Micros(number.cast_signed()));
        let about = about(&names);
        let before = Instant::now();
        if whole {
            queue.whole(&about, &outcome).expect("room");
        } else {
            let ticket = queue.begin(&about).expect("room");
            queue.end(ticket, &outcome);
        }
        let took = before.elapsed();
        spent += took;
        single.push(took.as_nanos() as u64);
    }
    single.sort_unstable();
    (spent, single)
}

fn main() {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.directory).expect("a directory");
    for (name, whole, records) in [
        ("append_whole", true, 1.0),
        ("append_begin_and_end", false, 2.0),
    ] {
        let (spent, single) = append(&arguments, whole);
        let rate = arguments.appends as f64 / spent.as_secs_f64();
        figure(
            &format!("{name}_per_second"),
            rate,
            "events/s",
            ">= 50000",
            rate >= 50_000.0,
        );
        for (quantile, at) in [("p50", 50), ("p99", 99)] {
            let value = single[single.len() * at / 100] as f64 / 1000.0 / records;
            figure(
                &format!("{name}_{quantile}"),
                value,
                "us/append",
                "< 2 at p50",
                at != 50 || value < 2.0,
            );
        }
    }
    let _ = std::fs::remove_dir_all(arguments.directory.join("queue"));
    ask(&arguments);
}

/// A day of events, a thousand agents; the last hour of one.
fn ask(arguments: &Arguments) {
    let place = arguments.directory.join("store");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).expect("a directory");
    let key = SigningKey::open(&place.join("key")).expect("a key");
    let store =
        Store::open(&place.join("segments"), key, store::Settings::default()).expect("a store");
    let day = 86_400_000_000_u64;
    // What a queue hands out, made once and numbered anew: its making is not the store's work.
    let mut filled = Duration::ZERO;
    let batch = 5000;
    for from in (0..arguments.events).step_by(batch) {
        let records: Vec<Queued> = (from..(from + batch as u64).min(arguments.events))
            .map(|number| {
                let at = Micros((day / arguments.events * number).cast_signed());
                let names = begun(number, at);
                let mut text = serde_json::to_vec(&about(&names)).expect("text");
                text.pop();
                let end = serde_json::to_vec(&outcome()).expect("text");
                text.push(b',');
                text.extend_from_slice(&end[1..]);
                Queued {
                    sequence: number + 1,
                    text,
                }
            })
            .collect();
        let before = Instant::now();
        store.append("gw", "q", &records).expect("stored");
        filled += before.elapsed();
    }
    store.checkpoint(Micros::now()).expect("signed");
    figure(
        "store_per_second",
        arguments.events as f64 / filled.as_secs_f64(),
        "events/s",
        "none",
        true,
    );
    let filter = Filter {
        from: Some(Micros((day - 3_600_000_000).cast_signed())),
        to: None,
        fields: [("agent_id".to_owned(), "agent-77".to_owned())].into(),
    };
    let mut took = Vec::new();
    let mut found = 0;
    for _ in 0..9 {
        let before = Instant::now();
        let query = Query {
            filter: filter.clone(),
            newest_first: true,
            limit: 10_000,
            after: None,
        };
        found = page(&store, &query).expect("an answer").lines.len();
        took.push(before.elapsed());
    }
    took.sort_unstable();
    let median = took[took.len() / 2].as_secs_f64() * 1000.0;
    figure(
        "query_agent_last_hour",
        median,
        "ms",
        "<= 200",
        median <= 200.0,
    );
    figure(
        "query_agent_last_hour_found",
        found as f64,
        "events",
        "none",
        found > 0,
    );
    let before = Instant::now();
    let trust = clawgress_audit::verify::Trust {
        key: Some(store.public_key()),
        ..Default::default()
    };
    let report = clawgress_audit::verify::verify(store.place(), &trust).expect("a report");
    figure(
        "verify",
        before.elapsed().as_secs_f64(),
        "s",
        "good",
        report.good,
    );
}
