//! How this service says no: always JSON, with a status that fits, a few fixed words, and a reason for people.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use clawgress_link::{
    admin::{Refused, Trouble},
    control::Report,
};

#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    text: Box<Refused>,
    retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: &'static str, reason: impl Into<String>) -> Self {
        Self {
            status,
            text: Box::new(Refused {
                error: error.to_owned(),
                reason: reason.into(),
                ..Refused::default()
            }),
            retry_after: None,
        }
    }

    /// Of an input with these faults; the reason counts them.
    pub(crate) fn troubles(
        status: StatusCode,
        error: &'static str,
        problems: Vec<Trouble>,
    ) -> Self {
        let mut refusal = Self::new(
            status,
            error,
            match problems.as_slice() {
                [one] => sentence(one),
                many => format!("{} problems; nothing was changed", many.len()),
            },
        );
        refusal.text.problems = problems;
        refusal
    }

    /// Of something that lies in a file.
    pub(crate) fn about(mut self, path: &str) -> Self {
        self.text.reason = format!("{path}: {}", self.text.reason);
        self
    }

    pub(crate) fn with_report(mut self, report: Report) -> Self {
        self.text.report = Some(report);
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn error(&self) -> &str {
        &self.text.error
    }

    pub(crate) fn reason(&self) -> &str {
        &self.text.reason
    }
}

/// One line of text for one fault.
fn sentence(trouble: &Trouble) -> String {
    let mut text = String::new();
    if let (Some(line), Some(column)) = (trouble.line, trouble.column) {
        text.push_str(&format!("line {line} column {column}: "));
    }
    if !trouble.path.is_empty() {
        text.push_str(&format!("{}: ", trouble.path));
    }
    text.push_str(&trouble.what);
    if !trouble.fix.is_empty() {
        text.push_str(&format!("; {}", trouble.fix));
    }
    text
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.text)).into_response();
        if let Some(seconds) = self.retry_after {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
