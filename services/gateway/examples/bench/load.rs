//! The load: blocking clients on threads, which cost little and hide nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub(crate) const HOST: &str = "origin.bench.test";

/// How a client reaches the origin.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// None: the origin itself.
    pub(crate) proxy: Option<Proxy>,
}

#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    /// Sent to open a tunnel.
    pub(crate) connect: Vec<u8>,
    /// Sent for a page.
    pub(crate) get: Vec<u8>,
}

impl Proxy {
    pub(crate) fn with(authorization: &str) -> Self {
        Self {
            connect: format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n{authorization}\r\n").into_bytes(),
            get: format!("GET http://{HOST}/page HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n{authorization}\r\n").into_bytes(),
        }
    }
}

/// A hello that names the host, as small clients send it.
pub(crate) fn hello() -> Vec<u8> {
    let name = HOST.as_bytes();
    let mut list = vec![0];
    list.extend((name.len() as u16).to_be_bytes());
    list.extend(name);
    let mut extensions = vec![0, 0];
    extensions.extend((list.len() as u16 + 2).to_be_bytes());
    extensions.extend((list.len() as u16).to_be_bytes());
    extensions.extend(list);
    // Padding: hellos of today fill half a kilobyte.
    extensions.extend([0, 21, 1, 0x40]);
    extensions.extend([0; 0x140]);
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Opens a way to the origin that has carried one byte back.
pub(crate) fn open(way: &Way, hello: &[u8]) -> Result<TcpStream> {
    let mut stream =
        TcpStream::connect(way.address).with_context(|| format!("connecting to {}", way.name))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    if let Some(proxy) = &way.proxy {
        stream.write_all(&proxy.connect)?;
        let mut answer = Vec::with_capacity(512);
        let mut buffer = [0; 512];
        while !answer.ends_with(b"\r\n\r\n") {
            let length = stream
                .read(&mut buffer)
                .with_context(|| format!("waiting for {}", way.name))?;
            ensure!(
                length > 0,
                "{} closed: {}",
                way.name,
                String::from_utf8_lossy(&answer)
            );
            answer.extend_from_slice(&buffer[..length]);
            let good = [b"HTTP/1.1 200".as_slice(), b"HTTP/1.0 200"]
                .iter()
                .any(|good| answer.starts_with(good));
            ensure!(
                answer.len() < 12 || good,
                "{} said {}",
                way.name,
                String::from_utf8_lossy(&answer)
            );
        }
    }
    stream.write_all(hello)?;
    let mut byte = [0];
    stream
        .read_exact(&mut byte)
        .with_context(|| format!("waiting for the first byte through {}", way.name))?;
    Ok(stream)
}

/// Microseconds of each of so many openings, by so many clients at once.
pub(crate) fn openings(way: &Way, clients: usize, each: usize) -> Result<Vec<f64>> {
    let hello = hello();
    in_threads(clients, || {
        let mut took = Vec::with_capacity(each);
        for _ in 0..each {
            let begun = Instant::now();
            let stream = open(way, &hello)?;
            took.push(begun.elapsed().as_secs_f64() * 1e6);
            drop(stream);
        }
        Ok(took)
    })
}

/// How many were opened within the time.
pub(crate) fn openings_within(
    way: &Way,
    clients: usize,
    time: Duration,
) -> Result<(usize, Duration)> {
    let hello = hello();
    let begun = Instant::now();
    let counts = in_threads(clients, || {
        let mut count = 0_usize;
        while begun.elapsed() < time {
            drop(open(way, &hello)?);
            count += 1;
        }
        Ok(vec![count])
    })?;
    Ok((counts.iter().sum(), begun.elapsed()))
}

/// Microseconds of each opening, so many a second, by four clients in turns.
pub(crate) fn paced(way: &Way, a_second: u32, time: Duration) -> Result<Vec<f64>> {
    const CLIENTS: u32 = 4;
    let hello = hello();
    let pause = Duration::from_secs(1) * CLIENTS / a_second;
    in_threads(CLIENTS as usize, || {
        let begun = Instant::now();
        let mut took = Vec::new();
        let mut due = begun;
        while begun.elapsed() < time {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let from = Instant::now();
            drop(open(way, &hello)?);
            took.push(from.elapsed().as_secs_f64() * 1e6);
            due += pause;
        }
        Ok(took)
    })
}

/// Bytes a second through so many tunnels together.
pub(crate) fn bulk(way: &Way, streams: usize, each: u64) -> Result<f64> {
    let hello = hello();
    let mut opened = Vec::new();
    for _ in 0..streams {
        opened.push(open(way, &hello)?);
    }
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = opened
            .into_iter()
            .map(|mut stream| {
                scope.spawn(move || -> Result<()> {
                    stream.write_all(format!("BULK {each}\n").as_bytes())?;
                    let mut buffer = vec![0; 256 * 1024];
                    let mut left = each;
                    while left > 0 {
                        let length = stream.read(&mut buffer)?;
                        ensure!(length > 0, "the stream ended {left} bytes early");
                        left -= length as u64;
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread of the load"))
    })?;
    Ok(each as f64 * streams as f64 / begun.elapsed().as_secs_f64())
}

/// One small exchange inside an open tunnel.
pub(crate) fn exchange(stream: &mut TcpStream) -> Result<()> {
    let mut answer = [0; 64];
    stream.write_all(&[b'x'; 64])?;
    stream.read_exact(&mut answer)?;
    Ok(())
}

/// Microseconds of each of so many.
pub(crate) fn exchanges(way: &Way, count: usize) -> Result<Vec<f64>> {
    let mut stream = open(way, &hello())?;
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        exchange(&mut stream)?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// Microseconds of each page over one kept connection.
pub(crate) fn pages(way: &Way, count: usize) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(way.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let direct = format!("GET /page HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n").into_bytes();
    let request = way.proxy.as_ref().map_or(&direct, |proxy| &proxy.get);
    let mut took = Vec::with_capacity(count);
    let mut buffer = [0; 4096];
    for _ in 0..count {
        let begun = Instant::now();
        stream.write_all(request)?;
        let mut length = 0;
        while !buffer[..length].ends_with(b"Hello, agent\n") {
            let more = stream.read(&mut buffer[length..])?;
            ensure!(
                more > 0,
                "{} closed: {}",
                way.name,
                String::from_utf8_lossy(&buffer[..length])
            );
            length += more;
        }
        took.push(begun.elapsed().as_secs_f64() * 1e6);
        ensure!(
            buffer.starts_with(b"HTTP/1.1 200"),
            "{} said {}",
            way.name,
            String::from_utf8_lossy(&buffer[..length])
        );
    }
    Ok(took)
}

fn in_threads<T: Send>(clients: usize, work: impl Fn() -> Result<Vec<T>> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(&work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().expect("a thread of the load")?);
        }
        Ok(all)
    })
}
