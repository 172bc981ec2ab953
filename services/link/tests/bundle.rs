//! Bundles from a publisher to a watcher over real connections: signed, rising, kept.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::bundle::{self, BundleError, Mark, Publisher, Signed, Watched, Watcher};
use clawgress_link::ca::Authority;
use clawgress_link::enrol::new_key;
use clawgress_link::mtls::{self, Credentials, Role, Stored};
use http_body_util::Full;
use hyper::Response;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const KIND: &str = "test";

fn credentials(
    authority: &Authority,
    role: Role,
    lifetime: Duration,
    bundle_key: &str,
) -> Arc<Credentials> {
    let (key, public_key) = new_key().unwrap();
    let signed = authority.sign_for(role, &public_key, lifetime).unwrap();
    Credentials::of(Stored {
        role,
        key,
        certificate: signed.certificate,
        authorities: authority.certificate().to_owned(),
        issued: 0,
        expires: signed.expires,
        bundle_keys: vec![bundle_key.to_owned()],
        credential_key: None,
    })
    .unwrap()
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate is good through the second in which it ends.
async fn ended(authority: &Authority, bundle_key: &str) -> Arc<Credentials> {
    let own = credentials(authority, Role::Gateway, Duration::ZERO, bundle_key);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    own
}

struct House {
    directory: tempfile::TempDir,
    authority: Authority,
    publisher: Arc<Publisher>,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            authority: Authority::open(directory.path()).unwrap(),
            publisher: Arc::new(Publisher::open(directory.path(), KIND).unwrap()),
            directory,
        }
    }

    fn own(&self, role: Role) -> Arc<Credentials> {
        credentials(&self.authority, role, DAY, &self.publisher.public_key())
    }

    async fn serve(&self, address: Option<SocketAddr>) -> (SocketAddr, JoinHandle<()>) {
        let address = address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = mtls::server(&self.own(Role::Identity), &[Role::Gateway]).unwrap();
        let publisher = Arc::clone(&self.publisher);
        let server = mtls::http::serve(listener, acceptor, move |_, request| {
            let publisher = Arc::clone(&publisher);
            async move {
                let answer = publisher.answer(request.uri()).await;
                answer.unwrap_or_else(|| {
                    Response::builder()
                        .status(404)
                        .body(Full::default())
                        .unwrap()
                })
            }
        });
        (address, tokio::spawn(server))
    }

    fn watch(&self, address: SocketAddr, own: &Arc<Credentials>) -> Watched<String> {
        let file = self.directory.path().join("kept.bundle");
        Watcher::new(KIND, (Role::Identity, address), file, own)
            .start()
            .unwrap()
    }

    fn published(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("test.bundle")).unwrap()
    }

    fn open(&self, bytes: &[u8]) -> Result<Signed<String>, BundleError> {
        bundle::open("it", KIND, &[self.publisher.public_key()], bytes)
    }
}

async fn until(watched: &mut Watched<String>, content: &str) {
    let waiting = watched.current.wait_for(|bundle| {
        bundle
            .as_ref()
            .is_some_and(|bundle| bundle.content == content)
    });
    tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap()
        .unwrap();
}

async fn stays_unreachable(watched: &mut Watched<String>) {
    let waiting = watched.reachable.wait_for(|reachable| *reachable);
    assert!(
        tokio::time::timeout(Duration::from_millis(400), waiting)
            .await
            .is_err()
    );
    assert!(watched.current.borrow().is_none());
}

#[test]
fn one_changed_byte_anywhere_is_no_bundle() {
    let this = House::new();
    this.publisher.publish(&"content", 5).unwrap();
    let good = this.published();
    assert_eq!(this.open(&good).unwrap().content, "content");
    for place in 0..good.len() {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        assert!(this.open(&bytes).is_err(), "{place}");
        assert!(this.open(&good[..place]).is_err(), "{place}");
    }
    assert!(bundle::open::<String>("it", "other", &[this.publisher.public_key()], &good).is_err());
    assert!(
        bundle::open::<String>("it", KIND, &[House::new().publisher.public_key()], &good).is_err()
    );
    assert!(bundle::open::<String>("it", KIND, &[], &good).is_err());
    assert!(bundle::open::<u32>("it", KIND, &[this.publisher.public_key()], &good).is_err());
}

#[test]
fn numbers_rise_over_restarts_and_epochs_and_not_without_a_change() {
    let this = House::new();
    let reopened = || Publisher::open(this.directory.path(), KIND).unwrap();
    assert_eq!(this.publisher.mark(), None);
    assert_eq!(
        this.publisher.publish(&"a", 1).unwrap(),
        Mark {
            epoch: 1,
            number: 1
        }
    );
    assert_eq!(
        this.publisher.publish(&"a", 2).unwrap(),
        Mark {
            epoch: 1,
            number: 1
        }
    );
    assert_eq!(
        reopened().publish(&"b", 3).unwrap(),
        Mark {
            epoch: 1,
            number: 2
        }
    );
    let new_epoch = reopened().publish_in_new_epoch(&"b", 4).unwrap();
    assert_eq!(
        new_epoch,
        Mark {
            epoch: 2,
            number: 1
        }
    );
    assert_eq!(
        reopened().publish(&"a", 5).unwrap(),
        Mark {
            epoch: 2,
            number: 2
        }
    );
    std::fs::remove_file(this.directory.path().join("bundle.key")).unwrap();
    let error = Publisher::open(this.directory.path(), KIND)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("bundle.key") && error.contains("restore it"),
        "{error}"
    );
}

#[tokio::test]
async fn a_watcher_follows_keeps_the_last_good_one_and_takes_no_step_back() {
    let this = House::new();
    let own = this.own(Role::Gateway);
    this.publisher.publish(&"one", 1).unwrap();
    let one = this.published();
    let (address, server) = this.serve(None).await;
    let mut watched = this.watch(address, &own);
    until(&mut watched, "one").await;
    this.publisher.publish(&"two", 2).unwrap();
    until(&mut watched, "two").await;
    server.abort();
    drop(watched);

    // A publisher that fell back to an older state, signed as well as ever.
    let file = this.directory.path().join("kept.bundle");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        this.open(&std::fs::read(&file).unwrap()).unwrap().content,
        "two"
    );
    std::fs::write(this.directory.path().join("test.bundle"), &one).unwrap();
    let older = House {
        directory: tempfile::tempdir().unwrap(),
        authority: Authority::open(this.directory.path()).unwrap(),
        publisher: Arc::new(Publisher::open(this.directory.path(), KIND).unwrap()),
    };
    let (address, _server) = older.serve(None).await;
    let mut watched = this.watch(address, &own);
    assert_eq!(watched.current.borrow().as_ref().unwrap().content, "two");
    older.publisher.publish(&"another two", 3).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(watched.current.borrow().as_ref().unwrap().content, "two");
    older.publisher.publish(&"three", 4).unwrap();
    until(&mut watched, "three").await;
    older
        .publisher
        .publish_in_new_epoch(&"restored", 5)
        .unwrap();
    until(&mut watched, "restored").await;
}

#[tokio::test]
async fn what_is_kept_is_judged_again_before_it_counts() {
    let this = House::new();
    let own = this.own(Role::Gateway);
    this.publisher.publish(&"one", 1).unwrap();
    let mut kept = this.published();
    let place = kept.len() - 4;
    kept[place] ^= 1;
    std::fs::write(this.directory.path().join("kept.bundle"), kept).unwrap();
    let (address, _server) = this.serve(None).await;
    let mut watched = this.watch(address, &own);
    assert!(watched.current.borrow().is_none());
    until(&mut watched, "one").await;
}

#[tokio::test]
async fn a_peer_of_another_role_of_another_box_or_past_its_end_gets_nothing() {
    let (this, other) = (House::new(), House::new());
    this.publisher.publish(&"one", 1).unwrap();
    let (address, _server) = this.serve(None).await;
    let key = this.publisher.public_key();
    for own in [
        this.own(Role::Quota),
        credentials(&other.authority, Role::Gateway, DAY, &key),
        ended(&this.authority, &key).await,
    ] {
        stays_unreachable(&mut this.watch(address, &own)).await;
    }
    // And one that is none of that, but who signed is unknown to it.
    let own = credentials(
        &this.authority,
        Role::Gateway,
        DAY,
        &other.publisher.public_key(),
    );
    let watched = this.watch(address, &own);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(watched.current.borrow().is_none());
}

#[tokio::test]
async fn a_renewed_certificate_is_used_by_the_next_connection() {
    let this = House::new();
    this.publisher.publish(&"one", 1).unwrap();
    let (address, server) = this.serve(None).await;
    let own = ended(&this.authority, &this.publisher.public_key()).await;
    let mut watched = this.watch(address, &own);
    stays_unreachable(&mut watched).await;
    own.replace(this.directory.path(), this.own(Role::Gateway).stored())
        .unwrap();
    until(&mut watched, "one").await;
    server.abort();
    let kept = Credentials::open(this.directory.path()).unwrap().unwrap();
    assert_eq!(kept.stored(), own.stored());
}

#[test]
fn half_an_authority_is_told_and_nothing_but_a_point_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| -> std::path::PathBuf { Path::join(directory.path(), name) };
    let first = Authority::open(directory.path()).unwrap();
    let again = Authority::open(directory.path()).unwrap();
    assert_eq!(first.certificate(), again.certificate());
    for wrong in [vec![], vec![4; 64], vec![2; 65], vec![4; 66]] {
        assert!(first.sign(Role::Gateway, &wrong).is_err());
    }
    std::fs::remove_file(path("authority.crt")).unwrap();
    let error = Authority::open(directory.path()).err().unwrap().to_string();
    assert!(
        error.contains("authority.key is half of an authority"),
        "{error}"
    );
}
