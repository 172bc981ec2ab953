//! Owns the capture file format (classic pcap, Ethernet, microseconds), written by the helper and read by tests.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, IoContext, Result};
use crate::frame::Frame;

const MAGIC: u32 = 0xa1b2_c3d4;
/// Whole frames: a marker at the end must not be cut off.
pub const SNAP_LENGTH: u32 = 65_536;
const LINK_ETHERNET: u32 = 1;

/// Writes the header of a capture file.
pub fn write_header(mut file: impl Write) -> std::io::Result<()> {
    let mut header = Vec::with_capacity(24);
    header.extend_from_slice(&MAGIC.to_le_bytes());
    header.extend_from_slice(&2_u16.to_le_bytes());
    header.extend_from_slice(&4_u16.to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    header.extend_from_slice(&SNAP_LENGTH.to_le_bytes());
    header.extend_from_slice(&LINK_ETHERNET.to_le_bytes());
    file.write_all(&header)
}

/// Writes one frame, seen `at` after the epoch.
pub fn write_frame(mut file: impl Write, at: Duration, frame: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(frame.len()).unwrap_or(SNAP_LENGTH);
    let mut record = Vec::with_capacity(16 + frame.len());
    // Classic pcap has 32 bits of seconds.
    record.extend_from_slice(&(at.as_secs() as u32).to_le_bytes());
    record.extend_from_slice(&at.subsec_micros().to_le_bytes());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(frame);
    file.write_all(&record)
}

/// Reads a capture that was written here. A file cut short is an error: it may miss the very frame that matters.
pub fn read(path: &Path) -> Result<Vec<Frame>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .doing("reading the capture", path)?;
    parse(&bytes).map_err(|why| {
        Error::other(format!(
            "the capture {} is not whole: {why}",
            path.display()
        ))
    })
}

fn parse(bytes: &[u8]) -> std::result::Result<Vec<Frame>, String> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    if word(0) != Some(MAGIC) || word(20) != Some(LINK_ETHERNET) {
        return Err("its header is not that of a pcap of Ethernet frames".to_owned());
    }
    let mut frames = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let cut = || format!("the record at byte {at} ends early");
        let length = word(at + 8).ok_or_else(cut)? as usize;
        let body = bytes.get(at + 16..at + 16 + length).ok_or_else(cut)?;
        frames.push(Frame::parse(body).ok_or_else(|| format!("a runt frame at byte {at}"))?);
        at += 16 + length;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Mac, ethernet};

    fn capture() -> Vec<u8> {
        let mut file = Vec::new();
        write_header(&mut file).expect("memory");
        for number in 0..3_u8 {
            let frame = ethernet(Mac([number; 6]), Mac::BROADCAST, 0x88b5, &[number; 50]);
            write_frame(&mut file, Duration::from_millis(1500), &frame).expect("memory");
        }
        file
    }

    #[test]
    fn frames_are_read_back() {
        let frames = parse(&capture()).expect("a capture");
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2].source_mac, Mac([2; 6]));
        assert!(frames[2].contains(&[2; 50]));
    }

    #[test]
    fn a_capture_cut_anywhere_but_between_records_is_refused() {
        let whole = capture();
        let record = 16 + 64;
        for length in 0..whole.len() {
            let between = length >= 24 && (length - 24) % record == 0;
            assert_eq!(parse(&whole[..length]).is_ok(), between, "cut at {length}");
        }
    }
}
