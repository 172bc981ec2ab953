//! What stands outside in these tests: a server that answers hellos and requests, and a name server that leads to it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
    /// All that came, by connection.
    pub(crate) heard: Mutex<Vec<Vec<u8>>>,
}

/// A tunnel's bytes are of no interest beyond its beginning.
const MOST_HEARD: usize = 1 << 20;

impl Counts {
    fn note(&self, connection: usize, bytes: &[u8]) {
        let mut heard = self.heard.lock().unwrap();
        if heard.len() <= connection {
            heard.resize(connection + 1, Vec::new());
        }
        if heard[connection].len() < MOST_HEARD {
            heard[connection].extend_from_slice(bytes);
        }
    }
}

/// Answers a hello with one byte and then echoes; answers requests with a page that quotes them.
pub(crate) fn server(listener: &TcpListener, counts: &Arc<Counts>) {
    while let Ok((mut stream, _)) = listener.accept() {
        let number = counts.connections.fetch_add(1, Ordering::SeqCst);
        let counts = Arc::clone(counts);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            let mut greeted = false;
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                counts.bytes.fetch_add(length, Ordering::SeqCst);
                counts.note(number, &buffer[..length]);
                let bytes = buffer[..length].to_vec();
                let done = if !greeted && bytes[0] == 22 {
                    greeted = true;
                    stream.write_all(b"!")
                } else if !greeted {
                    page(&mut stream, bytes)
                } else {
                    stream.write_all(&bytes)
                };
                if done.is_err() {
                    return;
                }
            }
        });
    }
}

fn page(stream: &mut TcpStream, mut request: Vec<u8>) -> std::io::Result<()> {
    let text = String::from_utf8_lossy(&request).into_owned();
    if text.contains("Expect: 100-continue") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        let mut byte = [0];
        while !request.ends_with(b"0\r\nDigest: d\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    stream.write_all(&[head.as_bytes(), &request].concat())
}

/// `inside…` leads inside, `silent…` is never answered, every other name leads to the server.
pub(crate) fn name_server(socket: &UdpSocket) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Some(end) = buffer[12..length]
            .iter()
            .position(|byte| *byte == 0)
            .map(|at| 12 + at + 5)
        else {
            continue;
        };
        if buffer[13..].starts_with(b"silent") {
            continue;
        }
        let wanted = buffer[end - 4..end] == [0, 1, 0, 1];
        let address = if buffer[13..].starts_with(b"inside") {
            Ipv4Addr::new(10, 1, 2, 3)
        } else {
            SERVER
        };
        let mut answer = buffer[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(wanted), 0, 0, 0, 0]);
        if wanted {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
            answer.extend(address.octets());
        }
        let _ = socket.send_to(&answer, from);
    }
}

pub(crate) fn hello(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let length = name.len() as u16;
    let mut extensions = vec![0, 0];
    extensions.extend((length + 5).to_be_bytes());
    extensions.extend((length + 3).to_be_bytes());
    extensions.push(0);
    extensions.extend(length.to_be_bytes());
    extensions.extend(name);
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
