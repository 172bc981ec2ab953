//! The thread that loads drivers, for what is there and for what the kernel announces.
//!
//! It alone waits while a driver sets up its hardware. It decides nothing: a device string goes in,
//! whatever the table has for it gets loaded, each string once.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use crate::devices;
use crate::modload::Loader;

/// The thread that loads drivers.
#[derive(Debug)]
pub(crate) struct Drivers {
    requests: Option<Sender<Request>>,
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Request {
    Device(String),
    ColdPlug,
}

impl Drivers {
    /// Starts with what is there.
    pub(crate) fn start(loader: Arc<Loader>) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let thread = Builder::new().stack_size(512 * 1024).spawn(move || {
            let mut seen = BTreeSet::new();
            while let Ok(request) = receiver.recv() {
                let wanted = match request {
                    Request::Device(modalias) => vec![modalias],
                    Request::ColdPlug => devices::modaliases(),
                };
                for modalias in wanted {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    if seen.insert(modalias.clone()) {
                        loader.load(&modalias);
                    }
                }
            }
        })?;
        let drivers = Self {
            requests: Some(sender),
            enough,
            thread: Some(thread),
        };
        drivers.cold_plug();
        Ok(drivers)
    }

    /// Loads what claims this device.
    pub(crate) fn load(&self, modalias: String) {
        self.send(Request::Device(modalias));
    }

    /// Goes through all devices present.
    pub(crate) fn cold_plug(&self) {
        self.send(Request::ColdPlug);
    }

    fn send(&self, request: Request) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request);
        }
    }

    /// Lets the module being loaded finish: killing its thread could leave hardware half set up.
    pub(crate) fn stop(&mut self) {
        self.enough.store(true, Ordering::SeqCst);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
