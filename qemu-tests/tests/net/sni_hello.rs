//! Builds TLS hellos byte by byte: honest ones, and all the ways to lie in one.

/// A hello in the making. `record()` puts it on the wire.
#[derive(Clone)]
pub(crate) struct Hello {
    /// Type and body.
    extensions: Vec<(u16, Vec<u8>)>,
    session: Vec<u8>,
}

pub(crate) const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const PADDING: u16 = 21;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// With its length before it, in two bytes.
fn vector(body: &[u8]) -> Vec<u8> {
    [&short(body.len())[..], body].concat()
}

/// One entry of a server_name list.
pub(crate) fn entry(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind][..], &vector(name)].concat()
}

impl Hello {
    /// What a usual client says, without a name.
    pub(crate) fn nameless() -> Self {
        let key_share = [&[0, 0x1d][..], &vector(&[0x42; 32])].concat();
        Self {
            extensions: vec![
                (SUPPORTED_VERSIONS, vec![2, 3, 4]),
                (SUPPORTED_GROUPS, vector(&[0, 0x1d])),
                (SIGNATURE_ALGORITHMS, vector(&[4, 3, 8, 4])),
                (KEY_SHARE, vector(&key_share)),
            ],
            session: vec![7; 32],
        }
    }

    pub(crate) fn to(name: &str) -> Self {
        Self::nameless().with(SERVER_NAME, vector(&entry(0, name.as_bytes())))
    }

    /// With a server_name list of these entries.
    pub(crate) fn listing(entries: &[Vec<u8>]) -> Self {
        Self::nameless().with(SERVER_NAME, vector(&entries.concat()))
    }

    pub(crate) fn with(mut self, kind: u16, body: Vec<u8>) -> Self {
        self.extensions.insert(0, (kind, body));
        self
    }

    /// Values that mean nothing, at both ends.
    pub(crate) fn greased(mut self) -> Self {
        self.extensions.insert(0, (0x0a0a, Vec::new()));
        self.extensions.push((0xfafa, vec![0]));
        self
    }

    /// With a key share of X25519MLKEM768 besides the small one.
    pub(crate) fn post_quantum(mut self) -> Self {
        let shares = [
            &[0x11, 0xec][..],
            &vector(&[0x99; 1216]),
            &[0, 0x1d],
            &vector(&[0x42; 32]),
        ]
        .concat();
        self.extensions.retain(|(kind, _)| *kind != KEY_SHARE);
        self.extensions.push((KEY_SHARE, vector(&shares)));
        self
    }

    /// With a group offered besides, for which there is no key share: a site that wants it has to ask again.
    pub(crate) fn also_p256(mut self) -> Self {
        self.extensions
            .retain(|(kind, _)| *kind != SUPPORTED_GROUPS);
        self.with(SUPPORTED_GROUPS, vector(&[0, 0x1d, 0, 0x17]))
    }

    /// Padded so that its record has this many bytes.
    pub(crate) fn padded_to(mut self, length: usize) -> Self {
        let missing = length.saturating_sub(self.record().len() + 4);
        self.extensions.push((PADDING, vec![0; missing]));
        self
    }

    pub(crate) fn hiding_another(self) -> Self {
        let body = [
            &[0, 0, 1, 0, 1, 5][..],
            &vector(&[3; 32]),
            &vector(&[5; 120]),
        ]
        .concat();
        self.with(ENCRYPTED_CLIENT_HELLO, body)
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &vector(body)].concat())
            .collect();
        let mut body = vec![3, 3];
        body.extend([0x5a; 32]);
        body.push(u8::try_from(self.session.len()).unwrap_or(0));
        body.extend(&self.session);
        body.extend(vector(&[0x13, 1, 0x13, 2, 0xc0, 0x2f]));
        body.extend([1, 0]);
        body.extend(vector(&extensions));
        let length = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
        [&[1][..], &length[1..], &body].concat()
    }

    /// In one record.
    pub(crate) fn record(&self) -> Vec<u8> {
        record(&self.message())
    }

    /// Split over two records, the second from this byte of the message on.
    pub(crate) fn two_records(&self, at: usize) -> Vec<u8> {
        let message = self.message();
        let (first, second) = message.split_at(at);
        [record(first), record(second)].concat()
    }
}

pub(crate) fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &vector(content)].concat()
}
