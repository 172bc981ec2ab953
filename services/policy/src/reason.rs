//! Why something was denied: one vocabulary for logs, DNS errors, HTTP answers and telemetry.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No rule names the destination.
    NotAllowlisted,
    OutsideWindow,
    /// The clock can't be trusted yet, and a window would have to be judged by it.
    ClockUntrusted,
    OverCap,
    Port,
    Protocol,
    SniMismatch,
    NoSni,
    Ech,
    NotTls,
    MalformedHello,
    HostMismatch,
    NotHttp,
    DnsBypass,
    /// Too many different names below one domain.
    NameBudget,
    /// The answer held only addresses that no policy holds.
    Rebinding,
    UnknownSource,
    SpoofedSource,
    Revised,
    Unavailable,
    /// No credential, or none that holds.
    NoIdentity,
    AgentDisabled,
    /// An operator's kill switch.
    Blocked,
    /// A rule that denies.
    Rule,
    OverQuota,
    /// The name leads to an address that no name of the outside may lead to.
    PrivateAddress,
    /// No address could be had for the name.
    Unresolved,
    MalformedRequest,
}

impl Reason {
    pub const ALL: [Self; 28] = [
        Self::NotAllowlisted,
        Self::OutsideWindow,
        Self::ClockUntrusted,
        Self::OverCap,
        Self::Port,
        Self::Protocol,
        Self::SniMismatch,
        Self::NoSni,
        Self::Ech,
        Self::NotTls,
        Self::MalformedHello,
        Self::HostMismatch,
        Self::NotHttp,
        Self::DnsBypass,
        Self::NameBudget,
        Self::Rebinding,
        Self::UnknownSource,
        Self::SpoofedSource,
        Self::Revised,
        Self::Unavailable,
        Self::NoIdentity,
        Self::AgentDisabled,
        Self::Blocked,
        Self::Rule,
        Self::OverQuota,
        Self::PrivateAddress,
        Self::Unresolved,
        Self::MalformedRequest,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::NotAllowlisted => "not-allowlisted",
            Self::OutsideWindow => "outside-window",
            Self::ClockUntrusted => "clock-untrusted",
            Self::OverCap => "over-cap",
            Self::Port => "port",
            Self::Protocol => "protocol",
            Self::SniMismatch => "sni-mismatch",
            Self::NoSni => "no-sni",
            Self::Ech => "ech",
            Self::NotTls => "not-tls",
            Self::MalformedHello => "malformed-hello",
            Self::HostMismatch => "host-mismatch",
            Self::NotHttp => "not-http",
            Self::DnsBypass => "dns-bypass",
            Self::NameBudget => "name-budget",
            Self::Rebinding => "rebinding",
            Self::UnknownSource => "unknown-source",
            Self::SpoofedSource => "spoofed-source",
            Self::Revised => "revised",
            Self::Unavailable => "unavailable",
            Self::NoIdentity => "no-identity",
            Self::AgentDisabled => "agent-disabled",
            Self::Blocked => "blocked",
            Self::Rule => "rule",
            Self::OverQuota => "over-quota",
            Self::PrivateAddress => "private-address",
            Self::Unresolved => "unresolved",
            Self::MalformedRequest => "malformed-request",
        }
    }

    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_serde_and_lead_back() {
        for reason in Reason::ALL {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.word()));
            assert_eq!(Reason::of_word(reason.word()), Some(reason));
        }
    }
}
