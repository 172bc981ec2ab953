//! What is counted for whoever watches the gateway: requests by decision and reason, and how long their servers took to be
//! reached. Counting is a few atomic additions; the text is made when somebody asks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Upper ends of the histogram's buckets, in milliseconds.
const BUCKETS: [f64; 12] = [
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 5000.0,
];
/// Reasons are words of the gateway's own; more than so many would be a mistake, and are counted as one.
const MOST_REASONS: usize = 128;

#[derive(Debug, Default)]
pub struct Metrics {
    allowed: AtomicU64,
    /// Allowed that ended otherwise than they should, and all denied ones.
    reasons: Mutex<BTreeMap<(&'static str, Box<str>), u64>>,
    buckets: [AtomicU64; BUCKETS.len()],
    measured: AtomicU64,
    microseconds: AtomicU64,
    jumps: AtomicU64,
}

/// What is true at the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    pub connections: usize,
    pub flows: usize,
    pub tunnels: usize,
    pub events_waiting: u64,
    pub events_bytes: u64,
    pub events_dropped: u64,
    pub revision: Option<u64>,
    pub credentials: Option<u64>,
    pub ready: bool,
    pub clock_trusted: bool,
}

impl Metrics {
    pub fn allowed(&self, reason: Option<&str>, latency_ms: Option<f64>) {
        match reason {
            None => drop(self.allowed.fetch_add(1, Ordering::Relaxed)),
            Some(reason) => self.count("allow", reason),
        }
        let Some(latency) = latency_ms else { return };
        if let Some(at) = BUCKETS.iter().position(|end| latency <= *end)
            && let Some(bucket) = self.buckets.get(at)
        {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.measured.fetch_add(1, Ordering::Relaxed);
        // Never negative, and far from any bound.
        #[allow(clippy::cast_sign_loss)]
        self.microseconds
            .fetch_add((latency * 1e3) as u64, Ordering::Relaxed);
    }

    /// What is said in words behind a reason's own word is left out.
    pub fn denied(&self, reason: &str) {
        self.count("deny", reason.split(':').next().unwrap_or_default());
    }

    pub fn clock_jumped(&self) {
        self.jumps.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, decision: &'static str, reason: &str) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = if reasons.len() < MOST_REASONS {
            reason
        } else {
            "other"
        };
        *reasons.entry((decision, reason.into())).or_default() += 1;
    }

    /// As Prometheus reads it.
    pub fn text(&self, now: &Now) -> String {
        let mut text = String::with_capacity(4096);
        self.requests(&mut text);
        self.latency(&mut text);
        let gauges = [
            ("connections", now.connections as u64),
            ("flows", now.flows as u64),
            ("tunnels", now.tunnels as u64),
            ("audit_queue_events", now.events_waiting),
            ("audit_queue_bytes", now.events_bytes),
            ("revision", now.revision.unwrap_or(0)),
            ("credentials", now.credentials.unwrap_or(0)),
            ("ready", now.ready.into()),
            ("clock_trusted", now.clock_trusted.into()),
        ];
        for (name, value) in gauges {
            put(&mut text, name, "gauge", value);
        }
        put(
            &mut text,
            "audit_dropped_total",
            "counter",
            now.events_dropped,
        );
        let jumps = self.jumps.load(Ordering::Relaxed);
        put(&mut text, "clock_jumps_total", "counter", jumps);
        text
    }

    fn requests(&self, text: &mut String) {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a text never fails, here and below.
        let _ = writeln!(text, "# TYPE clawgress_gateway_requests_total counter");
        let allowed = self.allowed.load(Ordering::Relaxed);
        let mut line = |decision: &str, reason: &str, count: u64| {
            let _ = writeln!(
                text,
                "clawgress_gateway_requests_total{{decision=\"{decision}\",reason=\"{reason}\"}} {count}"
            );
        };
        line("allow", "", allowed);
        for ((decision, reason), count) in &*reasons {
            line(decision, reason, *count);
        }
    }

    fn latency(&self, text: &mut String) {
        const NAME: &str = "clawgress_gateway_reached_seconds";
        let _ = writeln!(text, "# TYPE {NAME} histogram");
        let mut sum = 0;
        for (bucket, end) in self.buckets.iter().zip(BUCKETS) {
            sum += bucket.load(Ordering::Relaxed);
            let _ = writeln!(text, "{NAME}_bucket{{le=\"{}\"}} {sum}", end / 1e3);
        }
        let measured = self.measured.load(Ordering::Relaxed);
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(
            text,
            "{NAME}_bucket{{le=\"+Inf\"}} {measured}\n{NAME}_sum {seconds}\n{NAME}_count {measured}"
        );
    }
}

fn put(text: &mut String, name: &str, kind: &str, value: u64) {
    let _ = writeln!(
        text,
        "# TYPE clawgress_gateway_{name} {kind}\nclawgress_gateway_{name} {value}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told_as_prometheus_reads_it() {
        let metrics = Metrics::default();
        metrics.allowed(None, Some(0.3));
        metrics.allowed(None, Some(9000.0));
        metrics.allowed(Some("idle"), None);
        metrics.denied("malformed-request: the head is longer than 65536 bytes");
        metrics.denied("malformed-request: something else");
        metrics.denied("rule");
        let text = metrics.text(&Now {
            flows: 3,
            revision: Some(17),
            ..Now::default()
        });
        for line in [
            "clawgress_gateway_requests_total{decision=\"allow\",reason=\"\"} 2",
            "clawgress_gateway_requests_total{decision=\"allow\",reason=\"idle\"} 1",
            "clawgress_gateway_requests_total{decision=\"deny\",reason=\"malformed-request\"} 2",
            "clawgress_gateway_requests_total{decision=\"deny\",reason=\"rule\"} 1",
            "clawgress_gateway_reached_seconds_bucket{le=\"0.00025\"} 0",
            "clawgress_gateway_reached_seconds_bucket{le=\"0.0005\"} 1",
            "clawgress_gateway_reached_seconds_bucket{le=\"5\"} 1",
            "clawgress_gateway_reached_seconds_bucket{le=\"+Inf\"} 2",
            "clawgress_gateway_reached_seconds_count 2",
            "clawgress_gateway_flows 3",
            "clawgress_gateway_revision 17",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn no_reason_takes_room_without_end() {
        let metrics = Metrics::default();
        for n in 0..1000 {
            metrics.denied(&format!("reason-{n}"));
        }
        let reasons = metrics.reasons.lock().unwrap();
        assert_eq!(reasons.len(), MOST_REASONS + 1);
        assert_eq!(
            reasons[&("deny", "other".into())],
            1000 - MOST_REASONS as u64
        );
    }
}
