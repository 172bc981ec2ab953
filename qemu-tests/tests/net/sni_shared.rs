//! Flows of one instant share what one of them had looked up: the answer alone, and no longer.

use std::time::Duration;

use clawgress_policy::Reason;
use qemu_tests::names::address_of;
use qemu_tests::{Error, Result, case, require};

use crate::gateway::eventually;
use crate::sni::{ATTACKER, ATTACKER6, Front, NOON, greeting};
use crate::sni_hello::Hello;
use crate::sni_tls::{POLICY, SITE, is_cut, reaches, to};

/// How often haproxy has asked for the agents' flows so far.
fn asked(front: &Front) -> Result<u64> {
    let shown = front.runtime("show resolvers agents\n")?;
    let sent = shown
        .lines()
        .find_map(|line| line.trim().strip_prefix("sent:"));
    sent.and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| Error::other(format!("haproxy tells of its resolver: {shown}")))
}

#[test]
fn flows_of_one_instant_share_a_look_up() {
    case("net-sni-shared", |case| {
        const FLOWS: u64 = 8;
        let mut front = Front::new(case, POLICY)?;
        let hello = Hello::to(SITE).record();
        case.check("one after the other, in an instant", || {
            eventually("a shared answer", || {
                let before = asked(&front)?;
                for _ in 0..FLOWS {
                    reaches(&front, &hello, SITE)?;
                }
                let questions = asked(&front)? - before;
                require!(
                    (1..FLOWS).contains(&questions),
                    "{questions} questions for {FLOWS} flows"
                );
                Ok(())
            })
        });
        case.check("after it, each asks anew", || {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(250));
                let before = asked(&front)?;
                reaches(&front, &hello, SITE)?;
                let questions = asked(&front)? - before;
                require!(questions == 1, "{questions} questions");
            }
            Ok(())
        });
        case.check("each name and each family has its own answer", || {
            for _ in 0..5 {
                reaches(&front, &hello, SITE)?;
                reaches(
                    &front,
                    &Hello::to("a.example.org").record(),
                    "a.example.org",
                )?;
                let outcome = front.say(&to(ATTACKER6), &hello)?;
                require!(
                    outcome.said.starts_with(&greeting(SITE, true)),
                    "{outcome:?}"
                );
                let event = front.was_open(SITE)?;
                require!(event.site == Some(address_of(SITE).1.into()), "{event:?}");
            }
            Ok(())
        });
        case.check("what must not be gone to is never shared", || {
            let inside = Hello::to("rebind.example.net").record();
            for _ in 0..5 {
                is_cut(&front, &inside, Reason::Rebinding)?;
            }
            Ok(())
        });
        case.step("each flow is judged for itself", || {
            reaches(&front, &hello, SITE)?;
            front.change(&POLICY.replace(SITE, "else.example.com"), NOON, &[])?;
            let outcome = front.say(&to(ATTACKER), &hello)?;
            require!(outcome.said.is_empty(), "{outcome:?}");
            front.was_denied(Reason::SniMismatch).map(drop)
        })
    });
}
