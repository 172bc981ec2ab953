//! Names asked of a resolver that is a socket of this test, on the wire as a real one is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clawgress_link::lookup::{LookupError, addresses};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

const DEADLINE: Duration = Duration::from_secs(3);

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// Answers each question with what `answer` puts into it.
async fn resolver(answer: impl Fn(RecordType, &mut Message) + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            answer(message.queries[0].query_type, &mut message);
            // One that does not fit comes first, and is not heard.
            let mut foreign = message.clone();
            foreign.metadata.id = !foreign.metadata.id;
            foreign.answers.clear();
            socket
                .send_to(&foreign.to_vec().unwrap(), from)
                .await
                .unwrap();
            socket
                .send_to(&message.to_vec().unwrap(), from)
                .await
                .unwrap();
        }
    });
    at
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

#[tokio::test]
async fn both_families_are_followed_through_aliases_and_nothing_else_is_taken() {
    let at = resolver(|kind, message| {
        message.answers.push(record(
            "a.example.",
            RData::CNAME(CNAME(name("b.example."))),
        ));
        match kind {
            RecordType::A => {
                message
                    .answers
                    .push(record("b.example.", RData::A(A::new(192, 0, 2, 9))));
                message
                    .answers
                    .push(record("b.example.", RData::A(A::new(192, 0, 2, 1))));
                message
                    .answers
                    .push(record("evil.example.", RData::A(A::new(10, 0, 0, 1))));
            }
            _ => message.answers.push(record(
                "b.example.",
                RData::AAAA(AAAA("2001:db8::1".parse().unwrap())),
            )),
        }
    })
    .await;
    let found = addresses(at, "a.example", DEADLINE).await.unwrap();
    let expected: Vec<IpAddr> = ["192.0.2.1", "192.0.2.9", "2001:db8::1"]
        .map(|text| text.parse().unwrap())
        .into();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn each_failure_says_what_it_is() {
    let none = resolver(|_, message| message.metadata.response_code = ResponseCode::NXDomain).await;
    let error = addresses(none, "a.example", DEADLINE).await.unwrap_err();
    assert!(matches!(error, LookupError::NoName(_)), "{error}");
    let empty = resolver(|_, _| {}).await;
    let error = addresses(empty, "a.example", DEADLINE).await.unwrap_err();
    assert!(matches!(error, LookupError::NoAddress(_)), "{error}");
    let broken =
        resolver(|_, message| message.metadata.response_code = ResponseCode::ServFail).await;
    let error = addresses(broken, "a.example", DEADLINE).await.unwrap_err();
    assert!(matches!(error, LookupError::Code { .. }), "{error}");
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let error = addresses(silent, "a.example", Duration::from_millis(300)).await;
    assert!(error.is_err(), "{error:?}");
    // A chain that turns in a circle has an end.
    let circle = resolver(|_, message| {
        for (from, to) in [("a.example.", "b.example."), ("b.example.", "a.example.")] {
            message
                .answers
                .push(record(from, RData::CNAME(CNAME(name(to)))));
        }
    })
    .await;
    assert!(addresses(circle, "a.example", DEADLINE).await.is_err());
}
