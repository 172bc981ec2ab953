//! Keys and self-signed certificates of what the box serves with TLS (front, gateway), made at first boot.
//!
//! A key is readable by root and its holder alone and is never copied; who pins the certificate reads the other file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

use crate::{accounts, atomic, clock, paths::Paths};

const DAY: u64 = 86_400;
const LIFETIME: u64 = 2 * 365 * DAY;
/// Before any image of ours.
const YEAR_2024: u64 = 1_704_067_200;
/// Renewed at a boot this long before its end.
const MARGIN: u64 = 30 * DAY;
/// Begins the line before the certificate that says what it was made for. PEM readers skip such lines.
const NOTE: &str = "Clawgress: ";

/// Who serves with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// haproxy reads key and certificate from one file.
    Front,
    Gateway,
}

impl Holder {
    fn group(self) -> &'static str {
        match self {
            Self::Front => "haproxy",
            Self::Gateway => "clawgress-gateway",
        }
    }

    fn key(self, paths: &Paths) -> PathBuf {
        match self {
            Self::Front => paths.front_key(),
            Self::Gateway => paths.gateway_key(),
        }
    }

    fn certificate(self, paths: &Paths) -> PathBuf {
        match self {
            Self::Front => paths.front_certificate(),
            Self::Gateway => paths.gateway_certificate(),
        }
    }
}

/// Makes the certificate unless one for this name is there that will do for a while.
pub(crate) fn ensure(paths: &Paths, holder: Holder, host_name: &str, built: u64) -> Result<String> {
    // A clock that is behind the image's own birth is wrong; nothing then may look expired or not yet valid.
    let now = clock::unix_now().max(built);
    let note = fs::read_to_string(holder.certificate(paths)).ok();
    if let Some(end) = note
        .as_deref()
        .and_then(|text| usable_until(text, host_name))
        && now + MARGIN < end
        && holder.key(paths).exists()
    {
        return Ok("the certificate of an earlier boot".to_owned());
    }
    make(paths, holder, host_name, built, now)?;
    Ok("a new certificate".to_owned())
}

fn note(host_name: &str, end: u64) -> String {
    format!("{NOTE}{host_name} until {end}\n")
}

/// The end of the certificate's life, if it was made for this name.
fn usable_until(text: &str, host_name: &str) -> Option<u64> {
    let (name, end) = text
        .lines()
        .next()?
        .strip_prefix(NOTE)?
        .split_once(" until ")?;
    (name == host_name).then(|| end.parse().ok())?
}

fn make(paths: &Paths, holder: Holder, host_name: &str, built: u64, now: u64) -> Result<()> {
    let mut names = vec![
        host_name.to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    names.dedup();
    let end = now + LIFETIME;
    let mut params = CertificateParams::new(names)
        .with_context(|| format!("naming {host_name} in a certificate"))?;
    params
        .distinguished_name
        .push(DnType::CommonName, host_name);
    // Valid since the day before the image was built: however the clock is set right later, it will be after that.
    let (year, month, day) = clock::date(if built == 0 {
        YEAR_2024
    } else {
        built.saturating_sub(DAY)
    });
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = clock::date(end);
    params.not_after = date_time_ymd(year, month, day);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
    let certificate = params
        .self_signed(&key)
        .context("signing a certificate")?
        .pem();

    let directory = paths.tls();
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).with_context(|| {
        format!(
            "opening {} to those who pin the certificate",
            directory.display()
        )
    })?;
    let group = accounts::group(paths, holder.group())
        .with_context(|| format!("the image has no group {} to own its key", holder.group()))?;
    let mut secret = key.serialize_pem();
    if holder == Holder::Front {
        secret.push_str(&certificate);
    }
    // The key first: a certificate without its key would be taken as complete at the next boot.
    atomic::write(&holder.key(paths), secret.as_bytes(), 0o640, Some(group))?;
    let public = format!("{}{certificate}", note(host_name, end));
    atomic::write(&holder.certificate(paths), public.as_bytes(), 0o644, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(
            paths.groups(),
            format!(
                "haproxy:x:{0}:\nclawgress-gateway:x:{0}:\n",
                nix::unistd::getgid()
            ),
        )
        .unwrap();
        (dir, paths)
    }

    #[test]
    fn made_once_and_again_for_another_name() {
        let (_dir, paths) = root();
        assert_eq!(
            ensure(&paths, Holder::Front, "gw1", 1_700_000_000).unwrap(),
            "a new certificate"
        );
        let first = fs::read(paths.front_key()).unwrap();
        assert_eq!(
            ensure(&paths, Holder::Front, "gw1", 1_700_000_000).unwrap(),
            "the certificate of an earlier boot"
        );
        assert_eq!(fs::read(paths.front_key()).unwrap(), first);
        ensure(&paths, Holder::Front, "gw2", 1_700_000_000).unwrap();
        assert_ne!(fs::read(paths.front_key()).unwrap(), first);
    }

    #[test]
    fn the_key_is_for_haproxy_alone() {
        let (_dir, paths) = root();
        ensure(&paths, Holder::Front, "gw1", 1_700_000_000).unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(paths.front_key()), 0o640);
        assert_eq!(mode(paths.front_certificate()), 0o644);
        assert!(
            !fs::read_to_string(paths.front_certificate())
                .unwrap()
                .contains("PRIVATE")
        );
        assert!(
            fs::read_to_string(paths.front_key())
                .unwrap()
                .contains("PRIVATE")
        );
    }

    #[test]
    fn each_holder_has_its_own() {
        let (_dir, paths) = root();
        for holder in [Holder::Front, Holder::Gateway] {
            ensure(&paths, holder, "gw1", 1_700_000_000).unwrap();
        }
        let key = fs::read_to_string(paths.gateway_key()).unwrap();
        assert!(key.contains("PRIVATE") && !key.contains("CERTIFICATE"));
        assert!(
            !fs::read_to_string(paths.front_key())
                .unwrap()
                .contains(&key)
        );
    }

    #[test]
    fn a_clock_before_the_image_was_built_does_not_shorten_its_life() {
        let (_dir, paths) = root();
        let built = clock::unix_now() + 10 * 365 * DAY;
        ensure(&paths, Holder::Front, "gw1", built).unwrap();
        let text = fs::read_to_string(paths.front_certificate()).unwrap();
        assert_eq!(usable_until(&text, "gw1"), Some(built + LIFETIME));
    }

    #[test]
    fn an_ageing_certificate_is_replaced() {
        let (_dir, paths) = root();
        fs::create_dir_all(paths.tls()).unwrap();
        fs::write(paths.front_key(), "old").unwrap();
        fs::write(
            paths.front_certificate(),
            note("gw1", clock::unix_now() + DAY),
        )
        .unwrap();
        assert_eq!(
            ensure(&paths, Holder::Front, "gw1", 0).unwrap(),
            "a new certificate"
        );
    }

    #[test]
    fn a_missing_group_is_named() {
        let (_dir, paths) = root();
        fs::write(paths.groups(), "").unwrap();
        assert!(
            ensure(&paths, Holder::Front, "gw1", 0)
                .unwrap_err()
                .to_string()
                .contains("haproxy")
        );
        assert!(!paths.front_key().exists());
    }
}
