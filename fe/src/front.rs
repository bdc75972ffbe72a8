//! What all requests of a front end share.

use std::collections::HashMap;
use std::sync::Arc;

use directpush_common::clock::Moment;
use directpush_common::event::Event;
use directpush_common::push::heartbeat::Sampler;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::access_log::AccessLog;
use crate::auth::Logons;
use crate::backend::Backends;
use crate::clock::Clock;
use crate::config::Config;
use crate::device::Devices;
use crate::eas::compose::desk::Desk;
use crate::eas::content::Content;
use crate::eas::folders::Folders;
use crate::events;
use crate::http::patience::Patience;
use crate::push::{Engine, Words};
use crate::throttle::Throttle;

/// Messages that devices are sending at the same time take no more than this, in KiB, and about three times as much while
/// they are composed.
pub const MAIL_ROOM_KIB: usize = 256 << 10;

/// One front end.
pub struct Front {
    /// As configured.
    pub config: Config,
    /// Its clock.
    pub clock: Clock,
    /// The back ends.
    pub backends: Arc<Backends>,
    /// Who proved a password.
    pub logons: Logons,
    /// Who waits.
    pub engine: Arc<Engine>,
    /// What is remembered of devices.
    pub devices: Devices,
    /// Paths and User-Agents, each kept once.
    pub words: Words,
    /// What is remembered of hierarchies.
    pub folders: Folders,
    /// Where messages are rendered.
    pub content: Content,
    /// Where messages are composed.
    pub desk: Desk,
    /// Memory for messages that devices are sending, in KiB.
    pub mail_room: Arc<Semaphore>,
    /// One line per request.
    pub access_log: Arc<AccessLog>,
    /// How often a device may ask.
    pub throttle: Throttle,
    /// How slow a device may be.
    pub patience: Patience,
    sampler: Mutex<Sampler>,
    users: Mutex<Users>,
}

/// What the devices of each user take.
#[derive(Default)]
struct Users {
    minute: u64,
    of: HashMap<u64, Taken>,
}

#[derive(Clone, Copy, Default)]
struct Taken {
    waiting: u32,
    this_minute: u32,
}

impl Front {
    /// A front end around these parts.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new(
        config: Config,
        engine: Arc<Engine>,
        backends: Arc<Backends>,
        access_log: Arc<AccessLog>,
    ) -> Result<Arc<Self>, getrandom::Error> {
        let sampler = Sampler::new(config.hbi_sample_size as usize, config.hbi_alert_threshold);
        Ok(Arc::new(Self {
            clock: engine.clock(),
            backends,
            logons: Logons::new()?,
            engine,
            devices: Devices::default(),
            words: Words::default(),
            folders: Folders::default(),
            content: Content::default(),
            desk: Desk::default(),
            mail_room: Arc::new(Semaphore::new(MAIL_ROOM_KIB)),
            access_log,
            throttle: Throttle::new(config.throttle),
            patience: Patience::default(),
            sampler: Mutex::new(sampler),
            users: Mutex::default(),
            config,
        }))
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A heartbeat was granted: event 3033 when their average says that a firewall is in the way.
    pub fn sample(&self, heartbeat_secs: u32) {
        let mut sampler = self.sampler.lock();
        if let Some(average) = sampler.handle_sample(heartbeat_secs) {
            let (samples, threshold) = (sampler.samples(), self.config.hbi_alert_threshold);
            drop(sampler);
            events::log(&Event::HeartbeatsShort { samples, average, threshold });
        }
    }

    /// Gives one more waiting Ping of this user a place, if the bounds leave one; [`Front::dismiss`] takes it back.
    pub fn admit(&self, user: u64) -> bool {
        let minute = self.now().0 / 60_000;
        let mut users = self.users.lock();
        if users.minute != minute {
            users.minute = minute;
            users.of.retain(|_, taken| taken.waiting > 0);
            users.of.values_mut().for_each(|taken| taken.this_minute = 0);
        }
        let taken = users.of.entry(user).or_default();
        // Two Pings of a device may wait.
        let room = taken.waiting < self.config.max_devices_per_user.saturating_mul(2)
            && taken.this_minute < self.config.max_pings_per_user_and_minute;
        if room {
            taken.waiting += 1;
            taken.this_minute += 1;
        }
        room
    }

    /// A Ping that was admitted waits no longer.
    pub fn dismiss(&self, user: u64) {
        if let Some(taken) = self.users.lock().of.get_mut(&user) {
            taken.waiting = taken.waiting.saturating_sub(1);
        }
    }
}
