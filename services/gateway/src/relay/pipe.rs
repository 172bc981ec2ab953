//! Pipes that bytes are spliced through, from socket to socket without a copy. A tunnel has one only while bytes move.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// What a pipe is asked to hold. The kernel grants it to unprivileged users up to a sum of 64 MiB; beyond that pipes
/// stay as they are made.
const CAPACITY: i32 = 1024 * 1024;
/// Kept for the next tunnel, of each worker.
const KEPT: usize = 32;
/// At once, of each worker: beyond that bytes are copied, which needs no descriptor.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub struct Pipes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    free: Vec<Ends>,
    out: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// Goes back to where it came from when it is dropped, unless there are still bytes in it.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    home: Arc<Pipes>,
    pub held: usize,
}

impl Pipes {
    pub fn take(self: &Arc<Self>) -> Option<Pipe> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.out >= MOST {
            return None;
        }
        let ends = match inner.free.pop() {
            Some(ends) => ends,
            None => Ends::make().ok()?,
        };
        inner.out += 1;
        Some(Pipe {
            ends: Some(ends),
            home: Arc::clone(self),
            held: 0,
        })
    }
}

impl Ends {
    fn make() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Without it the pipe is smaller, no more.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(CAPACITY));
        Ok(Self { read, write })
    }
}

impl Pipe {
    /// Into the empty pipe; 0: the other side has ended.
    pub fn fill(&mut self, from: impl std::os::fd::AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let moved = splice(from, None, &ends.write, None, CAPACITY as usize, flags())?;
        self.held += moved;
        Ok(moved)
    }

    pub fn empty(&mut self, to: impl std::os::fd::AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let moved = splice(&ends.read, None, to, None, self.held, flags())?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut inner = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.out -= 1;
        if let Some(ends) = self.ends.take()
            && self.held == 0
            && inner.free.len() < KEPT
        {
            inner.free.push(ends);
        }
    }
}
