//! The network outside: leases, router advertisements, and something that answers at every address routed here:
//! resolvers that know every name, and hosts that say who they are. ICMP is answered by the kernel of the namespace.

use std::io::{IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use qemu_tests::frame::{ICMPV6, Ip, Mac, ethernet, icmpv6};
use qemu_tests::names;
use qemu_tests::packet_socket::PacketSocket;

use crate::dhcp;

const TCP_PORTS: [u16; 8] = [22, 25, 53, 80, 443, 853, 3128, 8080];
const UDP_PORTS: [u16; 4] = [53, 123, 443, 33434];
/// Before the address at which it was reached.
const GREETING: &str = "clawgress fake internet at";
const DNS: u16 = 53;

#[derive(clap::Args)]
pub(crate) struct Settings {
    #[arg(long)]
    interface: String,
    /// The address that this router has on the wire
    #[arg(long)]
    router: Ipv4Addr,
    /// The one address to lease
    #[arg(long)]
    lease: Ipv4Addr,
    /// The IPv6 network to advertise, a /64
    #[arg(long)]
    prefix: Ipv6Addr,
}

pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    dhcp::Server::open(&settings.interface, settings.router, settings.lease)?.serve_in_thread();
    for port in TCP_PORTS {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .with_context(|| format!("listening on TCP port {port}"))?;
        std::thread::spawn(move || accept_all(&listener, port));
    }
    for port in UDP_PORTS {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
            .with_context(|| format!("listening on UDP port {port}"))?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
            .with_context(|| format!("asking for the destination of UDP port {port}"))?;
        std::thread::spawn(move || echo_all(&socket, port));
    }
    let wire = PacketSocket::open(&settings.interface)?;
    let advertisement = router_advertisement(wire.mac()?, settings.prefix);
    let end = crate::end_flag();
    crate::ready();
    while !end.load(Ordering::Relaxed) {
        wire.send(&advertisement)?;
        // Often, so that a booting host need not wait and the end is noticed soon.
        std::thread::sleep(Duration::from_millis(500));
    }
    crate::finish("done");
    Ok(())
}

/// Greets and echoes one line; a client that says nothing is let go. Port 53 speaks DNS, port 80 HTTP.
fn accept_all(listener: &TcpListener, port: u16) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        std::thread::spawn(move || {
            // A client that has gone is no business of ours.
            let _ = match port {
                DNS => resolve(stream),
                80 => serve_page(stream),
                _ => greet(stream),
            };
        });
    }
}

fn greeting(stream: &TcpStream) -> std::io::Result<String> {
    let here = stream.local_addr()?.ip().to_canonical();
    Ok(format!("{GREETING} {here}\n"))
}

fn greet(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(greeting(&stream)?.as_bytes())?;
    let mut buffer = [0; 1500];
    let length = stream.read(&mut buffer)?;
    stream.write_all(&buffer[..length])?;
    // Whoever asks for it keeps the flow.
    if buffer[..length].windows(4).any(|word| word == b"stay") {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        std::io::copy(&mut stream, &mut std::io::sink())?;
    }
    Ok(())
}

fn serve_page(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1500];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < 16_384 {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    let page = greeting(&stream)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        page.len()
    );
    stream.write_all((head + &page).as_bytes())
}

fn resolve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(answer) = names::answer(&query) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

/// Answers every datagram from the address to which it came: a query with an answer, anything else with itself.
fn echo_all(socket: &UdpSocket, port: u16) {
    let mut buffer = [0; 2000];
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo);
    loop {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<SockaddrIn>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let Ok(message) = received else { return };
        let arrived_at = message.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
                _ => None,
            })
        });
        let (length, sender) = (message.bytes, message.address);
        let Some(mut info) = arrived_at else { continue };
        info.ipi_spec_dst = info.ipi_addr;
        info.ipi_ifindex = 0;
        let answer = (port == DNS)
            .then(|| names::answer(&buffer[..length]))
            .flatten();
        let body = [std::io::IoSlice::new(
            answer.as_deref().unwrap_or(&buffer[..length]),
        )];
        // An echo that cannot be sent is a lost datagram, as on any network.
        let _ = sendmsg(
            socket.as_raw_fd(),
            &body,
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::empty(),
            sender.as_ref(),
        );
    }
}

/// An advertisement of a default route and a network for addresses of one's own making.
fn router_advertisement(mac: Mac, prefix: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let ip = Ip::V6(link_local(mac), ALL_NODES);
    let mut body = vec![64, 0];
    body.extend_from_slice(&1800_u16.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&mac.0);
    body.extend_from_slice(&[3, 4, 64, 0xc0]);
    body.extend_from_slice(&3600_u32.to_be_bytes());
    body.extend_from_slice(&1800_u32.to_be_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&prefix.octets());
    let destination = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let message = icmpv6(&ip, 134, 0, &body);
    ethernet(
        mac,
        destination,
        ip.ethertype(),
        &ip.packet(ICMPV6, &message),
    )
}

/// The address that the kernel gives an interface by itself.
fn link_local(mac: Mac) -> Ipv6Addr {
    let mac = mac.0;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..11].copy_from_slice(&[mac[0] ^ 2, mac[1], mac[2]]);
    octets[11..13].copy_from_slice(&[0xff, 0xfe]);
    octets[13..].copy_from_slice(&mac[3..]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use qemu_tests::frame::Frame;

    #[test]
    fn the_advertisement_is_one() {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let bytes = router_advertisement(mac, "2001:db8:f00d::".parse().expect("a network"));
        let frame = Frame::parse(&bytes).expect("a frame");
        assert_eq!(frame.icmp_type, Some(134));
        assert_eq!(
            frame.source,
            Some("fe80::ff:fe00:9".parse().expect("an address"))
        );
        assert_eq!(bytes.len(), 14 + 40 + 16 + 8 + 32);
    }
}
