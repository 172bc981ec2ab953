//! The server behind everything that is measured. One thread of its own process, so that its work is nobody else's.
//!
//! It answers a TLS hello with one byte, a plain request with a short page, `BULK n` with so many bytes, and whatever
//! else with the same again.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

pub(crate) const PAGE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/plain\r\n\r\nHello, agent\n";

pub(crate) fn run(addresses: &[SocketAddr]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for address in addresses {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.set_nodelay(true)?;
            socket
                .bind(*address)
                .with_context(|| format!("binding {address}"))?;
            let listener = socket.listen(4096)?;
            tokio::spawn(async move {
                loop {
                    if let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve(stream));
                    }
                }
            });
        }
        std::future::pending().await
    })
}

async fn serve(mut stream: TcpStream) {
    loop {
        // No buffer while nothing comes: thousands of these wait.
        if stream.readable().await.is_err() {
            return;
        }
        let mut buffer = [0; 16 * 1024];
        let length = match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        let bytes = &buffer[..length];
        let answered = if bytes[0] == 22 {
            stream.write_all(b"!").await
        } else if bytes.starts_with(b"GET ") {
            stream.write_all(PAGE).await
        } else if let Some(number) = bytes.strip_prefix(b"BULK ") {
            let number = std::str::from_utf8(number)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            bulk(&mut stream, number.unwrap_or(0)).await
        } else {
            stream.write_all(bytes).await
        };
        if answered.is_err() {
            return;
        }
    }
}

async fn bulk(stream: &mut TcpStream, mut left: u64) -> std::io::Result<()> {
    let block = vec![7; 256 * 1024];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        let sent = stream.write(&block[..length]).await?;
        left -= sent as u64;
    }
    Ok(())
}

/// Answers every question for an address with this one, and says that there is none of the other family.
pub(crate) fn name_server(at: SocketAddr, address: std::net::Ipv4Addr) -> Result<()> {
    let socket = std::net::UdpSocket::bind(at).with_context(|| format!("binding {at}"))?;
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let Some(question_end) = buffer[12..length]
            .iter()
            .position(|byte| *byte == 0)
            .map(|at| 12 + at + 5)
        else {
            continue;
        };
        let wants_address = buffer[question_end - 4..question_end] == [0, 1, 0, 1];
        let mut answer = buffer[..question_end].to_vec();
        answer[2] = 0x81;
        answer[3] = 0x80;
        answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
        if wants_address {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
            answer.extend_from_slice(&address.octets());
        }
        socket.send_to(&answer, from)?;
    }
}
