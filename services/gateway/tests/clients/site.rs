//! The site that the clients fetch from: files over HTTPS, laid out as a web page, a git repository, and registries of
//! packages want them.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::origin::SERVER;

pub(crate) const PAGE: &str = "a page of the lab";

pub(crate) struct Site {
    config: Arc<ServerConfig>,
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // A name of its own: a certificate that is issued by its own name is taken for self-signed.
        params.distinguished_name = DistinguishedName::new();
        let word = "authority of the lab";
        params.distinguished_name.push(DnType::CommonName, word);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let names = vec!["*.lab.test".to_owned()];
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.signed_by(&own, &issuer).unwrap();
        fs::write(directory.path().join("authority.pem"), authority.pem()).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let site = Self {
            config: Arc::new(config),
            directory,
        };
        site.fill();
        site
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join("files").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn fill(&self) {
        self.put("page", PAGE);
        // A repository as a plain file server has it.
        let work = self.directory.path().join("work");
        let bare = self.directory.path().join("files/repository.git");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("README"), PAGE).unwrap();
        let (work, bare) = (work.to_str().unwrap(), bare.to_str().unwrap());
        run(&format!("git init -q -b main {work}"));
        run(&format!("git -C {work} add README"));
        run(&format!(
            "git -C {work} -c user.name=lab -c user.email=lab@lab.test commit -q -m page"
        ));
        run(&format!("git clone -q --bare {work} {bare}"));
        run(&format!("git -C {bare} update-server-info"));
        // A flat archive of no packages.
        self.put("apt/Packages", "");
        // A package of Python, of JavaScript and of Go, each the smallest that there is.
        self.put(
            "simple/labpage/index.html",
            "<a href=\"../../files/labpage-1.0-py3-none-any.whl\">labpage-1.0-py3-none-any.whl</a>",
        );
        let wheel = self.put("files/labpage-1.0-py3-none-any.whl", "");
        fs::remove_file(&wheel).unwrap();
        let script = format!(
            "import zipfile\nz = zipfile.ZipFile('{}', 'w')\nd = 'labpage-1.0.dist-info/'\nz.writestr('labpage.py', {PAGE:?})\n\
             z.writestr(d + 'METADATA', 'Metadata-Version: 2.1\\nName: labpage\\nVersion: 1.0\\n')\n\
             z.writestr(d + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: lab\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
             z.writestr(d + 'RECORD', '')\n",
            wheel.display()
        );
        let status = Command::new("python3").args(["-c", &script]).status();
        assert!(
            status
                .expect("python3 is needed: apt-get install python3")
                .success()
        );
        let package = self.put(
            "npm-work/package/package.json",
            "{\"name\": \"labpage\", \"version\": \"1.0.0\", \"description\": \"a page of the lab\"}",
        );
        let from = package.parent().unwrap().parent().unwrap();
        let archive = self.directory.path().join("files/labpage-1.0.0.tgz");
        run(&format!(
            "tar -czf {} -C {} package",
            archive.display(),
            from.display()
        ));
    }

    /// In the network of the calling thread.
    pub(crate) fn serve(&self) {
        let listener = TcpListener::bind((SERVER, 443)).unwrap();
        let files = self.directory.path().join("files");
        let config = Arc::clone(&self.config);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (files, config) = (files.clone(), Arc::clone(&config));
                std::thread::spawn(move || answer(stream, &files, config));
            }
        });
    }
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.expect(line).success(), "{line}");
}

/// One request of one connection.
fn answer(stream: TcpStream, files: &Path, config: Arc<ServerConfig>) -> Option<()> {
    let connection = ServerConnection::new(config).ok()?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let host = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host")
            .then(|| value.trim().to_owned())
    })?;
    let path = head
        .split(' ')
        .nth(1)?
        .split('?')
        .next()?
        .trim_matches('/')
        .to_owned();
    let plain = !path.split('/').any(|part| part == "..");
    let found = plain.then(|| content(files, &path, &host)).flatten();
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let kind = if path.starts_with("simple") {
        "text/html"
    } else if path == "labpage" {
        "application/json"
    } else {
        "application/octet-stream"
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(answer.as_bytes()).ok()?;
    if !head.starts_with("HEAD ") {
        stream.write_all(&body).ok()?;
    }
    stream.conn.send_close_notify();
    stream.flush().ok()
}

fn content(files: &Path, path: &str, host: &str) -> Option<Vec<u8>> {
    if path == "labpage" {
        let text = serde_json::json!({
            "name": "labpage",
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": {
                "name": "labpage",
                "version": "1.0.0",
                "dist": {"tarball": format!("https://{host}/labpage-1.0.0.tgz")},
            }},
        });
        return Some(text.to_string().into_bytes());
    }
    let file = files.join(path);
    let file = if file.is_dir() {
        file.join("index.html")
    } else {
        file
    };
    fs::read(file).ok()
}
