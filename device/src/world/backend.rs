//! The back end: mailboxes and device state that last, and a ledger that does not outlive the process.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::Rc,
    time::Duration,
};

use directpush_common::{
    autd::AutdState,
    change::Entry,
    clock::Moment,
    numbers::Number,
    push::ledger::{Ledger, LedgerLimits},
    sync::state::{CollectionState, FolderSyncState},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::{FOLDERS, World, mailbox::Folder, moment, network::Network};

/// How long a front end waits for an answer that does not come.
const SILENCE: Duration = Duration::from_secs(5);

/// What is kept of one device.
#[derive(Clone, Default)]
pub(crate) struct DeviceState {
    pub(crate) autd: Option<AutdState>,
    pub(crate) autd_writes: u32,
    pub(crate) hierarchy: FolderSyncState,
    /// With a version each, for If-Match.
    pub(crate) collections: HashMap<u64, (u64, CollectionState)>,
}

pub(crate) struct Backend {
    net: Rc<Network>,
    origin: Instant,
    mailboxes: RefCell<Vec<BTreeMap<u64, Folder>>>,
    pub(crate) devices: RefCell<HashMap<String, DeviceState>>,
    ledger: RefCell<Ledger>,
    /// The boot id; 0 = down.
    pub(crate) boot: watch::Sender<u64>,
    boots: Cell<u64>,
    sooner: Notify,
}

impl Backend {
    pub(crate) fn new(net: Rc<Network>, origin: Instant) -> Rc<Self> {
        Rc::new(Self {
            ledger: RefCell::new(Ledger::new(LedgerLimits::default(), net.pick(0..u64::MAX))),
            net,
            origin,
            mailboxes: RefCell::default(),
            devices: RefCell::default(),
            boot: watch::channel(1).0,
            boots: Cell::new(1),
            sooner: Notify::new(),
        })
    }

    fn now(&self) -> Moment {
        moment(self.origin)
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.boot.borrow() != 0
    }

    /// The process dies; mailboxes and device state stay.
    pub(crate) fn kill(&self) {
        self.boot.send_replace(0);
        *self.ledger.borrow_mut() = Ledger::new(LedgerLimits::default(), self.net.pick(0..u64::MAX));
    }

    pub(crate) fn start(&self) {
        self.boots.set(self.boots.get() + 1);
        self.boot.send_replace(self.boots.get());
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.ledger.borrow().len()
    }

    /// A folder, made when it is first named.
    pub(crate) fn folder<T>(&self, mailbox: usize, folder: u64, look: impl FnOnce(&mut Folder) -> T) -> T {
        let mut mailboxes = self.mailboxes.borrow_mut();
        while mailboxes.len() <= mailbox {
            let last = Rc::new(Cell::new(Number::ZERO));
            let folders = FOLDERS.iter().map(|folder| (*folder, Folder::new(Rc::clone(&last))));
            mailboxes.push(folders.collect());
        }
        look(mailboxes[mailbox].get_mut(&folder).unwrap())
    }

    /// Commits a change and tells the ledger. Nothing is committed while the back end is down.
    pub(crate) fn change(
        &self,
        mailbox: usize,
        folder: u64,
        change: impl FnOnce(&mut Folder) -> Option<Entry>,
    ) -> bool {
        if !self.is_up() {
            return false;
        }
        let entry = self.folder(mailbox, folder, change);
        if let Some(entry) = &entry {
            self.ledger(|ledger, now| ledger.handle_change(now, mailbox as u64, folder, entry));
        }
        entry.is_some()
    }

    pub(crate) fn ledger<T>(&self, work: impl FnOnce(&mut Ledger, Moment) -> T) -> T {
        let done = work(&mut self.ledger.borrow_mut(), self.now());
        self.sooner.notify_one();
        done
    }

    /// A request of a front end: the way there, `work`, the way back. `None` when the connection broke, even if the
    /// work was done.
    pub(crate) async fn call<T>(&self, front: usize, work: impl AsyncFnOnce(&Self) -> T) -> Option<T> {
        self.net.hop().await;
        if self.net.is_cut(front) {
            sleep(SILENCE).await;
            return None;
        }
        let boot = *self.boot.borrow();
        if boot == 0 {
            return None;
        }
        let done = work(self).await;
        self.net.hop().await;
        if self.net.is_cut(front) {
            sleep(SILENCE).await;
            return None;
        }
        (*self.boot.borrow() == boot).then_some(done)
    }
}

/// Runs the ledger's clock and carries its datagrams, for ever.
pub(crate) fn listen(world: &Rc<World>) {
    let world = Rc::clone(world);
    tokio::task::spawn_local(async move {
        let backend = &world.backend;
        loop {
            let datagrams = backend.ledger.borrow_mut().take_datagrams();
            for notify in datagrams {
                let front: usize = notify.call_back.host().trim_start_matches("fe").parse().unwrap();
                let bytes = notify.encode();
                for millis in world.net.copies() {
                    let (world, bytes) = (Rc::clone(&world), bytes.clone());
                    tokio::task::spawn_local(async move {
                        sleep(Duration::from_millis(millis)).await;
                        if let Some(front) = world.front(front).filter(|_| !world.net.is_cut(front)) {
                            front.handle_datagram(&bytes);
                        }
                    });
                }
            }
            let deadline = backend.ledger.borrow().deadline();
            let wait = deadline.since(backend.now()).min(Duration::from_hours(24));
            tokio::select! {
                biased;
                () = backend.sooner.notified() => {}
                () = sleep(wait) => {
                    if backend.is_up() {
                        let now = backend.now();
                        backend.ledger.borrow_mut().handle_time(now);
                    }
                }
            }
        }
    });
}
