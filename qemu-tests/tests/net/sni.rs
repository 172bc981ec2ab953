//! haproxy as the enforcer configures it, between an agent and sites: the box of these tests, and the agent's words.
//!
//! Everything is real but the resolver behind haproxy, which here knows names and judges nothing: what is refused, haproxy
//! refused. haproxy has the two capabilities of its unit and no other.

use std::fs::File;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clawgress_enforcer::front::log::{Event, What};
use clawgress_enforcer::front::{self, Places, Rendered, Update};
use clawgress_policy::Reason;
use qemu_tests::error::IoContext;
use qemu_tests::lab::{Host, helper_path};
use qemu_tests::names::address_of;
use qemu_tests::process::{self, Helper, words};
use qemu_tests::{Case, Error, Result, fail};

use crate::gateway::{Daemon, Gateway, HAPROXY, NFT, eventually, need, overlay};
use crate::sni_policy::render;

/// Where the agent dials to: an attacker's address, that of no name in these tests.
pub(crate) const ATTACKER: &str = "192.0.2.66";
pub(crate) const ATTACKER6: &str = "2001:db8:1:bad::66";

/// Tuesday 2026-01-06, 12:00 in UTC.
pub(crate) const NOON: i64 = 1_767_700_800;

/// What the enforcer's ruleset does for the front, and nothing else.
const ROADS: &str = "
flush ruleset
table inet roads {
	chain apart {
		type filter hook prerouting priority raw; policy accept;
		iifname \"inside\" tcp dport { 80, 443 } ct original zone set 1
	}
	chain back {
		type filter hook prerouting priority mangle; policy accept;
		socket transparent 1 meta mark set 1
	}
	chain in {
		type nat hook prerouting priority dstnat; policy accept;
		iifname \"inside\" tcp dport 443 redirect to :10443
		iifname \"inside\" tcp dport 80 redirect to :10080
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
	chain out {
		type nat hook postrouting priority srcnat; policy accept;
		oifname \"outside\" masquerade
	}
}
";

pub(crate) struct Front {
    pub(crate) gateway: Gateway,
    places: Places,
    state: Rendered,
    events: Arc<Mutex<Vec<Event>>>,
    _resolver: Helper,
    haproxy: Option<Daemon>,
}

/// A program on a host that is not the box; it ends with its test.
pub(crate) struct Guest(Child);

impl Guest {
    /// Runs on a host, its output in a file.
    pub(crate) fn start(host: &Host, command: &str, log: &Path) -> Result<Self> {
        let output = File::create(log).doing("making", log)?;
        let errors = output.try_clone().doing("opening", log)?;
        let mut arguments = host.entry();
        arguments.extend(words(command));
        let child = process::spawn(&arguments, |command| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        Ok(Self(child))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        process::end(&mut self.0);
    }
}

/// How the other side took what the agent said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: String,
    pub(crate) took: Duration,
    pub(crate) said: String,
}

impl Front {
    /// haproxy under this policy.
    pub(crate) fn new(case: &Case, policy: &str) -> Result<Self> {
        Self::with(case, policy, |_| Ok(()))
    }

    /// As `new`, once files are made that the policy names.
    pub(crate) fn with(
        case: &Case,
        policy: &str,
        prepare: impl FnOnce(&Gateway) -> Result,
    ) -> Result<Self> {
        need(&[NFT, HAPROXY])?;
        let gateway = Gateway::new()?;
        prepare(&gateway)?;
        gateway.load(&gateway.file("roads.nft", ROADS)?)?;
        for family in ["-4", "-6"] {
            gateway
                .host
                .ip(&format!("{family} rule add fwmark 1 lookup 100"))?;
            gateway.host.ip(&format!(
                "{family} route add local default dev lo table 100"
            ))?;
        }
        let here = gateway
            .path("")
            .display()
            .to_string()
            .trim_end_matches('/')
            .to_owned();
        let places = Places {
            directory: here.clone(),
            lua: overlay("usr/share/clawgress/front/hello.lua")
                .display()
                .to_string(),
            runtime: format!("{here}/haproxy.sock"),
            runtime_group: None,
            log: format!("{here}/front.sock"),
            certificate: format!("{here}/front.pem"),
        };
        let made = rcgen::generate_simple_self_signed(["clawgress".to_owned()])
            .map_err(|error| Error::other(format!("making a certificate: {error}")))?;
        gateway.file(
            "front.pem",
            &format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem()),
        )?;
        let events = collect(Path::new(&places.log))?;
        let mut verb = gateway.host.entry();
        verb.extend([
            helper_path()?,
            "resolver".to_owned(),
            "127.0.0.1:10054".to_owned(),
        ]);
        let resolver = Helper::start("the front's resolver", &verb)?;
        let state = render(&places, policy, NOON, &[])?;
        let mut front = Self {
            gateway,
            places,
            state,
            events,
            _resolver: resolver,
            haproxy: None,
        };
        front.write()?;
        front.haproxy = Some(front.start(case)?);
        eventually("haproxy's runtime API", || {
            front.runtime(&front::mark_question(&front.places))
        })?;
        Ok(front)
    }

    /// What the box has below /config lies beside everything else here.
    fn write(&self) -> Result {
        let here = |text: &str| text.replace("/config/", &format!("{}/", self.places.directory));
        self.gateway
            .file("haproxy.cfg", &here(&self.state.config))?;
        for (name, text) in &self.state.maps {
            self.gateway.file(name.file(), text)?;
        }
        for joined in &self.state.joined {
            let mut text = String::new();
            for part in &joined.of {
                let part = here(part);
                text.push_str(&std::fs::read_to_string(&part).doing("reading", &part)?);
            }
            std::fs::write(&joined.path, text).doing("writing", &joined.path)?;
        }
        Ok(())
    }

    /// With the capabilities of its unit.
    fn start(&self, case: &Case) -> Result<Daemon> {
        let config = self.gateway.path("haproxy.cfg");
        let bounded = "setpriv --bounding-set=-all,+net_bind_service,+net_raw";
        self.gateway.daemon(
            case,
            "haproxy",
            &format!("{bounded} {} -db -q -f {}", HAPROXY.0, config.display()),
        )
    }

    /// Asks haproxy's runtime API.
    pub(crate) fn runtime(&self, command: &str) -> Result<String> {
        let doing = "asking haproxy at";
        let mut stream =
            UnixStream::connect(&self.places.runtime).doing(doing, &self.places.runtime)?;
        stream
            .write_all(command.as_bytes())
            .doing(doing, &self.places.runtime)?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .doing(doing, &self.places.runtime)?;
        Ok(answer)
    }

    /// Brings the running haproxy to another policy, moment and set of used-up caps, over its runtime API alone. Says
    /// how many commands that took, and how long they did.
    pub(crate) fn apply(
        &mut self,
        policy: &str,
        now: i64,
        caps: &[(&str, &str)],
    ) -> Result<(usize, Duration)> {
        let new = render(&self.places, policy, now, caps)?;
        let began = Instant::now();
        let commands = match front::difference(&self.state, &new, &self.places) {
            Update::Nothing => Vec::new(),
            Update::Runtime(commands) => commands,
            Update::Reload => fail!("the change needs a reload"),
        };
        self.state = new;
        self.write()?;
        for command in &commands {
            let answer = self.runtime(command)?;
            if let Some(refusal) = front::refusal(&answer) {
                fail!("haproxy refused {command:?}: {refusal}");
            }
        }
        let answer = self.runtime(&front::mark_question(&self.places))?;
        if front::mark_in(&answer) != Some(self.state.mark.as_str()) {
            fail!(
                "haproxy has another state than {}: {answer}",
                self.state.mark
            );
        }
        Ok((commands.len(), began.elapsed()))
    }

    /// As `apply`; and haproxy then has, line by line, what the files have.
    pub(crate) fn change(&mut self, policy: &str, now: i64, caps: &[(&str, &str)]) -> Result {
        self.apply(policy, now, caps)?;
        // No line more than the files have.
        for (name, text) in &self.state.maps {
            let shown = self.runtime(&format!("show map {}\n", self.places.map(*name)))?;
            let mut lines: Vec<&str> = shown
                .lines()
                .filter_map(|line| Some(line.split_once(' ')?.1))
                .collect();
            lines.sort_unstable();
            if lines.iter().ne(text.lines().collect::<Vec<_>>().iter()) {
                fail!(
                    "haproxy's {} is {lines:?} and the file's is {text}",
                    name.file()
                );
            }
        }
        Ok(())
    }

    /// The agent connects to an address and port and does what it is told (see the helper's verb `converse`).
    pub(crate) fn converse(&self, to: &str, steps: &[String]) -> Result<Outcome> {
        let mut arguments = self.gateway.agent.host.entry();
        arguments.extend([helper_path()?, "converse".to_owned(), to.to_owned()]);
        arguments.extend_from_slice(steps);
        let line = process::run(&arguments)?;
        let mut parts = line.trim_end_matches('\n').splitn(3, ' ');
        let (end, took, said) = (parts.next(), parts.next(), parts.next());
        match (end, took.and_then(|took| took.parse().ok()), said) {
            (Some(end), Some(took), Some(said)) => {
                // Of what the client escapes, quotes are the most usual and the least in need of it.
                let said = said.replace("\\\"", "\"");
                Ok(Outcome {
                    end: end.to_owned(),
                    took: Duration::from_millis(took),
                    said,
                })
            }
            _ => fail!("the agent's client said {line:?}"),
        }
    }

    /// As `converse`, saying these bytes at once and then waiting for the answer.
    pub(crate) fn say(&self, to: &str, bytes: &[u8]) -> Result<Outcome> {
        self.converse(
            to,
            &[
                format!("send={}", hex(bytes)),
                "read".to_owned(),
                "shut".to_owned(),
            ],
        )
    }

    /// Runs a command on the agent.
    pub(crate) fn agent(&self, command: &str) -> Result<String> {
        let mut arguments = self.gateway.agent.host.entry();
        arguments.extend(words(command));
        process::run(&arguments)
    }

    /// The events since the last call, once there are as many as wanted of the wanted kind.
    pub(crate) fn events(&self, wanted: impl Fn(&Event) -> bool) -> Result<Vec<Event>> {
        let began = Instant::now();
        loop {
            if let Ok(mut events) = self.events.lock()
                && events.iter().any(&wanted)
            {
                return Ok(std::mem::take(&mut *events));
            }
            if began.elapsed() > Duration::from_secs(8) {
                fail!(
                    "haproxy did not log it; it did log {:?}",
                    self.events.lock()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The last flow was cut, for this reason, and nothing was opened for it.
    pub(crate) fn was_denied(&self, reason: Reason) -> Result<Event> {
        let events = self.events(|event| matches!(event.what, What::Deny(_)))?;
        if let Some(open) = events.iter().find(|event| event.what == What::Open) {
            fail!("it was let through: {open:?}");
        }
        let event = events
            .into_iter()
            .find(|event| matches!(event.what, What::Deny(_)));
        match event {
            Some(event) if event.what == What::Deny(reason) => Ok(event),
            other => fail!("logged as {other:?} and not as {reason}"),
        }
    }

    /// The last flow was let through, to the site of this name.
    pub(crate) fn was_open(&self, name: &str) -> Result<Event> {
        let events = self.events(|event| matches!(event.what, What::Close(_)))?;
        let open = events.iter().find(|event| event.what == What::Open);
        let close = events
            .iter()
            .find(|event| matches!(event.what, What::Close(_)));
        match (open, close) {
            (Some(open), Some(close))
                if open.name.as_deref() == Some(name) && close.name == open.name =>
            {
                Ok(close.clone())
            }
            _ => fail!("logged as {events:?}"),
        }
    }

    pub(crate) fn forget_events(&self) {
        if let Ok(mut events) = self.events.lock() {
            events.clear();
        }
    }
}

/// Reads the front's lines as the enforcer does. One that it can't read fails the test at the next look, for it stays
/// out of the events and says so.
fn collect(path: &Path) -> Result<Arc<Mutex<Vec<Event>>>> {
    let socket = UnixDatagram::bind(path).doing("listening on", path)?;
    let events = Arc::new(Mutex::new(Vec::new()));
    let filled = Arc::clone(&events);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            match Event::read(&buffer[..length]) {
                Ok(event) => {
                    if let Ok(mut events) = filled.lock() {
                        events.push(event);
                    }
                }
                Err(error) => println!("{error}"),
            }
        }
    });
    Ok(events)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// What the site of a name says first.
pub(crate) fn greeting(name: &str, six: bool) -> String {
    let (v4, v6) = address_of(name);
    let address = if six { IpAddr::V6(v6) } else { IpAddr::V4(v4) };
    format!("clawgress fake internet at {address}\\n")
}

/// Two names whose sites share an address, the first for each of them to be allowed or not.
pub(crate) fn neighbours(of: &str) -> String {
    let mut names = (0..).map(|number| format!("n{number}.elsewhere.example"));
    names
        .find(|name| address_of(name) == address_of(of))
        .unwrap_or_default()
}
