//! How the fields of a record are written: numbers as LEB128 varints, text and bytes with their length before them,
//! behind the format's version. The records themselves are in `record`.

use directpush_common::change::{Cause, Maker};
use directpush_common::dav::hierarchy::Class;
use directpush_common::names::DeviceKey;

use super::record::RecordError;

const VERSION: u8 = 1;

pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.push(VERSION);
        Self(bytes)
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n.to_le_bytes()[0] | 0x80);
            n >>= 7;
        }
        self.0.push(n.to_le_bytes()[0]);
    }

    /// Zigzag, so that a date before 1970 costs no more than one after.
    pub(super) fn signed(&mut self, n: i64) {
        self.number(((n << 1) ^ (n >> 63)).cast_unsigned());
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(super) fn maker(&mut self, maker: &Maker) {
        self.byte(cause_code(maker.cause));
        self.text(&maker.device.as_ref().map(ToString::to_string).unwrap_or_default());
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            Some((&other, _)) => Err(RecordError::Version(other)),
            None => Err(RecordError::Short),
        }
    }

    /// Whether nothing is left: fields that came with a later version are absent in older records.
    pub(super) fn ended(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> Result<u64, RecordError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(RecordError::Field("number"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, RecordError> {
        let n = self.number()?;
        Ok((n >> 1).cast_signed() ^ -((n & 1).cast_signed()))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let len = usize::try_from(self.number()?).map_err(|_| RecordError::Short)?;
        self.take(len)
    }

    pub(super) fn raw<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N)?.try_into().map_err(|_| RecordError::Short)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.bytes()?.try_into().map_err(|_| RecordError::Field("array"))
    }

    pub(super) fn text(&mut self) -> Result<String, RecordError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| RecordError::Field("text"))
    }

    pub(super) fn maker(&mut self) -> Result<Maker, RecordError> {
        let cause = cause_from_code(self.byte()?).ok_or(RecordError::Field("cause"))?;
        let device = self.text()?;
        let device = match device.as_str() {
            "" => None,
            text => Some(text.parse::<DeviceKey>().map_err(|_| RecordError::Field("device"))?),
        };
        Ok(Maker { device, cause })
    }
}

/// Codes are for ever: a store outlives the order of an enum.
fn cause_code(cause: Cause) -> u8 {
    match cause {
        Cause::Delivery => 1,
        Cause::Dav => 2,
        Cause::Sync => 3,
        Cause::Move => 4,
        Cause::Send => 5,
        Cause::System => 6,
        Cause::Junk => 7,
        Cause::Import => 8,
    }
}

pub(super) fn class_code(class: Class) -> u8 {
    match class {
        Class::Email => 0,
        Class::Calendar => 1,
        Class::Contacts => 2,
        Class::Tasks => 3,
        Class::Notes => 4,
    }
}

pub(super) fn class_from_code(code: u8) -> Option<Class> {
    [Class::Email, Class::Calendar, Class::Contacts, Class::Tasks, Class::Notes]
        .get(usize::from(code))
        .copied()
}

fn cause_from_code(code: u8) -> Option<Cause> {
    Some(match code {
        1 => Cause::Delivery,
        2 => Cause::Dav,
        3 => Cause::Sync,
        4 => Cause::Move,
        5 => Cause::Send,
        6 => Cause::System,
        7 => Cause::Junk,
        8 => Cause::Import,
        _ => return None,
    })
}
