//! Unit states and starts against a systemd of a few lines, spoken to directly instead of over a bus.

#![expect(
    clippy::unused_self,
    clippy::unused_async,
    reason = "the interface macro decides the signatures"
)]

use std::{os::unix::net::UnixStream, time::Duration};

use clawgress_link::{ProbeError, units};
use zbus::{
    Connection, Guid, OwnedObjectPath, connection::Builder, fdo, interface,
    object_server::SignalEmitter,
};

const DEADLINE: Duration = Duration::from_secs(5);

type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// What becomes of the job of `StartUnit`.
#[derive(Clone, Copy)]
enum Job {
    Ends(&'static str),
    NeverEnds,
}

struct Manager(Job);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn subscribe(&self) {}

    async fn list_units_by_names(&self, names: Vec<String>) -> Vec<Listed> {
        names
            .into_iter()
            .rev()
            .map(|name| {
                let (load, active, sub, place) = match name.as_str() {
                    "named.service" => ("loaded", "active", "running", "named"),
                    _ => ("not-found", "inactive", "dead", "nobody"),
                };
                let text = str::to_owned;
                (
                    name,
                    text("a unit"),
                    text(load),
                    text(active),
                    text(sub),
                    String::new(),
                    OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/unit/{place}"))
                        .unwrap(),
                    0,
                    String::new(),
                    path("/"),
                )
            })
            .collect()
    }

    async fn start_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        assert_eq!(mode, "replace");
        if name != "named.service" {
            return Err(fdo::Error::Failed(format!("Unit {name} not found.")));
        }
        if let Job::Ends(result) = self.0 {
            // Somebody else's job ends first; and ours ends before its number has been told.
            Self::job_removed(&emitter, 6, path("/job/6"), "haproxy.service", "failed").await?;
            Self::job_removed(&emitter, 7, path("/job/7"), "named.service", result).await?;
        }
        Ok(path("/job/7"))
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

fn path(text: &'static str) -> OwnedObjectPath {
    OwnedObjectPath::try_from(text).unwrap()
}

struct Service;

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property, name = "NRestarts")]
    fn restarts(&self) -> u32 {
        3
    }
}

/// Both ends; the first is systemd's and has to stay alive.
async fn systemd(job: Job) -> (Connection, Connection) {
    let (server, client) = UnixStream::pair().unwrap();
    let guid = Guid::generate();
    let server = Builder::unix_stream(server)
        .server(guid)
        .p2p()
        .serve_at("/org/freedesktop/systemd1", Manager(job))
        .serve_at("/org/freedesktop/systemd1/unit/named", Service)
        .build();
    let client = Builder::unix_stream(client).p2p().build();
    let (server, client) = tokio::join!(server, client);
    (server.unwrap(), client.unwrap())
}

#[tokio::test]
async fn the_state_of_a_unit_is_read_whole() {
    let (_systemd, bus) = systemd(Job::NeverEnds).await;
    let state = units::state(&bus, "named.service").await.unwrap();
    assert!(state.is_up());
    assert_eq!(state.to_string(), "active (running), restarted 3 times");
}

#[tokio::test]
async fn many_are_asked_for_at_once_and_told_in_the_order_of_the_names() {
    let (_systemd, bus) = systemd(Job::NeverEnds).await;
    let states = units::states(&bus, &["nobody.service", "named.service"])
        .await
        .unwrap();
    let told: Vec<String> = states.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["not-found", "active (running)"]);
    assert!(!states[0].is_up() && states[1].is_up());
}

#[tokio::test]
async fn a_start_is_done_when_its_own_job_is() {
    let (_systemd, bus) = systemd(Job::Ends("done")).await;
    units::start(&bus, "named.service", DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_job_that_ends_otherwise_is_an_error_that_says_how() {
    let (_systemd, bus) = systemd(Job::Ends("dependency")).await;
    let error = units::start(&bus, "named.service", DEADLINE)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("starting named.service") && error.contains("'dependency'"),
        "{error}"
    );
    assert!(error.contains("active (running)"), "{error}");
}

#[tokio::test]
async fn a_job_that_never_ends_is_given_up() {
    let (_systemd, bus) = systemd(Job::NeverEnds).await;
    let error = units::start(&bus, "named.service", Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(matches!(error, ProbeError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn an_unknown_unit_is_named() {
    let (_systemd, bus) = systemd(Job::NeverEnds).await;
    let error = units::start(&bus, "nobody.service", DEADLINE)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("Unit nobody.service not found"), "{error}");
}
