//! Names to addresses, through the appliance's named and nobody else, with a small memory bounded by what named allows.
//!
//! Each question has a socket of its own, so a port of its own, and an unpredictable number. Nothing of an agent's
//! request is in it but the canonical name. What an address is worth is judged by whoever asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Names remembered; beyond that all that are over are forgotten, and if none is, everything.
const REMEMBERED: usize = 8192;
const MOST_ADDRESSES: usize = 16;
const LEAST_TTL: Duration = Duration::from_secs(1);
const MOST_TTL: Duration = Duration::from_secs(300);
/// A failure is remembered so long, so that a storm of requests is one question.
const TTL_OF_FAILURE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(1500);
/// Questions open at once, of each worker; more wait for a place.
const OPEN: usize = 256;
const DATAGRAM: u16 = 1232;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("there is no such name, or it has no address")]
    NoAddress,
    #[error("named did not answer in time")]
    Silent,
    #[error("named could not answer")]
    Failed,
}

type Answer = Result<Arc<[IpAddr]>, ResolveError>;

#[derive(Debug)]
struct Known {
    answer: Option<(Answer, Instant)>,
    /// Held by whoever asks named; the others wait for it.
    asking: Arc<Semaphore>,
}

#[derive(Debug)]
pub struct Resolver {
    named: SocketAddr,
    known: Mutex<HashMap<Arc<str>, Known>>,
    open: Semaphore,
}

impl Resolver {
    pub fn new(named: SocketAddr) -> Self {
        Self {
            named,
            known: Mutex::default(),
            open: Semaphore::new(OPEN),
        }
    }

    pub async fn addresses(&self, name: &Arc<str>) -> Answer {
        if let Some(answer) = self.remembered(name) {
            return answer;
        }
        let asking = {
            let mut known = self.known();
            make_room(&mut known);
            let entry = known.entry(Arc::clone(name)).or_insert_with(|| Known {
                answer: None,
                asking: Arc::new(Semaphore::new(1)),
            });
            Arc::clone(&entry.asking)
        };
        let _turn = asking.acquire().await;
        if let Some(answer) = self.remembered(name) {
            return answer;
        }
        let (answer, ttl) = match timeout(PATIENCE, self.ask(name)).await {
            Ok(Ok((addresses, ttl))) => (Ok(addresses), ttl.clamp(LEAST_TTL, MOST_TTL)),
            Ok(Err(error)) => (Err(error), TTL_OF_FAILURE),
            Err(_) => (Err(ResolveError::Silent), TTL_OF_FAILURE),
        };
        if let Some(entry) = self.known().get_mut(name) {
            entry.answer = Some((answer.clone(), Instant::now() + ttl));
        }
        answer
    }

    fn remembered(&self, name: &str) -> Option<Answer> {
        let known = self.known();
        let (answer, until) = known.get(name)?.answer.as_ref()?;
        (Instant::now() < *until).then(|| answer.clone())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, name: &str) -> Result<(Arc<[IpAddr]>, Duration), ResolveError> {
        let Ok(_place) = self.open.acquire().await else {
            return Err(ResolveError::Failed);
        };
        let name = Name::from_ascii(format!("{name}.")).map_err(|_| ResolveError::NoAddress)?;
        let (four, six) = tokio::join!(
            self.ask_one(&name, RecordType::A),
            self.ask_one(&name, RecordType::AAAA)
        );
        let mut addresses = Vec::new();
        let mut ttl = MOST_TTL;
        // One family's failure does not take the other's addresses away.
        for found in [&six, &four].into_iter().flatten() {
            addresses.extend_from_slice(&found.0);
            ttl = ttl.min(found.1);
        }
        match (addresses.is_empty(), four, six) {
            (false, ..) => Ok((addresses.into(), ttl)),
            (true, Err(error), _) | (true, _, Err(error)) if error != ResolveError::NoAddress => {
                Err(error)
            }
            _ => Err(ResolveError::NoAddress),
        }
    }

    async fn ask_one(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
        let failed = |_| ResolveError::Failed;
        let id = unpredictable()?;
        let question = question(id, name, kind)?;
        let any: SocketAddr = if self.named.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0; 16], 0).into()
        };
        let socket = UdpSocket::bind(any).await.map_err(failed)?;
        socket.connect(self.named).await.map_err(failed)?;
        let mut buffer = [0; DATAGRAM as usize];
        let message = loop {
            socket.send(&question).await.map_err(failed)?;
            let answered = timeout(AGAIN, async {
                loop {
                    let length = socket.recv(&mut buffer).await.map_err(failed)?;
                    let message = buffer.get(..length).map(Message::from_vec);
                    if let Some(Ok(message)) = message
                        && answers(&message, id, name, kind)
                    {
                        return Ok(message);
                    }
                }
            });
            // Sent again until the caller's patience ends.
            if let Ok(answered) = answered.await {
                break answered?;
            }
        };
        let message = if message.metadata.truncation {
            self.ask_by_stream(id, &question, name, kind).await?
        } else {
            message
        };
        addresses_in(&message, name)
    }

    async fn ask_by_stream(
        &self,
        id: u16,
        question: &[u8],
        name: &Name,
        kind: RecordType,
    ) -> Result<Message, ResolveError> {
        let failed = |_| ResolveError::Failed;
        let mut stream = TcpStream::connect(self.named).await.map_err(failed)?;
        let length = u16::try_from(question.len()).map_err(|_| ResolveError::Failed)?;
        let framed = [&length.to_be_bytes(), question].concat();
        stream.write_all(&framed).await.map_err(failed)?;
        let length = stream.read_u16().await.map_err(failed)?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.map_err(failed)?;
        let message = Message::from_vec(&answer).map_err(|_| ResolveError::Failed)?;
        if answers(&message, id, name, kind) {
            Ok(message)
        } else {
            Err(ResolveError::Failed)
        }
    }
}

fn make_room(known: &mut HashMap<Arc<str>, Known>) {
    if known.len() < REMEMBERED {
        return;
    }
    let now = Instant::now();
    known.retain(|_, entry| entry.answer.as_ref().is_none_or(|(_, until)| now < *until));
    if known.len() >= REMEMBERED {
        known.clear();
    }
}

fn unpredictable() -> Result<u16, ResolveError> {
    let mut bytes = [0; 2];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ResolveError::Failed)?;
    Ok(u16::from_be_bytes(bytes))
}

fn question(id: u16, name: &Name, kind: RecordType) -> Result<Vec<u8>, ResolveError> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM);
    message.set_edns(edns);
    message.to_vec().map_err(|_| ResolveError::Failed)
}

fn answers(message: &Message, id: u16, name: &Name, kind: RecordType) -> bool {
    message.metadata.id == id
        && message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && matches!(
            message.queries.as_slice(),
            [query] if query.name == *name && query.query_type == kind && query.query_class == DNSClass::IN
        )
}

/// The addresses at the end of the name's chain of aliases; what else is in the answer was not asked for.
fn addresses_in(message: &Message, name: &Name) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Err(ResolveError::NoAddress),
        _ => return Err(ResolveError::Failed),
    }
    let mut owner = name.clone();
    let mut ttl = u32::MAX;
    // Each alias leads on once: a chain that turns in a circle ends with the records.
    for _ in 0..message.answers.len() {
        let alias = message
            .answers
            .iter()
            .find_map(|record| match &record.data {
                RData::CNAME(to) if record.name == owner => Some((to.0.clone(), record.ttl)),
                _ => None,
            });
        let Some((to, alias_ttl)) = alias else {
            break;
        };
        ttl = ttl.min(alias_ttl);
        owner = to;
    }
    let mut addresses = Vec::new();
    for record in message.answers.iter().filter(|record| record.name == owner) {
        match &record.data {
            RData::A(address) => addresses.push(IpAddr::V4(address.0)),
            RData::AAAA(address) => addresses.push(IpAddr::V6(address.0)),
            _ => continue,
        }
        ttl = ttl.min(record.ttl);
    }
    addresses.truncate(MOST_ADDRESSES);
    if addresses.is_empty() {
        return Err(ResolveError::NoAddress);
    }
    Ok((addresses, Duration::from_secs(u64::from(ttl))))
}
