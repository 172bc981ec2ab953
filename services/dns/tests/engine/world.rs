//! What stands around the engine in these tests: an upstream that says what it is told to, an enforcer that keeps
//! minutes, and askers. Both neighbours are spoken to over real sockets; agents hand their packets in, for no policy
//! gives a host a loopback address, but for those of the LAN, who come through the doors.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clawgress_audit::event::Event;
use clawgress_audit::queue::Reader;
use clawgress_dns::enforcer::{self, Link};
use clawgress_dns::engine::{Asker, Begun, Engine, Limits};
use clawgress_dns::events::Events;
use clawgress_dns::listen::{Bound, Door, StreamLimits, Streams};
use clawgress_dns::trail::Trail;
use clawgress_dns::upstream::Upstream;
use clawgress_dns::{budget, flights};
use clawgress_link::pins::{Count, FromEnforcer, FromResolver, LONGEST_MESSAGE, Pin};
use clawgress_policy::Revision;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recv, send,
    socket,
};
use tokio::net::UdpSocket;

pub(crate) use crate::scene::{policy, revision};

pub(crate) const LIMITS: Limits = Limits {
    flights: flights::Limits {
        total: 100,
        of_principal: 60,
        of_source: 40,
    },
    budget: budget::Limits {
        names: 60,
        bytes: 1024,
        domains: 100,
    },
    cached_answers: 1000,
    remembered_pins: 1000,
};

/// How the enforcer takes a pin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Manner {
    #[default]
    Willing,
    Refusing,
    Silent,
}

#[derive(Default)]
pub(crate) struct Minutes {
    pub(crate) pins: Vec<Pin>,
    pub(crate) loaded: Vec<(u64, Option<String>)>,
    pub(crate) counts: Vec<Count>,
    pub(crate) manner: Manner,
    connection: Option<Arc<OwnedFd>>,
}

/// What the upstream says to each name and type.
type Zone = Arc<Mutex<HashMap<(String, RecordType), Vec<Record>>>>;

pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) minutes: Arc<Mutex<Minutes>>,
    /// Of what is not in it nothing is known.
    pub(crate) zone: Zone,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// Milliseconds until the upstream answers.
    pub(crate) delay: Arc<AtomicU64>,
    pub(crate) agents: SocketAddr,
    pub(crate) agents_tcp: SocketAddr,
    pub(crate) front: SocketAddr,
    directory: tempfile::TempDir,
    reader: tokio::sync::Mutex<Reader>,
}

const QUEUE: u64 = 4 * 1024 * 1024;

impl World {
    /// Without an enforcer yet.
    pub(crate) async fn new() -> Self {
        let zone: Zone = Arc::default();
        let asked = Arc::default();
        let delay = Arc::new(AtomicU64::new(0));
        let upstream = serve_zone(Arc::clone(&zone), Arc::clone(&asked), Arc::clone(&delay)).await;
        let directory = tempfile::tempdir().unwrap();
        let (link, outbox) = Link::new();
        let events = Events::to(|_, _| true).unwrap();
        let upstream = Upstream::start(upstream).await.unwrap();
        let trail = Trail::open(&directory.path().join("queue"), QUEUE, QUEUE).unwrap();
        let reader = trail.reader();
        let engine = Engine::new(&LIMITS, upstream, link, events, trail);
        let path = directory.path().join("pins.sock");
        tokio::spawn(enforcer::keep(Arc::clone(&engine), path, outbox));
        let streams = Streams::new(StreamLimits {
            total: 20,
            of_principal: 8,
            of_source: 3,
        });
        let agents = Bound::at("0.0.0.0:0".parse().unwrap(), Door::Agents).unwrap();
        let front = Bound::at("127.0.0.1:0".parse().unwrap(), Door::Front).unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 200], port));
        let world = Self {
            agents: at(agents.udp_address().unwrap().port()),
            agents_tcp: at(agents.tcp_address().unwrap().port()),
            front: front.udp_address().unwrap(),
            engine: Arc::clone(&engine),
            minutes: Arc::default(),
            zone,
            asked,
            delay,
            directory,
            reader: tokio::sync::Mutex::new(reader),
        };
        agents.serve(&engine, &streams);
        front.serve(&engine, &streams);
        world
    }

    /// With an enforcer that has had the policy above loaded as revision 1.
    pub(crate) async fn enforcing() -> Self {
        let world = Self::new().await;
        world.start_enforcer();
        world.load(1, &policy()).await;
        world
    }

    /// From now on there is an enforcer to connect to.
    pub(crate) fn start_enforcer(&self) {
        let path = self.directory.path().join("pins.sock");
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let minutes = Arc::clone(&self.minutes);
        std::thread::spawn(move || {
            // To the library a stream's; accepting is the same for packets.
            let listener = UnixListener::from(listener);
            while let Ok((connection, _)) = listener.accept() {
                keep_minutes(&Arc::new(OwnedFd::from(connection)), &minutes);
            }
        });
    }

    pub(crate) fn tell(&self, message: &FromEnforcer) {
        let connection = self.minutes.lock().unwrap().connection.clone().unwrap();
        tell(&connection, message);
    }

    /// Has a revision loaded and waits until it is.
    pub(crate) async fn load(&self, number: u64, policy: &serde_json::Value) {
        self.load_revision(&revision(number, policy)).await;
    }

    pub(crate) async fn load_revision(&self, revision: &Revision) {
        let number = revision.number;
        let path = self.directory.path().join(format!("{number}.json"));
        revision.write(&path).unwrap();
        eventually(|| self.minutes.lock().unwrap().connection.is_some()).await;
        self.tell_load(number, &path);
        eventually(|| {
            let minutes = self.minutes.lock().unwrap();
            minutes.loaded.iter().any(|(loaded, _)| *loaded == number)
        })
        .await;
    }

    pub(crate) fn tell_load(&self, revision: u64, path: &Path) {
        self.tell(&FromEnforcer::Load {
            revision,
            file: path.display().to_string(),
        });
    }

    /// The enforcer hangs up, and the resolver has noticed.
    pub(crate) async fn lose_enforcer(&self) {
        let connection = self.minutes.lock().unwrap().connection.take().unwrap();
        std::fs::remove_file(self.directory.path().join("pins.sock")).unwrap();
        nix::sys::socket::shutdown(connection.as_raw_fd(), nix::sys::socket::Shutdown::Both)
            .unwrap();
        eventually(|| !self.engine.is_ready()).await;
    }

    pub(crate) fn set(&self, name: &str, records: impl Into<Vec<Record>>) {
        let records = records.into();
        for kind in [RecordType::A, RecordType::AAAA] {
            self.set_kind(name, kind, records.clone());
        }
    }

    pub(crate) fn set_kind(&self, name: &str, kind: RecordType, records: Vec<Record>) {
        let mut zone = self.zone.lock().unwrap();
        zone.insert((name.to_owned(), kind), records);
    }

    pub(crate) fn times_asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| *one == name).count()
    }

    /// What came to the audit trail since it was last asked for.
    pub(crate) async fn trail(&self) -> Vec<Event> {
        // Only what is on disk is handed on.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let queued = self.reader.lock().await.read(0, 8 * 1024 * 1024).unwrap();
        let event = |text: &[u8]| {
            let mut event = br#"{"gateway":"dns","queue":"q","sequence":1,"#.to_vec();
            event.extend_from_slice(&text[1..]);
            Event::parse(&event).unwrap()
        };
        queued.iter().map(|queued| event(&queued.text)).collect()
    }

    pub(crate) fn is_pinned(&self, principal: &str, name: &str, address: IpAddr) -> bool {
        self.minutes.lock().unwrap().pins.iter().any(|pin| {
            pin.principal == principal && pin.name == name && pin.addresses.contains(&address)
        })
    }

    pub(crate) async fn ask(&self, source: [u8; 4], name: &str, kind: RecordType) -> Reply {
        ask_engine(&self.engine, source, name, kind).await
    }
}

/// Records what the resolver says until it hangs up.
fn keep_minutes(connection: &Arc<OwnedFd>, minutes: &Mutex<Minutes>) {
    minutes.lock().unwrap().connection = Some(Arc::clone(connection));
    let mut buffer = vec![0; LONGEST_MESSAGE];
    while let Ok(length @ 1..) = recv(connection.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        let mut minutes = minutes.lock().unwrap();
        match serde_json::from_slice(&buffer[..length]).unwrap() {
            FromResolver::Pin(pin) => {
                let error = match minutes.manner {
                    Manner::Willing => None,
                    Manner::Refusing => Some("the set is full".to_owned()),
                    Manner::Silent => continue,
                };
                let id = pin.id;
                if error.is_none() {
                    minutes.pins.push(pin);
                }
                tell(connection, &FromEnforcer::Pinned { id, error });
            }
            FromResolver::Loaded { revision, error } => minutes.loaded.push((revision, error)),
            FromResolver::Counted { counts } => minutes.counts.extend(counts),
        }
    }
}

fn tell(connection: &OwnedFd, message: &FromEnforcer) {
    let bytes = serde_json::to_vec(message).unwrap();
    // The resolver may have hung up.
    let _ = send(connection.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL);
}

async fn serve_zone(
    zone: Zone,
    asked: Arc<Mutex<Vec<String>>>,
    delay: Arc<AtomicU64>,
) -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2000];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            let query = message.queries[0].clone();
            let text = query.name.to_ascii();
            let name = text.trim_end_matches('.').to_owned();
            message.metadata.message_type = MessageType::Response;
            match zone.lock().unwrap().get(&(name.clone(), query.query_type)) {
                Some(records) => message.answers.clone_from(records),
                None => message.metadata.response_code = ResponseCode::NXDomain,
            }
            asked.lock().unwrap().push(name);
            let (socket, pause) = (Arc::clone(&socket), delay.load(Ordering::Relaxed));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                socket
                    .send_to(&message.to_vec().unwrap(), from)
                    .await
                    .unwrap();
            });
        }
    });
    address
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) message: Message,
}

impl Reply {
    pub(crate) fn code(&self) -> ResponseCode {
        self.message.metadata.response_code
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        let answers = self.message.answers.iter();
        answers
            .filter_map(|record| record.data.ip_addr())
            .map(|address| address.to_string())
            .collect()
    }

    /// The extended error: its number and text.
    pub(crate) fn why(&self) -> (u16, String) {
        let edns = self.message.edns.as_ref().expect("no EDNS");
        match edns.option(EdnsCode::from(15)) {
            Some(EdnsOption::Unknown(_, bytes)) => (
                u16::from_be_bytes([bytes[0], bytes[1]]),
                String::from_utf8_lossy(&bytes[2..]).into_owned(),
            ),
            _ => panic!("no extended error in {self:?}"),
        }
    }
}

/// Hands a question in as a door does.
pub(crate) async fn ask_engine(
    engine: &Arc<Engine>,
    source: [u8; 4],
    name: &str,
    kind: RecordType,
) -> Reply {
    let asker = Asker::Agent(source.into());
    let bytes = match engine.begin(&question(name, kind), asker, false) {
        Begun::Answer(bytes) => bytes,
        Begun::Waits(waiting) => engine.finish(waiting).await,
        Begun::Silence => panic!("{name} was not answered"),
    };
    let message = Message::from_vec(&bytes).unwrap();
    Reply { message }
}

/// Asks at a door.
pub(crate) async fn ask(to: SocketAddr, from: [u8; 4], name: &str, kind: RecordType) -> Reply {
    let socket = UdpSocket::bind(SocketAddr::from((from, 0))).await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(&question(name, kind)).await.unwrap();
    let mut buffer = [0; 2000];
    let received = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer));
    let length = received
        .await
        .unwrap_or_else(|_| panic!("{name} was not answered"))
        .unwrap();
    let message = Message::from_vec(&buffer[..length]).unwrap();
    Reply { message }
}

pub(crate) fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

pub(crate) fn record(name: &str, data: RData) -> Record {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    Record::from_rdata(name, 60, data)
}

pub(crate) fn address(name: &str, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    record(name, data)
}

pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it did not come about"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
