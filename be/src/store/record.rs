//! The bytes of the journal: segment headers, records, and the writes in them. Snapshots are made of the
//! same headers and frames, with other words in front (`snapshot`).
//!
//! ```text
//! header  = word: 8 bytes | number: u64 | salt: 16 bytes | check: 16 bytes
//! frame   = word: 4 bytes | payload bytes: u32 | number: u64 | check: 16 bytes | payload
//! segment = header "DPJRNL01" with its first position | records
//! record  = frame "DPr1" with its position and the payload
//!           writes: u32 | { key bytes: u16 | key | value bytes: u32, or 0xFFFFFFFF to delete | value }
//! ```
//! Integers are little-endian. A check is the front of SHA-256 over the salt and what it guards. The
//! salt is random for each segment: without it, whoever sends us mail could write into a message what
//! looks like a record, and a torn tail would be taken for damage in the middle.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use sha2::{Digest, Sha256};

use super::{BodyId, Key, StoreError, Value};

/// Writes by key; none deletes. Of a group of commits, what is left when all are made.
pub(crate) type Writes = BTreeMap<Key, Option<Value>>;

pub(crate) const HEADER_BYTES: usize = 48;
pub(crate) const FRAME_HEADER_BYTES: usize = 32;
/// Longest payload. The committer's groups stay below it.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The word in front of a segment.
pub(crate) const SEGMENT: [u8; 8] = *b"DPJRNL01";
const RECORD: [u8; 4] = *b"DPr1";
const DELETED: u32 = u32::MAX;

pub(crate) type Salt = [u8; 16];
type Check = [u8; 16];

fn check(salt: Salt, parts: &[&[u8]]) -> Check {
    let mut hash = Sha256::new_with_prefix(salt);
    for part in parts {
        hash.update(part);
    }
    let mut check = [0; 16];
    check.copy_from_slice(&hash.finalize()[..16]);
    check
}

/// The integer at `at`; zero beyond the end, which no caller asks for.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The front of a file of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    /// Of a segment, the position of its first record; of a snapshot, the last position in it.
    pub(crate) number: u64,
    /// Goes into every check of the file.
    pub(crate) salt: Salt,
}

impl Header {
    /// With a salt of its own.
    pub(crate) fn new(number: u64) -> Result<Self, StoreError> {
        Ok(Self { number, salt: BodyId::random()?.0 })
    }

    pub(crate) fn encode(self, word: [u8; 8]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&word);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.salt);
        let check = check(self.salt, &[&bytes[..16]]);
        bytes[32..].copy_from_slice(&check);
        bytes
    }

    pub(crate) fn decode(word: [u8; 8], bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut salt = [0; 16];
        salt.copy_from_slice(&bytes[16..32]);
        let header = Self { number: u64_at(bytes, 8), salt };
        (header.encode(word) == *bytes).then_some(header)
    }

    /// Reads the front of a file; none where it is not one of ours.
    pub(crate) fn read(word: [u8; 8], input: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        match input.read_exact(&mut bytes) {
            Ok(()) => Ok(Self::decode(word, &bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Fills in the front of a frame: `bytes` begins with the room for it.
pub(crate) fn seal(bytes: &mut [u8], word: [u8; 4], salt: Salt, number: u64) {
    let payload_bytes = u32::try_from(bytes.len() - FRAME_HEADER_BYTES).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&word);
    bytes[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let check = check(salt, &[&bytes[..16], &bytes[FRAME_HEADER_BYTES..]]);
    bytes[16..32].copy_from_slice(&check);
}

/// One record: header and payload.
pub(crate) fn encode_record(salt: Salt, position: u64, writes: &Writes) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    put_u32(&mut bytes, writes.len());
    for (key, value) in writes {
        // Keys are at most KEY_BYTES_MAX long (Commit::check).
        bytes.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(key);
        match value {
            Some(value) => {
                put_u32(&mut bytes, value.len());
                bytes.extend_from_slice(value);
            }
            None => bytes.extend_from_slice(&DELETED.to_le_bytes()),
        }
    }
    seal(&mut bytes, RECORD, salt, position);
    bytes
}

fn put_u32(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

/// What stands at one place of a file.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// A frame whose check holds: its number (of a record, its position) and payload.
    Record(u64, Vec<u8>),
    /// The file ends here.
    End,
    /// Something that is no such frame, or only a part of one.
    Bad,
}

/// Reads one record of the journal.
pub(crate) fn read_record(salt: Salt, input: &mut impl Read) -> io::Result<Next> {
    read_frame(RECORD, salt, input)
}

/// Reads one frame. Never trusts the length before it is bounded.
pub(crate) fn read_frame(word: [u8; 4], salt: Salt, input: &mut impl Read) -> io::Result<Next> {
    let mut header = Vec::with_capacity(FRAME_HEADER_BYTES);
    input.by_ref().take(FRAME_HEADER_BYTES as u64).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(Next::End);
    }
    let payload_bytes = u32_at(&header, 4);
    if header.len() < FRAME_HEADER_BYTES || header[..4] != word || payload_bytes as usize > PAYLOAD_BYTES_MAX
    {
        return Ok(Next::Bad);
    }
    let mut payload = Vec::new();
    input.by_ref().take(u64::from(payload_bytes)).read_to_end(&mut payload)?;
    let holds = payload.len() == payload_bytes as usize
        && check(salt, &[&header[..16], &payload]).as_slice() == &header[16..32];
    Ok(if holds { Next::Record(u64_at(&header, 8), payload) } else { Next::Bad })
}

/// Whether a whole record of `position` or later begins anywhere in these bytes.
pub(crate) fn holds_record(salt: Salt, bytes: &[u8], position: u64) -> bool {
    next_record(salt, bytes, position).is_some()
}

/// The first whole record in `bytes` at position `position` or after it, and what is behind it.
pub(crate) fn next_record(salt: Salt, bytes: &[u8], position: u64) -> Option<(u64, Vec<u8>, &[u8])> {
    let starts = bytes.windows(RECORD.len()).enumerate().filter(|(_, window)| *window == RECORD);
    starts.map(|(at, _)| &bytes[at..]).find_map(|mut rest| match read_record(salt, &mut rest) {
        Ok(Next::Record(found, payload)) if found >= position => Some((found, payload, rest)),
        _ => None,
    })
}

/// The writes of a payload whose check holds; none if they are malformed all the same.
pub(crate) fn decode_writes(payload: &[u8]) -> Option<Writes> {
    let (count, mut rest) = payload.split_first_chunk::<4>()?;
    let mut writes = Writes::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (key_bytes, after) = rest.split_first_chunk::<2>()?;
        let (key, after) = after.split_at_checked(u16::from_le_bytes(*key_bytes).into())?;
        let (value_bytes, after) = after.split_first_chunk::<4>()?;
        let value_bytes = u32::from_le_bytes(*value_bytes);
        if value_bytes == DELETED {
            writes.insert(key.to_vec(), None);
            rest = after;
        } else {
            let (value, after) = after.split_at_checked(value_bytes as usize)?;
            writes.insert(key.to_vec(), Some(value.to_vec()));
            rest = after;
        }
    }
    rest.is_empty().then_some(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = [7; 16];

    fn writes() -> Writes {
        [(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None), (b"c".to_vec(), Some(Vec::new()))]
            .into()
    }

    #[test]
    fn a_record_reads_back() {
        let bytes = encode_record(SALT, 9, &writes());
        let Next::Record(9, payload) = read_record(SALT, &mut &bytes[..]).unwrap() else {
            panic!("not read")
        };
        assert_eq!(decode_writes(&payload), Some(writes()));
    }

    #[test]
    fn any_flipped_or_missing_byte_makes_a_record_bad() {
        let bytes = encode_record(SALT, 9, &writes());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert_eq!(read_record(SALT, &mut &bad[..]).unwrap(), Next::Bad, "byte {at}");
            let expected = if at == 0 { Next::End } else { Next::Bad };
            assert_eq!(read_record(SALT, &mut &bytes[..at]).unwrap(), expected, "length {at}");
        }
        assert_eq!(read_record([8; 16], &mut &bytes[..]).unwrap(), Next::Bad, "another segment's salt");
    }

    #[test]
    fn a_record_is_found_behind_garbage_but_not_one_of_another_salt_or_time() {
        let mut bytes = b"garbage DPr1 DPr".to_vec();
        bytes.extend(encode_record(SALT, 9, &writes()));
        assert!(holds_record(SALT, &bytes, 9));
        assert!(!holds_record(SALT, &bytes, 10));
        assert!(!holds_record([8; 16], &bytes, 9));
    }

    #[test]
    fn segment_headers_read_back_and_damage_shows() {
        let header = Header { number: 77, salt: SALT };
        assert_eq!(Header::decode(SEGMENT, &header.encode(SEGMENT)), Some(header));
        assert_eq!(Header::decode(*b"DPSNAP01", &header.encode(SEGMENT)), None);
        for at in 0..HEADER_BYTES {
            let mut bad = header.encode(SEGMENT);
            bad[at] ^= 1;
            assert_eq!(Header::decode(SEGMENT, &bad), None, "byte {at}");
        }
    }

    #[test]
    fn malformed_writes_are_refused() {
        let payload = &encode_record(SALT, 1, &writes())[FRAME_HEADER_BYTES..];
        for length in 0..payload.len() {
            assert_eq!(decode_writes(&payload[..length]), None, "length {length}");
        }
        assert_eq!(decode_writes(&[payload, b"x"].concat()), None);
    }
}
