//! One call, from its head to a caller who may make it: peer, body, envelope, key. Every endpoint begins here.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{ConnectInfo, FromRequest, Request},
    http::{HeaderMap, StatusCode},
};

use crate::daemon::http::{
    Api, Peer, Refusal,
    access::{Actor, Need},
    body::{self, Taken},
    envelope::Envelope,
};

/// A call of which nothing but the head was looked at.
pub(crate) struct Call {
    peer: Peer,
    source: IpAddr,
    headers: HeaderMap,
    body: Body,
}

impl FromRequest<Arc<Api>> for Call {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<Peer>>() else {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "the connection does not say who is calling",
            ));
        };
        let source = peer.source(&parts.headers);
        match peer {
            Peer::Console(uid) => drop(api.access.console(*uid)?),
            Peer::Network(_) => api.access.not_guessing(source)?,
        }
        Ok(Self {
            peer: *peer,
            source,
            headers: parts.headers,
            body,
        })
    }
}

/// What remains of a call once its body is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    peer: Peer,
    pub(crate) source: IpAddr,
}

impl Call {
    pub(crate) async fn take(self, api: &Api, largest: usize) -> Result<(Caller, Taken), Refusal> {
        let taken = body::take(&api.places, &self.headers, self.body, largest).await?;
        let caller = Caller {
            peer: self.peer,
            source: self.source,
        };
        Ok((caller, taken))
    }
}

impl Caller {
    /// The console needs no key; a key that it sends is not looked at.
    pub(crate) async fn actor(
        self,
        api: &Api,
        envelope: &Envelope<'_>,
        need: Need,
    ) -> Result<Actor, Refusal> {
        match self.peer {
            Peer::Console(uid) => api.access.console(uid),
            Peer::Network(_) => {
                let key: Option<String> = envelope.read("key", "a key is a text")?;
                api.access.key(self.source, key.as_deref(), need).await
            }
        }
    }

    pub(crate) fn is_console(self) -> bool {
        matches!(self.peer, Peer::Console(_))
    }
}
