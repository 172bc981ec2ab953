//! Where a collector is: its written form, its addresses, and the TLS connection to it. Names are asked of the
//! appliance's own resolver.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::lookup;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ForwardError;

const DNS_DEADLINE: Duration = Duration::from_secs(5);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

fn host(text: &str, default: Option<u16>) -> Option<Host> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port))
            if !port.contains(']') && (!name.contains(':') || name.ends_with(']')) =>
        {
            (name, port.parse().ok().filter(|port| *port > 0)?)
        }
        _ => (text, default?),
    };
    let bracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let name = bracketed.unwrap_or(name);
    let good =
        name.parse::<IpAddr>().is_ok() || bracketed.is_none() && ServerName::try_from(name).is_ok();
    good.then(|| Host {
        name: name.to_owned(),
        port,
    })
}

/// As in `logs.example.com:6514`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogServer(pub Host);

impl FromStr for SyslogServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        host(text, None)
            .map(Self)
            .ok_or("write host and port, as in logs.example.com:6514")
    }
}

/// As in `https://collector.example.com:4318/v1/logs`; `http` is for those who must: a commit warns of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    pub host: Host,
    pub path: String,
    pub tls: bool,
}

impl FromStr for Collector {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.strip_prefix("http://").map(|rest| (rest, false));
        let rest = plain.or_else(|| Some((text.strip_prefix("https://")?, true)));
        let collector = rest.and_then(|(rest, tls)| {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let path = if path.is_empty() { "/v1/logs" } else { path };
            let printable = path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'#');
            Some(Self {
                host: host(authority, Some(if tls { 443 } else { 80 })).filter(|_| printable)?,
                path: path.to_owned(),
                tls,
            })
        });
        collector.ok_or("write an https URL, as in https://collector.example.com:4318/v1/logs")
    }
}

/// Either way of sending.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl fmt::Debug for dyn Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection")
    }
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to one host, believing these authorities alone.
pub struct Reach {
    pub host: Host,
    resolver: SocketAddr,
    /// None: without TLS.
    tls: Option<TlsConnector>,
    /// Where its name may lead.
    permits: fn(IpAddr) -> bool,
}

impl Reach {
    /// `ca` is for messages; `pem` is what it holds.
    pub fn new(
        host: Host,
        ca: &Path,
        pem: &[u8],
        resolver: SocketAddr,
    ) -> Result<Self, ForwardError> {
        let failed = |why: String| ForwardError::Authority {
            path: ca.to_owned(),
            why,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| failed(format!("{error:?}")))?;
            roots
                .add(certificate)
                .map_err(|error| failed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(failed("there is no certificate in it".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            host,
            resolver,
            tls: Some(TlsConnector::from(Arc::new(config))),
            permits: may_collect,
        })
    }

    pub fn plain(host: Host, resolver: SocketAddr) -> Self {
        Self {
            host,
            resolver,
            tls: None,
            permits: may_collect,
        }
    }

    /// As in production, and to where this machine's tests can serve from.
    #[cfg(test)]
    pub(super) fn at_loopback_too(mut self) -> Self {
        self.permits = |address| address.is_loopback() || may_collect(address);
        self
    }

    pub(super) fn failed(&self, why: impl fmt::Display) -> ForwardError {
        ForwardError::Send {
            to: self.host.to_string(),
            why: why.to_string(),
        }
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Wire>, ForwardError> {
        let unreachable = |why: String| ForwardError::Reach {
            to: self.host.to_string(),
            why,
        };
        let name = ServerName::try_from(self.host.name.clone())
            .map_err(|error| unreachable(error.to_string()))?;
        let mut last = "its name has no address".to_owned();
        for address in self.addresses().await.map_err(unreachable)? {
            let attempt = async {
                let stream = TcpStream::connect((address, self.host.port)).await?;
                stream.set_nodelay(true)?;
                Ok(match &self.tls {
                    Some(tls) => {
                        Box::new(tls.connect(name.clone(), stream).await?) as Box<dyn Wire>
                    }
                    None => Box::new(stream),
                })
            };
            match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err::<_, std::io::Error>(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: no connection within {CONNECT_DEADLINE:?}"),
            }
        }
        Err(unreachable(last))
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        // The operator's own word.
        if let Ok(address) = self.host.name.parse() {
            return Ok(vec![address]);
        }
        let found = lookup::addresses(self.resolver, &self.host.name, DNS_DEADLINE)
            .await
            .map_err(|error| error.to_string())?;
        let (good, bad): (Vec<IpAddr>, Vec<IpAddr>) = found
            .into_iter()
            .partition(|address| (self.permits)(*address));
        match (good.is_empty(), bad.first()) {
            (true, Some(bad)) => Err(format!(
                "its name leads to {bad}, where no collector is; name the collector by its address if that is meant"
            )),
            _ => Ok(good),
        }
    }
}

/// Where a collector's name may lead: inside as well, for the operator gave the name; never to this machine, to
/// everybody, to a link alone, to where clouds keep a machine's secrets, or to an IPv4 address in disguise. The ruleset
/// holds the same.
fn may_collect(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, third, _] = v4.octets();
            !(first == 0
                || first >= 224
                || v4.is_loopback()
                || v4.is_link_local()
                || [first, second, third] == [192, 0, 0]
                || [[100, 100, 100, 200], [168, 63, 129, 16]].contains(&v4.octets()))
        }
        IpAddr::V6(v6) => {
            let parts = v6.segments();
            !(v6.is_multicast()
                || v6.is_unicast_link_local()
                || matches!(
                    parts,
                    [0, 0, 0, 0, 0, 0 | 0xffff, ..]
                        | [0x64, 0xff9b, ..]
                        | [0x2001, 0, ..]
                        | [0x2002, ..]
                        | [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
                ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_they_may_be_written() {
        for (text, name, port) in [
            ("logs.example.com:6514", "logs.example.com", 6514),
            ("192.0.2.1:6514", "192.0.2.1", 6514),
            ("[2001:db8::1]:6514", "2001:db8::1", 6514),
        ] {
            let server: SyslogServer = text.parse().unwrap();
            assert_eq!((server.0.name.as_str(), server.0.port), (name, port));
            assert_eq!(server.0.to_string(), text);
        }
        for wrong in [
            "",
            "logs",
            ":1",
            "a b:1",
            "logs:0",
            "logs:99999",
            "[x]:1",
            "2001:db8::1:6514",
        ] {
            assert!(wrong.parse::<SyslogServer>().is_err(), "{wrong}");
        }
        let collector: Collector = "https://c.example.com".parse().unwrap();
        assert_eq!(
            (collector.host.port, collector.path.as_str()),
            (443, "/v1/logs")
        );
        let collector: Collector = "https://[::1]:4318/x".parse().unwrap();
        assert_eq!((collector.host.port, collector.path.as_str()), (4318, "/x"));
        let collector: Collector = "http://c.example.com/x".parse().unwrap();
        assert_eq!((collector.host.port, collector.tls), (80, false));
        for wrong in [
            "ftp://c.example.com",
            "https://",
            "https://c/ x",
            "c.example.com",
        ] {
            assert!(wrong.parse::<Collector>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_leads_to_no_place_where_no_collector_is() {
        for address in [
            "198.51.100.1",
            "10.0.0.7",
            "192.168.1.1",
            "100.64.0.1",
            "2001:db8::1",
            "fd00::1",
        ] {
            assert!(may_collect(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.7",
            "64:ff9b::a00:7",
            "2002:a00:7::1",
            "2001:0:1::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert!(!may_collect(address.parse().unwrap()), "{address}");
        }
    }
}
