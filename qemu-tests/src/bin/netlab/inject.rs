//! Puts frames on a wire as they are given, whatever the kernel of this host would make of them.

use anyhow::Context;
use qemu_tests::packet_socket::PacketSocket;

/// Each frame in hexadecimal digits.
pub(crate) fn run(interface: &str, frames: &[String]) -> anyhow::Result<()> {
    let wire = PacketSocket::open(interface)?;
    crate::ready();
    let mut taken = 0;
    for frame in frames {
        taken += u32::from(wire.send(&bytes(frame)?)?);
    }
    crate::finish(&taken.to_string());
    Ok(())
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2);
    pairs
        .map(|at| {
            let pair = hex.get(at..at + 2).context("half a byte in a frame")?;
            u8::from_str_radix(pair, 16).with_context(|| format!("{pair} in a frame"))
        })
        .collect()
}
