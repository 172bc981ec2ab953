//! Long flows whose every byte is known: what comes through, how fast, and how a flow ends. TCP in either direction,
//! UDP in one.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

const CHUNK: usize = 64 * 1024;
/// Of a paced flow.
const SMALL_CHUNK: usize = 1024;
/// Longer silence ends a flow.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Settings {
    to: SocketAddr,
    /// Bytes to take from the server
    #[arg(long, default_value_t = 0)]
    download: u64,
    /// Bytes to give to the server
    #[arg(long, default_value_t = 0)]
    upload: u64,
    /// Bytes a second; 0 for as many as go
    #[arg(long, default_value_t = 0)]
    pace: u64,
    /// Do not look at the bytes that come: for figures of speed
    #[arg(long)]
    unchecked: bool,
}

#[derive(clap::Args)]
pub(crate) struct Datagrams {
    to: SocketAddr,
    /// Bytes of payload
    #[arg(long)]
    size: usize,
    #[arg(long)]
    seconds: u64,
    /// Datagrams a second; 0 for as many as go
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

/// How a flow went, as one of its ends saw it.
#[derive(Serialize)]
struct Outcome {
    bytes: u64,
    /// Every byte received was the one expected at its place.
    intact: bool,
    /// `whole`, `closed` before it was whole, `reset`, `silence`, or what else the kernel said.
    end: String,
    seconds: f64,
}

/// Answers until standard input closes; a line for every flow that ends.
pub(crate) fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("listening on TCP port {port}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                if let Ok(outcome) = answer(stream) {
                    report(&outcome);
                }
            });
        }
    });
    crate::ready();
    crate::wait_for_end();
    crate::finish("done");
    Ok(())
}

fn report(outcome: &Outcome) {
    crate::say(&serde_json::to_string(outcome).unwrap_or_default());
}

fn answer(mut stream: TcpStream) -> anyhow::Result<Outcome> {
    let mut wish = [0; 17];
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut wish)?;
    let number = |at: usize| wish[at..at + 8].try_into().map(u64::from_be_bytes);
    let (bytes, pace) = (number(1)?, number(9)?);
    Ok(match wish[0] {
        b'd' => give(&mut stream, bytes, pace),
        kind => take(&mut stream, bytes, kind == b'u'),
    })
}

/// One flow, to its end.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let to = settings.to;
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(4))
        .with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (kind, bytes) = if settings.download > 0 {
        (b'd', settings.download)
    } else {
        (
            if settings.unchecked { b'x' } else { b'u' },
            settings.upload,
        )
    };
    let wish = [
        &[kind][..],
        &bytes.to_be_bytes(),
        &settings.pace.to_be_bytes(),
    ]
    .concat();
    stream.write_all(&wish)?;
    crate::ready();
    let outcome = if kind == b'd' {
        take(&mut stream, bytes, !settings.unchecked)
    } else {
        give(&mut stream, bytes, settings.pace)
    };
    report(&outcome);
    Ok(())
}

fn expected(at: u64) -> u8 {
    (at % 251) as u8
}

fn outcome(
    bytes: u64,
    wanted: u64,
    intact: bool,
    error: Option<&std::io::Error>,
    began: Instant,
) -> Outcome {
    let end = match error.map(std::io::Error::kind) {
        None if bytes == wanted => "whole".to_owned(),
        None => "closed".to_owned(),
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => "reset".to_owned(),
        Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => "silence".to_owned(),
        Some(kind) => kind.to_string(),
    };
    Outcome {
        bytes,
        intact,
        end,
        seconds: began.elapsed().as_secs_f64(),
    }
}

fn give(stream: &mut TcpStream, wanted: u64, pace: u64) -> Outcome {
    let began = Instant::now();
    let chunk = if pace == 0 { CHUNK } else { SMALL_CHUNK };
    // Long enough that any offset of the pattern can be cut from it.
    let pattern: Vec<u8> = (0..(chunk + 251) as u64).map(expected).collect();
    let mut given = 0;
    while given < wanted {
        let left = usize::try_from(wanted - given)
            .unwrap_or(usize::MAX)
            .min(chunk);
        let from = (given % 251) as usize;
        match stream.write(&pattern[from..from + left]) {
            Ok(written) => given += written as u64,
            Err(error) => return outcome(given, wanted, true, Some(&error), began),
        }
        if pace > 0 {
            let due = Duration::from_secs_f64(given as f64 / pace as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    // The last bytes are not given before the other side has closed.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let last = stream.read(&mut [0; 1]);
    outcome(given, wanted, true, last.err().as_ref(), began)
}

fn take(stream: &mut TcpStream, wanted: u64, checked: bool) -> Outcome {
    let began = Instant::now();
    let mut buffer = vec![0; CHUNK];
    let (mut taken, mut intact) = (0, true);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return outcome(taken, wanted, intact, None, began),
            Ok(length) => {
                intact &= !checked
                    || buffer[..length]
                        .iter()
                        .zip(taken..)
                        .all(|(byte, at)| *byte == expected(at));
                taken += length as u64;
            }
            Err(error) => return outcome(taken, wanted, intact, Some(&error), began),
        }
    }
}

/// Counts what arrives until standard input closes.
pub(crate) fn count(port: u16) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("listening on UDP port {port}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let end = crate::end_flag();
    crate::ready();
    let mut buffer = vec![0; CHUNK];
    let (mut packets, mut bytes) = (0_u64, 0_u64);
    let mut times: Option<(Instant, Instant)> = None;
    while !end.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let now = Instant::now();
        // The first one only starts the clock.
        if times.is_some() {
            packets += 1;
            bytes += length as u64;
        }
        times = Some((times.map_or(now, |(first, _)| first), now));
    }
    let seconds = times.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    crate::finish(&format!(
        r#"{{"packets":{packets},"bytes":{bytes},"seconds":{seconds}}}"#
    ));
    Ok(())
}

/// Sends for a while and says how many went.
pub(crate) fn pour(settings: &Datagrams) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).context("making a UDP socket")?;
    let to = match settings.to {
        SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        v6 @ SocketAddr::V6(_) => v6,
    };
    crate::ready();
    let (began, payload) = (Instant::now(), vec![b'.'; settings.size]);
    let (mut sent, mut refused) = (0_u64, 0_u64);
    while began.elapsed() < Duration::from_secs(settings.seconds) {
        match socket.send_to(&payload, to) {
            Ok(_) => sent += 1,
            Err(_) => refused += 1,
        }
        if settings.rate > 0 {
            let due = Duration::from_secs_f64((sent + refused) as f64 / settings.rate as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    crate::say(&format!(r#"{{"sent":{sent},"refused":{refused}}}"#));
    Ok(())
}
