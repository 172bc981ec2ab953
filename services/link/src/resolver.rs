//! Asks named for a name that nobody ever asked for, and demands the denial of our response policy zone.
//!
//! A mere NXDOMAIN proves nothing: any resolver gives one for a random name, after having asked upstream. The proof
//! is the policy zone's own SOA beside it, which only a rewritten answer carries.

use std::{net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::net::UdpSocket;

use crate::error::{ProbeError, within};

/// The response policy zone of `/etc/bind/named.conf`.
pub const ZONE: &str = "rpz.clawgress.";

/// A denial that provably came from our zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// The serial of the zone that denied: the generation of the policy that it was made from.
    pub serial: u32,
}

/// Asks for a fresh random name. The query wants DNSSEC records, because a resolver that breaks the rule for such
/// clients (the default of RPZ) would answer exactly this one from upstream.
pub async fn probe(server: SocketAddr, deadline: Duration) -> Result<Denial, ProbeError> {
    let doing = format!("asking the resolver at {server} for a name that must be denied");
    within(deadline, &doing, async {
        let answer = ask(server, &doing).await?;
        judge(&answer).map_err(|why| ProbeError::answer(&doing, why))
    })
    .await
}

/// Asks for a fresh random name and returns the answer to just that question.
pub(crate) async fn ask(server: SocketAddr, doing: &str) -> Result<Message, ProbeError> {
    let query = question(random_name().map_err(|why| ProbeError::answer(doing, why))?)?;
    let packet = query
        .to_vec()
        .map_err(|error| ProbeError::answer(doing, error))?;

    let local: SocketAddr = if server.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    }
    .parse()
    .expect("a literal");
    let socket = UdpSocket::bind(local)
        .await
        .map_err(ProbeError::io(doing))?;
    // Connected: answers from any other address never reach us, and a closed port is an error instead of silence.
    socket
        .connect(server)
        .await
        .map_err(ProbeError::io(doing))?;
    socket.send(&packet).await.map_err(ProbeError::io(doing))?;

    let mut buffer = [0; 4096];
    loop {
        let length = socket
            .recv(&mut buffer)
            .await
            .map_err(ProbeError::io(doing))?;
        let answer = Message::from_vec(&buffer[..length])
            .map_err(|error| ProbeError::answer(doing, error))?;
        // A late answer to an older probe on a reused port: not ours, keep listening until the deadline.
        if answer.metadata.id == query.metadata.id && answer.queries == query.queries {
            return Ok(answer);
        }
    }
}

fn question(name: Name) -> Result<Message, ProbeError> {
    let mut id = [0; 2];
    random(&mut id).map_err(|why| ProbeError::answer("making a query", why))?;
    let mut query = Message::new(u16::from_be_bytes(id), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, RecordType::A));
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(1232);
    query.set_edns(edns);
    Ok(query)
}

/// A name under a top level that exists, so that only a policy can say no without asking anybody.
fn random_name() -> Result<Name, String> {
    let mut bytes = [0; 12];
    random(&mut bytes)?;
    let label = bytes.iter().fold("probe-".to_owned(), |label, byte| {
        format!("{label}{byte:02x}")
    });
    Name::from_ascii(format!("{label}.com.")).map_err(|error| error.to_string())
}

fn random(bytes: &mut [u8]) -> Result<(), String> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .secure_random
        .fill(bytes)
        .map_err(|_| "the random number generator failed".to_owned())
}

/// The denial in this answer, or why it is none of ours.
fn judge(answer: &Message) -> Result<Denial, String> {
    let said = &answer.metadata;
    if said.message_type != MessageType::Response || said.op_code != OpCode::Query {
        return Err("the answer is not a response to a query".to_owned());
    }
    if said.response_code != ResponseCode::NXDomain {
        return Err(format!(
            "it answers {} where NXDOMAIN is the only right answer",
            said.response_code
        ));
    }
    if !answer.answers.is_empty() {
        return Err(format!(
            "it denies the name and yet gives {} records for it",
            answer.answers.len()
        ));
    }
    // A rewritten answer cannot be validated; one that claims to be did not come from the policy zone.
    if said.authentic_data {
        return Err("the denial claims to be DNSSEC-authentic: it came from upstream".to_owned());
    }
    if !said.recursion_available {
        return Err("the server does not recurse: it is not our named".to_owned());
    }
    let zone = Name::from_ascii(ZONE).map_err(|error| error.to_string())?;
    let soas = answer
        .authorities
        .iter()
        .chain(&answer.additionals)
        .filter_map(|record| match &record.data {
            RData::SOA(soa) => Some((&record.name, soa)),
            _ => None,
        });
    let mut foreign = None;
    for (name, soa) in soas {
        if *name == zone {
            return Ok(Denial { serial: soa.serial });
        }
        foreign = Some(name.to_string());
    }
    Err(match foreign {
        Some(name) => format!("the denial comes from zone {name}, not from {ZONE}"),
        None => format!("the denial does not name {ZONE} as its source"),
    })
}
