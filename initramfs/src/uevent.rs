//! The kernel's announcements of devices, over its netlink socket.
//!
//! Only the kernel is listened to; nothing is ever sent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};

/// The part of an announcement that `/init` acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uevent {
    pub(crate) action: String,
    pub(crate) subsystem: String,
    /// Last part of the device's path: the name that `/sys/class/block` uses.
    pub(crate) name: String,
    pub(crate) modalias: Option<String>,
}

/// Parses `add@/devices/…\0ACTION=add\0…`; `None` for anything that the kernel would not send.
pub(crate) fn parse(message: &[u8]) -> Option<Uevent> {
    let mut parts = message.split(|byte| *byte == 0);
    let head = std::str::from_utf8(parts.next()?).ok()?;
    head.split_once('@')?;
    let mut event = Uevent::default();
    for part in parts {
        let Some((key, value)) = std::str::from_utf8(part).ok()?.split_once('=') else {
            continue;
        };
        match key {
            "ACTION" => value.clone_into(&mut event.action),
            "SUBSYSTEM" => value.clone_into(&mut event.subsystem),
            "DEVPATH" => value
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .clone_into(&mut event.name),
            "MODALIAS" => event.modalias = Some(value.to_owned()),
            _ => {}
        }
    }
    (!event.action.is_empty()).then_some(event)
}

/// What came off the socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Event(Uevent),
    /// Announcements were lost: everything has to be looked at again.
    Overflow,
    /// Nothing more for now.
    Empty,
}

/// The listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Listener {
    /// Starts listening; must happen before devices are first looked at, or one could slip by.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // The burst of a cold boot fits; where this fails an overflow only costs a second look.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20));
        // Group 1 is the kernel's own.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self {
            socket,
            buffer: vec![0; 16 * 1024],
        })
    }

    /// Takes the next announcement without waiting.
    pub(crate) fn receive(&mut self) -> Received {
        loop {
            let got = recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut self.buffer);
            match got {
                Ok((length, sender)) => {
                    // Port 0 is the kernel; a process may not pretend to be it.
                    if sender.is_some_and(|sender| sender.pid() == 0)
                        && let Some(event) = self.buffer.get(..length).and_then(parse)
                    {
                        return Received::Event(event);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Received::Overflow,
                Err(_) => return Received::Empty,
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_appears() {
        let message = b"add@/devices/pci0000:00/usb1/1-1/host0/block/sda\0ACTION=add\0\
            DEVPATH=/devices/pci0000:00/usb1/1-1/host0/block/sda\0SUBSYSTEM=block\0\
            DEVNAME=sda\0DEVTYPE=disk\0SEQNUM=7\0";
        assert_eq!(
            parse(message),
            Some(Uevent {
                action: "add".into(),
                subsystem: "block".into(),
                name: "sda".into(),
                modalias: None
            })
        );
    }

    #[test]
    fn a_device_asks_for_its_driver() {
        let message = b"add@/devices/x/0:0:0:0\0ACTION=add\0DEVPATH=/devices/x/0:0:0:0\0\
            SUBSYSTEM=scsi\0MODALIAS=scsi:t-0x05\0";
        assert_eq!(parse(message).unwrap().modalias.unwrap(), "scsi:t-0x05");
    }

    #[test]
    fn what_the_kernel_would_not_send_is_nothing() {
        for message in [
            &b""[..],
            b"libudev\0\xfe\xed",
            b"add@/x\0",
            b"x\0ACTION=add\0",
        ] {
            assert_eq!(parse(message), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
