//! Who may hold a connection: so that strangers who say nothing never keep front ends out.
//!
//! A connection is a stranger's until a request on it has proved a credential. Strangers are let go soon when
//! they are silent, and the oldest of them makes room for whoever comes when an address, or all
//! addresses together, hold too many. A quarter of all places is for front ends alone, whose addresses
//! are known by the credential they proved; a front end's quiet connection, which never says anything, may
//! therefore stay.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;

/// A user's connection may be idle for so long.
const USER_IDLE: Duration = Duration::from_mins(5);
/// An address is a front end's for so long after it proved to be.
const KNOWN: Duration = Duration::from_hours(1);
/// Addresses of front ends remembered.
const KNOWN_MAX: usize = 4096;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    Stranger,
    User,
    FrontEnd,
}

/// All places.
pub(crate) struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    held: HashMap<u64, Held>,
    /// Connections of each address that are no front end's.
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
    /// Strangers, the oldest first.
    strangers: BTreeMap<u64, IpAddr>,
    /// Connections from where a front end is known to be that have proved nothing: its quiet ones, or somebody
    /// else's behind the same address. They make room after the strangers.
    unproven: BTreeMap<u64, IpAddr>,
    front_ends: HashMap<IpAddr, Instant>,
}

struct Held {
    address: IpAddr,
    owner: Owner,
    leave: CancellationToken,
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    /// Cancelled when somebody else needs the place.
    pub(super) leave: CancellationToken,
}

impl Taken {
    fn release(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.strangers.remove(&id);
        self.unproven.remove(&id);
        self.forget_address(id, held.address);
        Some(held)
    }

    fn forget_address(&mut self, id: u64, address: IpAddr) {
        if let Some(ids) = self.by_address.get_mut(&address) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    /// The oldest stranger, of one address or of all, goes. Says whether there was one.
    fn make_room(&mut self, address: Option<IpAddr>) -> bool {
        let oldest = match address {
            None => self.strangers.keys().next().or_else(|| self.unproven.keys().next()).copied(),
            Some(address) => {
                let ids = self.by_address.get(&address);
                ids.and_then(|ids| ids.iter().copied().find(|id| self.strangers.contains_key(id)))
            }
        };
        let held = oldest.and_then(|id| self.release(id));
        held.map(|held| held.leave.cancel()).is_some()
    }

    fn is_front_end(&self, address: IpAddr, now: Instant) -> bool {
        self.front_ends.get(&address).is_some_and(|proved| now < *proved + KNOWN)
    }
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// A place for a new connection; none if there is none, not even by sending a stranger away.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Place> {
        let mut taken = self.taken.lock();
        let front_end = taken.is_front_end(address, now);
        if taken.held.len() >= self.limits.connections_max && !taken.make_room(None) {
            return None;
        }
        if front_end {
            let of_address = taken.unproven.iter().filter(|(_, from)| **from == address).map(|(id, _)| *id);
            let of_address: Vec<u64> = of_address.collect();
            if of_address.len() >= self.limits.connections_per_address_max
                && let Some(held) = of_address.first().and_then(|oldest| taken.release(*oldest))
            {
                held.leave.cancel();
            }
        } else {
            let own = taken.by_address.get(&address).map_or(0, BTreeSet::len);
            if own >= self.limits.connections_per_address_max && !taken.make_room(Some(address)) {
                return None;
            }
            let others: usize = taken.by_address.values().map(BTreeSet::len).sum();
            let others_max = (self.limits.connections_max / 4 * 3).max(1);
            if others >= others_max && !taken.make_room(None) {
                return None;
            }
        }
        let id = taken.next;
        taken.next += 1;
        let leave = CancellationToken::new();
        let owner = if front_end { Owner::FrontEnd } else { Owner::Stranger };
        if front_end {
            taken.unproven.insert(id, address);
        } else {
            taken.by_address.entry(address).or_default().insert(id);
            taken.strangers.insert(id, address);
        }
        taken.held.insert(id, Held { address, owner, leave: leave.clone() });
        Some(Place { places: self.clone(), id, leave })
    }
}

impl Place {
    /// A request on this connection has proved a credential.
    pub(super) fn prove(&self, owner: Owner, now: Instant) {
        let mut taken = self.places.taken.lock();
        let Some(held) = taken.held.get_mut(&self.id) else { return };
        let address = held.address;
        held.owner = owner;
        taken.strangers.remove(&self.id);
        if taken.unproven.remove(&self.id).is_some() && owner == Owner::User {
            taken.by_address.entry(address).or_default().insert(self.id);
        }
        if owner == Owner::FrontEnd {
            taken.forget_address(self.id, address);
            if taken.front_ends.len() >= KNOWN_MAX {
                taken.front_ends.retain(|_, proved| now < *proved + KNOWN);
            }
            if taken.front_ends.len() < KNOWN_MAX {
                taken.front_ends.insert(address, now);
            }
        }
    }

    /// How long this connection may be idle.
    pub(super) fn patience(&self) -> Duration {
        let limits = &self.places.limits;
        let owner = self.places.taken.lock().held.get(&self.id).map_or(Owner::Stranger, |held| held.owner);
        let idle = Duration::from_secs(limits.idle_secs);
        match owner {
            Owner::FrontEnd => idle,
            Owner::User => idle.min(USER_IDLE),
            Owner::Stranger => idle.min(Duration::from_secs(limits.request_secs)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().release(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn places(connections_max: usize, connections_per_address_max: usize) -> Arc<Places> {
        Places::new(Limits { connections_max, connections_per_address_max, ..Limits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_stranger_of_an_address_makes_room_and_users_do_not() {
        let (places, now) = (places(100, 2), Instant::now());
        let one = places.enter(A, now).unwrap();
        let two = places.enter(A, now).unwrap();
        let three = places.enter(A, now).unwrap();
        assert!(one.leave.is_cancelled() && !two.leave.is_cancelled());
        two.prove(Owner::User, now);
        three.prove(Owner::User, now);
        assert!(places.enter(A, now).is_none());
        assert!(places.enter(B, now).is_some());
        drop(two);
        drop(one);
        assert!(places.enter(A, now).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_shares_a_front_ends_address_cannot_take_its_places() {
        let (places, now) = (places(8, 3), Instant::now());
        let proved = places.enter(A, now).unwrap();
        proved.prove(Owner::FrontEnd, now);
        let quiet: Vec<_> = (0..20).filter_map(|_| places.enter(A, now)).collect();
        assert_eq!(quiet.iter().filter(|place| !place.leave.is_cancelled()).count(), 3);
        let users: Vec<_> = (0..5).map(|_| places.enter(A, now).unwrap()).collect();
        for place in &users {
            place.prove(Owner::User, now);
        }
        let late = places.enter(A, now).unwrap();
        assert!(!proved.leave.is_cancelled() && !late.leave.is_cancelled());
        assert!(places.enter(B, now).is_some(), "the oldest that proved nothing makes room");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_never_keep_a_front_end_out() {
        let (places, now) = (places(8, 100), Instant::now());
        let first = places.enter(B, now).unwrap();
        assert_eq!(first.patience(), Duration::from_secs(30));
        first.prove(Owner::FrontEnd, now);
        assert_eq!(first.patience(), Duration::from_hours(1));
        let strangers: Vec<_> = (0..20).filter_map(|_| places.enter(A, now)).collect();
        assert_eq!(strangers.iter().filter(|place| !place.leave.is_cancelled()).count(), 6);
        for place in &strangers {
            place.prove(Owner::User, now);
        }
        assert!(places.enter(A, now).is_none(), "three quarters are taken by users");
        let quiet = places.enter(B, now).unwrap();
        assert_eq!(quiet.patience(), Duration::from_hours(1), "its address is known");
        drop((first, quiet));
        let late = now + KNOWN;
        assert!(places.enter(B, late).is_none(), "and forgotten after an hour");
    }
}
