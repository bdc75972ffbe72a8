//! ValidateCert's request and response ([MS-ASCMD] 2.2.1.22 ValidateCert).
//!
//! Not here: judging certificates.

use data_encoding::BASE64;

use super::status::CommonStatus;
use super::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::wbxml::tags::validate_cert::{
    CERTIFICATE, CERTIFICATE_CHAIN, CERTIFICATES, CHECK_CRL, STATUS, VALIDATE_CERT,
};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// Certificates of one request ([MS-ASCMD] 3.1.5.10 Limiting Size of Command Requests).
pub const CERTIFICATES_MAX: usize = 100;

numbered! {
    /// Answers of ValidateCert, for the whole or one certificate ([MS-ASCMD] 2.2.3.177.18 Status (ValidateCert)).
    CertStatus {
        /// Done; of a certificate: it is good.
        Valid = 1,
        /// Something in the request is invalid, or too much.
        ProtocolError = 2,
        /// The signature does not fit, or there is none.
        BadSignature = 3,
        /// Its issuer is not trusted.
        Untrusted = 4,
        /// The chain is not one.
        BadChain = 5,
        /// It is not for signing mail.
        NotForMail = 6,
        /// It has expired, or is not valid yet.
        Expired = 7,
        /// Whether it was revoked cannot be found out.
        RevocationUnknown = 14,
        /// Trouble on the server.
        ServerError = 17,
    }
}

/// A ValidateCert request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ValidateCertRequest {
    /// What may lie between the certificates and an authority (DER).
    pub chain: Vec<Vec<u8>>,
    /// The certificates in question (DER); empty bytes for one that is not base64. At least one.
    pub certificates: Vec<Vec<u8>>,
    /// Whether they were revoked matters, too.
    pub check_crl: bool,
}

/// Why a body is not what it should be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidateCertError {
    /// The body is not WBXML, or broken.
    #[error("ValidateCert: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("ValidateCert: the root element is {0:?}")]
    NotValidateCert(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("ValidateCert: no valid {0:?}")]
    Invalid(Tag),
}

impl ValidateCertError {
    /// What the device is answered.
    pub fn answer(&self, version: Version) -> Answer {
        match self {
            Self::Wbxml(error) => malformed_answer(Command::ValidateCert, version, Malformed::from(error)),
            Self::NotValidateCert(_) => malformed_answer(Command::ValidateCert, version, Malformed::Xml),
            Self::Invalid(_) => {
                Answer::Body(ValidateCertResponse::Failed(CertStatus::ProtocolError).encode())
            }
        }
    }
}

fn parse(body: &[u8], limits: Limits) -> Result<Document<'_>, ValidateCertError> {
    let document = Document::parse(body, limits)?;
    match document.root().tag() {
        VALIDATE_CERT => Ok(document),
        other => Err(ValidateCertError::NotValidateCert(other)),
    }
}

/// Base64 with or without line breaks.
fn der(element: ElementRef<'_>) -> Vec<u8> {
    let mut text = element.bytes().into_owned();
    text.retain(|byte| !byte.is_ascii_whitespace());
    BASE64.decode(&text).unwrap_or_default()
}

impl ValidateCertRequest {
    /// The request's body.
    pub fn encode(&self) -> Vec<u8> {
        let list = |writer: &mut Writer, tag, all: &[Vec<u8>]| {
            writer.element(tag, |writer| {
                for certificate in all {
                    writer.text(CERTIFICATE, &BASE64.encode(certificate));
                }
            });
        };
        Writer::document(VALIDATE_CERT, |writer| {
            if !self.chain.is_empty() {
                list(writer, CERTIFICATE_CHAIN, &self.chain);
            }
            list(writer, CERTIFICATES, &self.certificates);
            if self.check_crl {
                writer.number(CHECK_CRL, 1);
            }
        })
    }

    /// Reads a request's body. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`ValidateCertError`]; also for more than [`CERTIFICATES_MAX`] certificates.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, ValidateCertError> {
        let document = parse(body, limits)?;
        let root = document.root();
        let list = |tag| {
            let all = root.child(tag).into_iter().flat_map(ElementRef::children);
            let all: Vec<_> =
                all.filter(|child| child.tag() == CERTIFICATE).take(CERTIFICATES_MAX + 1).collect();
            if all.len() > CERTIFICATES_MAX { Err(ValidateCertError::Invalid(tag)) } else { Ok(all) }
        };
        let certificates: Vec<_> = list(CERTIFICATES)?.into_iter().map(der).collect();
        if certificates.is_empty() {
            return Err(ValidateCertError::Invalid(CERTIFICATES));
        }
        let chain = list(CERTIFICATE_CHAIN)?.into_iter().map(der).collect();
        let check_crl = root.child_text(CHECK_CRL).is_some_and(|text| number(&text) == Some(1));
        Ok(Self { chain, certificates, check_crl })
    }
}

/// The answer to ValidateCert.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ValidateCertResponse {
    /// The certificates, in the request's order.
    Judged(Vec<CertStatus>),
    /// The request as a whole failed.
    Failed(CertStatus),
    /// A common status, from 14.0 up.
    Common(CommonStatus),
}

impl ValidateCertResponse {
    /// The response's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(VALIDATE_CERT, |writer| match self {
            Self::Judged(all) => {
                writer.number(STATUS, CertStatus::Valid);
                for status in all {
                    writer.element(CERTIFICATE, |writer| writer.number(STATUS, status));
                }
            }
            Self::Failed(status) => writer.number(STATUS, status),
            Self::Common(status) => writer.number(STATUS, status),
        })
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`ValidateCertError`].
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, ValidateCertError> {
        let document = parse(body, limits)?;
        let root = document.root();
        let code = |element: ElementRef<'_>| {
            let code = element.child_text(STATUS).and_then(|text| number(&text));
            code.ok_or(ValidateCertError::Invalid(STATUS))
        };
        let whole = code(root)?;
        if let Some(common) = CommonStatus::from_code(whole) {
            return Ok(Self::Common(common));
        }
        let known = |code| CertStatus::from_code(code).ok_or(ValidateCertError::Invalid(STATUS));
        match known(whole)? {
            CertStatus::Valid => {
                let all = root.children().filter(|child| child.tag() == CERTIFICATE);
                all.map(|child| known(code(child)?)).collect::<Result<_, _>>().map(Self::Judged)
            }
            failed => Ok(Self::Failed(failed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wbxml::{Contents, dump_bytes};
    use proptest::prelude::*;

    fn decode(body: &[u8]) -> Result<ValidateCertRequest, ValidateCertError> {
        ValidateCertRequest::decode(body, Limits::default())
    }

    #[test]
    fn requests_and_their_bounds() {
        let request = ValidateCertRequest {
            chain: vec![vec![1]],
            certificates: vec![vec![2], vec![3]],
            check_crl: true,
        };
        assert_eq!(decode(&request.encode()), Ok(request.clone()));
        for wrong in [vec![], vec![vec![7]; CERTIFICATES_MAX + 1]] {
            let error =
                decode(&ValidateCertRequest { certificates: wrong, ..request.clone() }.encode()).unwrap_err();
            let Answer::Body(body) = error.answer(Version::V2_5) else { panic!("{error}") };
            let shown = "<ValidateCert><Status>2</Status></ValidateCert>";
            assert_eq!(dump_bytes(&body, Contents::Shown), shown);
        }
        let no_base64 = Writer::document(VALIDATE_CERT, |writer| {
            writer.element(CERTIFICATES, |writer| writer.text(CERTIFICATE, "!"));
        });
        assert_eq!(decode(&no_base64).unwrap().certificates, [Vec::<u8>::new()]);
    }

    #[test]
    fn responses_in_both_directions() {
        let response = ValidateCertResponse::Judged(vec![CertStatus::Valid, CertStatus::Untrusted]);
        let body = response.encode();
        assert_eq!(
            dump_bytes(&body, Contents::Shown),
            "<ValidateCert><Status>1</Status><Certificate><Status>1</Status></Certificate>\
             <Certificate><Status>4</Status></Certificate></ValidateCert>"
        );
        assert_eq!(ValidateCertResponse::decode(&body, Limits::default()), Ok(response));
        let common = ValidateCertResponse::Common(CommonStatus::DeviceNotProvisioned);
        assert_eq!(ValidateCertResponse::decode(&common.encode(), Limits::default()), Ok(common));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x0B, 0x45][..], &tail].concat();
            let _ = (decode(&body), ValidateCertResponse::decode(&body, Limits::default()));
        }
    }
}
