//! One running clawgress-identity over a committed revision in a temporary directory.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clawgress_config::access::{Access, Agent, AuthType, Status};
use clawgress_identity::admin::{self, AskError, Reply, Request};
use clawgress_identity::snapshot::KIND;
use clawgress_identity::{CredentialKey, Directory, Snapshot};
use clawgress_link::bundle::{Watched, Watcher};
use clawgress_link::enrol::Place;
use clawgress_link::hex;
use clawgress_link::mtls::{Credentials, Role};
use clawgress_policy::{Logging, Network, Revision};

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) access: Access,
    revision: u64,
    child: Option<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn agent(auth_type: AuthType) -> Agent {
    Agent {
        team_id: "red".to_owned(),
        project_id: "search".to_owned(),
        environment: "prod".to_owned(),
        auth_type,
        status: Status::Active,
        sources: std::collections::BTreeSet::new(),
        bound: false,
    }
}

impl World {
    pub(crate) async fn start(access: Access) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["state", "files", "gateway"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        // Free a moment ago; nobody else on this machine asks for it by number.
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut world = Self {
            directory,
            address,
            access,
            revision: 0,
            child: None,
        };
        world.commit();
        world.run().await;
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the next revision with what `access` says now.
    pub(crate) fn commit(&mut self) {
        self.revision += 1;
        let revision = Revision {
            number: self.revision,
            created: 1,
            enabled: true,
            policy: clawgress_config::policy::Policy::default(),
            network: Network::default(),
            time_zone: "UTC".to_owned(),
            trust_hardware_clock: false,
            logging: Logging {
                facility: "local0".to_owned(),
                deny_log: false,
            },
            name_servers: Vec::new(),
            access: self.access.clone(),
        };
        let file = self.path(&format!("{}.json", self.revision));
        revision.write(&file).unwrap();
        let link = self.path("boot.new");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::fs::rename(&link, self.path("boot.json")).unwrap();
    }

    pub(crate) fn configuration(&self) -> String {
        let uid =
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(self.directory.path()).unwrap());
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "listen = \"{}\"\nadmin_socket = {:?}\nadmin_uids = [{uid}]\nenrol_socket = {:?}\nstate = {:?}\n\
             revision = {:?}\nfiles = {:?}\nservices = [{{ uid = {uid}, role = \"gateway\" }}]\n",
            self.address,
            path("admin.sock"),
            path("enrol.sock"),
            path("state"),
            path("boot.json"),
            path("files"),
        )
    }

    pub(crate) async fn run(&mut self) {
        let config = self.path("identity.toml");
        std::fs::write(&config, self.configuration()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_clawgress-identity"))
            .arg("--config")
            .arg(&config)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while self.try_ask(&Request::Status).await.is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "the daemon does not answer"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    pub(crate) async fn try_ask(&self, request: &Request) -> Result<Reply, AskError> {
        admin::ask(&self.path("admin.sock"), request, Duration::from_secs(10)).await
    }

    pub(crate) async fn ask(&self, request: Request) -> Reply {
        self.try_ask(&request).await.unwrap()
    }

    pub(crate) async fn new_key(&self, agent: &str) -> (String, String) {
        let wish = admin::Wish {
            agent: agent.to_owned(),
            name: "test".to_owned(),
            ..admin::Wish::default()
        };
        match self.ask(Request::CreateKey(wish)).await {
            Reply::NewKey { key, about } => (key, about.prefix),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            role: Role::Gateway,
            directory: self.path("gateway"),
            socket: self.path("enrol.sock"),
        }
    }

    pub(crate) fn watch(&self, own: &Arc<Credentials>) -> Watched<Snapshot> {
        let file = self.path("gateway").join("identity.bundle");
        Watcher::new(KIND, (Role::Identity, self.address), file, own)
            .start()
            .unwrap()
    }
}

/// What a gateway does with each snapshot.
pub(crate) fn directory(own: &Credentials, snapshot: &Snapshot, access: &Access) -> Directory {
    let key = hex::decode(&own.stored().credential_key.unwrap()).unwrap();
    Directory::build(
        snapshot,
        access,
        CredentialKey::of(&key.try_into().unwrap()),
    )
}

/// Waits until what is watched satisfies the condition, and says how long that took.
pub(crate) async fn until(
    watched: &mut Watched<Snapshot>,
    holds: impl Fn(&Snapshot) -> bool,
) -> Duration {
    let begun = Instant::now();
    let waiting = watched
        .current
        .wait_for(|bundle| bundle.as_ref().is_some_and(|bundle| holds(&bundle.content)));
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap();
    begun.elapsed()
}

pub(crate) fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .unwrap()
        .permissions()
        .mode()
        .trailing_zeros()
        >= 6
}
