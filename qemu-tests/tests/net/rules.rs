//! The rules of agents on the paths without a credential, with the real front, resolver and kernel between an agent and
//! its sites: each restriction on each path.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clawgress_policy::{Moment, Reason};
use qemu_tests::lab::Host;
use qemu_tests::{Result, case, fail, require};

use crate::gateway::{NFT, need};
use crate::plan::{IP, NOON, Planned, STREAMS, carry, outcome, pin};
use crate::sni::{ATTACKER, Front, NOON as TUESDAY, greeting};
use crate::sni_hello::Hello;

/// The lab's agent by its address, with these rules.
pub(crate) fn with(policy: &str, status: &str, rules: &str) -> String {
    format!(
        r#"{{"version": 2, {policy},
            "access": {{
                "agents": {{"one": {{"team_id": "research", "project_id": "crawler", "environment": "production",
                    "auth_type": "api_key", "status": "{status}", "sources": ["10.66.0.7/32", "fd66::7/128"]}}}},
                "rules": {{{rules}}}}}}}"#
    )
}

pub(crate) fn rule(id: &str, action: &str, priority: u32, matches: &str) -> String {
    format!(
        r#""{id}": {{"version": 1, "priority": {priority}, "enabled": true, "mode": "enforce", "match": {{{matches}}},
            "action": "{action}"}}"#
    )
}

const WIRE: &str =
    r#""allow": {"domains": ["listed.example.com"]}, "proxy": {"mode": "sni-allowlist"}"#;

fn names(names: &str, more: &str) -> String {
    format!(r#""destination": {{"domains": [{names}]{more}}}"#)
}

#[test]
fn names_on_the_wire_pass_by_the_rules_of_whoever_sends_them() {
    case("net-rules-sni", |case| {
        let to = format!("{ATTACKER}:443");
        let opens = |front: &Front, name: &str| -> Result {
            let outcome = front.say(&to, &Hello::to(name).record())?;
            front.was_open(name)?;
            require!(
                outcome.said.starts_with(&greeting(name, false)),
                "{name}: {outcome:?}"
            );
            Ok(())
        };
        let is_cut = |front: &Front, name: &str, reason| -> Result {
            let outcome = front.say(&to, &Hello::to(name).record())?;
            require!(outcome.said.is_empty(), "{name}: {outcome:?}");
            front.was_denied(reason).map(drop)
        };
        let allow = rule("allow", "allow", 20, &names(r#""*.rules.example.com""#, ""));
        let plain = with(WIRE, "active", &allow);
        let mut front = Front::new(case, &plain)?;
        case.step("a rule opens names that no list holds", || {
            opens(&front, "a.rules.example.com")?;
            opens(&front, "listed.example.com")?;
            is_cut(&front, "other.example.com", Reason::SniMismatch)
        })?;
        let deny = rule(
            "deny",
            "deny",
            10,
            &names(r#""b.rules.example.com", "listed.example.com""#, ""),
        );
        let both = format!("{allow}, {deny}");
        case.step(
            "one that denies goes before it, and before the list",
            || {
                front.change(&with(WIRE, "active", &both), TUESDAY, &[])?;
                opens(&front, "a.rules.example.com")?;
                is_cut(&front, "b.rules.example.com", Reason::Rule)?;
                is_cut(&front, "listed.example.com", Reason::Rule)
            },
        )?;
        case.step("in report mode it lets pass", || {
            let tried = both.replace(
                r#""priority": 10, "enabled": true, "mode": "enforce""#,
                r#""priority": 10, "enabled": true, "mode": "report""#,
            );
            front.change(&with(WIRE, "active", &tried), TUESDAY, &[])?;
            opens(&front, "b.rules.example.com")
        })?;
        case.step("ports of a rule are its own", || {
            let web = rule(
                "web",
                "allow",
                20,
                &names(r#""*.rules.example.com""#, r#", "ports": [80]"#),
            );
            front.change(&with(WIRE, "active", &web), TUESDAY, &[])?;
            is_cut(&front, "a.rules.example.com", Reason::SniMismatch)
        })?;
        case.step("a rule for another team is none", || {
            let other = format!(
                r#"{}, "identity": {{"teams": ["other"]}}"#,
                names(r#""*.rules.example.com""#, "")
            );
            front.change(
                &with(WIRE, "active", &rule("allow", "allow", 20, &other)),
                TUESDAY,
                &[],
            )?;
            is_cut(&front, "a.rules.example.com", Reason::SniMismatch)
        })?;
        case.step("a window of a rule", || {
            let office = format!(
                r#"{}, "time_window": {{"days": ["tue"], "start": "09:00", "end": "17:00"}}"#,
                names(r#""*.rules.example.com""#, "")
            );
            let office = with(WIRE, "active", &rule("allow", "allow", 20, &office));
            front.change(&office, TUESDAY, &[])?;
            opens(&front, "a.rules.example.com")?;
            front.change(&office, TUESDAY + 6 * 3600, &[])?;
            is_cut(&front, "a.rules.example.com", Reason::SniMismatch)
        })?;
        case.step("who is disabled has no name", || {
            front.change(&with(WIRE, "disabled", &allow), TUESDAY, &[])?;
            is_cut(&front, "a.rules.example.com", Reason::AgentDisabled)?;
            is_cut(&front, "listed.example.com", Reason::AgentDisabled)
        })?;
        case.step("and every name again", || {
            front.change(&plain, TUESDAY, &[])?;
            opens(&front, "a.rules.example.com")
        })
    });
}

const BY_ADDRESS: &str =
    r#""allow": {"domains": ["listed.example"], "ips": ["192.0.2.0/24"], "ports": [443]}"#;
const SITE: &str = "198.51.100.99";

fn is_denied(host: &Host, to: &str) -> Result {
    match host.dial(to) {
        Ok(said) => fail!("{to} answered {said:?}"),
        Err(_) => Ok(()),
    }
}

#[test]
fn packets_pass_by_the_rules_of_whoever_sends_them() {
    case("net-rules-address", |case| {
        need(&[NFT, IP])?;
        let box_ = Planned::new()?;
        let agent = &box_.gateway.agent.host;
        let pins = || {
            carry(&[
                pin("one", "git.example", &[SITE, "2001:db8:1::99"]),
                pin("one", "any.example", &["198.51.100.98"]),
                pin("one", "listed.example", &["198.51.100.97"]),
            ])
        };
        let mut generation = 7;
        let mut enforce = |status: &str, rules: &[String]| -> Result {
            generation += 1;
            let policy = with(BY_ADDRESS, status, &rules.join(", "));
            box_.enforce(&policy, generation, pins()).map(drop)
        };
        let git = rule(
            "git",
            "allow",
            20,
            &names(r#""git.example""#, r#", "ports": [22, 8080]"#),
        );
        let any = rule("any", "allow", 30, &names(r#""any.example""#, ""));
        let rules = [git, any];
        case.step("what a rule opens, on its ports", || {
            enforce("active", &rules)?;
            for to in [
                "198.51.100.99:22",
                "198.51.100.99:8080",
                "[2001:db8:1::99]:22",
                "198.51.100.98:25",
                "198.51.100.98:3128",
                "198.51.100.97:443",
                "192.0.2.7:443",
            ] {
                agent.dial(to)?;
            }
            for to in [
                "198.51.100.99:443",
                "[2001:db8:1::99]:443",
                "198.51.100.98:853",
                "198.51.100.97:22",
                "192.0.2.7:22",
            ] {
                is_denied(agent, to)?;
            }
            Ok(())
        })?;
        case.step("a network that a rule denies", || {
            let network = rule(
                "network",
                "deny",
                10,
                r#""destination": {"networks": ["198.51.100.98/31", "192.0.2.0/25"]}"#,
            );
            enforce("active", &[rules.as_slice(), &[network]].concat())?;
            agent.dial("198.51.100.97:443")?;
            agent.dial("192.0.2.200:443")?;
            for to in ["198.51.100.99:22", "198.51.100.98:25", "192.0.2.7:443"] {
                is_denied(agent, to)?;
            }
            require!(
                box_.denied("one", Reason::Rule)? > 0,
                "the reason was another"
            );
            Ok(())
        })?;
        case.step("a network that a rule opens, with its ports", || {
            let network = rule(
                "network",
                "allow",
                10,
                r#""destination": {"networks": ["1.1.1.0/24"], "ports": [8080]}"#,
            );
            enforce("active", &[network])?;
            agent.dial("1.1.1.1:8080")?;
            is_denied(agent, "1.1.1.1:443")
        })?;
        case.step("a port that a rule denies", || {
            let port = rule("port", "deny", 10, r#""destination": {"ports": [25]}"#);
            enforce("active", &[rules.as_slice(), &[port]].concat())?;
            agent.dial("198.51.100.98:3128")?;
            is_denied(agent, "198.51.100.98:25")
        })?;
        case.step("nobody", || {
            enforce("disabled", &rules)?;
            for to in ["198.51.100.99:22", "198.51.100.97:443", "192.0.2.7:443"] {
                is_denied(agent, to)?;
            }
            require!(
                box_.denied("one", Reason::AgentDisabled)? > 0,
                "the reason was another"
            );
            Ok(())
        })
    });
}

/// What takes a right away takes it from flows that live, at once.
#[test]
fn a_rule_a_status_and_the_kill_switch_cut_live_flows() {
    case("net-rules-live", |case| {
        need(&[NFT, IP])?;
        let box_ = Planned::new()?;
        let _streams = box_.streams()?;
        let allow = rule("allow", "allow", 20, &names(r#""git.example""#, ""));
        let deny = format!(
            "{allow}, {}",
            rule("deny", "deny", 10, &names(r#""git.example""#, ""))
        );
        let office = rule(
            "allow",
            "allow",
            20,
            &format!(
                r#"{}, "time_window": {{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "start": "00:00",
                    "end": "23:00"}}"#,
                names(r#""git.example""#, "")
            ),
        );
        let pins = || carry(&[pin("one", "git.example", &[SITE])]);
        let mut generation = 7;
        let night = NOON - NOON.rem_euclid(86_400) + 23 * 3600 + 60;
        for (what, open, shut, moment, blocked) in [
            (
                "a rule that denies",
                &allow,
                with(BY_ADDRESS, "active", &deny),
                NOON,
                false,
            ),
            (
                "a rule that is gone",
                &allow,
                with(BY_ADDRESS, "active", ""),
                NOON,
                false,
            ),
            (
                "a rule whose window closes",
                &office,
                with(BY_ADDRESS, "active", &office),
                night,
                false,
            ),
            (
                "an agent that is disabled",
                &allow,
                with(BY_ADDRESS, "disabled", &allow),
                NOON,
                false,
            ),
            (
                "the kill switch",
                &allow,
                with(BY_ADDRESS, "active", &allow),
                NOON,
                true,
            ),
        ] {
            case.check(what, || {
                generation += 2;
                let before = box_.compile(
                    &with(BY_ADDRESS, "active", open),
                    Moment::trusted(NOON - NOON.rem_euclid(86_400) + 12 * 3600),
                    generation,
                    pins(),
                )?;
                box_.load(before)?;
                let flow = box_.stream(&format!(
                    "{SITE}:{STREAMS} --upload 40000000 --pace 1000000"
                ))?;
                sleep(Duration::from_millis(700));
                let mut carry = pins();
                carry.blocked.all = blocked;
                let after = box_.compile(&shut, Moment::trusted(moment), generation + 1, carry)?;
                let began = Instant::now();
                box_.load(after)?;
                let ended = outcome(&flow.line(Duration::from_secs(20))?)?;
                require!(ended.end == "reset", "{ended:?}");
                require!(
                    began.elapsed() < Duration::from_secs(1),
                    "only after {:?}",
                    began.elapsed()
                );
                Ok(())
            });
        }
        Ok(())
    });
}
