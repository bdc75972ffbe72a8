//! Blocking work off the async workers, a bounded number of pieces at a time.
//!
//! sled may read from the disk and waits while a batch is applied, so no part of it is ever called on
//! an async worker. Work runs on tokio's blocking threads, which start on demand and end when idle;
//! the semaphore is what bounds it, and it is fair.

use std::{io, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};

use super::StoreError;

/// Runs blocking work, at most `width` pieces at once; more of them wait without a thread.
pub(crate) struct Pool(Arc<Semaphore>);

impl Pool {
    pub(crate) fn new(width: usize) -> Self {
        Self(Arc::new(Semaphore::new(width.max(1))))
    }

    /// Runs `work` and answers what it answers. When the future is dropped before a thread has taken
    /// the work, it is not done; after that it is done to its end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| StoreError::Stopped)?;
        let done = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.unwrap_or_else(|died| Err(StoreError::io("run a store call", io::Error::other(died))))
    }
}
