//! The conversation with the gateway: whose a flow of its is, and for which name, before anything of an agent goes out
//! over it. From then on the kernel counts the flow by its mark; nothing is kept here, so that nothing is lost with this
//! process or with the gateway.
//!
//! Who is not the gateway gets no place among the callers.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawgress_link::counted::{Answer, Class, LONGEST_LINE, Leg, Question, SOCKET};
use clawgress_policy::Counted;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::config::Config;
use super::shared::{InForce, Shared};
use super::socket;
use crate::kernel::conntrack::{self, Flow};
use crate::kernel::{Socket, objects};
use crate::plan::layout::{METER, mark};
use crate::plan::{Proxied, name};

/// For one line in, or one out.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions under way at once; the next ones wait.
const CALLERS: usize = 64;
const TCP: u8 = 6;

/// Opens the socket.
pub(super) fn open(config: &Config) -> Result<UnixListener, String> {
    socket::open(SOCKET, config.group, |path| UnixListener::bind(path))
}

/// Answers for ever.
pub(super) async fn serve(shared: Arc<Shared>, listener: UnixListener, kernel: Socket) {
    let kernel = Arc::new(Mutex::new(kernel));
    let callers = Arc::new(Semaphore::new(CALLERS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!("accepting on {SOCKET}: {error}");
                tokio::time::sleep(PATIENCE).await;
                continue;
            }
        };
        let user = stream.peer_cred().ok().map(|peer| peer.uid());
        if !user.is_some_and(|user| shared.config.proxy_uids.contains(&user)) {
            tracing::warn!(
                "user {user:?} may not ask on {SOCKET}; the configuration names who may"
            );
            continue;
        }
        let Ok(place) = Arc::clone(&callers).acquire_owned().await else {
            return;
        };
        let (shared, kernel) = (Arc::clone(&shared), Arc::clone(&kernel));
        tokio::spawn(async move {
            if let Err(error) = converse(&shared, &kernel, stream).await {
                tracing::warn!("answering on {SOCKET}: {error}");
            }
            drop(place);
        });
    }
}

async fn converse(
    shared: &Shared,
    kernel: &Mutex<Socket>,
    mut stream: UnixStream,
) -> Result<(), String> {
    let mut line = Vec::new();
    let mut reader = BufReader::new((&mut stream).take(LONGEST_LINE));
    timeout(PATIENCE, reader.read_until(b'\n', &mut line))
        .await
        .map_err(|_| "no question came".to_owned())?
        .map_err(|error| format!("reading the question: {error}"))?;
    let answer = match serde_json::from_slice::<Question>(&line) {
        Ok(question) => tokio::task::block_in_place(|| answer(shared, kernel, &question)),
        Err(error) => Err(format!("the question makes no sense: {error}")),
    };
    let answer = answer.unwrap_or_else(|error| Answer::Error { error });
    let mut line = serde_json::to_vec(&answer).map_err(|error| error.to_string())?;
    line.push(b'\n');
    timeout(PATIENCE, stream.write_all(&line))
        .await
        .map_err(|_| "the gateway does not take the answer".to_owned())?
        .map_err(|error| error.to_string())
}

fn answer(shared: &Shared, kernel: &Mutex<Socket>, asked: &Question) -> Result<Answer, String> {
    let in_force = shared.in_force().ok_or("the box is sealed")?;
    let found = in_force
        .index
        .counted_on_proxy(asked.source, asked.name.as_deref());
    let Some(counted) = found else {
        return Ok(Answer::Uncounted);
    };
    let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    if is_over(&mut kernel, &counted)? {
        return Ok(Answer::OverCap);
    }
    let class = Class {
        holder: counted.holder.name.clone(),
        pattern: counted.pattern.map(|pattern| pattern.as_str().to_owned()),
    };
    if let Some(leg) = &asked.flow {
        count(&mut kernel, &in_force, &class, leg)?;
    }
    Ok(Answer::Counted(class))
}

/// Whether nothing is left of a cap, as the kernel has it at this moment.
fn is_over(kernel: &mut Socket, counted: &Counted<'_>) -> Result<bool, String> {
    let Some(pattern) = counted.pattern else {
        return Ok(false);
    };
    for (cap, _) in counted.holder.caps_around(pattern) {
        let object = name::cap(&counted.holder.name, cap.as_str());
        let quota = objects::quota_of(kernel, METER, &object).map_err(|error| error.to_string())?;
        let quota = quota.ok_or_else(|| format!("the kernel has no quota {object}"))?;
        if quota.used >= quota.limit {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes what the flow is counted as into its mark.
fn count(kernel: &mut Socket, in_force: &InForce, class: &Class, leg: &Leg) -> Result<(), String> {
    let proxied = Proxied {
        holder: class.holder.clone(),
        pattern: class.pattern.clone(),
    };
    let number = in_force.plan.proxied.get(&proxied);
    let number = *number.ok_or("there is no number for what it is to be counted as")?;
    let flow = Flow {
        source: plain(leg.local.ip()),
        destination: plain(leg.remote.ip()),
        protocol: TCP,
        source_port: leg.local.port(),
        destination_port: leg.remote.port(),
    };
    let seen = conntrack::find(kernel, &flow).map_err(|error| error.to_string())?;
    // Nobody else's flow is touched, whatever the gateway says.
    if seen.is_none_or(|seen| seen.mark & mark::GATEWAY == 0) {
        return Err(format!(
            "the gateway has no flow from {} to {}",
            leg.local, leg.remote
        ));
    }
    conntrack::mark(kernel, &flow, mark::PROXIED, number).map_err(|error| error.to_string())
}

fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
