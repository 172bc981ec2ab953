//! The client of unix sockets against a server that writes what it is told: whole answers, cut ones, endless ones.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
    time::Duration,
};

use clawgress_link::{admin, unix_http};

const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// Answers one call with these bytes and hangs up.
fn answering(answer: String) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        stream.write_all(answer.as_bytes()).unwrap();
    });
    (directory, socket)
}

async fn taken(answer: &str, most: usize) -> Result<Vec<u8>, String> {
    let (_directory, socket) = answering(answer.to_owned());
    let mut answer = unix_http::send(&socket, "asking", "/x", b"{}".to_vec())
        .await
        .map_err(|error| error.to_string())?;
    assert_eq!(answer.status, 200);
    answer.whole(most).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_answer_is_whole_or_an_error() {
    let whole = format!("{HEAD}3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(taken(&whole, 6).await.unwrap(), b"onetwo");
    let error = taken(&whole, 5).await.unwrap_err();
    assert!(error.contains("larger than 5 bytes"), "{error}");
    // Cut within a chunk, and between two of them.
    for cut in [format!("{HEAD}5\r\non"), format!("{HEAD}3\r\none\r\n")] {
        let error = taken(&cut, 100).await.unwrap_err();
        assert!(error.contains("asking: the answer was cut off"), "{error}");
    }
    let error = taken("HTTP/1.1 2", 100).await.unwrap_err();
    assert!(error.starts_with("asking: "), "{error}");
}

#[tokio::test]
async fn a_stream_is_read_while_it_grows() {
    let (_directory, socket) = answering(format!("{HEAD}4\r\none\n\r\n0\r\n\r\n"));
    let deadline = Duration::from_secs(5);
    let mut answer = admin::open(&socket, "/x", Vec::new(), deadline)
        .await
        .unwrap();
    assert_eq!(answer.piece().await.unwrap().unwrap().as_ref(), b"one\n");
    assert!(answer.piece().await.unwrap().is_none());
}
