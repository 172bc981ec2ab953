//! What named and haproxy need of a plan: their files put in place, the word to read them, and their answer that they
//! have. Holds nothing of the daemon's state, so that it can go on while the keeper watches the clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::reload::Daemon;
use clawgress_policy::Moment;

use super::candidate::{Candidate, FRONT_CONFIG, front_tree};
use super::shared::{InForce, Shared};
use crate::apply::{files, haproxy, marker};
use crate::front::{Rendered, Update, difference};
use crate::plan::{Marker, NamedConf, Zones};

/// named and haproxy may take a while for a million names.
pub(super) const PATIENT: Duration = Duration::from_secs(60);

fn text(error: &dyn std::fmt::Display) -> String {
    error.to_string()
}

/// named's files and its proof that it has read them. The markers to ask for again are returned.
pub(super) async fn names(
    shared: Arc<Shared>,
    zones: Arc<Zones>,
    named: NamedConf,
    before: Option<Arc<InForce>>,
) -> Result<(Vec<Marker>, String), String> {
    let config = &shared.config;
    let changed = match &before {
        Some(before) => zones.changed(&before.plan.zones),
        None => zones.zones.iter().collect(),
    };
    let same_text = before.is_some_and(|before| before.plan.named == named);
    let mut tree: files::Tree = changed
        .iter()
        .map(|zone| (format!("zones/{}", zone.file), zone.text.clone()))
        .collect();
    tree.insert("named.conf".to_owned(), named.text);
    let directory = config.run("");
    let placed = files::place(&directory, &tree, config.group).map_err(|error| text(&error))?;
    let markers: Vec<Marker> = changed.iter().map(|zone| zone.marker.clone()).collect();
    if !placed.is_empty() || !same_text {
        let reload = config.reload.daemon(Daemon::Named).await;
        reload.map_err(|error| text(&error))?;
    }
    marker::served(config.resolver, &markers, PATIENT)
        .await
        .map_err(|error| text(&error))?;
    let files_kept: Vec<&str> = zones.zones.iter().map(|zone| zone.file.as_str()).collect();
    files::keep_only(&config.run("zones"), &files_kept).map_err(|error| text(&error))?;
    let told = format!("{} zones changed, named serves them", changed.len());
    Ok((markers, told))
}

/// The front of a revision at a moment: compiled, its files, and haproxy's word that it has them. `old` is what haproxy
/// has, if anybody knows.
pub(super) async fn front(
    shared: Arc<Shared>,
    candidate: Candidate,
    moment: Moment,
    old: Option<Rendered>,
    within: Duration,
) -> Result<(Rendered, String), String> {
    let config = &shared.config;
    let places = config.places();
    let over_cap = shared.over_cap().clone();
    let blocked = shared.blocked().clone();
    let front = {
        let places = places.clone();
        let rendering = tokio::task::spawn_blocking(move || {
            candidate.front(moment, &over_cap, &blocked, &places)
        });
        rendering.await.map_err(|error| text(&error))?
    };
    let tree = front_tree(&front, &places.directory)?;
    let directory = Path::new(&places.directory);
    files::place(directory, &tree, config.group).map_err(|error| text(&error))?;
    let tree = files::Tree::from([(FRONT_CONFIG.to_owned(), front.config.clone())]);
    files::place(&config.run(""), &tree, config.group).map_err(|error| text(&error))?;
    let update = match &old {
        Some(old) => difference(old, &front, &places),
        None => Update::Reload,
    };
    let told = match &update {
        Update::Nothing => "nothing changes".to_owned(),
        Update::Runtime(commands) => match haproxy::command(&places, commands).await {
            Ok(()) => format!("{} changes in the running process", commands.len()),
            Err(error) => {
                tracing::warn!("{error}; reloading it instead");
                reload(&shared).await?
            }
        },
        Update::Reload => reload(&shared).await?,
    };
    haproxy::serves(&places, &front.mark, within)
        .await
        .map_err(|error| text(&error))?;
    Ok((front, told))
}

async fn reload(shared: &Shared) -> Result<String, String> {
    let reload = shared.config.reload.daemon(Daemon::Haproxy).await;
    reload.map_err(|error| text(&error))?;
    Ok("reloaded".to_owned())
}
