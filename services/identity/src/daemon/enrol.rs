//! Certificates for the box's services: who asks is known by the kernel's word alone.

use std::sync::Arc;

use clawgress_link::enrol::{Enrolled, LONGEST, Reply, Request};
use clawgress_link::hex;
use clawgress_link::mtls::Role;
use tokio::net::UnixListener;

use super::authority::OwnAuthority;
use super::config::Config;
use super::line;

pub(super) async fn serve(
    listener: UnixListener,
    config: Config,
    authority: Arc<OwnAuthority>,
    credential_key: String,
) {
    let (config, credential_key) = (Arc::new(config), Arc::new(credential_key));
    let services = Arc::clone(&config);
    let may = move |uid| services.role_of(uid).is_some();
    line::serve(listener, LONGEST, may, move |uid, line| {
        let reply = answer(uid, &line, &config, &authority, &credential_key);
        async move {
            reply.unwrap_or_else(|error| {
                tracing::warn!(uid, "audit: no certificate was given: {error}");
                Reply::Error { error }
            })
        }
    })
    .await;
}

fn answer(
    uid: u32,
    line: &[u8],
    config: &Config,
    authority: &OwnAuthority,
    credential_key: &str,
) -> Result<Reply, String> {
    let role = config.role_of(uid).ok_or_else(|| {
        format!("the user {uid} is no service of this box; services in identity.toml has those")
    })?;
    let request: Request =
        serde_json::from_slice(line).map_err(|error| format!("no request: {error}"))?;
    let public_key = hex::decode(&request.public_key).ok_or("public_key is no hex")?;
    let signed = authority
        .sign(role, &public_key)
        .map_err(|error| error.to_string())?;
    tracing::info!(uid, role = role.word(), "audit: certificate given");
    Ok(Reply::Enrolled(Box::new(Enrolled {
        role,
        certificate: signed.certificate,
        authorities: authority.certificate().to_owned(),
        expires: signed.expires,
        bundle_keys: vec![authority.bundle_key().to_owned()],
        // Nobody else judges API keys.
        credential_key: (role == Role::Gateway).then(|| credential_key.to_owned()),
    })))
}
