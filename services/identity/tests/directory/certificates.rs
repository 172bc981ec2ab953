//! Client certificates: chains, names, revocation, time.

use std::time::Duration;

use clawgress_config::access::{AuthType, Status};
use clawgress_identity::{Presented, Refusal};
use clawgress_policy::Moment;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use crate::world::{NOW, World, now, refused, source};

struct Company {
    root: Issuer<'static, KeyPair>,
    root_pem: String,
    middle: Issuer<'static, KeyPair>,
    middle_der: CertificateDer<'static>,
}

fn authority(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn at(seconds: i64) -> rcgen::CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before =
        date_time_ymd(1970, 1, 1) + Duration::from_secs((NOW - 1000).cast_unsigned());
    parameters.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.cast_unsigned());
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.serial_number = Some(SerialNumber::from(0x1234_u64));
    parameters
}

/// A client's certificate of these names, good for a thousand seconds yet.
fn leaf(names: &[&str]) -> CertificateParams {
    let mut parameters = at(NOW + 1000);
    parameters.subject_alt_names = names
        .iter()
        .map(|name| {
            if name.contains(':') {
                SanType::URI((*name).try_into().unwrap())
            } else {
                SanType::DnsName((*name).try_into().unwrap())
            }
        })
        .collect();
    parameters
}

impl Company {
    fn new() -> Self {
        let (root_key, middle_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root_pem = authority("root").self_signed(&root_key).unwrap().pem();
        let root = Issuer::new(authority("root"), root_key);
        let middle_der = authority("middle")
            .signed_by(&middle_key, &root)
            .unwrap()
            .der()
            .clone();
        let middle = Issuer::new(authority("middle"), middle_key);
        Self {
            root,
            root_pem,
            middle,
            middle_der,
        }
    }

    fn chain(&self, parameters: &CertificateParams) -> Vec<CertificateDer<'static>> {
        let key = KeyPair::generate().unwrap();
        let own = parameters.signed_by(&key, &self.middle).unwrap();
        vec![own.der().clone(), self.middle_der.clone()]
    }

    fn world(&self) -> World {
        let mut world = World::new();
        world.snapshot.client_ca = Some(self.root_pem.clone());
        world
    }
}

fn list(issuer: &Issuer<'static, KeyPair>, revoked: &[u64], until: i64) -> String {
    let since =
        |seconds: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.cast_unsigned());
    CertificateRevocationListParams {
        this_update: since(NOW - 1000),
        next_update: since(until),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: since(NOW - 10),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .unwrap()
    .pem()
    .unwrap()
}

fn shown(
    world: &World,
    chain: &[CertificateDer<'static>],
) -> Result<std::sync::Arc<clawgress_identity::Identity>, Refusal> {
    world
        .directory()
        .resolve(&Presented::Certificate(chain), source(), now())
}

#[test]
fn a_chain_to_the_authority_says_which_agent_it_is() {
    let company = Company::new();
    let world = company.world();
    for names in [
        ["cert-1"].as_slice(),
        &["clawgress:agent:cert-1"],
        &["cert-1", "host.example", "clawgress:agent:cert-1"],
    ] {
        let chain = company.chain(&leaf(names));
        let identity = shown(&world, &chain).unwrap();
        assert_eq!(&*identity.agent_id, "cert-1");
        assert_eq!(identity.auth_type, AuthType::Certificate);
        assert_eq!(identity.credential.to_string(), "1234");
        assert_eq!(identity.expires, Some(NOW + 1000));
        assert!(
            identity
                .workload_fingerprint
                .as_deref()
                .unwrap()
                .starts_with("sha256:")
        );
    }
}

#[test]
fn other_chains_and_other_names_are_refused() {
    let (company, stranger) = (Company::new(), Company::new());
    let world = company.world();
    let good = company.chain(&leaf(&["cert-1"]));
    let mut server = leaf(&["cert-1"]);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut critical = leaf(&["cert-1"]);
    let mut unknown =
        rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
    unknown.set_criticality(true);
    critical.custom_extensions.push(unknown);
    let mut damaged = good.clone();
    let mut bytes = damaged[0].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    damaged[0] = bytes.into();
    for (chain, expected) in [
        (Vec::new(), Refusal::NoCredential),
        // Its authorities have the names of ours.
        (stranger.chain(&leaf(&["cert-1"])), Refusal::BadSignature),
        (good[..1].to_vec(), Refusal::WrongIssuer),
        (damaged, Refusal::BadSignature),
        (
            vec![CertificateDer::from(b"x".to_vec())],
            Refusal::Malformed,
        ),
        (vec![good[0].clone(); 7], Refusal::Malformed),
        (company.chain(&server), Refusal::Malformed),
        (company.chain(&critical), Refusal::Malformed),
        (company.chain(&leaf(&[])), Refusal::UnknownAgent),
        (company.chain(&leaf(&["nobody"])), Refusal::UnknownAgent),
        (
            company.chain(&leaf(&["clawgress:agent:"])),
            Refusal::UnknownAgent,
        ),
        (
            company.chain(&leaf(&["cert-1", "cert-2"])),
            Refusal::UnknownAgent,
        ),
        (
            company.chain(&leaf(&["cert-1", "clawgress:agent:key-1"])),
            Refusal::UnknownAgent,
        ),
        (company.chain(&leaf(&["key-1"])), Refusal::WrongAuthType),
        (company.chain(&at(NOW - 1)), Refusal::Expired),
    ] {
        let outcome = shown(&world, &chain);
        assert_eq!(outcome.err(), Some(expected));
    }
    // Without an authority nobody is anybody.
    let mut bare = company.world();
    bare.snapshot.client_ca = None;
    refused(shown(&bare, &good), Refusal::WrongIssuer);
}

#[test]
fn its_time_is_looked_at_whenever_it_is_shown() {
    let company = Company::new();
    let directory = company.world().directory();
    let chain = company.chain(&leaf(&["cert-1"]));
    let at = |moment| directory.resolve(&Presented::Certificate(&chain), source(), moment);
    assert!(at(now()).is_ok());
    assert!(at(Moment::trusted(NOW + 1000)).is_ok());
    refused(at(Moment::trusted(NOW + 1001)), Refusal::Expired);
    refused(at(Moment::trusted(NOW - 1001)), Refusal::NotYetValid);
    refused(at(Moment::untrusted(NOW)), Refusal::ClockUntrusted);
    assert!(at(now()).is_ok());
}

#[test]
fn what_is_on_a_list_is_refused_and_so_is_what_no_list_speaks_of() {
    let company = Company::new();
    let chain = company.chain(&leaf(&["cert-1"]));
    let with = |lists: &[String]| {
        let mut world = company.world();
        world.access.client_crl = Some("crl.pem".to_owned());
        world.snapshot.client_crl = Some(lists.concat());
        world
    };
    let (root, middle) = (
        list(&company.root, &[], NOW + 500),
        list(&company.middle, &[7], NOW + 500),
    );
    let world = with(&[root.clone(), middle.clone()]);
    let identity = shown(&world, &chain).unwrap();
    // The list ends before the certificate does, and what was verified once does not outlive it.
    let directory = world.directory();
    assert!(
        directory
            .resolve(&Presented::Certificate(&chain), source(), now())
            .is_ok()
    );
    let late = directory.resolve(
        &Presented::Certificate(&chain),
        source(),
        Moment::trusted(NOW + 560),
    );
    refused(late, Refusal::Unavailable);

    let revoked = with(&[root.clone(), list(&company.middle, &[7, 0x1234], NOW + 500)]);
    refused(shown(&revoked, &chain), Refusal::Revoked);
    refused(
        revoked.directory().renew(&identity, source(), now()),
        Refusal::Revoked,
    );
    refused(
        shown(&with(std::slice::from_ref(&root)), &chain),
        Refusal::Unavailable,
    );
    refused(shown(&with(&[middle]), &chain), Refusal::Unavailable);
    refused(
        shown(&with(&[root, list(&company.middle, &[], NOW - 1)]), &chain),
        Refusal::Unavailable,
    );
    // A list by somebody else speaks for nobody.
    let stranger = Company::new();
    let foreign = with(&[
        list(&company.root, &[], NOW + 500),
        list(&stranger.middle, &[], NOW + 500),
    ]);
    assert!(shown(&foreign, &chain).is_err());
    // One that is configured and missing, or no list at all.
    let mut missing = company.world();
    missing.access.client_crl = Some("crl.pem".to_owned());
    refused(shown(&missing, &chain), Refusal::WrongIssuer);
    missing.snapshot.client_crl = Some("nothing".to_owned());
    refused(shown(&missing, &chain), Refusal::WrongIssuer);
    assert_eq!(missing.directory().faults().len(), 1);
}

#[test]
fn a_serial_number_is_revoked_and_an_agent_disabled_without_a_list() {
    let company = Company::new();
    let mut world = company.world();
    let chain = company.chain(&leaf(&["cert-1"]));
    let identity = shown(&world, &chain).unwrap();
    // A connection outlives the end of its certificate, not its revocation.
    let later = Moment::trusted(NOW + 100_000);
    assert!(world.directory().renew(&identity, source(), later).is_ok());
    world
        .snapshot
        .revoked_certificates
        .insert("1234".to_owned());
    refused(shown(&world, &chain), Refusal::Revoked);
    refused(
        world.directory().renew(&identity, source(), later),
        Refusal::Revoked,
    );
    world.snapshot.revoked_certificates.clear();
    world.agent("cert-1").status = Status::Disabled;
    refused(shown(&world, &chain), Refusal::Disabled);
}
