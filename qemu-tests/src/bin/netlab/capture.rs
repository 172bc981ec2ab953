//! Records an interface. Nothing that passed before the end was asked for may be missing from the file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use qemu_tests::packet_socket::PacketSocket;
use qemu_tests::pcap;

pub(crate) fn run(interface: &str, path: &Path) -> anyhow::Result<()> {
    let doing = || format!("writing the capture {}", path.display());
    let socket = PacketSocket::open(interface)?;
    let mut file = BufWriter::new(File::create(path).with_context(doing)?);
    pcap::write_header(&mut file).with_context(doing)?;
    let end = crate::end_flag();
    crate::ready();
    let mut buffer = vec![0; pcap::SNAP_LENGTH as usize];
    let mut frames = 0_u64;
    loop {
        // Asked before the look: what was on the wire when the flag rose is then found by this look or a later one.
        let ending = end.load(Ordering::Relaxed);
        let limit = if ending { 0 } else { 100 };
        match socket.receive(&mut buffer, Duration::from_millis(limit))? {
            Some(frame) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                pcap::write_frame(&mut file, now, frame).with_context(doing)?;
                frames += 1;
            }
            None if ending => break,
            None => file.flush().with_context(doing)?,
        }
    }
    file.flush().with_context(doing)?;
    let dropped = socket.dropped()?;
    crate::finish(&format!(r#"{{"frames":{frames},"dropped":{dropped}}}"#));
    Ok(())
}
