//! RFC 5424 messages over TLS, framed as in RFC 5425. That protocol has no acknowledgement, so a batch is a
//! conversation: it is ended in due form, and the server that has read all of it ends its side. A server that stopped
//! before resets the connection, and the batch goes again.

use std::io::Write;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ForwardError;
use super::address::Reach;
use crate::event::{Decision, Event, Source};
use crate::store::Line;

/// "log audit" of RFC 5424.
const FACILITY: u8 = 13;

pub struct Syslog(pub Reach);

impl Syslog {
    pub(super) async fn deliver(&self, lines: &[Line]) -> Result<(), ForwardError> {
        let mut stream = self.0.connect().await?;
        let mut text = Vec::new();
        for line in lines {
            frame(&line.json, &mut text);
        }
        stream
            .write_all(&text)
            .await
            .map_err(|error| self.0.failed(error))?;
        stream
            .shutdown()
            .await
            .map_err(|error| self.0.failed(error))?;
        let mut rest = [0; 256];
        loop {
            match stream.read(&mut rest).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // It has read all and hung up, without the form.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(self.0.failed(error)),
            }
        }
    }
}

pub(super) fn frame(json: &str, text: &mut Vec<u8>) {
    // What can't be read is sent as it is.
    let event = Event::parse(json.as_bytes()).unwrap_or_default();
    let severity = match event.outcome.decision {
        _ if event.begun.alert => 4,
        Decision::Allow => 6,
        Decision::Deny | Decision::Notice => 5,
    };
    let source = match event.begun.source {
        Source::Proxy => "proxy",
        Source::Dns => "dns",
        Source::Nft => "nft",
        Source::Sni => "sni",
        Source::Admin => "admin",
        Source::Audit => "audit",
    };
    let gateway = match event.origin.gateway.as_str() {
        "" => "-",
        name => name,
    };
    // 32473 is the enterprise number that is reserved for examples; nobody else's names can be meant by it.
    let message = format!(
        "<{}>1 {} {gateway} clawgress - {source} [origin@32473 queue=\"{}\" sequence=\"{}\"] {json}",
        FACILITY * 8 + severity,
        event.begun.timestamp,
        event.origin.queue,
        event.origin.sequence
    );
    // Writing to memory does not fail.
    let _ = write!(text, "{} {message}", message.len());
}
