//! The private authority of this back end: certificates for front ends, and for back ends.
//!
//! It is made when it is first needed, in `state_dir/tls`: `ca.pem`, and `ca.key` for this user alone. A certificate names who
//! shows it as a DNS name or an address (RFC 5280 4.2.1.6). Certificates are not revoked: a front end that is removed has no
//! credential any more, without which its certificate is of no use.
//!
//! Not here: TLS itself (`http::tls`).

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, date_time_ymd,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const AUTHORITY_YEARS: i64 = 20;
/// Certificates are good for two years: `fe renew` and `tls init` make the next ones.
const CERTIFICATE_YEARS: i64 = 2;

/// A certificate with its key, and who signed it; PEM.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub ca: String,
    /// Unix seconds.
    pub until: i64,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    FrontEnd,
    BackEnd,
}

/// The authority of one back end.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn wrong(error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Authority {
    /// Where a back end keeps it.
    pub fn dir(state_dir: &Path) -> PathBuf {
        state_dir.join("tls")
    }

    /// Reads it, or makes it if there is none. `now` in Unix seconds.
    pub fn open(state_dir: &Path, now: i64) -> io::Result<Self> {
        let dir = Self::dir(state_dir);
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let key = match fs::read_to_string(&key) {
            Ok(text) => KeyPair::from_pem(&text).map_err(|error| wrong(&error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = KeyPair::generate().map_err(|error| wrong(&error))?;
                make_dir(&dir)?;
                write_private(&key, &made.serialize_pem())?;
                made
            }
            Err(error) => return Err(error),
        };
        let params = params(&key, now)?;
        // The key is the authority: should a crash have come between the two files, the certificate is made anew.
        let pem = match fs::read_to_string(&certificate) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = params.self_signed(&key).map_err(|error| wrong(&error))?.pem();
                write_public(&certificate, &pem)?;
                pem
            }
            Err(error) => return Err(error),
        };
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// A new key, and a certificate for it and these names.
    pub fn issue(&self, names: &[String], purpose: Use, now: i64) -> io::Result<Issued> {
        let wrong = |error: rcgen::Error| wrong(&error);
        let mut params = CertificateParams::new(names.to_vec()).map_err(wrong)?;
        let first = names.first().map(String::as_str).unwrap_or_default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, first);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Use::FrontEnd => ExtendedKeyUsagePurpose::ClientAuth,
            Use::BackEnd => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let until = validity(&mut params, now, CERTIFICATE_YEARS)?;
        let key = KeyPair::generate().map_err(wrong)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem(), ca: self.pem.clone(), until })
    }
}

/// The authority's own certificate; but for its dates the same whenever it is made for this key.
fn params(key: &KeyPair, now: i64) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| wrong(&error))?;
    let digest = Sha256::digest(key.der_bytes());
    let name = format!("directpush {}", HEXLOWER.encode(&digest[..4]));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, now, AUTHORITY_YEARS)?;
    Ok(params)
}

/// From yesterday, for clocks that go slow; says until when, in Unix seconds.
fn validity(params: &mut CertificateParams, now: i64, years: i64) -> io::Result<i64> {
    let date = |date: Date| {
        let [month, day] = [date.month(), date.day()].map(i8::unsigned_abs);
        date_time_ymd(date.year().into(), month, day)
    };
    let today = Timestamp::from_second(now).map_err(|error| wrong(&error))?.to_zoned(TimeZone::UTC).date();
    let first = today.yesterday().map_err(|error| wrong(&error))?;
    let last = today.checked_add(years.years()).map_err(|error| wrong(&error))?;
    params.not_before = date(first);
    params.not_after = date(last);
    let end = last.to_zoned(TimeZone::UTC).map_err(|error| wrong(&error))?;
    Ok(end.timestamp().as_second())
}

/// Makes a directory for this user alone.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a file that only this user may read; whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    write(path, text, 0o600)
}

/// The same for a file that everybody may read.
pub(crate) fn write_public(path: &Path, text: &str) -> io::Result<()> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    // One that a crash left may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, UnixTime};
    use rustls::{RootCertStore, server::WebPkiClientVerifier};

    use super::*;
    use crate::http::tls::Shown;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn the_authority_is_made_once_and_signs_for_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path(), NOW).unwrap();
        let again = Authority::open(dir.path(), NOW + 86_400 * 400).unwrap();
        assert_eq!(first.pem, again.pem);
        let mode = |name: &str| {
            let meta = fs::metadata(dir.path().join("tls").join(name)).unwrap();
            std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777
        };
        assert_eq!((mode("ca.key"), mode("ca.pem")), (0o600, 0o644));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(first.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let names = ["fe-1".to_owned()];
        // Signed after a restart, by what was read again.
        let issued = again.issue(&names, Use::FrontEnd, NOW).unwrap();
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let at = |secs: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs.unsigned_abs()));
        verifier.verify_client_cert(&certificate, &[], at(NOW)).unwrap();
        verifier.verify_client_cert(&certificate, &[], at(issued.until + 86_400)).unwrap_err();
        assert!((700..740).contains(&((issued.until - NOW) / 86_400)));
        let shown = Shown(Arc::new(certificate));
        assert!(shown.names("fe-1") && !shown.names("fe-2") && !shown.names("not a name"));
        let server = again.issue(&names, Use::BackEnd, NOW).unwrap();
        let server = CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap();
        verifier.verify_client_cert(&server, &[], at(NOW)).unwrap_err();
    }
}
