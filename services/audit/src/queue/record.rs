//! The queue's file, byte by byte, and how one is read that a crash has cut or a disk has spoiled.
//!
//! ```text
//! file                                       record
//!  0  8  "CGQUEUE1"                           0  2  c1 fe: in no UTF-8 text
//!  8  8  number of the file                   2  1  kind: 1 base, 2 begun, 3 ended, 4 whole
//! 16  8  salt, another in each file           3  1  length of the owner
//! 24 16  queue id, the same in all files      4  4  length of owner and text
//! 40  4  CRC-32C of bytes 0..40               8  8  sequence (base: the next one; begun: 0)
//! 44 20  zero                                16  8  ticket (base: the next one; whole: 0)
//! 64 ..  records, end to end                 24  4  CRC-32C of salt, bytes 0..24 and CRC-32C of owner and text
//!        zero up to the end                  28 ..  owner (whose share it is), then text (JSON)
//! ```
//!
//! All numbers are little-endian. The text of a `begun` is an event whose brace is still open; `ended` and `whole` are
//! whole events. The salt keeps bytes of another file, and bytes that an agent put into a text, from being taken for a
//! record. Reading ends at the first record that is not whole: what lies behind it was never synced.

use crate::checksum::crc32c;
use crate::event::LONGEST;

pub(crate) const FILE_HEADER: usize = 64;
pub(crate) const HEADER: usize = 28;
/// Owner, text and header together.
pub(crate) const LONGEST_RECORD: usize = HEADER + 255 + LONGEST;

const MAGIC: &[u8; 8] = b"CGQUEUE1";
const MARK: [u8; 2] = [0xc1, 0xfe];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Base,
    Begun,
    Ended,
    Whole,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Base, Self::Begun, Self::Ended, Self::Whole]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }

    fn byte(self) -> u8 {
        match self {
            Self::Base => 1,
            Self::Begun => 2,
            Self::Ended => 3,
            Self::Whole => 4,
        }
    }

    pub(crate) fn is_event(self) -> bool {
        matches!(self, Self::Ended | Self::Whole)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) queue: [u8; 16],
}

impl FileHeader {
    pub(crate) fn write(&self) -> [u8; FILE_HEADER] {
        let mut bytes = [0; FILE_HEADER];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.queue);
        let sum = crc32c(0, &bytes[..40]);
        bytes[40..44].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// None: such a file was never in use.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<FILE_HEADER>()?;
        let (body, rest) = header.split_first_chunk::<40>()?;
        let sum = u32::from_le_bytes(*rest.first_chunk()?);
        let body = body.strip_prefix(MAGIC)?;
        if crc32c(0, &header[..40]) != sum {
            return None;
        }
        let (number, body) = body.split_first_chunk()?;
        let (salt, body) = body.split_first_chunk()?;
        Some(Self {
            number: u64::from_le_bytes(*number),
            salt: u64::from_le_bytes(*salt),
            queue: *body.first_chunk()?,
        })
    }

    /// What each record's sum begins with.
    pub(crate) fn seed(&self) -> u32 {
        crc32c(0, &self.salt.to_le_bytes())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    pub(crate) ticket: u64,
    pub(crate) owner: &'a [u8],
    pub(crate) text: &'a [u8],
}

/// A record's first bytes; `content_sum` is the CRC-32C of owner and text.
pub(crate) fn header(
    kind: Kind,
    owner: u8,
    length: u32,
    (sequence, ticket): (u64, u64),
    seed: u32,
    content_sum: u32,
) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0..2].copy_from_slice(&MARK);
    bytes[2] = kind.byte();
    bytes[3] = owner;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    bytes[16..24].copy_from_slice(&ticket.to_le_bytes());
    let sum = crc32c(crc32c(seed, &bytes[..24]), &content_sum.to_le_bytes());
    bytes[24..28].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The record that these bytes begin with, and its length; None: no whole one.
pub(crate) fn read(seed: u32, bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let body = header.strip_prefix(&MARK)?;
    let (&[kind, owner], body) = body.split_first_chunk::<2>()?;
    let (length, body) = body.split_first_chunk()?;
    let (sequence, body) = body.split_first_chunk()?;
    let (ticket, sum) = body.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > LONGEST_RECORD {
        return None;
    }
    let content = rest.get(..length)?;
    let expected = crc32c(
        crc32c(seed, &header[..24]),
        &crc32c(0, content).to_le_bytes(),
    );
    if u32::from_le_bytes(*sum.first_chunk()?) != expected {
        return None;
    }
    let (owner, text) = content.split_at_checked(usize::from(owner))?;
    let record = Record {
        kind: Kind::of(kind)?,
        sequence: u64::from_le_bytes(*sequence),
        ticket: u64::from_le_bytes(*ticket),
        owner,
        text,
    };
    Some((record, HEADER + length))
}

/// All whole records of a file, each with the offset behind it.
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    seed: u32,
    pub(crate) at: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(header: &FileHeader, bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            seed: header.seed(),
            at: FILE_HEADER,
        }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (record, length) = read(self.seed, self.bytes.get(self.at..)?)?;
        self.at += length;
        Some(record)
    }
}

pub(crate) fn file_name(number: u64) -> String {
    format!("{number:016x}.queue")
}

pub(crate) fn number_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".queue")?, 16).ok()
}

/// For fuzzing: reads any bytes as a queue's file and tells how many records and bytes of text were in it.
pub fn survey(bytes: &[u8]) -> (usize, usize) {
    let Some(header) = FileHeader::read(bytes) else {
        return (0, 0);
    };
    Scan::new(&header, bytes).fold((0, 0), |(records, length), record| {
        (records + 1, length + record.text.len())
    })
}

/// For fuzzing: these bytes behind a head that is right.
pub fn with_head(bytes: &[u8]) -> Vec<u8> {
    let header = FileHeader {
        number: 1,
        salt: 0,
        queue: [0; 16],
    };
    [&header.write(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileHeader = FileHeader {
        number: 3,
        salt: 0x1122_3344_5566_7788,
        queue: [9; 16],
    };

    fn record(seed: u32, text: &[u8]) -> Vec<u8> {
        let content = [b"own", text].concat();
        let head = header(
            Kind::Whole,
            3,
            content.len() as u32,
            (5, 0),
            seed,
            crc32c(0, &content),
        );
        [&head[..], &content].concat()
    }

    #[test]
    fn each_flipped_bit_ends_the_reading() {
        let bytes = record(FILE.seed(), b"{\"a\":1}");
        let (read_back, length) = read(FILE.seed(), &bytes).unwrap();
        assert_eq!((length, read_back.sequence), (bytes.len(), 5));
        assert_eq!(
            (read_back.owner, read_back.text),
            (&b"own"[..], &b"{\"a\":1}"[..])
        );
        for bit in 0..bytes.len() * 8 {
            let mut spoiled = bytes.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(FILE.seed(), &spoiled), None, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(read(FILE.seed(), &bytes[..cut]), None);
        }
    }

    #[test]
    fn a_record_of_another_file_is_none() {
        let other = FileHeader { salt: 1, ..FILE };
        assert_eq!(read(FILE.seed(), &record(other.seed(), b"{}")), None);
        let mut bytes = FILE.write();
        assert_eq!(FileHeader::read(&bytes), Some(FILE));
        bytes[17] ^= 1;
        assert_eq!(FileHeader::read(&bytes), None);
        assert_eq!(number_of(&file_name(77)), Some(77));
    }
}
