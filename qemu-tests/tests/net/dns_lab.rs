//! The agents' resolver as the image ships it, between an agent's wire, a real named that would answer everything, and
//! an enforcer of this test that keeps minutes. A ruleset leads every question of the agent to it.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clawgress_config::policy::Policy;
use clawgress_config::{Cidr, policy};
use clawgress_link::pins::{Count, FromEnforcer, FromResolver, LONGEST_MESSAGE, Pin, SOCKET};
use clawgress_policy::{Card, Logging, Network, Revision};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recv, send,
    socket,
};
use qemu_tests::error::IoContext;
use qemu_tests::{Case, Error, Result, fail};

use crate::gateway::{DIG, Daemon, Gateway, NAMED, NFT, altered, eventually, need};

/// agent-1 is the lab's agent. What else the LAN may have, it may not.
pub(crate) const POLICY: &str = r#"{
    "version": 1,
    "allow": {"domains": ["lan-only.allowed.test"]},
    "labels": {"denied.test": "off-limits", "*.denied.test": "off-limits"},
    "hosts": {"agent-1": {
        "sources": ["10.66.0.7/32", "fd66::7/128"],
        "allow": {
            "domains": ["api.allowed.test", "cname.allowed.test", "mixed.allowed.test", "many.allowed.test",
                "in10.allowed.test", "in169.allowed.test", "in100.allowed.test", "in127.allowed.test",
                "in-own.allowed.test", "in-one6.allowed.test", "in-ula.allowed.test", "in-mapped.allowed.test",
                "in-nat64.allowed.test", "in-6to4.allowed.test", "held.allowed.test", "*.wild.test", "*.t.tunnel.test", "*.d.tunnel.test"],
            "ips": ["10.99.0.0/16"]
        }
    }}
}"#;

const ZONES: [(&str, &str); 4] = [
    (
        "allowed.test",
        "api A 198.51.100.10\napi AAAA 2001:db8:1::10\napi TXT \"plain\"\n\
         api HTTPS 1 . alpn=h2,h3 ipv4hint=198.51.100.99 ech=AEX+DQBB\n\
         cname CNAME www.elsewhere.test.\nlan-only A 198.51.100.11\n\
         mixed A 10.0.0.1\nmixed A 198.51.100.12\nheld A 10.99.0.1\nheld A 10.98.0.1\n\
         in10 A 10.1.2.3\nin169 A 169.254.169.254\nin100 A 100.64.0.1\nin127 A 127.0.0.1\nin-own A 203.0.113.10\n\
         in-one6 AAAA ::1\nin-ula AAAA fd00::1\nin-mapped AAAA ::ffff:198.51.100.1\n\
         in-nat64 AAAA 64:ff9b::c633:6401\nin-6to4 AAAA 2002:c633:6401::1\n",
    ),
    (
        "elsewhere.test",
        "www A 198.51.100.20\nback CNAME api.allowed.test.\n",
    ),
    (
        "wild.test",
        "* A 198.51.100.30\n* TXT \"downstream\"\n* MX 10 downstream.wild.test.\n",
    ),
    (
        "denied.test",
        "@ A 198.51.100.66\n* A 198.51.100.66\n* TXT \"x\"\n* TYPE10 \\# 1 00\n* MX 1 mx\n",
    ),
];

const NAMED_CONFIG: &str = "options {\n\tdirectory \"DIR\"; pid-file none; session-keyfile none; recursion yes; querylog yes;\n\
    \tlisten-on port 53 { 127.0.0.1; }; listen-on-v6 { none; }; dnssec-validation no; empty-zones-enable no;\n\
    \tallow-query { 127.0.0.1; }; minimal-responses no;\n};\ncontrols { };\n\
    logging { channel asked { file \"DIR/asked.log\"; }; category queries { asked; }; };\n\
    zone \"t.tunnel.test\" { type forward; forward only; forwarders { 203.0.113.1 port 5300; }; };\n\
    zone \"d.tunnel.test\" { type forward; forward only; forwarders { 203.0.113.1 port 5301; }; };\n";

const REDIRECT: &str = "table inet lab { chain nat { type nat hook prerouting priority dstnat;\n\
    iifname inside udp dport 53 redirect to :10053\niifname inside tcp dport 53 redirect to :10053\n}\n}\n";

/// How the enforcer takes a pin.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Manner {
    #[default]
    Willing,
    Silent,
}

#[derive(Default)]
pub(crate) struct Minutes {
    pub(crate) pins: Vec<Pin>,
    pub(crate) counts: Vec<Count>,
    pub(crate) manner: Manner,
    loaded: Vec<(u64, Option<String>)>,
    connection: Option<Arc<OwnedFd>>,
}

pub(crate) struct Resolver {
    pub(crate) gateway: Gateway,
    pub(crate) minutes: Arc<Mutex<Minutes>>,
    log: PathBuf,
    daemon: Option<Daemon>,
    _named: Daemon,
}

impl Resolver {
    /// Everything runs, the policy above is revision 1 and loaded.
    pub(crate) fn enforcing(case: &Case) -> Result<Self> {
        let resolver = Self::without_enforcer(case)?;
        resolver.start_enforcer()?;
        resolver.load(1, POLICY)?;
        Ok(resolver)
    }

    pub(crate) fn without_enforcer(case: &Case) -> Result<Self> {
        need(&[NAMED, DIG, NFT])?;
        let gateway = Gateway::new()?;
        gateway.load(&gateway.file("redirect.nft", REDIRECT)?)?;
        let directory = gateway.path("").display().to_string();
        let mut config = NAMED_CONFIG.replace("DIR", directory.trim_end_matches('/'));
        for (zone, records) in ZONES {
            let text = format!("$TTL 60\n@ SOA ns. hostmaster. 1 60 60 60 20\n@ NS ns.\n{records}");
            let many: String = (0..60).fold(String::new(), |text, n| {
                if zone == "allowed.test" {
                    format!("{text}many A 198.51.100.{n}\nmany AAAA 2001:db8:1::{n:x}\n")
                } else {
                    text
                }
            });
            let file = gateway.file(&format!("{zone}.zone"), &(text + &many))?;
            config += &format!(
                "zone \"{zone}\" {{ type primary; file \"{}\"; }};\n",
                file.display()
            );
        }
        let config = gateway.file("named.conf", &config)?;
        let program = gateway.unconfined(NAMED.0)?;
        let command = format!("{program} -f -n 1 -c {}", config.display());
        let named = gateway.daemon(case, "named", &command)?;
        eventually("an answer of named", || {
            let line = format!("{} +time=1 +tries=1 @127.0.0.1 api.allowed.test", DIG.0);
            let answer = gateway.host.run(&line)?;
            if answer.contains("198.51.100.10") {
                return Ok(());
            }
            fail!("{answer}")
        })?;
        let log = case.log_directory("daemons")?.join("clawgress-dns.log");
        let mut resolver = Self {
            gateway,
            minutes: Arc::default(),
            log,
            daemon: None,
            _named: named,
        };
        resolver.start(case)?;
        Ok(resolver)
    }

    /// Starts the resolver (again) with the configuration of the image, its enforcer's socket moved.
    pub(crate) fn start(&mut self, case: &Case) -> Result {
        self.daemon = None;
        let socket = self.socket().display().to_string();
        let queue = self.gateway.path("dns").display().to_string();
        let moved = [
            (SOCKET, socket.as_str()),
            ("/var/lib/clawgress/dns", &queue),
        ];
        let config = altered("etc/clawgress/dns.toml", &moved)?;
        let config = self.gateway.file("dns.toml", &config)?;
        let command = format!(
            "{} --config {}",
            program("clawgress-dns")?,
            config.display()
        );
        self.daemon = Some(self.gateway.daemon(case, "clawgress-dns", &command)?);
        eventually("an answer of the resolver", || {
            self.dig("@10.66.0.1 api.allowed.test").map(drop)
        })
    }

    pub(crate) fn stop(&mut self) {
        self.daemon = None;
    }

    fn socket(&self) -> PathBuf {
        self.gateway.path("pins.sock")
    }

    pub(crate) fn start_enforcer(&self) -> Result {
        let path = self.socket();
        let failed = |error| Error::other(format!("listening on {}: {error}", path.display()));
        let kind = SockType::SeqPacket;
        let listener =
            socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).map_err(failed)?).map_err(failed)?;
        listen(&listener, Backlog::new(1).map_err(failed)?).map_err(failed)?;
        let minutes = Arc::clone(&self.minutes);
        std::thread::spawn(move || {
            // To the library a stream's; accepting is the same for packets.
            let listener = UnixListener::from(listener);
            while let Ok((connection, _)) = listener.accept() {
                keep_minutes(&Arc::new(OwnedFd::from(connection)), &minutes);
            }
        });
        Ok(())
    }

    /// Hangs up and is not there any more.
    pub(crate) fn end_enforcer(&self) -> Result {
        let path = self.socket();
        fs::remove_file(&path).doing("removing", &path)?;
        if let Some(connection) = self.minutes.lock().unwrap().connection.take() {
            let both = nix::sys::socket::Shutdown::Both;
            // The resolver may have hung up first.
            let _ = nix::sys::socket::shutdown(connection.as_raw_fd(), both);
        }
        Ok(())
    }

    pub(crate) fn load(&self, number: u64, policy: &str) -> Result {
        let path = self.gateway.path(&format!("{number}.json"));
        revision(number, policy)?
            .write(&path)
            .map_err(|error| Error::other(error.to_string()))?;
        eventually("the resolver's connection", || {
            let connection = self.minutes.lock().unwrap().connection.clone();
            let Some(connection) = connection else {
                fail!("none yet")
            };
            tell(
                &connection,
                &FromEnforcer::State {
                    over_cap: Vec::new(),
                    clock_trusted: true,
                },
            );
            let file = path.display().to_string();
            tell(
                &connection,
                &FromEnforcer::Load {
                    revision: number,
                    file,
                },
            );
            Ok(())
        })?;
        eventually("the revision's loading", || {
            let minutes = self.minutes.lock().unwrap();
            match minutes.loaded.iter().find(|(loaded, _)| *loaded == number) {
                Some((_, None)) => Ok(()),
                Some((_, Some(error))) => fail!("{error}"),
                None => fail!("not yet"),
            }
        })
    }

    /// What `dig` of the agent prints.
    pub(crate) fn dig(&self, question: &str) -> Result<String> {
        let line = format!("{} +time=3 +tries=1 {question}", DIG.0);
        self.gateway.agent.host.run(&line)
    }

    /// The questions that named was asked since it started and whose line holds `text`.
    pub(crate) fn asked(&self, text: &str) -> Result<usize> {
        let path = self.gateway.path("asked.log");
        let log = fs::read_to_string(&path).doing("reading", &path)?;
        Ok(log
            .lines()
            .filter(|line| line.to_ascii_lowercase().contains(text))
            .count())
    }

    /// The resolver's events whose line holds `text`.
    pub(crate) fn events(&self, text: &str) -> Result<Vec<String>> {
        let log = fs::read_to_string(&self.log).doing("reading", &self.log)?;
        let lines = log
            .lines()
            .filter(|line| line.starts_with('{') && line.contains(text));
        Ok(lines.map(str::to_owned).collect())
    }

    pub(crate) fn is_pinned(&self, name: &str, address: &str) -> bool {
        let Ok(address) = address.parse::<IpAddr>() else {
            return false;
        };
        let minutes = self.minutes.lock().unwrap();
        minutes
            .pins
            .iter()
            .any(|pin| pin.name == name && pin.addresses.contains(&address))
    }
}

fn revision(number: u64, json: &str) -> Result<Revision> {
    let policy: policy::Policy = Policy::from_json(json.as_bytes())
        .map_err(|problems| Error::other(format!("the policy of this test: {problems:?}")))?;
    let cidr = |address: [u8; 4]| Cidr {
        address: IpAddr::from(address),
        length: 24,
    };
    Ok(Revision {
        number,
        created: 1,
        enabled: true,
        policy,
        network: Network {
            lan: vec![Card {
                name: "inside".to_owned(),
                addresses: vec![cidr([10, 66, 0, 1])],
            }],
            wan: vec![Card {
                name: "outside".to_owned(),
                addresses: Vec::new(),
            }],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: Vec::new(),
        access: clawgress_config::access::Access::default(),
    })
}

fn keep_minutes(connection: &Arc<OwnedFd>, minutes: &Mutex<Minutes>) {
    minutes.lock().unwrap().connection = Some(Arc::clone(connection));
    let mut buffer = vec![0; LONGEST_MESSAGE];
    while let Ok(length @ 1..) = recv(connection.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        let mut minutes = minutes.lock().unwrap();
        match serde_json::from_slice(&buffer[..length]).expect("a message of the resolver") {
            FromResolver::Pin(pin) if minutes.manner == Manner::Willing => {
                let id = pin.id;
                minutes.pins.push(pin);
                tell(connection, &FromEnforcer::Pinned { id, error: None });
            }
            FromResolver::Pin(_) => {}
            FromResolver::Loaded { revision, error } => minutes.loaded.push((revision, error)),
            FromResolver::Counted { counts } => minutes.counts.extend(counts),
        }
    }
}

fn tell(connection: &OwnedFd, message: &FromEnforcer) {
    let bytes = serde_json::to_vec(message).expect("a message in words");
    // The resolver may have hung up.
    let _ = send(connection.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL);
}

/// A program of this workspace lies beside the directory of this test binary.
fn program(name: &str) -> Result<String> {
    let built = qemu_tests::stack::build()?.join(name);
    Ok(built.display().to_string())
}
