//! The lab's helper: each verb is one thing that runs inside a namespace of the network lab.
//!
//! All verbs but `dial`, `converse` and `console` keep one manner: they print `ready`, work until their standard input closes, and print a last line.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};

mod capture;
mod console;
mod converse;
mod dhcp;
mod hammer;
mod inject;
mod internet;
mod resolver;
mod stream;

#[derive(Parser)]
#[command(about = "Helper of the Clawgress network lab; started by the VM tests")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Keep the namespaces alive in which this was started
    Hold,
    /// Record every frame of an interface into a pcap file
    Capture {
        #[arg(long)]
        interface: String,
        #[arg(long)]
        file: PathBuf,
    },
    /// Be the network outside: DHCP server, router, and hosts that answer at every address routed here
    Internet(internet::Settings),
    /// Send every kind of traffic that must not pass
    Hammer(Box<hammer::Settings>),
    /// Connect by TCP and print what the other side says first. Ends by itself
    Dial { to: SocketAddr },
    /// Connect by TCP, say exactly what is told, and print what came of it. Ends by itself
    Converse(converse::Settings),
    /// Open many TCP connections and say nothing on them
    Crowd { to: SocketAddr, count: usize },
    /// Answer DNS queries for the names of the fake internet
    Resolver { listen: SocketAddr },
    /// Put frames, in hexadecimal digits, on a wire; prints how many it took and ends by itself
    Inject {
        interface: String,
        frames: Vec<String>,
    },
    /// Give and take long streams on a TCP port
    Streams { port: u16 },
    /// One long stream, down or up; prints how it went and ends by itself
    Stream(stream::Settings),
    /// Count the datagrams that arrive on a UDP port
    Count { port: u16 },
    /// Send datagrams for a while; prints how many and ends by itself
    Pour(stream::Datagrams),
    /// Talk with a machine through the socket of its serial console
    Console { socket: PathBuf },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Hold => {
            ready();
            wait_for_end();
            finish("done");
        }
        Verb::Capture { interface, file } => capture::run(&interface, &file)?,
        Verb::Internet(settings) => internet::run(&settings)?,
        Verb::Hammer(settings) => hammer::run(&settings)?,
        Verb::Dial { to } => finish(&dial(to)?),
        Verb::Converse(settings) => finish(&converse::run(&settings)?),
        Verb::Crowd { to, count } => converse::crowd(to, count)?,
        Verb::Resolver { listen } => resolver::run(listen)?,
        Verb::Inject { interface, frames } => inject::run(&interface, &frames)?,
        Verb::Streams { port } => stream::serve(port)?,
        Verb::Stream(settings) => stream::run(&settings)?,
        Verb::Count { port } => stream::count(port)?,
        Verb::Pour(settings) => stream::pour(&settings)?,
        Verb::Console { socket } => console::run(&socket)?,
    }
    Ok(())
}

fn say(line: &str) {
    let mut output = std::io::stdout();
    // The reader is gone only if the test is gone; then this process ends too.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

fn ready() {
    say("ready");
}

fn finish(line: &str) {
    say(line);
}

/// An agent's honest try. The limit is one retransmission and more.
fn dial(to: SocketAddr) -> anyhow::Result<String> {
    let limit = Duration::from_secs(4);
    let mut stream =
        TcpStream::connect_timeout(&to, limit).with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(limit))?;
    let mut buffer = [0; 512];
    let length = stream
        .read(&mut buffer)
        .with_context(|| format!("reading from {to}"))?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
}

/// Blocks until standard input closes.
fn wait_for_end() {
    // An error ends it as well: there is nobody left to work for.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A flag that rises when standard input closes.
fn end_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    std::thread::spawn(move || {
        wait_for_end();
        raised.store(true, Ordering::Relaxed);
    });
    flag
}
