//! TLS to back ends: whom we trust, and the certificate that names this front end.
//!
//! A back end's certificate is always checked: against the authorities of `ca`, else against the system's. Files are read when
//! the front end starts and again when it is told to (SIGHUP); connections in progress keep what they had.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, client::WantsClientCert};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// `[backend_tls]`: PEM files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsFiles {
    /// The authorities that back ends' certificates are checked against; none = the system's.
    pub ca: Option<PathBuf>,
    /// This front end's certificate and what is between it and its authority, with its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is not there, or not PEM.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{}: no certificate", .0.display())]
    Empty(PathBuf),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

/// For back ends that are reached in plain HTTP: trusts nobody.
///
/// # Errors
/// When the cryptographic provider lacks what TLS needs.
pub fn unused() -> Result<Arc<ClientConfig>, TlsError> {
    Ok(Arc::new(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

/// For back ends that are reached by HTTPS.
///
/// # Errors
/// [`TlsError`].
pub fn client(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let verified: ConfigBuilder<ClientConfig, WantsClientCert> = match &files.ca {
        None => builder()?.with_platform_verifier()?,
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate)?;
            }
            builder()?.with_root_certificates(roots)
        }
    };
    let config = match &files.identity {
        None => verified.with_no_client_auth(),
        Some((certificate, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|source| TlsError::File { file: key.clone(), source })?;
            verified.with_client_auth_cert(certificates(certificate)?, secret)?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { file: file.to_owned(), source };
    let read = CertificateDer::pem_file_iter(file).map_err(failed)?;
    let certificates = read.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if certificates.is_empty() { Err(TlsError::Empty(file.to_owned())) } else { Ok(certificates) }
}
