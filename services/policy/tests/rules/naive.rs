//! The compiled rules against an evaluator that looks at every rule, every pattern and every network, one by one.

use std::cmp::Reverse;
use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_config::access::{Access, Action, Agent, IdentityMatch, Rule, RuleMode, Status};
use clawgress_config::policy::{Day, TimeOfDay, TimeWindow};
use clawgress_policy::rules::Why;
use clawgress_policy::{Host, Moment, Reason, Request, Window};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::made::{NOW, World, cidr, listed, pattern, zone};

const IDS: &[&str] = &["a", "b", "ab", "ba", "c"];
const WORDS: &[&str] = &["a", "b", "ab", "a*", "*b", "*", "c*a"];
pub(crate) const NAMES: &[&str] = &[
    "x.example",
    "y.example",
    "a.x.example",
    "b.a.x.example",
    "listed.example",
    "z.net",
];
const PATTERNS: &[&str] = &[
    "x.example",
    "*.x.example",
    "*.example",
    "y.example",
    "*.a.x.example",
    "z.net",
    "*.net",
];
const NETWORKS: &[&str] = &[
    "192.0.2.0/24",
    "192.0.2.0/25",
    "192.0.2.1/32",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8::1/128",
    "10.0.0.0/24",
    "fd00::/64",
];
const ADDRESSES: &[&str] = &[
    "192.0.2.1",
    "192.0.2.200",
    "198.51.100.1",
    "2001:db8::1",
    "2001:db8:1::1",
    "::ffff:192.0.2.1",
    "10.0.0.1",
    "10.0.1.1",
    "fd00::1",
];

fn texts(all: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(all), 0..most)
}

fn owned(texts: Vec<&str>) -> std::collections::BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

fn window() -> impl Strategy<Value = Option<TimeWindow>> {
    let hours = (0_u16..24, 1_u16..=24).prop_filter("a length", |(start, end)| start != end);
    prop_oneof![
        3 => Just(None),
        1 => hours.prop_map(|(start, end)| Some(TimeWindow {
            days: Day::ALL.into(),
            start: TimeOfDay(start * 60),
            end: TimeOfDay(end * 60),
        })),
    ]
}

prop_compose! {
    pub(crate) fn rule()(
        priority in 0_u32..4,
        flags in any::<[bool; 3]>(),
        enabled in prop::bool::weighted(0.9),
        report in prop::bool::weighted(0.2),
        agents in texts(WORDS, 3), teams in texts(WORDS, 2), projects in texts(WORDS, 2),
        environments in texts(WORDS, 2),
        domains in texts(PATTERNS, 3), networks in texts(NETWORKS, 2),
        ports in btree_set(select(vec![80_u16, 443]), 0..2),
        methods in texts(&["CONNECT", "GET", "POST"], 2),
        prefixes in texts(&["/", "/v1", "/v1/", "/x"], 2),
        time_window in window(),
    ) -> Rule {
        Rule {
            version: 1, priority, enabled,
            mode: if report { RuleMode::Report } else { RuleMode::Enforce },
            identity: IdentityMatch {
                agents: owned(agents), teams: owned(teams),
                projects: owned(projects), environments: owned(environments),
            },
            domains: domains.into_iter().map(pattern).collect(),
            networks: networks.into_iter().map(cidr).collect(),
            ports, methods: owned(methods), path_prefixes: owned(prefixes), time_window,
            action: if flags[0] { Action::Deny } else { Action::Allow },
            alert: flags[1], plain_tunnel: flags[2], upgrade: false, label: None,
        }
    }
}

#[derive(Debug, Clone)]
struct Asked {
    ids: [&'static str; 4],
    host: Result<&'static str, IpAddr>,
    port: u16,
    seen: Option<(&'static str, &'static str)>,
    tunnel: bool,
    resolved: Vec<IpAddr>,
}

pub(crate) fn address() -> impl Strategy<Value = IpAddr> {
    select(ADDRESSES).prop_map(|text| text.parse().unwrap())
}

prop_compose! {
    fn asked()(
        ids in [select(IDS), select(IDS), select(IDS), select(IDS)],
        host in prop_oneof![3 => select(NAMES).prop_map(Ok), 1 => address().prop_map(Err)],
        port in select(vec![80_u16, 443, 22]),
        seen in prop::option::of((select(&["GET", "POST"][..]), select(&["/", "/v1", "/v1/a", "/x"][..]))),
        tunnel in any::<bool>(),
        resolved in vec(address(), 0..3),
    ) -> Asked {
        Asked { ids, host, port, seen, tunnel, resolved }
    }
}

impl Asked {
    fn request(&self) -> Request<'_> {
        Request {
            agent_id: self.ids[0],
            team_id: self.ids[1],
            project_id: self.ids[2],
            environment: self.ids[3],
            source: IpAddr::from([203, 0, 113, 1]),
            host: match self.host {
                Ok(name) => Host::Name(name),
                Err(address) => Host::Address(address),
            },
            port: self.port,
            method: if self.tunnel {
                Some("CONNECT")
            } else {
                self.seen.map(|seen| seen.0)
            },
            path: if self.tunnel {
                None
            } else {
                self.seen.map(|seen| seen.1)
            },
            tunnel: self.tunnel,
            resolved: &self.resolved,
        }
    }
}

/// Whether a word with stars means an id: by trying every split.
fn star(word: &str, id: &str) -> bool {
    match word.split_once('*') {
        None => word == id,
        Some((head, rest)) => id
            .strip_prefix(head)
            .is_some_and(|tail| (0..=tail.len()).any(|at| star(rest, &tail[at..]))),
    }
}

fn holds(networks: &std::collections::BTreeSet<Cidr>, address: IpAddr) -> bool {
    networks
        .iter()
        .any(|network| network.contains(address.to_canonical()))
}

/// Whether a rule matches, from the words of its definition.
fn matches(rule: &Rule, asked: &Asked, moment: Moment) -> bool {
    let deny = rule.action == Action::Deny;
    // What is only tried matches what it sees, and nothing else.
    let strict = deny && rule.mode == RuleMode::Enforce;
    let identity = [
        &rule.identity.agents,
        &rule.identity.teams,
        &rule.identity.projects,
        &rule.identity.environments,
    ];
    let meant = identity
        .iter()
        .zip(asked.ids)
        .all(|(words, id)| words.is_empty() || words.iter().any(|word| star(word, id)));
    let anywhere = rule.domains.is_empty() && rule.networks.is_empty();
    let asked_for = match asked.host {
        Ok(name) => rule.domains.iter().any(|domain| domain.matches(name)),
        Err(address) => holds(&rule.networks, address),
    };
    let leads = deny
        && asked
            .resolved
            .iter()
            .any(|address| holds(&rule.networks, *address));
    let port = rule.ports.is_empty() || rule.ports.contains(&asked.port);
    let hidden = asked.tunnel || asked.seen.is_none();
    let by_what_hides =
        rule.methods.iter().any(|method| method != "CONNECT") || !rule.path_prefixes.is_empty();
    let method = rule.methods.is_empty()
        || (asked.tunnel && rule.methods.contains("CONNECT"))
        || (hidden && strict && by_what_hides)
        || (!hidden
            && asked
                .seen
                .is_some_and(|(method, _)| rule.methods.contains(method)));
    let path = rule.path_prefixes.is_empty()
        || (hidden && strict && by_what_hides)
        || (!hidden
            && asked.seen.is_some_and(|(_, path)| {
                rule.path_prefixes.iter().any(|prefix| {
                    let whole = format!("{}/", prefix.trim_end_matches('/'));
                    (path == prefix) || path.starts_with(&whole)
                })
            }));
    let open = rule.time_window.as_ref().is_none_or(|window| {
        if moment.trusted {
            Window::from(window).is_open(&zone(), moment.now)
        } else {
            strict
        }
    });
    // What is about the world is not about what is inside, unless it denies.
    let inside = asked.host.is_err_and(|address| {
        let inside = ["10.0.0.0/8", "fd00::/8"].map(cidr);
        let own = ["10.0.0.0/24", "fd00::/64"].map(cidr);
        let address = address.to_canonical();
        let about = |network: &Cidr| network.contains(address) && own.contains(network);
        inside.iter().any(|network| network.contains(address)) && !rule.networks.iter().any(about)
    });
    if inside && !strict {
        return false;
    }
    rule.enabled && meant && (anywhere || asked_for || leads) && port && method && path && open
}

/// Allowed, by whom, who would have denied, whether there is an alert.
type Said = (bool, String, Option<String>, bool);

fn naive(access: &Access, asked: &Asked, listed: Option<Reason>, moment: Moment) -> Said {
    let disabled = access
        .agents
        .get(asked.ids[0])
        .is_some_and(|agent| agent.status == Status::Disabled);
    if disabled {
        return (false, "default-deny".to_owned(), None, false);
    }
    let mut rules: Vec<(&String, &Rule)> = access.rules.iter().collect();
    rules.sort_by_key(|(id, rule)| (rule.priority, Reverse(rule.action == Action::Deny), *id));
    let mut reported: Option<&String> = None;
    let mut alert = false;
    for (id, rule) in rules {
        if !matches(rule, asked, moment) {
            continue;
        }
        alert |= rule.alert;
        if rule.mode == RuleMode::Report && rule.action == Action::Deny {
            reported = reported.or(Some(id));
            continue;
        }
        let allowed = rule.action == Action::Allow;
        return (
            allowed,
            id.clone(),
            reported.filter(|_| allowed).cloned(),
            alert,
        );
    }
    match (listed, reported) {
        (None, reported) => (true, "policy.json".to_owned(), reported.cloned(), alert),
        (Some(Reason::NotAllowlisted), Some(id)) => (true, id.clone(), Some(id.clone()), alert),
        (Some(_), _) => (false, "default-deny".to_owned(), None, false),
    }
}

prop_compose! {
    pub(crate) fn agents()(
        agents in btree_map(select(IDS).prop_map(str::to_owned), ([select(IDS), select(IDS), select(IDS)], prop::bool::weighted(0.1)), 0..5),
    ) -> std::collections::BTreeMap<String, Agent> {
        agents.into_iter().map(|(id, ([team, project, environment], disabled))| {
            let mut agent = crate::made::agent(team, project, environment);
            if disabled {
                agent.status = Status::Disabled;
            }
            (id, agent)
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn compiled_rules_say_what_a_naive_evaluator_says(
        rules in vec(rule(), 0..40),
        agents in agents(),
        questions in vec(asked(), 1..40),
        trusted in prop::bool::weighted(0.8),
        hour in 0_i64..24,
    ) {
        let access = Access {
            agents,
            rules: rules.into_iter().enumerate().map(|(at, rule)| (format!("r{at}"), rule)).collect(),
            ..Access::default()
        };
        let world = World::of(listed(), access.clone());
        let bare = World::of(listed(), Access::default());
        let moment = Moment { now: NOW - 43_200 + hour * 3_600, trusted };
        for mut asked in questions {
            // Half of the agents come as the revision knows them.
            if let Some(agent) = access.agents.get(asked.ids[0]).filter(|_| asked.port != 22) {
                asked.ids = [
                    asked.ids[0],
                    IDS.iter().find(|id| **id == agent.team_id).unwrap(),
                    IDS.iter().find(|id| **id == agent.project_id).unwrap(),
                    IDS.iter().find(|id| **id == agent.environment).unwrap(),
                ];
            }
            let request = asked.request();
            let listed = bare.rules.decide(&bare.index, &request, moment).reason;
            let expected = naive(&access, &asked, listed, moment);
            let decision = world.rules.decide(&world.index, &request, moment);
            let said = (
                decision.allowed,
                decision.policy_id.to_owned(),
                decision.would_deny.map(str::to_owned),
                decision.alert,
            );
            prop_assert_eq!(&said, &expected, "{:?}", asked);
            prop_assert_eq!(decision.allowed, decision.reason.is_none());
            // The explanation ends with the same decision.
            let told = world.rules.explain(&world.index, &request, moment);
            let last = told.last().unwrap();
            prop_assert_eq!(&last.policy_id, decision.policy_id);
            let allows = match last.why {
                Why::Decides => last.action == Action::Allow,
                Why::LetsPass => true,
                Why::Denies(reason) => {
                    prop_assert_eq!(Some(reason), decision.reason);
                    false
                }
                other => return Err(TestCaseError::fail(format!("{other:?} is no decision"))),
            };
            prop_assert_eq!(allows, decision.allowed);
        }
    }

    #[test]
    fn no_name_and_no_path_makes_it_panic(name in "\\PC{0,300}", path in "\\PC{0,300}", method in "\\PC{0,20}") {
        let mut rule = crate::made::rule(Action::Deny, 1, &["*.example"]);
        rule.path_prefixes = ["/".to_owned()].into();
        let world = World::with(&[("r", rule)]);
        world.decide(&crate::made::plain(&name, &method, &path));
        clawgress_policy::canonical_path(&path).ok();
    }
}
