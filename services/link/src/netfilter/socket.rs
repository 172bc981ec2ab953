//! A netlink socket to netfilter: one request, its answers, a bound on the wait.
//!
//! Blocking, for callers that may block. What belongs to another request is passed over.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, send,
    setsockopt, socket, sockopt,
};

use super::netlink::{self, Datagram, Received};

/// The kernel answers in microseconds; a transaction of a large ruleset holds it up for seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// The kernel's dumps come in datagrams of at most 32 KiB.
const BUFFER: usize = 64 * 1024;
/// How often a dump is begun anew when changes disturb it.
const ATTEMPTS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("{doing}: {errno}")]
    Refused { doing: String, errno: Errno },
    #[error("{doing}: the kernel did not answer within {PATIENCE:?}")]
    Silent { doing: String },
    #[error("{doing}: changes kept disturbing the dump")]
    Disturbed { doing: String },
    #[error("{doing}: {why}")]
    Answer { doing: String, why: String },
}

impl KernelError {
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// What was asked for is not there.
    pub fn is_missing(&self) -> bool {
        self.errno() == Some(Errno::ENOENT)
    }
}

pub fn refused(doing: impl Into<String>) -> impl FnOnce(Errno) -> KernelError {
    let doing = doing.into();
    move |errno| KernelError::Refused { doing, errno }
}

/// Not shared: each owner has a socket of his own, so that answers can't be mixed up.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// To netfilter. Needs `CAP_NET_ADMIN` for whatever is then asked.
    pub fn open() -> Result<Self, KernelError> {
        Self::open_to(SockProtocol::NetlinkNetFilter, 0)
    }

    /// To netfilter, hearing multicast groups, given as bits.
    pub fn listening(groups: u32) -> Result<Self, KernelError> {
        Self::open_to(SockProtocol::NetlinkNetFilter, groups)
    }

    /// To the kernel's knowledge of sockets.
    pub fn to_sockets() -> Result<Self, KernelError> {
        Self::open_to(SockProtocol::NetlinkSockDiag, 0)
    }

    fn open_to(part: SockProtocol, groups: u32) -> Result<Self, KernelError> {
        let doing = "opening a netlink socket";
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            part,
        )
        .map_err(refused(doing))?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(refused(doing))?;
        // Beyond the usual bound where that is allowed: a burst must not cost events.
        if setsockopt(&descriptor, sockopt::RcvBufForce, &(4 << 20)).is_err() {
            setsockopt(&descriptor, sockopt::RcvBuf, &(1 << 20)).ok();
        }
        Ok(Self {
            descriptor,
            sequence: 1,
            buffer: vec![0; BUFFER],
        })
    }

    /// A number that no answer still under way bears.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    pub fn send(&self, datagram: &Datagram, doing: &str) -> Result<(), KernelError> {
        let bytes = datagram.bytes();
        let sent =
            send(self.descriptor.as_raw_fd(), bytes, MsgFlags::empty()).map_err(refused(doing))?;
        if sent == bytes.len() {
            return Ok(());
        }
        Err(KernelError::Answer {
            doing: doing.to_owned(),
            why: format!("only {sent} of {} bytes were taken", bytes.len()),
        })
    }

    /// Sends and waits for the acknowledgement that bears `last`. The first error of a number in `first..=last` wins.
    pub fn acknowledged(
        &mut self,
        datagram: &Datagram,
        first: u32,
        last: u32,
        doing: &str,
    ) -> Result<(), KernelError> {
        self.send(datagram, doing)?;
        let mut failure = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let length = self.wait(deadline, doing)?;
            for received in netlink::messages(self.buffer.get(..length).unwrap_or_default()) {
                let Received::Outcome { sequence, errno } = received else {
                    continue;
                };
                if !(first..=last).contains(&sequence) {
                    continue;
                }
                if errno != 0 {
                    failure.get_or_insert(Errno::from_raw(errno));
                }
                if sequence == last {
                    return match failure {
                        None => Ok(()),
                        Some(errno) => Err(refused(doing)(errno)),
                    };
                }
            }
            // A batch that is refused as a whole is answered at its opening alone.
            if let Some(errno) = failure
                && self.is_quiet()
            {
                return Err(refused(doing)(errno));
            }
        }
    }

    /// Sends a request for a dump, or for one object, and hands every message of it to `each`. A dump that changes
    /// disturb is begun anew: `each` is then told by `None` to forget what it has.
    pub fn dump(
        &mut self,
        doing: &str,
        request: impl FnMut(u32) -> Datagram,
        mut each: impl FnMut(Option<&[u8]>),
    ) -> Result<(), KernelError> {
        self.dump_whole(doing, request, |body| {
            each(body.map(|body| body.get(netlink::NETFILTER_HEADER..).unwrap_or_default()));
        })
    }

    /// As `dump`, with what stands before the attributes.
    pub fn dump_whole(
        &mut self,
        doing: &str,
        mut request: impl FnMut(u32) -> Datagram,
        mut each: impl FnMut(Option<&[u8]>),
    ) -> Result<(), KernelError> {
        for _ in 0..ATTEMPTS {
            let number = self.next_sequence();
            self.send(&request(number), doing)?;
            each(None);
            if self.collect(number, doing, &mut each)? {
                return Ok(());
            }
        }
        Err(KernelError::Disturbed {
            doing: doing.to_owned(),
        })
    }

    /// Reads the answers to `number`; false if the dump was disturbed.
    fn collect(
        &mut self,
        number: u32,
        doing: &str,
        each: &mut impl FnMut(Option<&[u8]>),
    ) -> Result<bool, KernelError> {
        let deadline = Instant::now() + PATIENCE;
        let mut whole = true;
        loop {
            let length = self.wait(deadline, doing)?;
            for received in netlink::messages(self.buffer.get(..length).unwrap_or_default()) {
                match received {
                    Received::Message { sequence, body, .. } if sequence == number => {
                        each(Some(body));
                    }
                    Received::Outcome { sequence, errno } if sequence == number => {
                        return match errno {
                            0 => Ok(whole),
                            _ if errno == Errno::EINTR as i32 => Ok(false),
                            _ => Err(refused(doing)(Errno::from_raw(errno))),
                        };
                    }
                    Received::Done { sequence } if sequence == number => return Ok(whole),
                    Received::Disturbed { sequence } if sequence == number => whole = false,
                    _ => {}
                }
            }
        }
    }

    /// Waits for a datagram and reads it into the buffer.
    fn wait(&mut self, deadline: Instant, doing: &str) -> Result<usize, KernelError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(KernelError::Silent {
                    doing: doing.to_owned(),
                });
            }
            if !self.readable(left, doing)? {
                continue;
            }
            match self.receive() {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(refused(doing)(errno)),
                Ok(length) => return Ok(length),
            }
        }
    }

    fn readable(&self, within: Duration, doing: &str) -> Result<bool, KernelError> {
        let timeout =
            PollTimeout::try_from(within.min(Duration::from_secs(60))).unwrap_or(PollTimeout::ZERO);
        let mut wanted = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(refused(doing)(errno)),
        }
    }

    fn is_quiet(&self) -> bool {
        !self
            .readable(Duration::ZERO, "looking for answers")
            .unwrap_or(false)
    }

    /// Waits for a datagram that nobody asked for, at most so long; empty: none came. An error of `ENOBUFS` says that
    /// the kernel had to drop some.
    pub fn heard(&mut self, within: Duration, doing: &str) -> Result<&[u8], KernelError> {
        if !self.readable(within, doing)? {
            return Ok(&[]);
        }
        match self.receive() {
            Ok(length) => Ok(self.received(length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(&[]),
            Err(errno) => Err(refused(doing)(errno)),
        }
    }

    /// Reads one datagram; it is then in `received`. A datagram from anybody but the kernel is an empty one.
    fn receive(&mut self) -> Result<usize, Errno> {
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let message = recvmsg::<NetlinkAddr>(
            self.descriptor.as_raw_fd(),
            &mut parts,
            None,
            MsgFlags::empty(),
        )?;
        let from_kernel = message.address.is_some_and(|address| address.pid() == 0);
        Ok(if from_kernel { message.bytes } else { 0 })
    }

    fn received(&self, length: usize) -> &[u8] {
        self.buffer.get(..length).unwrap_or_default()
    }
}
