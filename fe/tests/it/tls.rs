//! HTTPS to a back end: certificates are checked on both sides, and read again when the front end is told to.

use std::path::Path;
use std::sync::Arc;

use directpush_common::eas::folder_sync::FolderSyncRequest;
use directpush_fe::backend::tls::TlsFiles;
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::fake::Fake;
use crate::world::{PHONE, World};

/// A private authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let (mut params, key) = (CertificateParams::new(Vec::new()).unwrap(), KeyPair::generate().unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name` and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let (params, key) =
            (CertificateParams::new(vec![name.to_owned()]).unwrap(), KeyPair::generate().unwrap());
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// A server with a certificate of ours for `name` that takes only clients with one of ours.
    fn server(&self, name: &str) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Arc::clone(&provider));
        let (certificate, key) = self.sign(name);
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap()
    }

    /// Writes what a front end needs of us: the authority, and a certificate with its key.
    fn write(&self, dir: &Path) {
        let (certificate, key) = self.sign("fe-1");
        for (file, text) in [("ca.pem", &self.pem), ("fe.pem", &certificate), ("fe.key", &key)] {
            std::fs::write(dir.join(file), text).unwrap();
        }
    }
}

fn files(dir: &Path) -> TlsFiles {
    TlsFiles { ca: Some(dir.join("ca.pem")), identity: Some((dir.join("fe.pem"), dir.join("fe.key"))) }
}

async fn world(server: ServerConfig, files: TlsFiles) -> World {
    let fake = Fake::start().await;
    let address = fake.open_tls_door("tls", server).await;
    World::before(fake, |config| {
        config.backends[0].url = format!("https://{address}");
        config.backend_tls = files;
    })
    .await
}

async fn folder_sync(world: &World) -> StatusCode {
    let body = FolderSyncRequest { sync_key: "0".into() }.encode();
    world.post(PHONE, "FolderSync", body).await.status()
}

#[tokio::test]
async fn both_sides_show_certificates_of_the_private_authority() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.write(dir.path());
    let world = world(authority.server("127.0.0.1"), files(dir.path())).await;
    assert_eq!(folder_sync(&world).await, 200);
    let requests = world.fake.requests();
    assert!(requests.iter().all(|request| request.starts_with("tls ")), "{requests:?}");
}

#[tokio::test]
async fn a_front_end_without_a_certificate_is_not_served() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.write(dir.path());
    let world = world(authority.server("127.0.0.1"), TlsFiles { identity: None, ..files(dir.path()) }).await;
    assert_eq!(folder_sync(&world).await, 503);
    assert!(world.fake.requests().is_empty());
}

#[tokio::test]
async fn a_back_end_with_anothers_certificate_gets_no_password() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.write(dir.path());
    for server in [Authority::new().server("127.0.0.1"), authority.server("127.0.0.2")] {
        let world = world(server, files(dir.path())).await;
        assert_eq!(folder_sync(&world).await, 503);
        assert!(world.fake.requests().is_empty());
    }
}

#[tokio::test]
async fn certificates_are_read_again_and_bad_ones_change_nothing() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    Authority::new().write(dir.path());
    let world = world(authority.server("127.0.0.1"), files(dir.path())).await;
    assert_eq!(folder_sync(&world).await, 503);
    authority.write(dir.path());
    let reloader = world.front.reloader();
    reloader.reload();
    assert_eq!(folder_sync(&world).await, 200);
    std::fs::write(dir.path().join("fe.key"), "not a key").unwrap();
    reloader.reload();
    assert_eq!(folder_sync(&world).await, 200);
}
