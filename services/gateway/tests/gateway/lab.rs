//! A small world for one test: a namespace, a server on 203.0.113.10, a name server, a gateway with one agent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clawgress_config::access::Status;
use clawgress_config::policy::Policy;
use clawgress_gateway::flows::Flow;
use clawgress_gateway::gateway::{Gateway, Sockets};
use clawgress_gateway::judge::Judge;
use clawgress_gateway::listen;
use clawgress_gateway::tls::Showing;
use clawgress_gateway::worker::Limits;
use nix::sched::{CloneFlags, unshare};

use crate::origin::{self, Counts, SERVER};
use crate::world::{self, LIMITS, World};

pub(crate) const HOST: &str = "origin.lab.test";
pub(crate) const TLS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3129);

pub(crate) struct Lab {
    pub(crate) judge: Arc<Judge>,
    world: Mutex<World>,
    key: String,
    gateway: SocketAddr,
    running: Gateway,
    /// The gateway's, as PEM.
    pub(crate) certificate: String,
    serving: Arc<Counts>,
    _state: tempfile::TempDir,
}

impl Lab {
    /// Runs a test in a thread with a network of its own.
    pub(crate) fn run(test: impl FnOnce(&Lab) + Send) {
        Self::run_with(|_| {}, test);
    }

    /// After a change of what is committed at first.
    pub(crate) fn run_with(
        prepare: impl FnOnce(&mut World) + Send,
        test: impl FnOnce(&Lab) + Send,
    ) {
        Self::run_all(prepare, |_| {}, test);
    }

    /// With other bounds of a connection.
    pub(crate) fn run_bounded(bound: fn(&mut Limits), test: impl FnOnce(&Lab) + Send) {
        Self::run_all(|_| {}, bound, test);
    }

    pub(crate) fn run_all(
        prepare: impl FnOnce(&mut World) + Send,
        bound: fn(&mut Limits),
        test: impl FnOnce(&Lab) + Send,
    ) {
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)
                    .expect("a network namespace; run the tests as root or within `unshare -Urn`");
                for line in ["link set lo up", "route add local 203.0.113.0/24 dev lo"] {
                    let status = Command::new("ip")
                        .args(line.split(' '))
                        .status()
                        .expect("ip is needed: apt-get install iproute2");
                    assert!(status.success(), "ip {line}");
                }
                test(&Lab::new(prepare, bound));
            });
            if let Err(panic) = done.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn new(prepare: impl FnOnce(&mut World), bound: fn(&mut Limits)) -> Self {
        let mut limits = LIMITS;
        bound(&mut limits);
        let state = tempfile::tempdir().unwrap();
        let serving = Arc::new(Counts::default());
        for port in [80, 443] {
            let listener = TcpListener::bind((SERVER, port)).unwrap();
            let counts = Arc::clone(&serving);
            std::thread::spawn(move || origin::server(&listener, &counts));
        }
        let names = UdpSocket::bind("127.0.0.1:0").unwrap();
        let name_server_at = names.local_addr().unwrap();
        std::thread::spawn(move || origin::name_server(&names));
        let mut world = World::with(&world::allowing(&[HOST, "inside.lab.test"], 0));
        let key = world.agent("agent-1");
        prepare(&mut world);
        let judge = world.judge(&state.path().join("queue"));
        let pair = rcgen::generate_simple_self_signed(["gateway.lab.test".to_owned()]).unwrap();
        let certificate = pair.cert.pem();
        let [certificate_file, key_file] =
            ["gateway.crt", "gateway.key"].map(|name| state.path().join(name));
        std::fs::write(&certificate_file, &certificate).unwrap();
        std::fs::write(&key_file, pair.signing_key.serialize_pem()).unwrap();
        let showing = Arc::new(Showing::default());
        showing.replace(clawgress_gateway::tls::config(&certificate_file, &key_file).unwrap());
        let gateway: SocketAddr = ([127, 0, 0, 1], 3128).into();
        let sockets = Sockets {
            plain: vec![listen::open(gateway).unwrap()],
            tls: vec![listen::open(TLS).unwrap()],
            front: None,
        };
        let running = Gateway::start(
            Arc::clone(&judge),
            limits,
            name_server_at,
            &showing,
            &Arc::default(),
            vec![sockets],
        )
        .unwrap();
        Self {
            judge,
            world: Mutex::new(world),
            key,
            gateway,
            running,
            certificate,
            serving,
            _state: state,
        }
    }

    pub(crate) fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(self.gateway).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream
    }

    pub(crate) fn agent(&self) -> TcpStream {
        self.open()
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn credential(&self) -> String {
        format!("Proxy-Authorization: Bearer {}\r\n", self.key)
    }

    pub(crate) fn connect(&self, agent: &mut TcpStream, target: &str) -> String {
        let request = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
            self.credential()
        );
        agent.write_all(request.as_bytes()).unwrap();
        read_head(agent)
    }

    pub(crate) fn get(&self, agent: &mut TcpStream, url: &str) -> String {
        let request = format!(
            "GET {url} HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n",
            self.credential()
        );
        agent.write_all(request.as_bytes()).unwrap();
        let head = read_head(agent);
        let body = read_body(agent, &head);
        head + &body
    }

    /// Connections that the server has seen.
    pub(crate) fn reached(&self) -> usize {
        self.serving.connections.load(Ordering::SeqCst)
    }

    /// Bytes that it has.
    pub(crate) fn heard(&self) -> usize {
        self.serving.bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn stop_accepting(&self) {
        self.running.stop_accepting();
    }

    /// What has come to it since this was asked last, by connection; empty ones left out.
    pub(crate) fn heard_now(&self) -> Vec<Vec<u8>> {
        let mut heard = self.serving.heard.lock().unwrap();
        let taken = heard.iter_mut().map(std::mem::take);
        taken.filter(|bytes| !bytes.is_empty()).collect()
    }

    pub(crate) fn flows(&self) -> Vec<Arc<Flow>> {
        self.running.flows()
    }

    pub(crate) fn connections(&self) -> usize {
        self.running.connections()
    }

    /// Waits until nothing is open.
    pub(crate) fn idle(&self) {
        let began = Instant::now();
        while !self.running.flows().is_empty() {
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "a flow does not end"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            self.judge.queue().flush().await.unwrap();
            let mut reader = self.judge.queue().reader();
            let queued = reader.read(0, 1 << 30).unwrap();
            queued
                .iter()
                .map(|event| serde_json::from_slice(&event.text).unwrap())
                .collect()
        })
    }

    pub(crate) fn change(&self, change: impl Fn(&mut World)) {
        let mut world = self.world.lock().unwrap();
        change(&mut world);
        self.judge.take(world.snapshot());
    }

    /// As at the beginning.
    pub(crate) fn reset(&self) {
        self.change(|world| {
            allow(world, &[HOST, "inside.lab.test"]);
            world.credentials.keys[0].revoked = false;
            world
                .revision
                .access
                .agents
                .get_mut("agent-1")
                .unwrap()
                .status = Status::Active;
        });
    }
}

/// These names, and no others.
pub(crate) fn allow(world: &mut World, names: &[&str]) {
    let policy = world::allowing(names, 0);
    world.revision.policy = Policy::from_json(policy.to_string().as_bytes()).unwrap();
}

pub(crate) fn forbid(world: &mut World) {
    allow(world, &["other.lab.test"]);
}

pub(crate) fn revoke(world: &mut World) {
    world.credentials.keys[0].revoked = true;
}

pub(crate) fn disable(world: &mut World) {
    world
        .revision
        .access
        .agents
        .get_mut("agent-1")
        .unwrap()
        .status = Status::Disabled;
}

pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut byte).unwrap();
        assert!(
            read == 1,
            "closed after {:?}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

pub(crate) fn read_body(stream: &mut TcpStream, head: &str) -> String {
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}
