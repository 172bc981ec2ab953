//! A resolver that knows the names of the fake internet and judges nothing: where only what is behind it is tested.

use std::net::{SocketAddr, UdpSocket};

use anyhow::Context;
use qemu_tests::names;

pub(crate) fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("listening on UDP {listen}"))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = names::answer(&buffer[..length]) {
                // Who asked may be gone.
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    crate::ready();
    crate::wait_for_end();
    crate::finish("done");
    Ok(())
}
