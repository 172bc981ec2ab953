//! A TCP client that says bytes exactly as told, in the segments it is told to, and reports how the other side took it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// For the answer after the last step.
const LIMIT: Duration = Duration::from_secs(9);

#[derive(clap::Args)]
pub(crate) struct Settings {
    to: SocketAddr,
    /// In order: `send=HEX` in one segment, `drip=HEX` in a segment for each byte, `wait=MILLISECONDS`, `read` once,
    /// `shut` this side
    steps: Vec<String>,
}

/// Prints `<end> <milliseconds> <what was said, escaped>`; the end is `closed`, `reset` or `open`.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&settings.to, Duration::from_secs(4))
        .with_context(|| format!("connecting to {}", settings.to))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let began = Instant::now();
    let mut said = Vec::new();
    for step in &settings.steps {
        // The other side may cut at any time: what it had to say is read below.
        if !take(step, &mut stream, &mut said)? {
            break;
        }
    }
    let mut buffer = [0; 4096];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break "closed",
            Ok(length) => said.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break "open";
            }
            Err(_) => break "reset",
        }
    };
    Ok(format!(
        "{end} {} {}",
        began.elapsed().as_millis(),
        said.escape_ascii()
    ))
}

/// False once the other side takes no more.
fn take(step: &str, stream: &mut TcpStream, said: &mut Vec<u8>) -> anyhow::Result<bool> {
    let (verb, what) = step.split_once('=').unwrap_or((step, ""));
    Ok(match verb {
        "send" => stream.write_all(&bytes(what)?).is_ok(),
        "drip" => bytes(what)?.iter().all(|byte| {
            std::thread::sleep(Duration::from_micros(300));
            stream.write_all(&[*byte]).is_ok()
        }),
        "wait" => {
            std::thread::sleep(Duration::from_millis(what.parse()?));
            true
        }
        "read" => {
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap_or(0);
            said.extend_from_slice(&buffer[..length]);
            length > 0
        }
        "shut" => stream.shutdown(Shutdown::Write).is_ok(),
        _ => bail!("`{step}` is no step"),
    })
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| {
            let pair = std::str::from_utf8(pair)?;
            u8::from_str_radix(pair, 16)
                .with_context(|| format!("`{pair}` is not a byte in hexadecimal"))
        })
        .collect()
}

/// Opens so many connections, says nothing on any, and holds them until told to end.
pub(crate) fn crowd(to: SocketAddr, count: usize) -> anyhow::Result<()> {
    let connections: Vec<TcpStream> = (0..count)
        .map(|_| {
            TcpStream::connect_timeout(&to, Duration::from_secs(4))
                .with_context(|| format!("connecting to {to}"))
        })
        .collect::<anyhow::Result<_>>()?;
    crate::ready();
    crate::wait_for_end();
    crate::finish(&format!("{} connections", connections.len()));
    Ok(())
}
