//! The ways around a policy that go through names, each tried on the wire. named would answer every one of them; what
//! it was asked is in its log.

use qemu_tests::{Case, Result, case, require};

use crate::dns_lab::Resolver;

#[test]
fn a_denied_name_goes_upstream_in_no_shape() {
    case("net-dns-denied-shapes", |case| {
        let resolver = Resolver::enforcing(case)?;
        let long = ["a", "b", "c"].map(|letter| letter.repeat(60)).join(".");
        let before = resolver.asked("")?;
        for question in [
            "denied.test".to_owned(),
            "x.denied.test".to_owned(),
            "+dnssec x.denied.test".to_owned(),
            "+dnssec +cdflag x.denied.test".to_owned(),
            "+cdflag x.denied.test".to_owned(),
            "+norecurse x.denied.test".to_owned(),
            "+tcp x.denied.test".to_owned(),
            "+noedns x.denied.test".to_owned(),
            "+edns=1 +noednsneg x.denied.test".to_owned(),
            "+nsid +cookie=0123456789abcdef +subnet=192.0.2.0/24 x.denied.test".to_owned(),
            "x.denied.test TXT".to_owned(),
            "x.denied.test TYPE10".to_owned(),
            "x.denied.test ANY".to_owned(),
            "+tcp x.denied.test ANY".to_owned(),
            "x.denied.test HTTPS".to_owned(),
            "x.denied.test TYPE65399".to_owned(),
            "x.denied.test MX".to_owned(),
            "denied.test DS".to_owned(),
            "-c CH x.denied.test TXT".to_owned(),
            "X.dEnIeD.TeSt".to_owned(),
            format!("{long}.{}.denied.test", "d".repeat(50)),
            "api.allowed.test.denied.test".to_owned(),
            "xapi.allowed.test".to_owned(),
            "x.api.allowed.test".to_owned(),
            "allowed.test SOA".to_owned(),
            "test NS".to_owned(),
            ". NS".to_owned(),
            "api\\.allowed.test".to_owned(),
            "x\\000.wild.test".to_owned(),
            "x.wild\\.test".to_owned(),
            "-x 198.51.100.10".to_owned(),
            "version.bind -c CH TXT".to_owned(),
            "use-application-dns.net".to_owned(),
            "_dns.resolver.arpa SVCB".to_owned(),
        ] {
            case.check(&question, || {
                let answered = resolver.dig(&format!("@9.9.9.9 {question}"))?;
                let no = ["NXDOMAIN", "REFUSED", "BADVERS"]
                    .iter()
                    .any(|code| answered.contains(code));
                require!(no && answered.contains("ANSWER: 0"), "{answered}");
                Ok(())
            });
        }
        let after = resolver.asked("")?;
        require!(
            before == after,
            "named was asked {} questions",
            after - before
        );
        Ok(())
    });
}

fn stripped(resolver: &Resolver, name: &str, kind: &str) -> Result {
    let answered = resolver.dig(&format!("@10.66.0.1 {name}.allowed.test {kind}"))?;
    require!(
        answered.contains("NOERROR")
            && answered.contains("ANSWER: 0")
            && answered.contains("rebinding"),
        "{answered}"
    );
    let minutes = resolver.minutes.lock().unwrap();
    require!(
        !minutes.pins.iter().any(|pin| pin.name.starts_with(name)),
        "it is pinned"
    );
    Ok(())
}

#[test]
fn inside_addresses_of_allowed_names_are_stripped() {
    case("net-dns-rebinding", |case| {
        let resolver = Resolver::enforcing(case)?;
        for (name, kind) in [
            ("in10", "A"),
            ("in169", "A"),
            ("in100", "A"),
            ("in127", "A"),
            // Of the box, found by asking its cards: the revision does not know a lease.
            ("in-own", "A"),
            ("in-one6", "AAAA"),
            ("in-ula", "AAAA"),
            ("in-mapped", "AAAA"),
            ("in-nat64", "AAAA"),
            ("in-6to4", "AAAA"),
        ] {
            case.check(name, || stripped(&resolver, name, kind));
        }
        let mixed = resolver.dig("+short @10.66.0.1 mixed.allowed.test")?;
        require!(mixed.trim() == "198.51.100.12", "{mixed}");
        let held = resolver.dig("+short @10.66.0.1 held.allowed.test")?;
        require!(held.trim() == "10.99.0.1", "{held}");
        require!(!resolver.events("rebinding")?.is_empty(), "no event");
        Ok(())
    });
}

#[test]
fn an_alias_counts_where_it_is_asked_not_where_it_leads() {
    case("net-dns-alias", |case| {
        let resolver = Resolver::enforcing(case)?;
        let there = resolver.dig("@10.66.0.1 cname.allowed.test")?;
        require!(
            there.contains("www.elsewhere.test.") && there.contains("198.51.100.20"),
            "{there}"
        );
        require!(
            resolver.is_pinned("cname.allowed.test", "198.51.100.20"),
            "it is not pinned to the name asked"
        );
        for name in ["www.elsewhere.test", "back.elsewhere.test"] {
            let denied = resolver.dig(&format!("@10.66.0.1 {name}"))?;
            require!(
                denied.contains("NXDOMAIN") && denied.contains("ANSWER: 0"),
                "{denied}"
            );
        }
        require!(
            resolver.asked("back.elsewhere.test")? == 0,
            "it was asked for"
        );
        Ok(())
    });
}

#[test]
fn hints_that_lead_past_the_policy_are_not_told() {
    case("net-dns-hints", |case| {
        let resolver = Resolver::enforcing(case)?;
        for kind in ["HTTPS", "SVCB", "TYPE10", "NS", "SOA", "ANY"] {
            case.check(kind, || {
                let answered = resolver.dig(&format!("+tcp @10.66.0.1 api.allowed.test {kind}"))?;
                require!(answered.contains("NOERROR"), "{answered}");
                for leak in ["ech=", "h3", "198.51.100", "hostmaster"] {
                    require!(!answered.contains(leak), "{leak} is told:\n{answered}");
                }
                Ok(())
            });
        }
        require!(resolver.asked("https")? == 0, "it was asked for");
        Ok(())
    });
}

#[test]
fn under_a_wildcard_little_goes_up_and_nothing_but_addresses_comes_down() {
    case("net-dns-wildcard-budget", |case| {
        let resolver = Resolver::enforcing(case)?;
        for kind in ["TXT", "MX", "CNAME", "TYPE10", "SRV"] {
            case.check(kind, || {
                let answered = resolver.dig(&format!("@10.66.0.1 x.wild.test {kind}"))?;
                require!(
                    answered.contains("ANSWER: 0") && !answered.contains("downstream"),
                    "{answered}"
                );
                Ok(())
            });
        }
        require!(resolver.asked("wild.test")? == 0, "a carrier went upstream");
        let (mut short, mut long) = (String::new(), String::new());
        for n in 0..300 {
            short += &format!("s{n}.wild.test\n");
            long += &format!("{n}{}.{}.wild.test\n", "l".repeat(58), "m".repeat(60));
        }
        for (kind, names) in [("long", long), ("short", short)] {
            let file = resolver.gateway.file(kind, &names)?;
            resolver.dig(&format!("+short @10.66.0.1 -f {}", file.display()))?;
        }
        budget_held(case, &resolver)
    });
}

fn budget_held(case: &Case, resolver: &Resolver) -> Result {
    let path = resolver.gateway.path("asked.log");
    let log = std::fs::read_to_string(&path).map_err(|error| {
        qemu_tests::Error::other(format!("reading {}: {error}", path.display()))
    })?;
    let names: std::collections::BTreeSet<&str> = log
        .split(['(', ')'])
        .filter_map(|word| word.strip_suffix(".wild.test"))
        .collect();
    let bytes: usize = names.iter().map(|name| name.len()).sum();
    case.note(&format!(
        "{} names with {bytes} bytes went upstream",
        names.len()
    ));
    require!(
        names.len() <= 60 && bytes <= 1024,
        "{} names with {bytes} bytes",
        names.len()
    );
    require!(bytes > 400, "the budget starves honest use");
    require!(!resolver.events("name-budget")?.is_empty(), "no event");
    Ok(())
}
