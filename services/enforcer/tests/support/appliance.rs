//! A whole appliance in a namespace: real kernel, named, haproxy and enforcer. Only the agents' resolver is played by
//! the test, which so says what it wants to the enforcer, and hears what that one says.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clawgress_config::Cidr;
use clawgress_config::policy::Policy;
use clawgress_enforcer::kernel::{Socket, sets};
use clawgress_link::control::{self, Reply, Report, Request, Status};
use clawgress_link::pins::{FromEnforcer, FromResolver, LONGEST_MESSAGE, Pin, SOCKET};
use clawgress_policy::{Card, Logging, Network, Revision};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};
use nix::unistd::Pid;

use crate::support::{nft, run};

const RUN: &str = "/run/clawgress/enforcer";
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Appliance {
    scratch: tempfile::TempDir,
    enforcer: Option<Daemon>,
    _daemons: Vec<Daemon>,
}

/// Ends with its owner.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn overlay(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../rootfs-overlay")
        .join(path)
}

/// Asks again until it is so.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const AGENT: &[&str] = &["192.168.10.10/24", "192.168.10.20/24"];
const SITE: &[&str] = &["203.0.113.1/24", "192.0.2.1/32", "192.0.2.2/32"];

/// A machine at the far end of a wire.
fn people(name: &str, card: &str, addresses: &[&str], gateway: &str) {
    run("ip", &["netns", "add", name]);
    run("ip", &["link", "set", card, "netns", name]);
    let at = |words: &[&str]| run("ip", &[&["-n", name], words].concat());
    at(&["link", "set", "lo", "up"]);
    at(&["link", "set", card, "up"]);
    for address in addresses {
        at(&["address", "add", address, "dev", card]);
    }
    at(&["route", "add", "default", "via", gateway]);
}

impl Appliance {
    /// Sealed: no revision yet. The enforcer is not started.
    pub(crate) fn sealed() -> Self {
        for directory in ["/run", "/var/cache/bind"] {
            run("mount", &["-t", "tmpfs", "tmpfs", directory]);
        }
        run("mkdir", &["-p", "/run/netns"]);
        for (card, addresses) in [
            ("wan0", ["203.0.113.10/24", "2001:db8:f00d::10/64"]),
            ("lan0", ["192.168.10.1/24", "2001:db8:a::1/64"]),
        ] {
            let far = format!("{card}-far");
            run(
                "ip",
                &["link", "add", card, "type", "veth", "peer", "name", &far],
            );
            run("ip", &["link", "set", &far, "up"]);
            run("ip", &["link", "set", card, "up"]);
            for address in addresses {
                run("ip", &["address", "add", address, "dev", card]);
            }
        }
        people("agent", "lan0-far", AGENT, "192.168.10.1");
        people("site", "wan0-far", SITE, "203.0.113.10");
        run("ip", &["route", "add", "default", "via", "203.0.113.1"]);
        nft(&fs::read_to_string(overlay("etc/clawgress/sealed.nft")).unwrap());
        fs::create_dir_all(RUN).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name).display().to_string();
        for directory in ["revisions", "state"] {
            fs::create_dir(at(directory)).unwrap();
        }
        let subject = ["-subj", "/CN=front", "-days", "2"];
        let key = ["-keyout", &at("front.key"), "-out", &at("front.crt")];
        let kind = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        run("openssl", &[&kind[..], &subject[..], &key[..]].concat());
        let pem = ["front.crt", "front.key"].map(|part| fs::read_to_string(at(part)).unwrap());
        fs::write(at("front.pem"), pem.concat()).unwrap();

        let rpz = overlay("etc/clawgress/rpz").canonicalize().unwrap();
        let named = fs::read_to_string(overlay("etc/bind/named.conf")).unwrap();
        let named = named.replace("/etc/clawgress/rpz", &rpz.display().to_string());
        fs::write(format!("{RUN}/named.conf"), named).unwrap();
        let haproxy = fs::read_to_string(overlay("etc/haproxy/haproxy.cfg")).unwrap();
        let haproxy = haproxy.replace("/var/lib/clawgress/tls/front.pem", &at("front.pem"));
        fs::write(format!("{RUN}/haproxy.cfg"), haproxy).unwrap();
        fs::write(at("enforcer.toml"), configuration(&at)).unwrap();

        // A profile confines the daemon by the path of its program; the files of a test lie elsewhere.
        fs::copy("/usr/sbin/named", at("named")).unwrap();
        let named = Daemon::start(
            &at("named"),
            &["-f", "-n", "1", "-c", &format!("{RUN}/named.conf")],
            &at("named.log"),
        );
        fs::write(at("named.pid"), named.0.id().to_string()).unwrap();
        let haproxy = Daemon::start(
            "/usr/sbin/haproxy",
            &["-W", "-f", &format!("{RUN}/haproxy.cfg")],
            &at("haproxy.log"),
        );
        fs::write(at("haproxy.pid"), haproxy.0.id().to_string()).unwrap();
        Self {
            scratch,
            enforcer: None,
            _daemons: vec![named, haproxy],
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Starts the enforcer, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let config = self.path("enforcer.toml").display().to_string();
        let log = self.path("enforcer.log").display().to_string();
        let program = env!("CARGO_BIN_EXE_clawgress-enforcer");
        // With the one capability that its unit gives it.
        let only = "-all,+net_admin";
        let words = ["--bounding-set", only, "--inh-caps", only, "--", program];
        let arguments = [&words[..], &["--config", &config]].concat();
        self.enforcer = Some(Daemon::start("/usr/bin/setpriv", &arguments, &log));
        eventually("an answer of the enforcer", || {
            Self::try_ask(&Request::Status).ok()
        });
    }

    /// Ends it as systemd would.
    pub(crate) fn stop(&mut self) {
        let mut daemon = self.enforcer.take().unwrap();
        kill(Pid::from_raw(daemon.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(daemon.0.wait().unwrap().success(), "{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("enforcer.log")).unwrap_or_default()
    }

    fn try_ask(request: &Request) -> Result<Reply, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let asked = control::ask(Path::new(control::SOCKET), request, 3 * PATIENCE);
        runtime.block_on(asked).map_err(|error| error.to_string())
    }

    pub(crate) fn ask(&self, request: &Request) -> Reply {
        Self::try_ask(request).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    pub(crate) fn status(&self) -> Status {
        match self.ask(&Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn report(&self, request: &Request) -> Report {
        match self.ask(request) {
            Reply::Report(report) => report,
            other => panic!("{other:?}"),
        }
    }

    /// Writes a revision and has it applied.
    pub(crate) fn apply(&self, revision: &Revision) -> Report {
        let file = self.write(revision);
        self.report(&Request::Apply { file })
    }

    pub(crate) fn write(&self, revision: &Revision) -> String {
        let name = format!("revisions/{}.json", revision.number);
        let path = self.path(&name);
        revision.write(&path).unwrap();
        path.display().to_string()
    }

    /// What a boot would begin with.
    pub(crate) fn boot_with(&self, revision: &Revision) {
        let file = self.write(revision);
        std::os::unix::fs::symlink(file, self.path("revisions/boot.json")).unwrap();
    }
}

impl Daemon {
    fn start(program: &str, arguments: &[&str], log: &str) -> Self {
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self(child)
    }
}

fn configuration(at: &impl Fn(&str) -> String) -> String {
    let shipped = fs::read_to_string(overlay("etc/clawgress/enforcer.toml")).unwrap();
    let sealed = overlay("etc/clawgress/sealed.nft").canonicalize().unwrap();
    let lua = overlay("usr/share/clawgress/front/hello.lua")
        .canonicalize()
        .unwrap();
    let pid_files = format!(
        "pid-files = {{ named = \"{}\", haproxy = \"{}\" }}",
        at("named.pid"),
        at("haproxy.pid")
    );
    let replacements = [
        ("control_uids = [0, 970]", "control_uids = [0]".to_owned()),
        ("resolver_uids = [972]", "resolver_uids = [0]".to_owned()),
        ("proxy_uids = [973]", "proxy_uids = [0]".to_owned()),
        ("group = 960\n", String::new()),
        ("runtime_group = \"clawgress-front\"\n", String::new()),
        ("log_group = 979\n", String::new()),
        ("/var/lib/clawgress/revisions", at("revisions")),
        ("/var/lib/clawgress/enforcer", at("state")),
        ("/etc/clawgress/sealed.nft", sealed.display().to_string()),
        ("appliance-init = \"/run/clawgress/reload.sock\"", pid_files),
        (
            "/usr/share/clawgress/front/hello.lua",
            lua.display().to_string(),
        ),
        ("/var/lib/clawgress/tls/front.pem", at("front.pem")),
        ("/run/clawgress/haproxy/runtime.sock", at("runtime.sock")),
    ];
    let mut text = shipped;
    for (from, to) in replacements {
        assert!(
            text.contains(from),
            "the shipped configuration has no {from}"
        );
        text = text.replace(from, &to);
    }
    text
}

/// A revision with this policy.json.
pub(crate) fn revision(number: u64, policy: &str) -> Revision {
    let card = |name: &str, addresses: &[(&str, u8)]| Card {
        name: name.to_owned(),
        addresses: addresses
            .iter()
            .map(|(address, length)| Cidr {
                address: address.parse().unwrap(),
                length: *length,
            })
            .collect(),
    };
    Revision {
        number,
        created: 1_767_700_800,
        enabled: true,
        policy: Policy::from_json(policy.as_bytes()).unwrap(),
        network: Network {
            wan: vec![card("wan0", &[("203.0.113.10", 24)])],
            lan: vec![card("lan0", &[("192.168.10.1", 24), ("2001:db8:a::1", 64)])],
            ..Network::default()
        },
        time_zone: "Europe/Berlin".to_owned(),
        trust_hardware_clock: true,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: vec!["192.0.2.53".parse().unwrap()],
        access: clawgress_config::access::Access::default(),
    }
}

/// The kernel's generation.
pub(crate) fn generation() -> Option<u32> {
    sets::only_number(&mut Socket::open().unwrap(), "clawgress", "generation").unwrap()
}

/// clawgress-dns, as far as the enforcer sees it: loads whatever it is told to, unless it is told not to.
pub(crate) struct Resolver {
    socket: OwnedFd,
    heard: Arc<Mutex<Vec<FromEnforcer>>>,
    next: u64,
}

impl Resolver {
    pub(crate) fn connect() -> Self {
        Self::refusing(0)
    }

    /// Can't load that revision.
    pub(crate) fn refusing(revision: u64) -> Self {
        let open = || {
            let kind = SockType::SeqPacket;
            socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
        };
        let socket = eventually("the socket for pins", || {
            let socket = open();
            let address = UnixAddr::new(SOCKET).unwrap();
            connect(socket.as_raw_fd(), &address).ok().map(|()| socket)
        });
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (own, kept) = (socket.try_clone().unwrap(), Arc::clone(&heard));
        std::thread::spawn(move || listen(&own, &kept, revision));
        Self {
            socket,
            heard,
            next: 0,
        }
    }

    /// Asks for a pin and returns what the enforcer had against it.
    pub(crate) fn pin(
        &mut self,
        revision: u64,
        principal: &str,
        name: &str,
        addresses: &[&str],
        seconds: u32,
    ) -> Option<String> {
        self.next += 1;
        let id = self.next;
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        say(
            &self.socket,
            &FromResolver::Pin(Pin {
                id,
                revision,
                principal: principal.to_owned(),
                name: name.to_owned(),
                addresses,
                seconds,
            }),
        );
        self.hear("an answer to a pin", |message| match message {
            FromEnforcer::Pinned { id: of, error } if *of == id => Some(error.clone()),
            _ => None,
        })
    }

    /// The first message ever heard that is wanted.
    pub(crate) fn hear<T>(&self, what: &str, wanted: impl Fn(&FromEnforcer) -> Option<T>) -> T {
        eventually(what, || self.heard.lock().unwrap().iter().find_map(&wanted))
    }
}

fn say(socket: &OwnedFd, message: &FromResolver) {
    let bytes = serde_json::to_vec(message).unwrap();
    send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
}

fn listen(socket: &OwnedFd, heard: &Mutex<Vec<FromEnforcer>>, refused: u64) {
    let mut buffer = vec![0; LONGEST_MESSAGE];
    while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        if length == 0 {
            return;
        }
        let message: FromEnforcer = serde_json::from_slice(&buffer[..length]).unwrap();
        if let FromEnforcer::Load { revision, .. } = &message {
            let error = (*revision == refused).then(|| "no memory left".to_owned());
            say(
                socket,
                &FromResolver::Loaded {
                    revision: *revision,
                    error,
                },
            );
        }
        heard.lock().unwrap().push(message);
    }
}
