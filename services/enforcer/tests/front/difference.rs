//! From one state to the next: few commands, in an order that opens nothing in between.

use std::collections::BTreeMap;

use clawgress_enforcer::front::{MapName, Places, Rendered, Update, difference};
use clawgress_policy::Moment;

use crate::scene::{NOON, POLICY, rendered, rendered_at, revision};

/// Maps as a running haproxy has them.
type Running = BTreeMap<String, BTreeMap<String, String>>;

fn running(front: &Rendered) -> Running {
    let maps = front.maps.iter().map(|(name, text)| {
        let entries = text.lines().map(|line| line.split_once(' ').unwrap());
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        (Places::default().map(*name), entries.collect())
    });
    maps.collect()
}

/// Does what haproxy does with a command.
fn obey(running: &mut Running, command: &str) {
    let (line, payload) = command.split_once('\n').unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let map = running.get_mut(words[2]).unwrap();
    match words.as_slice() {
        ["del", "map", _, key] => assert!(map.remove(*key).is_some(), "{command}"),
        ["set", "map", _, key, value] => {
            assert!(
                map.insert((*key).to_owned(), (*value).to_owned()).is_some(),
                "{command}"
            );
        }
        ["add", "map", _, "<<"] => {
            assert!(command.len() < 15_000 && payload.ends_with("\n\n"));
            for line in payload.trim_end().lines() {
                let (key, value) = line.split_once(' ').unwrap();
                assert!(
                    map.insert(key.to_owned(), value.to_owned()).is_none(),
                    "{line}"
                );
            }
        }
        _ => panic!("{command}"),
    }
}

fn commands(old: &Rendered, new: &Rendered) -> Vec<String> {
    match difference(old, new, &Places::default()) {
        Update::Runtime(commands) => commands,
        other => panic!("{other:?}"),
    }
}

/// Commands without the paths and the mark.
fn essence(commands: &[String]) -> Vec<String> {
    let plain = commands
        .iter()
        .map(|command| command.replace("/run/clawgress/enforcer/front/", ""));
    plain.filter(|command| !command.contains("=mark")).collect()
}

#[test]
fn the_same_is_nothing() {
    let front = rendered(&revision(POLICY));
    assert_eq!(
        difference(&front, &front.clone(), &Places::default()),
        Update::Nothing
    );
}

#[test]
fn a_window_that_opens_is_one_command_however_many_names_hang_on_it() {
    let revision = revision(POLICY);
    let noon = rendered(&revision);
    // Ten in the evening: the global night rule opens, agent-1's day is over.
    let night = rendered_at(&revision, Moment::trusted(NOON + 10 * 3600), &[]);
    let said = essence(&commands(&noon, &night));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("set map gates.map s-") && said[0].ends_with("outside-window\n"),
        "{said:?}"
    );
    assert_eq!(said[1], "set map gates.map w-ab-1320-360 open\n");
    let untrusted = rendered_at(&revision, Moment::untrusted(NOON), &[]);
    assert_eq!(essence(&commands(&noon, &untrusted)).len(), 3);
}

#[test]
fn a_cap_that_is_used_up_is_one_command() {
    let revision = revision(POLICY);
    let (before, after) = (
        rendered(&revision),
        rendered_at(
            &revision,
            Moment::trusted(NOON),
            &[("agent-1", "only.example.com")],
        ),
    );
    let said = essence(&commands(&before, &after));
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("add map caps.map <<\n") && said[0].contains("/com.example.only$ 1\n"),
        "{said:?}"
    );
    assert_eq!(essence(&commands(&after, &before)).len(), 1);
}

#[test]
fn one_name_more_is_one_line_more_and_another_gateway_a_reload() {
    let old = rendered(&revision(POLICY));
    let more = revision(&POLICY.replace(
        "[\"example.com\", \"*",
        "[\"new.example\", \"example.com\", \"*",
    ));
    let said = essence(&commands(&old, &rendered(&more)));
    assert_eq!(said, ["add map names.map <<\ng/example.new$ s-g\n\n"]);
    let host = revision(&POLICY.replace("\"agent-1\"", "\"agent-0\""));
    let said = essence(&commands(&old, &rendered(&host)));
    assert!(
        said.iter().all(|command| !command.contains(" g/")),
        "{said:?}"
    );
    let other = revision(&POLICY.replace("gw.example.com:3128", "gw.example.com:3129"));
    assert_eq!(
        difference(&old, &rendered(&other), &Places::default()),
        Update::Reload
    );
}

#[test]
fn commands_lead_to_the_new_state_and_close_before_they_open() {
    let variants = [
        POLICY.to_owned(),
        POLICY.replace(
            "\"example.com\", \"*.example.org\"",
            "\"example.net\", \"*.example.org\"",
        ),
        POLICY.replace("192.168.10.10/32", "192.168.10.12/30"),
        POLICY
            .replace("\"plain\"", "\"agent-2b\"")
            .replace("10.9.0.0/16", "10.8.0.0/16"),
        POLICY.replace("\"ports\": [443]", "\"ports\": [80]"),
        POLICY
            .replace("22:00", "11:00")
            .replace("\"docs\"", "\"docs; and more\""),
    ];
    let states: Vec<Rendered> = variants
        .iter()
        .map(|policy| rendered(&revision(policy)))
        .collect();
    for old in &states {
        for new in &states {
            if old == new {
                continue;
            }
            let mut now = running(old);
            let (old_names, new_names) = (names(&running(old)), names(&running(new)));
            for command in commands(old, new) {
                obey(&mut now, &command);
                // No name that was closed before is open before everything that closes has been said.
                for name in names(&now).keys() {
                    assert!(old_names.contains_key(name) || new_names.contains_key(name));
                }
            }
            assert_eq!(now, running(new));
        }
    }
}

fn names(running: &Running) -> BTreeMap<String, String> {
    running[&Places::default().map(MapName::Names)].clone()
}

#[test]
fn what_would_take_long_is_a_reload() {
    let many = |from: usize| {
        let names: Vec<String> = (from..from + 20_000)
            .map(|n| format!("\"n{n}.example\""))
            .collect();
        rendered(&revision(&POLICY.replace(
            "\"old.example.org\"],\n    \"ips\"",
            &format!("\"old.example.org\", {}],\n    \"ips\"", names.join(",")),
        )))
    };
    let (old, near, far) = (many(0), many(10), many(10_000));
    assert!(matches!(
        difference(&old, &near, &Places::default()),
        Update::Runtime(_)
    ));
    assert_eq!(difference(&old, &far, &Places::default()), Update::Reload);
}
