//! What haproxy says of each flow: one line, one datagram. The format that it is given and the parser of it are both
//! here, so that they can't differ.
//!
//! ```text
//! v1 event=close path=sni who=agent-1 src=192.168.10.10 sport=40112 asked=192.0.2.7 aport=443 name=api.example.com
//! reason=- site=198.51.100.4 in=812 out=40960 ms=5210 end=-- status=0 id=-
//! ```
//!
//! on one line, fields in this order and all of them there; `-` where nothing is known. `open` is said when a flow was
//! let through, `close` when it ended, `deny` when it was cut instead. On a connection that carries several requests,
//! every request is a flow. Nothing that an agent wrote is in a line but a name that has been found to be one; the parser
//! believes none of it all the same.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clawgress_policy::Reason;

use crate::front::Places;

/// No line is longer; haproxy cuts it there.
pub const LONGEST_LINE: usize = 1024;

/// Ports to which the kernel redirects flows for the front: names in hellos, names in Host headers.
pub(super) const LISTENS: [u16; 2] = [10_443, 10_080];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// A TLS hello's name, port 443.
    Sni,
    /// A Host header, port 80.
    Host,
}

impl Path {
    /// That the agent dialled.
    pub fn port(self) -> u16 {
        match self {
            Self::Sni => 443,
            Self::Host => 80,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Open,
    Close(Traffic),
    Deny(Reason),
}

/// What a flow carried, as the agent's side saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// From the agent.
    pub sent: u64,
    /// To the agent.
    pub received: u64,
    pub lasted: Duration,
    /// HTTP status; 0 if there was none.
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub path: Path,
    pub what: What,
    /// The principal's name; None: the source is nobody's.
    pub who: Option<String>,
    pub source: SocketAddr,
    /// What the agent dialled, where the kernel tells (IPv4 only). It decided nothing.
    pub asked: Option<SocketAddr>,
    /// Canonical; None if the flow named nothing that can be a name.
    pub name: Option<String>,
    /// What the name led to.
    pub site: Option<IpAddr>,
    /// As the agent was told it in a denial over HTTP.
    pub request_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "reading a line of the front: {what} in `{line}`; the front and the enforcer are of different versions, or somebody else writes to the socket"
)]
pub struct Malformed {
    what: &'static str,
    /// Its beginning, escaped.
    line: String,
}

impl Path {
    pub fn word(self) -> &'static str {
        match self {
            Self::Sni => "sni",
            Self::Host => "host",
        }
    }

    /// Why a flow was cut on which no rule ever came to a verdict: what was sent was not even the protocol.
    fn unread(self) -> Reason {
        match self {
            Self::Sni => Reason::NotTls,
            Self::Host => Reason::NotHttp,
        }
    }
}

/// The fields that are known as soon as there is a verdict.
fn head(path: Path, event: &str, reason: &str) -> String {
    format!(
        "v1 event={event} path={} who=%[var(sess.who,-),field(1,|)] src=%[src] sport=%[src_port] \
         asked=%[var(sess.asked,-)] aport=%[var(sess.aport,-)] name=%[var(txn.name,-)] reason={reason} \
         site=%[var(txn.site,-)]",
        path.word()
    )
}

/// haproxy's format of the line at the end of a flow.
pub(super) fn end_format(path: Path) -> String {
    let (took, status, id) = match path {
        Path::Sni => ("%Tt", "0", "-"),
        Path::Host => ("%Ta", "%ST", "%[var(txn.id,-)]"),
    };
    let head = head(path, "%[var(txn.event,-)]", "%[var(txn.reason,-)]");
    format!("{head} in=%U out=%B ms={took} end=%ts status={status} id={id}")
}

/// haproxy's format of the line at the beginning.
pub(super) fn open_format(path: Path) -> String {
    let id = match path {
        Path::Sni => "-",
        Path::Host => "%[var(txn.id,-)]",
    };
    let head = head(path, "open", "-");
    format!("{head} in=0 out=0 ms=0 end=-- status=0 id={id}")
}

/// The line of a section that says where its lines go.
pub(super) fn target(places: &Places) -> String {
    format!(
        "\tlog {} len {LONGEST_LINE} format raw local0 info\n",
        places.log
    )
}

/// Letters, digits and `-_./` as they are, everything else as %XX: safe in maps, in commands and on a line.
pub(super) fn encoded(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-_./".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        out.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(out).ok()
}

impl Event {
    /// Reads one datagram.
    pub fn read(datagram: &[u8]) -> Result<Self, Malformed> {
        let wrong = |what| Malformed {
            what,
            line: datagram
                .get(..200)
                .unwrap_or(datagram)
                .escape_ascii()
                .to_string(),
        };
        if datagram.len() > LONGEST_LINE {
            return Err(wrong("too many bytes"));
        }
        let text = std::str::from_utf8(datagram).map_err(|_| wrong("bytes that are no text"))?;
        let line = text.trim_end_matches(['\n', '\0']);
        read(line).map_err(wrong)
    }
}

/// Takes the fields in their order.
struct Fields<'l>(std::str::Split<'l, char>);

impl<'l> Fields<'l> {
    fn next(&mut self, key: &'static str) -> Result<&'l str, &'static str> {
        let field = self
            .0
            .next()
            .and_then(|field| field.strip_prefix(key)?.strip_prefix('='));
        field.filter(|value| !value.is_empty()).ok_or(key)
    }

    fn parsed<T: std::str::FromStr>(&mut self, key: &'static str) -> Result<T, &'static str> {
        self.next(key)?.parse().map_err(|_| key)
    }

    /// As `parsed`, where `-` means that nothing is known.
    fn known<T: std::str::FromStr>(
        &mut self,
        key: &'static str,
    ) -> Result<Option<T>, &'static str> {
        match self.next(key)? {
            "-" => Ok(None),
            value => value.parse().map(Some).map_err(|_| key),
        }
    }
}

fn read(line: &str) -> Result<Event, &'static str> {
    let mut fields = Fields(line.split(' '));
    if fields.0.next() != Some("v1") {
        return Err("no known version");
    }
    let event = fields.next("event")?;
    let path = match fields.next("path")? {
        "sni" => Path::Sni,
        "host" => Path::Host,
        _ => return Err("path"),
    };
    let who = match fields.next("who")? {
        "-" => None,
        who => Some(decoded(who).ok_or("who")?),
    };
    let source = SocketAddr::new(fields.parsed("src")?, fields.parsed("sport")?);
    let asked = (
        fields.known::<IpAddr>("asked")?,
        fields.known::<u16>("aport")?,
    );
    let name = fields.known::<String>("name")?;
    if name.as_deref().is_some_and(|name| !is_name(name)) {
        return Err("name");
    }
    let reason = match fields.next("reason")? {
        "-" => None,
        word => Some(Reason::of_word(word).ok_or("reason")?),
    };
    let site = fields.known("site")?;
    let sent = fields.parsed("in")?;
    let received = fields.parsed("out")?;
    // -1 where haproxy gave up before it could tell.
    let lasted = fields.parsed::<i64>("ms")?;
    fields.next("end")?;
    let status = fields.parsed::<i16>("status")?;
    let request_id = fields.known::<String>("id")?;
    if request_id
        .as_deref()
        .is_some_and(|id| id.len() > 64 || !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))
    {
        return Err("id");
    }
    if fields.0.next().is_some() {
        return Err("more fields than known");
    }
    let what = match event {
        "open" => What::Open,
        "close" => What::Close(Traffic {
            sent,
            received,
            lasted: Duration::from_millis(u64::try_from(lasted).unwrap_or(0)),
            status: u16::try_from(status).unwrap_or(0),
        }),
        "deny" | "-" => What::Deny(reason.unwrap_or_else(|| path.unread())),
        _ => return Err("event"),
    };
    Ok(Event {
        path,
        what,
        who,
        source,
        // What the front itself listens on is nobody's wish: then the kernel did not tell.
        asked: asked
            .0
            .zip(asked.1.filter(|port| !LISTENS.contains(port)))
            .map(SocketAddr::from),
        name,
        site,
        request_id,
    })
}

/// What hello.lua lets pass as a name.
fn is_name(text: &str) -> bool {
    let sound =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    text.len() <= 253 && text.bytes().all(sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSE: &str = "v1 event=close path=sni who=lan/eth1 src=192.168.10.10 sport=40112 asked=192.0.2.7 aport=443 \
                         name=api.example.com reason=- site=198.51.100.4 in=812 out=40960 ms=5210 end=-- status=0 id=-";

    #[test]
    fn a_line_says_what_became_of_a_flow() {
        let event = Event::read(format!("{CLOSE}\n").as_bytes()).unwrap();
        assert_eq!(event.who.as_deref(), Some("lan/eth1"));
        assert_eq!(event.source, "192.168.10.10:40112".parse().unwrap());
        assert_eq!(event.asked, "192.0.2.7:443".parse().ok());
        assert_eq!(event.name.as_deref(), Some("api.example.com"));
        let What::Close(traffic) = event.what else {
            panic!("{event:?}")
        };
        assert_eq!((traffic.sent, traffic.received), (812, 40_960));
        assert_eq!(traffic.lasted, Duration::from_millis(5210));
    }

    #[test]
    fn a_flow_without_a_verdict_was_not_the_protocol() {
        let line = CLOSE
            .replace("event=close", "event=-")
            .replace("name=api.example.com", "name=-");
        assert_eq!(
            Event::read(line.as_bytes()).unwrap().what,
            What::Deny(Reason::NotTls)
        );
        let line = line
            .replace("path=sni", "path=host")
            .replace("ms=5210", "ms=-1");
        assert_eq!(
            Event::read(line.as_bytes()).unwrap().what,
            What::Deny(Reason::NotHttp)
        );
        let line = line
            .replace("event=-", "event=deny")
            .replace("reason=-", "reason=ech");
        assert_eq!(
            Event::read(line.as_bytes()).unwrap().what,
            What::Deny(Reason::Ech)
        );
    }

    #[test]
    fn any_other_line_is_refused() {
        let wrong = [
            ("v1 ", "v2 "),
            ("event=close", "event=pass"),
            ("sport=40112", "sport=70000"),
            ("sport=40112 ", ""),
            ("name=api.example.com", "name=API.example.com"),
            ("name=api.example.com", "name=a=b"),
            ("reason=-", "reason=fun"),
            ("in=812", "in=-1"),
            ("id=-", "id=- x=1"),
            ("id=-", "id="),
            ("who=lan/eth1", "who=%f"),
            ("who=lan/eth1", "who=%ff"),
        ];
        for (from, to) in wrong {
            let line = CLOSE.replacen(from, to, 1);
            assert_ne!(line, CLOSE);
            assert!(Event::read(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Event::read(&[b'a'; LONGEST_LINE + 1]).is_err());
        assert!(Event::read(b"").is_err() && Event::read(b"\xff").is_err());
    }

    #[test]
    fn text_of_people_leads_back() {
        for text in ["agent-1", "lan/eth1", "a b|c;%", "für alle", "\n\"\\"] {
            assert_eq!(decoded(&encoded(text)).as_deref(), Some(text));
        }
        assert_eq!(encoded("lan/eth1.2"), "lan/eth1.2");
    }
}
