//! Quotas over restarts of the gateway and of their own service.

use std::time::{Duration, Instant};

use clawgress_config::access::Quota;

use crate::stack::{Stack, asked, eventually};

/// So that a minute does not end in the middle of the test.
fn early_in_a_minute() {
    let seconds = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_secs() % 60
    };
    while seconds() > 40 {
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Requests of the agent in the minute that was counted last.
fn kept(stack: &Stack) -> u64 {
    let text = std::fs::read_to_string(stack.path("used.json")).unwrap_or_default();
    let Ok(used) = serde_json::from_str::<serde_json::Value>(&text) else {
        return 0;
    };
    let counts = &used["gateways"]["gateway"]["counts"];
    let of_agent = counts.as_array().into_iter().flatten();
    let minutes = of_agent.filter_map(|count| count["minute"]["count"].as_u64());
    minutes.max().unwrap_or(0)
}

#[test]
fn what_was_used_outlives_the_gateway_and_the_quota_service() {
    Stack::run(
        |revision| {
            let quota = Quota {
                rpm: Some(40),
                ..Quota::default()
            };
            revision
                .access
                .quotas
                .agents
                .insert("agent-1".to_owned(), quota);
        },
        |stack| {
            let key = stack.key("agent-1");
            early_in_a_minute();
            let mut admitted = 0;
            for round in 0..3 {
                let began = Instant::now();
                for _ in 0..8 {
                    admitted += u32::from(asked(&key, "used").0 == 200);
                }
                stack.waits_for("it is told to the service, and on its disk", |stack| {
                    kept(stack) >= u64::from(admitted)
                });
                match round {
                    0 => stack.kill("gateway"),
                    1 => {
                        stack.kill("quota");
                        stack.kill("gateway");
                        stack.start("quota");
                    }
                    _ => stack.stop("gateway"),
                }
                stack.start("gateway");
                // No part of the dead one is in the way: the next one has the whole limit at once.
                eventually("it admits again", || {
                    let (status, answer) = asked(&key, "first");
                    admitted += u32::from(status == 200);
                    (status == 200 || answer.contains("agent-rpm")).then_some(())
                });
                assert!(began.elapsed() < Duration::from_secs(8));
            }
            let more = (0..60).filter(|_| asked(&key, "rest").0 == 200).count();
            let all = admitted + more as u32;
            // What was asked before the key was known counts, too.
            assert!((30..=40).contains(&all), "{admitted} and {more}");
            assert!(more > 0 && more < 30, "{admitted} and {more}");
            assert_eq!(asked(&key, "over").0, 429);
        },
    );
}
