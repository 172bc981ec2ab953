//! A live tunnelling tool through an allowed wildcard, its server outside: no connection comes about, and what leaks
//! upstream meanwhile is less than the budget.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use qemu_tests::error::IoContext;
use qemu_tests::lab::Host;
use qemu_tests::process::{self, words};
use qemu_tests::{Case, Result, case, require};

use crate::dns_lab::Resolver;
use crate::gateway::need;

const SERVER: (&str, &str) = ("/usr/sbin/iodined", "iodine");
const CLIENT: &str = "/usr/sbin/iodine";
const PORT: u16 = 5300;
const MINUTE: Duration = Duration::from_secs(60);

/// The far end, on the host outside.
struct Server(Child);

impl Server {
    fn start(case: &Case, resolver: &Resolver) -> Result<Self> {
        let log = case.log_directory("daemons")?.join("iodined.log");
        let output = File::create(&log).doing("making", &log)?;
        let errors = output.try_clone().doing("opening", &log)?;
        let mut arguments = resolver.gateway.internet.host.entry();
        let command = format!(
            "{} -f -c -P secret -p {PORT} 10.53.0.1/24 t.tunnel.test",
            SERVER.0
        );
        arguments.extend(words(&command));
        let child = process::spawn(&arguments, |command| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        Ok(Self(child))
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
        need(&[SERVER])?;
        let resolver = Resolver::enforcing(case)?;
        let _server = Server::start(case, &resolver)?;
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
        need(&[SERVER])?;
        let resolver = Resolver::enforcing(case)?;
        let _server = Server::start(case, &resolver)?;
        let said = tunnel(&resolver.gateway.host, 20, "", "127.0.0.1");
        require!(said.contains(THROUGH), "{said}");
        Ok(())
    });
}

/// The bytes of the question's name before the zone, in an Ethernet frame with a query over IPv4 and UDP.
fn carried(frame: &[u8]) -> usize {
    let name = frame.get(14 + 20 + 8 + 12..).unwrap_or_default();
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(0);
    length.saturating_sub("xtxtunnelxtest".len())
}
