//! Finding the medium among all devices, those present and those still to come.
//!
//! One thread loads drivers, each device is looked into by a thread of its own, so that a drive
//! that hangs delays nobody; this thread only listens and keeps the books. It sleeps until
//! something happens, never for a fixed time.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use clawgress_initramfs::identity::ImageIdentity;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::devices;
use crate::drivers::Drivers;
use crate::modload::Loader;
use crate::probe::{self, Outcome};
use crate::superblock::FileSystem;
use crate::uevent::{Listener, Received, Uevent};

/// When to ask again whether a partition's disk has been looked at.
const AFTER_THE_DISK: Duration = Duration::from_millis(50);
/// How long looks at other devices may take once the medium is found.
const LOOKS_END: Duration = Duration::from_millis(500);

/// The medium, mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Such as `sr0`.
    pub(crate) name: String,
    pub(crate) kind: FileSystem,
}

/// What the books say of one device.
#[derive(Debug)]
enum State {
    /// A thread is looking. Look `again` afterwards if something changed meanwhile, forget the
    /// device if it is `gone`; what was seen `before` stays known.
    Looking {
        again: bool,
        gone: bool,
        before: Option<String>,
    },
    Settled {
        reason: String,
    },
    Later {
        reason: String,
        due: Instant,
    },
}

/// A device's name and what came of looking into it.
type Look = (String, Outcome);

/// A search under way.
#[derive(Debug)]
pub(crate) struct Search {
    identity: Arc<ImageIdentity>,
    loader: Arc<Loader>,
    taken: Arc<AtomicBool>,
    books: BTreeMap<String, State>,
    results: (Sender<Look>, Receiver<Look>),
    wake: (io::PipeReader, Arc<io::PipeWriter>),
    drivers: Drivers,
}

/// Why the search ended without a medium.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// Each device with its reason.
    Devices(Vec<(String, String)>),
    /// The search itself could not work.
    Broken(io::Error),
}

impl Search {
    /// Starts loading drivers for what is there.
    pub(crate) fn start(identity: Arc<ImageIdentity>, loader: Arc<Loader>) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            drivers: Drivers::start(Arc::clone(&loader))?,
            identity,
            loader,
            taken: Arc::default(),
            books: BTreeMap::new(),
            results: channel(),
            wake: (reader, Arc::new(writer)),
        })
    }

    /// Searches until the medium is found or `wait` is over.
    pub(crate) fn run(
        &mut self,
        mut listener: Option<Listener>,
        wait: Duration,
    ) -> Result<Found, NotFound> {
        let start = Instant::now();
        let deadline = start.checked_add(wait).unwrap_or(start);
        self.look_at_all();
        loop {
            if let Some(found) = self.take_results() {
                return Ok(found);
            }
            self.look_at_due();
            let now = Instant::now();
            // A look that found the medium may be about to say so.
            if now >= deadline && !self.taken.load(Ordering::SeqCst) {
                return Err(NotFound::Devices(self.reasons()));
            }
            let timeout = self.timeout(now, deadline, listener.is_none());
            self.sleep(listener.as_ref(), timeout)
                .map_err(NotFound::Broken)?;
            if let Some(listener) = &mut listener {
                self.hear(listener);
            } else {
                // Deaf, so the only way is to keep looking.
                self.drivers.cold_plug();
                self.look_at_all();
            }
        }
    }

    /// Starts a look at every device not yet in the books.
    fn look_at_all(&mut self) {
        for name in devices::block_devices() {
            if !self.books.contains_key(&name) {
                self.look(name);
            }
        }
    }

    fn look_at_due(&mut self) {
        let now = Instant::now();
        let due: Vec<String> = self
            .books
            .iter()
            .filter(|(_, state)| matches!(state, State::Later { due, .. } if *due <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.look(name);
        }
    }

    fn look(&mut self, name: String) {
        let before = match self.books.remove(&name) {
            Some(State::Settled { reason } | State::Later { reason, .. }) => Some(reason),
            _ => None,
        };
        // A disk and its partitions exclude each other while mounted; trying anyway only makes
        // the kernel complain.
        let disk = devices::disk_of(&name).and_then(|disk| self.books.get(&disk));
        if matches!(disk, Some(State::Looking { .. })) {
            let reason = before.unwrap_or("not looked at yet".to_owned());
            self.books.insert(name, later(reason, AFTER_THE_DISK));
            return;
        }
        let (identity, loader) = (Arc::clone(&self.identity), Arc::clone(&self.loader));
        let (taken, wake) = (Arc::clone(&self.taken), Arc::clone(&self.wake.1));
        let sender = self.results.0.clone();
        let device = name.clone();
        let thread = Builder::new().stack_size(512 * 1024).spawn(move || {
            let outcome = probe::probe(&device, &identity, &loader, &taken);
            let _ = sender.send((device, outcome));
            let _ = (&*wake).write_all(&[0]);
        });
        let state = match thread {
            Ok(_) => State::Looking {
                again: false,
                gone: false,
                before,
            },
            Err(error) => later(
                format!("can't be looked at: {error}"),
                Duration::from_secs(1),
            ),
        };
        self.books.insert(name, state);
    }

    fn take_results(&mut self) -> Option<Found> {
        while let Ok((name, outcome)) = self.results.1.try_recv() {
            let (again, gone) = match self.books.remove(&name) {
                Some(State::Looking { again, gone, .. }) => (again, gone),
                _ => (false, true),
            };
            match outcome {
                Outcome::Ours(kind) if !gone => return Some(Found { name, kind }),
                Outcome::Ours(_) => {
                    // Pulled out again: the next one that has the image may have the place.
                    probe::unmount(&probe::mount_point(&name));
                    self.taken.store(false, Ordering::SeqCst);
                }
                _ if gone => {}
                Outcome::Settled(reason) | Outcome::Later(reason, _) if again => {
                    self.books.insert(name, later(reason, Duration::ZERO));
                }
                Outcome::Settled(reason) => {
                    self.books.insert(name, State::Settled { reason });
                }
                Outcome::Later(reason, pause) => {
                    self.books.insert(name, later(reason, pause));
                }
            }
        }
        None
    }

    /// How long nothing can happen by itself.
    fn timeout(&self, now: Instant, deadline: Instant, deaf: bool) -> Duration {
        let next = self
            .books
            .values()
            .filter_map(|state| match state {
                State::Later { due, .. } => Some(*due),
                _ => None,
            })
            .chain([deadline])
            .min()
            .unwrap_or(deadline);
        let timeout = next.saturating_duration_since(now);
        // At the deadline itself a finished look may still be on its way.
        let least = Duration::from_millis(1);
        let most = if deaf { 50 } else { 60_000 };
        timeout.clamp(least, Duration::from_millis(most))
    }

    fn sleep(&mut self, listener: Option<&Listener>, timeout: Duration) -> io::Result<()> {
        let mut fds = vec![PollFd::new(self.wake.0.as_fd(), PollFlags::POLLIN)];
        fds.extend(listener.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        // Rounded up, or the last millisecond would be spent spinning.
        let milliseconds = timeout.as_millis().saturating_add(1);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        drop(fds);
        let mut bytes = [0; 64];
        while matches!(self.wake.0.read(&mut bytes), Ok(read) if read == bytes.len()) {}
        Ok(())
    }

    fn hear(&mut self, listener: &mut Listener) {
        loop {
            match listener.receive() {
                Received::Event(event) => self.act(event),
                Received::Overflow => {
                    self.drivers.cold_plug();
                    self.look_at_all();
                }
                Received::Empty => return,
            }
        }
    }

    fn act(&mut self, event: Uevent) {
        if event.action == "remove" {
            if let Some(State::Looking { gone, .. }) = self.books.get_mut(&event.name) {
                *gone = true;
            } else if event.subsystem == "block" {
                self.books.remove(&event.name);
            }
            return;
        }
        if let Some(modalias) = event.modalias {
            self.drivers.load(modalias);
        }
        if event.subsystem != "block" || !devices::may_be_medium(&event.name) {
            return;
        }
        match self.books.get_mut(&event.name) {
            Some(State::Looking { again, gone, .. }) => (*again, *gone) = (true, false),
            // A mount or unmount of ours announces itself as a change, too; what is settled
            // changes only if the medium does.
            Some(State::Settled { .. }) if event.action != "change" => {}
            _ => self.look(event.name),
        }
    }

    /// Ends what still goes on: drivers being loaded, and looks at other devices, which would
    /// otherwise leave their mounts behind.
    pub(crate) fn finish(mut self) {
        self.drivers.stop();
        let deadline = Instant::now().checked_add(LOOKS_END);
        while self.looking().next().is_some() {
            let left = deadline.map_or(Duration::ZERO, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            let Ok((name, _)) = self.results.1.recv_timeout(left) else {
                break;
            };
            self.books.remove(&name);
        }
        for name in self.looking() {
            probe::unmount(&probe::mount_point(name));
        }
    }

    fn looking(&self) -> impl Iterator<Item = &String> {
        self.books
            .iter()
            .filter(|(_, state)| matches!(state, State::Looking { .. }))
            .map(|(name, _)| name)
    }

    fn reasons(&self) -> Vec<(String, String)> {
        self.books
            .iter()
            .map(|(name, state)| {
                let reason = match state {
                    State::Looking { before, .. } => {
                        before.clone().unwrap_or("does not answer".to_owned())
                    }
                    State::Settled { reason } | State::Later { reason, .. } => reason.clone(),
                };
                (devices::node(name), reason)
            })
            .collect()
    }
}

fn later(reason: String, pause: Duration) -> State {
    let now = Instant::now();
    State::Later {
        reason,
        due: now.checked_add(pause).unwrap_or(now),
    }
}
