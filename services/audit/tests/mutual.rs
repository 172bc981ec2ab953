//! Shipping over mutual TLS: a service of this box ships under its own role's name, and nobody else gets in.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clawgress_audit::event::{Begun, Outcome};
use clawgress_audit::queue::{Queue, Settings};
use clawgress_audit::ship::{ShipError, ship};
use clawgress_link::ca::Authority;
use clawgress_link::mtls::{self, Credentials, Role, Stored};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn stored(authority: &Authority, role: Role) -> Stored {
    let (key, public_key) = clawgress_link::enrol::new_key().unwrap();
    let signed = authority.sign(role, &public_key).unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    Stored {
        role,
        key,
        certificate: signed.certificate,
        authorities: authority.certificate().to_owned(),
        issued: now.as_secs().cast_signed(),
        expires: signed.expires,
        bundle_keys: Vec::new(),
        credential_key: None,
    }
}

#[tokio::test]
async fn a_service_ships_under_its_roles_name_alone() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    for name in ["authority", "other", "state"] {
        std::fs::create_dir(place.join(name)).unwrap();
    }
    let authority = Authority::open(&place.join("authority")).unwrap();
    let own = serde_json::to_vec(&stored(&authority, Role::Audit)).unwrap();
    std::fs::write(place.join("state/credentials.json"), own).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config = format!(
        "state = \"{0}/state\"\napi_socket = \"{0}/api.sock\"\napi_uids = []\nship_socket = \"{0}/ship.sock\"\n\
         ship_listen = \"{address}\"\nenrol_socket = \"{0}/none\"\nsegment_bytes = 65536\ncheckpoint_seconds = 1\n\
         resolver = \"127.0.0.1:53\"\nrevision = \"{0}/boot.json\"\nfiles = \"{0}/config\"\n[shippers]\n[peers]\ngateway-2 = \"127.0.0.1\"\ngateway-4 = \"192.0.2.4\"\n",
        place.display()
    );
    std::fs::write(place.join("audit.toml"), config).unwrap();
    let mut service = Command::new(env!("CARGO_BIN_EXE_clawgress-audit"))
        .arg("--config")
        .arg(place.join("audit.toml"))
        .spawn()
        .unwrap();
    let queue = Queue::open(&place.join("queue"), Settings::default()).unwrap();
    queue.whole(&Begun::default(), &Outcome::default()).unwrap();
    queue.flush().await.unwrap();
    let try_as = async |credentials: Arc<Credentials>, name: &str| {
        let connector = mtls::client(&credentials, &[Role::Audit]).unwrap();
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let stream = connector
            .connect(ServerName::try_from("clawgress").unwrap(), stream)
            .await?;
        ship(stream, &mut queue.reader(), name, true).await
    };
    let gateway = Credentials::of(stored(&authority, Role::Gateway)).unwrap();
    let refused = try_as(Arc::clone(&gateway), "dns").await.unwrap_err();
    assert!(
        matches!(&refused, ShipError::Refused(words) if words.contains("'dns'")),
        "{refused}"
    );
    let other = Authority::open(&place.join("other")).unwrap();
    let stranger = Stored {
        authorities: authority.certificate().to_owned(),
        ..stored(&other, Role::Gateway)
    };
    assert!(
        try_as(Credentials::of(stranger).unwrap(), "gateway")
            .await
            .is_err()
    );
    // Neither as this box's own gateway, nor as one that the configuration does not have at this address.
    for name in ["gateway", "gateway-3", "gateway-4"] {
        let refused = try_as(Arc::clone(&gateway), name).await.unwrap_err();
        assert!(matches!(&refused, ShipError::Refused(_)), "{refused}");
    }
    assert_eq!(queue.status().waiting, 1);
    try_as(Arc::clone(&gateway), "gateway-2").await.unwrap();
    assert_eq!(queue.status().waiting, 0);
    // The policy service of another box may ask at the same door, and no other role.
    let ask_as = async |credentials: Arc<Credentials>| {
        let connector = mtls::client(&credentials, &[Role::Audit]).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("clawgress").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let question = "POST /audit/query HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A peer that is not answered is cut off.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let policy = Credentials::of(stored(&authority, Role::Policy)).unwrap();
    let answer = ask_as(policy).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"gateway\":\"gateway-2\""),
        "{answer}"
    );
    assert_eq!(ask_as(gateway).await, "");
    service.kill().unwrap();
    service.wait().unwrap();
}
