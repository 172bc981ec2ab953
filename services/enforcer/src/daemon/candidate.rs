//! From a revision's file to everything that would enforce it, and the dry checks of each part. Changes nothing but
//! the directory in which it checks.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::hex;
use clawgress_policy::{Index, Moment, Revision};
use sha2::{Digest, Sha256};

use super::config::Config;
use super::shared::{CapKey, InForce, Shared};
use crate::apply::files::{self, Tree};
use crate::apply::nft;
use crate::apply::run::run;
use crate::front::{self, Places, Rendered};
use crate::plan::{self, Blocked, Carry, Zones};

/// For one zone, or a configuration.
const DEADLINE: Duration = Duration::from_secs(30);

/// A revision, compiled as far as it does not depend on the moment.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) file: PathBuf,
    /// Of the file, so that another content under the same number is told from this one.
    pub(super) digest: Arc<str>,
    pub(super) revision: Arc<Revision>,
    pub(super) index: Arc<Index>,
    pub(super) zones: Arc<Zones>,
}

impl Candidate {
    /// Reads and compiles; takes a while for a million names.
    pub(super) async fn read(file: PathBuf) -> Result<Self, String> {
        tokio::task::spawn_blocking(move || {
            let digest = digest(&file)?;
            let revision = Revision::read(&file).map_err(|error| error.to_string())?;
            let index = Index::of(&revision).map_err(|error| error.to_string())?;
            let zones = Arc::new(Zones::of(&revision, &index));
            Ok(Self {
                file,
                digest,
                revision: Arc::new(revision),
                index: Arc::new(index),
                zones,
            })
        })
        .await
        .unwrap_or_else(|error| Err(format!("compiling ended early: {error}")))
    }

    /// The one in force, to be compiled again at another moment.
    pub(super) fn again(in_force: &InForce) -> Self {
        Self {
            file: in_force.file.clone(),
            digest: Arc::clone(&in_force.digest),
            revision: Arc::clone(&in_force.revision),
            index: Arc::clone(&in_force.index),
            zones: Arc::clone(&in_force.plan.zones),
        }
    }

    pub(super) fn plan(&self, moment: Moment, generation: u32, carry: &Carry) -> plan::Plan {
        let zones = Arc::clone(&self.zones);
        plan::compile_with(
            &self.revision,
            &self.index,
            moment,
            generation,
            carry,
            zones,
        )
    }

    pub(super) fn front(
        &self,
        moment: Moment,
        over_cap: &std::collections::BTreeSet<CapKey>,
        blocked: &Blocked,
        places: &Places,
    ) -> Rendered {
        let own = own_addresses();
        let input = front::Input {
            revision: &self.revision,
            index: &self.index,
            moment,
            over_cap,
            blocked,
            own: &own,
        };
        front::render(&input, places)
    }
}

fn digest(file: &Path) -> Result<Arc<str>, String> {
    let failed = |error: std::io::Error| format!("reading {}: {error}", file.display());
    let mut hash = Sha256::new();
    let mut reader = std::fs::File::open(file).map_err(failed)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer).map_err(failed)? {
            0 => break,
            length => hash.update(buffer.get(..length).unwrap_or_default()),
        }
    }
    Ok(hex::encode(&hash.finalize()).into())
}

/// What the cards have right now, whoever gave it to them.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(cards) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let mut own: Vec<IpAddr> = cards
        .filter_map(|card| {
            let address = card.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip()));
            v4.or(v6)
        })
        .filter(|address| !address.is_loopback())
        .collect();
    own.sort_unstable();
    own.dedup();
    own
}

/// haproxy's configuration, in the directory of generated files.
pub(super) const FRONT_CONFIG: &str = "haproxy.cfg";

/// The files that a front's configuration names, below its directory. Those that haproxy wants joined are read here.
pub(super) fn front_tree(front: &Rendered, directory: &str) -> Result<Tree, String> {
    let mut tree = Tree::new();
    for (name, text) in &front.maps {
        tree.insert(name.file().to_owned(), text.clone());
    }
    for joined in &front.joined {
        let mut text = String::new();
        for part in &joined.of {
            let read = std::fs::read_to_string(part);
            text += &read.map_err(|error| format!("reading {part}: {error}"))?;
        }
        let name = Path::new(&joined.path)
            .strip_prefix(directory)
            .unwrap_or(Path::new(&joined.path));
        tree.insert(name.display().to_string(), text);
    }
    Ok(tree)
}

/// Where parts are checked before they are anywhere else.
pub(super) fn check_directory(config: &Config) -> PathBuf {
    config.run("check")
}

/// Tries a transaction. None: its rules are those that the kernel has.
pub(super) async fn check_nft(
    config: &Config,
    transaction: Option<&str>,
) -> Result<String, String> {
    let Some(transaction) = transaction else {
        return Ok("the rules stay as they are".to_owned());
    };
    let checked = nft::check(&config.programs.nft, transaction).await;
    checked.map_err(|error| error.to_string())?;
    Ok("the kernel would take the ruleset".to_owned())
}

/// Checks the configuration of named and those zones that differ from what is served.
pub(super) async fn check_named(
    config: &Config,
    plan: &plan::Plan,
    before: Option<&plan::Plan>,
) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let zones = match before {
        Some(before) => plan.zones.changed(&before.zones),
        None => plan.zones.zones.iter().collect(),
    };
    let directory = check_directory(config).join("named");
    let mut tree = Tree::from([("named.conf".to_owned(), plan.named.text.clone())]);
    tree.extend(
        zones
            .iter()
            .map(|zone| (zone.file.clone(), zone.text.clone())),
    );
    tree.insert("zones.conf".to_owned(), declared(&directory, &zones));
    files::write_fresh(&directory, &tree, None).map_err(|error| text(&error))?;
    let program = &config.programs.named_checkconf;
    let zones_path = directory.join("zones.conf").display().to_string();
    if before.is_none_or(|before| before.named != plan.named) {
        let path = directory.join("named.conf").display().to_string();
        run(
            "checking named's configuration",
            program,
            &[&path],
            None,
            DEADLINE,
        )
        .await
        .map_err(|error| text(&error))?;
    }
    if !zones.is_empty() {
        // All of them in one process: starting one for each takes longer than the work.
        let doing = "checking the policy zones";
        run(doing, program, &["-z", &zones_path], None, DEADLINE)
            .await
            .map_err(|error| text(&error))?;
    }
    Ok(format!(
        "{} of {} policy zones changed, {} names",
        zones.len(),
        plan.zones.zones.len(),
        plan.zones.names
    ))
}

/// These zones alone, as a configuration.
fn declared(directory: &Path, zones: &[&plan::Zone]) -> String {
    let directory = directory.display();
    zones
        .iter()
        .fold(String::new(), |text, plan::Zone { name, file, .. }| {
            format!("{text}zone \"{name}\" {{ type primary; file \"{directory}/{file}\"; }};\n")
        })
}

/// Checks haproxy's configuration, if it is another than what runs: its text for the checking directory, with its maps.
pub(super) async fn check_haproxy(
    shared: &Shared,
    candidate: &Candidate,
    moment: Moment,
    running: Option<&Rendered>,
) -> Result<String, String> {
    let config = &shared.config;
    let over_cap = shared.over_cap().clone();
    let blocked = shared.blocked().clone();
    let (places, trial_places) = (config.places(), trial_places(config));
    let directory = PathBuf::from(&trial_places.directory);
    let compiling = {
        let candidate = candidate.clone();
        tokio::task::spawn_blocking(move || {
            let front = candidate.front(moment, &over_cap, &blocked, &places);
            (
                front,
                candidate.front(moment, &over_cap, &blocked, &trial_places),
            )
        })
    };
    let (front, trial) = compiling.await.map_err(|error| error.to_string())?;
    if running.is_some_and(|run| run.config == front.config && run.joined == front.joined) {
        return Ok("only the maps change".to_owned());
    }
    let mut tree = front_tree(&trial, &directory.display().to_string())?;
    // The key of the policy API's front is haproxy's alone. The words that name it never change: they are left out here.
    let key = format!(" ssl crt {} alpn h2,http/1.1", config.front.certificate);
    tree.insert(FRONT_CONFIG.to_owned(), trial.config.replace(&key, ""));
    files::write_fresh(&directory, &tree, None).map_err(|error| error.to_string())?;
    let path = directory.join(FRONT_CONFIG).display().to_string();
    let arguments = ["-c", "-q", "-f", &path];
    let program = &config.programs.haproxy;
    let doing = "checking haproxy's configuration";
    run(doing, program, &arguments, None, DEADLINE)
        .await
        .map_err(|error| error.to_string())?;
    Ok("haproxy would take its configuration".to_owned())
}

/// As the front's places, but where nobody reads from.
fn trial_places(config: &Config) -> Places {
    Places {
        directory: check_directory(config).join("front").display().to_string(),
        ..config.places()
    }
}
