//! Reads a TLS ClientHello: which server it names. Pure, and whole or not at all: every length must agree with what
//! encloses it, for two readers that differ about one differ about the name.

use clawgress_policy::Reason;

const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// The drafts before it.
const ENCRYPTED_SERVER_NAME: u16 = 0xffce;
const LONGEST_NAME: usize = 255;

/// A reader of the bytes of one vector.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], Reason> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Reason::MalformedHello)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, Reason> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector whose length is written in so many bytes.
    fn vector(&mut self, bytes: usize) -> Result<Bytes<'b>, Reason> {
        let length = self.number(bytes)?;
        self.take(length).map(Bytes)
    }

    fn end(&self) -> Result<(), Reason> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Reason::MalformedHello)
        }
    }
}

/// The server's name in the body of a ClientHello (what follows the handshake's type and length), as it is written.
pub fn server_name(body: &[u8]) -> Result<&str, Reason> {
    let mut hello = Bytes(body);
    hello.take(2 + 32)?;
    let session = hello.vector(1)?;
    let suites = hello.vector(2)?;
    let compressions = hello.vector(1)?;
    if session.0.len() > 32
        || suites.0.is_empty()
        || !suites.0.len().is_multiple_of(2)
        || compressions.0.is_empty()
    {
        return Err(Reason::MalformedHello);
    }
    if hello.0.is_empty() {
        return Err(Reason::NoSni);
    }
    let mut extensions = hello.vector(2)?;
    hello.end()?;
    let (mut name, mut hidden) = (None, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let extension = extensions.vector(2)?;
        match u16::try_from(kind) {
            // Twice would be two names to two readers.
            Ok(SERVER_NAME) if name.replace(name_of(extension)?).is_some() => {
                return Err(Reason::MalformedHello);
            }
            Ok(ENCRYPTED_CLIENT_HELLO | ENCRYPTED_SERVER_NAME) => hidden = true,
            _ => {}
        }
    }
    // Some hosts would go by what is hidden and not by the name outside.
    if hidden {
        return Err(Reason::Ech);
    }
    name.ok_or(Reason::NoSni)
}

fn name_of(mut extension: Bytes<'_>) -> Result<&str, Reason> {
    let mut list = extension.vector(2)?;
    extension.end()?;
    let kind = list.number(1)?;
    let name = list.vector(2)?;
    list.end()?;
    if kind != 0 || name.0.is_empty() || name.0.len() > LONGEST_NAME || !name.0.is_ascii() {
        return Err(Reason::MalformedHello);
    }
    std::str::from_utf8(name.0).map_err(|_| Reason::MalformedHello)
}

#[cfg(test)]
#[path = "hello_tests.rs"]
pub(crate) mod tests;
