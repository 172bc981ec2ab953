//! The box's authority in this service's hands, and its own certificate, which it signs for itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawgress_link::bundle::Publisher;
use clawgress_link::ca::{Authority, AuthorityError, Signed};
use clawgress_link::enrol::{is_due, new_key};
use clawgress_link::mtls::{Credentials, Role, Stored};

use super::engine::now;

pub(super) struct OwnAuthority {
    authority: Authority,
    directory: PathBuf,
    credentials: Arc<Credentials>,
    bundle_key: String,
}

impl OwnAuthority {
    pub(super) fn open(state: &Path, publisher: &Publisher) -> anyhow::Result<Self> {
        let authority = Authority::open(state)?;
        let bundle_key = publisher.public_key();
        let credentials = Credentials::of(own(&authority, &bundle_key)?)?;
        Ok(Self {
            authority,
            directory: state.to_owned(),
            credentials,
            bundle_key,
        })
    }

    pub(super) fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    pub(super) fn sign(&self, role: Role, public_key: &[u8]) -> Result<Signed, AuthorityError> {
        self.authority.sign(role, public_key)
    }

    pub(super) fn certificate(&self) -> &str {
        self.authority.certificate()
    }

    pub(super) fn bundle_key(&self) -> &str {
        &self.bundle_key
    }

    pub(super) fn renew_when_due(&self) {
        if !is_due(&self.credentials.stored(), now()) {
            return;
        }
        let renewed = own(&self.authority, &self.bundle_key)
            .and_then(|stored| Ok(self.credentials.replace(&self.directory, stored)?));
        match renewed {
            Ok(()) => tracing::info!("this service has a new certificate"),
            Err(error) => tracing::error!("renewing this service's certificate: {error:#}"),
        }
    }
}

fn own(authority: &Authority, bundle_key: &str) -> anyhow::Result<Stored> {
    let (key, public_key) = new_key()?;
    let signed = authority.sign(Role::Identity, &public_key)?;
    Ok(Stored {
        role: Role::Identity,
        key,
        certificate: signed.certificate,
        authorities: authority.certificate().to_owned(),
        issued: now(),
        expires: signed.expires,
        bundle_keys: vec![bundle_key.to_owned()],
        credential_key: None,
    })
}
