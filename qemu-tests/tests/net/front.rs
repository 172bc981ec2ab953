//! haproxy and the policy API as the image configures them: calls get through, and health says what is broken.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clawgress_link::health::Report;
use clawgress_link::ruleset::judge;
use clawgress_link::seal::{Forwarding, Measured};
use qemu_tests::error::IoContext;
use qemu_tests::process::{self, words};
use qemu_tests::{Case, Error, Result, case, require};

use crate::gateway::{
    CURL, Daemon, Gateway, HAPROXY, NAMED, NFT, altered, eventually, need, overlay,
};

/// Longer than a result of health may be told again.
const STALE: Duration = Duration::from_millis(1100);

/// The box with everything of enforcement but systemd: the sealed ruleset, named, haproxy, the policy API.
struct Enforcement {
    gateway: Gateway,
    certificate: PathBuf,
}

impl Enforcement {
    fn new() -> Result<Self> {
        need(&[NFT, NAMED, HAPROXY, CURL])?;
        let gateway = Gateway::new()?;
        // Sealed means that the kernel does not forward either.
        gateway.host.sysctl("ipv4/ip_forward", "0")?;
        gateway.host.sysctl("ipv6/conf/all/forwarding", "0")?;
        gateway.load(&overlay("etc/clawgress/sealed.nft"))?;
        let made = rcgen::generate_simple_self_signed(["clawgress".to_owned()])
            .map_err(|error| Error::other(format!("making a certificate: {error}")))?;
        let certificate = gateway.file("front.crt", &made.cert.pem())?;
        gateway.file(
            "front.pem",
            &format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem()),
        )?;
        serve_measurements(&gateway)?;
        Ok(Self {
            gateway,
            certificate,
        })
    }

    fn named(&self, case: &Case) -> Result<Daemon> {
        let config = altered("etc/bind/named.conf", &[])?
            .replace(
                "/etc/clawgress/rpz",
                &overlay("etc/clawgress/rpz").display().to_string(),
            )
            .replace(
                "/var/cache/bind",
                &self.gateway.path("").display().to_string(),
            );
        let config = self.gateway.file("named.conf", &config)?;
        let program = self.gateway.unconfined(NAMED.0)?;
        self.gateway.daemon(
            case,
            "named",
            &format!("{program} -f -n 2 -c {}", config.display()),
        )
    }

    fn haproxy(&self, case: &Case) -> Result<Daemon> {
        let here = self.gateway.path("").display().to_string();
        let config = altered(
            "etc/haproxy/haproxy.cfg",
            &[("/var/lib/clawgress/tls/", &here)],
        )?;
        let config = self.gateway.file("haproxy.cfg", &config)?;
        self.gateway.daemon(
            case,
            "haproxy",
            &format!("{} -db -f {}", HAPROXY.0, config.display()),
        )
    }

    fn policy(&self, case: &Case) -> Result<Daemon> {
        let shipped = altered("etc/clawgress/policy.toml", &[])?;
        let (head, rest) = shipped
            .split_once("units = [")
            .ok_or_else(|| Error::other("policy.toml has no units"))?;
        let (_, tail) = rest
            .split_once(']')
            .ok_or_else(|| Error::other("the units of policy.toml do not end"))?;
        // There is no systemd in this lab; all other questions are asked.
        let config = format!("{head}units = []{tail}")
            .replace(
                "/run/clawgress/",
                &self.gateway.path("").display().to_string(),
            )
            .replace(
                "/var/lib/clawgress/tls/",
                &self.gateway.path("").display().to_string(),
            );
        let config = self.gateway.file("policy.toml", &config)?;
        let program = policy_program()?;
        self.gateway.daemon(
            case,
            "policy",
            &format!("{} --config {}", program.display(), config.display()),
        )
    }

    /// Posts through the front, as any caller would, and returns status and body.
    fn post(&self, path: &str, more: &str) -> Result<(u16, String)> {
        let said = self.gateway.host.run(&format!(
            "{} --silent --show-error --max-time 10 --cacert {} --resolve clawgress:443:127.0.0.1 \
             --write-out %{{http_code}} {more} https://clawgress{path}",
            CURL.0,
            self.certificate.display()
        ))?;
        split_status(&said)
    }

    /// Asks the policy API for health, past the front.
    fn health(&self) -> Result<(u16, Report)> {
        std::thread::sleep(STALE);
        let said = self.gateway.host.run(&format!(
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

/// Answers on the socket of appliance-init what the box's kernel holds at that moment.
fn serve_measurements(gateway: &Gateway) -> Result {
    let path = gateway.path("init.sock");
    let listener = UnixListener::bind(&path).doing("listening on", &path)?;
    let entry = gateway.host.entry();
    let inside = move |command: &str| {
        let mut arguments = entry.clone();
        arguments.extend(words(command));
        process::run(&arguments).unwrap_or_default()
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let forwards = |file: &str| inside(&format!("cat /proc/sys/net/{file}")).trim() != "0";
            let measured = Measured {
                ruleset: judge(&inside(&format!("{} -j list table inet clawgress", NFT.0))),
                forwarding: Forwarding {
                    ipv4: forwards("ipv4/ip_forward"),
                    ipv6: forwards("ipv6/conf/all/forwarding"),
                },
            };
            let Ok(document) = serde_json::to_vec(&measured) else {
                return;
            };
            // An asker that has gone is no business of ours.
            let _ = stream.write_all(&document);
        }
    });
    Ok(())
}

/// Builds the policy API as it is now; it lies beside this test's own helper.
fn policy_program() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let binary = std::env::current_exe().doing("finding", Path::new("this test"))?;
    let directory = binary.ancestors().nth(2).unwrap_or(Path::new("."));
    let release = if directory.ends_with("release") {
        " --release"
    } else {
        ""
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let target = directory.parent().unwrap_or(directory);
    process::run(&words(&format!(
        "{cargo} build --quiet --package clawgress-policy{release} --manifest-path {} --target-dir {}",
        manifest.display(),
        target.display()
    )))?;
    Ok(directory.join("clawgress-policy"))
}

#[test]
fn calls_get_through_the_front_and_every_answer_is_json() {
    case("net-front", |case| {
        let box_ = Enforcement::new()?;
        let (_named, _haproxy, policy) =
            (box_.named(case)?, box_.haproxy(case)?, box_.policy(case)?);
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
                501,
                "reason",
            ),
            ("/api/clawgress/policy", "--data {}", 501, "reason"),
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
            let large = box_.gateway.file(
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
        drop(policy);
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
        let box_ = Enforcement::new()?;
        let _policy = box_.policy(case)?;
        case.step(
            "with the ruleset alone, resolver and front are missing",
            || {
                eventually("an answer of the policy API", || {
                    box_.broken(&["named", "front"])
                })
            },
        )?;
        let named = box_.named(case)?;
        case.step("named comes", || {
            eventually("the denial", || box_.broken(&["front"]))
        })?;
        let haproxy = box_.haproxy(case)?;
        case.step("haproxy comes: the box enforces", || {
            eventually("enforcing", || box_.broken(&[]))
        })?;

        drop(named);
        case.check("named is gone", || box_.broken(&["named"]));
        let _named = box_.named(case)?;
        case.check("named is back", || {
            eventually("enforcing", || box_.broken(&[]))
        });

        drop(haproxy);
        case.check("haproxy is gone", || box_.broken(&["front"]));
        let _haproxy = box_.haproxy(case)?;
        case.check("haproxy is back", || {
            eventually("enforcing", || box_.broken(&[]))
        });

        box_.gateway.host.sysctl("ipv4/ip_forward", "1")?;
        case.check("a sealed box that forwards is broken", || {
            box_.broken(&["forwarding"])
        });
        box_.gateway.host.sysctl("ipv4/ip_forward", "0")?;

        box_.gateway
            .host
            .run(&format!("{} delete table inet clawgress", NFT.0))?;
        case.check("the ruleset is gone", || box_.broken(&["ruleset"]));
        box_.gateway.load(&overlay("etc/clawgress/sealed.nft"))?;
        case.check("all is well again", || box_.broken(&[]));
        Ok(())
    });
}

#[test]
fn another_key_at_the_front_is_not_taken_for_ours() {
    case("net-front-key", |case| {
        let box_ = Enforcement::new()?;
        let _named = box_.named(case)?;
        let other = rcgen::generate_simple_self_signed(["clawgress".to_owned()])
            .map_err(|error| Error::other(format!("making a certificate: {error}")))?;
        box_.gateway.file(
            "front.pem",
            &format!("{}{}", other.signing_key.serialize_pem(), other.cert.pem()),
        )?;
        let (_haproxy, _policy) = (box_.haproxy(case)?, box_.policy(case)?);
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
        let program = policy_program()?;
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
