//! Any bytes as an agent's packet: they are dropped, answered with something that can be read and holds no address, or
//! wait for named only if the policy allows the name.

#![no_main]

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use clawgress_config::Cidr;
use clawgress_config::policy::Policy;
use clawgress_dns::enforcer::Link;
use clawgress_dns::engine::{Asker, Begun, Engine, Limits};
use clawgress_dns::events::Events;
use clawgress_dns::question::Question;
use clawgress_dns::rules::Rules;
use clawgress_dns::upstream::Upstream;
use clawgress_dns::{budget, flights};
use clawgress_policy::{Card, Logging, Network, Revision};
use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

struct Box {
    engine: Arc<Engine>,
    _runtime: Runtime,
}

static BOX: LazyLock<Box> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let engine = runtime.block_on(async {
        let upstream = Upstream::start(([127, 0, 0, 1], 9).into()).await.expect("sockets");
        let limits = Limits {
            flights: flights::Limits { total: 10, of_principal: 10, of_source: 10 },
            budget: budget::Limits { names: 60, bytes: 1024, domains: 10 },
            cached_answers: 10,
            remembered_pins: 10,
        };
        let (link, _) = Link::new();
        Engine::new(&limits, upstream, link, Events::to(|_, _| true).expect("a thread"))
    });
    engine.load(Rules::of(&revision()).expect("rules"));
    Box { engine, _runtime: runtime }
});

fn revision() -> Revision {
    let policy = br#"{"version": 1, "allow": {"domains": ["a.b", "*.w.x"]}, "labels": {"a.b": "label"}}"#;
    let lan = Cidr { address: IpAddr::from([10, 0, 0, 1]), length: 8 };
    Revision {
        number: 1,
        created: 1,
        enabled: true,
        policy: Policy::from_json(policy).expect("a policy"),
        network: Network {
            lan: vec![Card { name: "eth1".to_owned(), addresses: vec![lan] }],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging { facility: "local0".to_owned(), deny_log: true },
        name_servers: Vec::new(),
        access: clawgress_config::access::Access::default(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, packet)) = bytes.split_first() else {
        return;
    };
    let asker = if first & 2 == 0 {
        Asker::Agent(IpAddr::from([10, 0, 0, 9]))
    } else {
        Asker::Front
    };
    match BOX.engine.begin(packet, asker, first & 1 == 0) {
        Begun::Silence => {}
        Begun::Answer(answer) => {
            assert!(first & 1 == 0 || answer.len() <= 1232);
            let answer = Message::from_vec(&answer).expect("an answer that can be read");
            assert_eq!(answer.metadata.id.to_be_bytes(), packet[..2]);
            assert!(answer.all_sections().all(|record| record.data.ip_addr().is_none()));
        }
        Begun::Waits(_) => {
            let question = Question::read(packet).expect("what waits is a question");
            let name = question.name.expect("what waits has a name");
            assert!(name == "a.b" || name.ends_with(".w.x"), "{name} went upstream");
        }
    }
});
