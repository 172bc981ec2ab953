//! Asks clawgress-dns for a name that nobody ever asked for, and demands a denial that says why.
//!
//! The probe comes from loopback, where no agent is: whatever the policy allows, this asker is allowed nothing.

use std::{net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::rdata::opt::{EdnsCode, EdnsOption},
};

use crate::{
    error::{ProbeError, within},
    resolver,
};

/// The option number of an extended DNS error.
const EXTENDED_ERROR: u16 = 15;

/// What a resolver with a policy says to an asker that is no agent of it.
const UNKNOWN_SOURCE: &str = "unknown-source";

/// A denial that bears a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// It judged: it denied the name, or knew by its policy that this asker is no agent. False: it has no policy and
    /// refuses everybody.
    pub judged: bool,
    /// The info code of the extended error, and its text.
    pub code: u16,
    pub text: String,
}

pub async fn probe(server: SocketAddr, deadline: Duration) -> Result<Denial, ProbeError> {
    let doing = format!("asking clawgress-dns at {server} for a name that must be denied");
    within(deadline, &doing, async {
        let answer = resolver::ask(server, &doing).await?;
        judge(&answer).map_err(|why| ProbeError::answer(&doing, why))
    })
    .await
}

fn judge(answer: &Message) -> Result<Denial, String> {
    let said = &answer.metadata;
    if said.message_type != MessageType::Response {
        return Err("the answer is not a response".to_owned());
    }
    if !answer.answers.is_empty() {
        return Err(format!(
            "it gives {} records for a name that nobody may resolve",
            answer.answers.len()
        ));
    }
    let denied = match said.response_code {
        ResponseCode::NXDomain => true,
        ResponseCode::Refused => false,
        other => return Err(format!("it answers {other} where it has to deny")),
    };
    let reason = answer
        .edns
        .as_ref()
        .and_then(|edns| edns.option(EdnsCode::Unknown(EXTENDED_ERROR)));
    let Some(EdnsOption::Unknown(_, reason)) = reason else {
        return Err("it denies without an extended error: it is not our resolver".to_owned());
    };
    let Some((code, text)) = reason.split_first_chunk::<2>() else {
        return Err("its extended error is cut short".to_owned());
    };
    let text = String::from_utf8_lossy(text).into_owned();
    Ok(Denial {
        judged: denied || text.starts_with(UNKNOWN_SOURCE),
        code: u16::from_be_bytes(*code),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, OpCode};

    fn answer(code: ResponseCode, reason: Option<&[u8]>) -> Message {
        let mut answer = Message::new(7, MessageType::Response, OpCode::Query);
        answer.metadata.response_code = code;
        let mut edns = Edns::new();
        if let Some(reason) = reason {
            edns.options_mut()
                .insert(EdnsOption::Unknown(EXTENDED_ERROR, reason.to_vec()));
        }
        answer.set_edns(edns);
        // As it comes off the wire, not as it was built.
        Message::from_vec(&answer.to_vec().unwrap()).unwrap()
    }

    #[test]
    fn a_denial_with_its_reason_is_proof() {
        let denial = judge(&answer(
            ResponseCode::NXDomain,
            Some(b"\0\x0funknown-source"),
        ))
        .unwrap();
        assert!(denial.judged);
        assert_eq!((denial.code, denial.text.as_str()), (15, "unknown-source"));
        let stranger = answer(ResponseCode::Refused, Some(b"\0\x0funknown-source"));
        assert!(judge(&stranger).unwrap().judged);
        let sealed = judge(&answer(ResponseCode::Refused, Some(b"\0\x0funavailable"))).unwrap();
        assert!(!sealed.judged);
    }

    #[test]
    fn nothing_else_is() {
        for (code, reason) in [
            (ResponseCode::NXDomain, None),
            (ResponseCode::NXDomain, Some(&b"\0"[..])),
            (ResponseCode::ServFail, Some(&b"\0\x0fx"[..])),
            (ResponseCode::NoError, Some(&b"\0\x0fx"[..])),
        ] {
            assert!(judge(&answer(code, reason)).is_err(), "{code} {reason:?}");
        }
    }
}
