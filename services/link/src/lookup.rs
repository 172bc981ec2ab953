//! The addresses of a name, as the appliance's own resolver gives them: one question for each family, nothing remembered.
//!
//! Only what was asked for counts: an alias is followed by its own records, and whatever else an answer holds is not
//! looked at. What an address is worth is judged by whoever asked.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// More than any service has.
const MOST: usize = 32;
const DATAGRAM: u16 = 1232;
const AGAIN: Duration = Duration::from_millis(1500);

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("{0} is no name that can be asked for")]
    Name(String),
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("there is no name {0}, or no policy lets anybody have it")]
    NoName(String),
    #[error("the resolver at {resolver} answers {code} for {name}")]
    Code {
        resolver: SocketAddr,
        name: String,
        code: ResponseCode,
    },
    #[error("the resolver at {resolver} has not answered for {name} within {} ms", deadline.as_millis())]
    Silent {
        resolver: SocketAddr,
        name: String,
        deadline: Duration,
    },
    #[error("asking the resolver at {resolver} for {name}: {why}")]
    Talk {
        resolver: SocketAddr,
        name: String,
        why: String,
    },
}

/// All of both families in ascending order, IPv4 first. A family that fails does not take the other's addresses away.
pub async fn addresses(
    resolver: SocketAddr,
    name: &str,
    deadline: Duration,
) -> Result<Vec<IpAddr>, LookupError> {
    let asked = Asked { resolver, name };
    let ask = async |kind| match timeout(deadline, asked.ask(kind)).await {
        Ok(found) => found,
        Err(_) => Err(LookupError::Silent {
            resolver,
            name: name.to_owned(),
            deadline,
        }),
    };
    let (four, six) = tokio::join!(ask(RecordType::A), ask(RecordType::AAAA));
    let mut found: BTreeSet<IpAddr> = BTreeSet::new();
    let mut failed = None;
    for family in [four, six] {
        match family {
            Ok(addresses) => found.extend(addresses),
            // That one family has nothing says less than any other failure.
            Err(LookupError::NoAddress(_)) if failed.is_some() => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found.into_iter().take(MOST).collect()),
    }
}

struct Asked<'n> {
    resolver: SocketAddr,
    name: &'n str,
}

impl Asked<'_> {
    fn failed(&self, why: impl std::fmt::Display) -> LookupError {
        LookupError::Talk {
            resolver: self.resolver,
            name: self.name.to_owned(),
            why: why.to_string(),
        }
    }

    async fn ask(&self, kind: RecordType) -> Result<Vec<IpAddr>, LookupError> {
        let mut name =
            Name::from_ascii(self.name).map_err(|_| LookupError::Name(self.name.to_owned()))?;
        name.set_fqdn(true);
        let mut id = [0; 2];
        aws_lc_rs::rand::fill(&mut id)
            .map_err(|_| self.failed("the random number generator failed"))?;
        let query = question(u16::from_be_bytes(id), &name, kind);
        let packet = query.to_vec().map_err(|error| self.failed(error))?;
        let answer = self.by_datagram(&query, &packet).await?;
        let answer = if answer.metadata.truncation {
            self.by_stream(&query, &packet).await?
        } else {
            answer
        };
        match answer.metadata.response_code {
            ResponseCode::NoError => {}
            ResponseCode::NXDomain => return Err(LookupError::NoName(self.name.to_owned())),
            code => {
                return Err(LookupError::Code {
                    resolver: self.resolver,
                    name: self.name.to_owned(),
                    code,
                });
            }
        }
        let found = addresses_in(&answer, name);
        if found.is_empty() {
            return Err(LookupError::NoAddress(self.name.to_owned()));
        }
        Ok(found)
    }

    async fn by_datagram(&self, query: &Message, packet: &[u8]) -> Result<Message, LookupError> {
        let failed = |error: io::Error| self.failed(error);
        let any: IpAddr = if self.resolver.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        // A socket of its own for each question, so a port of its own; connected, so nobody else is heard.
        let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
        socket.connect(self.resolver).await.map_err(failed)?;
        let mut buffer = [0; DATAGRAM as usize];
        loop {
            socket.send(packet).await.map_err(failed)?;
            let heard = timeout(AGAIN, async {
                loop {
                    let length = socket.recv(&mut buffer).await?;
                    let message = buffer.get(..length).map(Message::from_vec);
                    if let Some(Ok(message)) = message
                        && answers(&message, query)
                    {
                        return Ok(message);
                    }
                }
            });
            // Sent again until the caller's deadline.
            if let Ok(heard) = heard.await {
                return heard.map_err(failed);
            }
        }
    }

    async fn by_stream(&self, query: &Message, packet: &[u8]) -> Result<Message, LookupError> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.resolver).await?;
            let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
            stream
                .write_all(&[&length.to_be_bytes(), packet].concat())
                .await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            Message::from_vec(&answer).map_err(io::Error::other)
        };
        let message = exchange.await.map_err(|error| self.failed(error))?;
        if answers(&message, query) {
            Ok(message)
        } else {
            Err(self.failed("it answers another question"))
        }
    }
}

fn question(id: u16, name: &Name, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM);
    message.set_edns(edns);
    message
}

fn answers(message: &Message, query: &Message) -> bool {
    message.metadata.id == query.metadata.id
        && message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && message.queries == query.queries
        && message
            .queries
            .iter()
            .all(|query| query.query_class == DNSClass::IN)
}

/// At the end of the chain of aliases; a chain that turns in a circle ends with the records.
fn addresses_in(message: &Message, mut owner: Name) -> Vec<IpAddr> {
    for _ in 0..message.answers.len() {
        let alias = message
            .answers
            .iter()
            .find_map(|record| match &record.data {
                RData::CNAME(to) if record.name == owner => Some(to.0.clone()),
                _ => None,
            });
        let Some(to) = alias else {
            break;
        };
        owner = to;
    }
    let own = message.answers.iter().filter(|record| record.name == owner);
    own.filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    })
    .collect()
}
