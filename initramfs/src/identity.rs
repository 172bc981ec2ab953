//! Which image this is: the document inside the initramfs and the one on the medium.
//!
//! The initramfs is the trusted side: it carries the hash of every chunk of its squashfs. The
//! medium's manifest only has to claim the same id to be looked at; its hashes are never believed.
//! Both documents may grow fields; readers of this version skip what they do not know.

use std::io::{self, Read};

use blake2::Blake2b256;
use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

/// Bytes hashed as one piece: large enough to read fast, small enough to point at the damage.
pub const CHUNK: u64 = 4 * 1024 * 1024;

/// More would not fit into a small machine's memory, once for each processor.
const LARGEST_CHUNK: u64 = 16 * CHUNK;

/// Where the identity lies inside the initramfs.
pub const IDENTITY_PATH: &str = "/clawgress-image.json";

/// Where the manifest and the root lie on the medium, seen from its top directory.
pub const MANIFEST_ON_MEDIUM: &str = "clawgress/manifest.json";
pub const SQUASHFS_ON_MEDIUM: &str = "clawgress/root.squashfs";

/// The identity that the initramfs carries (`/clawgress-image.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    pub version: String,
    /// SHA-256 of the whole squashfs, in lowercase hex.
    pub image_id: String,
    pub squashfs: SquashfsIdentity,
}

/// Size and chunk hashes of the one squashfs this initramfs boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SquashfsIdentity {
    pub size: u64,
    pub chunk: u64,
    /// [`chunk_digest`] of each chunk in order; the last chunk may be short.
    pub chunks: Vec<String>,
}

impl ImageIdentity {
    /// Reads a squashfs to its end and describes it.
    pub fn from_reader(version: &str, mut squashfs: impl Read) -> io::Result<Self> {
        let mut whole = Sha256::new();
        let mut size = 0_u64;
        let mut chunks = Vec::new();
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let read = squashfs.by_ref().take(CHUNK).read_to_end(&mut buffer)?;
            if read == 0 {
                break;
            }
            size = size.saturating_add(read as u64);
            whole.update(&buffer);
            chunks.push(chunk_digest(&buffer));
        }
        Ok(Self {
            version: version.to_owned(),
            image_id: hex(&whole.finalize()),
            squashfs: SquashfsIdentity {
                size,
                chunk: CHUNK,
                chunks,
            },
        })
    }

    /// As [`Self::from_reader`], for a squashfs in memory.
    pub fn from_bytes(version: &str, squashfs: &[u8]) -> io::Result<Self> {
        Self::from_reader(version, squashfs)
    }

    /// What makes this document unusable, if anything does: a chunk list that does not cover the
    /// size would otherwise leave the tail of the image unchecked.
    pub fn defect(&self) -> Option<String> {
        let squashfs = &self.squashfs;
        let Some(needed) = squashfs
            .size
            .checked_add(squashfs.chunk.saturating_sub(1))
            .and_then(|sum| sum.checked_div(squashfs.chunk))
        else {
            return Some("its chunk size is 0".to_owned());
        };
        if squashfs.chunk > LARGEST_CHUNK {
            return Some(format!(
                "its chunks of {} bytes are larger than {LARGEST_CHUNK}",
                squashfs.chunk
            ));
        }
        if squashfs.size == 0 {
            return Some("its squashfs is empty".to_owned());
        }
        if needed != squashfs.chunks.len() as u64 {
            return Some(format!(
                "it lists {} chunks of {} bytes for a squashfs of {} bytes, which needs {needed}",
                squashfs.chunks.len(),
                squashfs.chunk,
                squashfs.size
            ));
        }
        None
    }
}

/// The part of the medium's manifest that finding the medium needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub base: String,
    #[serde(default)]
    pub flavour: String,
    pub image_id: String,
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
}

/// One file of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    pub name: String,
    pub size: u64,
    pub sha256: String,
}

/// What is held against each chunk at every boot: BLAKE2b-256 in lowercase hex. As strong as SHA-256, and on 64-bit
/// processors without instructions for hashing it needs less than half the time.
pub fn chunk_digest(bytes: &[u8]) -> String {
    hex(&Blake2b256::digest(bytes))
}

/// SHA-256 of `bytes` in lowercase hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('?'));
        }
    }
    text
}

/// The first characters of an id, enough for a person to compare.
pub fn short_id(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_a_squashfs_chunk_by_chunk() {
        let bytes = vec![7_u8; CHUNK as usize + 5];
        let identity = ImageIdentity::from_bytes("0.1.0", &bytes).unwrap();
        assert_eq!(identity.image_id, sha256_hex(&bytes));
        assert_eq!(identity.squashfs.size, CHUNK + 5);
        assert_eq!(
            identity.squashfs.chunks,
            [
                chunk_digest(&bytes[..CHUNK as usize]),
                chunk_digest(&[7; 5])
            ]
        );
        assert_eq!(identity.defect(), None);
    }

    #[test]
    fn a_known_hash() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_chunk_list_that_does_not_cover_the_image_is_a_defect() {
        let mut identity = ImageIdentity::from_bytes("0.1.0", &[1; 10]).unwrap();
        identity.squashfs.size = CHUNK + 1;
        assert!(identity.defect().unwrap().contains("needs 2"));
        identity.squashfs.chunk = u64::MAX;
        assert!(identity.defect().is_some());
        identity.squashfs.chunk = 0;
        assert!(identity.defect().unwrap().contains("chunk size is 0"));
        identity.squashfs = SquashfsIdentity {
            size: 0,
            chunk: CHUNK,
            chunks: Vec::new(),
        };
        assert!(identity.defect().unwrap().contains("empty"));
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let manifest: Manifest = serde_json::from_str(
            r#"{"name":"clawgress","version":"1","image_id":"ab","later":[1],
                "artifacts":[{"name":"root.squashfs","size":3,"sha256":"cd","more":true}]}"#,
        )
        .unwrap();
        assert_eq!(manifest.artifacts[0].size, 3);
        let text = r#"{"version":"1","image_id":"ab","x":{},
            "squashfs":{"size":1,"chunk":2,"chunks":["q"],"y":0}}"#;
        let identity: ImageIdentity = serde_json::from_str(text).unwrap();
        assert_eq!(identity.squashfs.chunks, ["q"]);
    }
}
