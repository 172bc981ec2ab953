//! What an agent is answered instead of what it asked for: one JSON object that a program, or the model driving it, can act
//! on. It never says whether a name exists.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use clawgress_policy::Reason;
use serde::Serialize;

use crate::request_id::RequestId;

/// Whose fault it is decides the status, and whether trying again helps.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// The request is none that may be passed on.
    Malformed,
    NoIdentity,
    Policy,
    OverQuota {
        limit: &'static str,
        retry_after: u64,
    },
    /// Ours: full, or nothing can be judged or recorded now.
    Unavailable,
    /// The other side can't be reached.
    Upstream {
        silent: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    fault: Fault,
    word: Cow<'static, str>,
    policy_id: Option<Box<str>>,
    label: Option<Box<str>>,
}

#[derive(Serialize)]
struct Body<'b> {
    request_id: String,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_id: Option<&'b str>,
    reason: &'b str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'b str>,
    retry: String,
}

impl Denial {
    pub fn of(reason: Reason) -> Self {
        let fault = match reason {
            Reason::NoIdentity => Fault::NoIdentity,
            Reason::MalformedRequest => Fault::Malformed,
            Reason::Unavailable => Fault::Unavailable,
            Reason::OverQuota => Fault::OverQuota {
                limit: "bytes",
                retry_after: 60,
            },
            _ => Fault::Policy,
        };
        Self::with(fault, reason.word())
    }

    /// 407; the word says what is wrong with what was shown.
    pub fn without_identity(word: &'static str) -> Self {
        Self::with(Fault::NoIdentity, word)
    }

    /// 400; says in words what could not be understood.
    pub fn malformed(why: &impl std::fmt::Display) -> Self {
        Self::with(
            Fault::Malformed,
            format!("{}: {why}", Reason::MalformedRequest),
        )
    }

    /// 429; the time is told in whole seconds, and never too early.
    pub fn over_quota(limit: &'static str, retry_after: Duration) -> Self {
        let retry_after = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        Self::with(
            Fault::OverQuota { limit, retry_after },
            Reason::OverQuota.word(),
        )
    }

    pub fn limit(&self) -> Option<&'static str> {
        match self.fault {
            Fault::OverQuota { limit, .. } => Some(limit),
            _ => None,
        }
    }

    /// 502, or 504 if the other side said nothing at all.
    pub fn upstream(word: &'static str, silent: bool) -> Self {
        Self::with(Fault::Upstream { silent }, word)
    }

    fn with(fault: Fault, word: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fault,
            word: word.into(),
            policy_id: None,
            label: None,
        }
    }

    /// Who decided.
    #[must_use]
    pub fn by(mut self, policy_id: &str, label: Option<&str>) -> Self {
        self.policy_id = Some(policy_id.into());
        self.label = label.map(Into::into);
        self
    }

    pub fn word(&self) -> &str {
        &self.word
    }

    pub fn status(&self) -> u16 {
        match self.fault {
            Fault::Malformed => 400,
            Fault::NoIdentity => 407,
            Fault::Policy => 403,
            Fault::OverQuota { .. } => 429,
            Fault::Unavailable => 503,
            Fault::Upstream { silent: false } => 502,
            Fault::Upstream { silent: true } => 504,
        }
    }

    fn reason_phrase(&self) -> &'static str {
        match self.fault {
            Fault::Malformed => "Bad Request",
            Fault::NoIdentity => "Proxy Authentication Required",
            Fault::Policy => "Forbidden",
            Fault::OverQuota { .. } => "Too Many Requests",
            Fault::Unavailable => "Service Unavailable",
            Fault::Upstream { silent: false } => "Bad Gateway",
            Fault::Upstream { silent: true } => "Gateway Timeout",
        }
    }

    pub fn is_upstream(&self) -> bool {
        matches!(self.fault, Fault::Upstream { .. })
    }

    pub fn retry_after(&self) -> Option<u64> {
        match self.fault {
            Fault::OverQuota { retry_after, .. } => Some(retry_after),
            Fault::Unavailable => Some(1),
            _ => None,
        }
    }

    pub fn body(&self, id: RequestId, contact: Option<&str>) -> String {
        let whom = contact.unwrap_or("the operator of this gateway");
        let retry = match self.fault {
            Fault::Malformed => {
                "do not retry as it is; the request can't be passed on safely".to_owned()
            }
            Fault::NoIdentity => "with a valid credential in Proxy-Authorization".to_owned(),
            Fault::Policy => format!("policy, do not retry; ask {whom} quoting {id}"),
            Fault::OverQuota { limit, retry_after } => {
                format!("after {retry_after} s; the quota is {limit}")
            }
            Fault::Unavailable => "in a moment; the gateway can't decide or record now".to_owned(),
            Fault::Upstream { .. } => "later; the destination can't be reached".to_owned(),
        };
        let decision = if self.is_upstream() { "allow" } else { "deny" };
        let body = Body {
            request_id: id.to_string(),
            decision,
            policy_id: self.policy_id.as_deref(),
            reason: &self.word,
            label: self.label.as_deref(),
            retry,
        };
        // Texts and nothing else: it can't fail.
        serde_json::to_string(&body).unwrap_or_default() + "\n"
    }

    /// The whole answer. `keep`: the connection goes on.
    pub fn answer(
        &self,
        id: RequestId,
        contact: Option<&str>,
        keep: bool,
        without_body: bool,
    ) -> Vec<u8> {
        let body = self.body(id, contact);
        let mut text = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\n",
            self.status(),
            self.reason_phrase(),
            body.len()
        );
        if self.fault == Fault::NoIdentity {
            text.push_str("Proxy-Authenticate: Basic realm=\"clawgress\", charset=\"UTF-8\"\r\nProxy-Authenticate: Bearer realm=\"clawgress\"\r\n");
        }
        if let Some(seconds) = self.retry_after() {
            // Writing into a text never fails.
            let _ = write!(text, "Retry-After: {seconds}\r\n");
        }
        text.push_str(if keep {
            "\r\n"
        } else {
            "Connection: close\r\n\r\n"
        });
        if !without_body {
            text.push_str(&body);
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_says_what_to_do() {
        let id = RequestId::fresh();
        let denial = Denial::of(Reason::Rule).by("no-uploads", Some("uploads need a ticket"));
        let answer =
            String::from_utf8(denial.answer(id, Some("net-team@example.com"), false, false))
                .unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        let body: serde_json::Value =
            serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["decision"], "deny");
        assert_eq!(body["policy_id"], "no-uploads");
        assert_eq!(body["reason"], "rule");
        assert_eq!(body["label"], "uploads need a ticket");
        let retry = body["retry"].as_str().unwrap();
        assert_eq!(
            retry,
            format!("policy, do not retry; ask net-team@example.com quoting {id}")
        );
    }

    #[test]
    fn each_fault_has_its_status_and_headers() {
        let text = |denial: Denial| {
            String::from_utf8(denial.answer(RequestId::fresh(), None, true, false)).unwrap()
        };
        let missing = text(Denial::without_identity("expired"));
        assert!(
            missing.starts_with("HTTP/1.1 407 ") && missing.contains("Proxy-Authenticate: Basic"),
            "{missing}"
        );
        assert!(
            missing.contains("\"reason\":\"expired\"") && !missing.contains("Connection: close")
        );
        let over = text(Denial::over_quota(
            "agent-rpm",
            Duration::from_millis(6_100),
        ));
        assert!(
            over.starts_with("HTTP/1.1 429 ") && over.contains("Retry-After: 7\r\n"),
            "{over}"
        );
        assert!(text(Denial::upstream("unresolved", false)).contains("\"decision\":\"allow\""));
        assert!(text(Denial::upstream("silent", true)).starts_with("HTTP/1.1 504 "));
        assert!(text(Denial::of(Reason::Unavailable)).starts_with("HTTP/1.1 503 "));
        assert!(text(Denial::malformed(&"twice")).contains("malformed-request: twice"));
    }
}
