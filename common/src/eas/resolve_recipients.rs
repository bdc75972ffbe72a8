//! ResolveRecipients' request and response ([MS-ASCMD] 2.2.1.15 ResolveRecipients).
//!
//! Not here: who the people are (`crate::directory`).

use super::status::CommonStatus;
use super::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::wbxml::tags::resolve_recipients::{
    AVAILABILITY, CERTIFICATE_COUNT, CERTIFICATE_RETRIEVAL, CERTIFICATES, DISPLAY_NAME, EMAIL_ADDRESS,
    END_TIME, MAX_AMBIGUOUS_RECIPIENTS, OPTIONS, PICTURE, RECIPIENT, RECIPIENT_COUNT, RESOLVE_RECIPIENTS,
    RESPONSE, START_TIME, STATUS, TO, TYPE,
};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// Names of one request ([MS-ASCMD] 3.1.5.10 Limiting Size of Command Requests).
pub const RECIPIENTS_MAX: usize = 100;
/// Suggestions for an ambiguous name where the device says no number.
pub const AMBIGUOUS_DEFAULT: usize = 19;

numbered! {
    /// Answers of ResolveRecipients, for the whole, a name, or what is told of a person
    /// ([MS-ASCMD] 2.2.3.177.12 Status (ResolveRecipients)).
    ResolveStatus {
        /// Done; of a name: it means one person.
        Success = 1,
        /// The name means several people, who are listed.
        Ambiguous = 2,
        /// The name means more people than are listed.
        AmbiguousPartly = 3,
        /// The name means nobody.
        Unresolved = 4,
        /// Something in the request is invalid, or too much.
        ProtocolError = 5,
        /// Trouble on the server.
        ServerError = 6,
        /// Of certificates: the person has none.
        NoCertificate = 7,
        /// Of free and busy times: they cannot be had.
        NoAvailability = 163,
        /// Of a picture: there is none.
        NoPicture = 173,
    }
}

/// A ResolveRecipients request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResolveRequest {
    /// The names, or addresses; at least one.
    pub to: Vec<String>,
    /// Suggestions for an ambiguous name, at most.
    pub ambiguous_max: Option<usize>,
    /// Certificates are asked for.
    pub certificates: bool,
    /// Free and busy times are asked for: from and to, as written.
    pub availability: Option<(String, String)>,
    /// Pictures are asked for.
    pub pictures: bool,
}

/// Why a body is not what it should be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The body is not WBXML, or broken.
    #[error("ResolveRecipients: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one.
    #[error("ResolveRecipients: the root element is {0:?}")]
    NotResolveRecipients(Tag),
    /// An element that must be there is not, or has no valid content.
    #[error("ResolveRecipients: no valid {0:?}")]
    Invalid(Tag),
}

impl ResolveError {
    /// What the device is answered.
    pub fn answer(&self, version: Version) -> Answer {
        match self {
            Self::Wbxml(error) => {
                malformed_answer(Command::ResolveRecipients, version, Malformed::from(error))
            }
            Self::NotResolveRecipients(_) => {
                malformed_answer(Command::ResolveRecipients, version, Malformed::Xml)
            }
            Self::Invalid(_) => Answer::Body(ResolveResponse::Failed(ResolveStatus::ProtocolError).encode()),
        }
    }
}

fn parse(body: &[u8], limits: Limits) -> Result<Document<'_>, ResolveError> {
    let document = Document::parse(body, limits)?;
    match document.root().tag() {
        RESOLVE_RECIPIENTS => Ok(document),
        other => Err(ResolveError::NotResolveRecipients(other)),
    }
}

impl ResolveRequest {
    /// The request's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(RESOLVE_RECIPIENTS, |writer| {
            for to in &self.to {
                writer.text(TO, to);
            }
            writer.element(OPTIONS, |writer| {
                if self.certificates {
                    writer.number(CERTIFICATE_RETRIEVAL, 2);
                }
                writer.optional(MAX_AMBIGUOUS_RECIPIENTS, self.ambiguous_max);
                if let Some((from, to)) = &self.availability {
                    writer.element(AVAILABILITY, |writer| {
                        writer.text(START_TIME, from);
                        writer.text(END_TIME, to);
                    });
                }
                if self.pictures {
                    writer.empty(PICTURE);
                }
            });
        })
    }

    /// Reads a request's body. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`ResolveError`]; also for more than [`RECIPIENTS_MAX`] names.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, ResolveError> {
        let document = parse(body, limits)?;
        let root = document.root();
        let to = root.children().filter(|child| child.tag() == TO);
        let to: Vec<String> = to.map(|child| child.text().trim().to_owned()).collect();
        if to.is_empty() || to.len() > RECIPIENTS_MAX || to.iter().any(String::is_empty) {
            return Err(ResolveError::Invalid(TO));
        }
        let mut request = Self { to, ..Self::default() };
        let Some(options) = root.child(OPTIONS) else { return Ok(request) };
        let value = |tag| options.child_text(tag).map(|text| number(&text).ok_or(ResolveError::Invalid(tag)));
        if let Some(most) = value(MAX_AMBIGUOUS_RECIPIENTS).transpose()? {
            let most = usize::try_from(most).ok().filter(|most| *most <= 9_999);
            request.ambiguous_max = Some(most.ok_or(ResolveError::Invalid(MAX_AMBIGUOUS_RECIPIENTS))?);
        }
        request.certificates = match value(CERTIFICATE_RETRIEVAL).transpose()? {
            None | Some(1) => false,
            Some(2 | 3) => true,
            Some(_) => return Err(ResolveError::Invalid(CERTIFICATE_RETRIEVAL)),
        };
        request.pictures = options.child(PICTURE).is_some();
        if let Some(wanted) = options.child(AVAILABILITY) {
            request.availability = Some(span(wanted)?);
        }
        Ok(request)
    }
}

/// From and to; both must be times, in this order.
fn span(wanted: ElementRef<'_>) -> Result<(String, String), ResolveError> {
    let time = |tag| {
        let text = wanted.child_text(tag).unwrap_or_default().into_owned();
        let at: Result<jiff::Timestamp, _> = text.trim().parse();
        at.map(|at| (at, text)).map_err(|_| ResolveError::Invalid(tag))
    };
    let ((from, from_text), (to, to_text)) = (time(START_TIME)?, time(END_TIME)?);
    if from < to { Ok((from_text, to_text)) } else { Err(ResolveError::Invalid(END_TIME)) }
}

/// The answer to ResolveRecipients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ResolveResponse {
    /// The names, in the request's order.
    Resolved(Vec<Resolved>),
    /// The request as a whole failed.
    Failed(ResolveStatus),
    /// A common status, from 14.0 up.
    Common(CommonStatus),
}

/// What a name means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resolved {
    /// The name as it was asked for.
    pub to: String,
    /// How it went.
    pub status: ResolveStatus,
    /// How many people it means.
    pub count: usize,
    /// They, or some of them.
    pub people: Vec<Recipient>,
}

/// A person of the directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recipient {
    /// How the person is called.
    pub name: String,
    /// The person's address.
    pub address: String,
    /// Certificates were asked for: there are none.
    pub certificates: bool,
    /// Free and busy times were asked for: they cannot be had.
    pub availability: bool,
    /// A picture was asked for: there is none.
    pub picture: bool,
}

impl ResolveResponse {
    /// The response's body.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(RESOLVE_RECIPIENTS, |writer| match self {
            Self::Resolved(all) => {
                writer.number(STATUS, ResolveStatus::Success);
                for resolved in all {
                    writer.element(RESPONSE, |writer| resolved.write(writer));
                }
            }
            Self::Failed(status) => writer.number(STATUS, status),
            Self::Common(status) => writer.number(STATUS, status),
        })
    }

    /// Reads a response's body. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, ResolveError> {
        let document = parse(body, limits)?;
        let root = document.root();
        let code = status_code(root)?;
        if let Some(common) = CommonStatus::from_code(code) {
            return Ok(Self::Common(common));
        }
        match ResolveStatus::from_code(code).ok_or(ResolveError::Invalid(STATUS))? {
            ResolveStatus::Success => {
                let all = root.children().filter(|child| child.tag() == RESPONSE);
                all.map(Resolved::read).collect::<Result<_, _>>().map(Self::Resolved)
            }
            failed => Ok(Self::Failed(failed)),
        }
    }
}

fn status_code(element: ElementRef<'_>) -> Result<i64, ResolveError> {
    let code = element.child_text(STATUS).and_then(|text| number(&text));
    code.ok_or(ResolveError::Invalid(STATUS))
}

impl Resolved {
    fn write(&self, writer: &mut Writer) {
        writer.text(TO, &self.to);
        writer.number(STATUS, self.status);
        writer.number(RECIPIENT_COUNT, self.count);
        for person in &self.people {
            writer.element(RECIPIENT, |writer| person.write(writer));
        }
    }

    fn read(response: ElementRef<'_>) -> Result<Self, ResolveError> {
        let people = response.children().filter(|child| child.tag() == RECIPIENT);
        Ok(Self {
            to: response.child_text(TO).unwrap_or_default().into_owned(),
            status: ResolveStatus::from_code(status_code(response)?).ok_or(ResolveError::Invalid(STATUS))?,
            count: response
                .child_text(RECIPIENT_COUNT)
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0),
            people: people.map(Recipient::read).collect(),
        })
    }
}

impl Recipient {
    fn write(&self, writer: &mut Writer) {
        // 1: of the directory ([MS-ASCMD] 2.2.3.186.5 Type (ResolveRecipients)).
        writer.number(TYPE, 1);
        writer.text(DISPLAY_NAME, &self.name);
        writer.text(EMAIL_ADDRESS, &self.address);
        if self.availability {
            writer.element(AVAILABILITY, |writer| writer.number(STATUS, ResolveStatus::NoAvailability));
        }
        if self.certificates {
            writer.element(CERTIFICATES, |writer| {
                writer.number(STATUS, ResolveStatus::NoCertificate);
                writer.number(CERTIFICATE_COUNT, 0);
            });
        }
        if self.picture {
            writer.element(PICTURE, |writer| writer.number(STATUS, ResolveStatus::NoPicture));
        }
    }

    fn read(person: ElementRef<'_>) -> Self {
        let text = |tag| person.child_text(tag).unwrap_or_default().into_owned();
        Self {
            name: text(DISPLAY_NAME),
            address: text(EMAIL_ADDRESS),
            certificates: person.child(CERTIFICATES).is_some(),
            availability: person.child(AVAILABILITY).is_some(),
            picture: person.child(PICTURE).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wbxml::{Contents, dump_bytes};
    use proptest::prelude::*;

    fn decode(body: &[u8]) -> Result<ResolveRequest, ResolveError> {
        ResolveRequest::decode(body, Limits::default())
    }

    fn full() -> ResolveRequest {
        let times = ["2012-04-11T10:00:00.000Z", "2012-04-11T11:00:00.000Z"].map(str::to_owned);
        ResolveRequest {
            to: vec!["alice".into(), "bob@example.com".into()],
            ambiguous_max: Some(3),
            certificates: true,
            availability: Some(times.into()),
            pictures: true,
        }
    }

    #[test]
    fn what_is_asked_is_read_again_and_what_is_invalid_is_status_5() {
        assert_eq!(decode(&full().encode()), Ok(full()));
        let times = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
        let (early, late) = ("2010-03-01T00:00:00.000Z", "2010-03-01T00:20:00.000Z");
        for wrong in [
            ResolveRequest { to: Vec::new(), ..full() },
            ResolveRequest { to: vec!["x".into(); RECIPIENTS_MAX + 1], ..full() },
            ResolveRequest { ambiguous_max: Some(10_000), ..full() },
            ResolveRequest { availability: times(late, early), ..full() },
            ResolveRequest { availability: times(early, "later"), ..full() },
        ] {
            let error = decode(&wrong.encode()).unwrap_err();
            let Answer::Body(body) = error.answer(Version::V12_1) else { panic!("{error}") };
            let shown = "<ResolveRecipients><Status>5</Status></ResolveRecipients>";
            assert_eq!(dump_bytes(&body, Contents::Shown), shown);
        }
    }

    #[test]
    fn responses_in_both_directions() {
        let person = |name: &str| Recipient {
            name: name.into(),
            address: format!("{name}@example.com"),
            ..Recipient::default()
        };
        let whole = Recipient { certificates: true, availability: true, picture: true, ..person("a") };
        let name = |to: &str, status, count, people| Resolved { to: to.into(), status, count, people };
        let response = ResolveResponse::Resolved(vec![
            name("a", ResolveStatus::Success, 1, vec![whole]),
            name("b", ResolveStatus::AmbiguousPartly, 9, vec![person("b1"), person("b2")]),
            name("c", ResolveStatus::Unresolved, 0, Vec::new()),
        ]);
        let body = response.encode();
        assert_eq!(ResolveResponse::decode(&body, Limits::default()), Ok(response));
        let shown = dump_bytes(&body, Contents::Shown);
        assert!(
            shown.contains("<Certificates><Status>7</Status><CertificateCount>0</CertificateCount>"),
            "{shown}"
        );
        for response in [
            ResolveResponse::Failed(ResolveStatus::ServerError),
            ResolveResponse::Common(CommonStatus::DeviceNotProvisioned),
        ] {
            assert_eq!(ResolveResponse::decode(&response.encode(), Limits::default()), Ok(response));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x0A, 0x45][..], &tail].concat();
            let _ = (decode(&body), ResolveResponse::decode(&body, Limits::default()));
        }
    }
}
