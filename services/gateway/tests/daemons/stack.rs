//! All services of the explicit proxy as processes, in one network namespace, with a server and names outside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use clawgress_audit::event::{Decision, Event};
use clawgress_audit::query::{Query, page};
use clawgress_audit::store::checkpoint::SigningKey;
use clawgress_audit::store::{self, Store};
use clawgress_audit::verify::{Trust, verify};
use clawgress_config::access::{Access, Agent, AuthType, GatewaySettings, Status};
use clawgress_config::policy::Policy;
use clawgress_policy::{Logging, Network, Revision};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::manager::Manager;
use crate::origin::{self, SERVER};

pub(crate) const HOST: &str = "origin.lab.test";
pub(crate) const GATEWAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3128);
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Stack {
    pub(crate) revision: Revision,
    pub(crate) manager: Manager,
    scratch: tempfile::TempDir,
    daemons: Vec<(&'static str, Child)>,
}

/// Builds the other rooms' programs beside this one's, once.
fn programs() -> PathBuf {
    static BUILT: Once = Once::new();
    let gateway = Path::new(env!("CARGO_BIN_EXE_clawgress-gateway"));
    let directory = gateway.parent().unwrap().to_owned();
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--bins"]);
        for room in ["identity", "quota", "audit"] {
            build.args(["--package", &format!("clawgress-{room}")]);
        }
        if directory.ends_with("release") {
            build.arg("--release");
        }
        build
            .arg("--manifest-path")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
            .arg("--target-dir")
            .arg(directory.parent().unwrap());
        assert!(build.status().unwrap().success(), "building the services");
    });
    directory
}

impl Stack {
    /// Runs a test in a thread with a network of its own.
    pub(crate) fn run(
        prepare: impl FnOnce(&mut Revision) + Send,
        test: impl FnOnce(&mut Stack) + Send,
    ) {
        Self::run_at(&[80, 443], prepare, test);
    }

    /// With the plain server on these ports.
    pub(crate) fn run_at(
        ports: &[u16],
        prepare: impl FnOnce(&mut Revision) + Send,
        test: impl FnOnce(&mut Stack) + Send,
    ) {
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)
                    .expect("a network namespace; run the tests as root or within `unshare -Urn`");
                for line in ["link set lo up", "route add local 203.0.113.0/24 dev lo"] {
                    let status = Command::new("ip").args(line.split(' ')).status();
                    let status = status.expect("ip is needed: apt-get install iproute2");
                    assert!(status.success(), "ip {line}");
                }
                let mut stack = Stack::new(ports, prepare);
                stack.start_all();
                test(&mut stack);
            });
            if let Err(panic) = done.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn new(ports: &[u16], prepare: impl FnOnce(&mut Revision)) -> Self {
        for port in ports {
            let listener = TcpListener::bind((SERVER, *port)).unwrap();
            std::thread::spawn(move || origin::server(&listener, &Arc::default()));
        }
        let names = UdpSocket::bind("127.0.0.1:53").unwrap();
        std::thread::spawn(move || origin::name_server(&names));
        let scratch = tempfile::tempdir().unwrap();
        for directory in ["identity", "audit", "gateway", "files", "run"] {
            std::fs::create_dir(scratch.path().join(directory)).unwrap();
        }
        let mut revision = revision();
        prepare(&mut revision);
        revision.write(&scratch.path().join("boot.json")).unwrap();
        let manager = Manager::at(&scratch.path().join("notify.sock"));
        Self {
            revision,
            manager,
            scratch,
            daemons: Vec::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn start_all(&mut self) {
        for name in ["identity", "quota", "audit", "gateway"] {
            self.start(name);
        }
    }

    fn configuration(&self, name: &str) -> String {
        let place = self.scratch.path().display();
        let uid = nix::unistd::getuid();
        match name {
            "identity" => format!(
                "listen = \"127.0.0.1:8450\"\nadmin_socket = \"{place}/run/admin.sock\"\nadmin_uids = []\n\
                 enrol_socket = \"{place}/run/enrol.sock\"\nstate = \"{place}/identity\"\nrevision = \"{place}/boot.json\"\n\
                 files = \"{place}/files\"\nservices = [{{ uid = {uid}, role = \"gateway\" }}]\n"
            ),
            "quota" => format!(
                "socket = \"{place}/run/lease.sock\"\ngateway_uids = []\nstate = \"{place}/used.json\"\nsave_every_ms = 50\n"
            ),
            "audit" => format!(
                "state = \"{place}/audit\"\napi_socket = \"{place}/run/api.sock\"\napi_uids = []\n\
                 ship_socket = \"{place}/run/ship.sock\"\nenrol_socket = \"{place}/run/none\"\nsegment_bytes = 1048576\n\
                 checkpoint_seconds = 1\nrevision = \"{place}/boot.json\"\nfiles = \"{place}\"\nresolver = \"127.0.0.1:53\"\n\
                 [shippers]\ngateway = {uid}\n"
            ),
            _ => format!(
                "revision = \"{place}/boot.json\"\nnamed = \"127.0.0.1:53\"\nworkers = 2\nstate = \"{place}/gateway\"\n\
                 control_socket = \"{place}/run/control.sock\"\ncontrol_uids = []\nidentity = \"127.0.0.1:8450\"\n\
                 enrol_socket = \"{place}/run/enrol.sock\"\nquota_socket = \"{place}/run/lease.sock\"\n\
                 ship_socket = \"{place}/run/ship.sock\"\ncertificate = \"{place}/gateway.crt\"\nkey = \"{place}/gateway.key\"\n\
                 [limits]\nhead_ms = 2000\nbetween_requests_ms = 60000\nanswer_ms = 10000\nunknown_per_source = 1024\n\
                 queue_bytes = 67108864\nqueue_bytes_per_agent = 16777216\n"
            ),
        }
    }

    pub(crate) fn start(&mut self, name: &'static str) {
        let file = self.path(&format!("{name}.toml"));
        std::fs::write(&file, self.configuration(name)).unwrap();
        let program = programs().join(format!("clawgress-{name}"));
        let program = program.to_str().unwrap();
        let mut command = if name == "gateway" {
            self.manager.command(program)
        } else {
            Command::new(program)
        };
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .unwrap();
        let child = command
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemons.push((name, child));
    }

    /// The process that does the work: of the gateway the child of the one that was started.
    pub(crate) fn worker(&self, name: &str) -> Option<Pid> {
        let (_, child) = self.daemons.iter().rfind(|(known, _)| *known == name)?;
        let pid = child.id();
        if name != "gateway" {
            return Some(Pid::from_raw(pid.cast_signed()));
        }
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let child = children.split_whitespace().next()?;
        Some(Pid::from_raw(child.parse().ok()?))
    }

    /// As no process can catch it.
    pub(crate) fn kill(&mut self, name: &str) {
        if let Some(worker) = self.worker(name) {
            let _ = kill(worker, Signal::SIGKILL);
        }
        let at = self.daemons.iter().rposition(|(known, _)| *known == name);
        if let Some(at) = at {
            let (_, mut child) = self.daemons.remove(at);
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// As the service manager stops it; returns when it may be started again.
    pub(crate) fn stop(&mut self, name: &str) {
        let at = self
            .daemons
            .iter()
            .rposition(|(known, _)| *known == name)
            .unwrap();
        let (_, mut child) = self.daemons.remove(at);
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "{name} does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn publish(&mut self, change: impl FnOnce(&mut Revision)) {
        self.revision.number += 1;
        change(&mut self.revision);
        self.revision.write(&self.path("boot.json")).unwrap();
    }

    /// One JSON line each way.
    pub(crate) fn ask(&self, socket: &str, question: &Value) -> Option<Value> {
        let mut stream = UnixStream::connect(self.path(socket)).ok()?;
        stream.write_all(format!("{question}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    pub(crate) fn control(&self, question: &Value) -> Value {
        self.ask("run/control.sock", question)
            .expect("an answer on the control socket")
    }

    /// A fresh key of an agent, which the gateway knows when this returns.
    pub(crate) fn key(&self, agent: &str) -> String {
        let key = self.new_key(agent);
        eventually("the gateway knows the key", || {
            (asked(&key, "known").0 == 200).then_some(())
        });
        key
    }

    /// One that the gateway knows a moment later.
    pub(crate) fn new_key(&self, agent: &str) -> String {
        let question = json!({"ask": "create_key", "agent": agent});
        eventually("a key is made", || {
            let reply = self.ask("run/admin.sock", &question)?;
            Some(reply.get("key")?.as_str()?.to_owned())
        })
    }

    pub(crate) fn waits_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        eventually(what, || holds(self).then_some(()));
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// All that the audit service has, after everything that is queued has come there; its chain is verified.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        self.stop("gateway");
        // What the old process has left is shipped by the next one, once it has let go of it.
        self.start("gateway");
        let queue = self.path("gateway/queue");
        eventually("all events are shipped", || {
            let reply = self.ask("run/control.sock", &json!({"ask": "status"}))?;
            let left = std::fs::read_dir(&queue).ok()?.filter(|lane| {
                let lane = lane.as_ref().unwrap().path();
                std::fs::read_dir(lane).is_ok_and(|mut files| {
                    files.any(|file| file.is_ok_and(|file| file.file_name() != "lock"))
                })
            });
            (reply["events_waiting"] == 0 && left.count() <= 1).then_some(())
        });
        // The last of them are signed before it ends.
        self.stop("audit");
        let place = self.path("audit");
        let key = SigningKey::open(&place.join("signing.key")).unwrap();
        let settings = store::Settings::default();
        let store = Store::open(&place.join("segments"), key, settings).unwrap();
        let mut query = Query {
            limit: 10_000,
            ..Query::default()
        };
        let mut events = Vec::new();
        loop {
            let page = page(&store, &query).unwrap();
            let lines = page.lines.iter();
            let lines = lines.map(|line| Event::parse(line.json.as_bytes()).unwrap());
            events.extend(lines.filter(|event| event.outcome.decision != Decision::Notice));
            match page.next {
                Some(next) => query.after = Some(next.to_string()),
                None => break,
            }
        }
        let trust = Trust {
            key: Some(store.public_key()),
            ..Trust::default()
        };
        let report = verify(&place.join("segments"), &trust).unwrap();
        assert!(report.good, "{:?}", report.faults);
        events
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, _) in &self.daemons {
                eprintln!("== {name} ==\n{}", self.log(name));
            }
        }
        while let Some((name, _)) = self.daemons.last() {
            let name = *name;
            self.kill(name);
        }
    }
}

/// Status and body; 0: no answer.
pub(crate) fn asked(key: &str, path: &str) -> (u16, String) {
    get(key, path).unwrap_or_default()
}

pub(crate) fn get(key: &str, path: &str) -> Option<(u16, String)> {
    let mut agent = TcpStream::connect(GATEWAY).ok()?;
    agent
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let request = format!(
        "GET http://{HOST}/{path} HTTP/1.1\r\nHost: {HOST}\r\nProxy-Authorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    agent.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    agent.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

/// A tunnel in which the server has answered the hello.
pub(crate) fn tunnel(key: &str) -> TcpStream {
    let mut agent = TcpStream::connect(GATEWAY).unwrap();
    agent
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let request = format!(
        "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nProxy-Authorization: Bearer {key}\r\n\r\n"
    );
    agent.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(agent.read(&mut byte).unwrap(), 1, "{head:?}");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{head:?}");
    agent.write_all(&origin::hello(HOST)).unwrap();
    agent.read_exact(&mut byte).unwrap();
    agent
}

/// Whether bytes still come back through it.
pub(crate) fn echoes(agent: &mut TcpStream) -> bool {
    let mut byte = [0];
    agent.write_all(b"?").is_ok() && agent.read_exact(&mut byte).is_ok()
}

pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn revision() -> Revision {
    let agent = Agent {
        team_id: "team-1".to_owned(),
        project_id: "project-1".to_owned(),
        environment: "production".to_owned(),
        auth_type: AuthType::ApiKey,
        status: Status::Active,
        sources: std::collections::BTreeSet::new(),
        bound: false,
    };
    let policy = json!({"version": 1, "allow": {"domains": [HOST]}});
    Revision {
        number: 5,
        created: 1,
        enabled: true,
        policy: Policy::from_json(policy.to_string().as_bytes()).unwrap(),
        network: Network {
            listen_addresses: vec![GATEWAY.ip()],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: true,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: Vec::new(),
        access: Access {
            agents: [("agent-1".to_owned(), agent)].into(),
            gateway: GatewaySettings {
                enabled: true,
                drain_seconds: 3,
                ..GatewaySettings::default()
            },
            ..Access::default()
        },
    }
}
