//! Asks named, and nobody else: over UDP sockets that stay open, over TCP for what does not fit.
//!
//! What goes out is made here from the canonical name and the type alone. Neither letter case nor flags nor options of
//! an agent's packet get through.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::question::DATAGRAM;
use crate::random::{Random, RandomError};

const SOCKETS: u16 = 4;
/// named may have to ask several servers; after this an agent has given up.
const PATIENCE: Duration = Duration::from_secs(4);
/// A datagram lost between two processes of one box is rare, and is sent again once.
const AGAIN: Duration = Duration::from_millis(1500);
const STREAMS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("opening a socket to named at {address}: {source}")]
    Open {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("asking named at {address}: {source}")]
    Ask {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("named at {address} did not answer within {PATIENCE:?}")]
    Silent { address: SocketAddr },
    #[error("named at {address} answered with what is no answer to the question")]
    Nonsense { address: SocketAddr },
    #[error("more questions to named at {address} are open than there are numbers for them")]
    Full { address: SocketAddr },
    #[error(transparent)]
    Random(#[from] RandomError),
}

#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    sockets: Vec<Arc<Socket>>,
    random: Mutex<Random>,
    streams: Semaphore,
}

#[derive(Debug)]
struct Socket {
    udp: UdpSocket,
    waiting: Mutex<HashMap<u16, Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    name: Name,
    kind: RecordType,
    tell: oneshot::Sender<Message>,
}

/// Takes the waiter away again, however the wait ends.
struct Place<'a> {
    socket: &'a Socket,
    id: u16,
}

impl Upstream {
    /// Opens the sockets; their readers run until the runtime ends.
    pub async fn start(address: SocketAddr) -> Result<Self, UpstreamError> {
        let open = |source| UpstreamError::Open { address, source };
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0; 16], 0).into(),
        };
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            let udp = UdpSocket::bind(any).await.map_err(open)?;
            udp.connect(address).await.map_err(open)?;
            let socket = Arc::new(Socket {
                udp,
                waiting: Mutex::default(),
            });
            tokio::spawn(Arc::clone(&socket).read());
            sockets.push(socket);
        }
        Ok(Self {
            address,
            sockets,
            random: Mutex::new(Random::new()?),
            streams: Semaphore::new(STREAMS),
        })
    }

    pub async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, UpstreamError> {
        let address = self.address;
        let asked = timeout(PATIENCE, async {
            let message = self.ask_by_datagram(name, kind).await?;
            if !message.metadata.truncation {
                return Ok(message);
            }
            self.ask_by_stream(name, kind).await
        });
        asked.await.map_err(|_| UpstreamError::Silent { address })?
    }

    async fn ask_by_datagram(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Message, UpstreamError> {
        let address = self.address;
        let number = self.number()?;
        let Some(socket) = self.sockets.get(usize::from(number % SOCKETS)) else {
            return Err(UpstreamError::Full { address });
        };
        let (tell, mut told) = oneshot::channel();
        let id = self.wait_at(socket, name, kind, tell)?;
        let _place = Place { socket, id };
        let bytes = question(id, name, kind).map_err(|()| UpstreamError::Nonsense { address })?;
        let silent = |_| UpstreamError::Silent { address };
        loop {
            socket
                .udp
                .send(&bytes)
                .await
                .map_err(|source| UpstreamError::Ask { address, source })?;
            // Bounded by the caller's patience.
            if let Ok(message) = timeout(AGAIN, &mut told).await {
                return message.map_err(silent);
            }
        }
    }

    fn number(&self) -> Result<u16, RandomError> {
        self.random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .number()
    }

    fn wait_at(
        &self,
        socket: &Socket,
        name: &Name,
        kind: RecordType,
        tell: oneshot::Sender<Message>,
    ) -> Result<u16, UpstreamError> {
        let mut waiting = socket.waiting();
        for _ in 0..16 {
            let id = self.number()?;
            if let std::collections::hash_map::Entry::Vacant(place) = waiting.entry(id) {
                place.insert(Waiter {
                    name: name.clone(),
                    kind,
                    tell,
                });
                return Ok(id);
            }
        }
        Err(UpstreamError::Full {
            address: self.address,
        })
    }

    async fn ask_by_stream(&self, name: &Name, kind: RecordType) -> Result<Message, UpstreamError> {
        let address = self.address;
        let ask = |source| UpstreamError::Ask { address, source };
        let nonsense = || UpstreamError::Nonsense { address };
        let Ok(_permit) = self.streams.acquire().await else {
            return Err(UpstreamError::Full { address });
        };
        let id = self.number()?;
        let bytes = question(id, name, kind).map_err(|()| nonsense())?;
        let length = u16::try_from(bytes.len()).map_err(|_| nonsense())?;
        let mut stream = TcpStream::connect(address).await.map_err(ask)?;
        let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
        stream.write_all(&framed).await.map_err(ask)?;
        let length = stream.read_u16().await.map_err(ask)?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.map_err(ask)?;
        let message = Message::from_vec(&answer).map_err(|_| nonsense())?;
        if message.metadata.id == id && answers(&message, name, kind) {
            Ok(message)
        } else {
            Err(nonsense())
        }
    }
}

impl Socket {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u16, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(self: Arc<Self>) {
        let mut buffer = vec![0; 65_535];
        loop {
            // An error is that of an earlier question (named is away): its asker's patience ends by itself.
            let Ok(length) = self.udp.recv(&mut buffer).await else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let Some(Ok(message)) = buffer.get(..length).map(Message::from_vec) else {
                continue;
            };
            let mut waiting = self.waiting();
            let id = message.metadata.id;
            let meant = waiting
                .get(&id)
                .is_some_and(|waiter| answers(&message, &waiter.name, waiter.kind));
            if meant && let Some(waiter) = waiting.remove(&id) {
                // Nobody may be waiting any more.
                let _ = waiter.tell.send(message);
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.socket.waiting().remove(&self.id);
    }
}

fn question(id: u16, name: &Name, kind: RecordType) -> Result<Vec<u8>, ()> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM);
    message.set_edns(edns);
    message.to_vec().map_err(|_| ())
}

fn answers(message: &Message, name: &Name, kind: RecordType) -> bool {
    message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && matches!(
            message.queries.as_slice(),
            [query] if query.name == *name
                && query.query_type == kind
                && query.query_class == DNSClass::IN
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{RData, Record};
    use tokio::net::TcpListener;

    fn name() -> Name {
        Name::from_ascii("api.example.com.").unwrap()
    }

    fn reply(asked: &[u8], change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::from_vec(asked).unwrap();
        message.metadata.message_type = MessageType::Response;
        message.add_answer(Record::from_rdata(
            name(),
            60,
            RData::A(A::new(192, 0, 2, 1)),
        ));
        change(&mut message);
        message.to_vec().unwrap()
    }

    #[tokio::test]
    async fn only_the_answer_to_the_question_counts() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream::start(server.local_addr().unwrap()).await.unwrap();
        let serve = async {
            let mut buffer = [0; 1500];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let asked = &buffer[..length];
            let question = Message::from_vec(asked).unwrap();
            let edns = question.edns.as_ref().unwrap();
            assert!(!edns.flags().dnssec_ok && edns.options().as_ref().is_empty());
            assert!(!question.metadata.checking_disabled);
            let wrong: [fn(&mut Message); 4] = [
                |m| m.metadata.id ^= 1,
                |m| m.metadata.message_type = MessageType::Query,
                |m| m.queries[0].query_type = RecordType::AAAA,
                |m| m.queries[0].name = Name::from_ascii("evil.example.").unwrap(),
            ];
            for change in wrong {
                server.send_to(&reply(asked, change), from).await.unwrap();
            }
            server.send_to(b"\0\0garbage", from).await.unwrap();
            let true_one = reply(asked, |m| m.metadata.authentic_data = true);
            server.send_to(&true_one, from).await.unwrap();
        };
        let name = name();
        let (answer, ()) = tokio::join!(upstream.ask(&name, RecordType::A), serve);
        assert!(answer.unwrap().metadata.authentic_data);
        assert!(
            upstream
                .sockets
                .iter()
                .all(|socket| socket.waiting().is_empty())
        );
    }

    #[tokio::test]
    async fn what_does_not_fit_is_fetched_over_tcp() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let upstream = Upstream::start(address).await.unwrap();
        let serve = async {
            let mut buffer = [0; 1500];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let short = reply(&buffer[..length], |m| m.metadata.truncation = true);
            server.send_to(&short, from).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut asked = vec![0; usize::from(length)];
            stream.read_exact(&mut asked).await.unwrap();
            let whole = reply(&asked, |_| ());
            stream.write_u16(whole.len() as u16).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        };
        let name = name();
        let (answer, ()) = tokio::join!(upstream.ask(&name, RecordType::A), serve);
        assert_eq!(answer.unwrap().answers.len(), 1);
    }
}
