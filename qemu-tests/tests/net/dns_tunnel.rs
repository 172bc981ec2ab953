//! Live tunnelling tools through an allowed wildcard, their servers outside: no connection comes about, and what leaks
//! upstream meanwhile is less than the budget.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use qemu_tests::error::IoContext;
use qemu_tests::lab::Host;
use qemu_tests::process::{self, words};
use qemu_tests::{Case, Result, case, require};

use crate::dns_lab::Resolver;
use crate::gateway::{eventually, need};

const IODINED: (&str, &str) = ("/usr/sbin/iodined", "iodine");
const CLIENT: &str = "/usr/sbin/iodine";
const DNS2TCPD: (&str, &str) = ("/usr/bin/dns2tcpd", "dns2tcp");
const PORT: u16 = 5300;
const MINUTE: Duration = Duration::from_secs(60);

/// The far end.
struct Server(Child);

impl Server {
    /// On the host outside.
    fn start(case: &Case, resolver: &Resolver, name: &str, command: &str) -> Result<Self> {
        let log = case.log_directory("daemons")?.join(format!("{name}.log"));
        let output = File::create(&log).doing("making", &log)?;
        let errors = output.try_clone().doing("opening", &log)?;
        let mut arguments = resolver.gateway.internet.host.entry();
        arguments.extend(words(command));
        let child = process::spawn(&arguments, |command| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        Ok(Self(child))
    }

    fn iodined(case: &Case, resolver: &Resolver) -> Result<Self> {
        let command = format!(
            "{} -f -c -P secret -p {PORT} 10.53.0.1/24 t.tunnel.test",
            IODINED.0
        );
        Self::start(case, resolver, "iodined", &command)
    }

    fn dns2tcpd(case: &Case, resolver: &Resolver) -> Result<Self> {
        let config = "listen = 0.0.0.0\nport = 5301\nuser = root\nchroot = /\ndomain = d.tunnel.test\n\
            resources = shell:127.0.0.1:22\n";
        let config = resolver.gateway.file("dns2tcpd.conf", config)?;
        let command = format!("{} -F -d 1 -f {}", DNS2TCPD.0, config.display());
        Self::start(case, resolver, "dns2tcpd", &command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        process::end(&mut self.0);
    }
}

/// What the tool says within `seconds`, run on `host` and asking `resolver`.
fn tunnel(host: &Host, seconds: u32, kind: &str, resolver: &str) -> String {
    let line =
        format!("timeout {seconds} {CLIENT} -f -4 -r -P secret {kind} {resolver} t.tunnel.test");
    // It ends by itself only if it fails, and by the clock if it works.
    match host.run(&line) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}

const THROUGH: &str = "Connection setup complete";

#[test]
fn iodine_through_an_allowed_wildcard_gets_no_connection() {
    case("net-dns-iodine", |case| {
        need(&[IODINED])?;
        let resolver = Resolver::enforcing(case)?;
        let _server = Server::iodined(case, &resolver)?;
        let gateway = &resolver.gateway;
        let capture = gateway
            .lab
            .capture_at(case, &gateway.host, &gateway.outside)?;
        let began = Instant::now();
        // Left to choose, told to use the one kind that passes, and again for as long as the figure is about.
        while began.elapsed() < MINUTE {
            for kind in ["", "-T A", "-T CNAME", "-T NULL", "-T TXT"] {
                let said = tunnel(&gateway.agent.host, 20, kind, "10.66.0.1");
                require!(
                    said.contains("Sending DNS queries"),
                    "the tool did not run: {said}"
                );
                require!(!said.contains(THROUGH), "{kind} got through: {said}");
            }
        }
        let minutes = began.elapsed().as_secs_f64() / MINUTE.as_secs_f64();
        let up: usize = capture
            .stop()?
            .iter()
            .filter(|frame| frame.destination_port == Some(PORT))
            .map(|frame| carried(&frame.bytes))
            .sum();
        let a_minute = up as f64 / minutes;
        case.note(&format!(
            "{a_minute:.0} bytes of names a minute reached the far end"
        ));
        require!(up > 0, "nothing was even tried");
        require!(a_minute < 1024.0, "{a_minute:.0} bytes a minute went up");
        Ok(())
    });
}

/// Or the test above would prove nothing.
#[test]
fn iodine_through_named_alone_does_get_one() {
    case("net-dns-iodine-bare", |case| {
        need(&[IODINED])?;
        let resolver = Resolver::enforcing(case)?;
        let _server = Server::iodined(case, &resolver)?;
        let said = tunnel(&resolver.gateway.host, 20, "", "127.0.0.1");
        require!(said.contains(THROUGH), "{said}");
        Ok(())
    });
}

/// Asks the far end for what it offers, which takes a working tunnel.
fn resources(host: &Host, resolver: &str, kind: &str) -> String {
    let line = format!("timeout 15 dns2tcpc -T {kind} -z d.tunnel.test {resolver}");
    match host.run(&line) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}

#[test]
fn dns2tcp_gets_through_named_alone_but_not_through_the_resolver() {
    case("net-dns-dns2tcp", |case| {
        need(&[DNS2TCPD])?;
        let resolver = Resolver::enforcing(case)?;
        let _server = Server::dns2tcpd(case, &resolver)?;
        eventually("the tunnel through named", || {
            let said = resources(&resolver.gateway.host, "127.0.0.1", "TXT");
            require!(said.contains("shell"), "{said}");
            Ok(())
        })?;
        for kind in ["TXT", "KEY"] {
            let said = resources(&resolver.gateway.agent.host, "10.66.0.1", kind);
            require!(!said.contains("shell"), "{kind} got through: {said}");
        }
        Ok(())
    });
}

/// The bytes of the question's name before the zone, in an Ethernet frame with a query over IPv4 and UDP.
fn carried(frame: &[u8]) -> usize {
    let name = frame.get(14 + 20 + 8 + 12..).unwrap_or_default();
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(0);
    length.saturating_sub("xtxtunnelxtest".len())
}
