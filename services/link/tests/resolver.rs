//! The resolver probe against name servers that answer wrongly, each in its own way. Only a denial that bears our
//! zone's SOA may pass.

use std::{net::SocketAddr, time::Duration};

use clawgress_link::{ProbeError, resolver};
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, SOA},
    },
};
use tokio::net::UdpSocket;

const DEADLINE: Duration = Duration::from_millis(500);

/// A name server that answers one query with what `answer` makes of the query.
async fn server(answer: impl Fn(Message) -> Vec<Message> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        let (length, asker) = socket.recv_from(&mut buffer).await.unwrap();
        for answer in answer(Message::from_vec(&buffer[..length]).unwrap()) {
            socket
                .send_to(&answer.to_vec().unwrap(), asker)
                .await
                .unwrap();
        }
    });
    address
}

fn soa(zone: &str) -> Record {
    let nobody = Name::from_ascii("localhost.").unwrap();
    let soa = SOA::new(nobody.clone(), nobody, 42, 3600, 600, 86400, 5);
    Record::from_rdata(Name::from_ascii(zone).unwrap(), 5, RData::SOA(soa))
}

/// The right answer, as named gives it: the SOA of the policy zone as an additional record.
fn denial(mut message: Message) -> Message {
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = true;
    message.metadata.response_code = ResponseCode::NXDomain;
    message.add_additional(soa(resolver::ZONE));
    message
}

async fn why(change: impl Fn(&mut Message) + Send + 'static) -> String {
    let server = server(move |query| {
        let mut answer = denial(query);
        change(&mut answer);
        vec![answer]
    })
    .await;
    resolver::probe(server, DEADLINE)
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn the_denial_of_our_zone_is_believed_and_its_serial_told() {
    let server = server(|query| vec![denial(query)]).await;
    assert_eq!(resolver::probe(server, DEADLINE).await.unwrap().serial, 42);
}

#[tokio::test]
async fn a_plain_nxdomain_proves_nothing() {
    assert!(
        why(|answer| answer.additionals.clear())
            .await
            .contains("does not name rpz.clawgress. as its source")
    );
    let from_upstream = why(|answer| answer.additionals = vec![soa("com.")]).await;
    assert!(
        from_upstream.contains("comes from zone com."),
        "{from_upstream}"
    );
}

#[tokio::test]
async fn an_answer_that_allows_is_refused_whatever_else_it_says() {
    let allowed = why(|answer| answer.metadata.response_code = ResponseCode::NoError).await;
    assert!(
        allowed.contains("NXDOMAIN is the only right answer"),
        "{allowed}"
    );
    let both = why(|answer| {
        let name = answer.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(name, 5, RData::A(A::new(192, 0, 2, 1))));
    })
    .await;
    assert!(both.contains("yet gives 1 records"), "{both}");
}

#[tokio::test]
async fn the_flags_have_to_be_those_of_a_rewritten_answer() {
    assert!(
        why(|answer| answer.metadata.authentic_data = true)
            .await
            .contains("came from upstream")
    );
    assert!(
        why(|answer| answer.metadata.recursion_available = false)
            .await
            .contains("does not recurse")
    );
    assert!(
        why(|answer| answer.metadata.message_type = MessageType::Query)
            .await
            .contains("not a response")
    );
}

#[tokio::test]
async fn an_answer_to_another_question_is_not_ours() {
    let server = server(|query| {
        let mut other = denial(query.clone());
        other.metadata.id = other.metadata.id.wrapping_add(1);
        vec![other, denial(query)]
    })
    .await;
    assert_eq!(resolver::probe(server, DEADLINE).await.unwrap().serial, 42);
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_a_closed_port_at_once() {
    let silent = server(|_| Vec::new()).await;
    let error = resolver::probe(silent, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(matches!(error, ProbeError::Deadline { .. }), "{error}");

    let unused = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let closed = unused.local_addr().unwrap();
    drop(unused);
    let error = resolver::probe(closed, Duration::from_secs(30))
        .await
        .unwrap_err();
    assert!(matches!(error, ProbeError::Io { .. }), "{error}");
}

#[tokio::test]
async fn no_name_is_asked_twice_and_dnssec_records_are_wanted() {
    let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..2 {
        let tell = tell.clone();
        let server = server(move |query| {
            tell.send(query.clone()).unwrap();
            vec![denial(query)]
        })
        .await;
        resolver::probe(server, DEADLINE).await.unwrap();
    }
    let (first, second) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
    assert_ne!(first.queries[0].name(), second.queries[0].name());
    assert!(first.metadata.recursion_desired && first.edns.unwrap().flags().dnssec_ok);
}
