//! Where the box's own services are told to go, as the written form says: collectors of events, keys of issuers. Asks
//! nobody: a name stays a name.

use std::net::IpAddr;

use crate::access::model::{Access, AuditSettings, Forward, KeySource};

/// Port of a collector's URL that names none.
const HTTPS: u16 = 443;

/// Host and port of a server outside.
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
        Endpoint::of(&self.to)
    }
}

impl KeySource {
    /// Where they are fetched from, if they are.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::Url(url) => Endpoint::of(url),
            Self::File(_) | Self::Own => None,
        }
    }
}

impl Access {
    /// Where keys of issuers are fetched from.
    pub fn key_servers(&self) -> impl Iterator<Item = Endpoint> {
        self.issuers
            .values()
            .filter_map(|issuer| issuer.keys.endpoint())
    }
}

impl Endpoint {
    fn of(to: &str) -> Option<Self> {
        let (authority, default) = match to.split_once("://") {
            Some((_, rest)) => (rest.split(['/', '?']).next()?, Some(HTTPS)),
            None => (to, None),
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
        (!host.is_empty()).then_some(Self { host, port })
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
