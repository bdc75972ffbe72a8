//! HTTPS: our certificate, and whose certificates front ends must show.
//!
//! The files are read at the start and again on SIGHUP; connections in progress keep what they had. Where there is an authority
//! for clients, a front end shows a certificate for the very name that its credential names: a secret that was stolen is
//! of no use without the key. People with DAV clients need none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

/// PEM files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// Our certificate and what is between it and its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who signs the certificates of front ends; none = they need not show any.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("{}: {source}", file.display())]
    File { file: PathBuf, source: pem::Error },
    #[error("{}: no certificate", .0.display())]
    Empty(PathBuf),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
}

/// What TLS goes by now.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

/// Left with a request: the certificate that the other end showed, checked against `client_ca`.
#[derive(Clone, Debug)]
pub struct Shown(pub Arc<CertificateDer<'static>>);

impl Tls {
    /// Reads the files.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(server(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again; what was read before stays in force if they cannot be used.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = server(&self.files)?;
        *self.current.write() = read;
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().clone()
    }

    /// Whether front ends must show certificates.
    pub fn asks_front_ends(&self) -> bool {
        self.files.client_ca.is_some()
    }
}

impl Shown {
    /// Whether it is this front end's.
    pub fn names(&self, front_end: &str) -> bool {
        let Ok(name) = ServerName::try_from(front_end) else { return false };
        ParsedCertificate::try_from(&*self.0)
            .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }
}

/// What these files make.
pub(crate) fn server(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| TlsError::File { file: files.key.clone(), source })?;
    let mut config = builder.with_single_cert(certificates(&files.certificate)?, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { file: file.to_owned(), source };
    let read = CertificateDer::pem_file_iter(file).map_err(failed)?;
    let certificates = read.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if certificates.is_empty() { Err(TlsError::Empty(file.to_owned())) } else { Ok(certificates) }
}
