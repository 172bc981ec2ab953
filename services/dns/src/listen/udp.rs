//! Datagrams. What can be answered at once is answered in the loop that reads; what waits gets a task.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Door;
use crate::engine::{Begun, Engine};
use crate::question::LONGEST;

/// Read one after the other before others get their turn.
const BATCH: usize = 32;

/// Where a question came from and to.
#[derive(Clone, Copy)]
struct Envelope {
    from: SocketAddr,
    to: Option<Arrival>,
}

#[derive(Clone, Copy)]
enum Arrival {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

pub(super) async fn serve(socket: Arc<UdpSocket>, engine: Arc<Engine>, door: Door) {
    // One byte more than a question can have: what fills it is too long.
    let mut buffer = vec![0; LONGEST + 1];
    let mut control = nix::cmsg_space!(in_pktinfo, in6_pktinfo);
    loop {
        if let Err(error) = socket.readable().await {
            tracing::error!("waiting for questions: {error}");
            return;
        }
        for _ in 0..BATCH {
            let received = socket.try_io(Interest::READABLE, || {
                receive(&socket, &mut buffer, &mut control)
            });
            let (length, envelope) = match received {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // Of an earlier answer that could not be delivered.
                Err(_) => continue,
            };
            let (Some(envelope), Some(packet)) = (envelope, buffer.get(..length)) else {
                continue;
            };
            match engine.begin(packet, door.asker(envelope.from.ip()), false) {
                Begun::Silence => {}
                Begun::Answer(answer) => reply(&socket, &answer, envelope),
                Begun::Waits(waiting) => {
                    let (socket, engine) = (Arc::clone(&socket), Arc::clone(&engine));
                    tokio::spawn(async move {
                        let answer = engine.finish(waiting).await;
                        reply(&socket, &answer, envelope);
                    });
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    control: &mut [u8],
) -> std::io::Result<(usize, Option<Envelope>)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let from = message.address.as_ref().and_then(|address| {
        if let Some(v4) = address.as_sockaddr_in() {
            return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
        }
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
    });
    let to = message.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Arrival::V4(info)),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Arrival::V6(info)),
            _ => None,
        })
    });
    // Nothing can be sent to port 0.
    let envelope = from
        .filter(|from| from.port() != 0)
        .map(|from| Envelope { from, to });
    Ok((message.bytes, envelope))
}

fn reply(socket: &UdpSocket, answer: &[u8], envelope: Envelope) {
    let to = SockaddrStorage::from(envelope.from);
    let send = |control: &[ControlMessage]| {
        sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(answer)],
            control,
            MsgFlags::MSG_DONTWAIT,
            Some(&to),
        )
    };
    // A full buffer loses the datagram, as a full wire would: the asker asks again.
    let _ = match envelope.to {
        Some(Arrival::V4(info)) => {
            let source = in_pktinfo {
                // The routing table chooses the card.
                ipi_ifindex: 0,
                ..info
            };
            send(&[ControlMessage::Ipv4PacketInfo(&source)])
        }
        Some(Arrival::V6(info)) => send(&[ControlMessage::Ipv6PacketInfo(&info)]),
        None => send(&[]),
    };
}
