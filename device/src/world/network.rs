//! The network: connections that delay, datagrams that do worse, partitions.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    time::Duration,
};

use tokio::time::sleep;

/// What becomes of datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Part that is lost.
    pub(crate) loss: f64,
    /// Part of the rest that comes twice.
    pub(crate) duplicates: f64,
    /// Milliseconds on the way; a wide range reorders.
    pub(crate) late: (u64, u64),
}

impl Weather {
    pub(crate) const FAIR: Self = Self { loss: 0.0, duplicates: 0.0, late: (0, 2) };
    pub(crate) const FOUL: Self = Self { loss: 0.5, duplicates: 0.5, late: (0, 500) };
    pub(crate) const NOTHING_ARRIVES: Self = Self { loss: 1.0, duplicates: 0.0, late: (0, 2) };
}

/// The network and the world's only source of chance.
pub(crate) struct Network {
    rng: RefCell<fastrand::Rng>,
    pub(crate) weather: Cell<Weather>,
    /// Front ends that cannot reach the back end, one bit each.
    partitioned: Cell<u32>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = RefCell::new(fastrand::Rng::with_seed(seed));
        Self { rng, weather: Cell::new(Weather::FAIR), partitioned: Cell::new(0) }
    }

    pub(crate) fn chance(&self, part: f64) -> bool {
        self.rng.borrow_mut().f64() < part
    }

    pub(crate) fn pick(&self, range: Range<u64>) -> u64 {
        self.rng.borrow_mut().u64(range)
    }

    pub(crate) fn bytes(&self) -> [u8; 16] {
        self.rng.borrow_mut().u128(..).to_be_bytes()
    }

    /// A message on a connection within the data centre.
    pub(crate) async fn hop(&self) {
        let millis = self.pick(0..4);
        sleep(Duration::from_millis(millis)).await;
    }

    /// A message between a phone and a front end.
    pub(crate) async fn air(&self) {
        let millis = self.pick(20..200);
        sleep(Duration::from_millis(millis)).await;
    }

    /// When each copy of a datagram arrives, in milliseconds from now.
    pub(crate) fn copies(&self) -> Vec<u64> {
        let Weather { loss, duplicates, late } = self.weather.get();
        let count = match (self.chance(loss), self.chance(duplicates)) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        };
        (0..count).map(|_| self.pick(late.0..late.1 + 1)).collect()
    }

    pub(crate) fn partition(&self, front: usize, cut: bool) {
        let bit = 1 << front;
        let now = self.partitioned.get();
        self.partitioned.set(if cut { now | bit } else { now & !bit });
    }

    pub(crate) fn is_cut(&self, front: usize) -> bool {
        self.partitioned.get() & (1 << front) != 0
    }
}
