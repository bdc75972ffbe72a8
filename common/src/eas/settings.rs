//! Settings' request and response ([MS-ASCMD] Settings): out of office, what a device says of itself, its recovery
//! password, and the user's addresses.
//!
//! A part that cannot be read fails by itself, with its own status; only what is no Settings at all fails as a whole.
//! Not here: what is kept where; rights management, which is answered as switched off.

use jiff::Timestamp;

use super::provision::DeviceInformation;
use super::status::SettingsStatus;
use super::{Answer, Command, Malformed, Version, malformed_answer, number};
use crate::directory::Person;
use crate::mail::oof::{Audience, Oof, OofBody, OofReply, OofState};
use crate::wbxml::tags::settings::{
    ACCOUNT, ACCOUNTS, APPLIES_TO_EXTERNAL_KNOWN, APPLIES_TO_EXTERNAL_UNKNOWN, APPLIES_TO_INTERNAL,
    BODY_TYPE, DEVICE_INFORMATION, DEVICE_PASSWORD, EMAIL_ADDRESSES, ENABLED, END_TIME, GET, OOF,
    OOF_MESSAGE, OOF_STATE, PASSWORD, PRIMARY_SMTP_ADDRESS, REPLY_MESSAGE, RIGHTS_MANAGEMENT_INFORMATION,
    SET, SETTINGS, SMTP_ADDRESS, START_TIME, STATUS, USER_DISPLAY_NAME, USER_INFORMATION,
};
use crate::wbxml::{Document, ElementRef, Limits, Tag, WbxmlError, Writer};

/// Status 168 of rights management: it is switched off.
const RIGHTS_MANAGEMENT_OFF: u8 = 168;
/// Characters of a recovery password, at most.
const PASSWORD_CHARS_MAX: usize = 255;

/// A Settings request; each part may be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsRequest {
    /// Out of office.
    pub oof: Option<Result<OofRequest, SettingsStatus>>,
    /// What the device says of itself.
    pub device_information: Option<Result<DeviceInformation, SettingsStatus>>,
    /// The password by which the device can be opened when its user has forgotten theirs; empty = it is withdrawn.
    pub device_password: Option<Result<String, SettingsStatus>>,
    /// It asks for the user's addresses.
    pub user_information: bool,
    /// It asks for the templates of rights management.
    pub rights_management: bool,
}

/// What is wanted of out of office.
#[derive(Clone, Debug, PartialEq)]
pub enum OofRequest {
    /// As it is; texts as this.
    Get(OofBody),
    /// As this.
    Set(OofChange),
}

/// What a device sets of out of office. What it does not name stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OofChange {
    /// When.
    pub state: Option<OofState>,
    /// To whom what.
    pub replies: Vec<(Audience, OofReply)>,
}

impl OofChange {
    /// The settings after this change.
    #[must_use]
    pub fn apply(self, mut oof: Oof) -> Oof {
        if let Some(state) = self.state {
            oof.state = state;
        }
        for (audience, reply) in self.replies {
            match audience {
                Audience::Internal => oof.internal = reply,
                Audience::ExternalKnown => oof.external_known = reply,
                Audience::ExternalUnknown => oof.external_unknown = reply,
            }
        }
        oof
    }
}

/// Why a body is not a Settings request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The body is not WBXML, or broken.
    #[error("Settings: {0}")]
    Wbxml(#[from] WbxmlError),
    /// The root element is another one, or has nothing in it that we know.
    #[error("Settings: nothing is asked")]
    Nothing,
}

impl SettingsError {
    /// What the device is answered: Status 2 wherever the body could be read.
    pub fn answer(&self, version: Version) -> Answer {
        match self {
            Self::Wbxml(error) => malformed_answer(Command::Settings, version, Malformed::from(error)),
            Self::Nothing => {
                let status = SettingsStatus::ProtocolError;
                Answer::Body(Writer::document(SETTINGS, |writer| writer.number(STATUS, status)))
            }
        }
    }
}

impl SettingsRequest {
    /// Reads a request's body. Never panics, whatever the bytes.
    pub fn decode(body: &[u8], limits: Limits) -> Result<Self, SettingsError> {
        let document = Document::parse(body, limits)?;
        let root = document.root();
        let request = Self {
            oof: root.child(OOF).map(OofRequest::read),
            device_information: root.child(DEVICE_INFORMATION).map(|information| {
                let set = information.child(SET).ok_or(SettingsStatus::ProtocolError)?;
                Ok(DeviceInformation::read(set))
            }),
            device_password: root.child(DEVICE_PASSWORD).map(read_password),
            user_information: root.child(USER_INFORMATION).is_some(),
            rights_management: root.child(RIGHTS_MANAGEMENT_INFORMATION).is_some(),
        };
        if root.tag() != SETTINGS || request == Self::default() {
            return Err(SettingsError::Nothing);
        }
        Ok(request)
    }

    /// The request's body; parts that could not be read are left out.
    pub fn encode(&self) -> Vec<u8> {
        Writer::document(SETTINGS, |writer| {
            if self.rights_management {
                writer.element(RIGHTS_MANAGEMENT_INFORMATION, |writer| writer.empty(GET));
            }
            match &self.oof {
                Some(Ok(OofRequest::Get(body))) => writer.element(OOF, |writer| {
                    writer.element(GET, |writer| writer.text(BODY_TYPE, body_type(*body)));
                }),
                Some(Ok(OofRequest::Set(change))) => {
                    writer.element(OOF, |writer| writer.element(SET, |writer| change.write(writer)));
                }
                _ => {}
            }
            if let Some(Ok(password)) = &self.device_password {
                writer.element(DEVICE_PASSWORD, |writer| {
                    writer.element(SET, |writer| writer.text(PASSWORD, password));
                });
            }
            if let Some(Ok(information)) = &self.device_information {
                writer.element(DEVICE_INFORMATION, |writer| {
                    writer.element(SET, |writer| information.write(writer));
                });
            }
            if self.user_information {
                writer.element(USER_INFORMATION, |writer| writer.empty(GET));
            }
        })
    }
}

fn read_password(password: ElementRef<'_>) -> Result<String, SettingsStatus> {
    let set = password.child(SET).ok_or(SettingsStatus::ProtocolError)?;
    let text = set.child_text(PASSWORD).ok_or(SettingsStatus::ProtocolError)?;
    if text.chars().count() > PASSWORD_CHARS_MAX {
        return Err(SettingsStatus::InvalidArguments);
    }
    Ok(text.into_owned())
}

impl OofRequest {
    fn read(oof: ElementRef<'_>) -> Result<Self, SettingsStatus> {
        match (oof.child(GET), oof.child(SET)) {
            (Some(get), None) => {
                let wanted = get.child_text(BODY_TYPE).unwrap_or_default();
                read_body_type(&wanted).map(Self::Get).ok_or(SettingsStatus::InvalidArguments)
            }
            (None, Some(set)) => OofChange::read(set).map(Self::Set),
            _ => Err(SettingsStatus::ProtocolError),
        }
    }
}

impl OofChange {
    fn read(set: ElementRef<'_>) -> Result<Self, SettingsStatus> {
        let time = |tag| {
            let text = set.child_text(tag)?;
            Some(text.trim().parse::<Timestamp>().map(Timestamp::as_second))
        };
        let state = match set.child_text(OOF_STATE).map(|text| number(&text)) {
            None => None,
            Some(Some(0)) => Some(OofState::Off),
            Some(Some(1)) => Some(OofState::On),
            Some(Some(2)) => {
                let (Some(Ok(start)), Some(Ok(end))) = (time(START_TIME), time(END_TIME)) else {
                    return Err(SettingsStatus::InvalidArguments);
                };
                Some(OofState::scheduled(start, end).map_err(|_| SettingsStatus::ConflictingArguments)?)
            }
            Some(_) => return Err(SettingsStatus::InvalidArguments),
        };
        let mut replies = Vec::new();
        for message in set.children().filter(|child| child.tag() == OOF_MESSAGE) {
            let enabled = message.child_text(ENABLED).is_none_or(|text| text.trim() != "0");
            let text = message.child_text(REPLY_MESSAGE).unwrap_or_default();
            let body = read_body_type(&message.child_text(BODY_TYPE).unwrap_or_default())
                .ok_or(SettingsStatus::InvalidArguments)?;
            let reply = OofReply::new(text, body).map_err(|_| SettingsStatus::InvalidArguments)?;
            let reply = OofReply { enabled, ..reply };
            for (tag, audience) in AUDIENCES {
                if message.child(tag).is_some() {
                    replies.push((audience, reply.clone()));
                }
            }
        }
        Ok(Self { state, replies })
    }

    fn write(&self, writer: &mut Writer) {
        if let Some(state) = self.state {
            write_state(writer, state);
        }
        for (audience, reply) in &self.replies {
            write_reply(writer, *audience, reply, reply.body_type, &reply.text);
        }
    }
}

const AUDIENCES: [(Tag, Audience); 3] = [
    (APPLIES_TO_INTERNAL, Audience::Internal),
    (APPLIES_TO_EXTERNAL_KNOWN, Audience::ExternalKnown),
    (APPLIES_TO_EXTERNAL_UNKNOWN, Audience::ExternalUnknown),
];

fn body_type(body: OofBody) -> &'static str {
    match body {
        OofBody::Text => "TEXT",
        OofBody::Html => "HTML",
    }
}

fn read_body_type(text: &str) -> Option<OofBody> {
    match text.trim().to_ascii_uppercase().as_str() {
        "" | "TEXT" => Some(OofBody::Text),
        "HTML" => Some(OofBody::Html),
        _ => None,
    }
}

fn write_state(writer: &mut Writer, state: OofState) {
    let time =
        |secs: i64| Timestamp::from_second(secs).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.000Z");
    match state {
        OofState::Off => writer.number(OOF_STATE, 0),
        OofState::On => writer.number(OOF_STATE, 1),
        OofState::Scheduled { start, end } => {
            writer.number(OOF_STATE, 2);
            writer.number(START_TIME, time(start));
            writer.number(END_TIME, time(end));
        }
    }
}

fn write_reply(writer: &mut Writer, audience: Audience, reply: &OofReply, body: OofBody, text: &str) {
    let tag = AUDIENCES.iter().find(|(_, known)| *known == audience).map_or(APPLIES_TO_INTERNAL, |it| it.0);
    writer.element(OOF_MESSAGE, |writer| {
        writer.empty(tag);
        writer.number(ENABLED, u8::from(reply.enabled));
        writer.text(REPLY_MESSAGE, text);
        writer.text(BODY_TYPE, body_type(body));
    });
}

/// The answer to Settings, part by part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsResponse {
    /// Out of office as it is, its texts in the form that was asked for; or how setting it went.
    pub oof: Option<Result<Option<Oof>, SettingsStatus>>,
    /// How it went with what the device says of itself.
    pub device_information: Option<SettingsStatus>,
    /// How it went with the recovery password.
    pub device_password: Option<SettingsStatus>,
    /// Who the user is, if that is known.
    pub user_information: Option<Result<Person, SettingsStatus>>,
    /// Templates of rights management were asked for.
    pub rights_management: bool,
}

impl SettingsResponse {
    /// The response's body for a device of this version.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        Writer::document(SETTINGS, |writer| {
            writer.number(STATUS, SettingsStatus::Success);
            if let Some(oof) = &self.oof {
                writer.element(OOF, |writer| write_oof(writer, oof));
            }
            for (tag, status) in
                [(DEVICE_INFORMATION, self.device_information), (DEVICE_PASSWORD, self.device_password)]
            {
                if let Some(status) = status {
                    writer.element(tag, |writer| writer.number(STATUS, status));
                }
            }
            if let Some(told) = &self.user_information {
                writer.element(USER_INFORMATION, |writer| match told {
                    Err(status) => writer.number(STATUS, status),
                    Ok(person) => {
                        writer.number(STATUS, SettingsStatus::Success);
                        writer.element(GET, |writer| write_person(writer, person, version));
                    }
                });
            }
            if self.rights_management {
                writer.element(RIGHTS_MANAGEMENT_INFORMATION, |writer| {
                    writer.number(STATUS, RIGHTS_MANAGEMENT_OFF);
                });
            }
        })
    }
}

fn write_oof(writer: &mut Writer, oof: &Result<Option<Oof>, SettingsStatus>) {
    let oof = match oof {
        Err(status) => return writer.number(STATUS, status),
        Ok(oof) => oof,
    };
    writer.number(STATUS, SettingsStatus::Success);
    let Some(oof) = oof else { return };
    writer.element(GET, |writer| {
        write_state(writer, oof.state);
        let replies = [&oof.internal, &oof.external_known, &oof.external_unknown];
        for ((_, audience), reply) in AUDIENCES.into_iter().zip(replies) {
            write_reply(writer, audience, reply, reply.body_type, &reply.text);
        }
    });
}

/// The user's addresses; from 14.1 up as those of an account.
fn write_person(writer: &mut Writer, person: &Person, version: Version) {
    let addresses = |writer: &mut Writer| {
        writer.element(EMAIL_ADDRESSES, |writer| {
            for address in &person.addresses {
                writer.text(SMTP_ADDRESS, address);
            }
            if version.has_accounts() {
                writer.optional(PRIMARY_SMTP_ADDRESS, person.addresses.first());
            }
        });
    };
    if !version.has_accounts() {
        return addresses(writer);
    }
    writer.element(ACCOUNTS, |writer| {
        writer.element(ACCOUNT, |writer| {
            writer.text(USER_DISPLAY_NAME, &person.name);
            addresses(writer);
        });
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wbxml::{Contents, dump_bytes};

    fn decode(body: &[u8]) -> Result<SettingsRequest, SettingsError> {
        SettingsRequest::decode(body, Limits::default())
    }

    fn reply(text: &str) -> OofReply {
        OofReply::new(text, OofBody::Text).unwrap()
    }

    #[test]
    fn every_part_reads_as_it_is_written() {
        let change = OofChange {
            state: Some(OofState::scheduled(1_700_000_000, 1_700_086_400).unwrap()),
            replies: vec![(Audience::Internal, reply("Away.")), (Audience::ExternalUnknown, reply(""))],
        };
        let request = SettingsRequest {
            oof: Some(Ok(OofRequest::Set(change))),
            device_information: Some(Ok(DeviceInformation {
                model: Some("A1".into()),
                ..DeviceInformation::default()
            })),
            device_password: Some(Ok("123456".into())),
            user_information: true,
            rights_management: true,
        };
        assert_eq!(decode(&request.encode()), Ok(request));
        let get =
            SettingsRequest { oof: Some(Ok(OofRequest::Get(OofBody::Html))), ..SettingsRequest::default() };
        assert_eq!(decode(&get.encode()), Ok(get.clone()));
        assert_eq!(
            dump_bytes(&get.encode(), Contents::Shown),
            "<Settings><Oof><Get><BodyType>HTML</BodyType></Get></Oof></Settings>"
        );
    }

    #[test]
    fn parts_that_cannot_be_read_have_their_own_status() {
        let oof = |content: &dyn Fn(&mut Writer)| {
            let body = Writer::document(SETTINGS, |writer| writer.element(OOF, |writer| content(writer)));
            decode(&body).unwrap().oof.unwrap().unwrap_err().code()
        };
        assert_eq!(oof(&|_| {}), 2);
        assert_eq!(oof(&|writer| writer.element(SET, |writer| writer.number(OOF_STATE, 7))), 5);
        assert_eq!(oof(&|writer| writer.element(SET, |writer| writer.number(OOF_STATE, 2))), 5);
        let ends_before = |writer: &mut Writer| {
            writer.number(OOF_STATE, 2);
            writer.text(START_TIME, "2026-02-01T00:00:00.000Z");
            writer.text(END_TIME, "2026-01-01T00:00:00.000Z");
        };
        assert_eq!(oof(&|writer| writer.element(SET, ends_before)), 6);
        let nothing = decode(&Writer::document(SETTINGS, |_| {})).unwrap_err();
        let Answer::Body(answer) = nothing.answer(Version::V12_0) else { panic!("a body") };
        assert_eq!(dump_bytes(&answer, Contents::Shown), "<Settings><Status>2</Status></Settings>");
        assert_eq!(decode(b"x").unwrap_err().answer(Version::V12_1), Answer::Http(400));
    }

    #[test]
    fn what_is_not_named_stays() {
        let oof = Oof { internal: reply("a"), external_known: reply("b"), ..Oof::default() };
        let change = OofChange { state: Some(OofState::On), replies: vec![(Audience::Internal, reply("c"))] };
        let after = change.apply(oof);
        assert_eq!((after.state, after.internal.text.as_str()), (OofState::On, "c"));
        assert_eq!(after.external_known.text, "b");
    }

    #[test]
    fn addresses_are_an_accounts_from_14_1_up() {
        let person =
            Person { name: "Alice".into(), user: "a@b".into(), addresses: vec!["a@b".into(), "c@b".into()] };
        let response = SettingsResponse { user_information: Some(Ok(person)), ..SettingsResponse::default() };
        let shown = |version| dump_bytes(&response.encode(version), Contents::Shown);
        assert_eq!(
            shown(Version::V14_0),
            "<Settings><Status>1</Status><UserInformation><Status>1</Status><Get><EmailAddresses>\
             <SMTPAddress>a@b</SMTPAddress><SMTPAddress>c@b</SMTPAddress></EmailAddresses></Get></UserInformation></Settings>"
        );
        assert_eq!(
            shown(Version::V14_1),
            "<Settings><Status>1</Status><UserInformation><Status>1</Status><Get><Accounts><Account>\
             <UserDisplayName>Alice</UserDisplayName><EmailAddresses><SMTPAddress>a@b</SMTPAddress>\
             <SMTPAddress>c@b</SMTPAddress><PrimarySmtpAddress>a@b</PrimarySmtpAddress></EmailAddresses></Account>\
             </Accounts></Get></UserInformation></Settings>"
        );
    }

    #[test]
    fn a_user_who_is_not_known_has_a_status() {
        let unknown = Some(Err(SettingsStatus::ServerUnavailable));
        let response = SettingsResponse { user_information: unknown, ..SettingsResponse::default() };
        assert_eq!(
            dump_bytes(&response.encode(Version::V14_1), Contents::Shown),
            "<Settings><Status>1</Status><UserInformation><Status>4</Status></UserInformation></Settings>"
        );
    }

    #[test]
    fn out_of_office_is_told_for_every_audience() {
        let oof =
            Oof { state: OofState::scheduled(0, 60).unwrap(), internal: reply("Away."), ..Oof::default() };
        let response = SettingsResponse { oof: Some(Ok(Some(oof))), ..SettingsResponse::default() };
        let shown = dump_bytes(&response.encode(Version::V14_1), Contents::Shown);
        assert!(
            shown.contains("<OofState>2</OofState><StartTime>1970-01-01T00:00:00.000Z</StartTime>"),
            "{shown}"
        );
        assert_eq!(shown.matches("<OofMessage>").count(), 3);
        let told =
            SettingsResponse { oof: Some(Ok(None)), rights_management: true, ..SettingsResponse::default() };
        assert_eq!(
            dump_bytes(&told.encode(Version::V14_1), Contents::Shown),
            "<Settings><Status>1</Status><Oof><Status>1</Status></Oof><RightsManagementInformation><Status>168</Status>\
             </RightsManagementInformation></Settings>"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = [&[0x03, 0x01, 0x6A, 0x00, 0x00, 0x12, 0x45][..], &tail].concat();
            let _ = decode(&body);
        }
    }
}
