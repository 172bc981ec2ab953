//! What the kernel and the front tell of flows: denials into the log and the telemetry, ended flows into the
//! telemetry. Decides nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clawgress_audit::event::Source;
use clawgress_policy::{Principal, Reason};
use tokio::runtime::Handle;

use super::clock::{since_boot, wall};
use super::shared::{InForce, Shared};
use super::trail::Told;
use crate::front::log::{Event, What as FrontWhat};
use crate::kernel::conntrack::{self, Seen};
use crate::kernel::nflog::{Logged, Reader, protocol_word};
use crate::kernel::{Socket, objects};
use crate::plan::layout::{METER, NFLOG_GROUP, TABLE, mark};
use crate::telemetry::deny_log::Denial;
use crate::telemetry::ring::What;

/// So often a thread that waits for the kernel looks whether the process ends.
const WAIT: Duration = Duration::from_secs(1);
/// Flows that end within this time are heard of together: to be woken for each would cost as much as to count it.
const TOGETHER: Duration = Duration::from_millis(5);

/// Reads logged packets in a thread of its own.
pub(super) fn denials(shared: Arc<Shared>, handle: Handle) -> Result<(), String> {
    let group = u16::try_from(NFLOG_GROUP).map_err(|error| error.to_string())?;
    let mut reader = Reader::bind(group).map_err(|error| error.to_string())?;
    spawn("denials", move || {
        loop {
            match reader.next(WAIT) {
                Ok((packets, lost)) => {
                    if lost {
                        tracing::warn!("the kernel logged more denials than could be read");
                    }
                    for packet in packets {
                        denied(&shared, &handle, &packet);
                    }
                }
                Err(error) => {
                    tracing::error!("{error}");
                    std::thread::sleep(WAIT);
                }
            }
        }
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(body);
    started
        .map(drop)
        .map_err(|error| format!("starting the thread {name}: {error}"))
}

fn denied(shared: &Shared, handle: &Handle, packet: &Logged) {
    let Some((id, reason)) = packet.prefix.split_once(':') else {
        return;
    };
    let Some(reason) = Reason::of_word(reason) else {
        return;
    };
    let in_force = shared.in_force();
    let index = in_force.as_ref().map(|in_force| &*in_force.index);
    // A packet of a reply was judged by its flow's original tuple: the agent is its destination then.
    let number = id.parse().ok().map(clawgress_policy::PrincipalId);
    let who = index.and_then(|index| index.by_id(number?));
    let reversed = index.is_some_and(|index| {
        who.is_some()
            && index.principal_of(packet.source).is_none()
            && index.principal_of(packet.destination).is_some()
    });
    let (source, destination, ports) = if reversed {
        let turned = packet.ports.map(|(from, to)| (to, from));
        (packet.destination, packet.source, turned)
    } else {
        (packet.source, packet.destination, packet.ports)
    };
    let principal = who.map_or("", |who| who.name.as_str());
    let name = name_of(shared, handle, principal, destination);
    let target = name
        .as_deref()
        .map_or_else(|| destination.to_string(), str::to_owned);
    {
        let now = since_boot();
        let mut rings = shared.rings();
        // How often it happened in all is the counters' matter; here is what it was about.
        rings.deny(now, &target, 1);
        if let Some(name) = name.as_deref() {
            rings.add(now, principal, Some(name), &What::Denied(reason.word()), 1);
        }
    }
    // The front's own leg is told by the front, whose flow it is.
    shared.trail.tell(
        in_force.as_deref(),
        &Told {
            source: Source::Nft,
            principal,
            client: source,
            name: name.as_deref(),
            address: Some(destination),
            port: ports.map(|(_, to)| to),
            request_id: None,
            reason: Some(reason),
            bytes: None,
            lasted_ms: None,
            status: None,
        },
    );
    let label = index
        .zip(name.as_deref())
        .and_then(|(index, name)| index.label(name));
    shared.deny_log().tell(Denial {
        event: "deny",
        time: wall(),
        principal,
        source: source.to_string(),
        destination: Some(destination.to_string()),
        port: ports.map(|(_, to)| to),
        protocol: &protocol_word(packet.protocol),
        name: name.as_deref(),
        reason: reason.word(),
        label,
        request_id: None,
        suppressed: 0,
    });
}

/// The principal's own name of an address, or else anybody's.
fn name_of(shared: &Shared, handle: &Handle, principal: &str, address: IpAddr) -> Option<Arc<str>> {
    handle.block_on(async {
        let pinner = shared.pinner.lock().await;
        let table = pinner.table();
        let own = table.names(principal, address).into_iter().next();
        own.or_else(|| table.anybodys_name(address))
    })
}

/// Reads what conntrack says of flows that ended, in a thread of its own.
pub(super) fn ended_flows(shared: Arc<Shared>, handle: Handle) -> Result<(), String> {
    let mut socket = Socket::listening(conntrack::DESTROYED).map_err(|error| error.to_string())?;
    spawn("ended-flows", move || {
        let doing = "hearing of flows that ended";
        let mut within = WAIT;
        loop {
            let heard = socket.heard(within, doing);
            let flows: Vec<Seen> = match heard {
                Ok([]) => {
                    if within.is_zero() {
                        std::thread::sleep(TOGETHER);
                    }
                    within = WAIT;
                    continue;
                }
                Ok(bytes) => conntrack::events(bytes).collect(),
                Err(error) if error.errno() == Some(nix::errno::Errno::ENOBUFS) => Vec::new(),
                Err(error) => {
                    tracing::error!("{error}");
                    std::thread::sleep(WAIT);
                    Vec::new()
                }
            };
            within = Duration::ZERO;
            let Some(in_force) = shared.in_force() else {
                continue;
            };
            for flow in flows {
                ended(&shared, &handle, &in_force, &flow);
            }
        }
    })
}

/// By name; the sums of a principal are the counters' matter.
fn ended(shared: &Shared, handle: &Handle, in_force: &InForce, seen: &Seen) {
    let Some(who) = in_force.index.principal_of(seen.flow.source) else {
        return;
    };
    // Of these the front tells, with the name that was on the wire.
    if who.scope.judges_names_on_the_wire && matches!(seen.flow.destination_port, 443 | 80) {
        return;
    }
    let name = own_name(shared, handle, who, seen.flow.destination);
    // What never passed through is the box's own affair: questions, and what goes to the proxy.
    if seen.mark & mark::GENERATION != 0 {
        let told = Told {
            source: Source::Nft,
            principal: &who.name,
            client: seen.flow.source,
            name: name.as_deref(),
            address: Some(seen.flow.destination),
            port: Some(seen.flow.destination_port),
            request_id: None,
            reason: None,
            bytes: Some((seen.bytes_out, seen.bytes_in)),
            lasted_ms: None,
            status: None,
        };
        shared.trail.tell(Some(in_force), &told);
    }
    let Some(name) = name else {
        return;
    };
    let now = since_boot();
    let mut rings = shared.rings();
    rings.add(now, &who.name, Some(&name), &What::Flows, 1);
    rings.add(now, &who.name, Some(&name), &What::BytesOut, seen.bytes_out);
    rings.add(now, &who.name, Some(&name), &What::BytesIn, seen.bytes_in);
}

fn own_name(
    shared: &Shared,
    handle: &Handle,
    who: &Principal,
    address: IpAddr,
) -> Option<Arc<str>> {
    handle.block_on(async {
        let pinner = shared.pinner.lock().await;
        pinner.table().names(&who.name, address).into_iter().next()
    })
}

/// What the front says of a flow.
pub(super) fn front_event(shared: &Shared, in_force: Option<&InForce>, event: &Event) {
    let now = since_boot();
    let principal = event.who.as_deref().unwrap_or_default();
    let name = event.name.as_deref();
    let told = Told {
        source: Source::Sni,
        principal,
        client: event.source.ip(),
        name,
        address: event.site,
        port: Some(event.path.port()),
        request_id: event.request_id.as_deref(),
        reason: None,
        bytes: None,
        lasted_ms: None,
        status: None,
    };
    match &event.what {
        FrontWhat::Open => {
            if let Some(name) = name {
                shared
                    .rings()
                    .add(now, principal, Some(name), &What::Flows, 1);
            }
        }
        FrontWhat::Close(traffic) => {
            let lasted = u64::try_from(traffic.lasted.as_millis()).ok();
            let told = Told {
                bytes: Some((traffic.sent, traffic.received)),
                lasted_ms: lasted,
                status: Some(traffic.status),
                ..told
            };
            shared.trail.tell(in_force, &told);
            if let Some(name) = name {
                let mut rings = shared.rings();
                rings.add(now, principal, Some(name), &What::BytesOut, traffic.sent);
                rings.add(now, principal, Some(name), &What::BytesIn, traffic.received);
            }
        }
        FrontWhat::Deny(reason) => {
            let told = Told {
                reason: Some(*reason),
                ..told
            };
            shared.trail.tell(in_force, &told);
            let asked = event.asked.map(|asked| asked.ip().to_string());
            {
                let mut rings = shared.rings();
                let what = What::Denied(reason.word());
                rings.add(now, principal, None, &what, 1);
                if let Some(name) = name {
                    rings.add(now, principal, Some(name), &what, 1);
                }
                let target = name.or(asked.as_deref()).unwrap_or("unnamed");
                rings.deny(now, target, 1);
            }
            shared.deny_log().tell(Denial {
                event: "deny",
                time: wall(),
                principal,
                source: event.source.ip().to_string(),
                destination: asked,
                port: event.asked.map(|asked| asked.port()),
                protocol: "tcp",
                name,
                reason: reason.word(),
                label: name.and_then(|name| in_force?.index.label(name)),
                request_id: event.request_id.as_deref(),
                suppressed: 0,
            });
        }
    }
}

/// Reads the kernel's counters each second, for ever.
pub(super) async fn meters(shared: Arc<Shared>, mut socket: Socket) {
    // Before the first revision there is no such table.
    for table in [TABLE, METER] {
        let found = tokio::task::block_in_place(|| objects::counters(&mut socket, table));
        shared.meters().begin(table, found.unwrap_or_default());
    }
    loop {
        tokio::time::sleep(WAIT).await;
        tokio::task::block_in_place(|| read_counters(&shared, &mut socket));
    }
}

/// Reads them once; those of the plan in force.
pub(super) fn read_counters(shared: &Shared, socket: &mut Socket) {
    let Some(in_force) = shared.in_force() else {
        return;
    };
    // Held while they are read: an older reading must not come after a newer one.
    let mut meters = shared.meters();
    let mut read = || {
        let main = objects::counters(socket, TABLE)?;
        let meter = objects::counters(socket, METER)?;
        Ok::<_, crate::kernel::KernelError>([(TABLE, main), (METER, meter)].into())
    };
    match read() {
        Ok(counters) => {
            let mut rings = shared.rings();
            meters.read(since_boot(), &in_force.plan.counted, &counters, &mut rings);
        }
        Err(error) => tracing::warn!("reading the kernel's counters: {error}"),
    }
}
