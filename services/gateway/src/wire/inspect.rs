//! Watches the beginning of a tunnel until it is certain which server is meant: every hello must name the tunnel's host.
//!
//! Bytes that were not judged yet are held by the caller and never sent. A hello may lie over records and segments as it
//! likes; after a server's HelloRetryRequest there is a second one, and it is judged as well. When both sides are past
//! their hellos nothing is looked at any more. Pure.

use clawgress_policy::Reason;

use super::hello::server_name;
use super::target::Host;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// By the standard, 2^14 and some; less than nothing is needed above it.
const LONGEST_RECORD: usize = 16_384 + 2_048;
/// The largest hellos today (keys against quantum computers, tickets) have four kilobytes.
const LONGEST_HELLO: usize = 32 * 1024;
/// Records before the server's word without anything to judge: early data, which servers bound as well.
const MOST_EARLY: u64 = 1 << 20;

/// SHA-256 of `HelloRetryRequest`: such a random makes a ServerHello one.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
/// Message header, version, random.
const ENOUGH_OF_SERVER: usize = MESSAGE_HEADER + 2 + 32;

#[derive(Debug)]
pub struct Inspection {
    /// Bytes of the client that may not be sent yet, or are needed to judge what comes.
    hello: Vec<u8>,
    records: Records,
    /// The last bytes of the client that may not be sent yet.
    withheld: usize,
    server: Vec<u8>,
    of_server: Records,
    server_done: bool,
    hellos: u8,
    /// How many there have to be.
    wanted: u8,
    early: u64,
}

/// Where in the client's stream of records we are.
#[derive(Debug, Default)]
struct Records {
    header: Vec<u8>,
    kind: u8,
    left: usize,
}

impl Default for Inspection {
    fn default() -> Self {
        Self {
            hello: Vec::new(),
            records: Records::default(),
            withheld: 0,
            server: Vec::new(),
            of_server: Records::default(),
            server_done: false,
            hellos: 0,
            wanted: 1,
            early: 0,
        }
    }
}

impl Inspection {
    /// Whether these first bytes begin a TLS record; None while there are none.
    pub fn is_tls(bytes: &[u8]) -> Option<bool> {
        bytes.first().map(|kind| *kind == HANDSHAKE)
    }

    /// True if nothing is left to judge.
    pub fn is_over(&self) -> bool {
        self.server_done && self.hellos >= self.wanted
    }

    /// True if a first hello has been judged good: only then may the server be heard.
    pub fn is_begun(&self) -> bool {
        self.hellos > 0
    }

    /// Judges the client's next bytes. So many of the last ones that came may not be sent before more has come.
    pub fn of_client(&mut self, mut bytes: &[u8], host: &Host) -> Result<usize, Reason> {
        while !bytes.is_empty() && !self.is_over() {
            if self.records.left == 0 {
                let missing = RECORD_HEADER.saturating_sub(self.records.header.len());
                let (header, rest) = split(bytes, missing);
                self.records.header.extend_from_slice(header);
                bytes = rest;
                self.withheld += header.len();
                self.begin_record()?;
                continue;
            }
            let (content, rest) = split(bytes, self.records.left);
            bytes = rest;
            self.records.left -= content.len();
            if self.records.kind == HANDSHAKE {
                self.withheld += content.len();
                self.of_handshake(content, host)?;
            } else {
                self.early += content.len() as u64;
                if self.early > MOST_EARLY {
                    return Err(Reason::MalformedHello);
                }
            }
        }
        Ok(if self.is_over() { 0 } else { self.withheld })
    }

    fn is_untouched(&self) -> bool {
        self.hellos == 0 && self.hello.is_empty()
    }

    fn begin_record(&mut self) -> Result<(), Reason> {
        let [kind, major, _, high, low] = *self.records.header.as_slice() else {
            // The first byte says it already: no TLS is no reason to wait for more.
            return match self.records.header.first() {
                Some(kind) if self.is_untouched() && *kind != HANDSHAKE => Err(Reason::NotTls),
                _ => Ok(()),
            };
        };
        self.records.header.clear();
        let length = usize::from(high) << 8 | usize::from(low);
        let first = self.is_untouched();
        if major != 3 || first && kind != HANDSHAKE {
            return Err(if first {
                Reason::NotTls
            } else {
                Reason::MalformedHello
            });
        }
        let fits = (1..=LONGEST_RECORD).contains(&length);
        // A message that has begun goes on in the next record, with nothing between.
        let interrupted = !self.hello.is_empty() && kind != HANDSHAKE;
        let known = matches!(
            kind,
            HANDSHAKE | CHANGE_CIPHER_SPEC | ALERT | APPLICATION_DATA
        );
        if !fits || interrupted || !known {
            return Err(Reason::MalformedHello);
        }
        self.records.kind = kind;
        self.records.left = length;
        if kind != HANDSHAKE {
            self.withheld = 0;
        }
        Ok(())
    }

    fn of_handshake(&mut self, content: &[u8], host: &Host) -> Result<(), Reason> {
        self.hello.extend_from_slice(content);
        let Some((header, body)) = self.hello.split_first_chunk::<MESSAGE_HEADER>() else {
            return Ok(());
        };
        let [kind, high, middle, low] = *header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind != CLIENT_HELLO || length > LONGEST_HELLO {
            return Err(Reason::MalformedHello);
        }
        if body.len() < length {
            return Ok(());
        }
        // Nothing may follow a hello in its record: it waits for an answer.
        if body.len() > length || self.records.left > 0 {
            return Err(Reason::MalformedHello);
        }
        let named = server_name(body)?;
        match (Host::parse(named), host) {
            (Ok(named), host) if named == *host => {}
            (Ok(_), _) => return Err(Reason::SniMismatch),
            (Err(_), _) => return Err(Reason::MalformedHello),
        }
        self.hello = Vec::new();
        self.withheld = 0;
        self.hellos = self.hellos.saturating_add(1);
        Ok(())
    }

    /// Looks at the server's next bytes; they may be sent whatever they are. Warnings before its hello are passed over:
    /// the hello that follows one counts like any other.
    pub fn of_server(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.server_done {
            let records = &mut self.of_server;
            if records.left == 0 {
                let missing = RECORD_HEADER.saturating_sub(records.header.len());
                let (header, rest) = split(bytes, missing);
                records.header.extend_from_slice(header);
                bytes = rest;
                let kind = records.header.first();
                self.server_done = kind.is_some_and(|kind| !matches!(*kind, HANDSHAKE | ALERT));
                if let [kind, _, _, high, low] = *records.header.as_slice() {
                    records.header.clear();
                    records.kind = kind;
                    records.left = usize::from(high) << 8 | usize::from(low);
                }
                continue;
            }
            let (content, rest) = split(bytes, records.left);
            bytes = rest;
            records.left -= content.len();
            if records.kind == HANDSHAKE {
                let (some, _) = split(content, ENOUGH_OF_SERVER - self.server.len());
                self.server.extend_from_slice(some);
                self.judge_server();
            }
        }
    }

    fn judge_server(&mut self) {
        if self.server.first() != Some(&SERVER_HELLO) {
            self.server_done = true;
        } else if self.server.len() == ENOUGH_OF_SERVER {
            if self.server.ends_with(&RETRY) {
                self.wanted = 2;
            }
            self.server_done = true;
        }
        if self.server_done {
            self.server = Vec::new();
        }
    }
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(at).unwrap_or((bytes, &[]))
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
