//! Where a collector is: its written form, its addresses, and the TLS connection to it. Names are asked of the
//! appliance's own resolver.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};
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
        })
    }

    pub fn plain(host: Host, resolver: SocketAddr) -> Self {
        Self {
            host,
            resolver,
            tls: None,
        }
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
        if let Ok(address) = self.host.name.parse() {
            return Ok(vec![address]);
        }
        let mut addresses = Vec::new();
        let mut why = None;
        for kind in [RecordType::A, RecordType::AAAA] {
            let asked =
                tokio::time::timeout(DNS_DEADLINE, ask(self.resolver, &self.host.name, kind)).await;
            match asked {
                Ok(Ok(found)) => addresses.extend(found),
                Ok(Err(error)) => why = Some(error),
                Err(_) => why = Some(format!("the resolver at {} does not answer", self.resolver)),
            }
        }
        match why {
            Some(why) if addresses.is_empty() => Err(why),
            _ => Ok(addresses),
        }
    }
}

async fn ask(resolver: SocketAddr, name: &str, kind: RecordType) -> Result<Vec<IpAddr>, String> {
    let text = |error: std::io::Error| format!("asking the resolver at {resolver}: {error}");
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| "the random number generator failed".to_owned())?;
    let mut query = Message::new(u16::from_be_bytes(id), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    let mut full = Name::from_ascii(name).map_err(|error| error.to_string())?;
    full.set_fqdn(true);
    query.add_query(Query::query(full, kind));
    let local: SocketAddr = if resolver.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(local).await.map_err(text)?;
    socket.connect(resolver).await.map_err(text)?;
    let packet = query.to_vec().map_err(|error| error.to_string())?;
    socket.send(&packet).await.map_err(text)?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(text)?;
        let Ok(answer) = Message::from_vec(buffer.get(..length).unwrap_or_default()) else {
            continue;
        };
        if answer.metadata.id != query.metadata.id || answer.queries != query.queries {
            continue;
        }
        let code = answer.metadata.response_code;
        if code != ResponseCode::NoError {
            return Err(format!("the resolver answers {code} for {name}"));
        }
        return Ok(answer
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
            .collect());
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
}
