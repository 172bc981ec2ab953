//! The live flows of the front: noted as haproxy tells of them, judged again each second by name, and ended where they
//! may not go on. The kernel judges the same flows by address; this tells apart what shares one.
//!
//! A flow that nobody here knows, because it was opened before this process or haproxy's word of it was lost (a full
//! socket drops it), is ended at the first change after it: until then the judgement under which it was opened holds.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UnixDatagram;
use tokio::time::{MissedTickBehavior, interval};

use super::observe::front_event;
use super::shared::{CapKey, InForce, Shared};
use super::socket;
use crate::apply::haproxy;
use crate::front::live::End;
use crate::front::log::{Event, LONGEST_LINE, Path as Wire};
use crate::kernel::diag::{self, Ended};
use crate::kernel::{KernelError, Socket};
use crate::plan::layout::port;

const LOOK: Duration = Duration::from_millis(500);
/// After a change, a flow that nobody knows has this long to become known: haproxy's word of it may be under way.
const SECOND_LOOK: Duration = Duration::from_millis(200);
/// For lines that wait to be read. The number of them is the kernel's net.unix.max_dgram_qlen.
const RECEIVE_BUFFER: usize = 4 << 20;
const QUEUE: &str = "/proc/sys/net/unix/max_dgram_qlen";
/// Lines that come within this time are read together, where enough of them may wait: for haproxy to wake this process
/// for each, several of a flow, would cost both about as much as the flow does.
const TOGETHER: Duration = Duration::from_millis(2);
const ENOUGH: u32 = 1024;
/// Read before anything else is looked at.
const AT_ONCE: usize = 256;

/// Opens the socket that haproxy logs to.
pub(super) fn open(path: &str, group: Option<u32>) -> Result<UnixDatagram, String> {
    socket::open(path, group, |path| {
        let socket = UnixDatagram::bind(path)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        Ok(socket)
    })
}

fn listens(wire: Wire) -> u16 {
    match wire {
        Wire::Sni => port::SNI,
        Wire::Host => port::HOST,
    }
}

/// What flows are judged by: a generation, and the caps that are used up.
type Grounds = (u32, BTreeSet<CapKey>);

/// Ends of the front's connections that nobody here knows, by what was changed since they were let through.
struct Strangers {
    ends: HashSet<End>,
    before: Option<Grounds>,
    due: tokio::time::Instant,
}

struct Flows {
    shared: Arc<Shared>,
    diag: Socket,
    /// What everything was judged by last, here or by the process before this one.
    judged: Option<Grounds>,
    strangers: Option<Strangers>,
    /// The kernel can't end connections; haproxy has to.
    unsupported: bool,
}

/// Takes haproxy's word and judges, for ever. `generation`: what is in the kernel as this process begins.
pub(super) async fn keep(
    shared: Arc<Shared>,
    log: UnixDatagram,
    diag: Socket,
    generation: Option<u32>,
) {
    let mut flows = Flows {
        shared,
        diag,
        judged: generation.map(|generation| (generation, BTreeSet::new())),
        strangers: None,
        unsupported: false,
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; 2 * LONGEST_LINE];
    let queue = std::fs::read_to_string(QUEUE).unwrap_or_default();
    let may_wait = queue.trim().parse().is_ok_and(|lines: u32| lines >= ENOUGH);
    loop {
        tokio::select! {
            received = log.recv(&mut buffer) => match received {
                Ok(length) => {
                    flows.heard(buffer.get(..length).unwrap_or_default()).await;
                    let mut read = 1;
                    while read < AT_ONCE && let Ok(length) = log.try_recv(&mut buffer) {
                        flows.heard(buffer.get(..length).unwrap_or_default()).await;
                        read += 1;
                    }
                    if may_wait && read < AT_ONCE {
                        tokio::time::sleep(TOGETHER).await;
                    }
                }
                Err(error) => {
                    tracing::error!("reading what the front logs: {error}");
                    tokio::time::sleep(LOOK).await;
                }
            },
            () = due(flows.strangers.as_ref()) => flows.end_strangers().await,
            _ = look.tick() => flows.judge().await,
        }
    }
}

async fn due(strangers: Option<&Strangers>) {
    match strangers {
        Some(strangers) => tokio::time::sleep_until(strangers.due).await,
        None => std::future::pending().await,
    }
}

impl Flows {
    async fn heard(&mut self, datagram: &[u8]) {
        let in_force = self.shared.in_force();
        match Event::read(datagram) {
            Ok(event) => {
                front_event(&self.shared, in_force.as_deref(), &event);
                if self.shared.live().note(&event).is_err() {
                    let end = End {
                        source: event.source,
                        path: event.path,
                    };
                    tracing::warn!("too many flows at once: {} is ended", event.source);
                    self.end(&[end]).await;
                }
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    async fn judge(&mut self) {
        let Some(in_force) = self.shared.in_force() else {
            // Sealed: the kernel lets nothing through.
            return;
        };
        let over_cap = self.shared.over_cap().clone();
        self.look_for_strangers(&in_force, &over_cap);
        let forbidden = self
            .shared
            .live()
            .forbidden(&in_force.index, in_force.moment, &over_cap);
        if forbidden.is_empty() {
            return;
        }
        for (end, reason) in &forbidden {
            tracing::info!("ending the flow of {}: {reason}", end.source);
        }
        let ends: Vec<End> = forbidden.into_iter().map(|(end, _)| end).collect();
        self.end(&ends).await;
    }

    /// At a change: takes a first look at who is there and not known.
    fn look_for_strangers(&mut self, in_force: &InForce, over_cap: &BTreeSet<CapKey>) {
        let now = (in_force.plan.generation, over_cap.clone());
        if self.judged.as_ref() == Some(&now) {
            return;
        }
        let ends = self.unknown();
        let before = self.judged.replace(now);
        // A change on the heels of another: what the first one asks for is not forgotten.
        let before = match self.strangers.take() {
            Some(strangers) => strangers.before,
            None => before,
        };
        self.strangers = (!ends.is_empty()).then(|| Strangers {
            ends,
            before,
            due: tokio::time::Instant::now() + SECOND_LOOK,
        });
    }

    /// Everybody who has a connection with the front, but for those whose flow is known.
    fn unknown(&mut self) -> HashSet<End> {
        let mut ends = HashSet::new();
        for path in [Wire::Sni, Wire::Host] {
            let listed = tokio::task::block_in_place(|| diag::peers(&mut self.diag, listens(path)));
            match listed {
                Ok(peers) => ends.extend(peers.into_iter().map(|source| End { source, path })),
                Err(error) => tracing::error!("{error}"),
            }
        }
        for known in self.shared.live().ends() {
            ends.remove(&known);
        }
        ends
    }

    /// The second look: whoever is there still and not known still was let through under what no longer holds. But
    /// whom haproxy has not judged yet, it will judge by what holds now.
    async fn end_strangers(&mut self) {
        let (Some(strangers), Some(in_force)) = (self.strangers.take(), self.shared.in_force())
        else {
            return;
        };
        let still = self.unknown();
        let mut ends: HashSet<End> = strangers.ends.intersection(&still).copied().collect();
        let over_cap = self.shared.over_cap().clone();
        if let Some((generation, before)) = &strangers.before
            && *generation == in_force.plan.generation
        {
            // Only caps have changed: that is nothing to others.
            let changed: BTreeSet<&str> = before
                .symmetric_difference(&over_cap)
                .map(|(principal, _)| principal.as_str())
                .collect();
            ends.retain(|end| {
                let who = in_force.index.principal_of(end.source.ip());
                who.is_none_or(|who| changed.contains(who.name.as_str()))
            });
        }
        if ends.is_empty() {
            return;
        }
        match haproxy::ask(&self.shared.config.places().runtime, "show sess\n").await {
            Ok(sessions) => {
                for end in sessions.lines().filter_map(undecided) {
                    ends.remove(&end);
                }
            }
            Err(error) => tracing::warn!("{error}; flows that are not judged yet end, too"),
        }
        for end in &ends {
            tracing::info!("ending the flow of {}: nobody knows its name", end.source);
        }
        self.end(&ends.into_iter().collect::<Vec<_>>()).await;
    }

    async fn end(&mut self, ends: &[End]) {
        for wire in [Wire::Sni, Wire::Host] {
            let of_path = ends.iter().filter(|end| end.path == wire);
            let peers: HashSet<SocketAddr> = of_path.map(|end| end.source).collect();
            if !peers.is_empty() {
                self.end_at(listens(wire), peers).await;
            }
        }
    }

    async fn end_at(&mut self, port: u16, peers: HashSet<SocketAddr>) {
        if !self.unsupported {
            match self.destroy(port, &peers) {
                Ok(Ended::Count(_)) => return,
                Ok(Ended::Unsupported) => {
                    tracing::warn!("this kernel can't end connections; haproxy is asked to");
                    self.unsupported = true;
                }
                Err(error) => tracing::error!("{error}; haproxy is asked to"),
            }
        }
        if let Err(error) = shut_down(&self.shared.config.places().runtime, port, &peers).await {
            tracing::error!("ending flows of the front: {error}");
        }
    }

    fn destroy(&mut self, port: u16, peers: &HashSet<SocketAddr>) -> Result<Ended, KernelError> {
        tokio::task::block_in_place(|| diag::end(&mut self.diag, port, peers))
    }
}

/// Has haproxy end the sessions of these ends.
async fn shut_down(
    runtime: &str,
    port: u16,
    peers: &HashSet<SocketAddr>,
) -> Result<(), haproxy::FrontError> {
    let frontend = if port == port::SNI { "sni" } else { "host" };
    let sessions = haproxy::ask(runtime, "show sess\n").await?;
    for line in sessions.lines() {
        if let Some((session, source)) = session(line, frontend)
            && peers.contains(&source)
        {
            haproxy::ask(runtime, &format!("shutdown session {session}\n")).await?;
        }
    }
    Ok(())
}

/// `0x55d0c8: proto=tcpv4 src=192.168.10.10:40112 fe=sni be=…`
fn session<'l>(line: &'l str, frontend: &str) -> Option<(&'l str, SocketAddr)> {
    let (session, rest) = line.split_once(':')?;
    if !session.starts_with("0x") || field(rest, "fe")? != frontend {
        return None;
    }
    let (address, port) = field(rest, "src")?.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Some((
        session,
        SocketAddr::new(address.parse().ok()?, port.parse().ok()?),
    ))
}

fn field<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.split(' ')
        .find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
}

/// The end of a session that has been given no backend: it waits for what it is judged by.
fn undecided(line: &str) -> Option<End> {
    let path = [Wire::Sni, Wire::Host]
        .into_iter()
        .find(|path| field(line, "fe") == Some(path.word()))?;
    let (_, source) = session(line, path.word())?;
    (field(line, "be")? == "<NONE>").then_some(End { source, path })
}

/// Asks haproxy each second how many lines it could not get rid of, for ever: they are denials that nobody was told.
pub(super) async fn unheard(shared: Arc<Shared>) {
    let mut before = None;
    let mut look = interval(2 * LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        // A haproxy that does not answer is health's matter.
        let Ok(info) = haproxy::ask(&shared.config.places().runtime, "show info\n").await else {
            continue;
        };
        let Some(now) = dropped(&info) else {
            continue;
        };
        let more = since(before.replace(now), now);
        if more > 0 {
            tracing::warn!(
                "{more} lines of the front were lost: it logged more than could be read"
            );
            shared.deny_log().left_out(more);
        }
    }
}

fn dropped(info: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix("DroppedLogs:")?.trim().parse().ok();
    info.lines().find_map(value)
}

/// A haproxy that was loaded anew counts from nothing.
fn since(before: Option<u64>, now: u64) -> u64 {
    match before {
        None => 0,
        Some(before) if now >= before => now - before,
        Some(_) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_its_source() {
        let line = "0x56c: proto=tcpv4 src=192.168.10.10:40112 fe=sni be=sni4 srv=site ts=00 age=1s calls=2";
        let source = "192.168.10.10:40112".parse().unwrap();
        assert_eq!(session(line, "sni"), Some(("0x56c", source)));
        assert_eq!(session(line, "host"), None);
        let line = "0x57: proto=tcpv6 src=2001:db8::7:40112 fe=host be=host6 srv=site";
        assert_eq!(
            session(line, "host").unwrap().1,
            "[2001:db8::7]:40112".parse().unwrap()
        );
        for broken in [
            "",
            "0x1",
            "x: src=a",
            "0x1: proto=unix_stream src=unix:1 fe=GLOBAL",
        ] {
            assert_eq!(session(broken, "sni"), None);
        }
    }

    #[test]
    fn who_waits_for_a_verdict_is_told_from_who_has_one() {
        let waits = "0x56c: proto=tcpv4 src=192.168.10.10:40112 fe=sni be=<NONE> srv=<none> ts=00";
        let end = undecided(waits).unwrap();
        assert_eq!(
            (end.source, end.path),
            ("192.168.10.10:40112".parse().unwrap(), Wire::Sni)
        );
        assert_eq!(undecided(&waits.replace("<NONE>", "sni4")), None);
        assert_eq!(undecided(&waits.replace("fe=sni", "fe=front")), None);
    }

    #[test]
    fn lines_that_were_lost_are_counted_once() {
        let info = "Name: HAProxy\nDroppedLogs: 17\nIdle_pct: 100\n";
        assert_eq!(dropped(info), Some(17));
        assert_eq!(dropped("Name: HAProxy\n"), None);
        assert_eq!(
            [since(None, 17), since(Some(17), 20), since(Some(20), 4)],
            [0, 3, 4]
        );
    }
}
