//! Traffic between the agent and the site of these tests.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Does something on one of these machines, in a thread of its own.
pub(crate) fn on<T: Send + 'static>(
    machine: &str,
    what: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let namespace = fs::File::open(format!("/run/netns/{machine}")).unwrap();
    std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        what()
    })
}

/// Takes one connection and counts what comes. It is never told of an end: a site that only listens learns of a cut
/// when it next says something.
pub(crate) fn sink(address: &'static str) -> Arc<AtomicU64> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let total = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&total);
    on("site", move || {
        let listener = TcpListener::bind(address).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            counted.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    is_ready.recv().unwrap();
    total
}

/// Connects from an address of the agent and sends until it can't; how long that went on.
pub(crate) fn send_from(
    source: &'static str,
    to: &'static str,
) -> std::thread::JoinHandle<Result<Duration, String>> {
    on("agent", move || {
        let mut stream = connect_from(source, to)?;
        let begun = Instant::now();
        let chunk = vec![7; 16 * 1024];
        while stream.write_all(&chunk).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(begun.elapsed())
    })
}

pub(crate) fn connect_from(source: &str, to: &str) -> Result<TcpStream, String> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let failed = |error: nix::Error| error.to_string();
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(failed)?;
    let source: std::net::SocketAddrV4 = format!("{source}:0").parse().unwrap();
    let to: std::net::SocketAddrV4 = to.parse().unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(source)).map_err(failed)?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).map_err(failed)?;
    Ok(TcpStream::from(socket))
}
