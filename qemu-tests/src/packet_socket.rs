//! Owns raw access to one network interface: whole Ethernet frames in and out.
//! The only module with `unsafe`: the packet address and the drop counter have no safe wrapper.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socket, sockopt,
};

use crate::error::{IoContext, Result};
use crate::frame::Mac;

/// Enough for what a wire carries while the reader is not scheduled.
const RECEIVE_BUFFER: usize = 64 << 20;

pub struct PacketSocket {
    socket: OwnedFd,
    interface: String,
}

impl PacketSocket {
    /// Opens an interface of the current network namespace: from the return on, no frame is missed.
    pub fn open(interface: &str) -> Result<Self> {
        let opening = "opening raw access to interface";
        let index = nix::net::if_::if_nametoindex(interface).doing(opening, interface)?;
        // No protocol yet: between here and the binding, frames of other interfaces must not come in.
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .doing(opening, interface)?;
        // The unlimited way needs privilege over the host; the limited one does what it can. Drops are counted.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER).doing(opening, interface)?;
        }
        bind_to(&socket, index).doing(opening, interface)?;
        Ok(Self {
            socket,
            interface: interface.to_owned(),
        })
    }

    /// The next frame, or `None` if none comes in time.
    pub fn receive<'a>(&self, buffer: &'a mut [u8], limit: Duration) -> Result<Option<&'a [u8]>> {
        let receiving = "receiving from interface";
        let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let ready = nix::poll::poll(&mut waiting, timeout).doing(receiving, &self.interface)?;
        if ready == 0 {
            return Ok(None);
        }
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(&buffer[..length])),
            // The interface went down: frames may come again when it is up.
            Err(nix::Error::ENETDOWN | nix::Error::EAGAIN) => Ok(None),
            Err(error) => Err(error).doing(receiving, &self.interface),
        }
    }

    /// Puts one frame on the wire. `false`: the interface did not take it (down, or its queue is full).
    pub fn send(&self, frame: &[u8]) -> Result<bool> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(nix::Error::ENETDOWN | nix::Error::ENOBUFS | nix::Error::EAGAIN) => Ok(false),
            Err(error) => Err(error).doing("sending on interface", &self.interface),
        }
    }

    /// How many frames the kernel had no room for since the last question.
    pub fn dropped(&self) -> Result<u32> {
        statistics(&self.socket)
            .map(|statistics| statistics.tp_drops)
            .doing("counting lost frames of interface", &self.interface)
    }

    /// The interface's own hardware address.
    pub fn mac(&self) -> Result<Mac> {
        let asking = "asking for the hardware address of";
        for interface in nix::ifaddrs::getifaddrs().doing(asking, &self.interface)? {
            if interface.interface_name == self.interface
                && let Some(address) = interface.address
                && let Some(link) = address.as_link_addr()
                && let Some(mac) = link.addr()
            {
                return Ok(Mac(mac));
            }
        }
        Err(io::Error::other("it has none")).doing(asking, &self.interface)
    }
}

/// Ties the socket to one interface and opens it for every protocol.
fn bind_to(socket: &OwnedFd, index: libc::c_uint) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain integers, for which all zero bytes are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = libc::c_int::try_from(index).map_err(io::Error::other)?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a live sockaddr_ll of exactly `length` bytes, only read during the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn statistics(socket: &OwnedFd) -> io::Result<libc::tpacket_stats> {
    // SAFETY: tpacket_stats is two integers, for which all zero bytes are a value.
    let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into the live struct of that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(statistics)
    } else {
        Err(io::Error::last_os_error())
    }
}
