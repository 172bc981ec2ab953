//! Reads what a caller posted: JSON, bounded, an object. Says exactly where it is wrong.
//!
//! Knows nothing of any endpoint's meaning.

use axum::{body::Bytes, extract::rejection::BytesRejection, http::StatusCode};
use serde::Deserialize;

use crate::api::Refusal;

/// The largest body that health and policy take.
pub(crate) const LARGEST: usize = 64 * 1024;

/// What every call may carry. Fields of later versions are not this version's business.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Call {
    /// Whose call it is. Checked from the moment that credentials exist; the front is on loopback until then.
    #[serde(default)]
    key: Option<String>,
}

/// Parses a body as axum read it. Nothing at all counts as an empty object.
pub(crate) fn read(body: Result<Bytes, BytesRejection>) -> Result<Call, Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body too large",
            format!("this endpoint takes at most {LARGEST} bytes"),
        ),
        status => Refusal::new(status, "unreadable body", rejection.body_text()),
    })?;
    if body.is_empty() {
        return Ok(Call::default());
    }
    // A sequence would fit a struct in serde's eyes, but the documents speak of an object.
    let malformed =
        |reason: String| Refusal::new(StatusCode::BAD_REQUEST, "malformed JSON", reason);
    if body
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_some_and(|byte| *byte == b'[')
    {
        return Err(malformed(
            "expected an object, found an array at line 1".to_owned(),
        ));
    }
    serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(body: &'static str) -> String {
        read(Ok(Bytes::from_static(body.as_bytes())))
            .unwrap_err()
            .reason()
            .to_owned()
    }

    #[test]
    fn an_object_is_taken_with_key_without_and_with_more() {
        for body in [
            r#"{"key":"k"}"#,
            "{}",
            "",
            r#" {"key":null,"policy":{"version":1}} "#,
        ] {
            assert!(
                read(Ok(Bytes::from_static(body.as_bytes()))).is_ok(),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_malformed_is_told_with_its_place() {
        assert!(
            reason("{\n  \"key\": }").contains("line 2 column 10"),
            "{}",
            reason("{\n  \"key\": }")
        );
        assert!(
            reason(r#"{"key":7}"#).contains("line 1 column 8"),
            "{}",
            reason(r#"{"key":7}"#)
        );
        assert!(reason("[]").contains("line 1"));
        assert!(reason("{} {}").contains("trailing characters at line 1 column 4"));
    }
}
