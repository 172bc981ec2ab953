//! The clients, each as its users call it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::site::PAGE;
use crate::{Given, through_the_gateway};

/// Fails with what to install.
fn need(program: &str, package: &str) {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .unwrap();
    assert!(
        found.status.success(),
        "{program} is needed: apt-get install {package}"
    );
}

fn succeeds(command: &mut Command, what: &str) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}

/// Kept for all tests of this run.
fn workshop() -> &'static Path {
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    PLACE.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

/// A Python with the three libraries.
fn python() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        need("python3", "python3-venv");
        let place = workshop().join("python");
        succeeds(
            Command::new("python3").args(["-m", "venv"]).arg(&place),
            "making a venv: apt-get install python3-venv",
        );
        let python = place.join("bin/python");
        succeeds(
            Command::new(&python)
                .args(["-m", "pip", "install", "-q", "requests", "httpx", "aiohttp"]),
            "fetching requests, httpx and aiohttp from the package index",
        );
        python
    });
    made.clone()
}

fn of_python(script: &'static str) -> impl Fn(&Given<'_>) -> Command {
    let python = python();
    move |given| {
        let mut command = Command::new(&python);
        command
            .args(["-c", script])
            .arg(&given.proxy)
            .arg(format!("https://{}/page", given.host))
            .arg(given.authority);
        command
    }
}

#[test]
fn curl() {
    need("curl", "curl");
    through_the_gateway("curl", PAGE, &|given| {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--fail", "--proxy", &given.proxy, "--cacert"])
            .arg(given.authority)
            .arg(format!("https://{}/page", given.host));
        command
    });
}

#[test]
fn python_requests() {
    let fetch = of_python(
        "import sys, requests\np, u, c = sys.argv[1:]\nr = requests.get(u, proxies={'https': p}, verify=c)\nr.raise_for_status()\nprint(r.text)",
    );
    through_the_gateway("requests", PAGE, &fetch);
}

#[test]
fn python_httpx() {
    let fetch = of_python(
        "import sys, ssl, httpx\np, u, c = sys.argv[1:]\nv = ssl.create_default_context(cafile=c)\nr = httpx.Client(proxy=p, verify=v).get(u)\nr.raise_for_status()\nprint(r.text)",
    );
    through_the_gateway("httpx", PAGE, &fetch);
}

#[test]
fn python_aiohttp() {
    let fetch = of_python(
        "import sys, ssl, asyncio, aiohttp\np, u, c = sys.argv[1:]\nv = ssl.create_default_context(cafile=c)\nasync def main():\n  async with aiohttp.ClientSession() as s:\n    async with s.get(u, proxy=p, ssl=v) as r:\n      r.raise_for_status()\n      print(await r.text())\nasyncio.run(main())",
    );
    through_the_gateway("aiohttp", PAGE, &fetch);
}

#[test]
fn pip() {
    let python = python();
    through_the_gateway("pip", "Successfully", &|given| {
        let mut command = Command::new(&python);
        command
            .args([
                "-m",
                "pip",
                "--isolated",
                "--disable-pip-version-check",
                "install",
                "--no-cache-dir",
            ])
            .args(["--retries", "0", "--proxy", &given.proxy, "--cert"])
            .arg(given.authority)
            .args([
                "--index-url",
                &format!("https://{}/simple", given.host),
                "--target",
            ])
            .arg(given.scratch)
            .arg("labpage");
        // What it could not fetch it says in detail only when asked.
        command.arg("-vv");
        command
    });
}

#[test]
fn node_fetch_with_undici() {
    need("node", "nodejs");
    need("npm", "npm");
    let place = workshop().join("node");
    std::fs::create_dir(&place).unwrap();
    succeeds(
        Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "undici@6"])
            .current_dir(&place),
        "fetching undici from the package registry",
    );
    let script = "const {ProxyAgent, fetch} = require('undici');\n\
        fetch(process.argv[2], {dispatcher: new ProxyAgent(process.argv[1])}).then(async r => {\n\
        console.log(r.status, await r.text()); process.exit(r.ok ? 0 : 1)}).catch(e => {console.log(e, e.cause); process.exit(1)})";
    through_the_gateway("undici", PAGE, &|given| {
        let mut command = Command::new("node");
        command
            .args(["-e", script, &given.proxy])
            .arg(format!("https://{}/page", given.host))
            .current_dir(&place)
            .env("NODE_EXTRA_CA_CERTS", given.authority);
        command
    });
}

#[test]
fn npm() {
    need("npm", "npm");
    through_the_gateway("npm", "added 1 package", &|given| {
        let mut command = Command::new("npm");
        command
            .args([
                "install",
                "labpage",
                "--no-audit",
                "--no-fund",
                "--fetch-retries=0",
            ])
            .arg(format!("--registry=https://{}/", given.host))
            .arg(format!("--https-proxy={}", given.proxy))
            .arg(format!("--proxy={}", given.proxy))
            .arg(format!("--cafile={}", given.authority.display()))
            .arg(format!("--cache={}", given.scratch.join("cache").display()))
            .arg(format!(
                "--userconfig={}",
                given.scratch.join("npmrc").display()
            ))
            .current_dir(given.scratch)
            .env("NO_PROXY", "")
            .env("no_proxy", "");
        command
    });
}

#[test]
fn git() {
    need("git", "git");
    through_the_gateway("git", PAGE, &|given| {
        let clone = given.scratch.join("clone");
        let mut command = Command::new("sh");
        command
            .args(["-c", "git -c http.proxy=\"$1\" -c http.sslCAInfo=\"$2\" clone -q \"$3\" \"$4\" && cat \"$4/README\"", "sh"])
            .arg(&given.proxy)
            .arg(given.authority)
            .arg(format!("https://{}/repository.git", given.host))
            .arg(clone)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        command
    });
}

#[test]
fn apt() {
    need("apt-get", "apt");
    through_the_gateway("apt", "Packages", &|given| {
        let state = given.scratch.display();
        for directory in ["lists/partial", "cache/archives/partial", "etc"] {
            std::fs::create_dir_all(given.scratch.join(directory)).unwrap();
        }
        let list = given.scratch.join("etc/sources.list");
        let line = format!("deb [trusted=yes] https://{}/apt ./\n", given.host);
        std::fs::write(&list, line).unwrap();
        std::fs::write(given.scratch.join("status"), "").unwrap();
        let mut command = Command::new("apt-get");
        command.arg("update");
        for setting in [
            format!("Dir::Etc::sourcelist={}", list.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={state}/lists"),
            format!("Dir::State::status={state}/status"),
            format!("Dir::Cache={state}/cache"),
            format!("Acquire::https::Proxy={}", given.proxy),
            format!("Acquire::https::CaInfo={}", given.authority.display()),
            "Acquire::Retries=0".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
        ] {
            command.args(["-o", &setting]);
        }
        command
    });
}

#[test]
fn go() {
    need("go", "golang-go");
    let place = workshop().join("go");
    std::fs::create_dir(&place).unwrap();
    let source = "package main\nimport (\"fmt\"; \"io\"; \"net/http\"; \"os\")\nfunc main() {\n\
        r, e := http.Get(os.Args[1])\nif e != nil { fmt.Println(e); os.Exit(1) }\nb, _ := io.ReadAll(r.Body)\n\
        fmt.Println(r.Status, string(b))\nif r.StatusCode != 200 { os.Exit(1) }\n}\n";
    std::fs::write(place.join("main.go"), source).unwrap();
    let program = place.join("fetch");
    succeeds(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg("main.go")
            .current_dir(&place)
            .env("GOCACHE", place.join("cache")),
        "building a client with go",
    );
    through_the_gateway("go", PAGE, &|given| {
        let mut command = Command::new(&program);
        command
            .arg(format!("https://{}/page", given.host))
            .env("HTTPS_PROXY", &given.proxy)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .env("SSL_CERT_FILE", given.authority);
        command
    });
}
