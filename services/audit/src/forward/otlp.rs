//! Log records in OTLP's JSON form, posted to a collector over HTTPS. An answer of 200 is the acknowledgement.

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};

use super::ForwardError;
use super::address::Reach;
use crate::event::Micros;
use crate::store::Line;

const LONGEST_ANSWER: usize = 64 * 1024;

pub struct Otlp {
    pub reach: Reach,
    pub path: String,
}

impl Otlp {
    pub(super) async fn deliver(&self, lines: &[Line]) -> Result<(), ForwardError> {
        let failed = |why: String| self.reach.failed(why);
        let body = serde_json::to_vec(&export(lines)).map_err(|error| failed(error.to_string()))?;
        let request = Request::post(&self.path)
            .header("host", self.reach.host.to_string())
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(error.to_string()))?;
        let stream = TokioIo::new(self.reach.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| failed(error.to_string()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER)
                .collect()
                .await;
            let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
            if !status.is_success() {
                return Err(failed(format!(
                    "it answers {status}: {}",
                    String::from_utf8_lossy(&body)
                )));
            }
            match rejected(&body) {
                None => Ok(()),
                Some(why) => {
                    // It has them and will not take them another time: they stay in the store, and this is told.
                    tracing::error!("the collector {} rejects events: {why}", self.reach.host);
                    Ok(())
                }
            }
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            outcome = &mut exchange => outcome,
            // The connection may end before the last of the body has been taken out of it.
            _ = &mut connection => exchange.await,
        }
    }
}

fn rejected(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let partial = answer.get("partialSuccess")?;
    let count = partial.get("rejectedLogRecords")?;
    // Numbers of 64 bits are strings in OTLP's JSON.
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    let why = partial
        .get("errorMessage")
        .and_then(Value::as_str)
        .unwrap_or_default();
    (count > 0).then(|| format!("{count}: {why}"))
}

pub(super) fn export(lines: &[Line]) -> Value {
    let records: Vec<Value> = lines.iter().map(|line| record(&line.json)).collect();
    json!({"resourceLogs": [{
        "resource": {"attributes": [attribute("service.name", &json!("clawgress"))]},
        "scopeLogs": [{"scope": {"name": "clawgress-audit"}, "logRecords": records}],
    }]})
}

fn record(text: &str) -> Value {
    let event: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let word = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let moment = Micros::parse(word("timestamp")).unwrap_or_default();
    let nanoseconds = u128::try_from(moment.0).unwrap_or(0) * 1000;
    let denied = word("decision") != "allow";
    let attributes: Vec<Value> = event
        .iter()
        .filter(|(name, _)| *name != "timestamp")
        .map(|(name, value)| attribute(&format!("clawgress.{name}"), value))
        .collect();
    json!({
        "timeUnixNano": nanoseconds.to_string(),
        "severityNumber": if denied { 13 } else { 9 },
        "severityText": if denied { "WARN" } else { "INFO" },
        "body": {"stringValue": text},
        "attributes": attributes,
    })
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::String(text) => json!({"stringValue": text}),
        other => json!({"stringValue": other.to_string()}),
    };
    json!({"key": key, "value": value})
}
