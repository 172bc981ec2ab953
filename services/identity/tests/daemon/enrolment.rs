//! Certificates for the box's services, and what a peer without the right one gets.

use std::os::unix::fs::PermissionsExt;

use clawgress_config::access::Access;
use clawgress_link::enrol::Place;
use clawgress_link::mtls::{self, Role};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::world::World;

#[tokio::test]
async fn a_service_is_what_its_user_says_and_nothing_else() {
    let world = World::start(Access::default()).await;
    let place = world.place();
    let own = place.credentials().await.unwrap();
    assert_eq!(own.stored().role, Role::Gateway);
    assert!(own.stored().credential_key.is_some());
    let mode = std::fs::metadata(world.path("gateway/credentials.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // The second time they are on disk.
    assert_eq!(place.credentials().await.unwrap().stored(), own.stored());
    let quota = Place {
        role: Role::Quota,
        directory: world.path("files"),
        socket: place.socket.clone(),
    };
    let error = quota.credentials().await.unwrap_err().to_string();
    assert!(
        error.contains("took this service for gateway, and it is quota"),
        "{error}"
    );
    // Damage is no reason to stay away.
    std::fs::write(world.path("gateway/credentials.json"), "{").unwrap();
    assert_ne!(place.credentials().await.unwrap().stored(), own.stored());
}

#[tokio::test]
async fn the_snapshot_is_for_services_of_this_box_alone() {
    let (world, other) = (
        World::start(Access::default()).await,
        World::start(Access::default()).await,
    );
    let ours = world.place().credentials().await.unwrap();
    let theirs = other.place().credentials().await.unwrap();
    let name = || ServerName::IpAddress(world.address.ip().into());
    let connect = |connector: tokio_rustls::TlsConnector| async move {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let mut stream = connector.connect(name(), stream).await?;
        stream
            .write_all(b"GET /bundles/identity HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = connect(mtls::client(&ours, &[Role::Identity]).unwrap())
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"kind\":\"identity\""), "{answer}");
    // A peer of another box, and one that expects another role than it meets.
    assert!(
        connect(mtls::client(&theirs, &[Role::Identity]).unwrap())
            .await
            .is_err()
    );
    let error = connect(mtls::client(&ours, &[Role::Policy]).unwrap())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("found: \"identity\", allowed: \"policy\""),
        "{error}"
    );
}

#[tokio::test]
async fn nonsense_on_the_sockets_is_answered_and_harms_nobody() {
    let world = World::start(Access::default()).await;
    for socket in ["admin.sock", "enrol.sock"] {
        for line in [
            b"\n".as_slice(),
            b"{}\n",
            b"\xff\xfe\n",
            b"{\"public_key\":\"00\"}\n",
        ] {
            let mut stream = UnixStream::connect(world.path(socket)).await.unwrap();
            stream.write_all(line).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("\"is\":\"error\""), "{answer}");
        }
        // Whoever sends without end is cut off at the longest request.
        let mut stream = UnixStream::connect(world.path(socket)).await.unwrap();
        let mut sent = 0;
        while sent < 10_000_000 && stream.write_all(&vec![b'['; 65_536]).await.is_ok() {
            sent += 65_536;
        }
        assert!(sent < 2_000_000, "{sent}");
    }
    world.place().credentials().await.unwrap();
}
