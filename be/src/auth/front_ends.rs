//! The front ends that may ask: those of `be.toml`, and those that `fe add` made, one file each in `state_dir/front-ends`.
//!
//! A front end's number is its place in the list and never changes while the process lives; one that is removed leaves its place
//! to one that is added under the same name. Of a secret that was made here only the SHA-256 is kept: it is random, so
//! nobody finds it from that.
//!
//! Not here: certificates (`authority`), the administrator's words (`admin`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use directpush_common::push::ledger::FrontEndNumber;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::authority::{make_dir, write_private};
use crate::config::{self, is_front_end_name};
use crate::error::Error;

/// Front ends, at most: their numbers have 16 bits.
const FRONT_ENDS_MAX: usize = 65_000;
/// Bytes of a front end's file, at most.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Where a front end is known from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// `be.toml`.
    Configured,
    /// `fe add`.
    Added,
}

/// A front end that may ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FrontEnd {
    pub name: String,
    /// SHA-256 of its secret.
    digest: [u8; 32],
    /// The only host its Call-Backs may name.
    pub call_back_host: String,
    /// The only ports.
    pub call_back_ports: Vec<u16>,
    pub origin: Origin,
    /// Until when the certificate is good that was made for it, in Unix seconds; none = none was.
    pub certificate_until: Option<i64>,
}

/// A front end as its file has it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    name: String,
    secret_sha256: String,
    call_back_host: String,
    call_back_ports: Vec<u16>,
    certificate_until: Option<i64>,
}

impl FrontEnd {
    /// One that is added now.
    pub fn added(name: String, secret: &str, call_back_host: &str, call_back_ports: Vec<u16>) -> Self {
        let call_back_host = call_back_host.to_lowercase();
        let (digest, origin) = (digest(secret), Origin::Added);
        Self { name, digest, call_back_host, call_back_ports, origin, certificate_until: None }
    }

    /// The same with another secret.
    #[must_use]
    pub fn with_secret(self, secret: &str) -> Self {
        Self { digest: digest(secret), ..self }
    }

    /// The same with a certificate that is good until then (Unix seconds).
    #[must_use]
    pub fn with_certificate(self, until: i64) -> Self {
        Self { certificate_until: Some(until), ..self }
    }

    fn configured(front_end: &config::FrontEnd) -> Self {
        let config::FrontEnd { name, secret, call_back_host, call_back_ports } = front_end.clone();
        let digest = digest(&secret);
        let origin = Origin::Configured;
        Self { name, digest, call_back_host, call_back_ports, origin, certificate_until: None }
    }

    fn kept(&self) -> Kept {
        Kept {
            name: self.name.clone(),
            secret_sha256: HEXLOWER.encode(&self.digest),
            call_back_host: self.call_back_host.clone(),
            call_back_ports: self.call_back_ports.clone(),
            certificate_until: self.certificate_until,
        }
    }
}

impl Kept {
    fn front_end(self) -> Option<FrontEnd> {
        let digest = HEXLOWER.decode(self.secret_sha256.as_bytes()).ok()?.try_into().ok()?;
        is_front_end_name(&self.name).then_some(FrontEnd {
            name: self.name,
            digest,
            call_back_host: self.call_back_host,
            call_back_ports: self.call_back_ports,
            origin: Origin::Added,
            certificate_until: self.certificate_until,
        })
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// A secret of 256 bits.
pub fn new_secret() -> Result<String, Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| Error::io("draw a secret")(io::Error::other(error.to_string())))?;
    Ok(HEXLOWER.encode(&secret))
}

/// All of them.
pub struct FrontEnds {
    dir: PathBuf,
    list: RwLock<Vec<Slot>>,
    /// Serialises changes, each with its file.
    changing: Mutex<()>,
}

struct Slot {
    front_end: Arc<FrontEnd>,
    removed: bool,
}

impl FrontEnds {
    /// Those of the configuration, then those that were added.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(state_dir: &Path, configured: &[config::FrontEnd]) -> Result<Self, Error> {
        let dir = state_dir.join("front-ends");
        let mut list: Vec<FrontEnd> = configured.iter().map(FrontEnd::configured).collect();
        let doing = || format!("read the front ends in {}", dir.display());
        let mut added = read(&dir).map_err(Error::io(doing()))?;
        added.sort_by(|one, other| one.name.cmp(&other.name));
        for front_end in added {
            if list.iter().any(|known| known.name == front_end.name) {
                let name = &front_end.name;
                tracing::warn!(front_end = %name, "stands in be.toml too, and goes by that");
            } else if list.len() < FRONT_ENDS_MAX {
                list.push(front_end);
            }
        }
        let slot = |front_end| Slot { front_end: Arc::new(front_end), removed: false };
        let list = RwLock::new(list.into_iter().map(slot).collect());
        Ok(Self { dir, list, changing: Mutex::default() })
    }

    /// The front end of a number that was given out by [`FrontEnds::find`].
    pub fn at(&self, number: FrontEndNumber) -> Option<Arc<FrontEnd>> {
        self.list.read().get(usize::from(number.0)).map(|slot| slot.front_end.clone())
    }

    /// Who has this name and secret. Every front end is compared, in constant time.
    pub fn find(&self, name: &str, secret: &str) -> Option<FrontEndNumber> {
        let (digest, mut found) = (digest(secret), None);
        for (number, Slot { front_end, removed }) in self.list.read().iter().enumerate() {
            let same = bool::from(front_end.digest.ct_eq(&digest));
            if same && front_end.name == name && !removed {
                found = u16::try_from(number).ok().map(FrontEndNumber);
            }
        }
        found
    }

    /// All that may ask now.
    pub fn list(&self) -> Vec<Arc<FrontEnd>> {
        let list = self.list.read();
        list.iter().filter(|slot| !slot.removed).map(|slot| slot.front_end.clone()).collect()
    }

    /// One of a name.
    pub fn named(&self, name: &str) -> Option<Arc<FrontEnd>> {
        self.list().into_iter().find(|front_end| front_end.name == name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// Adds one, or puts it in the place of one that was added under this name. It may ask at once. Blocks.
    ///
    /// # Errors
    /// The file cannot be written; there are too many.
    pub fn put(&self, front_end: FrontEnd) -> Result<(), Error> {
        let _changing = self.changing.lock();
        let at = self.list.read().iter().position(|slot| slot.front_end.name == front_end.name);
        if at.is_none() && self.list.read().len() >= FRONT_ENDS_MAX {
            return Err(Error::OverBound("the number of front ends"));
        }
        let path = self.path(&front_end.name);
        let text = serde_json::to_string_pretty(&front_end.kept()).map_err(|_| Error::Task)?;
        let written = make_dir(&self.dir).and_then(|()| write_private(&path, &text));
        written.map_err(Error::io(format!("write {}", path.display())))?;
        let slot = Slot { front_end: Arc::new(front_end), removed: false };
        let mut list = self.list.write();
        match at.and_then(|at| list.get_mut(at)) {
            Some(known) => *known = slot,
            None => list.push(slot),
        }
        Ok(())
    }

    /// Removes one that was added: its credential is good for nothing from now on. Blocks.
    ///
    /// # Errors
    /// There is none; it stands in `be.toml`; the file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let _changing = self.changing.lock();
        let found = self.named(name).ok_or(Error::Gone("the front end"))?;
        if found.origin == Origin::Configured {
            return Err(Error::Forbidden("this front end stands in be.toml: remove it there, and restart"));
        }
        let path = self.path(name);
        fs::remove_file(&path).map_err(Error::io(format!("remove {}", path.display())))?;
        for slot in self.list.write().iter_mut().filter(|slot| slot.front_end.name == name) {
            slot.removed = true;
        }
        Ok(())
    }
}

fn read(dir: &Path) -> io::Result<Vec<FrontEnd>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let damaged = || io::Error::other(format!("{} is damaged", path.display()));
        if fs::metadata(&path)?.len() > FILE_BYTES_MAX {
            return Err(damaged());
        }
        let kept: Kept = serde_json::from_slice(&fs::read(&path)?).map_err(|_| damaged())?;
        found.push(kept.front_end().ok_or_else(damaged)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(name: &str, secret: &str) -> FrontEnd {
        FrontEnd::added(name.into(), secret, "FE.example", vec![2883])
    }

    #[test]
    fn front_ends_come_go_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let configured = [config::FrontEnd {
            name: "fe-0".into(),
            secret: "0123456789abcdef".into(),
            call_back_host: "h".into(),
            call_back_ports: vec![1],
        }];
        let front_ends = FrontEnds::open(dir.path(), &configured).unwrap();
        assert_eq!(front_ends.find("fe-0", "0123456789abcdef"), Some(FrontEndNumber(0)));
        front_ends.put(added("fe-1", "one")).unwrap();
        front_ends.put(added("fe-2", "two")).unwrap();
        assert_eq!(front_ends.find("fe-1", "one"), Some(FrontEndNumber(1)));
        for (name, secret) in [("fe-1", "two"), ("fe-2", "one"), ("fe-1", ""), ("fe-0", "one")] {
            assert_eq!(front_ends.find(name, secret), None);
        }
        front_ends.remove("fe-1").unwrap();
        assert_eq!(front_ends.find("fe-1", "one"), None);
        assert_eq!(front_ends.find("fe-2", "two"), Some(FrontEndNumber(2)), "others keep their numbers");
        front_ends.put(added("fe-1", "three")).unwrap();
        assert_eq!(front_ends.find("fe-1", "three"), Some(FrontEndNumber(1)));
        assert!(matches!(front_ends.remove("fe-0"), Err(Error::Forbidden(_))));
        assert!(matches!(front_ends.remove("fe-9"), Err(Error::Gone(_))));
        let again = FrontEnds::open(dir.path(), &[]).unwrap();
        assert_eq!(again.find("fe-1", "three"), Some(FrontEndNumber(0)));
        assert_eq!(again.list().len(), 2);
        assert_eq!(again.named("fe-2").unwrap().call_back_host, "fe.example");
        fs::write(dir.path().join("front-ends/fe-2.json"), "{}").unwrap();
        assert!(FrontEnds::open(dir.path(), &[]).is_err());
    }

    #[test]
    fn no_secret_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let secret = new_secret().unwrap();
        assert!(secret.len() == 64 && secret != new_secret().unwrap());
        FrontEnds::open(dir.path(), &[]).unwrap().put(added("fe-1", &secret)).unwrap();
        let kept = fs::read_to_string(dir.path().join("front-ends/fe-1.json")).unwrap();
        assert!(!kept.contains(&secret));
    }
}
