//! Asks named whether it serves a policy zone as it was written: each answers one name, which nobody else asks, with
//! the digest of its content.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::plan::Marker;

/// For one question; named is on this machine.
const QUESTION: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
#[error("asking named at {server} for {name}: {why}")]
pub struct MarkerError {
    server: SocketAddr,
    name: String,
    why: String,
}

/// Asks until every zone is served as wanted. named reads its files in its own time.
pub async fn served(
    server: SocketAddr,
    markers: &[Marker],
    within: Duration,
) -> Result<(), MarkerError> {
    let end = Instant::now() + within;
    for marker in markers {
        loop {
            let why = match ask(server, &marker.name).await {
                Ok(said) if said.as_deref() == Some(marker.text.as_str()) => break,
                Ok(Some(said)) => format!("it serves {said}, the plan has {}", marker.text),
                Ok(None) => "it does not serve this policy zone".to_owned(),
                Err(why) => why,
            };
            if Instant::now() >= end {
                return Err(MarkerError {
                    server,
                    name: marker.name.clone(),
                    why,
                });
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// The text of a TXT record; none if the answer has none.
async fn ask(server: SocketAddr, name: &str) -> Result<Option<String>, String> {
    let wrong = |error: &dyn std::fmt::Display| error.to_string();
    let name = Name::from_ascii(format!("{name}.")).map_err(|error| wrong(&error))?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(|error| wrong(&error))?;
    socket
        .connect(server)
        .await
        .map_err(|error| wrong(&error))?;
    // The socket is connected and new: its port tells this answer from all others, the number needs no chance.
    let id = socket.local_addr().map_or(1, |address| address.port());
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, RecordType::TXT));
    let packet = query.to_vec().map_err(|error| wrong(&error))?;
    socket.send(&packet).await.map_err(|error| wrong(&error))?;
    let mut buffer = vec![0; 4096];
    let length = timeout(QUESTION, socket.recv(&mut buffer))
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| wrong(&error))?;
    let answer = buffer.get(..length).unwrap_or_default();
    let answer = Message::from_vec(answer).map_err(|error| wrong(&error))?;
    if answer.metadata.id != id {
        return Err("an answer to another question".to_owned());
    }
    Ok(answer.answers.iter().find_map(|record| match &record.data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    }))
}
