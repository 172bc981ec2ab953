//! Limits of the host that an agent is at: who is told of a flow, and when, and what comes of the answer. The enforcer is
//! played by the test, which so says what it wants; that the kernel then counts is the enforcer's own tests' matter.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clawgress_config::policy::Policy;
use clawgress_link::counted::{Answer, Class, Question};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use serde_json::json;

use crate::lab::{HOST, Lab};
use crate::origin::hello;
use crate::world::World;

/// The host of these tests.
const HERE: &str = "203.0.113.9";

/// Hears questions and answers all of them alike.
#[derive(Clone)]
struct Enforcer {
    answer: Arc<Mutex<Answer>>,
    heard: Arc<Mutex<Vec<Question>>>,
    place: Arc<tempfile::TempDir>,
}

impl Enforcer {
    fn answering(answer: Answer) -> Self {
        let place = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(place.path().join("counted.sock")).unwrap();
        let enforcer = Self {
            answer: Arc::new(Mutex::new(answer)),
            heard: Arc::default(),
            place: Arc::new(place),
        };
        let own = enforcer.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                own.heard
                    .lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap());
                let answer = serde_json::to_string(&*own.answer.lock().unwrap()).unwrap();
                stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
        });
        enforcer
    }

    fn now(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn heard(&self) -> Vec<Question> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    /// What the world of these tests has beside its usual: a host at the agent's address, with this.
    fn limits(&self, world: &mut World, limits: &str) {
        world.counter = Some(self.place.path().join("counted.sock"));
        limit(world, limits);
    }
}

fn limit(world: &mut World, limits: &str) {
    let policy = format!(
        r#"{{"version": 1, "hosts": {{"here": {{"sources": ["{HERE}/32"],
            "allow": {{"domains": ["{HOST}", "other.lab.test"], "ports": [80, 443]}}{limits}}}}}}}"#
    );
    world.revision.policy = Policy::from_json(policy.as_bytes()).unwrap();
}

const CAPPED: &str =
    r#", "exfil": {"domains": {"origin.lab.test": {"bytes": 1000000, "period": "day"}}}"#;

fn capped() -> Answer {
    Answer::Counted(Class {
        holder: "here".to_owned(),
        pattern: Some(HOST.to_owned()),
    })
}

/// From the host's address.
fn here() -> TcpStream {
    let family = AddressFamily::Inet;
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let at = |text: &str| SockaddrIn::from(text.parse::<SocketAddrV4>().unwrap());
    bind(fd.as_raw_fd(), &at(&format!("{HERE}:0"))).unwrap();
    connect(fd.as_raw_fd(), &at("127.0.0.1:3128")).unwrap();
    let stream = TcpStream::from(fd);
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).unwrap();
    stream
}

fn tunnel(lab: &Lab) -> TcpStream {
    let mut agent = here();
    let head = lab.connect(&mut agent, &format!("{HOST}:443"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    agent.write_all(&hello(HOST)).unwrap();
    agent.read_exact(&mut [0]).unwrap();
    agent
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn whose_a_flow_is_is_told_before_anything_goes_out_over_it() {
    let enforcer = Enforcer::answering(capped());
    Lab::run_with(
        |world| enforcer.limits(world, CAPPED),
        |lab| {
            let mut agent = here();
            // All of it is there before the answer is.
            let request = format!(
                "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n{}\r\n",
                lab.credential()
            );
            agent.write_all(request.as_bytes()).unwrap();
            agent.write_all(&hello(HOST)).unwrap();
            let head = crate::lab::read_head(&mut agent);
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let questions = enforcer.heard();
            let [before, after] = questions.as_slice() else {
                panic!("{questions:?}");
            };
            assert_eq!(before.source, HERE.parse::<std::net::IpAddr>().unwrap());
            assert_eq!((before.name.as_deref(), before.flow), (Some(HOST), None));
            let leg = after.flow.unwrap();
            assert_eq!(leg.remote, "203.0.113.10:443".parse().unwrap());
            assert_ne!(leg.local.port(), 0);
            // A name without a cap is nobody's matter.
            let answer = lab.connect(&mut here(), "other.lab.test:443");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(enforcer.heard(), []);
        },
    );
}

#[test]
fn every_byte_of_a_counted_connection_is_counted_so_none_is_used_again() {
    let enforcer = Enforcer::answering(capped());
    Lab::run_with(
        |world| enforcer.limits(world, CAPPED),
        |lab| {
            let mut agent = here();
            for _ in 0..3 {
                let answer = lab.get(&mut agent, &format!("http://{HOST}/"));
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
            assert_eq!(lab.reached(), 3);
            assert_eq!(enforcer.heard().len(), 6);
        },
    );
}

#[test]
fn a_cap_that_is_used_up_is_the_reason_that_is_told() {
    let enforcer = Enforcer::answering(Answer::OverCap);
    Lab::run_with(
        |world| enforcer.limits(world, CAPPED),
        |lab| {
            let head = lab.connect(&mut here(), &format!("{HOST}:443"));
            assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
            let answer = lab.get(&mut here(), &format!("http://{HOST}/"));
            assert!(answer.contains(r#""reason":"over-cap""#), "{answer}");
            assert_eq!(lab.reached(), 0);
            lab.idle();
            let events = lab.events();
            assert!(events.iter().all(|event| event["reason"] == "over-cap"));

            // The kernel cuts without a word.
            enforcer.now(capped());
            let mut agents = [tunnel(lab), tunnel(lab)];
            let rules = "add table inet cut { chain output { type filter hook output priority 0; \
                         tcp dport 443 ip daddr 203.0.113.10 reject with tcp reset; }; }";
            let status = Command::new("nft").arg(rules).status().unwrap();
            assert!(status.success());
            enforcer.now(Answer::OverCap);
            agents[0].write_all(b"?").unwrap();
            assert!(!matches!(agents[0].read(&mut [0]), Ok(1..)));
            // What breaks for another reason is not called so.
            let event = eventually("the first tunnel ends", || {
                lab.events()
                    .into_iter()
                    .find(|event| event["status"] == 200)
            });
            assert_eq!(
                (&event["decision"], &event["reason"]),
                (&json!("deny"), &json!("over-cap"))
            );
            enforcer.now(capped());
            agents[1].write_all(b"?").unwrap();
            assert!(!matches!(agents[1].read(&mut [0]), Ok(1..)));
            lab.idle();
            eventually("the second tunnel ends", || {
                lab.events()
                    .into_iter()
                    .find(|event| event["status"] == 200 && event["reason"] == "broken")
            });
        },
    );
}

#[test]
fn while_nobody_answers_what_counts_is_denied_and_nothing_else() {
    let nobody = tempfile::tempdir().unwrap();
    for socket in [None, Some(nobody.path().join("none"))] {
        Lab::run_with(
            |world| {
                world.counter = socket.clone();
                limit(world, CAPPED);
            },
            |lab| {
                let head = lab.connect(&mut here(), &format!("{HOST}:443"));
                assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
                let head = lab.connect(&mut here(), "203.0.113.10:443");
                assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
                assert_eq!(lab.reached(), 0);
                let answer = lab.connect(&mut here(), "other.lab.test:443");
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                lab.change(|world| limit(world, r#", "limits": {"egress_kbps": 1000}"#));
                let head = lab.connect(&mut here(), "other.lab.test:443");
                assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            },
        );
    }
}

#[test]
fn an_answer_about_another_revision_is_waited_for_and_not_believed() {
    let enforcer = Enforcer::answering(Answer::Uncounted);
    Lab::run_with(
        |world| enforcer.limits(world, CAPPED),
        |lab| {
            let began = Instant::now();
            let later = enforcer.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                later.now(capped());
            });
            tunnel(lab);
            assert!(began.elapsed() >= Duration::from_millis(300));
            enforcer.now(Answer::Counted(Class {
                holder: "here".to_owned(),
                pattern: None,
            }));
            let head = lab.connect(&mut here(), &format!("{HOST}:443"));
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        },
    );
}

#[test]
fn a_cap_that_comes_with_a_revision_counts_for_open_tunnels_or_ends_them() {
    let enforcer = Enforcer::answering(capped());
    Lab::run_with(
        |world| enforcer.limits(world, ""),
        |lab| {
            let mut agent = tunnel(lab);
            assert_eq!(enforcer.heard(), []);
            lab.change(|world| limit(world, CAPPED));
            let question = eventually("the open tunnel is told", || enforcer.heard().pop());
            assert_eq!(question.name.as_deref(), Some(HOST));
            assert!(question.flow.is_some());
            agent.write_all(b"?").unwrap();
            agent.read_exact(&mut [0]).unwrap();
            // The same limits with other numbers are no other class.
            lab.change(|world| limit(world, &CAPPED.replace("1000000", "2000000")));
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(enforcer.heard(), []);

            lab.change(|world| limit(world, ""));
            let mut other = tunnel(lab);
            enforcer.now(Answer::OverCap);
            lab.change(|world| limit(world, CAPPED));
            let began = Instant::now();
            assert!(!matches!(other.read(&mut [0]), Ok(1..)));
            assert!(began.elapsed() < Duration::from_secs(1));
            // It was counted all the while.
            agent.write_all(b"?").unwrap();
            agent.read_exact(&mut [0]).unwrap();
        },
    );
}
