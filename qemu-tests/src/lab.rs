//! Owns the network lab: wires, hosts and taps inside an unshared user and network namespace.
//!
//! Nothing here touches the network of the machine that runs the tests, and no privilege is needed beyond the
//! right to make user namespaces. Everything vanishes with the processes that hold it.

use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::capture::Capture;
use crate::case::Case;
use crate::error::{Error, Result};
use crate::frame::Mac;
use crate::process::{self, Helper, words};
use crate::users;

/// The namespaces and whoever holds them.
pub struct Lab {
    holder: Helper,
}

/// An Ethernet segment: a bridge without addresses of its own.
#[derive(Clone, Debug)]
pub struct Wire {
    name: String,
}

/// The host's end of a VM's card.
#[derive(Clone, Debug)]
pub struct Tap {
    device: String,
}

impl Wire {
    /// The wire's name, which is also that of a host's card on it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Tap {
    pub fn device(&self) -> &str {
        &self.device
    }
}

impl Lab {
    pub fn new() -> Result<Self> {
        let mut arguments = words("unshare --user --net --mount --");
        arguments.push(helper_path()?);
        arguments.push("hold".to_owned());
        let holder = Helper::start("the lab's namespace", &arguments).map_err(|error| {
            Error::other(format!(
                "{error}\nMaking a user namespace failed. Where AppArmor restricts them (Ubuntu 24.04), run the \
                 tests as root or set the sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            ))
        })?;
        users::map(holder.pid())?;
        let lab = Self { holder };
        lab.ip("link set lo up")?;
        Ok(lab)
    }

    /// The words that go before a command that is to run inside.
    pub fn entry(&self) -> Vec<String> {
        entry(self.holder.pid())
    }

    /// Runs `ip` inside, with arguments split at blanks.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        ip(self.entry(), arguments)
    }

    /// Makes a wire. Its name is at most ten letters, for interfaces are named after it.
    pub fn wire(&self, name: &str) -> Result<Wire> {
        self.ip(&format!(
            "link add {name} type bridge stp_state 0 mcast_snooping 0"
        ))?;
        quiet(self.entry(), name)?;
        self.ip(&format!("link set {name} up"))?;
        Ok(Wire {
            name: name.to_owned(),
        })
    }

    /// Makes the tap of a VM's card and puts it on a wire.
    pub fn tap(&self, wire: &Wire) -> Result<Tap> {
        let node = "/dev/net/tun";
        if let Err(error) = OpenOptions::new().read(true).write(true).open(node) {
            return Err(Error::other(format!(
                "opening {node}, which a tap needs: {error}; load the module tun and let this user open the node"
            )));
        }
        let device = format!("tap-{}", wire.name);
        self.ip(&format!("tuntap add dev {device} mode tap"))?;
        quiet(self.entry(), &device)?;
        self.ip(&format!("link set {device} master {} up", wire.name))?;
        Ok(Tap { device })
    }

    /// Makes a host without any card.
    pub fn host(&self, name: &str) -> Result<Host> {
        let mut arguments = self.entry();
        arguments.extend(words("unshare --net --"));
        arguments.push(helper_path()?);
        arguments.push("hold".to_owned());
        let holder = Helper::start(&format!("host {name}"), &arguments)?;
        let host = Host {
            name: name.to_owned(),
            holder,
        };
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// Gives a host a card on a wire, named after the wire; addresses with their prefix length.
    pub fn plug(&self, host: &Host, wire: &Wire, mac: Mac, addresses: &[&str]) -> Result {
        let (card, end) = (&wire.name, format!("{}-{}", wire.name, host.name));
        // Fifteen letters are what the kernel takes.
        let end: String = end.chars().take(15).collect();
        let pid = host.holder.pid();
        self.ip(&format!(
            "link add {end} type veth peer name {card} address {mac} netns {pid}"
        ))?;
        quiet(self.entry(), &end)?;
        self.ip(&format!("link set {end} master {} up", wire.name))?;
        host.ip(&format!("link set {card} up"))?;
        for address in addresses {
            // Nobody else is on the wire: duplicate detection would only delay.
            let nodad = if address.contains(':') { "nodad" } else { "" };
            host.ip(&format!("address add {address} dev {card} {nodad}"))?;
        }
        Ok(())
    }

    /// Records all that passes a wire's end at a VM.
    pub fn capture(&self, case: &Case, tap: &Tap) -> Result<Capture> {
        Capture::start(case, self.entry(), &tap.device, &tap.device)
    }

    /// Records all that passes a host's card.
    pub fn capture_at(&self, case: &Case, host: &Host, wire: &Wire) -> Result<Capture> {
        let name = format!("{}-{}", host.name, wire.name);
        Capture::start(case, host.entry(), &wire.name, &name)
    }
}

/// A machine of the lab: a network namespace inside the lab's.
pub struct Host {
    name: String,
    holder: Helper,
}

impl Host {
    pub fn entry(&self) -> Vec<String> {
        entry(self.holder.pid())
    }

    pub fn ip(&self, arguments: &str) -> Result<String> {
        ip(self.entry(), arguments)
    }

    /// Runs a command on this host, arguments split at blanks, and returns what it printed.
    pub fn run(&self, command: &str) -> Result<String> {
        let mut arguments = self.entry();
        arguments.extend(words(command));
        process::run(&arguments)
    }

    /// Starts one of the helper's verbs on this host.
    pub fn start(&self, verb: &[String]) -> Result<Helper> {
        let mut arguments = self.entry();
        arguments.push(helper_path()?);
        arguments.extend_from_slice(verb);
        Helper::start(&format!("{} on host {}", verb[0], self.name), &arguments)
    }

    /// Starts a long flow, described as the helper's verb `stream` wants it; its outcome is the last line.
    pub fn stream(&self, arguments: &str) -> Result<Flow> {
        let mut line = self.entry();
        line.push(helper_path()?);
        line.push("stream".to_owned());
        line.extend(words(arguments));
        let child = process::spawn(&line, |command| {
            command.stdout(std::process::Stdio::piped());
        })?;
        Ok(Flow(child))
    }

    /// Connects by TCP and returns the first that the other side says.
    pub fn dial(&self, to: &str) -> Result<String> {
        self.run(&format!("{} dial {to}", helper_path()?))
            .map(|said| said.trim().to_owned())
    }

    /// Sets a sysctl of this host's network, path under `net/`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result {
        sysctl(self.entry(), path, value)
    }

    /// Turns this host into a plain router between its cards.
    pub fn forward_everything(&self) -> Result {
        self.sysctl("ipv4/ip_forward", "1")?;
        self.sysctl("ipv6/conf/all/forwarding", "1")?;
        self.sysctl("ipv4/conf/all/rp_filter", "0")
    }
}

/// A flow under way.
pub struct Flow(std::process::Child);

impl Flow {
    /// Waits for its end and returns what came of it, as JSON.
    pub fn finish(mut self) -> Result<String> {
        let ended = process::wait_bounded(&mut self.0, std::time::Duration::from_secs(120))?;
        if ended.is_none() {
            process::end(&mut self.0);
            return Err(Error::other(
                "a flow of the lab did not end within two minutes",
            ));
        }
        let mut said = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut output, &mut said)
                .map_err(|error| Error::other(format!("reading what came of a flow: {error}")))?;
        }
        Ok(said)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        process::end(&mut self.0);
    }
}

/// The network outside, as the box's first card sees it.
pub struct Internet {
    /// Where the router, the DHCP server and all hosts outside live.
    pub host: Host,
    _services: Helper,
    streams: Vec<Helper>,
}

impl Internet {
    pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    /// The address that the box gets from DHCP.
    pub const LEASE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    pub const MAC: Mac = Mac([2, 0xee, 0, 0, 0, 1]);
    /// Networks of which every address answers.
    pub const NETWORKS: [&str; 6] = [
        "198.51.100.0/24",
        "192.0.2.0/24",
        "1.1.1.0/24",
        "8.8.8.0/24",
        "2001:db8:1::/48",
        "2606:4700:4700::/48",
    ];

    /// A router on `wire` that leases one address, advertises IPv6, and answers ICMP, TCP and UDP at all its networks.
    pub fn on(lab: &Lab, wire: &Wire) -> Result<Self> {
        let host = lab.host("internet")?;
        lab.plug(
            &host,
            wire,
            Self::MAC,
            &["203.0.113.1/24", "2001:db8:f00d::1/64"],
        )?;
        for network in Self::NETWORKS {
            let family = if network.contains(':') { "-6" } else { "-4" };
            host.ip(&format!("{family} route add local {network} dev lo"))?;
        }
        let verb = words(&format!(
            "internet --interface {} --router {} --lease {} --prefix 2001:db8:f00d::",
            wire.name,
            Self::ROUTER,
            Self::LEASE
        ));
        let services = host.start(&verb)?;
        Ok(Self {
            host,
            _services: services,
            streams: Vec::new(),
        })
    }

    /// Has a port of every host outside give and take long streams.
    pub fn serve_streams(&mut self, port: u16) -> Result {
        let server = self.host.start(&words(&format!("streams {port}")))?;
        self.streams.push(server);
        Ok(())
    }

    /// Tells the router which way a network lies.
    pub fn route(&self, network: &str, via: &str) -> Result {
        self.host
            .ip(&format!("route add {network} via {via}"))
            .map(drop)
    }
}

/// Enters the namespaces of a process. The death signal is set after entering too, where a gain of privilege clears it.
fn entry(pid: u32) -> Vec<String> {
    words(&format!(
        "nsenter --target {pid} --user --net --mount --preserve-credentials -- setpriv --pdeathsig KILL --"
    ))
}

fn ip(mut arguments: Vec<String>, line: &str) -> Result<String> {
    arguments.push("ip".to_owned());
    arguments.extend(words(line));
    process::run(&arguments)
}

/// Keeps the lab's own kernel from talking on an interface of the wire.
fn quiet(entry: Vec<String>, interface: &str) -> Result {
    sysctl(entry, &format!("ipv6/conf/{interface}/disable_ipv6"), "1")
}

fn sysctl(mut arguments: Vec<String>, path: &str, value: &str) -> Result {
    arguments.extend(["sh".to_owned(), "-c".to_owned()]);
    arguments.push(format!("echo {value} > /proc/sys/net/{path}"));
    process::run(&arguments).map(drop)
}

/// The helper binary lies beside the directory of this test binary.
pub fn helper_path() -> Result<String> {
    let binary = std::env::current_exe()
        .map_err(|error| Error::other(format!("finding this test's own path: {error}")))?;
    let candidates: Vec<PathBuf> = binary
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("clawgress-netlab"))
        .collect();
    candidates
        .iter()
        .find(|path| path.exists())
        .map(|path: &PathBuf| Path::display(path).to_string())
        .ok_or_else(|| {
            Error::other(format!(
                "the lab's helper is not built: {candidates:?} do not exist; `cargo build -p qemu-tests` makes it"
            ))
        })
}
