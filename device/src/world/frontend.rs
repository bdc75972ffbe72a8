//! The front end: one process with its routing table, its POLL, and the commands.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use directpush_common::{
    clock::Moment,
    eas::{
        folder_sync::{Folder, FolderSyncRequest, FolderSyncResponse, FolderType, HierarchyChanges},
        header,
        status::FolderSyncStatus,
    },
    httpu::{CallBack, Notify as Datagram},
    names::{DeviceKey, Guid},
    numbers::Number,
    push::{ledger::FrontEndNumber, routing::Routing},
    wbxml::Limits,
};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{FOLDERS, POLL_SECS, World, folder_id};
use crate::core::{Request, Response, Task};

/// The hierarchy never changes here.
pub(super) const HIERARCHY: Number = Number(1);

pub(crate) struct Frontend {
    pub(super) world: Rc<World>,
    pub(super) index: usize,
    pub(crate) dead: CancellationToken,
    pub(super) call_back: CallBack,
    pub(super) routing: RefCell<Routing>,
    pub(super) sooner: Notify,
    /// Findings of POLL that no datagram had announced.
    pub(crate) unannounced: Cell<usize>,
    /// When a device was last told of folders that it never syncs.
    pub(super) unsynced_told: RefCell<HashMap<DeviceKey, Moment>>,
}

impl Frontend {
    pub(crate) fn start(world: &Rc<World>, index: usize) -> Rc<Self> {
        let guid = Guid::from_random(world.net.bytes());
        let call_back = CallBack::new(&format!("fe{index}"), 2883, guid).unwrap();
        let front = Rc::new(Self {
            world: Rc::clone(world),
            index,
            dead: CancellationToken::new(),
            routing: RefCell::new(Routing::new(call_back.clone())),
            call_back,
            sooner: Notify::new(),
            unannounced: Cell::new(0),
            unsynced_told: RefCell::default(),
        });
        front.spawn(Rc::clone(&front).keep_time());
        front.spawn(Rc::clone(&front).poll());
        front.spawn(Rc::clone(&front).watch_backend());
        front
    }

    fn spawn(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let dead = self.dead.clone();
        tokio::task::spawn_local(async move {
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                () = work => {}
            }
        });
    }

    pub(super) fn number(&self) -> FrontEndNumber {
        FrontEndNumber(u16::try_from(self.index).unwrap())
    }

    pub(super) fn now(&self) -> Moment {
        self.world.now()
    }

    pub(crate) fn handle_datagram(&self, bytes: &[u8]) {
        let notify = Datagram::decode(bytes).unwrap();
        self.routing.borrow_mut().handle_notify(&notify);
        self.sooner.notify_one();
    }

    async fn keep_time(self: Rc<Self>) {
        loop {
            let wait = self.routing.borrow().deadline().since(self.now()).min(Duration::from_hours(24));
            tokio::select! {
                biased;
                () = self.sooner.notified() => {}
                () = sleep(wait) => {
                    let now = self.now();
                    self.routing.borrow_mut().handle_time(now);
                }
            }
        }
    }

    async fn poll(self: Rc<Self>) {
        let mut fewer = 0;
        loop {
            sleep(Duration::from_secs(if fewer > 0 { 2 } else { u64::from(POLL_SECS) })).await;
            let known = self.routing.borrow().subscriptions_at(0);
            let polled = self.world.backend.call(self.index, async |backend| {
                backend.ledger(|ledger, now| {
                    ledger.handle_poll_call_back(now, self.number(), &self.call_back, POLL_SECS)
                })
            });
            let Some((answers, count)) = polled.await else { continue };
            let news = self.routing.borrow_mut().handle_polled(&answers);
            self.unannounced.set(self.unannounced.get() + news);
            // Twice in a row, because the two counts are not of the same instant.
            fewer = if count < known { fewer + 1 } else { 0 };
            if fewer >= 2 {
                self.routing.borrow_mut().handle_backend_restarted(0);
                fewer = 0;
            }
            self.sooner.notify_one();
        }
    }

    /// The idle connection to the back end breaks when that dies; a new one stands soon after it is back.
    async fn watch_backend(self: Rc<Self>) {
        let mut boots = self.world.backend.boot.subscribe();
        let mut known = *boots.borrow_and_update();
        while boots.changed().await.is_ok() {
            let boot = *boots.borrow_and_update();
            if boot == 0 {
                continue;
            }
            let late = self.world.net.pick(100..1000);
            sleep(Duration::from_millis(late)).await;
            while self.world.net.is_cut(self.index) {
                sleep(Duration::from_secs(1)).await;
            }
            let now = *self.world.backend.boot.borrow();
            if now != 0 && now != known {
                known = now;
                self.routing.borrow_mut().handle_backend_restarted(0);
                self.sooner.notify_one();
            }
        }
    }

    /// One command of a device.
    pub(crate) async fn handle(
        self: Rc<Self>,
        mailbox: usize,
        device: DeviceKey,
        request: Request,
    ) -> Response {
        let answered = match &request.task {
            Task::Options => Some(options()),
            Task::FolderSync => self.folder_sync(&device, &request.body).await,
            Task::Sync(_) => self.sync(mailbox, &device, &request.body).await,
            Task::Ping(_) => Some(self.ping(mailbox, &device, &request.body).await),
            Task::ProvisionAsk | Task::ProvisionAcknowledge(_) => {
                unreachable!("nobody demands a policy here")
            }
        };
        answered.unwrap_or_else(|| busy(5 + self.world.net.pick(0..10)))
    }

    async fn folder_sync(&self, device: &DeviceKey, body: &[u8]) -> Option<Response> {
        let request = FolderSyncRequest::decode(body, Limits::default()).unwrap();
        let key: u32 = request.sync_key.parse().unwrap();
        self.world
            .backend
            .call(self.index, async |backend| {
                let mut devices = backend.devices.borrow_mut();
                let state = &mut devices.entry(device.to_string()).or_default().hierarchy;
                let known = state.known(key);
                if key != 0 && known.is_none() {
                    return body_of(FolderSyncResponse::Failed(FolderSyncStatus::InvalidSyncKey).encode());
                }
                *state = state.answered(key, HIERARCHY);
                let kinds = [FolderType::Inbox, FolderType::Sent];
                let folder = |(counter, kind): (&u64, FolderType)| Folder {
                    server_id: folder_id(*counter).to_string(),
                    parent_id: "0".to_owned(),
                    display_name: format!("{kind:?}"),
                    kind,
                };
                let added = if known.is_none() {
                    FOLDERS.iter().zip(kinds).map(folder).collect()
                } else {
                    Vec::new()
                };
                let sync_key = state.key.to_string();
                let changes = HierarchyChanges { sync_key, added, ..HierarchyChanges::default() };
                body_of(FolderSyncResponse::Changes(changes).encode())
            })
            .await
    }
}

fn options() -> Response {
    let headers = [(header::PROTOCOL_VERSIONS, "2.5,12.1,14.1"), (header::PROTOCOL_COMMANDS, "Sync,Ping")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Response { status: 200, headers, body: Vec::new() }
}

pub(super) fn body_of(body: Vec<u8>) -> Response {
    Response { status: 200, headers: Vec::new(), body }
}

pub(super) fn busy(secs: u64) -> Response {
    Response { status: 503, headers: vec![("retry-after".to_owned(), secs.to_string())], body: Vec::new() }
}
