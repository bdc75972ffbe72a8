//! A phone in the world: `core::Phone` on a connection that may break at any moment.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use directpush_common::{clock::Moment, eas::ping::PingResponse, names::DeviceKey, wbxml::Limits};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::World;
use crate::core::{Phone, Profile, Request, Response, Task};

pub(crate) struct Device {
    pub(crate) phone: RefCell<Phone>,
    pub(crate) mailbox: usize,
    pub(crate) key: DeviceKey,
    front: Cell<usize>,
    /// Its owner wants something: the Ping is given up.
    wish: Notify,
    /// Whether the connection that it leaves stays open.
    roams: Cell<bool>,
    /// When a Ping was last answered 2.
    pub(crate) woken: Cell<Option<Moment>>,
}

enum Ended {
    Answered(Response),
    Lost,
    Late,
    Wished,
}

impl Device {
    pub(crate) fn start(world: &Rc<World>, mailbox: usize, profile: Profile) -> Rc<Self> {
        let key = DeviceKey::new(profile.device_type.as_str(), profile.device_id.as_str()).unwrap();
        let device = Rc::new(Self {
            phone: RefCell::new(Phone::new(profile)),
            mailbox,
            key,
            front: Cell::new(0),
            wish: Notify::new(),
            roams: Cell::new(false),
            woken: Cell::new(None),
        });
        tokio::task::spawn_local(Rc::clone(&device).live(Rc::clone(world)));
        device
    }

    /// Goes on at another front end; the connection to the old one stays open there.
    pub(crate) fn roam(&self, front: usize) {
        self.front.set(front);
        self.roams.set(true);
        self.wish.notify_one();
    }

    /// Changes something on the phone, which uploads it at once.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Phone)) {
        edit(&mut self.phone.borrow_mut());
        self.wish.notify_one();
    }

    /// Whether its Ping waits.
    pub(crate) fn is_pinging(&self) -> bool {
        matches!(self.phone.borrow().outstanding(), Some(Task::Ping(_)))
    }

    pub(crate) fn has(&self, subject: &str) -> bool {
        let phone = self.phone.borrow();
        phone.mailbox().folders.values().any(|f| f.items.values().any(|held| &*held.subject == subject))
    }

    async fn live(self: Rc<Self>, world: Rc<World>) {
        loop {
            let now = world.now();
            let request = self.phone.borrow_mut().next_request(now);
            let Some(request) = request else {
                assert_eq!(self.phone.borrow().trouble(), None);
                let wait = self.phone.borrow().deadline().since(now).min(Duration::from_hours(24));
                tokio::select! {
                    biased;
                    () = sleep(wait) => {}
                    () = self.wish.notified() => { self.roams.set(false); }
                }
                continue;
            };
            match self.exchange(&world, &request).await {
                Ended::Answered(response) => {
                    let changed = PingResponse::decode(&response.body, Limits::default());
                    if matches!(changed, Ok(PingResponse::Changed(_))) {
                        self.woken.set(Some(world.now()));
                    }
                    self.phone.borrow_mut().handle_response(world.now(), &response);
                }
                Ended::Lost => self.phone.borrow_mut().handle_lost(world.now()),
                Ended::Late => {
                    self.phone.borrow_mut().handle_time(world.now().max(request.give_up));
                }
                Ended::Wished => {
                    if !self.phone.borrow_mut().handle_wish(world.now()) {
                        // Only a Ping is given up; what else was out is as good as lost.
                        self.phone.borrow_mut().handle_lost(world.now());
                    }
                }
            }
        }
    }

    async fn exchange(&self, world: &Rc<World>, request: &Request) -> Ended {
        let front = self.front.get();
        let (served, mailbox, key) = (Rc::clone(world), self.mailbox, self.key.clone());
        let asked = request.clone();
        // The request lives on the front end's side; the answer to a device that roamed goes nowhere.
        let talk = tokio::task::spawn_local(async move {
            served.net.air().await;
            let front = served.front(front)?;
            let answer = tokio::select! {
                biased;
                () = front.dead.cancelled() => None,
                answer = Rc::clone(&front).handle(mailbox, key, asked) => Some(answer),
            };
            served.net.air().await;
            answer
        });
        let mut talk = HangUp(Some(talk));
        let give_up = Instant::now() + request.give_up.since(world.now());
        let Some(answer) = talk.0.as_mut() else { return Ended::Lost };
        let ended = tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(Some(response)) => Ended::Answered(response),
                _ => Ended::Lost,
            },
            () = tokio::time::sleep_until(give_up) => Ended::Late,
            () = self.wish.notified(), if matches!(request.task, Task::Ping(_)) => Ended::Wished,
        };
        if self.roams.replace(false) {
            // The other side still believes in this connection.
            talk.0 = None;
        }
        ended
    }
}

/// Ends the conversation when the device drops it: the front end sees the connection close.
struct HangUp(Option<JoinHandle<Option<Response>>>);

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(talk) = &self.0 {
            talk.abort();
        }
    }
}
