//! The agents' resolver on the wire, with real named behind it: what is allowed works, whatever resolver the agent
//! meant, and nothing is answered that was not pinned before.

use std::time::{Duration, Instant};

use qemu_tests::{case, require};

use crate::dns_lab::{Manner, POLICY, Resolver};
use crate::gateway::eventually;

#[test]
fn every_resolver_that_an_agent_asks_is_this_one() {
    case("net-dns-everywhere", |case| {
        let resolver = Resolver::enforcing(case)?;
        for (server, answer) in [
            ("@10.66.0.1", "198.51.100.10"),
            ("@8.8.8.8", "198.51.100.10"),
            ("+tcp @8.8.8.8", "198.51.100.10"),
            ("@fd66::1", "198.51.100.10"),
            ("@2606:4700:4700::1111", "198.51.100.10"),
            ("+tcp @2606:4700:4700::1111", "198.51.100.10"),
            ("@203.0.113.10 -t AAAA", "2001:db8:1::10"),
        ] {
            case.check(server, || {
                // dig accepts an answer only from the address that it asked.
                let answered = resolver.dig(&format!("{server} api.allowed.test"))?;
                require!(answered.contains(answer), "{answered}");
                require!(
                    resolver.is_pinned("api.allowed.test", answer),
                    "{answer} is not pinned"
                );
                Ok(())
            });
        }
        Ok(())
    });
}

#[test]
fn the_answer_keeps_letters_and_bounds_of_the_question() {
    case("net-dns-shape", |case| {
        let resolver = Resolver::enforcing(case)?;
        let mixed = resolver.dig("@10.66.0.1 aPI.aLLowed.TEST")?;
        require!(mixed.contains("aPI.aLLowed.TEST."), "{mixed}");
        require!(
            resolver.asked("api.allowed.test")? > 0 && resolver.asked("aPI")? == 0,
            "its case went upstream"
        );
        let ttl: u32 = resolver
            .dig("+noall +answer @10.66.0.1 api.allowed.test")?
            .split_whitespace()
            .nth(1)
            .and_then(|ttl| ttl.parse().ok())
            .unwrap_or(0);
        require!((5..=300).contains(&ttl), "TTL {ttl}");
        case.check("truncated, then whole", || {
            let short = resolver.dig("+ignore +noedns @10.66.0.1 many.allowed.test AAAA")?;
            require!(
                short.contains("tc") && short.contains("ANSWER: 0"),
                "{short}"
            );
            let whole = resolver.dig("@10.66.0.1 many.allowed.test AAAA")?;
            require!(whole.contains("ANSWER: 60"), "{whole}");
            Ok(())
        });
        case.check("no signature is claimed or asked for", || {
            let answered = resolver.dig("+dnssec +adflag @10.66.0.1 many.allowed.test")?;
            require!(
                !answered.contains(" ad") && !answered.contains("RRSIG"),
                "{answered}"
            );
            let flags = resolver.asked("many.allowed.test in a +e")?;
            require!(flags > 0, "the question upstream is another");
            let signed = resolver.asked("+e(0)d")?
                + resolver.asked("+e(0)tdc")?
                + resolver.asked("+e(0)dc")?;
            require!(signed == 0, "DO or CD went upstream");
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn denials_say_why_and_are_events() {
    case("net-dns-denials", |case| {
        let resolver = Resolver::enforcing(case)?;
        let denied = resolver.dig("@10.66.0.1 www.denied.test")?;
        for part in [
            "status: NXDOMAIN",
            "EDE: 15 (Blocked)",
            "not-allowlisted off-limits",
            "SOA",
        ] {
            require!(denied.contains(part), "{part} is missing:\n{denied}");
        }
        eventually("the event", || {
            let events = resolver.events("www.denied.test")?;
            require!(events.len() == 1, "{events:?}");
            for part in [
                "\"event\":\"deny\"",
                "\"path\":\"dns\"",
                "agent-1",
                "10.66.0.7",
                "not-allowlisted",
                "off-limits",
            ] {
                require!(events[0].contains(part), "{part} is missing: {}", events[0]);
            }
            Ok(())
        })?;
        let lan = resolver.dig("@10.66.0.1 lan-only.allowed.test")?;
        require!(
            lan.contains("NXDOMAIN"),
            "a host has another's names:\n{lan}"
        );
        eventually("the counts", || {
            let minutes = resolver.minutes.lock().unwrap();
            let denied: u64 = minutes
                .counts
                .iter()
                .filter(|count| count.principal == "agent-1" && count.domain == "denied.test")
                .map(|count| count.queries)
                .sum();
            require!(denied == 1, "{denied} queries counted");
            Ok(())
        })
    });
}

#[test]
fn nothing_is_answered_while_a_part_is_away() {
    case("net-dns-away", |case| {
        let mut resolver = Resolver::without_enforcer(case)?;
        let none = resolver.dig("@10.66.0.1 api.allowed.test")?;
        require!(
            none.contains("REFUSED") && none.contains("unavailable"),
            "{none}"
        );
        resolver.start_enforcer()?;
        resolver.load(1, POLICY)?;
        resolver.dig("@10.66.0.1 api.allowed.test")?;
        resolver.end_enforcer()?;
        eventually("the loss", || {
            let lost = resolver.dig("@10.66.0.1 api.allowed.test")?;
            require!(
                lost.contains("SERVFAIL") && !lost.contains("198.51.100.10"),
                "{lost}"
            );
            Ok(())
        })?;
        resolver.start_enforcer()?;
        resolver.load(1, POLICY)?;
        resolver.minutes.lock().unwrap().manner = Manner::Silent;
        let began = Instant::now();
        let unpinned = resolver.dig("@10.66.0.1 api.allowed.test")?;
        require!(unpinned.contains("SERVFAIL"), "{unpinned}");
        require!(
            began.elapsed() < Duration::from_secs(2),
            "a silent enforcer holds up agents"
        );
        // A new process knows nothing before it is told.
        resolver.minutes.lock().unwrap().manner = Manner::Willing;
        resolver.end_enforcer()?;
        resolver.start(case)?;
        let fresh = resolver.dig("@10.66.0.1 api.allowed.test")?;
        require!(fresh.contains("REFUSED"), "{fresh}");
        resolver.stop();
        let nobody = resolver.dig("@10.66.0.1 api.allowed.test");
        require!(nobody.is_err(), "somebody else answers: {nobody:?}");
        Ok(())
    });
}
