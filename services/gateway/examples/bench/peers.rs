//! The proxies that are measured, each with an access log, a list of ten thousand names and as its package sets it up.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::load::{HOST, Proxy, Way};

/// A daemon of one measurement; ends with it.
pub(crate) struct Daemon {
    pub(crate) way: Way,
    child: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    pub(crate) fn start(
        name: &'static str,
        address: SocketAddr,
        proxy: Option<Proxy>,
        command: &mut Command,
        scratch: &Path,
    ) -> Result<Self> {
        let said = fs::File::create(scratch.join(format!("{name}.said")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        let mut daemon = Self {
            way: Way {
                name,
                address,
                proxy,
            },
            child,
        };
        let begun = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!(
                    "{name} ended with {status}; see {}",
                    scratch.join(format!("{name}.said")).display()
                );
            }
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("{name} does not listen on {address}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Seconds of processor that it has used.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|text| text.parse::<u64>().ok())
            .sum();
        Ok(ticks as f64 / 100.0)
    }

    /// Bytes of memory that are its own.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap_or_default();
        let kibibytes: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or_default();
        Ok(kibibytes * 1024)
    }
}

fn names() -> String {
    (0..9_999).fold(format!("{HOST}\n"), |text, n| {
        text + &format!("n{n}.bench.test\n")
    })
}

pub(crate) fn squid(program: &Path, library: Option<&Path>, scratch: &Path) -> Result<Daemon> {
    let address: SocketAddr = ([127, 0, 0, 1], 3201).into();
    let list = scratch.join("squid.names");
    fs::write(&list, names())?;
    let text = format!(
        "http_port {address}\nacl allowed dstdomain \"{}\"\nacl CONNECT method CONNECT\nhttp_access allow allowed\nhttp_access deny all\n\
         cache deny all\nvisible_hostname bench\npinger_enable off\nunlinkd_program {}\naccess_log {}\ncache_log /dev/null\npid_filename none\ndns_nameservers 127.0.0.1\nmax_filedescriptors 20000\n\
         cache_effective_user nobody\nforwarded_for off\nshutdown_lifetime 0 seconds\nmime_table {}\nicon_directory {}\nerror_directory {}\ncoredump_dir {}\n",
        list.display(),
        // Beside the program, wherever that was unpacked.
        program
            .ancestors()
            .nth(2)
            .unwrap_or(Path::new("/usr"))
            .join("lib/squid/unlinkd")
            .display(),
        scratch.join("squid.log").display(),
        scratch.join("mime.conf").display(),
        scratch.display(),
        scratch.display(),
        scratch.display(),
    );
    fs::write(scratch.join("mime.conf"), "")?;
    for page in ["ERR_ACCESS_DENIED", "ERR_CONNECT_FAIL"] {
        fs::write(scratch.join(page), "no")?;
    }
    let config = scratch.join("squid.conf");
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.args(["-N", "-f"]).arg(&config);
    if let Some(library) = library {
        command.env("LD_LIBRARY_PATH", library);
    }
    Daemon::start(
        "squid",
        address,
        Some(Proxy::with("")),
        &mut command,
        scratch,
    )
}

pub(crate) fn tinyproxy(program: &Path, scratch: &Path) -> Result<Daemon> {
    let address: SocketAddr = ([127, 0, 0, 1], 3202).into();
    let list = scratch.join("tinyproxy.names");
    let exact = names().lines().fold(String::new(), |text, name| {
        text + &format!("^{}$\n", name.replace('.', "\\."))
    });
    fs::write(&list, exact)?;
    let config = scratch.join("tinyproxy.conf");
    let text = format!(
        "Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20000\nConnectPort 443\nLogFile \"{}\"\nLogLevel Connect\nFilter \"{}\"\nFilterDefaultDeny Yes\n",
        address.port(),
        scratch.join("tinyproxy.log").display(),
        list.display()
    );
    fs::write(&config, text)?;
    Daemon::start(
        "tinyproxy",
        address,
        Some(Proxy::with("")),
        Command::new(program).arg("-d").arg("-c").arg(&config),
        scratch,
    )
}

/// HAProxy has no CONNECT of its own: it is a peer for plain requests alone.
pub(crate) fn haproxy(program: &Path, scratch: &Path, origin: SocketAddr) -> Result<Daemon> {
    let address: SocketAddr = ([127, 0, 0, 1], 3203).into();
    let list = scratch.join("haproxy.names");
    fs::write(&list, names())?;
    let config = scratch.join("haproxy.cfg");
    let text = format!(
        "global\n  log {} local0\n  maxconn 9000\ndefaults\n  mode http\n  log global\n  option httplog\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n\
         frontend agents\n  bind {address}\n  acl allowed req.hdr(host),field(1,:) -f {}\n  http-request deny unless allowed\n  default_backend origin\n\
         backend origin\n  http-reuse always\n  server origin {origin}\n",
        "127.0.0.1:5140",
        list.display()
    );
    fs::write(&config, text)?;
    Daemon::start(
        "haproxy",
        address,
        Some(Proxy::with("")),
        Command::new(program).arg("-f").arg(&config).arg("-db"),
        scratch,
    )
}

pub(crate) fn envoy(program: &Path, scratch: &Path) -> Result<Daemon> {
    let address: SocketAddr = ([127, 0, 0, 1], 3204).into();
    let domains = names()
        .lines()
        .map(|name| format!("\"{name}\",\"{name}:443\""))
        .collect::<Vec<_>>()
        .join(",");
    let cache = "dns_cache_config: {name: cache, dns_lookup_family: V4_ONLY, typed_dns_resolver_config: {name: envoy.network.dns_resolver.cares, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: [{socket_address: {address: 127.0.0.1, port_value: 53}}], dns_resolver_options: {no_default_search_domain: true}}}}";
    let text = format!(
        "static_resources:\n  listeners:\n  - address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}\n    filter_chains:\n    - filters:\n      - name: hcm\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          stat_prefix: p\n          access_log: [{{name: file, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: \"{}\"}}}}]\n          http_filters:\n          - name: dfp\n            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig, {cache}}}\n          - name: router\n            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n          route_config:\n            virtual_hosts:\n            - name: allowed\n              domains: [{domains}]\n              routes:\n              - match: {{connect_matcher: {{}}}}\n                route: {{cluster: dfp, upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {{}}}}]}}\n              - match: {{prefix: /}}\n                route: {{cluster: dfp}}\n  clusters:\n  - name: dfp\n    lb_policy: CLUSTER_PROVIDED\n    cluster_type: {{name: dfp, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig, {cache}}}}}\n",
        address.port(),
        scratch.join("envoy.log").display(),
    );
    let config = scratch.join("envoy.yaml");
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command
        .args([
            "--concurrency",
            "2",
            "--disable-hot-restart",
            "-l",
            "warning",
            "-c",
        ])
        .arg(&config);
    Daemon::start(
        "envoy",
        address,
        Some(Proxy::with("")),
        &mut command,
        scratch,
    )
}

/// Where programs are, as the command line says.
#[derive(clap::Args)]
pub(crate) struct Programs {
    #[arg(long)]
    pub(crate) squid: Option<PathBuf>,
    /// For a squid that was unpacked and not installed.
    #[arg(long)]
    pub(crate) squid_library: Option<PathBuf>,
    #[arg(long)]
    pub(crate) tinyproxy: Option<PathBuf>,
    #[arg(long)]
    pub(crate) haproxy: Option<PathBuf>,
    #[arg(long)]
    pub(crate) envoy: Option<PathBuf>,
}
