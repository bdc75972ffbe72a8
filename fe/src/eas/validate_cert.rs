//! ValidateCert ([MS-ASCMD] 2.2.1.22 ValidateCert): certificates of S/MIME mail, checked against this host's authorities
//! (RFC 5280 6.1) and for their use with mail (RFC 8550 4.4.4).
//!
//! Revocation lists are not fetched. A device that asks for them is told of an otherwise good certificate that its revocation
//! cannot be found out, not that it is good.

use directpush_common::eas::validate_cert::{CertStatus, ValidateCertRequest, ValidateCertResponse};
use directpush_common::wbxml::Limits;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

use super::{Reaction, Request};
use crate::backend::Result;

/// id-kp-emailProtection (RFC 5280 4.2.1.12), as DER has it.
const EMAIL_PROTECTION: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x04];

/// Carries out the command.
///
/// # Errors
/// None of its own.
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match ValidateCertRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(request.line.version).into()),
    };
    let judging = request.front.desk.work("certificates", move || {
        let authorities = rustls_native_certs::load_native_certs().certs;
        judge(&asked, &authorities, UnixTime::now())
    });
    let response = match judging.await {
        Ok(judged) => ValidateCertResponse::Judged(judged),
        Err(_) => ValidateCertResponse::Failed(CertStatus::ServerError),
    };
    let note = match &response {
        ValidateCertResponse::Judged(all) => format!("Fc{}_St1", all.len()),
        _ => "St17".to_owned(),
    };
    Ok(Reaction::Body(response.encode(), note))
}

fn judge(asked: &ValidateCertRequest, authorities: &[CertificateDer<'_>], now: UnixTime) -> Vec<CertStatus> {
    let anchors = authorities.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok());
    let anchors: Vec<TrustAnchor<'_>> = anchors.collect();
    let chain: Vec<_> = asked.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let one = |der: &Vec<u8>| match check(&CertificateDer::from(der.as_slice()), &chain, &anchors, now) {
        Ok(()) if asked.check_crl => CertStatus::RevocationUnknown,
        Ok(()) => CertStatus::Valid,
        Err(error) => status(&error),
    };
    asked.certificates.iter().map(one).collect()
}

fn check(
    der: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: UnixTime,
) -> std::result::Result<(), Error> {
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let certificate = EndEntityCert::try_from(der).map_err(|_| Error::BadDer)?;
    let usage = KeyUsage::required_if_present(EMAIL_PROTECTION);
    certificate.verify_for_usage(algorithms, anchors, chain, now, usage, None, None).map(drop)
}

/// What a device is told; Exchange says of what is no certificate that its signature is invalid.
fn status(error: &Error) -> CertStatus {
    match error {
        Error::BadDer
        | Error::BadDerTime
        | Error::TrailingData(_)
        | Error::InvalidSignatureForPublicKey
        | Error::SignatureAlgorithmMismatch
        | Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => CertStatus::BadSignature,
        Error::UnknownIssuer | Error::CertDistrusted => CertStatus::Untrusted,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension | Error::CaUsedAsEndEntity => {
            CertStatus::NotForMail
        }
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } | Error::InvalidCertValidity => {
            CertStatus::Expired
        }
        _ => CertStatus::BadChain,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    use super::CertStatus::{BadSignature, Expired, NotForMail, RevocationUnknown, Untrusted, Valid};
    use super::*;

    struct Authority {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority(name: &str, by: Option<&Authority>) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn signed(by: &Authority, purpose: ExtendedKeyUsagePurpose) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["alice@example.com".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        params.signed_by(&KeyPair::generate().unwrap(), &by.issuer).unwrap().der().to_vec()
    }

    /// Seconds of 2025 and of 2031.
    const GOOD: u64 = 1_740_000_000;
    const LATE: u64 = 1_930_000_000;

    #[test]
    fn each_kind_of_certificate_has_its_status() {
        let root = authority("root", None);
        let between = authority("between", Some(&root));
        let mail = signed(&between, ExtendedKeyUsagePurpose::EmailProtection);
        let server = signed(&root, ExtendedKeyUsagePurpose::ServerAuth);
        let mut forged = mail.clone();
        *forged.last_mut().unwrap() ^= 1;
        let stranger = signed(&authority("other", None), ExtendedKeyUsagePurpose::EmailProtection);
        let anchors = [root.certificate.der().clone()];
        let chain = vec![between.certificate.der().to_vec()];
        let judge = |asked: &ValidateCertRequest, at| {
            judge(asked, &anchors, UnixTime::since_unix_epoch(Duration::from_secs(at)))
        };
        let asked = ValidateCertRequest {
            chain: chain.clone(),
            certificates: vec![mail.clone(), server, forged, stranger, b"none".to_vec(), Vec::new()],
            check_crl: false,
        };
        let judged = judge(&asked, GOOD);
        assert_eq!(judged, [Valid, NotForMail, BadSignature, Untrusted, BadSignature, BadSignature]);
        let mail = ValidateCertRequest { chain, certificates: vec![mail], check_crl: true };
        assert_eq!(judge(&mail, GOOD), [RevocationUnknown]);
        assert_eq!(judge(&mail, LATE), [Expired]);
        let alone = ValidateCertRequest { chain: Vec::new(), check_crl: false, ..mail };
        assert_eq!(judge(&alone, GOOD), [Untrusted]);
    }
}
