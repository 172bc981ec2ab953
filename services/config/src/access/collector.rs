//! Where a collector of events is, as its written form says. Asks nobody: a name stays a name.

use std::net::IpAddr;

use crate::access::model::{AuditSettings, Forward};

/// Port of a collector's URL that names none.
const HTTPS: u16 = 443;

/// Host and port of a collector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Lower case; an address without brackets.
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl Forward {
    /// None: `to` says no such thing, which validation refuses.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let (authority, default) = match self.to.split_once("://") {
            Some((_, rest)) => (rest.split(['/', '?']).next()?, Some(HTTPS)),
            None => (&*self.to, None),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port))
                if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) =>
            {
                (host, port.parse().ok()?)
            }
            _ => (authority, default?),
        };
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        (!host.is_empty()).then_some(Endpoint { host, port })
    }
}

impl AuditSettings {
    /// Where events are sent on to.
    pub fn collectors(&self) -> impl Iterator<Item = Endpoint> {
        [&self.syslog, &self.otlp]
            .into_iter()
            .flatten()
            .filter_map(Forward::endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_written_form_says_where() {
        for (to, host, port) in [
            ("logs.example.com:6514", "logs.example.com", 6514),
            ("[2001:db8::1]:6514", "2001:db8::1", 6514),
            (
                "https://Collector.example.com/v1/logs",
                "collector.example.com",
                443,
            ),
            ("https://192.0.2.1:4318", "192.0.2.1", 4318),
            ("https://[2001:db8::1]/v1/logs", "2001:db8::1", 443),
        ] {
            let forward = Forward {
                to: to.to_owned(),
                ca: None,
                address: None,
            };
            let endpoint = forward.endpoint().unwrap();
            assert_eq!((&*endpoint.host, endpoint.port), (host, port), "{to}");
        }
        let none = Forward {
            to: "logs.example.com".to_owned(),
            ca: None,
            address: None,
        };
        assert_eq!(none.endpoint(), None);
    }
}
