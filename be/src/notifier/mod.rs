//! The notifier: owns the ledger of subscriptions and the socket that NOTIFYs leave from.
//!
//! The ledger decides; here are its clock, its lock, one task that wakes at its deadline, and one UDP
//! socket per address family. A commit hands its changes over while it still holds the mailbox, and the
//! datagram leaves in that same call: no queue and no task lie between the disk and the wire.
//!
//! Call-Back hosts are resolved once, when a front end first names one, and only the host and ports that
//! its configuration allows: the back end is nobody's reflector.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use directpush_common::clock::Moment;
use directpush_common::dav::poll::SubscriptionAnswer;
use directpush_common::dav::subscribe::DeviceEvent;
use directpush_common::httpu::{CallBack, Notify, SubscriptionId};
use directpush_common::names::DeviceKey;
use directpush_common::push::ledger::{
    FrontEndNumber, Ledger, LedgerCounters, LedgerFull, LedgerLimits, NewSubscription, Unsubscribed,
};
use directpush_common::push::wake::Wake;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::front_ends::FrontEnd;
use crate::config::Limits;
use crate::error::Error;
use crate::mailbox::{FolderChange, UserEvent, Watcher};

/// The subscriptions of this process.
pub struct Notifier {
    origin: Instant,
    ledger: Mutex<Ledger>,
    /// The ledger's deadline came nearer than the timer task knows.
    sooner: tokio::sync::Notify,
    timer_at: AtomicU64,
    v4: UdpSocket,
    v6: Option<UdpSocket>,
    addresses: RwLock<HashMap<(Box<str>, u16), SocketAddr>>,
    send_failures: AtomicU64,
}

/// A Call-Back that is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadTarget {
    #[error("the Call-Back names another host or port than this front end's")]
    NotAllowed,
    #[error("the Call-Back's host has no address here")]
    Unresolvable,
}

impl Notifier {
    /// Binds the sockets that NOTIFYs leave from; the ports are the system's choice. If HTTP has an address of
    /// its own, NOTIFYs leave from it too: that is where a front end expects them from. (Not 127.0.0.1, from which
    /// nothing would reach another host, should a proxy stand before HTTP.)
    pub fn new(limits: &Limits, http: IpAddr) -> Result<Arc<Self>, Error> {
        let bind = |address: SocketAddr| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let own = (http != Ipv4Addr::LOCALHOST && http != Ipv6Addr::LOCALHOST).then_some(http);
        let v4_from = own.filter(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let v6_from = own.filter(IpAddr::is_ipv6).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let v4 = bind((v4_from, 0).into()).map_err(Error::io("bind the UDP socket for NOTIFY"))?;
        let v6 = bind((v6_from, 0).into()).ok();
        let wakes_per_minute = limits.wakes_per_minute;
        let limits = LedgerLimits {
            per_mailbox: limits.subscriptions_per_mailbox_max,
            total: limits.subscriptions_max,
            datagrams_per_second: limits.datagrams_per_second,
        };
        let seed = getrandom::u64().unwrap_or(1);
        Ok(Arc::new(Self {
            origin: Instant::now(),
            ledger: Mutex::new(Ledger::new(limits, seed).with_wakes_per_minute(wakes_per_minute)),
            sooner: tokio::sync::Notify::new(),
            timer_at: AtomicU64::new(u64::MAX),
            v4,
            v6,
            addresses: RwLock::default(),
            send_failures: AtomicU64::new(0),
        }))
    }

    fn now(&self) -> Moment {
        let millis = self.origin.elapsed().as_millis();
        Moment(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Runs a few lines with the ledger, then sends what they gave rise to.
    fn with<T>(&self, work: impl FnOnce(&mut Ledger, Moment) -> T) -> T {
        let now = self.now();
        let (answer, datagrams, deadline) = {
            let mut ledger = self.ledger.lock();
            let answer = work(&mut ledger, now);
            (answer, ledger.take_datagrams(), ledger.deadline())
        };
        for datagram in &datagrams {
            self.send(datagram);
        }
        if deadline.0 < self.timer_at.load(Ordering::Acquire) {
            self.sooner.notify_one();
        }
        answer
    }

    /// Never waits: a datagram that finds the socket's buffer full is lost, as datagrams may be.
    fn send(&self, notify: &Notify) {
        let at = (Box::from(notify.call_back.host()), notify.call_back.port());
        let Some(address) = self.addresses.read().get(&at).copied() else { return };
        let socket = if address.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        let sent = socket.is_some_and(|socket| {
            let bytes = notify.encode();
            // An earlier datagram's ICMP error is reported on this one, whose fault it is not: try twice.
            socket.send_to(&bytes, address).or_else(|_| socket.send_to(&bytes, address)).is_ok()
        });
        if !sent && self.send_failures.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
            tracing::warn!(%address, "cannot send NOTIFY; POLL will have to find what it told");
        }
    }

    /// Runs the clock until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            // Whoever makes the deadline sooner from here on wakes us.
            self.timer_at.store(u64::MAX, Ordering::Release);
            let deadline = self.ledger.lock().deadline();
            self.timer_at.store(deadline.0, Ordering::Release);
            let far = self.origin + std::time::Duration::from_hours(24 * 365);
            let due =
                self.origin.checked_add(std::time::Duration::from_millis(deadline.0)).unwrap_or(far).min(far);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.sooner.notified() => {}
                () = tokio::time::sleep_until(due) => self.with(Ledger::handle_time),
            }
        }
    }

    /// Checks a Call-Back against its front end's configuration and finds its address, once.
    pub async fn resolve(&self, front_end: &FrontEnd, call_back: &CallBack) -> Result<(), BadTarget> {
        let allowed = call_back.host().eq_ignore_ascii_case(&front_end.call_back_host)
            && front_end.call_back_ports.contains(&call_back.port());
        if !allowed {
            return Err(BadTarget::NotAllowed);
        }
        let at = (Box::from(call_back.host()), call_back.port());
        if self.addresses.read().contains_key(&at) {
            return Ok(());
        }
        let host = call_back.host().trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((host, call_back.port()))
            .await
            .map_err(|_| BadTarget::Unresolvable)?
            .filter(|address| address.is_ipv4() || self.v6.is_some())
            // One address for ever: a name that resolves elsewhere later cannot turn us round.
            .min_by_key(SocketAddr::is_ipv6)
            .filter(|address| !address.ip().is_multicast() && !address.ip().is_unspecified())
            .ok_or(BadTarget::Unresolvable)?;
        self.addresses.write().insert(at, found);
        Ok(())
    }

    /// Registers a subscription; the comparison comes after it, with [`Notifier::compared`].
    pub fn subscribe(&self, new: &NewSubscription) -> Result<SubscriptionId, LedgerFull> {
        self.with(|ledger, now| ledger.handle_subscribe(now, new))
    }

    /// What the comparison with the store found. Returns what the answer to SUBSCRIBE has to say of it: `Later`
    /// instead of `Now` while the device's budget of wakes is used up.
    pub fn compared(&self, id: SubscriptionId, found: Wake) -> Wake {
        self.with(|ledger, now| ledger.handle_compared(now, id, found))
    }

    /// Takes back a subscription that was never answered.
    pub fn withdraw(&self, id: SubscriptionId) {
        self.with(|ledger, _| ledger.handle_withdrawn(id));
    }

    pub fn renew(
        &self,
        front_end: FrontEndNumber,
        ids: &[SubscriptionId],
        lifetime_secs: u32,
    ) -> Vec<SubscriptionAnswer> {
        self.with(|ledger, now| ledger.handle_renew(now, front_end, ids, lifetime_secs))
    }

    pub fn unsubscribe(
        &self,
        front_end: FrontEndNumber,
        ids: &[SubscriptionId],
        only_if_changed: bool,
    ) -> Unsubscribed {
        self.with(|ledger, now| ledger.handle_unsubscribe(now, front_end, ids, only_if_changed))
    }

    pub fn poll(&self, front_end: FrontEndNumber, ids: &[SubscriptionId]) -> Vec<SubscriptionAnswer> {
        self.with(|ledger, now| ledger.handle_poll(now, front_end, ids))
    }

    pub fn poll_call_back(
        &self,
        front_end: FrontEndNumber,
        call_back: &CallBack,
        poll_interval_secs: u32,
    ) -> (Vec<SubscriptionAnswer>, usize) {
        self.with(|ledger, now| ledger.handle_poll_call_back(now, front_end, call_back, poll_interval_secs))
    }

    /// Subscriptions now, and what happened so far.
    pub fn counters(&self) -> (usize, LedgerCounters) {
        let ledger = self.ledger.lock();
        (ledger.len(), ledger.counters())
    }
}

impl Watcher for Notifier {
    fn changed(&self, mailbox: u64, changes: &[FolderChange]) {
        self.with(|ledger, now| {
            for change in changes {
                ledger.handle_change(now, mailbox, change.folder, &change.entry);
            }
        });
    }

    fn hierarchy(&self, mailbox: u64, by: Option<&DeviceKey>) {
        self.with(|ledger, now| ledger.handle_event(now, mailbox, None, by, DeviceEvent::Hierarchy));
    }

    fn device_event(&self, mailbox: u64, device: Option<&DeviceKey>, event: DeviceEvent) {
        self.with(|ledger, now| ledger.handle_event(now, mailbox, device, None, event));
    }

    fn user_event(&self, mailbox: u64, event: UserEvent) {
        let event = match event {
            UserEvent::Password => DeviceEvent::Password,
            UserEvent::Disabled | UserEvent::Removed => DeviceEvent::Disabled,
            UserEvent::Policy => DeviceEvent::Policy,
        };
        self.with(|ledger, now| ledger.handle_event(now, mailbox, None, None, event));
    }
}
