//! named as the image configures it: every name denied by the policy zone, and nobody asked about it.
//!
//! No ruleset is loaded here: that nothing leaves is named's own doing.

use qemu_tests::frame::Frame;
use qemu_tests::{Case, Result, case, fail, require};

use crate::gateway::{DIG, Daemon, Gateway, NAMED, altered, eventually, need, overlay};

const CONFIG: &str = "etc/bind/named.conf";
const ROOT_ZONE: &str = "zone \".\" {\n\ttype primary;\n\tfile \"/etc/clawgress/rpz/root.zone\";\n\tallow-query { loopback; };\n};";

/// Starts named with the image's configuration, the given pieces of it replaced, and waits for its first answer.
fn named(case: &Case, gateway: &Gateway, replacements: &[(&str, &str)]) -> Result<Daemon> {
    let zones = overlay("etc/clawgress/rpz").display().to_string();
    let cache = gateway.path("").display().to_string();
    let config = altered(CONFIG, replacements)?
        .replace("/etc/clawgress/rpz", &zones)
        .replace("/var/cache/bind", &cache);
    let config = gateway.file("named.conf", &config)?;
    let program = gateway.unconfined(NAMED.0)?;
    let daemon = gateway.daemon(
        case,
        "named",
        &format!("{program} -f -n 2 -c {}", config.display()),
    )?;
    eventually("an answer of named", || {
        dig(gateway, "+norecurse localhost")
    })?;
    Ok(daemon)
}

fn dig(gateway: &Gateway, question: &str) -> Result<String> {
    gateway
        .host
        .run(&format!("{} +time=2 +tries=1 @127.0.0.1 {question}", DIG.0))
}

/// Every way to ask that is known to slip past a policy somewhere.
const QUESTIONS: [&str; 14] = [
    "example.com",
    "+dnssec example.com",
    "+dnssec +cdflag www.example.org",
    "+tcp example.net",
    "+norecurse example.com",
    "example.com AAAA",
    "example.com ANY",
    "example.com TXT",
    "example.com HTTPS",
    "+dnssec com DS",
    "_443._tcp.example.com TLSA",
    "-x 192.0.2.1",
    "-x 10.0.0.1",
    "xn--nxasmq6b.example",
];

fn denied(gateway: &Gateway, question: &str) -> Result {
    let answer = dig(gateway, question)?;
    require!(
        answer.contains("status: NXDOMAIN"),
        "{question} was answered:\n{answer}"
    );
    require!(
        answer
            .lines()
            .any(|line| line.starts_with("rpz.clawgress.") && line.contains("SOA")),
        "{question} was denied, but not by the policy zone:\n{answer}"
    );
    require!(
        !answer.contains("flags: qr rd ra ad"),
        "{question}: the denial claims to be authentic"
    );
    Ok(())
}

/// Frames that carry any IP packet to another host, neighbourhood aside.
fn questions_sent(frames: Vec<Frame>) -> Vec<Frame> {
    frames
        .into_iter()
        .filter(|frame| frame.destination_port.is_some())
        .collect()
}

fn denies_everything_in_silence(case: &Case, replacements: &[(&str, &str)]) -> Result {
    let gateway = Gateway::new()?;
    let sent = questions_sent(gateway.outside_while(case, || {
        let _named = named(case, &gateway, replacements)?;
        for question in QUESTIONS {
            case.check(question, || denied(&gateway, question));
        }
        Ok(())
    })?);
    match sent.first() {
        None => Ok(()),
        Some(first) => fail!("named asked somebody: {}", first.describe()),
    }
}

#[test]
fn every_name_is_denied_by_the_policy_and_nobody_is_asked() {
    case("net-resolver", |case| {
        need(&[NAMED, DIG])?;
        denies_everything_in_silence(case, &[])
    });
}

#[test]
fn the_policy_zone_holds_without_the_empty_root() {
    case("net-resolver-policy", |case| {
        need(&[NAMED, DIG])?;
        denies_everything_in_silence(case, &[(ROOT_ZONE, "")])
    });
}

#[test]
fn the_empty_root_holds_without_the_policy_zone() {
    case("net-resolver-root", |case| {
        need(&[NAMED, DIG])?;
        let gateway = Gateway::new()?;
        let no_policy = [(
            "response-policy {\n\t\tzone \"rpz.clawgress\" policy given log no;\n\t}",
            "response-policy { }",
        )];
        let sent = questions_sent(gateway.outside_while(case, || {
            let _named = named(case, &gateway, &no_policy)?;
            for question in QUESTIONS {
                let answer = dig(&gateway, question)?;
                require!(
                    answer.contains("status: NXDOMAIN"),
                    "{question} was answered:\n{answer}"
                );
            }
            let root = dig(&gateway, ". NS")?;
            require!(
                root.contains("localhost."),
                "the root is not the empty one:\n{root}"
            );
            Ok(())
        })?);
        require!(
            sent.is_empty(),
            "named asked somebody: {}",
            sent[0].describe()
        );
        Ok(())
    });
}

#[test]
fn without_both_walls_named_does_ask() {
    case("net-resolver-open", |case| {
        need(&[NAMED, DIG])?;
        let gateway = Gateway::new()?;
        let open = [
            (ROOT_ZONE, ""),
            (
                "response-policy {\n\t\tzone \"rpz.clawgress\" policy given log no;\n\t}",
                "response-policy { }",
            ),
        ];
        let sent = questions_sent(gateway.outside_while(case, || {
            let _named = named(case, &gateway, &open)?;
            // Nobody outside answers as a root server would: silence or failure, both are fine.
            let _ = dig(&gateway, "example.com");
            Ok(())
        })?);
        require!(
            !sent.is_empty(),
            "an open resolver asked nobody: these tests would prove nothing"
        );
        Ok(())
    });
}

#[test]
fn named_tells_nothing_about_itself_and_gives_no_zone_away() {
    case("net-resolver-quiet", |case| {
        need(&[NAMED, DIG])?;
        let gateway = Gateway::new()?;
        let _named = named(case, &gateway, &[])?;
        for name in ["version.bind", "hostname.bind", "id.server", "authors.bind"] {
            case.check(name, || {
                let answer = dig(&gateway, &format!("+short CH TXT {name}"))?;
                require!(
                    !answer.contains('"') || name == "authors.bind",
                    "{name} is told: {answer}"
                );
                Ok(())
            });
        }
        case.check("no transfer", || {
            for zone in [".", "rpz.clawgress"] {
                let answer = dig(&gateway, &format!("{zone} AXFR"))?;
                require!(
                    answer.contains("Transfer failed"),
                    "{zone} is given away:\n{answer}"
                );
            }
            Ok(())
        });
        case.check("deaf but on loopback", || {
            let answer = gateway.host.run(&format!(
                "{} +time=1 +tries=1 @203.0.113.10 example.com",
                DIG.0
            ));
            require!(
                answer.is_err(),
                "named answers at an outside address:\n{}",
                answer.unwrap_or_default()
            );
            Ok(())
        });
        Ok(())
    });
}
