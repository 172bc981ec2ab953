//! A certificate as a client may send it: no chain leads from it to an authority that has signed nothing.

#![no_main]

use std::sync::OnceLock;

use clawgress_config::access::Access;
use clawgress_identity::snapshot::Snapshot;
use clawgress_identity::{CredentialKey, Directory, Presented};
use clawgress_policy::Moment;
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::CertificateDer;

const AUTHORITY: &str = include_str!("authority.pem");

fn directory() -> &'static Directory {
    static DIRECTORY: OnceLock<Directory> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let snapshot = Snapshot {
            client_ca: Some(AUTHORITY.to_owned()),
            ..Snapshot::default()
        };
        let directory =
            Directory::build(&snapshot, &Access::default(), CredentialKey::of(&[7; 32]));
        assert!(directory.faults().is_empty());
        directory
    })
}

fuzz_target!(|certificate: &[u8]| {
    let chain = [CertificateDer::from(certificate)];
    let moment = Moment::trusted(1_795_000_000);
    assert!(
        directory()
            .resolve(
                &Presented::Certificate(&chain),
                [192, 0, 2, 1].into(),
                moment
            )
            .is_err()
    );
});
