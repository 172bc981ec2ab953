//! haproxy and the policy API as the image configures them: calls get through, and health says what is broken.

use std::time::Duration;

use clawgress_link::health::Report;
use qemu_tests::agent::box_between;
use qemu_tests::error::IoContext;
use qemu_tests::lab::Lab;
use qemu_tests::process::{self, words};
use qemu_tests::stack::{Stack, build};
use qemu_tests::{Case, Error, Result, case, require};

use crate::gateway::{CURL, HAPROXY, NAMED, NFT, altered, eventually, need};

/// Longer than a result of health may be told again.
const STALE: Duration = Duration::from_millis(1100);

/// A box that is configured and has no policy.
const CONFIG: &str = "interfaces {
    ethernet eth0 {
        address dhcp
        role wan
    }
    ethernet eth1 {
        address 10.66.0.1/24
        role lan
    }
}
";

/// The box with everything of enforcement but systemd.
struct Enforcement {
    stack: Stack,
    _lab: Lab,
}

impl Enforcement {
    fn new(case: &Case) -> Result<Self> {
        need(&[NFT, NAMED, HAPROXY, CURL])?;
        let lab = Lab::new()?;
        let (outside, inside) = (lab.wire("eth0")?, lab.wire("eth1")?);
        let host = box_between(&lab, &outside, &inside)?;
        let stack = Stack::bare(&lab, host, CONFIG, &case.log_directory("daemons")?)?;
        Ok(Self { stack, _lab: lab })
    }

    /// Posts through the front, as any caller would, and returns status and body.
    fn post(&self, path: &str, more: &str) -> Result<(u16, String)> {
        let said = self.stack.host.run(&format!(
            "{} --silent --show-error --max-time 10 --cacert {} --resolve clawgress:443:127.0.0.1 \
             --write-out %{{http_code}} {more} https://clawgress{path}",
            CURL.0,
            self.stack.path("front.crt").display()
        ))?;
        split_status(&said)
    }

    /// Asks the policy API for health, past the front.
    fn health(&self) -> Result<(u16, Report)> {
        std::thread::sleep(STALE);
        let said = self.stack.host.run(&format!(
            "{} --silent --show-error --max-time 10 --write-out %{{http_code}} --data {{}} \
             http://127.0.0.1:8440/clawgress/health",
            CURL.0
        ))?;
        let (status, body) = split_status(&said)?;
        let report = serde_json::from_str(&body).map_err(|error| {
            Error::other(format!(
                "health answered {status} and no report ({error}): {body}"
            ))
        })?;
        Ok((status, report))
    }

    /// Health has to name exactly these checks as broken.
    fn broken(&self, expected: &[&str]) -> Result {
        let (status, report) = self.health()?;
        let broken: Vec<&str> = report.broken().map(|check| check.name.as_str()).collect();
        require!(
            broken == expected,
            "broken should be {expected:?}, the report is {report:?}"
        );
        require!(
            report.enforcing == expected.is_empty(),
            "enforcing is {}",
            report.enforcing
        );
        require!(
            status == if expected.is_empty() { 200 } else { 503 },
            "the status is {status}"
        );
        Ok(())
    }
}

fn split_status(said: &str) -> Result<(u16, String)> {
    let (body, status) = said.split_at(said.len().saturating_sub(3));
    let status = status
        .parse()
        .map_err(|error| Error::other(format!("curl printed no status ({error}): {said}")))?;
    Ok((status, body.to_owned()))
}

#[test]
fn calls_get_through_the_front_and_every_answer_is_json() {
    case("net-front", |case| {
        let mut box_ = Enforcement::new(case)?;
        for start in [
            Stack::named,
            Stack::haproxy,
            Stack::resolver,
            Stack::enforcer,
            Stack::policy,
        ] {
            start(&mut box_.stack)?;
        }
        case.step(
            "health through the front says that the box enforces",
            || {
                eventually("enforcing", || {
                    let (status, body) =
                        box_.post("/clawgress/health", "--data {\"key\":\"k\"}")?;
                    require!(
                        status == 200 && body.contains("\"enforcing\":true"),
                        "{status}: {body}"
                    );
                    Ok(())
                })
            },
        )?;
        for (path, more, status, word) in [
            ("/api/clawgress/health", "--data {}", 200, "enforcing"),
            ("/clawgress/health", "--http1.1 --data {}", 200, "enforcing"),
            (
                "/clawgress/policy",
                "--data {\"key\":\"k\",\"policy\":{}}",
                401,
                "key",
            ),
            ("/api/clawgress/policy", "--data {}", 401, "key"),
            ("/clawgress/telemetry", "--data {}", 401, "key"),
            ("/clawgress/health", "", 405, "takes POST, not GET"),
            (
                "/clawgress/health",
                "--request DELETE",
                405,
                "takes POST, not DELETE",
            ),
            (
                "/clawgress/nothing",
                "--data {}",
                404,
                "nothing at /clawgress/nothing",
            ),
            ("/", "--data {}", 404, "not found"),
            (
                "/clawgress/health",
                "--data {\"key\":}",
                400,
                "line 1 column 8",
            ),
            ("/clawgress/policy", "--data [", 400, "line 1"),
        ] {
            case.check(&format!("{path} {more} answers {status}"), || {
                let (answered, body) = box_.post(path, more)?;
                require!(
                    answered == status && body.contains(word),
                    "{answered}: {body}"
                );
                let json: serde_json::Value = serde_json::from_str(&body)
                    .map_err(|error| Error::other(format!("{error}: {body}")))?;
                require!(json.is_object(), "{body}");
                Ok(())
            });
        }
        case.check("a body of more than 64 KiB is refused", || {
            let large = box_.stack.file(
                "large",
                &format!("{{\"key\":\"{}\"}}", "k".repeat(64 * 1024)),
            )?;
            let (status, body) =
                box_.post("/clawgress/health", &format!("--data @{}", large.display()))?;
            require!(status == 413 && body.contains("65536"), "{status}: {body}");
            Ok(())
        });
        case.check("the front does not speak TLS 1.1", || {
            let old = box_.post("/clawgress/health", "--tls-max 1.1 --data {}");
            require!(old.is_err(), "it does: {old:?}");
            Ok(())
        });
        box_.stack.kill("clawgress-policy")?;
        case.check(
            "without the policy API the front says so, in JSON and at once",
            || {
                let (status, body) = box_.post("/clawgress/health", "--max-time 2 --data {}")?;
                require!(
                    status == 503 && body.contains("clawgress-policy"),
                    "{status}: {body}"
                );
                Ok(())
            },
        );
        Ok(())
    });
}

#[test]
fn health_names_what_is_broken_and_sees_it_mended() {
    case("net-health", |case| {
        let mut box_ = Enforcement::new(case)?;
        box_.stack.resolver()?;
        box_.stack.policy()?;
        case.step("with the ruleset alone, all else is missing", || {
            eventually("an answer of the policy API", || {
                box_.broken(&["named", "front", "enforcer", "dns"])
            })
        })?;
        box_.stack.named()?;
        case.step("named comes", || {
            eventually("the denial", || box_.broken(&["front", "enforcer", "dns"]))
        })?;
        box_.stack.haproxy()?;
        case.step("haproxy comes", || {
            eventually("the handshake", || box_.broken(&["enforcer", "dns"]))
        })?;
        box_.stack.enforcer()?;
        case.step("the enforcer comes: the box enforces", || {
            eventually("enforcing", || box_.broken(&[]))
        })?;
        for (daemon, checks, start) in [
            (
                "named",
                &["named"][..],
                Stack::named as fn(&mut Stack) -> Result,
            ),
            ("haproxy", &["front"], Stack::haproxy),
            ("clawgress-dns", &["dns"], Stack::resolver),
            // Whether the resolver is right to refuse everybody is known by the enforcer alone.
            ("clawgress-enforcer", &["enforcer", "dns"], Stack::enforcer),
        ] {
            box_.stack.kill(daemon)?;
            case.check(&format!("{daemon} is gone"), || {
                eventually("its absence", || box_.broken(checks))
            });
            start(&mut box_.stack)?;
            case.check(&format!("{daemon} is back"), || {
                eventually("enforcing", || box_.broken(&[]))
            });
        }

        box_.stack.host.sysctl("ipv4/ip_forward", "1")?;
        case.check("a sealed box that forwards is broken", || {
            box_.broken(&["forwarding"])
        });
        box_.stack.host.sysctl("ipv4/ip_forward", "0")?;

        box_.stack
            .host
            .run(&format!("{} delete table inet clawgress", NFT.0))?;
        case.check("the ruleset is gone", || box_.broken(&["ruleset"]));
        box_.stack.load_sealed()?;
        case.check("all is well again", || box_.broken(&[]));
        Ok(())
    });
}

#[test]
fn another_key_at_the_front_is_not_taken_for_ours() {
    case("net-front-key", |case| {
        let mut box_ = Enforcement::new(case)?;
        for start in [
            Stack::named,
            Stack::haproxy,
            Stack::resolver,
            Stack::enforcer,
        ] {
            start(&mut box_.stack)?;
        }
        case.step("haproxy has read its key", || {
            eventually("a connection", || {
                let head = format!(
                    "{} --silent --insecure --max-time 2 https://127.0.0.1/",
                    CURL.0
                );
                box_.stack.host.run(&head).map(drop)
            })
        })?;
        // What the policy API pins is another one from here on.
        box_.stack.certificate()?;
        box_.stack.policy()?;
        eventually("an answer", || box_.broken(&["front"]))
    });
}

#[test]
fn a_wrong_configuration_ends_with_64_before_anything_listens() {
    case("net-policy-config", |case| {
        let directory = case.log_directory("config")?;
        let path = directory.join("policy.toml");
        std::fs::write(
            &path,
            altered(
                "etc/clawgress/policy.toml",
                &[("127.0.0.1:8440", "0.0.0.0:8440")],
            )?,
        )
        .doing("writing", &path)?;
        let program = build()?.join("clawgress-policy");
        let mut child = process::spawn(
            &words(&format!(
                "{} --config {}",
                program.display(),
                path.display()
            )),
            |_| {},
        )?;
        let status = process::wait_bounded(&mut child, Duration::from_secs(10))?;
        process::end(&mut child);
        let code = status.and_then(|status| status.code());
        require!(code == Some(64), "it ended with {status:?}");
        Ok(())
    });
}
