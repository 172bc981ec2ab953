//! A revision as a file: written whole or not at all, and read only if it is what was written.
//!
//! ```text
//! {"format":1,"number":7,"created":1764000000,"digest":"<64 hex>","content":{…}}
//! ```
//!
//! `content` has one spelling, and the digest is the SHA-256 of exactly those bytes. The policy in it is policy.json,
//! version 2. `access` (agents, rules, quotas) is left out where nothing is said of them, as in files of before there
//! were any: the digest of such a revision is what it was.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use clawgress_config::{
    Cidr,
    access::Access,
    policy::{MAX_POLICY_BYTES, NEWEST_VERSION, Policy},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Card, Logging, Network, Revision};

const FORMAT: u32 = 1;
/// The one that says all that a policy can say.
const POLICY_VERSION: u32 = NEWEST_VERSION;
/// A policy of a million domains takes a fifth of it.
const LARGEST: u64 = 256 * 1024 * 1024;

/// What went wrong with the file of a revision.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    #[error("{doing} {path}: {error}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("reading the revision {path}: {what}; restore it from a backup, or commit again", path = path.display())]
    Content { path: PathBuf, what: String },
    #[error("writing the revision {path}: {what}", path = path.display())]
    Unwritable { path: PathBuf, what: String },
}

/// The whole file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'f> {
    format: u32,
    number: u64,
    created: i64,
    digest: String,
    #[serde(borrow)]
    content: &'f RawValue,
}

/// What the digest is over. The order of the fields is part of the format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    enabled: bool,
    time_zone: String,
    trust_hardware_clock: bool,
    name_servers: Vec<IpAddr>,
    network: Wires,
    logging: Log,
    policy: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<Box<RawValue>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wires {
    wan: Vec<Wire>,
    lan: Vec<Wire>,
    management: Vec<Wire>,
    ssh: Option<Ssh>,
    listen_addresses: Vec<IpAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    name: String,
    addresses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ssh {
    port: u16,
    networks: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    facility: String,
    deny_log: bool,
}

impl Revision {
    /// Reads a revision from its file.
    pub fn read(path: &Path) -> Result<Self, RevisionError> {
        let content = |what: String| RevisionError::Content {
            path: path.to_owned(),
            what,
        };
        let bytes = read_bounded(path).map_err(failed("reading the revision", path))?;
        let bytes = bytes.ok_or_else(|| content(format!("it has more than {LARGEST} bytes")))?;
        Self::from_bytes(&bytes).map_err(content)
    }

    /// Writes the file whole, or leaves what was there. When this returns, it has reached the disk. The directory must
    /// exist; one writer at a time.
    pub fn write(&self, path: &Path) -> Result<(), RevisionError> {
        let bytes = self.to_bytes().map_err(|what| RevisionError::Unwritable {
            path: path.to_owned(),
            what,
        })?;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(RevisionError::Unwritable {
                path: path.to_owned(),
                what: "it is not the path of a file".to_owned(),
            });
        };
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        let mut aside = std::ffi::OsString::from(".");
        aside.push(name);
        aside.push(".new");
        let aside = directory.join(aside);
        let written = write_synced(&aside, &bytes)
            .map_err(failed("writing", &aside))
            .and_then(|()| fs::rename(&aside, path).map_err(failed("putting in place", path)));
        if let Err(error) = written {
            // What is left aside is never read, so failing to remove it harms nothing.
            fs::remove_file(&aside).ok();
            return Err(error);
        }
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("syncing the directory", directory))
    }

    /// SHA-256 of everything but number and time of creation, in hexadecimal: equal for equal content.
    pub fn content_digest(&self) -> Result<String, ContentError> {
        Ok(digest(&self.content().map_err(ContentError)?))
    }

    fn to_bytes(&self) -> Result<Vec<u8>, String> {
        if self.number == 0 {
            return Err("its number is 0; numbers begin at 1".to_owned());
        }
        let content = self.content()?;
        let envelope = Envelope {
            format: FORMAT,
            number: self.number,
            created: self.created,
            digest: digest(&content),
            content: serde_json::from_str(&content).map_err(|error| error.to_string())?,
        };
        let mut bytes = serde_json::to_vec(&envelope).map_err(|error| error.to_string())?;
        bytes.push(b'\n');
        if bytes.len() as u64 > LARGEST {
            return Err(format!(
                "it would have {} bytes, and at most {LARGEST} are read; shorten the policy",
                bytes.len()
            ));
        }
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let envelope: Envelope =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if envelope.format != FORMAT {
            return Err(format!(
                "its format is {}, and this version reads format {FORMAT}",
                envelope.format
            ));
        }
        if envelope.number == 0 {
            return Err("its number is 0".to_owned());
        }
        if digest(envelope.content.get()) != envelope.digest {
            return Err("its digest is not that of its content: the file is damaged".to_owned());
        }
        let content: Content = serde_json::from_str(envelope.content.get())
            .map_err(|error| format!("content: {error}"))?;
        Ok(Self {
            number: envelope.number,
            created: envelope.created,
            enabled: content.enabled,
            policy: policy(content.policy.get())?,
            network: content.network.try_into()?,
            time_zone: content.time_zone,
            trust_hardware_clock: content.trust_hardware_clock,
            logging: Logging {
                facility: content.logging.facility,
                deny_log: content.logging.deny_log,
            },
            name_servers: content.name_servers,
            access: match content.access {
                None => Access::default(),
                Some(access) => {
                    Access::from_json(access.get()).map_err(|error| format!("access: {error}"))?
                }
            },
        })
    }

    fn content(&self) -> Result<String, String> {
        let policy = self
            .policy
            .to_json(POLICY_VERSION)
            .map_err(|problem| format!("policy: {problem}"))?;
        // What could never be read again must not be written.
        if policy.len() > MAX_POLICY_BYTES {
            return Err(format!(
                "its policy would have {} bytes, and at most {MAX_POLICY_BYTES} are read; shorten it",
                policy.len()
            ));
        }
        let policy = RawValue::from_string(policy).map_err(|error| format!("policy: {error}"))?;
        let access = (self.access != Access::default())
            .then(|| serde_json::value::to_raw_value(&self.access))
            .transpose()
            .map_err(|error| format!("access: {error}"))?;
        let content = Content {
            enabled: self.enabled,
            time_zone: self.time_zone.clone(),
            trust_hardware_clock: self.trust_hardware_clock,
            name_servers: self.name_servers.clone(),
            network: (&self.network).into(),
            logging: Log {
                facility: self.logging.facility.clone(),
                deny_log: self.logging.deny_log,
            },
            policy,
            access,
        };
        serde_json::to_string(&content).map_err(|error| error.to_string())
    }
}

/// Two contents could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("taking the digest of a revision: {0}")]
pub struct ContentError(String);

fn failed<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> RevisionError + 'p {
    move |error| RevisionError::Io {
        doing,
        path: path.to_owned(),
        error,
    }
}

/// None: it is longer than any revision.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(LARGEST)).unwrap_or(0));
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= LARGEST).then_some(bytes))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn digest(content: &str) -> String {
    Sha256::digest(content.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |text, byte| {
            text + &format!("{byte:02x}")
        })
}

fn policy(text: &str) -> Result<Policy, String> {
    Policy::from_json(text.as_bytes()).map_err(|problems| match problems.first() {
        Some(first) if problems.len() == 1 => format!("policy: {first}"),
        Some(first) => format!("policy: {first} (and {} more)", problems.len() - 1),
        None => "policy: refused without a word".to_owned(),
    })
}

fn cidr(text: &str) -> Result<Cidr, String> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        (length <= width).then_some(Cidr { address, length })
    });
    parsed.ok_or_else(|| format!("network: `{text}` is not an address with a prefix length"))
}

fn cidrs(texts: &[String]) -> Result<Vec<Cidr>, String> {
    texts.iter().map(|text| cidr(text)).collect()
}

fn texts(cidrs: &[Cidr]) -> Vec<String> {
    cidrs.iter().map(Cidr::to_string).collect()
}

impl From<&Card> for Wire {
    fn from(card: &Card) -> Self {
        Self {
            name: card.name.clone(),
            addresses: texts(&card.addresses),
        }
    }
}

impl TryFrom<Wire> for Card {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        Ok(Self {
            addresses: cidrs(&wire.addresses)?,
            name: wire.name,
        })
    }
}

impl From<&Network> for Wires {
    fn from(network: &Network) -> Self {
        let wires = |cards: &[Card]| cards.iter().map(Wire::from).collect();
        Self {
            wan: wires(&network.wan),
            lan: wires(&network.lan),
            management: wires(&network.management),
            ssh: network.ssh.as_ref().map(|(port, networks)| Ssh {
                port: *port,
                networks: texts(networks),
            }),
            listen_addresses: network.listen_addresses.clone(),
        }
    }
}

impl TryFrom<Wires> for Network {
    type Error = String;

    fn try_from(wires: Wires) -> Result<Self, String> {
        let cards = |wires: Vec<Wire>| -> Result<Vec<Card>, String> {
            wires.into_iter().map(Card::try_from).collect()
        };
        Ok(Self {
            wan: cards(wires.wan)?,
            lan: cards(wires.lan)?,
            management: cards(wires.management)?,
            ssh: match wires.ssh {
                Some(ssh) => Some((ssh.port, cidrs(&ssh.networks)?)),
                None => None,
            },
            listen_addresses: wires.listen_addresses,
        })
    }
}
